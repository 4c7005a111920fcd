"""What a person would see of a machine: its screen, its console."""

from __future__ import annotations

import asyncio
import os
from base64 import b64encode

from launcher import rejoin
from launcher.agent.links import Budget
from launcher.errors import HostError, InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from launcher.agent.verbs.work import Work

#: Bytes of a screen as QEMU writes it, and of one that an answer has room for.
_SCREEN, _SHOWN = 64 << 20, 700 * 1024
#: Seconds that a console is listened to when nobody says, and bytes of it in an answer.
_LISTEN, _TEXT = 5.0, 64 * 1024
#: Bytes that are published at once, and messages a second of one console.
_PIECE, _RATE = 16 * 1024, 20.0


async def screendump(work: Work) -> dict[str, Any]:
    """The first display, as PNG."""
    fd = os.memfd_create("screen", os.MFD_CLOEXEC)
    try:
        path = f"/proc/{os.getpid()}/fd/{fd}"
        await work.machines.execute(work.name, "screendump", {"filename": path})
        if os.fstat(fd).st_size > _SCREEN:
            raise HostError("the screen is too large", code="size")
        loop = asyncio.get_running_loop()
        png, width, height = await loop.run_in_executor(None, _png_of, fd)
    finally:
        os.close(fd)
    if len(png) > _SHOWN:
        words = f"the screen has {len(png)} bytes as PNG, and an answer has room for {_SHOWN}"
        raise HostError(words, code="size")
    shown = b64encode(png).decode("ascii")
    return {"name": work.name, "width": width, "height": height, "png": shown}


def _png_of(fd: int) -> tuple[bytes, int, int]:
    """A PPM file (P6, which every QEMU writes) as PNG (RFC 2083), with its size."""
    import struct
    import zlib

    data = os.pread(fd, _SCREEN, 0)
    head = data.split(b"\n", 3)
    if len(head) != 4 or head[0] != b"P6" or head[2] != b"255":
        raise HostError("QEMU wrote a screen in another form", code="screendump")
    width, height = (int(number) for number in head[1].split())
    row = width * 3
    lines = b"".join(b"\0" + head[3][at : at + row] for at in range(0, row * height, row))

    def chunk(kind: bytes, body: bytes) -> bytes:
        whole = kind + body
        return struct.pack(">I", len(body)) + whole + struct.pack(">I", zlib.crc32(whole))

    first = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", first) + chunk(b"IDAT", zlib.compress(lines, 6)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body, width, height


async def console(work: Work) -> dict[str, Any]:
    """Listen to the first serial console for a while, and publish what it says meanwhile.

    What `input` says is typed first. What the guest wrote while nobody listened is not kept.
    """
    machine = work.machines.find(work.name)
    path = rejoin.state_of(machine).console
    if not path:
        hint = "add `serial: console` to its profile"
        raise InputError(f"{work.name} has no console", hint=hint, code="console")
    loop = asyncio.get_running_loop()
    sock = await loop.run_in_executor(None, rejoin.connect_socket, path)
    kept, dropped = bytearray(), 0
    budget, waiting = Budget(_RATE, _RATE), b""
    try:
        sock.setblocking(False)
        typed = work.arguments.get("input", "")
        async with asyncio.timeout(10.0):
            await loop.sock_sendall(sock, typed.encode())
        ends = loop.time() + float(work.arguments.get("seconds", _LISTEN))
        while True:
            try:
                async with asyncio.timeout_at(ends):
                    data = await loop.sock_recv(sock, _PIECE)
            except TimeoutError:
                break
            if not data:
                break
            kept += data
            dropped += max(0, len(kept) - _TEXT)
            del kept[:-_TEXT]
            waiting = (waiting + data)[-_PIECE:]
            if budget.admits():
                work.show(work.name, waiting)
                waiting = b""
        if waiting:
            work.show(work.name, waiting)
    finally:
        sock.close()
    text = bytes(kept).decode("utf-8", "replace")
    return {"name": work.name, "text": text, "dropped": dropped}
