"""A machine kept as it is, and brought back, for as long as it runs (see `launcher.snapshot`)."""

from __future__ import annotations

from launcher.errors import InputError
from launcher.rejoined import rejoined
from launcher.snapshot import Snapshot
from launcher.snapshot import restore as bring_back
from launcher.snapshot import snapshot as keep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from launcher.agent.verbs.work import Work

_KIND = "snapshot"
#: Of one machine: each holds as much memory as its guest has.
_MOST = 8


async def snapshot(work: Work) -> dict[str, Any]:
    """Keep disks, RAM and devices as they are now, under a name."""
    work.refuse_again()
    work.refuse_unsettled()
    name, tag, journal = work.name, work.arguments["tag"], work.machines.journal
    kept = journal.paper_keys(name, _KIND)
    if tag in kept:
        raise InputError(f"{name} has a snapshot {tag} already", code="conflict")
    if len(kept) >= _MOST:
        raise InputError(f"{name} has {len(kept)} snapshots, and no more are kept", code="room")
    async with rejoined(work.machines.find(name)) as machine:
        made = await keep(machine, f"agent-{tag}")
    content = {"tag": made.tag, "nodes": list(made.nodes), "running": made.running}
    journal.keep_paper(name, _KIND, tag, content)
    return {"name": name, "tag": tag, "changed": True, "tags": sorted([*kept, tag])}


async def restore(work: Work) -> dict[str, Any]:
    """Go back to a snapshot."""
    work.refuse_again()
    work.refuse_unsettled()
    name, tag, journal = work.name, work.arguments["tag"], work.machines.journal
    machine = work.machines.find(name)
    content = journal.paper(name, _KIND, tag)
    if content is None:
        has = ", ".join(journal.paper_keys(name, _KIND)) or "none"
        raise InputError(f"{name} has no snapshot {tag}", hint=f"it has: {has}", code="absent")
    kept = Snapshot(content["tag"], tuple(content["nodes"]), content["running"])
    async with rejoined(machine) as found:
        await bring_back(found, kept)
    work.machines.set_wanted(name, "running" if kept.running else "paused")
    return {"name": name, "tag": tag, "changed": True}
