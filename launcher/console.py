"""A guest's serial console over a socket: always drained, bounded in memory, awaitable."""

from __future__ import annotations

import asyncio
import re

from launcher.errors import LauncherError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from typing import BinaryIO

#: How much of the console is kept in memory; what fell out is counted.
KEEP = 256 * 1024


class Console:
    """One serial port of a machine.

    Attributes:
        dropped: bytes that no longer are in memory.
    """

    def __init__(self, sock: socket.socket, log: BinaryIO | None = None) -> None:
        sock.setblocking(False)
        self.dropped = 0
        self._socket = sock
        self._log = log
        self._kept = bytearray()
        self._news = asyncio.Event()
        self._listeners: list[Callable[[bytes], None]] = []
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock, self._read)
        self.closed = False

    @property
    def text(self) -> str:
        """What the guest wrote and is still kept, bytes that are not UTF-8 replaced."""
        return self._kept.decode("utf-8", "replace")

    def listen(self, callback: Callable[[bytes], None]) -> None:
        """Call `callback` with every piece of output from now on."""
        self._listeners.append(callback)

    def _read(self) -> None:
        try:
            data = self._socket.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self._kept += data
        excess = len(self._kept) - KEEP
        if excess > 0:
            del self._kept[:excess]
            self.dropped += excess
        if self._log is not None:
            self._log.write(data)
        for callback in self._listeners:
            callback(data)
        self._news.set()

    async def wait_for(self, pattern: str, timeout: float = 60.0) -> str:  # noqa: ASYNC109
        """Wait until the console shows `pattern`, a regular expression; returns what matched.

        Output that came before the call counts, as far as it is still kept.

        Raises:
            LauncherError: it did not come in time, or the machine ended; `evidence` has the last
                lines.
        """
        wanted = re.compile(pattern)
        try:
            async with asyncio.timeout(timeout):
                while (match := wanted.search(self.text)) is None:
                    if self.closed:
                        raise self._missed(pattern, "the console was closed")
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise self._missed(pattern, f"not within {timeout:g} s") from None
        return match.group()

    def _missed(self, pattern: str, why: str) -> LauncherError:
        lines = self.text.splitlines()[-20:]
        last = f"; the last line was {lines[-1]!r}" if lines else "; it showed nothing"
        return LauncherError(
            f"the console did not show {pattern!r}: {why}{last}",
            evidence={"console": lines},
            code="console",
        )

    async def write(self, data: bytes | str) -> None:
        """Type `data` at the guest's console."""
        raw = data.encode() if isinstance(data, str) else data
        await self._loop.sock_sendall(self._socket, raw)

    async def wait_closed(self, timeout: float | None) -> None:  # noqa: ASYNC109
        """Wait until all that the guest wrote has been read, or for `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                while not self.closed:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return

    def close(self) -> None:
        """Stop reading; waiting `wait_for`s end. May be repeated."""
        if not self.closed:
            self.closed = True
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._news.set()
