"""Plugging: plan it, tell QEMU, read it back, judge it, and take it out again when it is wrong."""

from __future__ import annotations

from contextlib import suppress

from launcher.command import fill
from launcher.diagnose import said
from launcher.errors import (
    CommandError,
    InputError,
    LauncherError,
    Place,
    VerdictError,
)
from launcher.plan.addition import difference, grown
from launcher.platforms import hazardous, parse_qemu_version
from launcher.plug.parts import become, loaded_with, lock_of, tree_of
from launcher.plug.removing import take_out
from launcher.plug.words import COMMANDS, Step, step_of
from launcher.prepare import prepare
from launcher.profiles.addition import free_ports, with_addition
from launcher.record import replace
from launcher.report import judge
from launcher.verify import observe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from launcher.machine import Machine
    from launcher.plan import Plan
    from launcher.prepare import Prepared
    from launcher.report import Report

#: Seconds for one command: a block node of a slow store takes its time to open.
_DEADLINE = 30.0
#: Seconds for a guest to let go of what turned out to be wrong.
_BACK_OUT = 5.0
PLACE = Place("<plug>")
#: What the storage daemon does not have.
_OF_MACHINES = ("netdevs", "devices", "disk", "net")


async def plug(machine: Machine, given: dict[str, Any], verify: str | None) -> Report:
    """Give the machine more parts; see `Machine.plug`."""
    async with lock_of(machine):
        prepared, more = await _planned(machine, given)
        version = parse_qemu_version(more.version)
        steps = [step_of(o, prepared.capabilities.schema) for o in more.options]
        for step in steps:
            _refuse_hazard(prepared, step, version)
        before = len(said(machine.process, machine.resources))
        done: list[Step] = []
        try:
            for step in steps:
                await _add(machine, more, step)
                done.append(step)
            report = await _read_back(machine, prepared, more, before)
        except BaseException:
            await _undo(machine, done)
            raise
        old = machine.report
        await _accept(machine, prepared, report)
        if (verify or machine.plan.verify) == "strict" and report.verdict != "match":
            raise await _refuse(machine, report, steps, old)
        return report


async def _planned(machine: Machine, given: dict[str, Any]) -> tuple[Prepared, Plan]:
    """The machine as it is to be, and what that is more than it is."""
    tool = machine.plan.tool
    for name in _OF_MACHINES if tool != "qemu-system" else ():
        if given.get(name):
            raise InputError(f"{tool} has no {name}", place=PLACE, code="plug")
    whole = with_addition(machine.prepared.loaded.profile, tree_of(given, PLACE))
    # The same machine: one more start would draw another UUID.
    loaded = loaded_with(machine, replace(whole, uuid=machine.plan.uuid))
    prepared = await prepare(loaded)
    more = difference(machine.plan, prepared.plan)
    prepared = prepared.with_plan(grown(machine.plan, prepared.plan))
    if not more.options:
        raise InputError("nothing was given to be plugged", hint="for instance devices={…}")
    order = list(COMMANDS)
    for option in more.options:
        if option.path.partition(".")[0] not in order:
            raise InputError(f"{option.path} needs {option.name}, which only a start can have")
    return prepared, more


def _refuse_hazard(prepared: Prepared, step: Step, version: Any) -> None:
    """Refuse what is known to end this QEMU (platforms/hazards.yaml).

    Raises:
        InputError: it is.
    """
    hazard = hazardous(prepared.loaded.catalogue, step.command, version, step.arguments)
    if hazard is not None:
        raise InputError(
            f"{step.option.path} is not sent to QEMU {version}: {hazard.effect}",
            place=step.option.place,
            code="hazard",
        )


async def _add(machine: Machine, more: Plan, step: Step) -> None:
    """Send one command.

    Raises:
        CommandError: QEMU refused; says which part.
    """
    directory = machine.resources.directory
    if directory is None and "${runtime}" in str(step.arguments):
        raise InputError(
            f"{step.option.path}: this machine has no runtime directory",
            place=step.option.place,
            hint="a machine has one when its profile uses ${runtime}, or when it is named",
        )
    wants = [w for w in more.wants if w.name == f"secret-{step.id}" and step.section == "objects"]
    runtime = directory.path if directory is not None else ""
    try:
        if wants:
            await _with_secret(machine, step, wants[0].content.encode(), runtime)
        else:
            arguments = fill(step.arguments, {}, runtime)
            await machine.monitor.execute(step.command, arguments, timeout=_DEADLINE)
    except CommandError as error:
        raise CommandError(
            f"{step.option.path}: {error.message}",
            place=step.option.place,
            hint=_hint(machine, step, error.message),
            evidence=error.evidence,
        ) from None


