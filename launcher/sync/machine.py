"""A running machine and its consoles, as programs without asyncio see them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Container, Iterator, Mapping
    from types import TracebackType
    from typing import Any, Self

    from launcher import console, machine, monitor
    from launcher.migrate import Limits, Migration, Progress
    from launcher.plan import Plan
    from launcher.process import Process
    from launcher.report import Report
    from launcher.snapshot import Snapshot
    from launcher.sync.guest import Guest
    from launcher.sync.thread import Caller


class Console:
    """A serial console; see `launcher.console.Console`."""

    def __init__(self, inner: console.Console, thread: Caller) -> None:
        self._inner = inner
        self._thread = thread

    @property
    def text(self) -> str:
        """What the guest wrote and is still kept."""
        return self._thread.do(lambda: self._inner.text)

    @property
    def dropped(self) -> int:
        """Characters that no longer are in memory."""
        return self._inner.dropped

    @property
    def closed(self) -> bool:
        """Whether the machine closed it, or we did."""
        return self._inner.closed

    def read(self) -> str:
        """What came since the last `read` or `expect`, without waiting."""
        return self._thread.do(self._inner.read)

    def forget(self) -> None:
        """Drop what is kept: from now on only what the guest writes from now on counts."""
        self._thread.do(self._inner.forget)

    def listen(self, callback: Callable[[bytes], None]) -> Callable[[], None]:
        """Call `callback` with every piece of output from now on, in the launcher's thread.

        Returns:
            What ends that.
        """
        return self._thread.do(self._inner.listen, callback)

    def wait_for(self, pattern: str, timeout: float = 60.0) -> str:
        """Wait until the console shows `pattern`, a regular expression; returns what matched.

        Output that came before the call counts, as far as it is still kept.

        Raises:
            LauncherError: it did not come in time, or the machine ended.
        """
        return self._thread.call(self._inner.wait_for(pattern, timeout))

    def expect(self, pattern: str, timeout: float = 60.0) -> re.Match[str]:
        """Wait for `pattern`, a regular expression, in what was not read or expected yet.

        Raises:
            LauncherError: as `wait_for`.
        """
        return self._thread.call(self._inner.expect(pattern, timeout))

    def send_line(self, line: str) -> None:
        """Type `line` and press return."""
        self._thread.call(self._inner.send_line(line))

    def write(self, data: bytes | str) -> None:
        """Type `data` at the guest's console."""
        self._thread.call(self._inner.write(data))

    def wait_closed(self, timeout: float | None) -> None:
        """Wait until all that the guest wrote has been read, or for `timeout` seconds."""
        self._thread.call(self._inner.wait_closed(timeout))

    def close(self) -> None:
        """Stop reading; waiting `wait_for`s end. May be repeated."""
        self._thread.do(self._inner.close)


class Events:
    """A machine's events; see `launcher.monitor.Events`. Iterating waits for the next one."""

    def __init__(self, inner: monitor.Events, thread: Caller) -> None:
        self._inner = inner
        self._thread = thread

    def __call__(self, *names: str, since: int | None = None) -> Events:
        """Only these names (QAPI), and only those after `since`, a `mark`."""
        return Events(self._inner(*names, since=since), self._thread)

    def mark(self) -> int:
        """The number of the last event so far."""
        return self._inner.mark()

    @property
    def history(self) -> list[monitor.Event]:
        """What came so far, oldest first."""
        return self._thread.do(lambda: self._inner.history)

    @property
    def dropped(self) -> dict[str, int]:
        """Name → how many were over their budget and were not looked at."""
        return self._thread.do(lambda: self._inner.dropped)

    def __iter__(self) -> Iterator[monitor.Event]:
        events = self._thread.do(self._inner.__aiter__)

        async def following() -> monitor.Event | None:
            return await anext(events, None)

        async def closing() -> None:
            await events.aclose()

        try:
            while (event := self._thread.call(following())) is not None:
                yield event
        finally:
            self._thread.call(closing())


