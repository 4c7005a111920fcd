"""Two bare QEMUs and a migration between them, by raw QMP: what really happens, said by QEMU."""

from __future__ import annotations

import contextlib
import os
import select
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from integration.eager_guest import EagerGuest
from integration.rawqmp import RawQMP

#: Seconds without a change after which a migration of a small paused machine is called hung, and
#: seconds after which it is in any case; one takes 0.2 to 0.8 where nothing else runs.
HUNG = 8.0
_LONGEST = 60.0
_ENDS = ("completed", "failed", "cancelled")


#: QMP commands with their arguments.
Setup = Sequence[tuple[str, Mapping[str, Any]]]


class Outcome(NamedTuple):
    """What came of a migration.

    `result` is `completed` (the destination has the whole machine), `failed` (one end said so or
    the destination is gone), `hung` (neither) or `refused` (an end did not even begin).
    """

    result: str
    said: str
    source: str


class End:
    """One QEMU, which may die or fall silent at any moment."""

    def __init__(self, argv: Sequence[str]) -> None:
        self.raw = RawQMP(list(argv))

    def ask(self, command: str, arguments: Mapping[str, Any] | None = None) -> Any:
        """The answer, {} when QEMU is gone or silent."""
        try:
            return self.raw.ask(command, dict(arguments or {}))
        except TimeoutError:
            # A file that timed out once is never read again, and QEMU may only be slow.
            self.raw.file.close()
            self.raw.file = self.raw.socket.makefile("rb")
            return {}
        except (AssertionError, OSError, ValueError):
            return {}

    def do(self, command: str, arguments: Mapping[str, Any] | None = None) -> str:
        """Empty, or QEMU's words when it refuses."""
        answer = self.ask(command, arguments)
        return "" if "return" in answer else str(answer.get("error", {}).get("desc", "gone"))

    def run_until(self, path: str, words: str, timeout: float = 110.0) -> None:
        """Let the guest run until what it writes to a file has these words."""
        assert not self.do("cont")
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and not self.dead:
            with open(path, errors="replace") as file:
                if words in file.read():
                    return
            select.select([], [], [], 0.05)
        raise AssertionError(f"the guest never said {words!r}: {self.raw.said()}")

    def status(self, timeout: float) -> dict[str, Any]:
        """query-migrate, {} when there is no answer in time."""
        self.raw.socket.settimeout(timeout)
        answer: Any = self.ask("query-migrate")
        return answer.get("return", {}) if answer else {"status": "silent"}

    @property
    def dead(self) -> bool:
        return self.raw.process.poll() is not None

    def set_up(self, steps: Setup) -> str:
        """Send commands; QEMU's words when it refuses one."""
        return next((words for words in (self.do(*step) for step in steps) if words), "")


def migrate(
    source: Sequence[str],
    destination: Sequence[str],
    *,
    setup: tuple[Setup, Setup] = ((), ()),
    postcopy: bool = False,
    until: tuple[str, str] | None = None,
    eager: bool = False,
    uri: str = "",
) -> Outcome:
    """Start both command lines paused, migrate, and see what comes of it.

    Args:
        source: the whole command line, without a monitor and without `-S`.
        destination: the same; `-incoming defer` is added.
        setup: commands for the source and for the destination before they begin.
        postcopy: ask for postcopy at once.
        until: a file and words: the source's guest runs until the file holds them.
        eager: the source's guest takes every feature of its network device.
        uri: by default a socket in a folder of its own.
    """
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="pair-"))
        guest = EagerGuest(os.path.join(folder, "qtest")) if eager else None
        if guest is not None:
            stack.callback(guest.close)
        try:
            first = End([*source, "-S", *(guest.argv if guest is not None else ())])
            stack.callback(first.raw.close)
            second = End([*destination, "-S", "-incoming", "defer"])
            stack.callback(second.raw.close)
        except (AssertionError, ValueError, OSError) as error:
            return Outcome("refused", str(error), "")
        for end, steps in zip((first, second), setup, strict=True):
            refused = end.set_up(steps)
            if refused:
                return Outcome("refused", refused, "")
        if guest is not None:
            guest.drive()
        if until is not None:
            first.run_until(*until)
        return _migrate(first, second, uri or f"unix:{os.path.join(folder, 's')}", postcopy)


def _migrate(
    source: End, destination: End, uri: str, postcopy: bool, *, hung: float = HUNG
) -> Outcome:
    refused = destination.do("migrate-incoming", {"uri": uri})
    refused = refused or source.do("migrate", {"uri": uri})
    if refused:
        return Outcome("refused", refused, source.status(2).get("error-desc", ""))
    if postcopy:
        source.do("migrate-start-postcopy")
    begun = changed = time.monotonic()
    here: dict[str, Any] = {}
    there: dict[str, Any] = {}
    seen: object = None
    while time.monotonic() < min(changed + hung, begun + _LONGEST):
        here = source.status(1)
        there = {} if destination.dead else destination.status(1)
        sent = here.get("ram", {}).get("transferred")
        now = (here.get("status"), sent, there.get("status"))
        if now != seen and "silent" not in now:
            seen, changed = now, time.monotonic()
        if destination.dead or there.get("status") in _ENDS:
            break
        if here.get("status") in ("failed", "cancelled"):
            break
        if here.get("status") == "pre-switchover":
            source.do("migrate-continue", {"state": "pre-switchover"})
        select.select([], [], [], 0.02)  # the next question; every wait has this loop's deadline
    source_said = f"{here.get('status')} {here.get('error-desc', '')} {source.raw.said()}"
    if there.get("status") == "completed":
        return Outcome("completed", destination.raw.said(), source_said)
    said = f"{destination.raw.said()} {there.get('error-desc', '')}".strip()
    if destination.dead or "failed" in (there.get("status"), here.get("status")):
        return Outcome("failed", said, source_said)
    return Outcome("hung", f"{said} ({there.get('status')})", source_said)
