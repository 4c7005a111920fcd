"""On which file system a path is, by the kernel's own table of mounts."""

from __future__ import annotations

import os

#: proc(5): the mount point is the fifth field, and the type comes behind a lone dash.
_TABLE = "/proc/self/mountinfo"
_POINT = 4


def file_system(path: str, table: str = _TABLE) -> str:
    """The type of the file system that holds a path or would hold it; "" when nobody tells.

    Args:
        path: of a file or a folder, which need not be there.
        table: in the form of /proc/self/mountinfo.
    """
    try:
        with open(table, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        return ""
    where = os.path.realpath(path)
    found, longest = "", -1
    for line in lines:
        head, _, rest = line.partition(" - ")
        fields, kinds = head.split(" "), rest.split(" ")
        if len(fields) <= _POINT:
            continue
        point = _unescaped(fields[_POINT])
        inside = where == point or where.startswith(f"{point.rstrip('/')}/")
        # Of two mounts in one place the later one covers the other.
        if inside and len(point) >= longest:
            found, longest = kinds[0], len(point)
    return found


def _unescaped(text: str) -> str:
    """A mount point with its blanks, which the kernel writes in octal (fs/proc_namespace.c)."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text
