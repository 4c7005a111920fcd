"""The engine: a node tree against a schema gives typed values and every mistake at once."""

from __future__ import annotations

from launcher.errors import InputError
from launcher.nodes import Mapping, Scalar, Sequence, plain_value
from launcher.qapi.text import nearest, parse_boolean, parse_integer, parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from launcher.errors import Place
    from launcher.nodes import Node
    from launcher.qapi.schema import Schema

    #: (owner such as "netdev tap", unknown name) -> (message, hint) or None for the usual words.
    Unknown = Callable[[str, str], tuple[str, str] | None]


def _no_words(_owner: str, _name: str) -> None:
    return None


class Checker:
    """Checks nodes against one schema; `mistakes` grows, nothing is raised on the way.

    Args:
        schema: the types.
        unknown: asked for better words about a name that the schema lacks, for instance
            in which release it appeared.
    """

    def __init__(self, schema: Schema, unknown: Unknown = _no_words) -> None:
        self.schema = schema
        self.unknown = unknown
        self.mistakes: list[InputError] = []
        # What is checked: (the outermost type, the family of its owner).
        self._top: tuple[str, str] | None = None

    def mistake(self, place: Place, message: str, hint: str = "", code: str = "type") -> None:
        """Note one mistake."""
        self.mistakes.append(InputError(message, place=place, hint=hint, code=code))

    def check(self, type_name: str, node: Node, path: str, owner: str = "") -> Any:
        """The value of `node` as `type_name`; None where a mistake was noted.

        Args:
            type_name: an entity of the schema.
            node: what was written.
            path: where it stands, for messages (`netdevs.net0`).
            owner: what it is, for messages (`netdev tap`).
        """
        if self._top is None:
            self._top = (type_name, owner.partition(" ")[0])
        entity = self.schema[type_name]
        kind = entity["meta-type"]
        if kind == "builtin":
            return self._builtin(entity["json-type"], node, path)
        if kind == "enum":
            return self._enum(type_name, node, path)
        if kind == "array":
            return self._array(entity["element-type"], node, path, owner)
        if kind == "alternate":
            return self._alternate(entity, node, path, owner)
        if kind == "map":
            return self._map(entity, node, path)
        if kind == "node":
            return node
        return self._object(type_name, node, path, owner)

    # -- scalars --------------------------------------------------------------------------

    def _text(self, node: Node, path: str, wanted: str) -> Scalar | None:
        if not isinstance(node, Scalar):
            self.mistake(node.place, f"{path} must be {wanted}, not {said(node)}")
            return None
        if node.is_null:
            self.mistake(node.place, f"{path} must be {wanted}; it has no value")
            return None
        return node

    def _builtin(self, json_type: str, node: Node, path: str) -> Any:
        if json_type == "value":
            return plain_value(node)
        if json_type == "null":
            if not isinstance(node, Scalar) or not node.is_null:
                self.mistake(node.place, f"{path} must be null")
            return None
        if json_type == "string":
            text = self._text(node, path, "text")
            return text.text if text else None
        read = getattr(self, f"_{json_type}", None)
        if read is None:
            self.mistake(node.place, f"{path} has the unknown type {json_type}")
            return None
        return read(node, path)

    def _unquoted(self, node: Node, path: str, wanted: str) -> Scalar | None:
        text = self._text(node, path, wanted)
        if text and not text.plain:
            self.mistake(node.place, f"{path} must be {wanted}, not text", "remove the quotes")
            return None
        return text

    def _boolean(self, node: Node, path: str) -> bool | None:
        text = self._unquoted(node, path, "true or false")
        value = parse_boolean(text.text) if text else None
        if text and value is None:
            self.mistake(
                node.place,
                f"{path} must be true or false, not {text.text!r}",
                "QEMU's own words on and off are known, too",
            )
        return value

    def _int(self, node: Node, path: str) -> int | None:
        text = self._unquoted(node, path, "an integer")
        if not text:
            return None
        value = parse_integer(text.text)
        if value is None:
            value = parse_size(text.text)
        if value is None:
            self.mistake(
                node.place, f"{path} must be an integer, not {text.text!r}", size_hint(text.text)
            )
        return value

    def _size(self, node: Node, path: str) -> int | None:
        text = self._text(node, path, "a size")
        value = parse_size(text.text) if text else None
        if text and value is None:
            hint = size_hint(text.text) or "write bytes, or a number with K, M, G or T: 512M, 4G"
            self.mistake(node.place, f"{path} must be a size, not {text.text!r}", hint)
        return value

    def _number(self, node: Node, path: str) -> float | int | None:
        text = self._unquoted(node, path, "a number")
        if not text:
            return None
        whole = parse_integer(text.text)
        if whole is not None:
            return whole
        try:
            value = float(text.text)
        except ValueError:
            value = float("nan")
        if value - value != 0:  # neither nan nor infinite: JSON has no word for them
            self.mistake(node.place, f"{path} must be a number, not {text.text!r}")
            return None
        return value

    def _enum(self, type_name: str, node: Node, path: str) -> str | None:
        values = self.schema.values(type_name)
        text = self._text(node, path, f"one of {', '.join(values[:8])}")
        if text is None:
            return None
        # YAML people write true where QEMU's enumeration says on (OnOffAuto and the like).
        spoken = {"true": "on", "false": "off"}.get(text.text, text.text)
        if text.plain and spoken in values:
            return spoken
        if text.text in values:
            return text.text
        hint = suggest(text.text, values) or f"known are {', '.join(values[:_MANY])}, …"
        self.mistake(node.place, f"{path} does not know {text.text!r}", hint, "value")
        return None

    # -- containers -----------------------------------------------------------------------

    def _array(self, element: str, node: Node, path: str, owner: str) -> list[Any] | None:
        if not isinstance(node, Sequence):
            self.mistake(node.place, f"{path} must be a list", "write it as `[a, b]`")
            return None
        return [
            self.check(element, item, f"{path}.{number}", owner)
            for number, item in enumerate(node.items)
        ]

    def _alternate(self, entity: dict[str, Any], node: Node, path: str, owner: str) -> Any:
        """The first member type that takes the node; text last, because it takes nearly all."""
        types = sorted((m["type"] for m in entity["members"]), key=self._rank)
        best: list[InputError] | None = None
        for type_name in types:
            if not self._fits(type_name, node):
                continue
            trial = Checker(self.schema, self.unknown)
            trial._top = self._top
            value = trial.check(type_name, node, path, owner)
            if not trial.mistakes:
                return value
            best = trial.mistakes
        if best is None:
            wanted = " or ".join(dict.fromkeys(self._wanted(name) for name in types))
            self.mistake(node.place, f"{path} must be {wanted}, not {said(node)}")
        self.mistakes += best or []
        return None

    def _rank(self, type_name: str) -> int:
        entity = self.schema[type_name]
        return 2 if entity.get("json-type") == "string" else int(entity["meta-type"] == "enum")

    def _fits(self, type_name: str, node: Node) -> bool:
        kind = self.schema[type_name]["meta-type"]
        if kind in ("node", "alternate"):
            return True
        if isinstance(node, Mapping):
            return kind in ("object", "map")
        return kind == "array" if isinstance(node, Sequence) else kind in ("builtin", "enum")

    def _wanted(self, type_name: str) -> str:
        """A type in a word, for what an alternate takes."""
        entity = self.schema[type_name]
        kind = entity["meta-type"]
        if kind == "builtin":
            return _WORDS.get(entity["json-type"], "a value")
        if kind == "enum":
            return f"one of {', '.join(self.schema.values(type_name)[:_MANY])}"
        return "a list" if kind == "array" else "a mapping"

    def _map(self, entity: dict[str, Any], node: Node, path: str) -> dict[str, Any] | None:
        if not isinstance(node, Mapping):
            message = f"{path} must be a mapping from ids to values, not {said(node)}"
            self.mistake(node.place, message, "write it as `{id: value}`")
            return None
        value_type = entity["value-type"]
        return {
            key: self.check(value_type, item, f"{path}.{key}") for key, item in node.items.items()
        }

    def _object(self, type_name: str, node: Node, path: str, owner: str) -> dict[str, Any] | None:
        if not isinstance(node, Mapping):
            message = f"{path or 'the file'} must be a mapping of keys to values, not {said(node)}"
            self.mistake(node.place, message, "write it as `{key: value}`")
            return None
        entity = self.schema[type_name]
        tag = entity.get("tag")
        case = self._case(type_name, tag, node, path) if tag else ""
        if case is None:
            return None
        if case and self._top is not None and type_name == self._top[0]:
            # A block node inside a block node is one of its own kind.
            owner = f"{self._top[1]} {case}".lstrip()
        members = self.schema.all_members(type_name, case)
        values: dict[str, Any] = {}
        for key, item in node.items.items():
            member = members.get(key)
            if member is not None:
                below = f"{path}.{key}".lstrip(".")
                values[key] = self.check(member["type"], item, below, owner and below)
            elif not key.startswith(entity.get("open", "\0")):
                self._unknown_key(node, key, members, path, owner)
        for name, member in members.items():
            if name not in node.items and "default" not in member:
                self.mistake(node.place, f"{path or 'the profile'} needs {name!r}", code="missing")
        return values

    def _case(self, type_name: str, tag: str, node: Mapping, path: str) -> str | None:
        """Which branch of a union the tag member chooses; None after noting that it cannot."""
        chosen = node.get(tag)
        if chosen is None:
            known = self.schema.values(self.schema.members(type_name)[tag]["type"])
            hint = f"it is one of {', '.join(known[:_MANY])}" + ", …" * (len(known) > _MANY)
            self.mistake(node.place, f"{path} needs {tag!r}", hint, "missing")
            return None
        value = self.check(self.schema.members(type_name)[tag]["type"], chosen, f"{path}.{tag}")
        return None if value is None else str(value)

    def _unknown_key(
        self, node: Mapping, key: str, members: dict[str, Any], path: str, owner: str
    ) -> None:
        message, hint = self.unknown(owner, key) or (
            f"{key!r} is not a property of {owner}"
            if owner
            else f"{path or 'a profile'} has no {key!r}",
            suggest(key, members),
        )
        self.mistake(node.key_place(key), message, hint, "unknown")


#: So many names are listed to somebody whose word is near none of them.
_MANY = 12

_WORDS = {
    "boolean": "true or false",
    "int": "an integer",
    "null": "null",
    "number": "a number",
    "size": "a size",
    "string": "text",
}


def said(node: Node) -> str:
    """What a node is, or its text, for messages."""
    if isinstance(node, Scalar):
        return repr(node.text)
    return "a list" if isinstance(node, Sequence) else "a mapping"


def suggest(name: str, known: Iterable[str]) -> str:
    """The hint for an unknown name: those it looks like, else all when they are few."""
    names = sorted(known)
    near = nearest(name, names)
    if near:
        return f"did you mean {', '.join(near)}?"
    return f"known are {', '.join(names)}" if 0 < len(names) <= _MANY else ""


def size_hint(text: str) -> str:
    """What to write instead of a size that QEMU would not take; empty when it is not near one."""
    body = text.rstrip("!").strip()
    if len(body) > 2 and body[-1] in "Bb" and parse_size(body[:-1]) is not None:
        return f"write {body[:-1]}, which is binary in QEMU"
    if body != text and parse_size(body) is not None:
        return f"write {body}"
    return ""
