"""The order of a launch: prepare, acquire, spawn, attach, set up, observe, judge, continue.

Composes the rooms and decides nothing. `begin` spawns QEMU before asyncio need be imported;
`attach` takes over from there.
"""

from __future__ import annotations

import os

from launcher.command import fill, option_at, render_argv
from launcher.diagnose import object_at_fault
from launcher.errors import (
    CommandError,
    HostError,
    LaunchError,
    MonitorError,
    QEMUError,
    VerdictError,
)
from launcher.prepare import Request, load, prepare
from launcher.process import Deadlines, describe_exit, meaningful_lines, printable, spawn
from launcher.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from contextlib import AbstractAsyncContextManager
    from typing import Any

    from launcher.console import Console
    from launcher.host.resources import Resources
    from launcher.monitor import Monitor
    from launcher.plan import Option, Plan
    from launcher.prepare import Prepared
    from launcher.process import Process
    from launcher.report import Report

#: Seconds until a started QEMU must have answered its first command; `prealloc` of much memory
#: happens before it.
START_DEADLINE = 60.0

#: What QEMU inherits of our environment; everything else stays with us.
_ENVIRONMENT = (
    *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR"),
    *("XDG_RUNTIME_DIR", "DISPLAY", "WAYLAND_DISPLAY", "PULSE_SERVER", "QEMU_MODULE_DIR"),
    *("LD_LIBRARY_PATH", "LD_PRELOAD", "GLIBC_TUNABLES", "QEMU_AUDIO_DRV"),
)


class Started:
    """A QEMU that was spawned and not yet spoken to."""

    def __init__(
        self, prepared: Prepared, resources: Resources, process: Process, argv: list[str]
    ) -> None:
        self.prepared = prepared
        self.resources = resources
        self.process = process
        self.argv = argv

    def abandon(self) -> None:
        """End QEMU at once and undo what was acquired; for errors before there is a loop."""
        self.process.kill()
        self.resources.release()


def begin(prepared: Prepared, *, named: bool = False, detached: bool = False) -> Started:
    """Acquire what the plan wants of the host, and spawn QEMU. Needs no loop.

    Args:
        prepared: the plan and its sources.
        named: claim the machine's name on this host, so that `ps`, `stop` and `qmp` find it.
        detached: the machine outlives this process; its monitor is a socket in its directory.

    Raises:
        HostError: the name is held, or a resource cannot be had.
        LaunchError: QEMU could not be started.
    """
    from launcher.host.resources import Want, acquire

    plan = prepared.plan
    texts = [(o.head, o.members) for o in plan.options] + [("", s.arguments) for s in plan.setup]
    runtime = "${runtime}" in str(texts)
    wants = [
        Want(w.kind, w.name, data=w.content.encode())
        if w.kind == "secret"
        else Want("listener" if detached else w.kind, w.name)
        for w in plan.wants
    ]
    monitor = Want("listener", "qmp") if detached else Want("socketpair", "qmp")
    extra = [Want("listener", "qmp-control")] if named and not detached else []
    claimed = plan.name if named or detached else None
    if claimed is None and runtime:
        claimed = f"{plan.name[:50]}-{plan.uuid[:8]}"
    held = acquire([monitor, *extra, *wants], claimed)
    try:
        return _spawn(prepared, held, detached)
    except BaseException:
        held.release()
        raise


def _spawn(prepared: Prepared, held: Resources, detached: bool) -> Started:
    plan = prepared.plan
    numbers = {name: 3 + place for place, name in enumerate(held.fds)}
    runtime = held.directory.path if held.directory is not None else ""
    argv = render_argv(plan, numbers, runtime, listening=detached)
    fds = {numbers[name]: fd for name, fd in held.fds.items()}
    _record(prepared, held, None, detached)
    log = _detached_log(held) if detached else None
    if log is not None:
        fds |= {1: log, 2: log}
    try:
        process = spawn(argv, fds=fds, env=environment(), tie=not detached)
    finally:
        if log is not None:
            os.close(log)
    held.hand_over()
    try:
        _record(prepared, held, process.pid, detached)
    except HostError:
        process.kill()
        raise
    return Started(prepared, held, process, argv)


def _detached_log(held: Resources) -> int:
    """QEMU's own words of a machine that outlives us go to a file beside its sockets."""
    assert held.directory is not None
    path = os.path.join(held.directory.path, "stderr.log")
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags, 0o600)


