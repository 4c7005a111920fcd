"""A payload to a command, an outcome to an answer. Pure.

The order of looking at what a stranger sent: first whether it is for us at all, then its size,
then its depth, both by the bytes alone, and only then is it parsed. libvirt and Incus both parsed
first and had to answer for it (CVE-2025-12748, CVE-2026-41648).
"""

from __future__ import annotations

from launcher.agent.vocabulary import VERBS as VERBS
from launcher.bus.topics import is_id
from launcher.errors import InputError
from launcher.qapi import format_json, nearest
from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from launcher.errors import LauncherError

#: Bounds of a command and of an answer, in bytes, and how deep a command may be nested.
MAX_PAYLOAD = 64 * 1024
MAX_ANSWER = 1024 * 1024
MAX_DEPTH = 32
MAX_CORRELATION = 256

ACCEPTED, REFUSED, RUNNING, DONE, FAILED = "accepted", "refused", "running", "done", "failed"
FINAL = (REFUSED, DONE, FAILED)


@record
class Command:
    """One thing to do, as it was sent."""

    id: str
    verb: str
    arguments: dict[str, Any]

    @property
    def machine(self) -> str:
        """The machine that it is about as far as its words tell; else empty."""
        named = self.arguments.get("machine") or self.arguments.get("name")
        profile = self.arguments.get("profile")
        if named is None and isinstance(profile, dict):
            named = profile.get("name")
        return str(named or (profile if isinstance(profile, str) else "") or "")


def check_bytes(payload: bytes, most: int = MAX_PAYLOAD) -> None:
    """Refuse what is too large or too deep to be parsed at all.

    Args:
        payload: what was sent.
        most: bytes that it may have.

    Raises:
        InputError: it is.
    """
    if len(payload) > most:
        raise InputError(f"the payload has more than {most} bytes", code="size")
    depth, quoted, escaped = 0, False, False
    for byte in payload:
        if quoted:
            if escaped:
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                quoted = False
        elif byte == 0x22:
            quoted = True
        elif byte in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise InputError(f"the payload is nested deeper than {MAX_DEPTH}", code="depth")
        elif byte in b"]}":
            depth -= 1


def read_command(verb: str, payload: bytes) -> Command:
    """The command that a payload holds.

    Raises:
        InputError: it holds none; says what is wrong with it.
    """
    check_bytes(payload)
    if verb not in VERBS:
        near = nearest(verb, VERBS)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(VERBS)}"
        raise InputError(f"there is no verb {verb!r}", hint=hint, code="verb")
    value = _object(payload)
    number = value.pop("id", None)
    if not is_id(number):
        raise InputError("'id' must name the command", hint="such as a UUID", code="id")
    check_members(verb, value)
    return Command(number, verb, value)


def id_of(payload: bytes) -> str | None:
    """The id in a payload that may hold no command, to answer it by."""
    try:
        check_bytes(payload)
        found = _object(payload).get("id")
    except InputError:
        return None
    return found if is_id(found) else None


def read_object(payload: bytes, most: int) -> dict[str, Any]:
    """The JSON object in what another agent says.

    Raises:
        InputError: there is none, or it is too large or too deep.
    """
    check_bytes(payload, most)
    return _object(payload)


def _object(payload: bytes) -> dict[str, Any]:
    import json

    try:
        value = json.loads(
            payload.decode("utf-8"), parse_constant=_no_number, object_pairs_hook=_no_twins
        )
    except ValueError as error:
        words = str(error) if isinstance(error, _Twins) else "the payload is not JSON"
        raise InputError(words, code="json") from None
    if not isinstance(value, dict):
        raise InputError("the payload is not a JSON object", code="json")
    _check_texts(value)
    return value


class _Twins(ValueError):
    """Two members of one name: which of them was checked would not be which is used."""


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Twins("the payload has a member twice")
    return found


def _no_number(text: str) -> Any:
    """NaN and Infinity are no JSON, whatever Python thinks."""
    raise ValueError(text)


def _check_texts(value: Any) -> None:
    """Refuse characters that no profile's file may hold either.

    Raises:
        InputError: there is one.
    """
    if isinstance(value, dict):
        for key, item in value.items():
            _check_texts(key)
            _check_texts(item)
    elif isinstance(value, list):
        for item in value:
            _check_texts(item)
    elif isinstance(value, str):
        for char in value:
            if (
                (char < " " and char not in "\n\t")
                or char == "\x7f"
                or "\ud800" <= char <= "\udfff"
            ):
                raise InputError(f"a text holds U+{ord(char):04X}", code="character")


def check_members(verb: str, value: dict[str, Any]) -> None:
    """Refuse what a verb does not take.

    Raises:
        InputError: a member is unknown, of the wrong form, or missing.
    """
    known = VERBS[verb]
    for name, given in value.items():
        if name not in known.members:
            near = nearest(name, known.members)
            hint = f"did you mean {' or '.join(near)}?" if near else ""
            raise InputError(f"{verb} does not take {name!r}", hint=hint, code="member")
        if not _fits(given, known.members[name]):
            raise InputError(f"{verb}: {name!r} has the wrong form", code="member")
    for name in known.needs:
        if name not in value:
            raise InputError(f"{verb} needs {name!r}", code="member")


def _fits(value: Any, schema: Mapping[str, Any]) -> bool:
    """Whether a value fits the part of JSON Schema that the table above is written in."""
    if "anyOf" in schema:
        return any(_fits(value, one) for one in schema["anyOf"])
    if "enum" in schema:
        return value in schema["enum"]
    kind = schema["type"]
    if kind == "array":
        if not isinstance(value, list):
            return False
        few = len(value) <= schema["maxItems"]
        return few and all(_fits(one, schema["items"]) for one in value)
    if kind == "string":
        if "pattern" in schema:
            return is_id(value)
        return isinstance(value, str) and len(value) <= schema["maxLength"]
    if kind == "number":
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and schema["minimum"] <= value <= schema["maximum"]
    return isinstance(value, bool if kind == "boolean" else dict)


def answer(
    number: str | None, status: str, result: Any = None, error: LauncherError | None = None
) -> bytes:
    """One answer as a payload; one that is too long says so instead of what it held."""
    value = {
        "id": number,
        "status": status,
        "result": result,
        "error": error.as_json() if error is not None else None,
    }
    payload = format_json(value).encode("utf-8", "backslashreplace")
    if len(payload) <= MAX_ANSWER:
        return payload
    words = f"the answer has {len(payload)} bytes, and {MAX_ANSWER} may be sent"
    value |= {"result": None, "error": InputError(words, code="size").as_json()}
    return format_json(value).encode()


def status_of(payload: bytes) -> str:
    """The status in a payload that `answer` made; an answer of a megabyte is not parsed for it."""
    # The id before it has 63 characters at most, none of which is a quotation mark.
    _, _, rest = payload[:200].partition(b'"status":"')
    return rest.partition(b'"')[0].decode()
