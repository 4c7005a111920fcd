"""Whether somebody has locked a file."""

from __future__ import annotations

import fcntl
import os
import struct

#: struct flock of Linux on 64 bits: l_type, l_whence, l_start, l_len, l_pid.
_FLOCK = "hhqqi4x"


def is_locked(path: str) -> bool:
    """Whether another process has a POSIX lock on a file; asks, and takes none.

    Of a file that cannot be opened nothing is claimed.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        wanted = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        found: int = struct.unpack(_FLOCK, fcntl.fcntl(fd, fcntl.F_GETLK, wanted))[0]
    except OSError:
        return False
    finally:
        os.close(fd)
    return found != fcntl.F_UNLCK
