"""The order of a launch: prepare, acquire, spawn, attach, set up, observe, judge, continue.

Composes the rooms and decides nothing. `begin` spawns QEMU; this takes over from there.
"""

from __future__ import annotations

import os

from launcher.begin import begin
from launcher.command import fill
from launcher.diagnose import died
from launcher.errors import CommandError, MonitorError, VerdictError
from launcher.machine import Machine
from launcher.prepare import Request, load, prepare

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from contextlib import AbstractAsyncContextManager
    from typing import Any

    from launcher.begin import Started
    from launcher.guest.port import Port
    from launcher.host.resources import Resources
    from launcher.monitor import Monitor
    from launcher.report import Report

#: Seconds until a started QEMU must have answered its first command; `prealloc` of much memory
#: happens before it.
START_DEADLINE = 60.0


async def attach(started: Started, *, deadline: float = START_DEADLINE) -> Machine:
    """Speak to a spawned QEMU: negotiate, and send the plan's setup while it is paused.

    Raises:
        LaunchError: QEMU died, or refused the setup; names its words and the profile's line.
    """
    from launcher.console import Console
    from launcher.monitor import Monitor

    process, held = started.process, started.resources
    for one in (process, *(helper.process for helper in started.helpers)):
        await one.watch()
    try:
        try:
            sock = held.sockets["qmp"] if "qmp" in held.sockets else _connect(held)
            monitor = await Monitor.connect(sock, _setup(started), timeout=deadline)
        except MonitorError as error:
            raise await died(started, error) from None
        consoles = {
            name: Console(held.sockets[name])
            for name in started.prepared.plan.consoles
            if name in held.sockets
        }
        port = _agent_port(started, monitor)
        machine = Machine(started, monitor, consoles, port)
    except BaseException:
        started.abandon()
        raise
    try:
        _check_setup(machine)
    except MonitorError as error:
        trouble = await died(started, error)
        await machine.close()
        raise trouble from None
    except BaseException:
        await machine.close()
        raise
    return machine


def _agent_port(started: Started, monitor: Monitor) -> Port | None:
    """The host's end of the guest agent's port, where the profile has one."""
    chardev, sockets = started.prepared.plan.agent, started.resources.sockets
    if chardev not in sockets:
        return None
    from launcher.guest.port import Port

    return Port(sockets[chardev], chardev, monitor)


def _setup(started: Started) -> list[tuple[str, Mapping[str, Any] | None]]:
    """The plan's setup and a question after it, to be sent with the negotiation.

    The greeting comes from the monitor's own thread; the answer to the question says that the
    machine has been initialised, and an error in that shows here at the latest. All at once: QEMU
    takes them in order, and each answer that is waited for costs a round trip. A step after one
    that was refused does no harm, for then QEMU is ended.
    """
    plan, directory = started.prepared.plan, started.resources.directory
    runtime = directory.path if directory is not None else ""
    last = "query-status" if plan.tool == "qemu-system" else "query-version"
    steps = [(step.command, fill(step.arguments, {}, runtime)) for step in plan.setup]
    return [*steps, (last, None)]


def _check_setup(machine: Machine) -> None:
    """Raise what QEMU refused of the setup; the error names the profile's line.

    Raises:
        CommandError: QEMU refused a step.
    """
    answers = machine.monitor.answers
    for step, answer in zip(machine.plan.setup, answers, strict=False):
        if isinstance(answer, CommandError):
            where = f"{step.path}: " if step.path else ""
            raise CommandError(
                f"{where}{answer.message}", place=step.place, evidence=answer.evidence
            )
    if isinstance(answers[-1], CommandError):
        raise answers[-1]


def _connect(held: Resources) -> Any:
    """The monitor of a detached machine: its listener was bound by us before QEMU existed."""
    import socket

    assert held.directory is not None
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    fd = os.open(held.directory.path, os.O_PATH | os.O_DIRECTORY)
    try:
        sock.connect(f"/proc/self/fd/{fd}/qmp")
    except OSError as error:
        sock.close()
        raise MonitorError(f"the monitor's socket does not answer: {error.strerror}") from None
    finally:
        os.close(fd)
    return sock


async def start(
    started: Started,
    *,
    verify: str | None = None,
    attached: Callable[[Machine], None] | None = None,
) -> Machine:
    """Attach, verify, and let the guest run when everything is as planned.

    Args:
        started: a spawned QEMU.
        verify: `strict` or `warn`; by default what the profile says.
        attached: called with the machine while it is paused, before anything was read back.

    Raises:
        VerdictError: under `strict`, something is not as planned; QEMU has been ended.
        LaunchError: QEMU died.
    """
    machine = await attach(started)
    try:
        if attached is not None:
            attached(machine)
        try:
            report = await machine.verify()
        except MonitorError as error:
            raise await died(started, error) from None
        if (verify or machine.plan.verify) == "strict":
            refuse(report)
        await machine.resume()
    except BaseException:
        await machine.close()
        raise
    return machine


def refuse(report: Report) -> None:
    """Let only a report through in which everything is as planned.

    Raises:
        VerdictError: a value is not.
    """
    if report.verdict != "match":
        wrong = len(report.wrong) + len(report.complaints)
        raise VerdictError(
            f"{report.plan.name}: {wrong} {'value is' if wrong == 1 else 'values are'} not what "
            "was planned; the guest did not run",
            report=report,
            hint="run with `verify: warn` to start all the same",
        )


def launch(
    profile: str | Mapping[str, Any],
    *,
    platform: str = "",
    qemu: str = "",
    settings: tuple[str, ...] = (),
    verify: str | None = None,
    locked: bool | str = False,
) -> AbstractAsyncContextManager[Machine]:
    """Start a machine, prove it, and end it with the block.

        async with launcher.launch("web.yaml", platform="debian-12") as machine:
            await machine.qmp("query-status")

    Args:
        profile: the path of a profile, or a mapping of the same shape.
        platform: wins over the profile's own.
        qemu: the binary, by name or path.
        settings: `path=value` texts, as with `--set`.
        verify: `strict` or `warn`.
        locked: keep the lock file beside the profile, or the one at this path, or refuse.

    Raises:
        InputError: something given is wrong.
        HostError: this host or binary cannot run it.
        QEMUError: QEMU failed.
        VerdictError: a value is not what was planned.
    """
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def running() -> AsyncIterator[Machine]:
        machine = await launched(
            profile,
            platform=platform,
            qemu=qemu,
            settings=settings,
            verify=verify,
            locked=locked,
        )
        try:
            yield machine
        finally:
            await machine.close()

    return running()


async def launched(
    profile: str | Mapping[str, Any],
    *,
    platform: str = "",
    qemu: str = "",
    settings: tuple[str, ...] = (),
    verify: str | None = None,
    locked: bool | str = False,
) -> Machine:
    """`launch` without the block: whoever calls this closes the machine.

    Raises:
        InputError, HostError, QEMUError, VerdictError: as `launch`.
    """
    lock = locked if isinstance(locked, str) else ""
    if locked is True:
        from launcher.lock_files import lock_path

        lock = lock_path(profile)
    request = Request(profile, platform, qemu, tuple(settings), lock=lock)
    return await start(begin(await prepare(load(request))), verify=verify)
