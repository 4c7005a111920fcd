"""`/metrics` over HTTP: one question, one answer, for a few who ask at once.

On loopback unless an address is given: there is no password, and whoever can connect may ask.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from launcher.errors import HostError, InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

#: Bytes of a request, seconds for all of it, and who is served at once; more are sent away.
_LIMIT = 8192
_SECONDS = 5.0
_AT_ONCE = 8


def parse_place(text: str) -> tuple[str, int]:
    """Address and port of `9105`, `192.0.2.1:9105` or `[::1]:9105`.

    Raises:
        InputError: it is none of these.
    """
    address, colon, port = text.rpartition(":")
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    elif ":" in address:
        port = ""
    if not (port.isascii() and port.isdecimal() and int(port) < 65536) or (colon and not address):
        raise InputError(
            f"{text!r} is not where metrics can be served",
            hint="a port (on loopback), or ADDRESS:PORT",
            code="usage",
        )
    return address or "127.0.0.1", int(port)


class Scrape:
    """The server; an asynchronous context.

    Args:
        place: address and port; port 0 lets the kernel choose.
        text: makes the answer.

    Attributes:
        place: where it really is, once it serves.

    Raises:
        HostError: the place cannot be had.
    """

    def __init__(self, place: tuple[str, int], text: Callable[[], str]) -> None:
        self.place = place
        self._text = text
        self._serving = 0
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Scrape:
        address, port = self.place
        try:
            server = await asyncio.start_server(self._serve, address, port, limit=_LIMIT)
        except OSError as error:
            words = f"metrics cannot be served on {address}:{port}: {error.strerror}"
            raise HostError(words, code="metrics") from None
        self.place = server.sockets[0].getsockname()[:2]
        self._server = server
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._serving += 1
        try:
            if self._serving <= _AT_ONCE:
                async with asyncio.timeout(_SECONDS):
                    writer.write(self._answer(await reader.readuntil(b"\r\n\r\n")))
                    await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # who does not ask as HTTP has it gets no answer
        finally:
            self._serving -= 1
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    def _answer(self, request: bytes) -> bytes:
        """An answer as a whole (RFC 9112); the connection ends with it."""
        words = request.split(b"\r\n", 1)[0].split(b" ")
        method, target = words[0], words[1] if len(words) == 3 else b""
        status, body = "200 OK", ""
        if method not in (b"GET", b"HEAD"):
            status = "405 Method Not Allowed"
        elif target.partition(b"?")[0] != b"/metrics":
            status = "404 Not Found"
        else:
            body = self._text()
        head = (
            f"HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        return (head + (body if method == b"GET" else "")).encode()
