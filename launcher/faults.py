"""What QEMU itself can do to a guest: `machine.faults`.

Nothing here is undone by itself. A fault that changes what was planned shows as a mismatch in
`Machine.verify` as long as it lasts: a disk behind blkdebug is not the disk that was planned.
"""

from __future__ import annotations

import asyncio

from launcher.errors import CommandError, HostError, InputError, InputErrors, LauncherError, Place
from launcher.nodes import from_python
from launcher.qapi import Checker, suggest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from launcher.machine import Machine

#: How the nodes begin that stand between a device and its disk.
_NODE = "launcher-fault-"
_PERIPHERAL = "/machine/peripheral/"
#: Limits that block_set_io_throttle wants in any case (QAPI: BlockIOThrottle).
_LIMITS = ("bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr")
#: Uncorrected, enabled, valid, its address and its further words valid; and the CPU is in a
#: machine check from which it could go on (Intel SDM 3B, 16.3: IA32_MCi_STATUS, IA32_MCG_STATUS).
_UNCORRECTED = 0xBE00000000000000 | 0x134  # a data cache read error
_IN_PROGRESS = 0x5
_BANK = 9


class Faults:
    """Faults of one machine.

    Args:
        machine: in which they are.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    # -- network ------------------------------------------------------------------------------

    async def link(self, name: str, *, up: bool) -> None:
        """Pull a network cable, or put it back (QMP set_link).

        Args:
            name: id of a network device, or of its netdev.
            up: whether there is a link.

        Raises:
            CommandError: there is no such device.
        """
        await self._machine.monitor.execute("set_link", {"name": name, "up": up})

    # -- disks --------------------------------------------------------------------------------

    async def inject_error(self, device: str, *rules: dict[str, Any], **rule: Any) -> None:
        """Have a disk's requests fail from now on (QEMU's blkdebug), until `end_errors`.

            await machine.faults.inject_error("disk0-dev", iotype="write", errno=5)

        Args:
            device: id of the device.
            rules: QAPI BlkdebugInjectErrorOptions each; `event` is `none` unless it is given:
                all requests.
            rule: one rule more, `_` written for `-`.

        Raises:
            InputError: there is no such disk, or a rule is wrong.
            HostError: this QEMU cannot put anything between a device and its disk while it runs
                (before 6.1): write blkdebug into the profile's blockdevs.
            CommandError: QEMU refused.
        """
        given = [*rules, *([{k.replace("_", "-"): v for k, v in rule.items()}] if rule else [])]
        if not given:
            raise InputError("no rule was given", hint='for instance iotype="write", errno=5')
        node = await self._node_of(device)
        if node.startswith(_NODE):
            raise InputError(f"{device} has errors already", hint="end_errors first", code="fault")
        name = f"{_NODE}{device}"[:31]  # names of nodes have at most 31 characters (block.h)
        wanted = {
            "driver": "blkdebug",
            "node-name": name,
            "image": node,
            "inject-error": [{"event": "none", **one} for one in given],
        }
        self._check("blockdev-add", wanted)
        monitor = self._machine.monitor
        await monitor.execute("blockdev-add", wanted)
        try:
            await self._switch(device, name)
        except BaseException:
            await monitor.execute("blockdev-del", {"node-name": name})
            raise

    async def end_errors(self, device: str) -> None:
        """Give a device its disk back.

        Raises:
            InputError: it has no errors.
        """
        name = await self._node_of(device)
        if not name.startswith(_NODE):
            raise InputError(f"{device} has no errors that could end", code="fault")
        await self._switch(device, await self._below(name))
        await self._machine.monitor.execute("blockdev-del", {"node-name": name})

    async def throttle(self, device: str, **limits: int) -> None:
        """Slow a disk down (QMP block_set_io_throttle); without limits it is as fast as it was.

        Args:
            device: id of the device.
            limits: QAPI BlockIOThrottle: `iops=10`, `bps_wr=1 << 20`, …

        Raises:
            InputError: there is no such disk, or no such limit.
            CommandError: QEMU refused.
        """
        block = await self._block_of(device)
        wanted: dict[str, Any] = {"id": block["qdev"], **dict.fromkeys(_LIMITS, 0), **limits}
        self._check("block_set_io_throttle", wanted)
        await self._machine.monitor.execute("block_set_io_throttle", wanted)

    async def _switch(self, device: str, node: str) -> None:
        wanted = {"path": f"{_PERIPHERAL}{device}", "property": "drive", "value": node}
        try:
            await self._machine.monitor.execute("qom-set", wanted)
        except CommandError as error:
            if "after it was realized" not in error.message:
                raise
            raise HostError(
                f"QEMU {self._machine.plan.version} cannot put anything between a device and its "
                "disk while it runs",
                hint="write blkdebug into the profile: `{driver: blkdebug, image: …, "
                "inject-error: […]}`; QEMU 6.1 and later can do it at any time",
                evidence=error.evidence,
                code="fault",
            ) from None

    async def _node_of(self, device: str) -> str:
        return str((await self._block_of(device))["inserted"]["node-name"])

    async def _block_of(self, device: str) -> dict[str, Any]:
        """What query-block says of a device with a medium.

        Raises:
            InputError: there is none.
        """
        path = f"{_PERIPHERAL}{device}"
        blocks: list[dict[str, Any]] = await self._machine.monitor.execute("query-block")
        known = {str(b.get("qdev", "")): b for b in blocks if b.get("inserted")}
        for qdev, block in known.items():
            # Its id, or the path of the device inside it (block-backend.c).
            if qdev in (device, path) or qdev.startswith(f"{path}/"):
                return block
        names = [q.removeprefix(_PERIPHERAL).partition("/")[0] for q in known if q]
        hint = suggest(device, names)
        raise InputError(f"there is no disk {device!r}", hint=hint, code="absent")

    async def _below(self, name: str) -> str:
        """The node behind a blkdebug of ours."""
        graph = await self._machine.monitor.execute("x-debug-query-block-graph")
        ids = {
            node["name"]: node["id"] for node in graph["nodes"] if node["type"] == "block-driver"
        }
        names = {number: node for node, number in ids.items()}
        found: str = next(
            names[e["child"]]
            for e in graph["edges"]
            if e["parent"] == ids[name] and e["name"] == "image"
        )
        return found

    # -- processor ----------------------------------------------------------------------------

    async def nmi(self) -> None:
        """Send the guest a non-maskable interrupt (QMP inject-nmi).

        Raises:
            CommandError: this machine has none.
        """
        await self._machine.monitor.execute("inject-nmi")

    async def machine_check(
        self,
        cpu: int = 0,
        *,
        bank: int = _BANK,
        status: int = _UNCORRECTED,
        mcg_status: int = _IN_PROGRESS,
        address: int = 0,
        misc: int = 0,
        broadcast: bool = False,
    ) -> None:
        """Tell the guest of an error of its hardware (HMP `mce`; x86 only).

        By default an uncorrected memory error in a read, at `address`. What the guest makes of it
        is its own affair: a guest that has not switched machine checks on ends in a triple fault,
        which is a reset.

        Args:
            cpu: index of the vCPU.
            bank: number of the bank.
            status: of the bank.
            mcg_status: of the vCPU.
            address: in the guest's memory.
            misc: further words of the bank.
            broadcast: to all vCPUs.

        Raises:
            InputError: there is no such vCPU.
            CommandError: QEMU refused: the vCPU has no such bank.
        """
        cpus = await self._machine.monitor.execute("query-cpus-fast")
        if cpu not in [one["cpu-index"] for one in cpus]:
            # QEMU would say nothing, and do nothing.
            raise InputError(f"there is no vCPU {cpu}", hint=f"there are {len(cpus)}", code="fault")
        numbers = " ".join(f"{n:#x}" for n in (status, mcg_status, address, misc))
        line = f"mce {'-b ' if broadcast else ''}{cpu} {bank} {numbers}"
        said = await self._machine.qmp("human-monitor-command", {"command-line": line})
        # What it says of a guest that goes down by it is no refusal.
        if said.strip() and "raising triple fault" not in said:
            raise CommandError(f"mce: {said.strip()}", evidence={"command": line})

    async def pcie_error(self, device: str, error: str) -> None:
        """Have a PCIe device report an error (HMP pcie_aer_inject_error).

        Args:
            device: id of a device with Advanced Error Reporting: a pcie-root-port has it.
            error: its name, such as `DLP`, `COMP_TIMEOUT`, `BAD_TLP`, or its status in hexadecimal.

        Raises:
            CommandError: QEMU refused.
        """
        if not all(c.isalnum() or c in "._-" for c in device + error):
            raise InputError(f"{device!r} {error!r} are not a device and an error", code="fault")
        line = f"pcie_aer_inject_error {device} {error}"
        said = await self._machine.qmp("human-monitor-command", {"command-line": line})
        if not said.startswith("OK"):
            raise CommandError(f"pcie_aer_inject_error: {said.strip()}", evidence={"command": line})

    # -- time ---------------------------------------------------------------------------------

    async def gap(self, seconds: float) -> None:
        """Let the guest miss some time, as a suspended host or a long pause does: stop, wait, cont.

        Its timers stand still meanwhile, and a real-time clock of the host's (`rtc: {clock: host}`,
        QEMU's default) goes on. QEMU has no command that sets a guest's clock.

        Raises:
            MonitorError: QEMU did not answer.
        """
        await self._machine.monitor.execute("stop")
        try:
            await asyncio.sleep(seconds)
        finally:
            await self._machine.monitor.execute("cont")

    def _check(self, command: str, arguments: dict[str, Any]) -> None:
        """Refuse what the binary's schema does not know.

        Raises:
            InputErrors: with every mistake.
        """
        schema = self._machine.prepared.capabilities.schema
        root = schema.argument_type(command)
        if root is None:
            version = self._machine.plan.version
            raise LauncherError(f"QEMU {version} has no {command}", code="fault")
        checker = Checker(schema)
        checker.check(root, from_python(arguments, Place("<fault>")), command, command)
        if checker.mistakes:
            raise InputErrors(checker.mistakes)
