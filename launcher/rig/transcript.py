"""Logs with a time stamp at each line, bounded on disk."""

from __future__ import annotations

import os
import time

#: Bytes of one log; when a half of it is full, the older half goes.
LIMIT = 64 << 20


class Transcript:
    """A log file; the half before the last is kept beside it as `PATH.old`.

    A full disk loses lines and does no other harm: `lost` says how many bytes.
    """

    def __init__(self, path: str, start: float, limit: int = LIMIT) -> None:
        self.path = path
        self.lost = 0
        self._start = start
        self._limit = limit // 2
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115 (closed by close)
        self._size = 0
        self._at_line_start = True

    def write(self, data: bytes) -> None:
        """Add what came now; each line that begins with it gets the seconds since the start."""
        if self._file.closed:
            return
        stamp = b"[%10.3f] " % (time.monotonic() - self._start)
        *lines, last = data.split(b"\n")
        text = b"".join((stamp if n else b"") + line + b"\n" for n, line in enumerate(lines))
        if last:
            text += (stamp if lines else b"") + last
        if self._at_line_start and text:
            text = stamp + text
        self._at_line_start = not last
        self._put(text)

    def line(self, text: bytes) -> None:
        """Add a line of its own."""
        self.write(text.replace(b"\n", b" ") + b"\n")

    def _put(self, text: bytes) -> None:
        try:
            if self._size + len(text) > self._limit:
                self._file.close()
                os.replace(self.path, f"{self.path}.old")
                self._file = open(self.path, "wb", buffering=0)  # noqa: SIM115
                self._size = 0
            self._size += self._file.write(text) or 0
        except OSError:
            self.lost += len(text)

    def close(self) -> None:
        """Close the file. May be repeated."""
        self._file.close()
