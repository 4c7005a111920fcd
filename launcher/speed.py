"""After launch: does the guest really run on the CPU, or does the kernel interpret it?

The ladder before launch times a loop of its own. This looks at the guest itself: at what its vCPU
threads spend their time on. `query-kvm` says enabled in both cases.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.host.guest_time import GuestTimeVerdict
    from launcher.machine import Machine

#: Seconds between two looks at /proc.
_STEP = 0.25


async def watch_speed(machine: Machine, within: float = 3.0) -> GuestTimeVerdict:
    """Watch the vCPU threads until there is a verdict.

    Args:
        machine: one whose guest was let run.
        within: seconds until "not enough to tell" is the answer, as it is for an idle guest.

    Raises:
        MonitorError: QEMU went away before it named its threads.
    """
    import asyncio

    from launcher.host.guest_time import judge_guest_time, read_thread_times

    pid = machine.process.pid
    before = read_thread_times(pid)
    # In QMP since 2.12 (qapi/machine.json); a reply in any release of the matrix.
    vcpus = [cpu["thread-id"] for cpu in await machine.monitor.execute("query-cpus-fast")]
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while True:
        verdict = judge_guest_time(before, read_thread_times(pid), vcpus)
        if verdict.native is not None or loop.time() >= deadline:
            return verdict
        await asyncio.sleep(_STEP)