class Machine:
    """A running QEMU; see `launcher.Machine`.

    Attributes:
        inner: the machine of the asyncio face; it lives in the launcher's thread.
    """

    def __init__(self, inner: machine.Machine, thread: Caller) -> None:
        self.inner = inner
        self._thread = thread
        self.consoles = {name: Console(c, thread) for name, c in inner.consoles.items()}

    @property
    def plan(self) -> Plan:
        """What was decided."""
        return self.inner.plan

    @property
    def argv(self) -> list[str]:
        """QEMU's command line."""
        return self.inner.argv

    @property
    def report(self) -> Report | None:
        """What was read back before the guest ran, or by the last `verify`."""
        return self.inner.report

    @property
    def process(self) -> Process:
        """The QEMU process, to look at: its methods belong to the launcher's thread."""
        return self.inner.process

    @property
    def console(self) -> Console:
        """The first serial console.

        Raises:
            LookupError: the profile has no `serial: console`.
        """
        first = self.inner.console
        return next(c for c in self.consoles.values() if c._inner is first)

    @property
    def guest(self) -> Guest:
        """Commands and files in the guest, over its agent or its serial console's shell."""
        from launcher.sync.guest import Guest

        return Guest(self.inner.guest, self._thread)

    def qmp(self, command: str, arguments: Mapping[str, Any] | None = None, **more: Any) -> Any:
        """Execute a QMP command: `machine.qmp("query-status")`.

        Args:
            command: its QAPI name.
            arguments: by QAPI name.
            more: further arguments, `_` written for `-`.

        Raises:
            CommandError: QEMU answered with an error.
            MonitorError: it did not answer.
        """
        return self._thread.call(self.inner.qmp(command, arguments, **more))

    @property
    def events(self) -> Events:
        """What QEMU told so far and will tell: `for event in machine.events("STOP")`."""
        return Events(self.inner.events, self._thread)

    def wait_event(
        self,
        name: str | Container[str],
        match: Callable[[monitor.Event], bool] | None = None,
        *,
        timeout: float = 60.0,
        since: int = 0,
    ) -> monitor.Event:
        """The first event of that name, also when it came before the call.

        Raises:
            MonitorError: it did not come in time, or QEMU ended without it.
        """
        return self._thread.call(self.inner.wait_event(name, match, timeout=timeout, since=since))

    def wait_runstate(self, *states: str, timeout: float = 60.0) -> str:
        """Wait until QEMU is in one of these states (QAPI: RunState); returns which.

        Raises:
            MonitorError: it was not in time, or QEMU ended.
        """
        return self._thread.call(self.inner.wait_runstate(*states, timeout=timeout))

    def whereabouts(self) -> list[str]:
        """Where the guest is, in lines: its runstate, its last events, and each vCPU."""
        return self._thread.call(self.inner.whereabouts())

    def snapshot(self) -> Snapshot:
        """Keep disks, RAM and devices as they are now, for `restore`; the guest goes on.

        Raises:
            CommandError: this QEMU cannot keep this machine's state, and says why.
        """
        return self._thread.call(self.inner.snapshot())

    def restore(self, kept: Snapshot) -> None:
        """Go back to a `snapshot` of this machine, and let the guest run from there.

        Raises:
            CommandError: QEMU could not.
        """
        self._thread.call(self.inner.restore(kept))

    def verify(self) -> Report:
        """Read every planned value back, now.

        Raises:
            MonitorError: QEMU did not answer.
        """
        return self._thread.call(self.inner.verify())

    def resume(self) -> None:
        """Let the guest run (QMP cont)."""
        self._thread.call(self.inner.resume())

    def pause(self) -> None:
        """Stop the guest's vCPUs until `resume` (QMP stop)."""
        self._thread.call(self.inner.pause())

    def reset(self, timeout: float = 60.0) -> None:
        """Press the reset button; as `launcher.Machine.reset`."""
        self._thread.call(self.inner.reset(timeout))

    def powerdown(self, timeout: float = 60.0) -> int:
        """Press the power button, and wait for the end; as `launcher.Machine.powerdown`."""
        return self._thread.call(self.inner.powerdown(timeout))

    def migrate(
        self,
        destination: Machine,
        *,
        via: str = "unix",
        force: bool = False,
        on_progress: Callable[[Progress], None] | None = None,
        limits: Limits | None = None,
    ) -> Migration:
        """Move the guest to `destination`, a machine that waits for it, and end this one.

        Args:
            destination: started with `launcher.sync.incoming`.
            via: `unix`, `tcp`, `tcp:HOST:PORT`, `file`, `file:PATH` or `fd`.
            force: migrate although the preflight says that it would break.
            on_progress: called a few times a second, in the launcher's thread.
            limits: deadlines.

        Raises:
            MigrationError: it was refused, or failed.
            InputError: the destination does not wait, or `via` is no transport.
        """
        moving = self.inner.migrate(
            destination.inner, via=via, force=force, on_progress=on_progress, limits=limits
        )
        return self._thread.call(moving)

    def wait(self, timeout: float | None = None) -> int:
        """Wait until QEMU ends; its exit status, negative for a signal.

        Raises:
            TimeoutError: it still runs.
        """
        return self._thread.call(self.inner.wait(timeout))

    def stop(self, *, powerdown: bool = False) -> str:
        """End the machine: powerdown (when asked for), quit, SIGTERM, SIGKILL.

        Returns:
            The rung that worked.
        """
        return self._thread.call(self.inner.stop(powerdown=powerdown))

    def close(self) -> None:
        """End QEMU if it still runs, and undo everything that the launch acquired."""
        self._thread.call(self.inner.close())
        self._thread.not_at_end(self.inner)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
