"""A running machine, as Python programs see it."""

from __future__ import annotations

from launcher.diagnose import said
from launcher.errors import LauncherError
from launcher.process import Deadlines
from launcher.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping
    from typing import Any

    from launcher.begin import Started
    from launcher.capabilities import Capabilities
    from launcher.console import Console
    from launcher.migrate import Limits, Migration, Progress
    from launcher.monitor import Event, Events, Monitor
    from launcher.plan import Plan
    from launcher.report import Report
    from launcher.snapshot import Snapshot


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
        for console in consoles.values():
            console.explain = self.whereabouts

    @property
    def capabilities(self) -> Capabilities:
        """What the binary can do."""
        return self.prepared.capabilities

    @property
    def folder(self) -> str:
        """Its runtime directory; empty when it has none."""
        directory = self.resources.directory
        return directory.path if directory is not None else ""

    def said(self) -> list[str]:
        """What QEMU said on stderr so far."""
        return said(self.process, self.resources)

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

    @property
    def events(self) -> Events:
        """What QEMU told so far and will tell: `async for event in machine.events("STOP")`."""
        from launcher.monitor import Events

        return Events(self.monitor)

    async def wait_event(
        self,
        name: str | Container[str],
        match: Callable[[Event], bool] | None = None,
        *,
        timeout: float = 60.0,  # noqa: ASYNC109 (asyncio.timeout inside)
        since: int = 0,
    ) -> Event:
        """The first event of that name, also when it came before the call.

        Args:
            name: QAPI name of an event, or several.
            match: which of them.
            timeout: seconds.
            since: only events after this one (`machine.events.mark()`).

        Raises:
            MonitorError: it did not come in time, or QEMU ended without it.
        """
        return await self.monitor.wait_event(name, match, timeout=timeout, since=since)

    async def wait_runstate(self, *states: str, timeout: float = 60.0) -> str:  # noqa: ASYNC109
        """Wait until QEMU is in one of these states (QAPI: RunState); returns which.

        Raises:
            MonitorError: it was not in time, or QEMU ended.
        """
        from launcher.whereabouts import wait_runstate

        return await wait_runstate(self.monitor, states, timeout)

    async def whereabouts(self) -> list[str]:
        """Where the guest is, in lines: its runstate, its last events, and each vCPU."""
        from launcher.whereabouts import whereabouts

        lines = await whereabouts(self.monitor)
        code = self.process.poll()
        if code is not None:
            from launcher.process import describe_exit

            lines = [f"QEMU ended: {describe_exit(code)}", *self.process.stderr.lines[-5:], *lines]
        return lines

    async def snapshot(self) -> Snapshot:
        """Keep disks, RAM and devices as they are now, for `restore`; the guest goes on.

        Nothing is written to the machine's images: from the first snapshot on all that the guest
        writes goes to overlays in memory, which end with QEMU.

        Raises:
            CommandError: this QEMU cannot keep this machine's state, and says why.
        """
        from launcher.snapshot import snapshot

        return await snapshot(self)

    async def restore(self, kept: Snapshot) -> None:
        """Go back to a `snapshot` of this machine, and let the guest run from there.

        Raises:
            CommandError: QEMU could not.
        """
        from launcher.snapshot import restore

        await restore(self, kept)

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
            self.said(),
            self.monitor.commands - commands,
            self.monitor.bytes_sent - sent,
        )
        lock = self.prepared.loaded.lock
        if lock is not None:
            from launcher.locks.replay import judge_lock

            self.report = judge_lock(lock, self.report)
        return self.report

    async def resume(self) -> None:
        """Let the guest run (QMP cont)."""
        if self.plan.tool == "qemu-system":
            await self.monitor.execute("cont")

    async def pause(self) -> None:
        """Stop the guest's vCPUs until `resume` (QMP stop)."""
        await self.monitor.execute("stop")

    async def reset(self, timeout: float = 60.0) -> None:  # noqa: ASYNC109
        """Press the reset button (QMP system_reset), and wait until the guest has been reset.

        Raises:
            MonitorError: it was not in time, or QEMU ended.
        """
        before = self.events.mark()
        await self.monitor.execute("system_reset")
        await self.wait_event("RESET", timeout=timeout, since=before)

    async def powerdown(self, timeout: float = 60.0) -> int:  # noqa: ASYNC109
        """Press the power button (QMP system_powerdown), and wait until QEMU has ended.

        `stop(powerdown=True)` does so too, and goes on to harder means when the guest does not
        react. This is for who wants to know that it does.

        Returns:
            QEMU's exit status.

        Raises:
            LauncherError: it still runs; says where the guest is.
        """
        await self.monitor.execute("system_powerdown")
        try:
            return await self.process.wait(timeout)
        except TimeoutError:
            error = LauncherError(
                f"{self.plan.name} did not power down within {timeout:g} s",
                hint="the guest must run and heed an ACPI power button; stop() ends it anyway",
                code="powerdown",
            )
            lines = await self.whereabouts()
            error.evidence["guest"] = lines
            error.add_note("\n".join(lines))
            raise error from None

    async def migrate(
        self,
        destination: Machine,
        *,
        via: str = "unix",
        force: bool = False,
        on_progress: Callable[[Progress], None] | None = None,
        limits: Limits | None = None,
    ) -> Migration:
        """Move the guest to `destination`, a machine that waits for it, and end this one.

        See `launcher.incoming` for a machine that waits. Whatever happens, exactly one copy of the
        guest runs: on an error or a cancellation this one goes on and the destination is gone.

        Args:
            destination: started with `-incoming defer`.
            via: `unix`, `tcp`, `tcp:HOST:PORT`, `file`, `file:PATH` or `fd`.
            force: migrate although the preflight says that it would break.
            on_progress: called a few times a second.
            limits: deadlines.

        Raises:
            MigrationError: it was refused, or failed.
            InputError: the destination does not wait, or `via` is no transport.
        """
        from launcher.migrate import migrate

        return await migrate(
            self, destination, via=via, force=force, on_progress=on_progress, limits=limits
        )

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
        try:
            return await self.process.stop(
                powerdown=(lambda: self.monitor.execute("system_powerdown")) if asks else None,
                quit=self.monitor.quit,
                deadlines=replace(Deadlines(), powerdown=float(seconds)),
            )
        finally:
            self.monitor.listen_on()

    async def close(self) -> None:
        """End QEMU if it still runs, and undo everything that the launch acquired."""
        try:
            await self.stop()
        finally:
            for console in self.consoles.values():
                console.close()
            await self.monitor.close()
            self.resources.release()
