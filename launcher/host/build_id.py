"""The GNU build id of a program's file: what tells two builds of one version apart. Disk."""

from __future__ import annotations

import os

#: Type and owner of the note (elf.h, NT_GNU_BUILD_ID).
_TYPE, _OWNER = 3, b"GNU\0"
_NOTES = 4  # PT_NOTE
#: No program header table and no note of a program is larger.
_MOST = 64 * 1024


def build_id(path: str) -> str:
    """The build id in hexadecimal; empty for what has none (scripts, other formats, no file).

    Args:
        path: of a program; links are followed.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        return _read(fd)
    except OSError:
        return ""
    finally:
        os.close(fd)


def _read(fd: int) -> str:
    """As the ELF specification has it; only 64-bit little-endian files are looked at."""
    head = os.pread(fd, 64, 0)
    if len(head) < 64 or head[:6] != b"\x7fELF\x02\x01":
        return ""
    start = int.from_bytes(head[32:40], "little")
    size, count = (int.from_bytes(head[at : at + 2], "little") for at in (54, 56))
    table = os.pread(fd, min(size * count, _MOST), start)
    for at in range(0, len(table) - 55, max(size, 56)):
        if int.from_bytes(table[at : at + 4], "little") == _NOTES:
            where, length = (
                int.from_bytes(table[at + part : at + part + 8], "little") for part in (8, 32)
            )
            found = _in_notes(os.pread(fd, min(length, _MOST), where))
            if found:
                return found
    return ""


def _in_notes(notes: bytes) -> str:
    at = 0
    while at + 12 <= len(notes):
        owner, size, kind = (
            int.from_bytes(notes[at + part : at + part + 4], "little") for part in (0, 4, 8)
        )
        name = at + 12
        body = name + (owner + 3 & ~3)
        if kind == _TYPE and notes[name : name + owner] == _OWNER:
            return notes[body : body + size].hex()
        at = body + (size + 3 & ~3)
    return ""
