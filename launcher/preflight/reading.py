"""Ends from what tells of them: a plan and its report, their JSON, a host's facts."""

from __future__ import annotations

from launcher.errors import InputError
from launcher.plan.helpers import tpm_version
from launcher.platforms import parse_kernel, parse_qemu_version
from launcher.preflight.options import Entry, as_words, entries_of_argv, entries_of_plan
from launcher.preflight.side import Side

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from launcher.capabilities import Capabilities
    from launcher.plan import Plan
    from launcher.platforms import Version
    from launcher.preflight.side import Block, Setting
    from launcher.report import Report


def side_of_plan(
    plan: Plan,
    capabilities: Capabilities | None = None,
    *,
    asked: str = "",
    facts: Mapping[str, Any] | None = None,
    report: Report | None = None,
    ram: Mapping[str, Block] | None = None,
    blockers: Iterable[str] = (),
) -> Side:
    """One end from its plan and, as far as they are there, from what was observed of it.

    Args:
        plan: what was decided; its uuid counts only where the profile gives one.
        capabilities: of the binary.
        asked: the machine type as the profile has it.
        facts: of the host: `features` name → True, False or None, `cpu` flags, `kernel`.
        report: what was read back; where it differs from the plan, it wins.
        ram: RAM blocks, as QEMU says.
        blockers: reasons why QEMU says that it cannot be migrated.
    """
    entries = entries_of_plan(plan)
    settings, owners = settings_of(
        (v.family, v.id, v.property, v.written, str(v.origin)) for v in plan.values
    )
    settings |= _globals(entries)
    if report is not None:
        entries, settings = _observed(entries, settings, report)
    machine = capabilities.machine(plan.machine) if capabilities and plan.machine else None
    lists_compat = machine is not None and capabilities is not None and _lists(capabilities)
    return Side(
        name=f"QEMU {plan.version}",
        version=parse_qemu_version(plan.version),
        machine=plan.machine,
        entries=tuple(entries),
        settings=settings,
        owners=owners,
        features=dict((facts or {}).get("features", {})),
        asked=asked,
        machines=frozenset(capabilities.machines) if capabilities else None,
        compat=machine.compat if machine is not None and lists_compat else None,
        defaults=_defaults(entries, capabilities),
        ram_id=(machine.default_ram_id or "") if machine is not None else "",
        accel=plan.accel,
        platform=plan.platform,
        linux=_kernel(facts),
        cpu_flags=_flags(facts),
        ram=ram,
        tpms={helper.chardev: tpm_version(helper) for helper in plan.helpers},
        blockers=tuple(blockers),
    )


def side_of_json(document: Mapping[str, Any], name: str) -> Side:
    """One end from what `plan --format json` or `verify --format json` printed.

    Raises:
        InputError: the document is neither.
    """
    qemu, values = document.get("qemu"), document.get("values")
    if not isinstance(qemu, dict) or not isinstance(values, list) or "machine" not in document:
        raise InputError(f"{name} is neither a plan nor a report", hint=_WANTED, code="preflight")
    rows = [
        (r["family"], r["id"], r["property"], _told(r), str(r.get("origin", ""))) for r in values
    ]
    settings, owners = settings_of(rows)
    argv = document.get("argv")
    entries = entries_of_argv(argv[1:]) if argv else _entries_of_values(values)
    if argv:
        settings |= _globals(entries)
    return Side(
        name=f"{name} (QEMU {qemu.get('version', '?')})",
        version=parse_qemu_version(str(qemu["version"])),
        machine=str(document["machine"]),
        entries=tuple(entries),
        settings=settings,
        owners=owners,
        features={},
        partial=not argv,
        accel=str(document.get("accel") or ""),
        platform=str(document.get("platform") or ""),
    )


_WANTED = "give profiles, lock files, or what `plan`, `verify` or `host` print with --format json"


def _told(row: Mapping[str, Any]) -> Any:
    """A row's value: observed where it was, else as it was written or planned."""
    if row.get("verdict") in ("match", "mismatch"):
        return row["observed"]
    if isinstance(row.get("written"), dict):
        return row["written"]["value"]
    return row["value"] if "value" in row else row.get("planned")


