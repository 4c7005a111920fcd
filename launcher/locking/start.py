"""Lock a profile: start it paused, read everything back, and write it down."""

from __future__ import annotations

from launcher.errors import MonitorError, VerdictError
from launcher.lock_files import check_replaceable, home_of, lock_path
from launcher.locks.model import lock_text
from launcher.output import write_output
from launcher.prepare import Request, load, prepare
from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from launcher.begin import Started
    from launcher.prepare import Prepared
    from launcher.report import Report


@record
class Locking:
    """What `lock` wrote."""

    file: str
    document: dict[str, Any]
    report: Report


async def lock(
    profile: str | Mapping[str, Any],
    *,
    platform: str = "",
    qemu: str = "",
    settings: tuple[str, ...] = (),
    output: str = "",
) -> Locking:
    """Write the lock file of a profile; the guest does not run.

    Args:
        profile: the path of a profile, or a mapping of the same shape (then `output` is needed).
        platform: wins over the profile's own.
        qemu: the binary, by name or path.
        settings: `path=value` texts, as with `--set`.
        output: the lock file; by default `NAME.lock.yaml` beside the profile.

    Raises:
        InputError: something given is wrong.
        HostError: this host or binary cannot run it, or the file cannot be written.
        QEMUError: QEMU failed.
        VerdictError: a value is not what was planned; nothing is written.
    """
    request = Request(profile, platform, qemu, tuple(settings))
    path = output or lock_path(profile)
    check_replaceable(path)
    return write_lock(path, await observe(await prepare_lock(request)))


@record
class Observed:
    """A paused machine as it was read back."""

    prepared: Prepared
    report: Report
    migration: dict[str, Any]
    runtime: str


async def prepare_lock(request: Request) -> Prepared:
    """The plan of what is to be locked, with QEMU's defaults that the platform data knows.

    Raises:
        InputError, HostError, LaunchError: as `launcher.prepare.prepare`.
    """
    from launcher.locking.defaults import with_defaults

    prepared = await prepare(load(request))
    return prepared.with_plan(with_defaults(prepared))


async def observe(prepared: Prepared) -> Observed:
    """Start the machine paused, read it back, and end it.

    Raises:
        QEMUError: QEMU failed.
        HostError: a resource cannot be had.
    """
    from launcher.begin import begin

    started = begin(prepared)
    try:
        return await read_back(started)
    finally:
        started.abandon()


async def read_back(started: Started) -> Observed:
    """Read a paused machine back, and end it.

    Raises:
        QEMUError: QEMU failed.
    """
    from launcher.diagnose import died
    from launcher.locking.defaults import settled
    from launcher.locking.migration import migration_of
    from launcher.start import attach

    machine = await attach(started)
    held = started.resources.directory
    try:
        report = settled(await machine.verify())
        migration = await migration_of(machine.monitor, machine.plan, machine.capabilities)
        return Observed(started.prepared, report, migration, held.path if held else "")
    except MonitorError as error:
        raise await died(started, error) from None
    finally:
        await machine.close()


def write_lock(path: str, seen: Observed) -> Locking:
    """Write the lock file of what was observed.

    Raises:
        VerdictError: it is not what was planned.
        InputError: `path` is a file that is no lock file.
        HostError: the file cannot be written.
    """
    from launcher.locking.contents import document

    report = seen.report
    if report.verdict != "match":
        raise VerdictError(
            f"{report.plan.name}: not everything is as planned; nothing was locked",
            report=report,
            hint="`qemu-launcher verify` shows the whole report",
        )
    check_replaceable(path)
    whole = document(seen, home_of(path))
    write_output(path, lock_text(whole), "the lock file")
    return Locking(path, whole, report)
