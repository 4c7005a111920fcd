"""A guest's serial console over a socket: always drained, bounded in memory, awaitable."""

from __future__ import annotations

import asyncio
import codecs
import re

from launcher.errors import LauncherError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable

#: How many characters of the console are kept in memory; what fell out is counted.
KEEP = 256 * 1024

# ECMA-48: control sequences, strings up to BEL or ST, and what else has two characters.
_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]{0,4096}(?:\x07|\x1b\\)"
    r"|[ -/]+[0-~]|[0-OQ-WYZ\\`-~])"
)
# One that has begun and may go on in the next piece; what is longer is no escape.
_BEGUN = re.compile(
    r"\x1b(?:\[[0-?]{0,4096}[ -/]{0,4096}|[\]PX^_][^\x07\x1b]{0,4096}\x1b?|[ -/]{0,4096})\Z"
)
# Of the time in which output floods in, so much at most goes into searching it.
_SEARCH_SHARE = 0.2


class Console:
    """One serial port of a machine.

    What a guest sends is text to us: bytes that are not UTF-8 become U+FFFD and terminal escapes
    are left out. Who wants the bytes listens.

    Attributes:
        dropped: characters that no longer are in memory.
        closed: the machine closed it, or we did.
        explain: asked for more lines when a wait has failed.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.dropped = 0
        self.closed = False
        self.explain: Callable[[], Awaitable[list[str]]] | None = None
        self._socket = sock
        self._text = ""
        self._pending = ""  # the beginning of an escape
        self._unread = 0  # where `read` and `expect` go on, counted from the first character
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._news = asyncio.Event()
        self._listeners: list[Callable[[bytes], None]] = []
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock, self._read)

    @property
    def text(self) -> str:
        """What the guest wrote and is still kept."""
        return self._text

    def read(self) -> str:
        """What came since the last `read` or `expect`, without waiting."""
        found = self._text[max(0, self._unread - self.dropped) :]
        self._unread = self.dropped + len(self._text)
        return found

    def forget(self) -> None:
        """Drop what is kept: from now on only what the guest writes from now on counts."""
        self.dropped += len(self._text)
        self._text = ""

    def listen(self, callback: Callable[[bytes], None]) -> Callable[[], None]:
        """Call `callback` with every piece of output from now on, as the guest sent it.

        Returns:
            What ends that.
        """
        self._listeners.append(callback)
        return lambda: self._listeners.remove(callback)

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
        for callback in tuple(self._listeners):
            callback(data)
        self._keep(self._decoder.decode(data))
        self._news.set()

    def _keep(self, piece: str) -> None:
        piece = self._pending + piece
        self._pending = ""
        if "\x1b" in piece:
            piece = _ESCAPES.sub("", piece)
            if begun := _BEGUN.search(piece):
                piece, self._pending = piece[: begun.start()], begun.group()
        self._text += piece
        excess = len(self._text) - KEEP
        if excess > 0:
            self._text = self._text[excess:]
            self.dropped += excess

    async def wait_for(self, pattern: str, timeout: float = 60.0) -> str:  # noqa: ASYNC109
        """Wait until the console shows `pattern`, a regular expression; returns what matched.

        Output that came before the call counts, as far as it is still kept, even when it was
        read: this asks what the console shows, not what is new. See `expect` for that.

        Raises:
            LauncherError: it did not come in time, or the machine ended; `evidence` has the last
                lines.
        """
        return (await self._search(pattern, timeout, lambda: 0)).group()

    async def expect(self, pattern: str, timeout: float = 60.0) -> re.Match[str]:  # noqa: ASYNC109
        """Wait for `pattern`, a regular expression, in what was not read or expected yet.

        What stands before the end of the match counts as read from then on.

        Raises:
            LauncherError: as `wait_for`.
        """
        match = await self._search(pattern, timeout, lambda: max(0, self._unread - self.dropped))
        self._unread = self.dropped + match.end()
        return match

    async def _search(
        self, pattern: str, seconds: float, start: Callable[[], int]
    ) -> re.Match[str]:
        wanted = re.compile(pattern)
        try:
            async with asyncio.timeout(seconds):
                while True:
                    self._news.clear()
                    before = self._loop.time()
                    if match := wanted.search(self._text, start()):
                        return match
                    if self.closed:
                        raise await self._missed(pattern, "the console was closed")
                    # Not again for each piece of a flood: all of them are in the next search.
                    spent = self._loop.time() - before
                    await self._news.wait()
                    await asyncio.sleep(spent / _SEARCH_SHARE - spent)
        except TimeoutError:
            pass
        raise await self._missed(pattern, f"not within {seconds:g} s")

    async def _missed(self, pattern: str, why: str) -> LauncherError:
        lines = self._text.splitlines()[-20:]
        last = f"; the last line was {lines[-1]!r}" if lines else "; it showed nothing"
        error = LauncherError(
            f"the console did not show {pattern!r}: {why}{last}",
            evidence={"console": lines},
            code="console",
        )
        more = await self.explain() if self.explain is not None else []
        error.evidence["guest"] = more
        error.add_note("\n".join(["console:", *(f"  {line!r}"[:200] for line in lines), *more]))
        return error

    async def write(self, data: bytes | str) -> None:
        """Type `data` at the guest's console."""
        raw = data.encode() if isinstance(data, str) else data
        await self._loop.sock_sendall(self._socket, raw)

    async def send_line(self, line: str) -> None:
        """Type `line` and press return."""
        await self.write(f"{line}\n")

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
