"""One property's value by its QOM type: devices on every release, objects on QEMU 5.2."""

from __future__ import annotations

from launcher.errors import InputError
from launcher.nodes import Mapping, Sequence, plain_value
from launcher.qapi import parse_boolean, parse_integer, parse_size, said
from launcher.qapi.check import size_hint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from launcher.nodes import Node

_INTEGERS = frozenset(
    f"{sign}int{bits}" for sign in ("", "u") for bits in ("", "8", "16", "32", "64")
) | {"size", "size32", "number"}
#: Further types that hold one value; others (lists, structures) may be written as such.
_SCALARS = frozenset(("bool", "str", "string", "OnOffAuto", "on|off|split"))


def typed(info: dict[str, Any], node: Node, path: str, mistakes: list[InputError]) -> Any:
    """The value of `node` as a property; None where a mistake was noted.

    Args:
        info: the property as `qom-list-properties` or `device-list-properties` gives it.
        node: what was written.
        path: where it stands, for messages.
        mistakes: grows.
    """
    kind = info.get("type", "")

    def fail(words: str, hint: str = "") -> None:
        mistakes.append(InputError(words, place=node.place, hint=hint, code="type"))

    if isinstance(node, (Mapping, Sequence)):
        # QEMU 5.2 calls a list of integers (host-nodes) an int.
        if kind not in _SCALARS and not kind.startswith("link<"):
            return plain_value(node)
        return fail(f"{path} must be one value, not {said(node)}")
    if node.is_null:
        return fail(f"{path} has no value")
    text = node.text
    if kind == "bool":
        flag = parse_boolean(text)
        if flag is None:
            fail(f"{path} must be true or false, not {text!r}", "write on or off")
        return flag
    if (info["name"], kind) == ("addr", "int32"):
        # A PCI address: text is slot and function in hexadecimal, an integer of JSON is both in
        # one number (hw/core/qdev-properties-system.c, set_pci_devfn). Text means the same in
        # every form of the option.
        return text
    if kind in _INTEGERS:
        number = parse_integer(text)
        if number is None:
            number = parse_size(text)
        if number is None:
            fail(f"{path} must be an integer, not {text!r}", size_hint(text))
        return number
    if node.plain and text in ("true", "false") and kind not in ("str", "string"):
        return "on" if text == "true" else "off"
    return text
