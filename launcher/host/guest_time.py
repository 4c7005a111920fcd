"""Does a running QEMU's guest really run on the CPU? The KVM verdict after launch.

With hardware virtualization the time of a vCPU thread is guest time; where the kernel interprets
the guest it is system time. Both are in /proc/PID/task/TID/stat (proc(5), fields 15 and 43), for
every release of QEMU; the thread ids are those of `query-cpus-fast`.
"""

from __future__ import annotations

import os

from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ENOUGH_TICKS = 100
"""System time of one vCPU thread before a verdict, clock ticks (1 s at the usual 100 Hz)."""
NATIVE_TICKS = 10
"""Guest time of one vCPU thread that proves it runs natively: a trap had 1 tick after 72 s."""
GUEST_SHARE = 0.01
"""Guest time below this share of system time means that the guest is interpreted."""


@record
class ThreadTimes:
    """CPU time of one thread so far, in clock ticks."""

    system: int
    guest: int


@record
class GuestTimeVerdict:
    """`native` is None as long as the vCPUs have not run enough to tell."""

    native: bool | None
    reason: str


def parse_thread_stat(text: str) -> ThreadTimes:
    """One line of /proc/PID/task/TID/stat.

    Raises:
        ValueError: not such a line.
    """
    # The thread's name may hold blanks and parentheses: the last one closes it.
    fields = text.rpartition(")")[2].split()
    if len(fields) < 41:
        raise ValueError(f"not a line of /proc/PID/task/TID/stat: {text!r}")
    return ThreadTimes(system=int(fields[12]), guest=int(fields[40]))


def read_thread_times(pid: int) -> dict[int, ThreadTimes]:
    """The times of all threads of a process, by thread id; empty when it has ended."""
    found: dict[int, ThreadTimes] = {}
    try:
        tids = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for tid in tids:
        try:
            with open(f"/proc/{pid}/task/{tid}/stat") as file:
                found[int(tid)] = parse_thread_stat(file.read())
        except OSError:  # the thread ended in between
            continue
    return found


def judge_guest_time(
    before: Mapping[int, ThreadTimes], after: Mapping[int, ThreadTimes], vcpus: Iterable[int]
) -> GuestTimeVerdict:
    """Compare two readings of the vCPU threads; ask again while the verdict is None.

    A vCPU that spins gives the verdict one second after the first reading. Only vCPU threads
    count: preallocating memory is a second of system time without guest time, and no trap.
    """
    none = ThreadTimes(0, 0)
    deltas = []
    for tid in vcpus:
        if tid in after:
            old = before.get(tid, none)
            deltas.append((after[tid].system - old.system, after[tid].guest - old.guest))
    for system, guest in deltas:
        if system > ENOUGH_TICKS and guest < GUEST_SHARE * system:
            return GuestTimeVerdict(
                False,
                f"a vCPU thread spent {system} clock ticks in the kernel and {guest} in the "
                "guest: hardware virtualization is missing on this host and each instruction "
                "is interpreted; use accel: tcg or move the VM",
            )
    ran = max((guest for _, guest in deltas), default=0)
    if ran >= NATIVE_TICKS:
        return GuestTimeVerdict(True, f"a vCPU thread spent {ran} clock ticks in the guest")
    return GuestTimeVerdict(None, "the vCPUs have not run enough to tell")
