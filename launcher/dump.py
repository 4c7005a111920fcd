"""A guest's memory in a file, as crash(8), gdb or WinDbg read it (QMP dump-guest-memory)."""

from __future__ import annotations

import os
from contextlib import suppress

from launcher.errors import HostError, InputError, MonitorError, QEMUError
from launcher.qapi import suggest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from launcher.machine import Machine

#: Formats whose size is the guest's memory; the others are compressed.
_AS_LARGE_AS_RAM = ("elf", "win-dmp")
#: Beside the memory: heads, notes, and room for others.
_SPARE = 32 << 20
_NAME = "launcher-dump"


async def dump_guest_memory(
    machine: Machine, path: str, format_: str, paging: bool, seconds: float
) -> int:
    """Write the guest's memory; see `Machine.dump_guest_memory`."""
    answer = await machine.monitor.execute("query-dump-guest-memory-capability")
    known = [str(name) for name in answer["formats"]]
    if format_ not in known:
        raise InputError(
            f"this QEMU dumps no {format_!r} of this machine",
            hint=suggest(format_, known) or f"it has {', '.join(known)}",
            code="dump",
        )
    fd = _create(path)
    try:
        try:
            if format_ in _AS_LARGE_AS_RAM:
                await _check_space(machine, path, fd)
            await machine.monitor.send_fd(fd, _NAME)
            await _dump(machine, {"format": format_} if not paging else {}, paging, seconds)
            return os.fstat(fd).st_size
        finally:
            os.close(fd)
    except BaseException:
        with suppress(OSError):  # what went wrong is being raised
            os.unlink(path)
        raise


def _create(path: str) -> int:
    """A file that was not there, which only its owner may read: it holds all of the guest.

    Raises:
        HostError: it is there, or cannot be made.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except OSError as error:
        hint = "a dump replaces no file" if isinstance(error, FileExistsError) else ""
        raise HostError(
            f"the dump {path} cannot be made: {error.strerror}", hint=hint, code="output"
        ) from None


async def _check_space(machine: Machine, path: str, fd: int) -> None:
    """Refuse a dump that would fill the disk.

    Raises:
        HostError: there is not enough room.
    """
    summary = await machine.monitor.execute("query-memory-size-summary")
    needed = summary["base-memory"] + summary.get("plugged-memory", 0) + _SPARE
    free = os.fstatvfs(fd)
    if free.f_bavail * free.f_frsize < needed:
        raise HostError(
            f"the dump {path} needs {needed >> 20} MiB, and there are "
            f"{free.f_bavail * free.f_frsize >> 20} MiB",
            code="output",
        )


async def _dump(machine: Machine, more: dict[str, Any], paging: bool, seconds: float) -> None:
    """Have QEMU write it, in a thread of its own, so that its monitor goes on answering.

    Raises:
        QEMUError: it failed; MonitorError: it was not done in time.
    """
    before = machine.monitor.mark()
    wanted = {"paging": paging, "protocol": f"fd:{_NAME}", "detach": True, **more}
    await machine.monitor.execute("dump-guest-memory", wanted)
    try:
        event = await machine.monitor.wait_event("DUMP_COMPLETED", timeout=seconds, since=before)
    except MonitorError as error:
        if error.evidence.get("cause") != "timeout":
            raise
        raise MonitorError(
            f"the dump was not done within {seconds:g} s",
            hint="QEMU cannot be told to stop: it goes on writing what no name leads to any more",
            evidence=error.evidence,
        ) from None
    if event.data["result"]["status"] != "completed":
        raise QEMUError(f"dump-guest-memory: {event.data.get('error', 'it failed')}", code="dump")
