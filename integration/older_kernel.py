"""A program behind a filter that takes tap offloads away, as an older kernel has them not.

    python older_kernel.py MASK [no-header] -- PROGRAM ARGUMENT...

MASK holds the TUN_F_* bits that TUNSETOFFLOAD refuses; `no-header` makes TUNGETFEATURES fail, upon
which QEMU goes without IFF_VNET_HDR (net/tap-linux.c, tap_open).
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

UFO, USO, TUNNEL = 0x10, 0x20 | 0x40, 0x80 | 0x100

_TUNGETFEATURES, _TUNSETOFFLOAD = 0x800454CF, 0x400454D0
_IOCTL = 16
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NO_NEW_PRIVS, _SECCOMP = 38, 22


def age(mask: int, *, header: bool = True) -> None:
    """Filter this process for good, and what it starts."""
    nothing = _ALLOW if header else _ERRNO | errno.EINVAL
    program = (
        (0x20, 0, 0, 0),  # the system call's number
        (0x15, 0, 5, _IOCTL),
        (0x20, 0, 0, 24),  # ioctl's second argument
        (0x15, 4, 0, _TUNGETFEATURES),
        (0x15, 0, 2, _TUNSETOFFLOAD),
        (0x20, 0, 0, 32),  # its third: the offloads, by value
        (0x45, 2, 0, mask or 0x80000000),
        (0x06, 0, 0, _ALLOW),
        (0x06, 0, 0, nothing),
        (0x06, 0, 0, _ERRNO | errno.EINVAL),
    )
    body = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in program))
    header_ = struct.pack("=H6xQ", len(program), ctypes.addressof(body))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        _SECCOMP, 2, ctypes.create_string_buffer(header_)
    ):
        raise OSError(ctypes.get_errno(), "the filter was refused")


def argv(mask: int, *, header: bool = True) -> list[str]:
    """What to put before a command line: a network of its own, and the filter."""
    words = [hex(mask)] if header else [hex(mask), "no-header"]
    return ["unshare", "--net", sys.executable, os.path.abspath(__file__), *words, "--"]


if __name__ == "__main__":
    split = sys.argv.index("--")
    age(int(sys.argv[1], 16), header="no-header" not in sys.argv[:split])
    os.execvp(sys.argv[split + 1], sys.argv[split + 1 :])
