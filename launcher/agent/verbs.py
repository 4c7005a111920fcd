"""A command to its effect, by the functions that the command line calls.

Each effect may be begun again after the agent was killed in the middle of it and ends in the same
state; `reset` and `qmp` cannot promise that, so they are not begun twice.
"""

from __future__ import annotations

import hashlib
import time

from launcher import rejoin
from launcher.agent.journal import Owned
from launcher.agent.policy import machine_size
from launcher.errors import HostError, InputError, LauncherError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from launcher.agent.machines import Machines
    from launcher.agent.messages import Command
    from launcher.plan import Plan
    from launcher.prepare import Prepared

    _Verb = Callable[[Machines, Command, bool], Awaitable[Any]]


async def execute(machines: Machines, command: Command, again: bool) -> Any:
    """Do what a command says.

    Args:
        machines: of this agent.
        command: what to do.
        again: an agent that is no more began it.

    Returns:
        The result, ready for JSON.

    Raises:
        LauncherError: it could not be done.
    """
    return await _VERBS[command.verb](machines, command, again)


def digest_of(plan: Plan) -> str:
    """What a machine is made of, in a word: equal for two starts of the same.

    The UUID that each start makes up is left out. Of secrets the hash goes in, and no way back.
    """
    options = [[o.name, o.form, o.head, o.members] for o in plan.options if o.name != "-uuid"]
    secrets = [[want.name, want.content] for want in plan.wants]
    whole = [plan.binary, plan.platform, plan.tool, options, plan.setup, plan.unplanned, secrets]
    return hashlib.sha256(repr(whole).encode("utf-8", "backslashreplace")).hexdigest()


async def _start(machines: Machines, command: Command, _again: bool) -> dict[str, Any]:
    prepared = await machines.prepare(command.arguments)
    plan = prepared.plan
    digest, owned = digest_of(plan), machines.owned.get(plan.name)
    if owned is not None:
        return _running(machines, command, owned, digest)
    memory, cpus = machine_size(plan)
    machines.check_room(plan.name, memory, cpus)
    profile = command.arguments["profile"]
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
        command=command.id,
    )
    await machines.start(prepared, owned, command.arguments.get("verify"))
    return {"changed": True, **machines.state(plan.name)}


def _running(machines: Machines, command: Command, owned: Owned, digest: str) -> dict[str, Any]:
    """What `start` says of a machine that runs: the same is no error, and another is one."""
    if owned.digest != digest:
        raise HostError(
            f"{owned.name} runs already, from something else",
            hint="stop it first, or start the other one under another name",
            evidence={"running": owned.digest, "asked": digest},
            code="conflict",
        )
    return {"changed": owned.command == command.id, **machines.state(owned.name)}


async def _stop(machines: Machines, command: Command, again: bool) -> dict[str, Any]:
    name = command.arguments["machine"]
    if again and name not in machines.owned:
        return {"name": name, "changed": True, "by": "unknown"}
    by = await machines.end(name, command.arguments.get("first", rejoin.KINDLY))
    return {"name": name, "changed": True, "by": by}


async def _verify(machines: Machines, command: Command, _again: bool) -> dict[str, Any]:
    from launcher.report import report_json

    return report_json(await machines.verify(command.arguments["machine"]))


async def _query(machines: Machines, command: Command, _again: bool) -> dict[str, Any]:
    name = command.arguments.get("machine")
    if name is None:
        return {"machines": [machines.state(one) for one in sorted(machines.owned)]}
    status = await machines.execute(name, "query-status", {})
    return {**machines.state(name), "status": status["status"]}


async def _qmp(machines: Machines, command: Command, again: bool) -> Any:
    _refuse_again(command, again)
    name, word = command.arguments["machine"], command.arguments["command"]
    arguments = command.arguments.get("arguments", {})
    machines.policy.check_qmp(word)
    _refuse_hazard(machines, name, word, arguments)
    return await machines.execute(name, word, arguments)


async def _reset(machines: Machines, command: Command, again: bool) -> dict[str, Any]:
    _refuse_again(command, again)
    await machines.execute(command.arguments["machine"], "system_reset", {})
    return {"name": command.arguments["machine"], "changed": True}


def _refuse_again(command: Command, again: bool) -> None:
    if again:
        raise LauncherError(
            f"the agent ended while it did {command.verb}; whether it took effect is not known",
            hint="look at the machine, and send it again under another id if it has to be",
            code="interrupted",
        )


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


async def _pause(machines: Machines, command: Command, _again: bool) -> dict[str, Any]:
    return await _run_state(machines, command, "stop", "paused")


async def _resume(machines: Machines, command: Command, _again: bool) -> dict[str, Any]:
    return await _run_state(machines, command, "cont", "running")


async def _run_state(
    machines: Machines, command: Command, word: str, wanted: str
) -> dict[str, Any]:
    name = command.arguments["machine"]
    await machines.execute(name, word, {})
    machines.set_wanted(name, wanted)
    return {"name": name, "changed": True, "wanted": wanted}


async def _plan(machines: Machines, command: Command, _again: bool) -> dict[str, Any]:
    from launcher.command import render_standalone
    from launcher.report import plan_json

    plan = (await machines.prepare(command.arguments)).plan
    argv = render_standalone(plan, f"/run/qemu-launcher/{plan.name}")
    return {**plan_json(plan, argv), "digest": digest_of(plan)}


async def _lock(machines: Machines, command: Command, _again: bool) -> dict[str, Any]:
    from launcher.lock_files import home_of
    from launcher.locking.contents import document
    from launcher.locking.defaults import with_defaults
    from launcher.locking.start import observe

    prepared: Prepared = await machines.prepare(command.arguments)
    memory, cpus = machine_size(prepared.plan)
    machines.check_room("", memory, cpus)
    seen = await observe(prepared.with_plan(with_defaults(prepared)))
    if seen.report.verdict != "match":
        from launcher.errors import VerdictError

        raise VerdictError(f"{prepared.plan.name}: not everything is as planned")
    file = prepared.loaded.profile_file
    return {"lock": document(seen, home_of(file))}


async def _adopt(machines: Machines, command: Command, _again: bool) -> dict[str, Any]:
    name = command.arguments["machine"]
    if name not in machines.owned:
        machines.adopt(name)
        await machines.verify(name)
    return {"changed": True, **machines.state(name)}


async def _forget(machines: Machines, command: Command, again: bool) -> dict[str, Any]:
    name = command.arguments["machine"]
    if not again or name in machines.owned:
        machines.find(name)
        machines.gone(name, "forgotten")
    return {"name": name, "changed": True}


async def _facts(_machines: Machines, _command: Command, _again: bool) -> dict[str, Any]:
    return await gather_facts()


async def gather_facts() -> dict[str, Any]:
    """The host's facts, as `qemu-launcher host --format json` has them."""
    import asyncio

    from launcher.host.facts import FORMAT, gather

    # Some facts are asked of the kernel by use, and the KVM ladder runs code for a moment.
    found = await asyncio.get_running_loop().run_in_executor(None, gather)
    return {"format": FORMAT, **found}


_VERBS: dict[str, _Verb] = {
    "start": _start,
    "stop": _stop,
    "verify": _verify,
    "query": _query,
    "qmp": _qmp,
    "pause": _pause,
    "resume": _resume,
    "reset": _reset,
    "plan": _plan,
    "lock": _lock,
    "adopt": _adopt,
    "forget": _forget,
    "facts": _facts,
}
