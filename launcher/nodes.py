"""The tree that every input file becomes: values that still know where they were written.

A scalar stays the text that the user wrote. What it means (a boolean, a size, a string such as
`10.10`) is decided by the schema that checks it, never by a YAML rule, so that no value is
changed before it reaches QEMU's own vocabulary.
"""

from __future__ import annotations

from launcher.errors import Place
from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


#: What a profile is called that a program gave as a mapping.
MAPPING = "<profile>"
#: More digits than any integer of QEMU has.
_MAX_DIGITS = 19


@record
class Scalar:
    """One value as text; `plain` when it was written without quotes."""

    text: str
    place: Place
    plain: bool = True

    @property
    def is_null(self) -> bool:
        """True for an unquoted `null`, `~` or nothing at all."""
        return self.plain and self.text in ("", "~", "null", "Null", "NULL")


@record
class Sequence:
    """A list of nodes."""

    items: tuple[Node, ...]
    place: Place


@record
class Mapping:
    """Keys in file order; `keys` holds where each key was written."""

    items: dict[str, Node]
    place: Place
    keys: dict[str, Place]

    def get(self, key: str) -> Node | None:
        """The node under `key`, or None."""
        return self.items.get(key)

    def key_place(self, key: str) -> Place:
        """Where `key` was written; the mapping's own place for a key that a short form made."""
        return self.keys.get(key, self.place)


if TYPE_CHECKING:
    Node = Scalar | Sequence | Mapping


def plain_value(node: Node) -> Any:
    """`node` as Python values, unquoted scalars read as QEMU's keyval would (for free-form data).

    Used where no schema exists (`x-*` keys, raw maps); typed places go through `qapi.check`.
    """
    if isinstance(node, Mapping):
        return {key: plain_value(item) for key, item in node.items.items()}
    if isinstance(node, Sequence):
        return [plain_value(item) for item in node.items]
    if not node.plain:
        return node.text
    if node.is_null:
        return None
    if node.text in ("true", "on"):
        return True
    if node.text in ("false", "off"):
        return False
    digits = node.text.removeprefix("-")
    # Only what is written as QEMU writes it: 0755 and 1_000 mean something else to some readers.
    if not (digits.isascii() and digits.isdigit()) or len(digits) > _MAX_DIGITS:
        return node.text
    return int(node.text) if digits == "0" or digits[0] != "0" else node.text


def from_python(value: Any, place: Place) -> Node:
    """A node tree for a Python mapping given to `launch()` or sent by another program.

    Raises:
        TypeError: a value that YAML could not have written either.
    """
    if isinstance(value, dict):
        items = {str(key): from_python(item, place) for key, item in value.items()}
        return Mapping(items, place, dict.fromkeys(items, place))
    if isinstance(value, (list, tuple)):
        return Sequence(tuple(from_python(item, place) for item in value), place)
    if value is None:
        return Scalar("null", place)
    if isinstance(value, bool):
        return Scalar("true" if value else "false", place)
    if isinstance(value, (int, float)):
        return Scalar(str(value), place)
    if isinstance(value, str):
        return Scalar(value, place, plain=False)
    raise TypeError(f"a profile cannot hold a {type(value).__name__}")
