"""How many machines run at a time, over all processes of a user: by memory and by cores.

One file of the user's, of which each machine holds some bytes locked (fcntl(2), open file
description locks) for as long as it runs: so many for its RAM, so many for its vCPUs. The locks
go with their process, however that ends.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time

from launcher.cache import cache_folder
from launcher.qapi import parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.plan import Plan

#: Bytes of RAM for which one lock stands.
UNIT = 256 << 20
#: Of the host's RAM, guests may have so much; vCPUs may be so many for each CPU.
_SHARE, _PER_CPU = 0.75, 2
# Where in the file the locks are: one for who is taking, then those of RAM, then those of vCPUs.
_RAM, _CPUS = 1, 1 << 20
_POLL = 0.02


class Slots:
    """The locks of this process."""

    def __init__(self, path: str = "", *, ram: int = 0, cpus: int = 0) -> None:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        self.ram = ram or max(1, int(total * _SHARE) // UNIT)
        self.cpus = cpus or _PER_CPU * (os.cpu_count() or 1)
        self._path = path or os.path.join(cache_folder(), "rig-slots")
        self._held: dict[int, int] = {}  # descriptor → how many locks

    def take(self, ram: int, cpus: int) -> int:
        """Wait for the locks of one machine; `give` takes what this returns.

        Who holds some already does not wait for more, or two could wait for each other: then
        what is free is taken, and the machine starts all the same.

        Args:
            ram: bytes.
            cpus: vCPUs.
        """
        os.makedirs(os.path.dirname(self._path), exist_ok=True)
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            # One taker at a time: they come by turns. Who holds some does not wait for its turn
            # either: the one whose turn it is may wait for just these.
            turn = _lock(fd, 0, wait=not self._held)
            wanted = (
                (_RAM, self.ram, min(self.ram, -(-ram // UNIT))),
                (_CPUS, self.cpus, min(self.cpus, cpus)),
            )
            count = sum(self._take(fd, *one) for one in wanted)
            if turn:
                _unlock(fd, 0)
        except BaseException:
            os.close(fd)
            raise
        self._held[fd] = count
        return fd

    def _take(self, fd: int, first: int, total: int, wanted: int) -> int:
        taken: set[int] = set()
        while True:
            for place in range(first, first + total):
                if len(taken) == wanted:
                    return wanted
                if place not in taken and _lock(fd, place, wait=False):
                    taken.add(place)
            if len(taken) == wanted or self._held:
                return len(taken)
            time.sleep(_POLL)

    def give(self, fd: int) -> None:
        """Let go of one machine's locks. May be repeated."""
        if self._held.pop(fd, None) is not None:
            os.close(fd)


def needs(plan: Plan) -> tuple[int, int]:
    """The RAM in bytes and the number of vCPUs that a plan's machine takes."""
    ram, cpus = 128 << 20, 1  # QEMU's own
    for option in plan.options:
        if option.name == "-m":
            ram = parse_size(str(option.members.get("size") or option.head)) or ram
        elif option.name == "-smp":
            cpus = int(option.members.get("cpus") or option.head or 1)
    return ram, cpus


def _lock(fd: int, place: int, *, wait: bool) -> bool:
    try:
        fcntl.fcntl(
            fd, fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK, _flock(fcntl.F_WRLCK, place)
        )
    except (BlockingIOError, PermissionError):
        return False
    return True


def _unlock(fd: int, place: int) -> None:
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _flock(fcntl.F_UNLCK, place))


def _flock(kind: int, place: int) -> bytes:
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, place, 1, 0)
