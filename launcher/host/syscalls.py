"""Kernel services that QEMU uses when they are there, asked by using them.

Their presence in a header, a version or a kernel option says little: seccomp, a sysctl or a
container may refuse them. Numbers from linux/memfd.h, linux/userfaultfd.h and the syscall tables.
"""

from __future__ import annotations

import fcntl
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: io_setup and io_destroy.
_SYS_AIO = {"x86_64": (206, 207), "aarch64": (0, 1), "riscv64": (0, 1), "loongarch64": (0, 1)}
_SYS_AIO |= {"ppc64le": (227, 228), "s390x": (243, 244)}
_SYS_USERFAULTFD = {"x86_64": 323, "aarch64": 282, "riscv64": 282, "loongarch64": 282}
_SYS_USERFAULTFD |= {"ppc64le": 364, "s390x": 355}
_UFFD_USER_MODE_ONLY = 1
_USERFAULTFD_IOC_NEW = 0xAA00
_UFFDIO_API = 0xC018AA3F
#: Bits of struct uffdio_api's features without which postcopy refuses such memory.
_UFFD_FEATURES = {"hugetlbfs": 1 << 4, "shmem": 1 << 5, "thread-id": 1 << 8}
_MFD_HUGETLB, _MFD_HUGE_SHIFT = 0x0004, 26


def system_call(number: int, *arguments: Any) -> int:
    """What a system call returns that libc does not wrap.

    Raises:
        OSError: the kernel refused.
    """
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    # As wide as a register: a C int would leave its upper half to chance.
    wide = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    answer: int = libc.syscall(ctypes.c_long(number), *wide)
    if answer < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return answer


def aio_context() -> None:
    """Make a context of Linux AIO and destroy it: `aio=native` of -blockdev needs that.

    Raises:
        OSError: refused (EAGAIN when fs.aio-max-nr is used up).
        ValueError: the numbers of this architecture's system calls are not known here.
    """
    import ctypes

    numbers = _SYS_AIO.get(os.uname().machine)
    if numbers is None:
        raise ValueError(f"not probed on {os.uname().machine}")
    context = ctypes.c_ulong(0)
    system_call(numbers[0], 1, ctypes.byref(context))
    system_call(numbers[1], context)


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


def huge_memfd(size: int) -> None:
    """Make a memfd of huge pages of `size` bytes that can be sealed, and seal it.

    No page is taken from the pool: whether there are any is the pool's own fact (`hugepages`).

    Raises:
        OSError: refused (ENOENT: no pool of this size; EINVAL: no hugetlb in this kernel).
    """
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | _MFD_HUGETLB
    fd = os.memfd_create("qemu-launcher-probe", flags | (size.bit_length() - 1) << _MFD_HUGE_SHIFT)
    try:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    finally:
        os.close(fd)


def userfaultfd() -> dict[str, Any]:
    """The ways to a userfaultfd that postcopy can use, each True or the reason why not.

    `syscall` is what QEMU 5.2 and 7.2 use; 10.0 and 11.1 first open `device`. `user-mode-only`
    is no use to postcopy with KVM, and is listed because it is what unprivileged users have.
    `features` are those of UFFDIO_API that decide which memory postcopy takes.
    """
    found: dict[str, Any] = {}
    number = _SYS_USERFAULTFD.get(os.uname().machine)
    flags = os.O_CLOEXEC | os.O_NONBLOCK
    features = 0
    for name, extra in (("syscall", 0), ("user-mode-only", _UFFD_USER_MODE_ONLY)):
        if number is None:
            found[name] = f"not probed on {os.uname().machine}"
            continue
        try:
            features |= _uffd_features(system_call(number, flags | extra))
            found[name] = True
        except OSError as error:
            found[name] = error.strerror
    try:
        features |= _uffd_features(_userfaultfd_device(flags))
        found["device"] = True
    except OSError as error:
        found["device"] = error.strerror
    found["features"] = [name for name, bit in _UFFD_FEATURES.items() if features & bit]
    return found


def _userfaultfd_device(flags: int) -> int:
    device = os.open("/dev/userfaultfd", os.O_RDWR | os.O_CLOEXEC)
    try:
        fd: int = fcntl.ioctl(device, _USERFAULTFD_IOC_NEW, flags)
    finally:
        os.close(device)
    return fd


def _uffd_features(fd: int) -> int:
    """The features bits that the handshake answers; closes `fd`.

    Raises:
        OSError: the kernel refuses the handshake (QEMU: migration/postcopy-ram.c,
            receive_ufd_features), so that nothing works.
    """
    answer = bytearray(struct.pack("=3Q", 0xAA, 0, 0))
    try:
        fcntl.ioctl(fd, _UFFDIO_API, answer)
    finally:
        os.close(fd)
    features: int = struct.unpack("=3Q", answer)[1]
    return features
