"""Start a machine; plan and lock one that is not to stay."""

from __future__ import annotations

import time

from launcher.agent.digest import digest_of
from launcher.agent.journal import Owned
from launcher.agent.machines import LOCK
from launcher.agent.moves.sides import keep_side
from launcher.agent.policy import machine_size
from launcher.errors import HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from launcher.agent.verbs.work import Work
    from launcher.prepare import Prepared


async def start(work: Work) -> dict[str, Any]:
    """Start a machine, prove it, let the guest run; the same one again is no error."""
    prepared = await work.machines.planner.prepare(work.arguments)
    plan = prepared.plan
    digest, owned = digest_of(plan), work.machines.owned.get(plan.name)
    if owned is not None:
        answer = _running(work, owned, digest)
        _keep_lock(work, prepared)  # an agent that was killed in between did not
        return answer
    memory, cpus = machine_size(plan)
    work.machines.check_room(plan.name, memory, cpus)
    profile = work.arguments["profile"]
    owned = Owned(
        name=plan.name,
        uuid=plan.uuid,
        digest=digest,
        wanted="running",
        phase="starting",
        since=time.time(),
        memory=memory,
        cpus=cpus,
        profile=profile if isinstance(profile, str) else "",
        platform=plan.platform,
        command=work.command.id,
        request=work.arguments,
    )
    await work.machines.start(prepared, owned, work.arguments.get("verify"))
    _keep_lock(work, prepared)
    work.moves.start(keep_side(work.machines, prepared))
    return {"changed": True, **work.machines.state(plan.name)}


def _keep_lock(work: Work, prepared: Prepared) -> None:
    """Keep what a machine was locked to, as it was when it started: the file may change."""
    lock, name = prepared.loaded.lock, prepared.plan.name
    if lock is not None and work.machines.journal.paper(name, LOCK) is None:
        work.machines.keep_lock(name, lock.document)


def _running(work: Work, owned: Owned, digest: str) -> dict[str, Any]:
    """What `start` says of a machine that runs: the same is no error, and another is one."""
    if owned.phase == "incoming":
        work.machines.find(owned.name)
    if owned.digest != digest:
        raise HostError(
            f"{owned.name} runs already, from something else",
            hint="stop it first, or start the other one under another name",
            evidence={"running": owned.digest, "asked": digest},
            code="conflict",
        )
    return {"changed": owned.command == work.command.id, **work.machines.state(owned.name)}


async def plan(work: Work) -> dict[str, Any]:
    """What would be started, with the digest that it would have."""
    from launcher.command import render_standalone
    from launcher.report import plan_json

    made = (await work.machines.planner.prepare(work.arguments)).plan
    argv = render_standalone(made, f"/run/qemu-launcher/{made.name}")
    return {**plan_json(made, argv), "digest": digest_of(made)}


async def lock(work: Work) -> dict[str, Any]:
    """The content of a lock file, from a machine that is started paused and ended again."""
    from launcher.lock_files import home_of
    from launcher.locking.contents import document
    from launcher.locking.defaults import with_defaults
    from launcher.locking.start import observe

    prepared: Prepared = await work.machines.planner.prepare(work.arguments)
    memory, cpus = machine_size(prepared.plan)
    work.machines.check_room("", memory, cpus)
    seen = await observe(prepared.with_plan(with_defaults(prepared)))
    if seen.report.verdict != "match":
        from launcher.errors import VerdictError

        raise VerdictError(f"{prepared.plan.name}: not everything is as planned")
    made = document(seen, home_of(prepared.loaded.profile_file))
    owned = work.machines.owned.get(prepared.plan.name)
    if owned is not None and owned.digest == digest_of(prepared.plan):
        work.machines.keep_lock(owned.name, made)
    return {"lock": made}
