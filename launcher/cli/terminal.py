"""The guest's console on this terminal: output that never holds us up, keys passed on raw."""

from __future__ import annotations

import asyncio
import os
import select
import termios

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from launcher.console import Console

#: Ctrl-], telnet's and virsh's key to leave.
LEAVE = b"\x1d"

#: A pipe that poll calls writable takes this much without blocking (PIPE_BUF, pipe(7)).
_ATOMIC = 4096
#: What waits for a reader that is slower than the guest; older output is dropped, and counted.
_KEEP = 1 << 20
#: What waits for a guest that does not read its console.
_TYPED = 1 << 16


class Screen:
    """Bytes to a file descriptor that may be slow, in order, without ever blocking.

    The descriptor's own mode is left alone: O_NONBLOCK would be shared with the shell.

    Attributes:
        dropped: bytes that no longer waited.
        lost: set when nobody reads any more.
        failure: why.
    """

    def __init__(self, fd: int) -> None:
        self.dropped = 0
        self.failure = OSError()
        self.lost = asyncio.Event()
        self._fd = fd
        self._waiting = bytearray()
        self._watched = False
        self._empty = asyncio.Event()
        self._empty.set()
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    def write(self, data: bytes) -> None:
        """Write `data` now, or as soon as it is taken."""
        if self.lost.is_set():
            return
        self._waiting += data
        excess = len(self._waiting) - _KEEP
        if excess > 0:
            del self._waiting[:excess]
            self.dropped += excess
        self._flush()

    def _flush(self) -> None:
        while self._waiting and self._poll.poll(0):
            try:
                written = os.write(self._fd, self._waiting[:_ATOMIC])
            except OSError as error:
                self.failure = error
                self._waiting.clear()
                self.lost.set()
                break
            del self._waiting[:written]
        self._watch(bool(self._waiting))

    def _watch(self, wanted: bool) -> None:
        loop = asyncio.get_running_loop()
        if wanted and not self._watched:
            loop.add_writer(self._fd, self._flush)
            self._empty.clear()
        elif not wanted:
            if self._watched:
                loop.remove_writer(self._fd)
            self._empty.set()
        self._watched = wanted

    async def drain(self) -> None:
        """Wait until all has been taken, or nobody is left to take it."""
        await self._empty.wait()

    def close(self) -> None:
        """Forget what still waits."""
        self._waiting.clear()
        self._watch(False)


class Keys:
    """The terminal's keys for the guest, while the `with` block lasts.

    Args:
        console: the guest's.
        fd: of a terminal.
        leave: called for each LEAVE, which the guest does not get.
    """

    def __init__(self, console: Console, fd: int, leave: Callable[[], None]) -> None:
        self._console = console
        self._fd = fd
        self._leave = leave
        self._typed = bytearray()
        self._sender: asyncio.Task[None] | None = None

    def __enter__(self) -> Keys:
        self._before = termios.tcgetattr(self._fd)
        raw = termios.tcgetattr(self._fd)
        # As cfmakeraw(3): the guest sends both CR and LF, and so must we while this lasts.
        off = termios.BRKINT | termios.ICRNL | termios.INPCK | termios.ISTRIP | termios.IXON
        raw[0] &= ~(off | termios.INLCR | termios.IGNCR)
        raw[1] &= ~termios.OPOST
        raw[3] &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN | termios.ISIG)
        termios.tcsetattr(self._fd, termios.TCSADRAIN, raw)
        asyncio.get_running_loop().add_reader(self._fd, self._read)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)
        if self._sender is not None:
            self._sender.cancel()
        termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)

    def _read(self) -> None:
        try:
            data = os.read(self._fd, 1024)
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._fd)
            return
        for _ in range(data.count(LEAVE)):
            self._leave()
        # A guest that reads nothing must not keep us from seeing the key to leave.
        self._typed += data.replace(LEAVE, b"")[: _TYPED - len(self._typed)]
        if self._typed and (self._sender is None or self._sender.done()):
            self._sender = asyncio.ensure_future(self._send())

    async def _send(self) -> None:
        try:
            while self._typed:
                data = bytes(self._typed)
                self._typed.clear()
                await self._console.write(data)
        except OSError:
            return  # the machine has ended, and whoever waits for that says so


def is_ours(fd: int) -> bool:
    """Whether `fd` is a terminal that reads its keys for us: not for a job in the background."""
    try:
        return os.isatty(fd) and os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:
        return False
