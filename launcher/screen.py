"""A machine's screen and keyboard: a picture of the one, keys for the other."""

from __future__ import annotations

import os
import struct
import zlib

from launcher.errors import CommandError, HostError, InputError
from launcher.output import write_output
from launcher.qapi import suggest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from launcher.capabilities import Capabilities
    from launcher.machine import Machine

#: Bytes of a picture as QEMU writes it: 8K in three bytes a pixel has 100 MB.
LARGEST = 128 << 20
#: Seconds for QEMU to draw and write it.
_DEADLINE = 30.0
#: Milliseconds that a typed key is held; a PS/2 keyboard keeps 16 bytes for who is slow (ps2.c).
_HOLD = 20

#: A US keyboard: character → QKeyCode, without and with shift.
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_PLAIN = {
    **dict(zip(_LETTERS, _LETTERS, strict=True)),
    "\n": "ret",
    "\t": "tab",
    " ": "spc",
    "\b": "backspace",
    "\x1b": "esc",
    "-": "minus",
    "=": "equal",
    "[": "bracket_left",
    "]": "bracket_right",
    "\\": "backslash",
    ";": "semicolon",
    "'": "apostrophe",
    "`": "grave_accent",
    ",": "comma",
    ".": "dot",
    "/": "slash",
}
_SHIFTED = dict(zip('!@#$%^&*()_+{}|:"~<>?', "1234567890-=[]\\;'`,./", strict=True))


# -- the screen -----------------------------------------------------------------------------------


async def screendump(machine: Machine, path: str, device: str, head: int) -> bytes:
    """A picture of a display; see `Machine.screendump`."""
    capabilities = machine.prepared.capabilities
    wanted: dict[str, Any] = {}
    if device:
        wanted |= {"device": device, "head": head}
    if "format" in _arguments(capabilities, "screendump"):
        wanted["format"] = "png"
    picture = await _dumped(machine, wanted)
    if picture.startswith(b"P6"):
        picture = png_of_ppm(picture)
    if path:
        write_output(path, picture, "the picture")
    return picture


async def _dumped(machine: Machine, wanted: dict[str, Any]) -> bytes:
    """What QEMU writes, into a memory file of ours: no name on disk, in nobody's way."""
    memory = os.memfd_create("screen", os.MFD_CLOEXEC)
    try:
        given = await machine.monitor.add_fd(memory)
        try:
            arguments = {"filename": given.path, **wanted}
            await machine.monitor.execute("screendump", arguments, timeout=_DEADLINE)
        finally:
            await machine.monitor.remove_fd(given)
        size = os.fstat(memory).st_size
        if not size:
            # What 5.2 does without a display: no error, and no picture.
            raise CommandError("screendump: QEMU wrote no picture: the machine has no display")
        if size > LARGEST:
            raise HostError(f"the picture has {size} bytes, more than the {LARGEST} that are read")
        return _read(memory, size)
    finally:
        os.close(memory)


def _read(fd: int, size: int) -> bytes:
    found = bytearray()
    while len(found) < size and (piece := os.pread(fd, size - len(found), len(found))):
        found += piece
    return bytes(found)


def png_of_ppm(picture: bytes) -> bytes:
    """A binary PPM of 8 bits a channel (`P6`, netpbm's ppm(5)) as PNG (RFC 2083).

    Raises:
        ValueError: it is none, or not whole.
    """
    fields = picture[:64].split(maxsplit=4)
    if len(fields) < 5 or fields[0] != b"P6" or fields[3] != b"255":
        raise ValueError("not a PPM of 8 bits a channel")
    width, height = int(fields[1]), int(fields[2])
    # One white space ends the head, whatever the first pixel looks like.
    start = picture.index(b"255", len(fields[0]) + len(fields[1]) + len(fields[2])) + 4
    row = 3 * width
    if len(picture) - start != row * height:
        raise ValueError(f"{len(picture) - start} bytes of {row * height}")
    rows = (picture[start + y * row : start + (y + 1) * row] for y in range(height))
    raw = b"".join(b"\0" + line for line in rows)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (b"IHDR", head), (b"IDAT", zlib.compress(raw)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


# -- the keyboard ---------------------------------------------------------------------------------


async def send_key(machine: Machine, keys: str, hold_time: int | None) -> None:
    """Press keys together; see `Machine.send_key`."""
    known = key_codes(machine.prepared.capabilities)
    names = [name.strip() for name in keys.split("-")] if keys != "-" else ["minus"]
    for name in names:
        if name not in known:
            raise InputError(
                f"there is no key {name!r}",
                hint=suggest(name, known) or "the names are QEMU's: QAPI QKeyCode",
                code="key",
            )
    await _press(machine, names, hold_time)


async def type_text(machine: Machine, text: str) -> None:
    """Type text; see `Machine.type_text`."""
    import asyncio

    chords = [_chord(character) for character in text]
    for chord in chords:
        await _press(machine, chord, _HOLD)
        # Until it has been let go: a slow guest's keyboard would lose the next one.
        await asyncio.sleep(2 * _HOLD / 1000)


def _chord(character: str) -> list[str]:
    if character in _PLAIN:
        return [_PLAIN[character]]
    if character in _SHIFTED:
        return ["shift", _PLAIN[_SHIFTED[character]]]
    if character.isascii() and character.isupper():
        return ["shift", character.lower()]
    raise InputError(
        f"a US keyboard has no key for {character!r}",
        hint="use send_key with QEMU's names of keys",
        code="key",
    )


async def _press(machine: Machine, names: list[str], hold_time: int | None) -> None:
    arguments: dict[str, Any] = {"keys": [{"type": "qcode", "data": name} for name in names]}
    if hold_time is not None:
        arguments["hold-time"] = hold_time
    await machine.monitor.execute("send-key", arguments)


def key_codes(capabilities: Capabilities) -> list[str]:
    """The names of the keys that a binary knows (QAPI: QKeyCode)."""
    schema = capabilities.schema
    keys = _arguments(capabilities, "send-key")["keys"]["type"]
    value = schema[keys]["element-type"]
    qcode = schema.members(schema.branches(value)["qcode"])["data"]["type"]
    return list(schema.values(qcode))


def _arguments(capabilities: Capabilities, command: str) -> dict[str, dict[str, Any]]:
    root = capabilities.schema.argument_type(command)
    return {} if root is None else capabilities.schema.members(root)
