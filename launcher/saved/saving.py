"""A machine's state into a file, and its lock beside it."""

from __future__ import annotations

import os
from contextlib import suppress

from launcher import rejoin
from launcher.errors import LauncherError, VerdictError
from launcher.lock_files import check_replaceable
from launcher.locking.defaults import settled
from launcher.locking.migration import migration_of
from launcher.locking.start import Observed, prepare_lock, write_lock
from launcher.migrate import Limits
from launcher.migrate.move import let_go, surely
from launcher.migrate.stream import write_state
from launcher.plan.kept import changes_of
from launcher.record import replace
from launcher.rejoined import rejoined
from launcher.saved.again import refuse_changed, request_of, same_machine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from launcher.host.runtime import Machine as Running
    from launcher.machine import Machine
    from launcher.migrate import Progress
    from launcher.migrate.model import End
    from launcher.prepare import Prepared


def lock_of_state(path: str) -> str:
    """The lock file of a saved state: beside it."""
    return f"{path}.lock.yaml"


def absolute(path: str) -> str:
    """The whole path of a file for a state."""
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
    path = absolute(path)
    refuse_changed(machine.plan.name, machine.changes)
    check_replaceable(lock_of_state(path))
    asked = machine.prepared.loaded.request
    settings = (*asked.settings, f"uuid={machine.plan.uuid}")
    prepared = await prepare_lock(replace(asked, settings=settings, qemu=machine.plan.binary))
    await _write(machine, path, await _seen(machine, prepared), on_progress, limits or Limits())
    await machine.close()


async def save_running(
    machine: Running,
    path: str,
    *,
    settings: tuple[str, ...] = (),
    on_progress: Callable[[Progress], None] | None = None,
    limits: Limits | None = None,
) -> None:
    """Write the state of a machine that another process started, and end it.

    Args:
        machine: from `launcher.rejoin.find`.
        path: of the file; an old one is replaced.
        settings: `path=value` texts that are not on record, because they hold secrets.
        on_progress: called a few times a second.
        limits: deadlines.

    Raises:
        As `save`.
        InputError: the profile makes another machine now than the one that runs.
        HostError: what was planned for it is not on record.
        MonitorError: it does not answer.
    """
    path = absolute(path)
    check_replaceable(lock_of_state(path))
    state = rejoin.state_of(machine)
    refuse_changed(state.name, changes_of(state.plan))
    async with rejoined(machine) as end:
        request = request_of(state, settings)
        prepared = await prepare_lock(request)
        same_machine(end, prepared)
        await _write(end, path, await _seen(end, prepared), on_progress, limits or Limits())
    await rejoin.stop(machine, rejoin.NOW)


async def _write(
    end: End,
    path: str,
    seen: Observed,
    on_progress: Callable[[Progress], None] | None,
    limits: Limits,
) -> None:
    """Both files, whole or not at all; the guest is stopped then, or goes on."""
    part = f"{path}.part"
    ran = bool((await end.monitor.execute("query-status"))["running"])
    written = begun = False
    try:
        await end.monitor.execute("stop")
        begun = True
        await write_state(end, part, limits, on_progress)
        write_lock(lock_of_state(part), seen)
        os.replace(lock_of_state(part), lock_of_state(path))
        os.replace(part, path)
        written = True
    finally:
        if not written:
            await surely(_undo(end, part, begun and ran, limits))


async def _undo(end: End, part: str, ran: bool, limits: Limits) -> None:
    for left in (part, lock_of_state(part)):
        with suppress(OSError):  # what went wrong is being raised
            os.unlink(left)
    with suppress(LauncherError, TimeoutError):
        await let_go(end.monitor, True, ran, limits.undo)


async def _seen(end: End, prepared: Prepared) -> Observed:
    """What the lock is to say: the profile with the guest's UUID, and what is read back now.

    Raises:
        VerdictError: they differ.
    """
    from launcher.report import judge
    from launcher.verify import observe

    plan = prepared.plan
    values = await observe(plan, end.monitor, prepared.capabilities)
    report = settled(judge(plan, values, end.said()))
    if report.verdict != "match":
        raise VerdictError(
            f"{plan.name}: the machine is not what its profile says now; nothing was saved",
            report=report,
            hint="was the profile, or a value of the machine, changed since it was started?",
        )
    told = await migration_of(end.monitor, plan, prepared.capabilities)
    return Observed(prepared, report, told, end.folder)
