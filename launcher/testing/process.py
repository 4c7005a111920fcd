"""A process that is none: what `Machine` and its users look at of QEMU's."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from launcher.errors import QEMUError
from launcher.process import StderrTail

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

#: Above the kernel's largest (PID_MAX_LIMIT, 4194304): who signals it meets nobody.
_NO_PID = (1 << 22) + 1


class NoProcess:
    """Has the attributes of `launcher.process.Process`; ends when `end` is called."""

    def __init__(self, argv: list[str]) -> None:
        self.pid = _NO_PID
        self.pidfd = -1
        self.argv = tuple(argv)
        self.stderr = StderrTail()
        self.returncode: int | None = None
        self.ladder: list[str] = []
        self._ended = asyncio.Event()

    def end(self, code: int) -> None:
        """Have ended with that exit status."""
        if self.returncode is None:
            self.returncode = code
            self._ended.set()

    def poll(self) -> int | None:
        """The exit status, None while it runs."""
        return self.returncode

    def drain(self) -> int:
        """Nothing is ever on its stderr but what a test feeds."""
        return 0

    def kill(self, timeout: float = 5.0) -> int | None:
        """End it as SIGKILL does."""
        self.end(-9)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """End it by a signal."""
        self.end(-number)

    async def watch(self) -> None:
        """As `Process.watch`; there is nothing to watch."""

    async def wait(self, timeout: float | None) -> int:  # noqa: ASYNC109 (asyncio.timeout inside)
        """As `Process.wait`.

        Raises:
            TimeoutError: it still runs.
        """
        async with asyncio.timeout(timeout):
            await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    async def stop(
        self,
        *,
        quit: Callable[[], Awaitable[Any]] | None = None,  # noqa: A002 (as Process.stop)
        powerdown: Callable[[], Awaitable[Any]] | None = None,
        deadlines: object = None,
    ) -> str:
        """As `Process.stop`: the first rung that there is, then a kill."""
        if self.returncode is not None:
            return "exited"
        for name, action in (("powerdown", powerdown), ("quit", quit)):
            if action is not None:
                with suppress(QEMUError, TimeoutError):
                    await action()
                    await self.wait(1.0)
                    return name
        self.kill()
        return "SIGKILL"
