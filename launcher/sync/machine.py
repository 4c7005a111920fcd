"""A running machine, as programs without asyncio see it."""

from __future__ import annotations

from launcher.sync.console import Console, Events
from launcher.sync.faults import Faults

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping
    from types import TracebackType
    from typing import Any, Self

    from launcher import machine, monitor
    from launcher.capabilities import Capabilities
    from launcher.migrate import Limits, Migration, Progress
    from launcher.plan import Plan
    from launcher.process import Process
    from launcher.report import Report
    from launcher.snapshot import Snapshot
    from launcher.sync.guest import Guest
    from launcher.sync.thread import Caller


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
    def capabilities(self) -> Capabilities:
        """What the binary can do."""
        return self.inner.capabilities

    @property
    def folder(self) -> str:
        """Its runtime directory; empty when it has none."""
        return self.inner.folder

    def said(self) -> list[str]:
        """What QEMU said on stderr so far."""
        return self._thread.do(self.inner.said)

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

    def plug(
        self,
        *,
        objects: Mapping[str, Any] | None = None,
        chardevs: Mapping[str, Any] | None = None,
        blockdevs: Mapping[str, Any] | None = None,
        netdevs: Mapping[str, Any] | None = None,
        devices: Mapping[str, Any] | None = None,
        disk: Any = None,
        net: Any = None,
        verify: str | None = None,
    ) -> Report:
        """Give the running machine parts, planned and proved; as `launcher.Machine.plug`."""
        return self._thread.call(
            self.inner.plug(
                objects=objects,
                chardevs=chardevs,
                blockdevs=blockdevs,
                netdevs=netdevs,
                devices=devices,
                disk=disk,
                net=net,
                verify=verify,
            )
        )

    def unplug(self, *ids: str, backends: bool = True, timeout: float = 30.0) -> None:
        """Take parts away; as `launcher.Machine.unplug`."""
        self._thread.call(self.inner.unplug(*ids, backends=backends, timeout=timeout))

    @property
    def changes(self) -> list[str]:
        """The parts that were plugged or unplugged since the start, such as `devices.nic1`."""
        return self._thread.do(lambda: self.inner.changes)

    @property
    def faults(self) -> Faults:
        """What QEMU can do to a guest: a pulled cable, disk errors, machine checks."""
        return Faults(self.inner.faults, self._thread)

    def screendump(self, path: str = "", *, device: str = "", head: int = 0) -> bytes:
        """A picture of the screen, as PNG; as `launcher.Machine.screendump`."""
        return self._thread.call(self.inner.screendump(path, device=device, head=head))

    def send_key(self, keys: str, *, hold_time: int | None = None) -> None:
        """Press keys together: `machine.send_key("ctrl-alt-delete")`.

        Raises:
            InputError: there is no such key.
        """
        self._thread.call(self.inner.send_key(keys, hold_time=hold_time))

    def type_text(self, text: str) -> None:
        """Type at the guest's keyboard; as `launcher.Machine.type_text`."""
        self._thread.call(self.inner.type_text(text))

    def dump_guest_memory(
        self,
        path: str,
        *,
        format: str = "elf",  # noqa: A002 (QEMU's word)
        paging: bool = False,
        timeout: float = 300.0,
    ) -> int:
        """Write the guest's memory to a new file; as `launcher.Machine.dump_guest_memory`."""
        return self._thread.call(
            self.inner.dump_guest_memory(path, format=format, paging=paging, timeout=timeout)
        )

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
