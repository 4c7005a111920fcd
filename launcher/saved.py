"""A guest's state in a file, with its lock beside it, and a machine that goes on from there.

    await launcher.save(machine, "web.state")         # web.state, and web.state.lock.yaml
    machine = await launcher.restore("web.state", qemu="qemu-system-x86_64")

Composes. The lock says what the machine was, so that a later QEMU can be the same, or says exactly
what it cannot be.
"""

from __future__ import annotations

import os
from contextlib import suppress

from launcher.errors import InputError, LauncherError, VerdictError
from launcher.incoming import incoming
from launcher.lock_files import check_replaceable, load_lock
from launcher.locking.defaults import settled
from launcher.locking.migration import migration_of
from launcher.locking.start import Observed, prepare_lock, write_lock
from launcher.migrate import Limits
from launcher.migrate.stream import load_state, write_state
from launcher.prepare import Request, load, prepare
from launcher.record import replace
from launcher.start import refuse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from launcher.machine import Machine
    from launcher.migrate import Progress


def lock_of_state(path: str) -> str:
    """The lock file of a saved state: beside it."""
    return f"{path}.lock.yaml"


def _absolute(path: str) -> str:
    return os.path.abspath(path)


async def save(
    machine: Machine,
    path: str,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    limits: Limits | None = None,
) -> None:
    """Write a machine's state and its lock, and end the machine.

    Both are written beside their places and put there when both are whole: on an error the files
    of an earlier save are as they were, and the guest goes on.

    Args:
        machine: of this launcher.
        path: of the file; an old one is replaced.
        on_progress: called a few times a second.
        limits: deadlines.

    Raises:
        InputError: a file that is no lock stands where the lock belongs, or the machine has not the
            parts that its profile says: it was given more, or less, while it ran.
        VerdictError: the machine is not what its profile says now, so that a lock would be wrong.
        MigrationError: the state could not be written.
        HostError: the lock could not.
    """
    path = _absolute(path)
    if machine.changes:
        raise InputError(
            f"{machine.plan.name} is not what its profile says: {', '.join(machine.changes)} "
            "plugged or unplugged since the start; nothing was saved",
            hint="undo that first, or start the machine from a profile that says so",
            code="changed",
        )
    check_replaceable(lock_of_state(path))
    seen = await _seen(machine)
    part = f"{path}.part"
    stopped = bool((await machine.qmp("query-status"))["running"])
    written = False
    try:
        await machine.qmp("stop")
        await write_state(machine, part, limits or Limits(), on_progress)
        write_lock(lock_of_state(part), seen)
        os.replace(lock_of_state(part), lock_of_state(path))
        os.replace(part, path)
        written = True
    finally:
        if not written:
            for left in (part, lock_of_state(part)):
                with suppress(OSError):  # what went wrong is being raised
                    os.unlink(left)
            if stopped:
                with suppress(LauncherError):
                    await machine.resume()
    await machine.close()


async def _seen(machine: Machine) -> Observed:
    """What the lock is to say: the profile with the guest's UUID, and what is read back now.

    Raises:
        VerdictError: they differ.
    """
    from launcher.diagnose import said
    from launcher.report import judge
    from launcher.verify import observe

    asked = machine.prepared.loaded.request
    settings = (*asked.settings, f"uuid={machine.plan.uuid}")
    prepared = await prepare_lock(replace(asked, settings=settings, qemu=machine.plan.binary))
    plan = prepared.plan
    values = await observe(plan, machine.monitor, prepared.capabilities)
    report = settled(judge(plan, values, said(machine.process, machine.resources)))
    if report.verdict != "match":
        raise VerdictError(
            f"{plan.name}: the machine is not what its profile says now; nothing was saved",
            report=report,
            hint="was the profile, or a value of the machine, changed since it was started?",
        )
    held = machine.resources.directory
    return Observed(prepared, report, await migration_of(machine), held.path if held else "")


async def restore(
    path: str,
    *,
    profile: str | Mapping[str, Any] = "",
    qemu: str = "",
    settings: tuple[str, ...] = (),
    paused: bool = False,
    limits: Limits | None = None,
) -> Machine:
    """Start a machine under the lock of a saved state, load the state, and let the guest go on.

    The files stay. A guest that went on must not go on from the same file again: its disks have.

    Args:
        path: of the state; its lock stands beside it.
        profile: by default the one that the lock names.
        qemu: the binary, by name or path; by default the profile's.
        settings: further `path=value` texts.
        paused: leave the guest paused.
        limits: deadlines.

    Raises:
        InputError: there is no lock, or it does not fit the profile.
        HostError: the binary cannot be what was locked; says what it cannot be.
        VerdictError: a value is not what was locked; the guest did not run.
        MigrationError: QEMU could not load the state.
    """
    path = _absolute(path)
    beside = lock_of_state(path)
    lock = load_lock(beside)
    if not profile:
        profile = os.path.join(os.path.dirname(beside), lock.document["profile"]["file"])
    request = Request(profile, qemu=qemu, settings=settings, lock=beside)
    prepared = await prepare(load(request))
    machine = await incoming(prepared)
    try:
        refuse(await machine.verify())
        await load_state(machine, path, limits or Limits())
        refuse(await machine.verify())
        if not paused:
            await machine.resume()
    except BaseException:
        await machine.close()
        raise
    return machine
