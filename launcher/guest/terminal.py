"""A line typed at a shell on the serial console, and what it wrote, whatever else is on the line.

The shell may echo what is typed, print prompts and escapes; the kernel and other programs write on
the same console. So a command is typed in base64, and what it writes comes back as base64 lines
that are numbered and stand between marks which no echo can contain: there the parts of a mark are
apart. What was disturbed shows as a number that is missing or a line that is short.
"""

from __future__ import annotations

import asyncio
import base64
import re
import secrets
from contextlib import suppress

from launcher.display import printable
from launcher.guest.ran import GuestError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.console import Console

#: A terminal hands on lines of at most 4095 characters (n_tty.c), and a shell that edits lines is
#: slow with long ones.
LINE = 2048
#: Longer than any line of ours; of more, the end is kept.
_LONGEST = 1 << 13
#: What base64 writes in a line (RFC 2045, both of coreutils and of busybox).
_WIDTH = 76
#: Seconds after which it is looked whether there still is a console.
_LOOK = 0.5
#: Seconds that a shell which was interrupted has for a line; twice as many after each Ctrl-C.
_BACK = 0.5
_NUMBERED = re.compile(rb"(?:^|\r)(\d{1,8}):([A-Za-z0-9+/]+={0,2})\r*$")


class Terminal:
    """A shell at a console.

    Must stand at a prompt of a POSIX shell when `line` is called: it does not log in.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._turn = asyncio.Lock()
        self._interrupted = False

    async def typed(
        self, lines: list[str], seconds: float, output: Encoded | None = None
    ) -> tuple[int, bytes]:
        """Type lines of shell one after another, each when the one before has ended.

        Args:
            lines: shell; one that fails is the last.
            seconds: for all of them.
            output: what the last one writes.

        Returns:
            The exit status of the last, and what it wrote, decoded.

        Raises:
            GuestError: no shell answers, or the output was disturbed.
        """
        try:
            async with asyncio.timeout(seconds), self._turn:
                await self._come_back()
                for line in lines[:-1]:
                    answer = await self._type(line, 0)
                    if answer.status:
                        return answer.status, b""
                answer = await self._type(lines[-1], output.most if output else 0)
                return answer.status, answer.data(output.end) if output else b""
        except TimeoutError:
            raise await self._silent(seconds) from None

    async def tell(self, line: str, seconds: float) -> None:
        """Type a line that nobody waits for, in so many seconds whether or not a shell is there."""
        async with self._turn:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._come_back()
            await self._console.send_line(f" {line}")

    async def _come_back(self) -> None:
        """Wait until a shell that was interrupted answers again.

        A shell forgets what is typed until it has heard of Ctrl-C, so each is followed by two lines
        of which one may be lost; and one that comes while the shell starts a program may end
        neither of them, so there may have to be another.
        """
        seconds, lost = _BACK, 0
        while self._interrupted:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._type("true", 0)
                    self._interrupted = False
                    return
            lost += 1
            if lost % 2 == 0:
                await self._console.write(b"\x03")
                seconds *= 2

    async def _type(self, line: str, most: int) -> _Answer:
        number = f"{secrets.randbits(48):012x}"
        answer = _Answer(number, most)
        stop = self._console.listen(answer.feed)
        begin = f"printf '\\n%s%s\\n' launcher+ {number}"
        end = f"printf '\\n%s%s %s\\n' launcher- {number} $?"
        try:
            # Behind a space: shells that keep a history may leave it out.
            await self._console.write(f" {begin}; {line}; {end}\n")
            while not answer.ended:
                if self._console.closed:
                    raise GuestError("the console was closed", code="guest-shell")
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK):
                        await answer.news.wait()
        finally:
            stop()
        return answer

    async def _silent(self, seconds: float) -> GuestError:
        """The error for no end in time; what runs is interrupted, for the next line's sake."""
        self._interrupted = True
        with suppress(OSError):
            await self._console.write(b"\x03")
        last = self._console.text.splitlines()[-20:]
        error = GuestError(
            f"the shell at the console did not finish within {seconds:g} s; it was sent Ctrl-C",
            hint="a POSIX shell must stand at its prompt there: log in first, with console.expect "
            "and console.send_line",
            evidence={"console": last},
            code="guest-shell",
        )
        error.add_note("\n".join(["console:", *(f"  {line!r}"[:200] for line in last)]))
        return error


class Encoded:
    """Output on its way through a terminal.

    Attributes:
        most: bytes that are kept; the rest is read all the same, so that nobody's pipe breaks.
        end: what stands behind it when it is whole.
        shell: what it is to be piped into.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.end = f"{secrets.randbits(48):012x}".encode()
        kept = f"head -c {most}; cat >/dev/null; printf %s {self.end.decode()}"
        self.shell = f"{{ {kept}; }} | base64 | grep -n ''"


class _Answer:
    """What comes between the marks of one line; bounded in memory."""

    def __init__(self, number: str, most: int) -> None:
        self.ended = False
        self.status = 0
        self.news = asyncio.Event()
        self._begin = f"launcher+{number}".encode()
        self._end = re.compile(rf"launcher-{number} (\d{{1,3}})".encode())
        self._begun = False
        self._line = b""
        self._lines: list[bytes] = []
        # Base64 is 4/3; numbers that are right are consecutive.
        self._most = (most + 64) * 4 // 3 // _WIDTH + 2
        self._foreign: list[bytes] = []

    def feed(self, data: bytes) -> None:
        """What the console wrote."""
        if self.ended:
            return
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._take(self._line + line)
            self._line = b""
        self._line = (self._line + rest)[-_LONGEST:]

    def _take(self, line: bytes) -> None:
        if not self._begun:
            self._begun = self._begin in line
            return
        if found := self._end.search(line):
            self.status = int(found[1])
            self.ended = True
            self.news.set()
            return
        numbered = _NUMBERED.search(line)
        if numbered is None or int(numbered[1]) != len(self._lines) + 1:
            if line.strip():
                self._foreign = [*self._foreign[-3:], line[:200]]
        elif len(self._lines) < self._most:
            self._lines.append(numbered[2])

    def data(self, end: bytes) -> bytes:
        """What was decoded, without the `end` that shows that it is whole.

        Raises:
            GuestError: something else wrote in the midst of it, or nothing came.
        """
        found = b""
        if all(len(line) == _WIDTH for line in self._lines[:-1]):
            with suppress(ValueError):
                found = base64.b64decode(b"".join(self._lines), validate=True)
        if found.endswith(end):
            return found.removesuffix(end)
        others = printable(b" | ".join(self._foreign).decode("utf-8", "replace"))
        if not self._lines:
            raise GuestError(
                f"the shell at the console wrote nothing that can be read; it showed {others!r}",
                hint="the guest needs base64, cat, grep, head and printf",
                code="guest-shell",
            )
        raise GuestError(
            f"the output was disturbed on the console; there was also {others!r}",
            hint="silence what else writes there, or use the guest agent",
            code="guest-shell",
        )


def in_base64(data: bytes) -> list[str]:
    """`data` in pieces that fit into a line; each can be decoded by itself."""
    text = base64.b64encode(data).decode()
    return [text[at : at + LINE] for at in range(0, len(text), LINE)]
