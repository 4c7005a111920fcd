"""Talking to a QEMU that runs, and the buttons of its machine."""

from __future__ import annotations

from launcher.errors import LauncherError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping
    from typing import Any

    from launcher.monitor import Event, Events, Monitor
    from launcher.plan import Plan
    from launcher.process import Process


class Controls:
    """The part of a `Machine` that needs nothing but its monitor and its process.

    Attributes:
        plan: what was decided.
        process: the QEMU process.
        monitor: its QMP session.
    """

    def __init__(self, plan: Plan, process: Process, monitor: Monitor) -> None:
        self.plan = plan
        self.process = process
        self.monitor = monitor

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
