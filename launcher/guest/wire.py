"""The agent's protocol: JSON in lines, and 0xFF where an answer to be found again begins.

Source: QEMU's qga/qapi-schema.json (guest-sync-delimited) and docs/interop/qemu-ga.rst. Nothing
that comes is believed: lines are bounded, what is no JSON object is no answer.
"""

from __future__ import annotations

import json
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Bytes of one answer, unless a question allows more.
ANSWER = 1 << 20
#: Commas and opening brackets of an answer.
_MOST_VALUES = 100_000
#: It cannot stand in UTF-8. An agent that reads it drops what it had read of a command before.
SENTINEL = b"\xff"


class Answers:
    """Bytes from the agent in, messages out.

    Attributes:
        oversized: an answer was longer than allowed and has been dropped.
        garbage: how many lines were no JSON object.
    """

    def __init__(self) -> None:
        self.oversized = False
        self.garbage = 0
        self._line = bytearray()
        self._skipping = False
        self._limit = ANSWER
        self._until_sentinel = False

    def begin(self, *, limit: int = ANSWER, sentinel: bool = False) -> None:
        """Be ready for the next answer.

        Args:
            limit: bytes of a line.
            sentinel: drop everything before a 0xFF.
        """
        self.oversized = False
        self._limit = limit
        self._until_sentinel = sentinel
        self._line.clear()
        self._skipping = False

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """The messages that end in `data`."""
        if SENTINEL in data:
            # It cannot be part of a message, so whatever came before is none.
            before, data = data.rpartition(SENTINEL)[::2]
            self.garbage += bool(self._line or before)
            self._line.clear()
            self._skipping = self._until_sentinel = False
        elif self._until_sentinel:
            return []
        *whole, rest = data.split(b"\n")
        found = [message for line in whole if (message := self._end(line)) is not None]
        self._add(rest)
        return found

    def _add(self, piece: bytes) -> None:
        if self._skipping:
            return
        if len(self._line) + len(piece) > self._limit:
            self._line.clear()
            self._skipping = self.oversized = True
            return
        self._line += piece

    def _end(self, piece: bytes) -> dict[str, Any] | None:
        self._add(piece)
        line = bytes(self._line).strip()
        self._line.clear()
        if self._skipping:
            self._skipping = False
            return None
        if not line:
            return None
        message = None
        # A value takes up to fifty times the bytes that say it; what makes many is no answer.
        if sum(line.count(sign) for sign in (b",", b"[", b"{")) <= _MOST_VALUES:
            with suppress(ValueError, RecursionError):
                message = json.loads(line)
        if isinstance(message, dict):
            return message
        self.garbage += 1
        return None


def question(command: str, arguments: dict[str, Any] | None, *, sentinel: bool = False) -> bytes:
    """A command as the agent reads it.

    Raises:
        TypeError, ValueError: `arguments` cannot be said in JSON.
    """
    body: dict[str, Any] = {"execute": command}
    if arguments:
        body["arguments"] = arguments
    text = json.dumps(body, separators=(",", ":")).encode() + b"\n"
    return SENTINEL + text if sentinel else text
