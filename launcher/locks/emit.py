"""Values as YAML that says the same to every reader, ours included. Pure.

A small subset of YAML: block mappings, lists, flow mappings on one line, plain and double-quoted
scalars. A text is quoted wherever YAML 1.1, YAML 1.2 or a person could take it for something
else: `on`, `0x10`, `9.10`, `1:30`, `~`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_PLAIN = _LETTERS | frozenset("0123456789_-./+@% ")
#: Words that some YAML reads as a boolean or as nothing.
_WORDS = frozenset(("y", "n", "yes", "no", "on", "off", "true", "false", "null"))
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\t": "\\t", "\n": "\\n"}


def emit(document: dict[str, Any], flow: Iterable[str] = ()) -> str:
    """`document` as text.

    Args:
        document: mappings, lists, texts, integers, floats, booleans and None.
        flow: keys of the outermost mapping whose lists hold one entry a line.

    Raises:
        TypeError: it holds something else.
    """
    return "\n".join((*_mapping(document, 0, frozenset(flow)), ""))


def _mapping(value: dict[str, Any], depth: int, flow: frozenset[str]) -> Iterator[str]:
    pad = "  " * depth
    for key, item in value.items():
        name = f"{pad}{_text(key)}:"
        if isinstance(item, dict) and item:
            yield name
            yield from _mapping(item, depth + 1, frozenset())
        elif isinstance(item, list) and item and (key in flow or _nested(item)):
            yield name
            yield from (f"{pad}  - {in_line(entry)}" for entry in item)
        else:
            yield f"{name} {in_line(item)}"


def _nested(items: list[Any]) -> bool:
    return any(isinstance(item, (dict, list)) for item in items)


def in_line(value: Any) -> str:
    """`value` on one line.

    Raises:
        TypeError: YAML as it is written here has no word for it.
    """
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_text(k)}: {in_line(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(in_line(item) for item in value) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, float)):
        return repr(value)
    raise TypeError(f"a lock file cannot hold a {type(value).__name__}")


def _text(text: str) -> str:
    if _is_plain(text):
        return text
    return '"' + "".join(_ESCAPES.get(char) or _character(char) for char in text) + '"'


def _is_plain(text: str) -> bool:
    """Whether no reader takes `text` for anything but this text when it stands without quotes.

    Beginning with a letter it can be no number, date or time.
    """
    return (
        text[:1] in _LETTERS
        and _PLAIN.issuperset(text)
        and text[-1] != " "
        and text.lower() not in _WORDS
    )


def _character(char: str) -> str:
    if char.isprintable():
        return char
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
