"""Screen, keyboard and memory of a machine, on each release."""

from __future__ import annotations

import os
import stat
import struct
import zlib

import pytest

import launcher
from launcher.errors import CommandError, HostError, InputError
from launcher.screen import png_of_ppm

pytestmark = pytest.mark.integration

EMPTY = {"name": "t", "platform": "debian-12", "machine": "q35", "accel": "tcg", "memory": "64MiB"}

#: A boot sector that says "R" on the serial port, fills the first line of the screen, and then
#: says each key that is typed (INT 16h, as SeaBIOS reads a US keyboard).
TYPEWRITER = bytes.fromhex(
    "b800b8 8ec0 31ff b8db4f b95000 f3ab"  # es = b800, di = 0, ax = blocks, cx = 80, rep stosw
    "b052 baf803 ee"  # 'R' to 0x3f8
    "b400 cd16 baf803 ee ebf6"  # loop: al = key, to 0x3f8
)


@pytest.fixture
def typewriter(tmp_path) -> dict:
    path = tmp_path / "boot.raw"
    path.write_bytes(TYPEWRITER.ljust(510, b"\0") + b"\x55\xaa" + bytes(1 << 20))
    return {**EMPTY, "disk": str(path), "serial": "console", "devices": {"v": {"driver": "VGA"}}}


def pixels(png: bytes) -> tuple[int, int, bytes]:
    """Width, height and rows of a PNG of 8 bits a channel, RGB, as ours and QEMU's are."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    at, data = 8, b""
    while at < len(png):
        (length,) = struct.unpack_from(">I", png, at)
        kind, body = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", png, at + 8 + length)[0] == zlib.crc32(kind + body)
        if kind == b"IHDR":
            width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", body)
            assert (depth, colour, interlaced) == (8, 2, 0)
        data += body if kind == b"IDAT" else b""
        at += length + 12
    assert kind == b"IEND"
    row, whole, before = 3 * width, b"", bytes(3 * width)
    raw = zlib.decompress(data)
    for y in range(height):
        how, line = raw[y * (row + 1)], raw[y * (row + 1) + 1 : (y + 1) * (row + 1)]
        before = _unfiltered(how, line, before)
        whole += before
    return width, height, whole


def _unfiltered(how: int, line: bytes, above: bytes) -> bytes:
    """RFC 2083, 6: filters of PNG."""
    found = bytearray()
    for i, byte in enumerate(line):
        left, up = found[i - 3] if i >= 3 else 0, above[i]
        corner = above[i - 3] if i >= 3 else 0
        best = min((left, up, corner), key=lambda p: abs(left + up - corner - p))
        add = (0, left, up, (left + up) // 2, best)[how]
        found.append((byte + add) & 0xFF)
    return bytes(found)


async def test_the_screen_as_png(qemu, typewriter, tmp_path):
    async with launcher.launch(typewriter, qemu=qemu.binary) as machine:
        await machine.console.wait_for("R", 60)
        path = tmp_path / "screen.png"
        picture = await machine.screendump(str(path))
        assert path.read_bytes() == picture
        width, height, rows = pixels(picture)
        assert (width, height) == (720, 400)
        # Red on magenta in text mode: blocks fill the first line, and nothing the last.
        assert set(rows[: 3 * width]) - {0, 0xA8, 0xAA, 0x54, 0x55, 0xFC, 0xFF} == set()
        assert any(rows[: 3 * width])
        assert not any(rows[-3 * width :])
        assert await machine.qmp("query-fdsets") == []


async def test_no_screen(qemu):
    async with launcher.launch(EMPTY, qemu=qemu.binary) as machine:
        with pytest.raises(CommandError, match="screendump"):
            await machine.screendump()
        assert await machine.qmp("query-fdsets") == []


def test_a_ppm_as_png():
    line = bytes([255, 255, 255, 1, 2, 3, 10, 13, 32])
    both = line + bytes(9)
    assert pixels(png_of_ppm(b"P6\n3 2\n255\n" + both)) == (3, 2, both)
    for wrong in (b"", b"P5\n3 2\n255\n" + line * 2, b"P6\n3 2\n255\n" + line):
        with pytest.raises(ValueError, match=r"bytes of|not a PPM"):
            png_of_ppm(wrong)


TEXT = "the quick brown fox JUMPS over 13 lazy dogs; [ok] {yes} ~!@#$%^&*()_+-=|\\:\"'<>?,./`"


async def test_keys(qemu, typewriter):
    async with launcher.launch(typewriter, qemu=qemu.binary) as machine:
        console = machine.console
        await console.expect("R", 60)
        await machine.type_text(TEXT)
        assert (await console.expect("t.*`", 60)).group() == TEXT
        with pytest.raises(InputError, match="no key for 'ä'"):
            await machine.type_text("abä")
        with pytest.raises(InputError, match="there is no key 'delte'") as told:
            await machine.send_key("ctrl-alt-delte")
        assert "delete" in told.value.hint
        await machine.send_key("-")
        assert (await console.expect("(?s).", 20)).group() == "-"
        mark = machine.events.mark()
        await machine.send_key("ctrl-alt-delete", hold_time=50)
        await machine.wait_event("RESET", timeout=60, since=mark)
        await console.expect("R", 60)


async def test_the_memory_of_a_guest_in_a_file(qemu, typewriter, tmp_path):
    async with launcher.launch(typewriter, qemu=qemu.binary) as machine:
        await machine.console.wait_for("R", 60)
        path = tmp_path / "guest.elf"
        size = await machine.dump_guest_memory(str(path))
        data = path.read_bytes()
        assert len(data) == size
        assert size > 64 << 20
        assert data.startswith(b"\x7fELF")
        assert int.from_bytes(data[16:18], "little") == 4  # ET_CORE
        assert TYPEWRITER in data  # the boot sector, at 0x7c00
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert (await machine.wait_runstate("running", timeout=20)) == "running"
        with pytest.raises(HostError, match="File exists"):
            await machine.dump_guest_memory(str(path))
        assert path.read_bytes() == data
        link = tmp_path / "link"
        os.symlink(tmp_path / "elsewhere", link)
        with pytest.raises(HostError, match="File exists"):
            await machine.dump_guest_memory(str(link))
        with pytest.raises(InputError, match="dumps no 'core'"):
            await machine.dump_guest_memory(str(tmp_path / "other"), format="core")
        small = await machine.dump_guest_memory(str(tmp_path / "zlib"), format="kdump-zlib")
        assert 0 < small < size
        assert sorted(os.listdir(tmp_path)) == ["boot.raw", "guest.elf", "link", "zlib"]
