"""The end of a process that is no child of ours, seen through its pidfd."""

from __future__ import annotations

import os

from launcher.host.state import start_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio


class Ending:
    """The end of one process; its pid cannot become another's meanwhile.

    Args:
        pid: of the process.
        started: its start time, by which it is told from whoever had its pid before (proc(5));
            None takes it as it is.
    """

    def __init__(self, pid: int, started: int | None) -> None:
        self.pid = pid
        self.fd = -1
        try:
            self.fd = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        # Only now does the pid stay its own: whoever had it before is told apart by its start.
        if started is not None and start_time(pid) != started:
            self.close()

    def reached(self) -> bool:
        """Whether it has ended."""
        if self.fd < 0:
            return True
        import select

        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        return bool(poll.poll(0))

    def signal(self, number: int) -> None:
        """Send a signal, to this process or to nobody."""
        import signal
        from contextlib import suppress

        if self.fd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.fd, number)

    async def within(self, seconds: float | None) -> bool:
        """Whether it ends within that time; None waits for ever."""
        import asyncio
        from contextlib import suppress

        if self.reached():
            return True
        loop = asyncio.get_running_loop()
        seen: asyncio.Future[None] = loop.create_future()
        # A descriptor of its own: a loop has room for one reader of each.
        fd = os.dup(self.fd)
        loop.add_reader(fd, _settle, seen)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await seen
        finally:
            loop.remove_reader(fd)
            os.close(fd)
        return self.reached()

    def close(self) -> None:
        """Let go of it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _settle(seen: asyncio.Future[None]) -> None:
    if not seen.done():
        seen.set_result(None)
