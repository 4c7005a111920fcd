"""The KVM ladder: does /dev/kvm really run a guest, and at the speed of hardware?

    present → opens → api-version → vm → vcpu → runs → native-speed

There are hosts where every rung but the last holds, `query-kvm` says enabled, and the kernel
interprets each guest instruction: a guest seems to hang. So the last rung times a counted loop.
The ioctl numbers and structures are those of Linux's include/uapi/linux/kvm.h, stable since 2.6.
"""

from __future__ import annotations

import errno
import os
import time

from launcher.host.kvm_guest import LIMIT_NS, Broken, Probe
from launcher.record import as_dict, record, replace

RUNGS = ("present", "opens", "api-version", "vm", "vcpu", "runs", "native-speed")


@record
class Ladder:
    """How far /dev/kvm was climbed.

    Attributes:
        rung: the highest rung that holds, None when not even `present` does.
        ok: True when a guest runs at native speed, False when a rung is broken, None when the
            rungs after `vcpu` could not be probed on this architecture.
        broken: the first rung that does not hold.
        reason: a sentence for the user, with what to do when a rung is broken.
        ns_per_iteration: time of one iteration of the test loop, nanoseconds.
        elapsed_ms: what the probe took up to its verdict, milliseconds.
    """

    rung: str | None
    ok: bool | None
    broken: str | None
    reason: str
    ns_per_iteration: float | None
    elapsed_ms: float


def climb(path: str = "/dev/kvm", timeout: float = 1.0) -> Ladder:
    """Climb the ladder from the ground; nothing stays open (the VM goes in the background).

    Args:
        path: the KVM device.
        timeout: seconds after which a guest that is still running is interrupted; the verdict
            then comes from the iterations that it did.

    Raises nothing for a broken host: that is the verdict. It neither installs a signal handler
    nor touches another thread.
    """
    started = time.perf_counter_ns()
    probe = Probe(path, timeout)
    rung: str | None = None
    broken: str | None = None
    ok: bool | None = True
    reason = ""
    try:
        for step in RUNGS:
            broken = step
            if step == "runs" and (arch := os.uname().machine) != "x86_64":
                broken, ok = None, None
                reason = f"{path} makes a vCPU; runs and native-speed: not probed on {arch}"
                break
            probe.steps[step]()
            rung, broken = step, None
    except Broken as wrong:
        ok, reason = False, str(wrong)
    except OSError as error:
        ok, reason = False, _sentence(path, broken or "", error)
    finally:
        elapsed = _since(started)
        probe.close()
    if ok:
        reason = f"{path} runs a guest at native speed ({probe.ns:.2f} ns per test-loop iteration)"
    return Ladder(rung, ok, broken, reason, probe.ns, elapsed)


def climb_cached(path: str = "/dev/kvm") -> Ladder:
    """`climb`, with the speed asked once per boot; that the device opens is always asked anew.

    A verdict is kept for this boot and this device node, which a reload of the module replaces.
    A slow one is kept only with a wide margin, so that a moment's trouble is not for ever.
    """
    from launcher.host import boot_cache

    started = time.perf_counter_ns()
    try:
        node = os.stat(path)
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return climb(path)  # for its sentence
    key = [path, node.st_ino, node.st_rdev, node.st_ctime_ns]
    kept = boot_cache.recall("kvm", key)
    if isinstance(kept, dict) and sorted(kept) == sorted(Ladder.__match_args__):
        return replace(Ladder(**kept), elapsed_ms=_since(started))
    ladder = climb(path)
    ns = ladder.ns_per_iteration
    if ladder.ok or (ladder.broken == RUNGS[-1] and ns is not None and ns > 10 * LIMIT_NS):
        boot_cache.remember("kvm", key, as_dict(ladder))
    return ladder


def _since(started: int) -> float:
    return round((time.perf_counter_ns() - started) / 1e6, 3)


def _sentence(path: str, rung: str, error: OSError) -> str:
    if rung == "present":
        return f"{path} is not there: load kvm_intel or kvm_amd, or use accel: tcg"
    what = error.strerror or str(error)
    if rung == "opens" and error.errno in (errno.EACCES, errno.EPERM):
        return f"{path} does not open: {what}; join the group that owns it, or use accel: tcg"
    if rung == "opens":
        return f"{path} does not open: {what}; use accel: tcg"
    if rung == "vm" and error.errno == errno.EBUSY:
        return f"{path} makes no VM: {what}; another hypervisor holds the CPU's virtualization"
    return f"{path} opens but its rung {rung} fails: {what}; use accel: tcg"
