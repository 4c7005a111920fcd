"""A guest that is beyond help ends what a test waits for, at once and with the reason."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from launcher.display import printable
from launcher.errors import CommandError, LauncherError, MonitorError, QEMUError
from launcher.process import describe_exit
from launcher.sync.thread import THREAD, Caller

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any, TypeVar

    from launcher.machine import Machine
    from launcher.monitor import Event

    _T = TypeVar("_T")

#: What can be allowed with `machine(…, allow=…)`, where a test is about it.
FAULTS = ("panic", "watchdog", "crash")
# A console or a monitor that breaks is often the first that shows of a death; the reason comes
# right behind it.
_BEHIND = 0.5


class GuestFault(QEMUError):
    """The guest panicked, its watchdog fired, or QEMU crashed; `evidence["fault"]` says which."""

    code = "guest-fault"


class Guard(Caller):
    """What the face of a machine calls through in a test; made in the launcher's thread.

    Attributes:
        fault: what happened, as soon as it has.
    """

    def __init__(self, machine: Machine, allowed: frozenset[str] = frozenset()) -> None:
        self.fault: GuestFault | None = None
        self._machine = machine
        self._allowed = allowed
        self._reported = False
        self._happened = asyncio.Event()
        self._deaf = machine.monitor.on_event(self._hear)
        self._tasks: set[asyncio.Task[None]] = set()
        self._follow(self._wait_end())

    def call(self, work: Coroutine[Any, Any, _T]) -> _T:
        """As `Caller.call`.

        Raises:
            GuestFault: the guest is beyond help, and it was not said before.
        """
        return THREAD.call(self.guarded(work))

    async def guarded(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Do `work` in the launcher's thread, unless a fault comes first."""
        task = asyncio.ensure_future(work)
        happened = asyncio.ensure_future(self._happened.wait())
        watched = {task} if self._reported else {task, happened}
        try:
            await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            failed = task.done() and not task.cancelled() and task.exception() is not None
            if failed and not self._reported and isinstance(task.exception(), LauncherError):
                await asyncio.wait({happened}, timeout=self._patience())
            if self._happened.is_set() and not self._reported and (failed or not task.done()):
                self._reported = True
                assert self.fault is not None
                raise self.fault from (task.exception() if failed else None)
        finally:
            happened.cancel()
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
            if not task.cancelled():
                task.exception()  # seen: asyncio would report it
        return task.result()

    def _patience(self) -> float:
        broken = not self._machine.monitor.connected or self._machine.process.poll() is not None
        return _BEHIND if broken else 0.0

    def unreported(self) -> GuestFault | None:
        """A fault that no call has raised yet; from now on it counts as told."""
        if self._reported:
            return None
        self._reported = self.fault is not None
        return self.fault

    def close(self) -> None:
        """Stop watching; to be called in the launcher's thread, before the machine is ended."""
        with suppress(ValueError):
            self._deaf()
        for task in self._tasks:
            task.cancel()

    def _follow(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _hear(self, event: Event) -> None:
        if event.name == "GUEST_PANICKED":
            info = event.data.get("info")
            more = f": {printable(str(info))}" if info else ""
            self._declare("panic", f"the guest panicked{more}")
        elif event.name == "WATCHDOG":
            action = event.data.get("action")
            self._declare("watchdog", f"the guest's watchdog fired (action {action})")
        elif event.name == "STOP":
            self._follow(self._look_for_internal_error())

    async def _look_for_internal_error(self) -> None:
        with suppress(MonitorError, CommandError):
            status = await self._machine.monitor.execute("query-status")
            if status["status"] == "internal-error":
                self._declare("crash", "QEMU stopped the guest: internal error (see its stderr)")

    async def _wait_end(self) -> None:
        process = self._machine.process
        code = await process.wait(None)
        if code != 0 and not process.ladder:  # a ladder: we ended it, and not gently
            said = "; ".join(printable(line) for line in process.stderr.lines[-3:])
            self._declare("crash", f"{describe_exit(code)}{': ' if said else ''}{said}")

    def _declare(self, kind: str, message: str) -> None:
        if self.fault is not None or kind in self._allowed:
            return
        lines = [
            line for c in self._machine.consoles.values() for line in c.text.splitlines()[-20:]
        ]
        name = self._machine.plan.name
        self.fault = GuestFault(
            f"{name}: {message}",
            evidence={
                "fault": kind,
                "console": lines,
                "qemu_stderr": self._machine.process.stderr.lines,
            },
        )
        if lines:
            self.fault.add_note("\n".join(["console:", *(f"  {line!r}"[:200] for line in lines)]))
        self._happened.set()
