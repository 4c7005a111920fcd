"""This host's end of a migration, as the preflight looks at it."""

from __future__ import annotations

import os
from contextlib import suppress

from launcher.agent.machines import LOCK
from launcher.ends import blockers, end_of, held_states, planned_end, ram_blocks, unnamed
from launcher.incoming import waiting_plan
from launcher.preflight import side_as_json, side_from_json
from launcher.preflight.options import as_words
from launcher.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from launcher.agent.journal import Owned
    from launcher.agent.machines import Machines
    from launcher.machine import Machine
    from launcher.plan import Plan
    from launcher.preflight import Side
    from launcher.prepare import Prepared
    from launcher.rejoined import Rejoined

_SIDE = "side"


async def keep_side(machines: Machines, prepared: Prepared) -> None:
    """Keep what is known of a machine when it starts: later its profile may be another."""
    name = prepared.plan.name
    shown = await machines.planner.aside(lambda: side_as_json(_planned(prepared)))
    if name in machines.owned:
        machines.journal.keep_paper(name, _SIDE, "", shown)


def _planned(prepared: Prepared) -> Side:
    # The guest keeps its UUID on its way: neither end draws one.
    plan = prepared.plan
    side = replace(planned_end(prepared), draws_uuid=False, images=_images(plan))
    return replace(side, held=held_states(plan))


def _images(plan: Plan) -> dict[str, str]:
    """Which files the guest's writable disks are, by block node.

    Told by inode, which is one for all hosts that share a file system (NFS, CephFS, GFS2 and so
    on), where device numbers are each host's own. A copy of what is only read may lie anywhere.
    """
    found: dict[str, str] = {}
    for option in plan.options:
        if option.name.lstrip("-") != "blockdev":
            continue
        node: Any = {"driver": option.head, **option.members}
        key = str(node.get("node-name", ""))
        while isinstance(node, dict) and as_words(node.get("read-only")) != "on":
            if node.get("driver") == "file":
                with suppress(OSError):
                    found[key] = _file(str(node.get("filename")))
            node = node.get("file")
    return found


def _file(path: str) -> str:
    try:
        return f"inode {os.stat(path).st_ino}"
    except FileNotFoundError:
        return "absent"


async def source_side(machines: Machines, owned: Owned, source: Rejoined) -> Side:
    """The end that a guest leaves: as it was started, with what QEMU says now.

    Raises:
        LauncherError: it is not known, or QEMU does not answer.
    """
    kept = machines.journal.paper(owned.name, _SIDE)
    if kept is None:
        assert owned.request is not None
        locked = owned.request.get("locked")
        lock = machines.journal.paper(owned.name, LOCK) if locked else None
        prepared = await machines.planner.prepare(owned.request, lock)
        side = await machines.planner.aside(lambda: _planned(prepared))
    else:
        side = side_from_json(kept, "this host")
    ram = await ram_blocks(source.monitor, source.capabilities)
    return replace(side, ram=ram, blockers=await blockers(source.monitor))


async def planned_side(machines: Machines, prepared: Prepared, uuid: str) -> dict[str, Any]:
    """The end that would take a guest, which is not started; as JSON."""
    waiting = prepared.with_plan(waiting_plan(prepared.plan, uuid))
    return await machines.planner.aside(lambda: side_as_json(_planned(waiting)))


async def waiting_side(machine: Machine) -> dict[str, Any]:
    """The end that waits for a guest; as JSON.

    Raises:
        MonitorError: QEMU did not answer.
    """
    side = unnamed(machine.prepared, await end_of(machine))
    images = _images(machine.plan)
    return side_as_json(replace(side, draws_uuid=False, images=images))
