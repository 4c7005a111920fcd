"""One tree out of several: `extends`, `--set`, `${variables}`."""

from __future__ import annotations

import os

from launcher.errors import InputError, Place
from launcher.nodes import Mapping, Scalar, Sequence
from launcher.qapi import nearest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from launcher.nodes import Node

    Read = Callable[[str], Mapping]

#: What `--set` calls itself where a file would stand.
COMMAND_LINE = "--set"

_MAX_BASES = 16

#: Keys of a profile that take a text where a map has more to say, and the member it stands for.
_SHORT = {"machine": "type", "cpu": "model", "smp": "cpus", "memory": "size"}


def beside(place: Place, path: str) -> str:
    """`path`, when relative, as seen from the file that holds it."""
    path = os.path.expanduser(path) if path.startswith("~/") else path
    if os.path.isabs(path) or place.file.startswith(("--", "<")):
        return path
    return os.path.join(os.path.dirname(place.file), path)


def read_named(read: Read, path: str, place: Place, what: str) -> Mapping:
    """The tree of a file that another one names at `place`.

    Raises:
        InputError: as `read`; that there is no such file is told where it is named.
    """
    try:
        return read(path)
    except InputError as error:
        if error.place is None or error.place.file != path or error.place.line:
            raise
        words, hint = f"{what} {path}: {error.message}", error.hint
        raise InputError(words, place=place, hint=hint, code=error.code) from None


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
        tree = extend(read_named(read, path, base.place, "extends"), read, here)
        merged = tree if merged is None else merge(merged, tree)
    items = {k: v for k, v in root.items.items() if k != "extends"}
    own = Mapping(items, root.place, root.keys)
    return own if merged is None else merge(merged, own)


def merge(base: Mapping, over: Mapping, trail: tuple[str, ...] = ()) -> Mapping:
    """Maps merge deeply, everything else is replaced, and null deletes.

    A map over a short form (`machine: microvm`) merges with the map that this is short for; a
    short form over a map replaces it. Below `vars` null stays: it declares a variable whose value
    must be given.
    """
    items, keys = dict(base.items), dict(base.keys)
    for key, node in over.items.items():
        below = items.get(key)
        if isinstance(node, Scalar) and node.is_null and trail != ("vars",):
            items.pop(key, None)
            keys.pop(key, None)
            continue
        if isinstance(node, Mapping):
            below = below if trail or below is None else _long(key, below)
            if isinstance(below, Mapping):
                node = merge(below, node, (*trail, key))
        items[key] = node
        keys[key] = over.key_place(key)
    return Mapping(items, over.place, keys)


def _long(key: str, node: Node) -> Node:
    """The map that a short form of one of a profile's own keys stands for."""
    if key not in _SHORT or not isinstance(node, Scalar):
        return node
    return Mapping({_SHORT[key]: node}, node.place, {_SHORT[key]: node.place})


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
        joined = {length: ".".join(parts[:length]) for length in range(len(parts), 0, -1)}
        length = next((n for n, name in joined.items() if name in at.items), 1)
        key = joined[length]
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
        below = _long(key, below)
        if not isinstance(below, Mapping):
            raise InputError(f"{path!r}: {key!r} is not a map", place=place)
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
    texts = {"cache": Scalar(cache, root.place)}
    texts.update(dict.fromkeys(variables, _LATER))
    for name, node in variables.items():
        # In file order: a variable may be made of those before it, and never of itself.
        filled = _fill(node, texts, mistakes)
        # One that is no text is the shape's mistake; its uses are not further ones.
        texts[name] = filled if isinstance(filled, Scalar) else _NO_TEXT
    items = {
        key: node if key in ("vars", "extends") else _fill(node, texts, mistakes)
        for key, node in root.items.items()
    }
    return Mapping(items, root.place, root.keys)


#: Stands for a variable whose own mistake has been told, and for one that is not filled in yet.
_NO_TEXT = Scalar("", Place("-"))
_LATER = Scalar("", Place("--"))


def _fill(node: Node, texts: dict[str, Scalar], mistakes: list[InputError]) -> Node:
    if isinstance(node, Mapping):
        items = {key: _fill(item, texts, mistakes) for key, item in node.items.items()}
        return Mapping(items, node.place, node.keys)
    if isinstance(node, Sequence):
        return Sequence(tuple(_fill(item, texts, mistakes) for item in node.items), node.place)
    if "${" not in node.text:
        return node
    try:
        return _fill_scalar(node, texts)
    except InputError as error:
        mistakes.append(error)
        return node


def _fill_scalar(node: Scalar, texts: dict[str, Scalar]) -> Scalar:
    done, rest, place = "", node.text, node.place
    while "${" in rest:
        before, _, after = rest.partition("${")
        if before.endswith("$"):
            done, rest = f"{done}{before[:-1]}${{", after
            continue
        inside, brace, rest = after.partition("}")
        if not brace:
            words, hint = f"${{{inside} is not closed by a brace", _LITERAL
            raise InputError(words, place=place, hint=hint, code="variable")
        if inside == "runtime":
            done += f"{before}${{runtime}}"
            continue
        value = _value(inside, texts, place)
        done += before + value.text
        if node.text == f"${{{inside}}}":
            # A path in a variable is relative to the file that gives the variable its value.
            place = value.place
    return Scalar(done + rest, place, node.plain)


_LITERAL = "`$${` writes a literal ${"


def _value(inside: str, texts: dict[str, Scalar], place: Place) -> Scalar:
    """What stands for `${name}` or `${name:-default}`.

    Raises:
        InputError: the variable is not declared, or has no value.
    """
    name, dash, default = inside.partition(":-")
    value = texts.get(name)
    if value is None:
        near = nearest(name, texts)
        hint = f"did you mean ${{{near[0]}}}?" if near else _LITERAL
        if name and not near:
            hint = f"declare it: `vars: {{{name}: …}}`; {_LITERAL}"
        words = f"${{{name}}} is not a declared variable"
        raise InputError(words, place=place, hint=hint, code="variable")
    if value is _LATER:
        words, hint = f"${{{name}}} is declared below its use", "move its declaration up"
        raise InputError(words, place=place, hint=hint, code="variable")
    if not value.is_null or value is _NO_TEXT:
        return value
    if dash:
        return Scalar(default, place)
    hint = f"give it with --set {name}=…"
    raise InputError(f"variable {name!r} has no value", place=place, hint=hint, code="variable")
