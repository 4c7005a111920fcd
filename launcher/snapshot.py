"""A running machine kept as it is, disks and RAM, and brought back: in QEMU and in memory only.

QEMU keeps a snapshot of a whole machine inside qcow2 images (QMP `snapshot-save`, since 6.0; HMP
`savevm` before). So the machine gets one more node for its RAM, which no device of the guest
sees, and before its first snapshot each disk that it may write to gets an overlay: the images of
the profile are not written to any more, whatever their format. All of these are memory files
(memfd): nothing has to be removed afterwards, not even when everything is killed.
"""

from __future__ import annotations

import os

from launcher.errors import CommandError, InputError, MonitorError
from launcher.plan.addition import parts
from launcher.record import record
from launcher.verify import OVERLAY, overlay_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Protocol

    from launcher.console import Console
    from launcher.monitor import Monitor
    from launcher.plan import Plan

    class Kept(Protocol):
        """A machine, as far as it is kept and brought back."""

        @property
        def plan(self) -> Plan:
            """What was decided."""
            ...

        @property
        def monitor(self) -> Monitor:
            """Its QMP session."""
            ...

        @property
        def consoles(self) -> dict[str, Console]:
            """Its consoles that we read."""
            ...

        async def qmp(
            self, command: str, arguments: Mapping[str, Any] | None = None, **more: Any
        ) -> Any:
            """Execute a QMP command."""
            ...


#: Seconds for a job, and for the state of a large machine.
_JOB, _STATE = 30.0, 300.0
_RAM_NODE = "launcher-snapshot"
_ENDED = ("concluded", "null")


@record
class Snapshot:
    """What `Machine.restore` goes back to; of one machine, and as long as it runs.

    Attributes:
        tag: QEMU's name of it.
        nodes: the block nodes that have a part of it, the one with the RAM first.
        running: whether the guest ran.
        parts: what the machine had then that can be plugged and unplugged; None is not known.
    """

    tag: str
    nodes: tuple[str, ...]
    running: bool
    parts: frozenset[str] | None = None


async def snapshot(machine: Kept, tag: str = "") -> Snapshot:
    """Keep the machine as it is now; see `Machine.snapshot`.

    Args:
        machine: a machine, or one that was found again.
        tag: QEMU's name of it; by default a number of this session.

    Raises:
        CommandError: QEMU cannot.
    """
    running = bool((await machine.qmp("query-status"))["running"])
    nodes = await _nodes(machine)
    if running:
        await machine.qmp("stop")
    had = frozenset(parts(machine.plan))
    kept = Snapshot(tag or f"launcher-{machine.monitor.commands}", nodes, running, had)
    try:
        await _whole(machine, "snapshot-save", "savevm", kept)
    finally:
        if running:
            await machine.qmp("cont")
    return kept


async def restore(machine: Kept, kept: Snapshot) -> None:
    """Go back to a snapshot; see `Machine.restore`.

    Raises:
        CommandError: QEMU could not.
        InputError: the machine has not the same parts as then.
    """
    had = parts(machine.plan)
    other = had ^ (had if kept.parts is None else kept.parts)
    if other:
        # QEMU would load what it finds, and leave the rest as it is.
        raise InputError(
            f"{', '.join(sorted(other))}: plugged or unplugged since the snapshot",
            hint="undo that first: a snapshot is of the machine as it was",
            code="snapshot",
        )
    await machine.qmp("stop")
    await _whole(machine, "snapshot-load", "loadvm", kept)
    for console in machine.consoles.values():
        console.forget()
    if kept.running:
        await machine.qmp("cont")


async def _whole(machine: Kept, command: str, hmp: str, kept: Snapshot) -> None:
    """Save or load all of the machine.

    With capabilities of a migration switched off: a snapshot is a migration to QEMU's code, and
    one with multifd would look for channels that are not there.
    """
    answers = await machine.qmp("query-migrate-capabilities")
    on = [answer["capability"] for answer in answers if answer["state"]]
    await _switch(machine, on, state=False)
    try:
        if await _has(machine, command):
            wanted = {"tag": kept.tag, "vmstate": kept.nodes[0], "devices": list(kept.nodes)}
            await _job(machine, command, wanted, _STATE)
        else:
            said = await machine.monitor.execute(
                "human-monitor-command", {"command-line": f"{hmp} {kept.tag}"}, timeout=_STATE
            )
            if said:
                raise CommandError(f"{hmp}: {said.strip()}", evidence={"command": hmp})
    finally:
        await _switch(machine, on, state=True)


