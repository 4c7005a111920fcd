"""Machines that run already: find one by its name, speak to it, prove it again, stop it.

Composes the rooms, as `start` does for machines that do not run yet.
"""

from __future__ import annotations

import os

from launcher.errors import HostError, InputError, MonitorError, QEMUError
from launcher.host.ending import Ending
from launcher.host.runtime import adopt, find_machine, list_machines
from launcher.plan.kept import restore_plan
from launcher.process import Deadlines
from launcher.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from launcher.host.runtime import Machine
    from launcher.host.state import MachineState
    from launcher.monitor import Monitor
    from launcher.plan import Plan
    from launcher.report import Report

#: Seconds that a socket of a machine may take to accept us: QEMU serves one client at a time.
_ACCEPT = 5
#: Seconds, beyond its ladder, until the launcher of a foreground machine has cleaned up.
_CLEANING = 5.0

#: With what `stop` begins.
KINDLY, NOW, FORCE = "powerdown", "quit", "SIGKILL"


def find(name: str) -> Machine:
    """The running machine called `name`.

    Raises:
        InputError: there is none.
    """
    machine = find_machine(name)
    if machine is not None and machine.alive:
        return machine
    from launcher.qapi import nearest

    running = [machine.name for machine in list_machines() if machine.alive]
    near = nearest(name, running)
    hint = f"did you mean {' or '.join(near)}?" if near else "`qemu-launcher ps` lists them"
    raise InputError(f"no machine {name!r} runs", hint=hint, code="absent")


def is_detached(state: MachineState) -> bool:
    """Whether the machine outlives its launcher: then the launcher's own monitor is a socket."""
    return os.path.basename(state.qmp) == "qmp"


def _is_foreground(state: MachineState) -> bool:
    """Whether a `run` at some terminal holds it, which ends it when it is told to."""
    return os.path.basename(state.qmp) == "qmp-control"


def state_of(machine: Machine) -> MachineState:
    """What is on record about a running machine.

    Raises:
        HostError: nothing that can be read.
    """
    if machine.state is None:
        raise HostError(f"what is on record about {machine.name} cannot be read")
    return machine.state


def connect_socket(path: str) -> socket.socket:
    """Connect to a unix socket of a machine.

    Raises:
        MonitorError: nobody answers there, or somebody else is connected and another waits.
    """
    import socket
    import struct

    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    # A blocking connect to a full backlog waits for ever; settimeout() would not wait at all.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _ACCEPT, 0))
    try:
        sock.connect(path)
    except OSError as error:
        sock.close()
        busy = isinstance(error, BlockingIOError)
        raise MonitorError(
            f"{path} does not answer: {'others wait there' if busy else error.strerror}",
            hint="QEMU serves one client at a time; close the other one" if busy else "",
            evidence={"path": path},
        ) from None
    return sock


async def connect(machine: Machine, name: str = "") -> Monitor:
    """A QMP session with a running machine.

    Args:
        machine: from `find`.
        name: of another monitor in its directory; by default the one on record.

    Raises:
        MonitorError: its monitor does not answer, or another machine's does.
    """
    from launcher.monitor import Monitor

    state = state_of(machine)
    if not state.qmp:
        raise MonitorError(f"{machine.name} has no monitor for others")
    try:
        path = os.path.join(machine.path, name) if name else state.qmp
        monitor = await Monitor.connect(connect_socket(path))
    except MonitorError as error:
        if error.evidence.get("cause") == "timeout":
            error.hint = "QEMU serves one QMP client at a time; is another one connected?"
        raise
    try:
        await _check_identity(monitor, state)
    except BaseException:
        await monitor.close()
        raise
    return monitor


async def _check_identity(monitor: Monitor, state: MachineState) -> None:
    plan = restore_plan(state.plan)
    if plan is None or plan.tool != "qemu-system":
        return  # the storage daemon has no UUID
    found = (await monitor.execute("query-uuid"))["UUID"]
    if found != state.uuid:
        raise MonitorError(
            f"{state.qmp} is the monitor of another machine",
            evidence={"expected": state.uuid, "found": found},
        )


async def verify(machine: Machine) -> Report:
    """Read every value of a running machine's plan back, and judge it again.

    Raises:
        HostError: what was planned is not on record.
        MonitorError: QEMU does not answer.
    """
    from launcher.capabilities import Capabilities
    from launcher.report import judge
    from launcher.verify import observe

    state = state_of(machine)
    plan = restore_plan(state.plan)
    if plan is None:
        raise HostError(
            f"what was planned for {machine.name} is not on record",
            hint="it was started by another release of the launcher",
        )
    monitor = await connect(machine)
    try:
        # Asked of the process: the binary on disk may have been replaced since it started.
        known = await monitor.execute("query-commands")
        commands = [{"name": entry["name"], "meta-type": "command"} for entry in known]
        before = monitor.commands, monitor.bytes_sent
        seen = await observe(plan, monitor, Capabilities({"query-qmp-schema": commands}))
        sent = monitor.commands - before[0], monitor.bytes_sent - before[1]
        speed = await _speed(machine, plan, monitor)
    finally:
        await monitor.close()
    troubles = tuple(_helper_troubles(machine))
    return replace(judge(plan, seen, log_lines(machine.path), *sent, troubles), speed=speed)


