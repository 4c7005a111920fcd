"""One VM with one vCPU and one page of memory: what the KVM ladder climbs on.

The ioctl numbers and structures are those of Linux's include/uapi/linux/kvm.h, stable since 2.6.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import struct
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

LIMIT_NS = 50.0
"""ns per iteration above which a loop is interpreted: hardware needs about 0.3, traps 1 000."""

_API_VERSION = 12  # Documentation/virt/kvm/api.rst: refuse anything else
_GET_API_VERSION = 0xAE00
_CREATE_VM = 0xAE01
_GET_VCPU_MMAP_SIZE = 0xAE04
_CREATE_VCPU = 0xAE41
_SET_TSS_ADDR = 0xAE47
_SET_USER_MEMORY_REGION = 0x4020AE46
_RUN = 0xAE80
_GET_REGS, _SET_REGS, _REGS_BYTES = 0x8090AE81, 0x4090AE82, 0x90
_GET_SREGS, _SET_SREGS, _SREGS_BYTES = 0x8138AE83, 0x4138AE84, 0x138
_SET_SIGNAL_MASK = 0x4004AE8B

_EXIT_IO, _EXIT_HLT = 2, 5
_EXIT_NAMES = {0: "unknown", 1: "exception", 8: "shutdown", 9: "fail-entry", 17: "internal-error"}

_PORT, _BYTE = 0x10, 0x2A
_HELLO = b"\xe6\x10\xf4"  # out 0x10, al; hlt
_LOOP = b"\x66\x49\x75\xfc\xf4"  # 1: dec ecx; jnz 1b; hlt
_LOOP_AT = 0x100
_FIRST, _MOST = 1_000, 1_000_000
_TRIES = 5
_MEASURABLE_NS = 200_000  # far above what entering and leaving a guest costs, nested too


class Broken(Exception):
    """A rung answered, wrongly; the argument is the sentence for the user."""


class Probe:
    """One VM with one vCPU and one page of memory, made rung by rung."""

    def __init__(self, path: str, timeout: float) -> None:
        self.path = path
        self.timeout = timeout
        self.ns: float | None = None
        self.steps: dict[str, Callable[[], None]] = {
            "present": self.present,
            "opens": self.opens,
            "api-version": self.api_version,
            "vm": self.make_vm,
            "vcpu": self.make_vcpu,
            "runs": self.runs,
            "native-speed": self.native_speed,
        }
        self._undo: list[Callable[[], None]] = []
        self._machine: list[int] = []
        self._watchdog: _Watchdog | None = None

    def close(self) -> None:
        """Undo all rungs; the kernel takes the VM down in its own time."""
        while self._undo:
            self._undo.pop()()
        # 1 to 300 ms were seen: nobody has to wait for that.
        machine, self._machine = self._machine, []
        if machine:
            try:
                _start_thread(_close, machine)
            except RuntimeError:
                _close(machine)

    def _keep(self, fd: int) -> int:
        self._undo.append(lambda: os.close(fd))
        return fd

    def present(self) -> None:
        """The device node is there."""
        os.stat(self.path)

    def opens(self) -> None:
        """It opens for reading and writing."""
        self._kvm = self._keep(os.open(self.path, os.O_RDWR | os.O_CLOEXEC))

    def api_version(self) -> None:
        """It speaks the stable KVM API."""
        version = fcntl.ioctl(self._kvm, _GET_API_VERSION, 0)
        if version != _API_VERSION:
            raise Broken(f"{self.path} speaks KVM API {version}, not {_API_VERSION}")

    def make_vm(self) -> None:
        """It makes a VM."""
        for attempt in range(10):
            try:
                self._vm = fcntl.ioctl(self._kvm, _CREATE_VM, 0)
            except InterruptedError:  # any signal interrupts it; QEMU tries again too
                if attempt == 9:
                    raise
            else:
                self._machine.append(self._vm)
                return

    def make_vcpu(self) -> None:
        """The VM makes a vCPU."""
        self._vcpu = fcntl.ioctl(self._vm, _CREATE_VCPU, 0)
        self._machine.append(self._vcpu)

    def runs(self) -> None:
        """The vCPU runs a guest of two instructions, and does what they say."""
        self._load()
        self._watchdog = _Watchdog(self._vcpu, self.timeout)
        self._undo.append(self._watchdog.stop)
        self._set_regs(rip=0, rax=_BYTE)
        self._expect(_EXIT_IO)
        direction, size, port, _, offset = struct.unpack_from("=BBHIQ", self._run, 32)
        if (direction, size, port, self._run[offset]) != (1, 1, _PORT, _BYTE):
            raise Broken(f"{self.path} runs a guest wrongly: it wrote something else; use tcg")
        self._expect(_EXIT_HLT)

    def native_speed(self) -> None:
        """A counted loop takes the time that hardware takes; `ns` is set in any case."""
        count = _FIRST
        while (took := self._best_of_some(count)) is not None:
            self.ns = round(took, 3)
            if took * count >= _MEASURABLE_NS or count >= _MOST or self._out_of_time():
                break
            count *= 10
        if self.ns is None:
            raise Broken(f"{self.path} makes a vCPU that does not move; use accel: tcg")
        if self.ns > LIMIT_NS:
            shown = f"{self.ns:,.0f}".replace(",", " ")
            raise Broken(
                f"{self.path} answers but needs ~{shown} ns per test-loop iteration "
                "(expected about 1): hardware virtualization is missing on this host; "
                "use accel: tcg or move the VM"
            )

    def _best_of_some(self, count: int) -> float | None:
        """Nanoseconds per iteration: a host that was busy elsewhere must not be called a trap."""
        best: float | None = None
        for _ in range(_TRIES):
            took = self._loop(count)
            if took is None:
                break
            best = took if best is None else min(best, took)
            if best * count < _MEASURABLE_NS or self._out_of_time():
                break
        return best

    def _load(self) -> None:
        """Put the two programs into guest memory and the vCPU into plain real mode."""
        fd = self._keep(os.memfd_create("qemu-launcher-kvm", os.MFD_CLOEXEC))
        os.ftruncate(fd, mmap.PAGESIZE)
        memory = mmap.mmap(fd, mmap.PAGESIZE)
        self._undo.append(memory.close)
        memory[: len(_HELLO)] = _HELLO
        memory[_LOOP_AT : _LOOP_AT + len(_LOOP)] = _LOOP
        # Processors without unrestricted guest mode need it for real mode, the others ignore it.
        # (Any three free pages below 4 GiB; Python's ioctl takes no more than 31 bits.)
        fcntl.ioctl(self._vm, _SET_TSS_ADDR, 0x7FFBD000)
        slot = struct.pack("=IIQQQ", 0, 0, 0, mmap.PAGESIZE, _address(fd))
        fcntl.ioctl(self._vm, _SET_USER_MEMORY_REGION, slot)
        self._run = mmap.mmap(self._vcpu, fcntl.ioctl(self._kvm, _GET_VCPU_MMAP_SIZE, 0))
        self._undo.append(self._run.close)
        self._run[1] = 0  # immediate_exit
        sregs = bytearray(_SREGS_BYTES)
        fcntl.ioctl(self._vcpu, _GET_SREGS, sregs)
        struct.pack_into("=Q", sregs, 0, 0)  # cs.base: at reset it is 0xffff0000
        struct.pack_into("=H", sregs, 12, 0)  # cs.selector
        fcntl.ioctl(self._vcpu, _SET_SREGS, bytes(sregs))

    def _set_regs(self, *, rip: int, rax: int = 0, rcx: int = 0) -> None:
        flags = 2  # bit 1 of rflags is always set
        regs = struct.pack("=18Q", rax, 0, rcx, *[0] * 13, rip, flags)  # struct kvm_regs
        fcntl.ioctl(self._vcpu, _SET_REGS, regs)

    def _loop(self, count: int) -> float | None:
        """Nanoseconds per iteration over `count` iterations, or those done in time, if any."""
        self._set_regs(rip=_LOOP_AT, rcx=count)
        started = time.perf_counter_ns()
        finished = self._enter()
        took = time.perf_counter_ns() - started
        if finished:
            self._check(_EXIT_HLT)
            return took / count
        regs = bytearray(_REGS_BYTES)
        fcntl.ioctl(self._vcpu, _GET_REGS, regs)
        done = count - int(struct.unpack_from("=Q", regs, 16)[0])
        return took / done if done > 0 else None

    def _out_of_time(self) -> bool:
        return self._watchdog is not None and self._watchdog.fired

    def _enter(self) -> bool:
        """KVM_RUN until the guest exits (True) or the watchdog interrupts it (False)."""
        assert self._watchdog is not None
        while True:
            try:
                fcntl.ioctl(self._vcpu, _RUN, 0)
            except InterruptedError:  # by the watchdog, or by a signal that is not our business
                if self._watchdog.fired:
                    return False
            else:
                return True

    def _expect(self, reason: int) -> None:
        if not self._enter():
            raise Broken(
                f"{self.path} makes a vCPU that did not finish two instructions "
                f"in {self.timeout:g} s; use accel: tcg"
            )
        self._check(reason)

    def _check(self, reason: int) -> None:
        found = struct.unpack_from("=I", self._run, 8)[0]
        if found != reason:
            name = _EXIT_NAMES.get(found, "another one")
            raise Broken(
                f"{self.path} runs a guest wrongly: KVM_RUN left with exit reason {found} "
                f"({name}) instead of {reason}; use accel: tcg"
            )


def _start_thread(run: Callable[..., None], *arguments: Any) -> None:
    """A thread that takes no signal: those are meant for the program's own threads."""
    import _thread
    import signal

    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        _thread.start_new_thread(run, arguments)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def _address(fd: int) -> int:
    """Where this process has mapped `fd`: spares an import of ctypes, 2 ms."""
    inode = str(os.fstat(fd).st_ino)
    with open("/proc/self/maps") as maps:
        for line in maps:
            fields = line.split(None, 5)
            if fields[4] == inode and "memfd:qemu-launcher-kvm" in fields[5]:
                return int(fields[0].partition("-")[0], 16)
    raise OSError(errno.ENOENT, "the guest's memory is not in /proc/self/maps")