def _said(process: Process, held: Resources) -> list[str]:
    """What QEMU said on stderr so far: to us, or into its log when it is to outlive us."""
    if held.directory is None or process.stderr.lines:
        return process.stderr.lines
    from launcher.machines import log_lines

    return log_lines(held.directory.path)


def environment() -> dict[str, str]:
    """The part of our environment that QEMU gets."""
    return {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}


def _record(prepared: Prepared, held: Resources, pid: int | None, detached: bool) -> None:
    """Write the machine's state.

    `starting` is written before the process exists: a launcher that is killed in between leaves
    a uuid by which the process can be found.
    """
    directory = held.directory
    if directory is None:
        return
    from launcher.host.state import MachineState
    from launcher.plan.kept import keep_plan

    plan = prepared.plan
    control = "qmp" if detached else "qmp-control"
    directory.write_state(
        MachineState(
            name=plan.name,
            uuid=plan.uuid,
            phase="starting" if pid is None else "running",
            pid=pid,
            binary=plan.binary,
            qmp=os.path.join(directory.path, control) if control in held.fds else "",
            console=os.path.join(directory.path, plan.consoles[0])
            if detached and plan.consoles
            else "",
            profile=os.path.abspath(prepared.loaded.profile_file),
            platform=plan.platform,
            # While it starts there is nothing to verify, and QEMU waits for this file.
            plan=None if pid is None else keep_plan(plan),
        )
    )


class Machine:
    """A running QEMU and what is known of it.

    Attributes:
        plan: what was decided.
        report: what was read back before the guest ran.
        process: the QEMU process.
        monitor: its QMP session.
        consoles: the launcher's own serial consoles, by chardev id.
    """

    def __init__(self, started: Started, monitor: Monitor, consoles: dict[str, Console]) -> None:
        self.prepared = started.prepared
        self.plan: Plan = started.prepared.plan
        self.argv = started.argv
        self.process = started.process
        self.resources = started.resources
        self.monitor = monitor
        self.consoles = consoles
        self.report: Report | None = None

    @property
    def console(self) -> Console:
        """The first serial console.

        Raises:
            LookupError: the profile has no `serial: console`.
        """
        if not self.consoles:
            raise LookupError(f"{self.plan.name} has no console; add `serial: console`")
        return next(iter(self.consoles.values()))

    async def qmp(
        self, command: str, arguments: Mapping[str, Any] | None = None, **more: Any
    ) -> Any:
        """Execute a QMP command: `await machine.qmp("query-status")`.

        Args:
            command: its QAPI name.
            arguments: by QAPI name.
            more: further arguments, `_` written for `-`.

        Raises:
            CommandError: QEMU answered with an error.
            MonitorError: it did not answer.
        """
        merged = {**(arguments or {}), **{k.replace("_", "-"): v for k, v in more.items()}}
        return await self.monitor.execute(command, merged or None)

    async def verify(self) -> Report:
        """Read every planned value back, now.

        Raises:
            MonitorError: QEMU did not answer.
        """
        from launcher.report import judge
        from launcher.verify import observe

        commands, sent = self.monitor.commands, self.monitor.bytes_sent
        seen = await observe(self.plan, self.monitor, self.prepared.capabilities)
        self.process.drain()
        self.report = judge(
            self.plan,
            seen,
            _said(self.process, self.resources),
            self.monitor.commands - commands,
            self.monitor.bytes_sent - sent,
        )
        return self.report

    async def resume(self) -> None:
        """Let the guest run (QMP cont)."""
        if self.plan.tool == "qemu-system":
            await self.monitor.execute("cont")

    async def wait(self, timeout: float | None = None) -> int:  # noqa: ASYNC109
        """Wait until QEMU ends; its exit status, negative for a signal.

        Raises:
            TimeoutError: it still runs.
        """
        return await self.process.wait(timeout)

    async def stop(self, *, powerdown: bool = False) -> str:
        """End the machine: powerdown (when asked for), quit, SIGTERM, SIGKILL.

        Returns:
            The rung that worked.
        """
        seconds = self.plan.powerdown_seconds
        asks = powerdown and seconds > 0 and self.plan.tool == "qemu-system"
        return await self.process.stop(
            powerdown=(lambda: self.monitor.execute("system_powerdown")) if asks else None,
            quit=lambda: self.monitor.execute("quit"),
            deadlines=replace(Deadlines(), powerdown=float(seconds)),
        )

    async def close(self) -> None:
        """End QEMU if it still runs, and undo everything that the launch acquired."""
        try:
            await self.stop()
        finally:
            for console in self.consoles.values():
                console.close()
            await self.monitor.close()
            self.resources.release()