def home_of(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """Family, id and property: a plan counts CPUs and memory among the machine's values."""
    head, dot, rest = row["property"].partition(".")
    if row["family"] == "machine" and dot and head in ("cpu", "smp", "memory"):
        return head, head, rest
    return row["family"], row["id"], row["property"]


def _entries_of_values(rows: Iterable[Mapping[str, Any]]) -> list[Entry]:
    """Entries as far as a report tells them: things without any value are not in it."""
    found: dict[tuple[str, str], Entry] = {}
    for row in rows:
        if row["family"].startswith("migration"):
            continue
        family, key, name = home_of(row)
        told = as_words(_told(row))
        kind = told if (family, name) == ("cpu", "model") else row["type"]
        entry = found.setdefault((family, key), Entry(family, kind, key, {}))
        if name != "model":
            entry.members[name] = told
    return list(found.values())


def settings_of(
    rows: Iterable[tuple[str, str, str, Any, str]],
) -> tuple[dict[Setting, str], dict[tuple[str, str, str], str]]:
    """Migration's settings, and who set each value."""
    settings: dict[Setting, str] = {}
    owners: dict[tuple[str, str, str], str] = {}
    for family, key, name, value, origin in rows:
        owners[family, key, name] = origin
        if family.startswith("migration"):
            settings[family, name] = as_words(value)
    return settings, owners


def _globals(entries: Iterable[Entry]) -> dict[Setting, str]:
    """What `-global migration.NAME=VALUE` of the user's own arguments sets."""
    return {
        ("migration-property", name): value
        for entry in entries
        if (entry.family, entry.type) == ("global", "migration")
        for name, value in entry.members.items()
    }


def _observed(
    entries: list[Entry], settings: dict[Setting, str], report: Report
) -> tuple[list[Entry], dict[Setting, str]]:
    """Entries and settings with what was read back and is not as planned."""
    seen = {
        (j.value.family, j.value.id, j.value.spelled): as_words(j.observed)
        for j in report.judged
        if j.verdict == "mismatch"
    }
    changed = []
    for entry in entries:
        mine = {n: v for (f, k, n), v in seen.items() if (f, k) == (entry.family, entry.id)}
        changed.append(Entry(entry.family, entry.type, entry.id, {**entry.members, **mine}))
    more = {(f, n): v for (f, _, n), v in seen.items() if f.startswith("migration")}
    return changed, {**settings, **more}


def side_of_facts(facts: Mapping[str, Any], name: str) -> Side:
    """A host alone: what `host --format json` printed, with judged `features`."""
    return Side(
        name=name,
        version=None,
        machine="",
        entries=(),
        settings={},
        owners={},
        features=dict(facts.get("features", {})),
        linux=_kernel(facts),
        cpu_flags=_flags(facts),
    )


#: Defaults that stand for something else, which the device decides.
_SENTINELS = ("4294967295", "65535", "-1", "auto")


def _defaults(
    entries: Iterable[Entry], capabilities: Capabilities | None
) -> dict[tuple[str, str], str]:
    """The defaults of the devices that a machine has (QAPI: device-list-properties)."""
    found = {}
    kinds = {entry.type for entry in entries if entry.family == "device"} if capabilities else ()
    for kind in sorted(kinds):
        listed = (capabilities.properties(kind) if capabilities else None) or {}
        for name, info in listed.items():
            text = as_words(info.get("default-value"))
            if "default-value" in info and text not in _SENTINELS:
                found[kind, name] = text
    return found


def _lists(capabilities: Capabilities) -> bool:
    """Whether the binary lists compat properties: then a machine type without them has none."""
    return any(machine.compat for machine in capabilities.machines.values())


def _kernel(facts: Mapping[str, Any] | None) -> Version | None:
    kernel = (facts or {}).get("kernel")
    release = kernel.get("release") if isinstance(kernel, dict) else kernel
    return parse_kernel(str(release)) if release else None


def _flags(facts: Mapping[str, Any] | None) -> frozenset[str] | None:
    cpu = (facts or {}).get("cpu")
    flags = cpu.get("flags") if isinstance(cpu, dict) else None
    if isinstance(flags, str):
        flags = flags.split()
    return frozenset(flags) if flags else None