def _helper_troubles(machine: Machine) -> Iterator[str]:
    """What runs no more beside a machine; how it ended only its parent was told."""
    from launcher.display import printable
    from launcher.host.state import ended_helpers

    for one in ended_helpers(state_of(machine)):
        lines = log_lines(machine.path, str(one["log"]))
        words = printable(lines[0]) if lines else "it said nothing"
        yield f"{one['path']}: {one['program']} has ended: {words}"


async def _speed(machine: Machine, plan: Plan, monitor: Monitor) -> tuple[bool | None, str] | None:
    """Whether a guest under KVM has run natively so far; None under other accelerators."""
    if plan.accel != "kvm" or machine.pid is None:
        return None
    from launcher.host.guest_time import judge_guest_time, read_thread_times

    vcpus = [cpu["thread-id"] for cpu in await monitor.execute("query-cpus-fast")]
    verdict = judge_guest_time({}, read_thread_times(machine.pid), vcpus)
    return verdict.native, verdict.reason


def log_lines(folder: str, name: str = "stderr.log") -> list[str]:
    """What a detached machine's QEMU said on stderr; its first and last kilobytes."""
    from launcher.process import StderrTail

    kept = StderrTail()
    try:
        with open(os.path.join(folder, name), "rb") as log:
            while chunk := log.read(1 << 16):
                kept.feed(chunk)
    except OSError:
        return []
    return kept.lines


async def stop(machine: Machine, first: str = KINDLY) -> str:
    """End a running machine, and remove what it leaves.

    The launcher of a foreground machine is told, and does it; a detached machine is asked over
    its monitor, then signalled.

    Args:
        machine: from `find`.
        first: KINDLY asks the guest first, NOW begins with quit, FORCE kills at once.

    Returns:
        What worked: "powerdown", "quit", "SIGTERM", "SIGKILL", "exited", or "its launcher".

    Raises:
        QEMUError: it outlived all of it.
    """
    state = state_of(machine)
    plan = restore_plan(state.plan)
    assert machine.pid is not None
    ended = Ending(machine.pid, state.start_time if state.pid is not None else None)
    try:
        if ended.reached():
            return "exited"
        if machine.holder is not None and _is_foreground(state) and first != FORCE:
            return await _tell_launcher(machine, machine.holder, plan, first, ended)
        directory = None
        if machine.holder is None:
            directory, _state = adopt(machine.name)
        try:
            return await _descend(machine, plan, first, ended)
        finally:
            if directory is not None:
                if ended.reached():
                    directory.remove()
                else:
                    directory.release()
    finally:
        ended.close()


async def _tell_launcher(
    machine: Machine, holder: int, plan: Plan | None, first: str, ended: Ending
) -> str:
    """Send the launcher of a foreground machine what a terminal would, and wait for both."""
    rungs = Deadlines()
    seconds = rungs.quit + rungs.term + rungs.kill + _CLEANING
    if first == KINDLY:
        seconds += plan.powerdown_seconds if plan else rungs.powerdown
    launcher = Ending(holder, None)
    try:
        launcher.signal(15 if first == KINDLY else 2)
        gone = await ended.within(seconds)
        if gone:
            # It writes its last words and removes the machine's directory now.
            await launcher.within(_CLEANING)
    finally:
        launcher.close()
    if not gone:
        raise QEMUError(
            f"process {holder}, which holds {machine.name}, did not end it within {seconds:g} s",
            hint=f"qemu-launcher stop {machine.name} --force",
        )
    return "its launcher"


async def _descend(machine: Machine, plan: Plan | None, first: str, ended: Ending) -> str:
    """The ladder, from `first` down to SIGKILL."""
    rungs = Deadlines()
    kindly = float(plan.powerdown_seconds) if plan else rungs.powerdown
    system = plan is None or plan.tool == "qemu-system"
    if first == KINDLY and kindly > 0 and system:
        await _ask(machine, "system_powerdown")
        if await ended.within(kindly):
            return "powerdown"
    if first != FORCE:
        if await _ask(machine, "quit") and await ended.within(rungs.quit):
            return "quit"
        ended.signal(15)
        if await ended.within(rungs.term):
            return "SIGTERM"
    ended.signal(9)
    if await ended.within(rungs.kill):
        return "SIGKILL"
    raise QEMUError(
        f"process {ended.pid} did not end {rungs.kill:g} s after SIGKILL",
        hint="the kernel holds it in a system call; look at /proc/PID/stack and the storage",
    )


async def _ask(machine: Machine, command: str) -> bool:
    """Send one command; False when QEMU cannot be asked, and the next rung has its turn."""
    try:
        monitor = await connect(machine)
    except MonitorError:
        return False
    try:
        await monitor.execute(command, timeout=Deadlines().quit)
    except MonitorError:
        # `quit` may end the connection before its answer is out.
        return command == "quit"
    except QEMUError:
        return False
    finally:
        await monitor.close()
    return True