class _Watchdog:
    """Interrupts this thread's KVM_RUN once, after `timeout` seconds.

    The signal is blocked in this thread but for the time inside KVM_RUN (KVM_SET_SIGNAL_MASK),
    so it ends the ioctl with EINTR and is never delivered: no handler is needed, and none of the
    program's own is disturbed. QEMU kicks its vCPU threads in this way.
    """

    def __init__(self, vcpu: int, timeout: float) -> None:
        import _thread
        import signal

        self.fired = False
        self._signal = signal.SIGRTMAX - 2  # libc and Python use none of the last ones
        self._thread = _thread.get_ident()
        self._cancel, self._ended = _thread.allocate_lock(), _thread.allocate_lock()
        self._cancel.acquire()
        self._ended.acquire()
        self._old = signal.pthread_sigmask(signal.SIG_BLOCK, {self._signal})
        try:
            blocked = sum(1 << (int(s) - 1) for s in self._old if s != self._signal)
            fcntl.ioctl(vcpu, _SET_SIGNAL_MASK, struct.pack("=IQ", 8, blocked))
            _start_thread(self._wait, timeout)
        except (OSError, RuntimeError) as error:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._old)
            raise OSError(errno.EAGAIN, f"no watchdog for the test loop: {error}") from error

    def _wait(self, timeout: float) -> None:
        import signal

        if not self._cancel.acquire(timeout=timeout):
            self.fired = True
            signal.pthread_kill(self._thread, self._signal)
        self._ended.release()

    def stop(self) -> None:
        import signal

        self._cancel.release()
        self._ended.acquire()
        signal.sigtimedwait({self._signal}, 0)  # it may have come after the last KVM_RUN
        signal.pthread_sigmask(signal.SIG_SETMASK, self._old)
