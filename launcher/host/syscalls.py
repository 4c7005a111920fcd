"""Kernel services that QEMU uses when they are there, asked by using them.

Their presence in a header, a version or a kernel option says little: seccomp, a sysctl or a
container may refuse them. Numbers from linux/io_uring.h, linux/userfaultfd.h and the syscall
tables.
"""

from __future__ import annotations

import fcntl
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SYS_IO_URING_SETUP = 425  # the same on every architecture
_IO_URING_PARAMS_BYTES = 120
_SYS_USERFAULTFD = {"x86_64": 323, "aarch64": 282, "riscv64": 282, "loongarch64": 282}
_SYS_USERFAULTFD |= {"ppc64le": 364, "s390x": 355}
_UFFD_USER_MODE_ONLY = 1
_USERFAULTFD_IOC_NEW = 0xAA00


def _syscall(number: int, *arguments: Any) -> int:
    """An fd from a system call that libc does not wrap.

    Raises:
        OSError: the kernel refused.
    """
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    fd: int = libc.syscall(number, *arguments)
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return fd


def io_uring_ring() -> None:
    """Make a ring of one entry and close it.

    Raises:
        OSError: no ring for this process (ENOSYS, or EPERM from io_uring_disabled or seccomp).
    """
    import ctypes

    parameters = ctypes.create_string_buffer(_IO_URING_PARAMS_BYTES)
    os.close(_syscall(_SYS_IO_URING_SETUP, 1, parameters))


def sealed_memfd() -> None:
    """Make a memfd that can be sealed, and seal it: memory-backend-memfd needs that.

    Raises:
        OSError: refused (QEMU then has no such object type: util/memfd.c qemu_memfd_check).
    """
    fd = os.memfd_create("qemu-launcher-probe", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    finally:
        os.close(fd)


def userfaultfd() -> dict[str, Any]:
    """The ways to a userfaultfd that postcopy can use, each True or the reason why not.

    `syscall` is what QEMU 5.2 and 7.2 use; 10.0 and 11.1 first open `device`. `user-mode-only`
    is no use to postcopy with KVM, and is listed because it is what unprivileged users have.
    """
    found: dict[str, Any] = {}
    number = _SYS_USERFAULTFD.get(os.uname().machine)
    flags = os.O_CLOEXEC | os.O_NONBLOCK
    for name, extra in (("syscall", 0), ("user-mode-only", _UFFD_USER_MODE_ONLY)):
        if number is None:
            found[name] = f"not probed on {os.uname().machine}"
            continue
        try:
            os.close(_syscall(number, flags | extra))
            found[name] = True
        except OSError as error:
            found[name] = error.strerror
    try:
        found["device"] = _userfaultfd_device(flags)
    except OSError as error:
        found["device"] = error.strerror
    return found


def _userfaultfd_device(flags: int) -> bool:
    device = os.open("/dev/userfaultfd", os.O_RDWR | os.O_CLOEXEC)
    try:
        os.close(fcntl.ioctl(device, _USERFAULTFD_IOC_NEW, flags))
    finally:
        os.close(device)
    return True
