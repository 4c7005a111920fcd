"""A running process: its stderr drained, its end seen through a pidfd, its stop ladder.

No thread per child (asyncio's own watcher in Python 3.11 starts one each) and no polling: a pidfd
becomes readable when the process ends, and a signal sent through it cannot hit another process
that was given the same pid.
"""

from __future__ import annotations

import os

from launcher.errors import QEMUError
from launcher.process.stderr import StderrTail
from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Sequence
    from typing import Any

_CHUNK = 64 * 1024
# A rung whose action failed gets this long all the same: QEMU may close its monitor because it is
# on its way out, and then it was this rung that worked.
_GRACE = 0.5
# waitid gives no status when somebody else has reaped the child; what asyncio reports then, too.
_UNKNOWN_STATUS = 255


@record
class Deadlines:
    """How long each rung of the stop ladder may take, in seconds."""

    powerdown: float = 30.0
    quit: float = 5.0
    term: float = 5.0
    kill: float = 5.0


DEADLINES = Deadlines()


class Process:
    """A child of ours, made by `spawn`.

    Attributes:
        pid: its process id.
        pidfd: a file descriptor for it; -1 once it has been reaped.
        argv: its command line.
        stderr: what it said (`StderrTail`).
        returncode: None while it runs, negative for a signal.
        ladder: what `stop` did, a line for each rung that it needed.
    """

    def __init__(self, pid: int, argv: Sequence[str], stderr_fd: int) -> None:
        self.pid = pid
        self.argv = tuple(argv)
        self.stderr = StderrTail()
        self.stderr_fd = stderr_fd
        self.returncode: int | None = None
        self.ladder: list[str] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Event | None = None
        self.pidfd = os.pidfd_open(pid)  # close-on-exec by definition; last: nothing to undo

    def __repr__(self) -> str:
        state = "running" if self.returncode is None else f"returncode {self.returncode}"
        return f"<Process {self.pid} {state}>"

    def drain(self) -> int:
        """Take what is on stderr without waiting; returns the number of bytes.

        For the time before there is a loop; `watch` does it from then on. Takes at most 1 MiB, so
        that a process which never stops talking cannot hold us.
        """
        taken = 0
        for _ in range(16):
            data = self._read_stderr()
            if not data:
                break
            taken += len(data)
        return taken

    def _read_stderr(self) -> bytes:
        if self.stderr_fd < 0:
            return b""
        try:
            data = os.read(self.stderr_fd, _CHUNK)
        except BlockingIOError:
            return b""
        if data:
            self.stderr.feed(data)
        else:
            self._close_stderr()
        return data

    def poll(self) -> int | None:
        """The returncode if it has ended, else None; never waits."""
        if self.returncode is None:
            self._reap(os.WNOHANG)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal; nothing happens when the process has already ended."""
        if self.pidfd < 0:
            return
        import signal
        from contextlib import suppress

        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    def kill(self, timeout: float = 5.0) -> int | None:
        """SIGKILL and reap, without a loop: the way out of any state.

        Returns:
            The returncode, or None if the kernel did not let go of it within `timeout` seconds.
        """
        self.send_signal(9)
        self.ends_within(timeout)
        return self.returncode

    def ends_within(self, timeout: float) -> bool:
        """Whether it ends, and is reaped, within `timeout` seconds; waits without a loop."""
        if self.returncode is None:
            import select

            ended = select.poll()
            ended.register(self.pidfd, select.POLLIN)
            if ended.poll(timeout * 1000):
                self._reap(0)
        return self.returncode is not None

    def _reap(self, flags: int) -> None:
        try:
            result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | flags)
        except ChildProcessError:
            self._finish(_UNKNOWN_STATUS)
            return
        if result is not None:
            exited = result.si_code == os.CLD_EXITED
            self._finish(result.si_status if exited else -result.si_status)

    def _finish(self, returncode: int) -> None:
        self.returncode = returncode
        # What it said last is still in the pipe. Not to the end of the file: a child of its own
        # may hold the pipe open for ever.
        self.drain()
        self._close_stderr()
        self._unwatch(self.pidfd)
        os.close(self.pidfd)
        self.pidfd = -1
        if self._ended is not None:
            self._ended.set()

    def _close_stderr(self) -> None:
        if self.stderr_fd >= 0:
            self._unwatch(self.stderr_fd)
            os.close(self.stderr_fd)
            self.stderr_fd = -1

    def _unwatch(self, fd: int) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(fd)

    # From here on there is a loop.

    async def watch(self) -> None:
        """Let the running loop drain stderr and see the end; again on another loop is fine."""
        import asyncio

        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return
        for fd in (self.stderr_fd, self.pidfd):
            self._unwatch(fd)
        self._loop = loop
        self._ended = asyncio.Event()
        if self.returncode is not None:
            self._ended.set()
            return
        if self.stderr_fd >= 0:
            loop.add_reader(self.stderr_fd, self._read_stderr)
        loop.add_reader(self.pidfd, self._reap, os.WNOHANG)

    async def wait(self, timeout: float | None) -> int:  # noqa: ASYNC109 (asyncio.timeout inside)
        """Wait for the end.

        Args:
            timeout: seconds; None waits for ever, which only a caller who has nothing else to
                do wants.

        Raises:
            TimeoutError: it still runs.
        """
        import asyncio

        await self.watch()
        assert self._ended is not None
        async with asyncio.timeout(timeout):
            await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    async def stop(
        self,
        *,
        quit: Callable[[], Awaitable[Any]] | None = None,  # noqa: A002 (QMP's own word)
        powerdown: Callable[[], Awaitable[Any]] | None = None,
        deadlines: Deadlines = DEADLINES,
    ) -> str:
        """End the process, from the kindest way that is given to SIGKILL.

        Args:
            quit: asks QEMU to end (QMP `quit`).
            powerdown: asks the guest to (QMP `system_powerdown`, which answers at once and
                promises nothing).
            deadlines: how long each rung may take, the action itself included.

        Returns:
            The rung that worked: "exited" (it had ended before), "powerdown", "quit", "SIGTERM"
            or "SIGKILL".

        Raises:
            QEMUError: it outlived SIGKILL, which a process in an uninterruptible system call does.
        """
        await self.watch()
        rungs = (
            ("powerdown", powerdown, deadlines.powerdown),
            ("quit", quit, deadlines.quit),
            ("SIGTERM", lambda: self._signalled(15), deadlines.term),
            ("SIGKILL", lambda: self._signalled(9), deadlines.kill),
        )
        if self.poll() is not None:
            return "exited"
        for name, action, seconds in rungs:
            if action is not None and await self._rung(name, action, seconds):
                return name
        raise QEMUError(
            f"process {self.pid} did not end {deadlines.kill:g} s after SIGKILL",
            hint="the kernel holds it in a system call; look at /proc/PID/stack and the storage",
            evidence={"ladder": list(self.ladder), "qemu_stderr": self.stderr.lines},
        )

    async def _signalled(self, number: int) -> None:
        self.send_signal(number)

    async def _rung(self, name: str, action: Callable[[], Awaitable[Any]], seconds: float) -> bool:
        """Do `action` and wait for the end; whether the process has ended."""
        import asyncio

        assert self._ended is not None
        loop = asyncio.get_running_loop()
        doing = asyncio.ensure_future(_done(action))
        limit = asyncio.timeout(seconds)
        waiting = True

        def done(_task: object) -> None:
            if waiting and (doing.cancelled() or doing.exception() is not None):
                # Whatever went wrong with it, the next rung must get its turn.
                self.ladder.append(f"{name}: {_summary(doing)}")
                limit.reschedule(min(limit.when() or 0.0, loop.time() + _GRACE))

        try:
            async with limit:
                doing.add_done_callback(done)
                await self._ended.wait()
        except TimeoutError:
            self.ladder.append(f"{name}: still running")
        finally:
            waiting = False
            if not doing.done():
                doing.cancel()
                await asyncio.wait({doing})
            elif not doing.cancelled():
                doing.exception()  # seen: asyncio would report it
        return self.returncode is not None


async def _done(action: Callable[[], Awaitable[Any]]) -> None:
    await action()  # in a coroutine: what `action` raises at once is like what it raises later


def _summary(task: asyncio.Future[Any]) -> str:
    error = None if task.cancelled() else task.exception()
    return f"{type(error).__name__}: {error}" if error else "cancelled"
