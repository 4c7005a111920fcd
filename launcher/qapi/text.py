"""Scalars and option text, as QEMU reads and writes them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any, ClassVar

_SUFFIXES = {"": 0, "b": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50, "e": 60}
_TRUE = ("true", "on")
_FALSE = ("false", "off")

#: Past this many digits no QEMU integer has a meaning, and Python's own conversion is refused.
_MAX_DIGITS = 20


def snake(name: str) -> str:
    """QEMU's hyphenated name as a Python one: the only place where this is done."""
    return name.replace("-", "_").replace(".", "_")


def parse_boolean(text: str) -> bool | None:
    """`true`/`on` and `false`/`off`; None for anything else (`yes`, `1` and the like)."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    return None


def parse_integer(text: str) -> int | None:
    """A decimal or `0x` integer; None for anything else, `0755` and `1_000` included."""
    sign, digits = (-1, text[1:]) if text[:1] == "-" else (1, text)
    if not digits.isascii() or len(digits) > _MAX_DIGITS:
        return None
    if digits.isdigit():
        # A leading zero is octal to some readers and decimal to others.
        return sign * int(digits) if digits == "0" or digits[0] != "0" else None
    if digits[:2].lower() == "0x" and digits[2:] and "_" not in digits:
        try:
            return sign * int(digits[2:], 16)
        except ValueError:
            return None
    return None


def parse_size(text: str) -> int | None:
    """Bytes of a size: an integer, or one with QEMU's binary suffix (`4G`, also written `4GiB`).

    None for anything else; `4GB` is refused because QEMU's `4G` is 4 GiB and `GB` says otherwise.
    """
    plain = parse_integer(text)
    if plain is not None:
        return plain if plain >= 0 else None
    body = text[:-2] if text.endswith("iB") else text
    number, suffix = body[:-1], body[-1:].lower()
    if suffix not in _SUFFIXES or (body is not text and suffix == "b"):
        return None
    whole, dot, fraction = number.partition(".")
    if not whole.isascii() or not whole.isdigit() or len(whole) > _MAX_DIGITS:
        return None
    if whole[0] == "0" and whole != "0":
        return None  # octal to some readers, as above
    shift = _SUFFIXES[suffix]
    if not dot:
        return int(whole) << shift
    if not fraction.isascii() or not fraction.isdigit() or len(fraction) > _MAX_DIGITS:
        return None
    scaled, rest = divmod(int(fraction) << shift, 10 ** len(fraction))
    return None if rest else (int(whole) << shift) + scaled


def format_json(value: Any) -> str:
    """Compact JSON: QEMU reads its monitor one byte at a time, so blanks cost time."""
    # The C function that json itself uses; importing json costs more than writing all of a plan.
    from _json import encode_basestring

    return "".join(_json_pieces(value, encode_basestring))


class _Reading:
    """What the json module's scanner reads by; these are json.loads's own settings."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float, parse_int, parse_constant = float, int, float
    memo: ClassVar[dict[str, str]] = {}


def parse_json(text: str) -> Any:
    """A JSON value that begins with the first character, without the import of json.

    Raises:
        ValueError: it is not JSON.
    """
    from _json import make_scanner

    try:
        value, end = make_scanner(_Reading)(text, 0)  # type: ignore[arg-type]
    except StopIteration:
        raise ValueError("not JSON") from None
    if text[end:].strip():
        raise ValueError("something follows the JSON value")
    return value


def _json_pieces(value: Any, quoted: Callable[[str], str]) -> Iterator[str]:
    if isinstance(value, str):
        yield quoted(value)
    elif value is None or value is True or value is False:
        yield {None: "null", True: "true", False: "false"}[value]
    elif isinstance(value, (int, float)):
        yield repr(value)
    elif isinstance(value, dict):
        mark = "{"
        for key, item in value.items():
            yield f"{mark}{quoted(key)}:"
            yield from _json_pieces(item, quoted)
            mark = ","
        yield "{}" if mark == "{" else "}"
    elif isinstance(value, (list, tuple)):
        mark = "["
        for item in value:
            yield mark
            yield from _json_pieces(item, quoted)
            mark = ","
        yield "[]" if mark == "[" else "]"
    else:
        raise TypeError(f"JSON has no word for a {type(value).__name__}")


def _scalar(value: Any) -> str:
    if value is True:
        return "on"
    if value is False:
        return "off"
    return str(value).replace(",", ",,")


def _flatten(prefix: str, value: Any) -> Iterable[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flatten(f"{prefix}.{key}" if prefix else key, item)
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            # Lists in QEMU's older option syntax repeat the key; QAPI's StringList is one of them.
            if isinstance(item, dict) and set(item) == {"str"}:
                yield f"{prefix}={_scalar(item['str'])}"
            elif isinstance(item, (dict, list, tuple)):
                yield from _flatten(f"{prefix}.{number}", item)
            else:
                yield f"{prefix}={_scalar(item)}"
    else:
        yield f"{prefix}={_scalar(value)}"


def format_keyval(head: str, members: Mapping[str, Any]) -> str:
    """QEMU's `head,key=value,…` with commas in values doubled; `head` may be empty."""
    parts = [head.replace(",", ",,")] if head else []
    parts += _flatten("", dict(members))
    return ",".join(parts)


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The known names that look most like `name`, best first."""
    names = sorted(known)
    if name in names:
        return [name]
    from difflib import get_close_matches

    low = {n.lower().replace("_", "-"): n for n in names}
    found = get_close_matches(name.lower().replace("_", "-"), list(low), n=count, cutoff=0.6)
    return [low[n] for n in found]
