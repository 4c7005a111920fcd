"""One tree out of several: `extends`, `--set`, `${variables}`."""

from __future__ import annotations

import os

from launcher.errors import InputError, Place
from launcher.nodes import Mapping, Scalar, Sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from launcher.nodes import Node

    Read = Callable[[str], Mapping]

#: What `--set` calls itself where a file would stand.
COMMAND_LINE = "--set"

_MAX_BASES = 16


def beside(place: Place, path: str) -> str:
    """`path`, when relative, as seen from the file that holds it."""
    path = os.path.expanduser(path) if path.startswith("~/") else path
    if os.path.isabs(path) or place.file.startswith(("--", "<")):
        return path
    return os.path.join(os.path.dirname(place.file), path)


def extend(root: Mapping, read: Read, trail: tuple[str, ...] = ()) -> Mapping:
    """`root` merged over the profiles that it extends.

    Raises:
        InputError: a base cannot be read, or the chain of bases has no end.
    """
    node = root.get("extends")
    if node is None:
        return root
    bases = node.items if isinstance(node, Sequence) else (node,)
    merged: Mapping | None = None
    for base in bases:
        if not isinstance(base, Scalar) or base.is_null:
            raise InputError("extends must be a file name, or a list of them", place=base.place)
        path = os.path.normpath(beside(base.place, base.text))
        here = (*trail, os.path.normpath(root.place.file))
        if path in here:
            chain = " → ".join((*here, path))
            raise InputError(f"extends itself: {chain}", place=base.place, code="extends")
        if len(here) > _MAX_BASES:
            raise InputError(f"extends more than {_MAX_BASES} profiles deep", place=base.place)
        try:
            tree = extend(read(path), read, here)
        except InputError as error:
            if error.place is None or error.place.file != path or error.place.line:
                raise
            raise InputError(
                f"extends {path}, which {error.message}", place=base.place, hint=error.hint
            ) from None
        merged = tree if merged is None else merge(merged, tree)
    items = {k: v for k, v in root.items.items() if k != "extends"}
    own = Mapping(items, root.place, root.keys)
    return own if merged is None else merge(merged, own)


def merge(base: Mapping, over: Mapping) -> Mapping:
    """Maps merge deeply, everything else is replaced, and null deletes."""
    items, keys = dict(base.items), dict(base.keys)
    for key, node in over.items.items():
        below = items.get(key)
        if isinstance(node, Scalar) and node.is_null:
            items.pop(key, None)
            keys.pop(key, None)
            continue
        if isinstance(below, Mapping) and isinstance(node, Mapping):
            node = merge(below, node)
        items[key] = node
        keys[key] = over.key_place(key)
    return Mapping(items, over.place, keys)


def override(root: Mapping, settings: Iterable[tuple[str, Node]]) -> Mapping:
    """`root` with each dotted path set; a path that names a declared variable sets that.

    Raises:
        InputError: a path leads through something that is not a map.
    """
    for path, node in settings:
        root = _set(root, _split(root, path), node, path)
    return root


def _split(root: Mapping, path: str) -> list[str]:
    variables = root.get("vars")
    declared = isinstance(variables, Mapping) and path in variables.items
    if declared and path not in root.items:
        return ["vars", path]
    parts, steps, at = path.split("."), [], root
    while parts:
        # Ids may hold dots: the longest key that exists wins.
        for length in range(len(parts), 0, -1):
            key = ".".join(parts[:length])
            if length == 1 or key in at.items:
                break
        steps.append(key)
        parts = parts[length:]
        below = at.get(key)
        at = below if isinstance(below, Mapping) else Mapping({}, root.place, {})
    return steps


def _set(at: Mapping, steps: list[str], node: Node, path: str) -> Mapping:
    key, rest = steps[0], steps[1:]
    place = node.place
    if not key:
        raise InputError(f"{path!r} is not a path of keys", place=place, hint="--set smp=4")
    items, keys = dict(at.items), dict(at.keys)
    if rest:
        below = items.get(key, Mapping({}, place, {}))
        if not isinstance(below, Mapping):
            # A short form such as `machine: q35` becomes the map it is short for.
            short = {"machine": "type", "cpu": "model", "smp": "cpus", "memory": "size"}.get(key)
            if short is None or not isinstance(below, Scalar):
                raise InputError(f"{path!r}: {key!r} is not a map", place=place)
            below = Mapping({short: below}, below.place, {short: below.place})
        items[key] = _set(below, rest, node, path)
    elif isinstance(node, Scalar) and node.is_null:
        items.pop(key, None)
    else:
        items[key] = node
    keys[key] = place
    return Mapping(items, at.place, keys)


def substitute(root: Mapping, mistakes: list[InputError], cache: str) -> Mapping:
    """`root` with every `${name}` and `${name:-default}` of a declared variable filled in.

    `${cache}` is the launcher's cache folder. `${runtime}` stays: only a launch has a runtime
    directory. `$${` writes a literal `${`.
    """
    declared = root.get("vars")
    variables = declared.items if isinstance(declared, Mapping) else {}
    built_in = {"cache": Scalar(cache, root.place)}
    texts = dict(built_in)
    for name, node in variables.items():
        if isinstance(node, Scalar):
            filled = _fill(node, built_in, mistakes)
            assert isinstance(filled, Scalar)
            texts[name] = filled
    items = {
        key: node if key in ("vars", "extends") else _fill(node, texts, mistakes)
        for key, node in root.items.items()
    }
    return Mapping(items, root.place, root.keys)


def _fill(node: Node, texts: dict[str, Scalar], mistakes: list[InputError]) -> Node:
    if isinstance(node, Mapping):
        items = {key: _fill(item, texts, mistakes) for key, item in node.items.items()}
        return Mapping(items, node.place, node.keys)
    if isinstance(node, Sequence):
        return Sequence(tuple(_fill(item, texts, mistakes) for item in node.items), node.place)
    if "${" not in node.text:
        return node
    return _fill_scalar(node, texts, mistakes)


def _fill_scalar(node: Scalar, texts: dict[str, Scalar], mistakes: list[InputError]) -> Scalar:
    done, rest, place = "", node.text, node.place
    while "${" in rest:
        before, _, after = rest.partition("${")
        if before.endswith("$"):
            done, rest = f"{done}{before[:-1]}${{", after
            continue
        inside, brace, rest = after.partition("}")
        name, dash, default = inside.partition(":-")
        if not brace:
            mistakes.append(InputError(f"${{{inside} is not closed by a brace", place=place))
            return node
        if name == "runtime":
            done += f"{before}${{runtime}}"
            continue
        value = texts.get(name)
        if name not in texts:
            mistakes.append(
                InputError(
                    f"${{{name}}} is not a declared variable",
                    place=place,
                    hint=f"declare it: `vars: {{{name}: …}}`; `$${{` writes a literal ${{",
                    code="variable",
                )
            )
            return node
        if value is None or value.is_null:
            if not dash:
                hint = f"give it with --set {name}=…"
                mistakes.append(
                    InputError(f"variable {name!r} has no value", place=place, hint=hint)
                )
                return node
            done += before + default
            continue
        done += before + value.text
        if value.place.file == COMMAND_LINE:
            place = value.place if node.text == f"${{{inside}}}" else place
        elif node.text == f"${{{inside}}}":
            # A path in a variable is relative to the file that gives the variable its value.
            place = value.place
    return Scalar(done + rest, place, node.plain)