async def _has(machine: Kept, command: str) -> bool:
    return any(c["name"] == command for c in await machine.qmp("query-commands"))


async def _switch(machine: Kept, names: list[str], *, state: bool) -> None:
    if names:
        capabilities = [{"capability": name, "state": state} for name in names]
        await machine.qmp("migrate-set-capabilities", capabilities=capabilities)


async def _nodes(machine: Kept) -> tuple[str, ...]:
    """The nodes that take a snapshot; made before the first one."""
    names = {node["node-name"] for node in await machine.qmp("query-named-block-nodes")}
    if _RAM_NODE not in names:
        await _make_node(machine, _RAM_NODE, 1 << 20)
    for device in await machine.qmp("query-block"):
        disk = device.get("inserted")
        # Also those that were plugged since an earlier snapshot.
        if disk is None or disk["ro"] or disk["node-name"].startswith(OVERLAY):
            continue
        await _overlay(machine, disk["node-name"], disk["image"]["virtual-size"])
    return (_RAM_NODE, *(name for name in await _overlays(machine)))


async def _overlays(machine: Kept) -> list[str]:
    found = await machine.qmp("query-block")
    nodes = (device["inserted"]["node-name"] for device in found if device.get("inserted"))
    return [name for name in nodes if name.startswith(OVERLAY)]


async def forget_overlay(machine: Kept, node: str) -> None:
    """Remove what a snapshot laid over a block node that no device shows any more."""
    name = overlay_name(node)
    for one in (name, _file_name(name)):
        if any(n["node-name"] == one for n in await machine.qmp("query-named-block-nodes")):
            await machine.qmp("blockdev-del", {"node-name": one})


async def _overlay(machine: Kept, node: str, size: int) -> None:
    name = overlay_name(node)
    await _make_node(machine, name, size, {"backing": None})
    await machine.qmp("blockdev-snapshot", node=node, overlay=name)


def _file_name(name: str) -> str:
    return f"{name[:26]}-file"


async def _make_node(
    machine: Kept, name: str, size: int, more: dict[str, Any] | None = None
) -> None:
    """A qcow2 node in a memory file that only QEMU holds."""
    fd = os.memfd_create(name)
    try:
        file = _file_name(name)
        path = f"/proc/{os.getpid()}/fd/{fd}"
        opened = {"driver": "file", "node-name": file, "filename": path}
        await machine.qmp("blockdev-add", opened)
    finally:
        os.close(fd)
    options = {"driver": "qcow2", "file": file, "size": size}
    await _job(machine, "blockdev-create", {"options": options}, _JOB)
    await machine.qmp(
        "blockdev-add", {"driver": "qcow2", "node-name": name, "file": file, **(more or {})}
    )


async def _job(machine: Kept, command: str, arguments: dict[str, Any], seconds: float) -> None:
    """Run a job to its end.

    Raises:
        CommandError: it failed; MonitorError: it did not end.
    """
    mark = machine.monitor.mark()
    name = f"launcher-{machine.monitor.commands}"
    await machine.qmp(command, {"job-id": name, **arguments})
    await machine.monitor.wait_event(
        "JOB_STATUS_CHANGE",
        lambda e: e.data.get("id") == name and e.data.get("status") in _ENDED,
        timeout=seconds,
        since=mark,
    )
    for job in await machine.qmp("query-jobs"):
        if job["id"] == name:
            await machine.qmp("job-dismiss", id=name)
            if "error" in job:
                raise CommandError(f"{command}: {job['error']}", evidence={"command": command})
            return
    raise MonitorError(f"{command}: the job is gone", evidence={"command": command})