async def attach(started: Started, *, deadline: float = START_DEADLINE) -> Machine:
    """Speak to a spawned QEMU: negotiate, and send the plan's setup while it is paused.

    Raises:
        LaunchError: QEMU died, or refused the setup; names its words and the profile's line.
    """
    from launcher.console import Console
    from launcher.monitor import Monitor

    process, held = started.process, started.resources
    await process.watch()
    try:
        try:
            sock = held.sockets["qmp"] if "qmp" in held.sockets else _connect(held)
            monitor = await Monitor.connect(sock, timeout=deadline)
        except MonitorError as error:
            raise await died(started, error) from None
        consoles = {
            name: Console(held.sockets[name])
            for name in started.prepared.plan.consoles
            if name in held.sockets
        }
        machine = Machine(started, monitor, consoles)
    except BaseException:
        started.abandon()
        raise
    try:
        await _set_up(machine)
        # The greeting comes from the monitor's own thread; this answer says that the machine
        # has been initialised, and an error in that shows here at the latest.
        await monitor.execute("query-status" if _is_system(machine) else "query-version")
    except MonitorError as error:
        trouble = await died(started, error)
        await machine.close()
        raise trouble from None
    except BaseException:
        await machine.close()
        raise
    return machine


async def _set_up(machine: Machine) -> None:
    """Send the plan's setup; an error of QEMU names the profile's line.

    Raises:
        CommandError: QEMU refused a step.
        MonitorError: it went away.
    """
    directory = machine.resources.directory
    runtime = directory.path if directory is not None else ""
    for step in machine.plan.setup:
        try:
            await machine.monitor.execute(step.command, fill(step.arguments, {}, runtime))
        except CommandError as error:
            where = f"{step.path}: " if step.path else ""
            raise CommandError(
                f"{where}{error.message}", place=step.place, evidence=error.evidence
            ) from None


def _is_system(machine: Machine) -> bool:
    return machine.plan.tool == "qemu-system"


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


async def died(started: Started, cause: QEMUError) -> QEMUError:
    """The error of a QEMU that ended, or broke its monitor, during a launch.

    QEMU's own words are on stderr and nowhere else; the option they name leads back to the
    profile's line.
    """
    process = started.process
    try:
        code = await process.wait(1.0)
    except TimeoutError:
        # It lives: then the monitor's own error is the better story.
        return cause
    lines = _said(process, started.resources)
    found = meaningful_lines(lines, started.argv)
    plan = started.prepared.plan
    option: Option | None = None
    words = "it said nothing"
    hint = ""
    if found:
        first = found[0]
        words = printable(first.message)
        if first.index > 0:
            option = option_at(plan, first.index)
        else:
            option = _mentioned(plan, first.line) or await object_at_fault(plan, first.message)
        hint = " ".join(printable(line) for line in first.hints)
    where = f"{option.path}: " if option is not None and option.path else ""
    ended = "" if code == 1 else f" ({describe_exit(code)})"
    return LaunchError(
        f"QEMU {plan.version} did not start{ended}: {where}{words}",
        place=option.place if option is not None else None,
        hint=hint,
        evidence={
            "qemu_stderr": lines,
            "returncode": code,
            "option": option.path if option else None,
            "argv": started.argv,
        },
    )


def _mentioned(plan: Plan, line: str) -> Option | None:
    """The option whose value a message repeats, when it does not name the option itself."""
    for option in plan.options:
        texts = [option.head, *(str(v) for v in option.members.values())]
        if option.place is not None and any(len(t) > 3 and t in line for t in texts):
            return option
    return None


async def start(started: Started, *, verify: str | None = None) -> Machine:
    """Attach, verify, and let the guest run when everything is as planned.

    Args:
        started: a spawned QEMU.
        verify: `strict` or `warn`; by default what the profile says.

    Raises:
        VerdictError: under `strict`, something is not as planned; QEMU has been ended.
        LaunchError: QEMU died.
    """
    machine = await attach(started)
    try:
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

    Raises:
        InputError: something given is wrong.
        HostError: this host or binary cannot run it.
        QEMUError: QEMU failed.
        VerdictError: a value is not what was planned.
    """
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def running() -> AsyncIterator[Machine]:
        request = Request(profile, platform, qemu, tuple(settings))
        machine = await start(begin(await prepare(load(request))), verify=verify)
        try:
            yield machine
        finally:
            await machine.close()

    return running()
