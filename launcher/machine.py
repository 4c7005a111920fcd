"""A running machine, as Python programs see it."""

from __future__ import annotations

from launcher.controls import Controls
from launcher.diagnose import said
from launcher.process import Deadlines
from launcher.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from launcher.begin import Started
    from launcher.capabilities import Capabilities
    from launcher.console import Console
    from launcher.faults import Faults
    from launcher.guest import Guest
    from launcher.guest.port import Port
    from launcher.migrate import Limits, Migration, Progress
    from launcher.monitor import Monitor
    from launcher.report import Report
    from launcher.snapshot import Snapshot


class Machine(Controls):
    """A running QEMU and what is known of it.

    Attributes:
        plan: what was decided.
        report: what was read back before the guest ran.
        process: the QEMU process.
        monitor: its QMP session.
        consoles: the launcher's own serial consoles, by chardev id.
    """

    def __init__(
        self,
        started: Started,
        monitor: Monitor,
        consoles: dict[str, Console],
        agent: Port | None = None,
    ) -> None:
        super().__init__(started.prepared.plan, started.process, monitor)
        self.prepared = started.prepared
        self.argv = started.argv
        self.resources = started.resources
        self.helpers = started.helpers
        self.consoles = consoles
        self.report: Report | None = None
        self.changing: Any = None  # the lock under which parts come and go
        self._first_plan = self.plan
        self._agent = agent
        self._guest: Guest | None = None
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

    @property
    def guest(self) -> Guest:
        """Commands and files in the guest, over its agent or its serial console's shell."""
        if self._guest is None:
            from launcher.guest import reach

            first = next(iter(self.consoles.values()), None)
            self._guest = reach(self._agent, first, self.process.wait)
        return self._guest

    async def plug(
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
        """Give the running machine parts, in a profile's shape: planned and proved as at start.

            await machine.plug(net={"type": "user", "id": "lan"})

        From then on `plan`, `report` and `verify` have them, too. On a q35 machine the device of a
        short form goes into a free pcie-root-port; another device needs its `bus`.

        Args:
            objects: by id, as all that follow.
            chardevs: with the words of -chardev.
            blockdevs: block nodes.
            netdevs: network backends.
            devices: each with its `bus` where QEMU needs one.
            disk: short form, one or a list.
            net: short form, one or a list.
            verify: `strict` or `warn`; by default what the profile says.

        Returns:
            What was read back of the new parts.

        Raises:
            InputError: something given is wrong, or can only be had at start.
            HostError: this host or binary cannot do it.
            CommandError: QEMU refused; what had been added before is gone again.
            VerdictError: under `strict`, a value is not as planned; says whether the part is gone.
        """
        from launcher.plug import plug

        given = {"objects": objects, "chardevs": chardevs, "blockdevs": blockdevs}
        given |= {"netdevs": netdevs, "devices": devices, "disk": disk, "net": net}
        return await plug(self, given, verify)

    async def unplug(self, *ids: str, backends: bool = True, timeout: float = 30.0) -> None:  # noqa: ASYNC109
        """Take parts away: devices, or backends that nobody uses.

        Args:
            ids: of devices; where there is no such device, of an object, chardev, block node or
                netdev.
            backends: also remove what then nobody uses any more.
            timeout: seconds for the guest to let go of a device.

        Raises:
            InputError: there is no such part, or others use it.
            UnplugError: the guest refuses, or did not let go in time: with PCI it must take part.
            CommandError: QEMU refused.
        """
        from launcher.plug import unplug

        await unplug(self, ids, backends, timeout)

    @property
    def changes(self) -> list[str]:
        """The parts that were plugged or unplugged since the start, such as `devices.nic1`."""
        from launcher.plan.addition import parts

        return sorted(parts(self._first_plan) ^ parts(self.plan))

    @property
    def faults(self) -> Faults:
        """What QEMU can do to a guest: a pulled cable, disk errors, machine checks."""
        from launcher.faults import Faults

        return Faults(self)

    async def screendump(self, path: str = "", *, device: str = "", head: int = 0) -> bytes:
        """A picture of the screen, as PNG.

        Args:
            path: of a file that gets it as well.
            device: whose display (QAPI: screendump); by default the first one.
            head: which of that device.

        Raises:
            CommandError: there is no display.
            HostError: the file cannot be written.
        """
        from launcher.screen import screendump

        return await screendump(self, path, device, head)

    async def send_key(self, keys: str, *, hold_time: int | None = None) -> None:
        """Press keys together: `await machine.send_key("ctrl-alt-delete")`.

        Args:
            keys: their names (QAPI: QKeyCode) with `-` between them.
            hold_time: milliseconds until they are let go; QEMU's default is 100.

        Raises:
            InputError: there is no such key.
        """
        from launcher.screen import send_key

        await send_key(self, keys, hold_time)

    async def type_text(self, text: str) -> None:
        """Type at the guest's keyboard (a US one), not at its console: see `Console.send_line`.

        Raises:
            InputError: a character has no key there; nothing was typed.
        """
        from launcher.screen import type_text

        await type_text(self, text)

    async def dump_guest_memory(
        self,
        path: str,
        *,
        format: str = "elf",  # noqa: A002 (QEMU's word)
        paging: bool = False,
        timeout: float = 300.0,  # noqa: ASYNC109
    ) -> int:
        """Write the guest's memory to a new file that only its owner may read; it stops meanwhile.

        Args:
            path: of a file that is not there.
            format: QAPI DumpGuestMemoryFormat.
            paging: follow the guest's page tables (then the format is always elf).
            timeout: seconds.

        Returns:
            The file's size in bytes.

        Raises:
            InputError: this QEMU has no such format.
            HostError: the file is there or cannot be made, or the disk has not the room.
            QEMUError: it failed; MonitorError: it was not done in time. No file stays.
        """
        from launcher.dump import dump_guest_memory

        return await dump_guest_memory(self, path, format, paging, timeout)

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
        troubles = [helper.trouble() for helper in self.helpers]
        self.report = judge(
            self.plan,
            seen,
            self.said(),
            self.monitor.commands - commands,
            self.monitor.bytes_sent - sent,
            tuple(trouble.message for trouble in troubles if trouble is not None),
        )
        lock = self.prepared.loaded.lock
        if lock is not None:
            from launcher.locks.replay import judge_lock

            self.report = judge_lock(lock, self.report)
        return self.report

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
            if self._agent is not None:
                self._agent.close()
            await self.monitor.close()
            self.resources.release()
