"""io_uring asked by a round trip: a ring is made, a no-operation goes in and its completion out.

A ring that can be made may still be of no use: a seccomp filter can refuse `io_uring_enter` alone.
Layouts and numbers from linux/io_uring.h (struct io_uring_params, io_uring_sqe, io_uring_cqe).
"""

from __future__ import annotations

import errno
import os
import struct

from launcher.host.syscalls import system_call

_SETUP, _ENTER = 425, 426  # the same on every architecture
_PARAMETERS, _SQE, _CQE = 120, 64, 16  # bytes
_SQ_OFFSETS, _CQ_OFFSETS = 40, 80  # in the parameters: struct io_sqring_offsets, io_cqring_offsets
_SQ_RING, _CQ_RING, _SQES = 0, 0x8000000, 0x10000000  # what mmap's offset selects
_NOP = 0
_MARK = 0x716C61756E636865
"""What the completion must bring back."""


def round_trip() -> None:
    """Put one no-operation through a ring of one entry. It never waits: a NOP is done at once.

    Raises:
        OSError: no ring for this process (ENOSYS, or EPERM from io_uring_disabled or seccomp), or
            one that does nothing.
    """
    import ctypes

    parameters = ctypes.create_string_buffer(_PARAMETERS)
    fd = system_call(_SETUP, 1, parameters)
    try:
        _no_operation(fd, parameters.raw)
    finally:
        os.close(fd)


def _no_operation(fd: int, parameters: bytes) -> None:
    import mmap

    entries, completions = struct.unpack_from("=2I", parameters)
    sq = struct.unpack_from("=7I", parameters, _SQ_OFFSETS)
    cq = struct.unpack_from("=6I", parameters, _CQ_OFFSETS)
    tail, mask, array = sq[1], sq[2], sq[6]
    with (
        mmap.mmap(fd, array + 4 * entries, offset=_SQ_RING) as submissions,
        mmap.mmap(fd, cq[5] + _CQE * completions, offset=_CQ_RING) as done,
        mmap.mmap(fd, _SQE * entries, offset=_SQES) as requests,
    ):
        struct.pack_into("=B31xQ", requests, 0, _NOP, _MARK)
        position = struct.unpack_from("=I", submissions, tail)[0]
        slot = position & struct.unpack_from("=I", submissions, mask)[0]
        struct.pack_into("=I", submissions, array + 4 * slot, 0)
        struct.pack_into("=I", submissions, tail, position + 1)
        # The system call is also the barrier between these writes and the kernel's reads.
        system_call(_ENTER, fd, 1, 0, 0, None, 0)
        head, end = (struct.unpack_from("=I", done, cq[n])[0] for n in (0, 1))
        if head == end or struct.unpack_from("=Qi", done, cq[5]) != (_MARK, 0):
            raise OSError(errno.EIO, "a ring that completes nothing")
