"""One end of a migration as it really is: plan, host, and what QEMU says of itself.

Composes for `preflight`, which is pure: reads files, asks this host and a machine's monitor.
"""

from __future__ import annotations

import os
from itertools import pairwise

from launcher.errors import CommandError, InputError, LauncherError
from launcher.preflight import Block, Side, side_of_facts, side_of_json, side_of_plan, wanted_files
from launcher.record import replace
from launcher.verify.hmp import parse_ram_blocks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from launcher.capabilities import Capabilities
    from launcher.machine import Machine
    from launcher.monitor import Monitor
    from launcher.plan import Plan
    from launcher.prepare import Loaded, Prepared

#: Host features that decide what virtio-net over tap shows to its guest.
_TAP = ("tun-vnet-hdr", "tun-ufo", "tun-uso", "tun-tunnel")
#: Bytes of a lock file.
_MOST = 8 << 20
#: Seconds for the questions to a paused machine.
DEADLINE = 10.0


def planned_end(prepared: Prepared, facts: Mapping[str, Any] | None = None) -> Side:
    """One end that is not started.

    Args:
        prepared: its plan.
        facts: of its host, with judged `features`; None asks this host, as far as it matters.
    """
    plan = prepared.plan
    side = side_of_plan(plan, prepared.capabilities, facts=_host(plan, facts))
    side = replace(side, sizes=_sizes(plan, side, facts))
    return unnamed(prepared, _asked(prepared, side, facts))


def unnamed(prepared: Prepared, side: Side) -> Side:
    """An end without the UUID that is not its profile's: another start has another one."""
    if prepared.loaded.profile.uuid is not None:
        return side
    entries = tuple(entry for entry in side.entries if entry.family != "uuid")
    return replace(side, entries=entries, draws_uuid=True)


async def end_of(machine: Machine, facts: Mapping[str, Any] | None = None) -> Side:
    """One end that runs or waits: with its RAM blocks and with what QEMU says blocks it.

    Raises:
        MonitorError: QEMU did not answer.
    """
    plan = machine.plan
    capabilities = machine.prepared.capabilities
    side = side_of_plan(
        plan,
        capabilities,
        facts=_host(plan, facts),
        report=machine.report,
        ram=await ram_blocks(machine.monitor, capabilities),
        blockers=await blockers(machine.monitor),
    )
    side = replace(side, held=held_states(plan))
    return _asked(machine.prepared, side, facts)


def _asked(prepared: Prepared, side: Side, facts: Mapping[str, Any] | None) -> Side:
    """With the machine type as the profile has it, and where its memory's files are."""
    from launcher.nodes import Scalar

    kind = prepared.loaded.profile.machine.get("type")
    systems = _file_systems(prepared.plan, facts)
    return replace(side, asked=kind.text if isinstance(kind, Scalar) else "", file_systems=systems)


def _file_systems(plan: Plan, facts: Mapping[str, Any] | None) -> dict[str, str] | None:
    """What the files of this host's memory backends are on; of another host nothing is known."""
    paths = [str(o.members["mem-path"]) for o in plan.options if "mem-path" in o.members]
    if facts is not None or not paths:
        return None
    from launcher.host.mounts import file_system

    return {path: file_system(path) for path in paths}


def held_states(plan: Plan) -> dict[str, str]:
    """Which folders of TPMs another swtpm of this host, or of one that shares it, has locked."""
    from launcher.host.locks import is_locked

    folders = {helper.chardev: helper.folder for helper in plan.helpers}
    return {key: path for key, path in folders.items() if is_locked(os.path.join(path, ".lock"))}


def _sizes(plan: Plan, side: Side, facts: Mapping[str, Any] | None) -> dict[str, int | None] | None:
    """How large the files are that decide RAM blocks: of this host, or as its facts tell."""
    from launcher.data import load_rules
    from launcher.host.rom_files import data_folders, file_sizes

    names = wanted_files(side, load_rules())
    more = [word for before, word in pairwise(plan.unplanned) if before == "-L"]
    if facts is not None:
        # Where a folder of the command line's own comes in, only the binary over there could tell.
        told = {} if more else _told_sizes(plan, facts)
        return {name: told[name] for name in names if name in told}
    return file_sizes(names, data_folders(plan.binary, more) if names else ())


