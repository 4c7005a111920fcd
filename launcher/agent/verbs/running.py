"""What is done to a machine that runs."""

from __future__ import annotations

from launcher import rejoin
from launcher.agent.host_facts import gather_facts
from launcher.errors import InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from launcher.agent.machines import Machines
    from launcher.agent.verbs.work import Work


async def stop(work: Work) -> dict[str, Any]:
    """End a machine by the ladder."""
    name = work.name
    if work.again and name not in work.machines.owned:
        return {"name": name, "changed": True, "by": "unknown"}
    by = await work.machines.end(name, work.arguments.get("first", rejoin.KINDLY))
    return {"name": name, "changed": True, "by": by}


async def verify(work: Work) -> dict[str, Any]:
    """Read every planned value back."""
    from launcher.report import report_json

    return report_json(await work.machines.verify(work.name))


async def query(work: Work) -> dict[str, Any]:
    """What is known of one machine, or of all."""
    name = work.arguments.get("machine")
    if name is None:
        return {"machines": [work.machines.state(one) for one in sorted(work.machines.owned)]}
    status = await work.machines.execute(name, "query-status", {})
    return {**work.machines.state(name), "status": status["status"]}


async def qmp(work: Work) -> Any:
    """One QMP command that policy allows."""
    work.refuse_again()
    work.refuse_unsettled()
    name, word = work.name, work.arguments["command"]
    arguments = work.arguments.get("arguments", {})
    work.machines.policy.check_qmp(word)
    _refuse_hazard(work.machines, name, word, arguments)
    return await work.machines.execute(name, word, arguments)


async def reset(work: Work) -> dict[str, Any]:
    """Press the reset button."""
    work.refuse_again()
    work.refuse_unsettled()
    await work.machines.execute(work.name, "system_reset", {})
    return {"name": work.name, "changed": True}


def _refuse_hazard(machines: Machines, name: str, word: str, arguments: dict[str, Any]) -> None:
    """Refuse what is known to end a QEMU of this release (platforms/hazards.yaml).

    Raises:
        InputError: it is known to.
    """
    from launcher.data import load_catalogue
    from launcher.plan.kept import restore_plan
    from launcher.platforms import hazardous, parse_qemu_version

    plan = restore_plan(rejoin.state_of(machines.find(name)).plan)
    if plan is None:
        return
    version = parse_qemu_version(plan.version)
    hazard = hazardous(load_catalogue(), word, version, arguments)
    if hazard is not None:
        words = f"{word} is not sent to QEMU {plan.version}: {hazard.effect}"
        raise InputError(words, code="hazard")


async def pause(work: Work) -> dict[str, Any]:
    """Hold the guest."""
    work.refuse_unsettled()
    return await _run_state(work, "stop", "paused")


async def resume(work: Work) -> dict[str, Any]:
    """Let the guest go on; with `force` also one that may run at another host."""
    if work.arguments.get("force"):
        work.moves.take_back(work.name)
    work.refuse_unsettled()
    return await _run_state(work, "cont", "running")


async def _run_state(work: Work, word: str, wanted: str) -> dict[str, Any]:
    name = work.name
    await work.machines.execute(name, word, {})
    work.machines.set_wanted(name, wanted)
    return {"name": name, "changed": True, "wanted": wanted}


async def adopt(work: Work) -> dict[str, Any]:
    """Take over a detached machine of this host's user."""
    name = work.name
    if name not in work.machines.owned:
        work.machines.adopt(name)
        await work.machines.verify(name)
    return {"changed": True, **work.machines.state(name)}


async def forget(work: Work) -> dict[str, Any]:
    """Let go of a machine, which runs on."""
    name = work.name
    if not work.again or name in work.machines.owned:
        work.machines.find(name)
        work.machines.gone(name, "forgotten")
    return {"name": name, "changed": True}


async def facts(_work: Work) -> dict[str, Any]:
    """Gather the host's facts."""
    return await gather_facts()