async def _with_secret(machine: Machine, step: Step, data: bytes, runtime: str) -> None:
    """A secret goes as at start: in a sealed memory file, of which QEMU gets a descriptor."""
    from launcher.host.resources import FdSource, acquire

    name = f"secret-{step.id}"
    with acquire([FdSource("secret", name, data=data)]) as held:
        given = await machine.monitor.add_fd(held.fds[name])
        try:
            arguments = fill(step.arguments, {name: given.number}, runtime)
            await machine.monitor.execute(step.command, arguments, timeout=_DEADLINE)
        finally:
            await machine.monitor.remove_fd(given)


def _hint(machine: Machine, step: Step, words: str) -> str:
    """What to do about QEMU's words, where that is known."""
    if "has not been found" in words:  # the schema of the storage daemon 5.2 lists what it lacks
        return f"{machine.plan.tool} {machine.plan.version} has it at start only"
    if step.section != "devices":
        return ""
    if "virtio-mmio-bus" in words:
        return (
            f"{machine.plan.machine} has its devices on virtio-mmio, which knows no hot plug; "
            "objects, netdevs, chardevs and block nodes can be plugged, devices need a machine "
            "with PCI"
        )
    if "does not support hotplugging" in words or "already occupied" in words:
        ports = free_ports(machine.prepared.loaded.profile)
        if ports:
            return f"plug it into a port that is free: `bus: {ports[0]}`"
        return "start the machine with a free `{driver: pcie-root-port}`, and name it as its bus"
    if "PCI' bus found" in words:
        return f"{machine.plan.machine} has no PCI"
    return ""


async def _read_back(machine: Machine, prepared: Prepared, more: Plan, before: int) -> Report:
    commands, sent = machine.monitor.commands, machine.monitor.bytes_sent
    seen = await observe(more, machine.monitor, prepared.capabilities)
    machine.process.drain()
    lines = said(machine.process, machine.resources)[before:]
    report = judge(
        more,
        seen,
        lines,
        machine.monitor.commands - commands,
        machine.monitor.bytes_sent - sent,
    )
    lock = prepared.loaded.lock
    if lock is not None:
        from launcher.locks.replay import judge_lock

        report = judge_lock(lock, report)
    return report


async def _accept(machine: Machine, prepared: Prepared, report: Report) -> None:
    """From now on the machine is planned to have what it was given."""
    old = machine.report
    merged = None
    if old is not None:
        known = {_key(j.value): j for j in (*old.judged, *report.judged)}
        judged = tuple(known[k] for v in prepared.plan.values if (k := _key(v)) in known)
        complaints = (*old.complaints, *report.complaints)
        merged = replace(old, plan=prepared.plan, judged=judged, complaints=complaints)
    become(machine, prepared, merged)


def _key(value: Any) -> tuple[str, str, str]:
    return (value.family, value.id, value.property)


async def _refuse(
    machine: Machine, report: Report, steps: list[Step], old: Report | None
) -> VerdictError:
    """Take out what is not as planned; the error says what stays."""
    wrong = len(report.wrong) + len(report.complaints)
    words = f"{wrong} {'value is' if wrong == 1 else 'values are'} not what was planned"
    try:
        await take_out(machine, {(s.section, s.id) for s in steps}, _BACK_OUT)
    except LauncherError as error:
        end = f"it is still there: {error.message}"
    else:
        end = "it was taken out again"
        if machine.report is not None and old is not None:
            machine.report = replace(machine.report, complaints=old.complaints)
    return VerdictError(
        f"{machine.plan.name}: {words}; {end}",
        report=report,
        hint="plug it with verify='warn' to keep it all the same",
    )


async def _undo(machine: Machine, done: list[Step]) -> None:
    """After an error: QEMU is to have what it had."""
    from launcher.plug.removing import remove

    for step in reversed(done):
        with suppress(LauncherError):  # what went wrong is being raised
            await remove(machine, step.section, step.id, _BACK_OUT)