def _told_sizes(plan: Plan, facts: Mapping[str, Any]) -> dict[str, int]:
    """The files of that binary of another host which this one stands for; none when unsure."""
    rows = facts.get("qemu")
    listed = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    same = [
        row.get("roms") or {}
        for row in listed
        if (row.get("version"), row.get("build")) == (plan.version, plan.build)
    ]
    return same[0] if same and all(one == same[0] for one in same) else {}


def _host(plan: Plan, facts: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The facts of an end's host: as given, else this one's, and only those that matter."""
    if facts is not None:
        return facts
    from launcher.host.facts import feature, gather

    found = gather(["kernel", "cpu"])
    backends = [option for option in plan.options if option.name == "-netdev"]
    taps = any("tap" in (option.head, option.members.get("type")) for option in backends)
    judged = {name: feature(name).present for name in _TAP} if taps else {}
    return {**found, "features": judged}


async def ram_blocks(monitor: Monitor, capabilities: Capabilities) -> dict[str, Block]:
    """RAM blocks by name (QAPI: x-query-ramblock since 6.2, HMP `info ramblock` before).

    Raises:
        MonitorError: QEMU did not answer.
    """
    if capabilities.has_command("x-query-ramblock"):
        answer = await monitor.execute("x-query-ramblock", timeout=DEADLINE)
        text = answer["human-readable-text"]
    else:
        arguments = {"command-line": "info ramblock"}
        text = await monitor.execute("human-monitor-command", arguments, timeout=DEADLINE)
    return {n: Block(b["used"], b["total"]) for n, b in parse_ram_blocks(text).items()}


async def blockers(monitor: Monitor) -> tuple[str, ...]:
    """Why QEMU says that it cannot be migrated (QAPI: query-migrate blocked-reasons, since 6.0).

    Raises:
        MonitorError: QEMU did not answer.
    """
    try:
        answer = await monitor.execute("query-migrate", timeout=DEADLINE)
    except CommandError:
        return ()
    return tuple(answer.get("blocked-reasons", ()))


# -- ends that are files or cannot be planned -----------------------------------------------------


def troubled_end(loaded: Loaded, error: LauncherError) -> Side:
    """An end that cannot be planned, because the binary or the host cannot do what is asked.

    Args:
        loaded: what was read of it.
        error: why.
    """
    from launcher.capabilities import Capabilities
    from launcher.nodes import Scalar
    from launcher.probe import cached_index

    index = cached_index(loaded.binary)
    machines = frozenset(Capabilities(index).machines) if index is not None else None
    kind = loaded.profile.machine.get("type")
    return Side(
        name=f"QEMU {Capabilities(index).version}" if index is not None else loaded.binary,
        version=None,
        machine=kind.text if isinstance(kind, Scalar) else "",
        entries=(),
        settings={},
        owners={},
        features={},
        machines=machines,
        trouble=error.message,
        trouble_code=error.code,
        trouble_hint=error.hint,
    )


def is_lock(path: str) -> bool:
    """Whether a YAML file is a lock file and not a profile.

    Raises:
        InputError: it cannot be read.
    """
    from launcher.files import read_text

    starts = [line.partition(":")[0] for line in read_text(path, limit=_MOST).splitlines()]
    return path.endswith(".lock.yaml") or ("format" in starts and "digest" in starts)


def end_of_lock(path: str) -> Side:
    """One end as its lock file tells.

    Raises:
        InputError: there is no such file, or something in it is wrong.
    """
    from launcher.lock_files import load_lock
    from launcher.preflight import side_of_lock

    return side_of_lock(load_lock(path).document, path)


def end_of_document(document: Mapping[str, Any], name: str) -> Side:
    """One end from JSON: a plan, a report, or a host's facts.

    Raises:
        InputError: it is none of them.
    """
    if "values" in document or "argv" in document:
        return side_of_json(document, name)
    if str(document.get("format", "")).startswith("host-facts") or "features" in document:
        return side_of_facts(judged(document), name)
    raise InputError(
        f"{name} is neither a plan nor a report nor a host's facts",
        hint="give what `plan`, `verify` or `host` print with --format json",
        code="preflight",
    )


def judged(document: Mapping[str, Any]) -> dict[str, Any]:
    """A host's facts with each feature as True, False or None: judged here, as far as told."""
    from launcher.host.facts import FEATURES, feature

    told = document.get("features", {})
    features = {}
    for name in FEATURES:
        one = told.get(name)
        present = one.get("present") if isinstance(one, dict) else one
        features[name] = present if name in told else feature(name, document).present
    return {**document, "features": features}
