"""Ends from what tells of them: a plan and its report, their JSON, a lock file's sections."""

from __future__ import annotations

from launcher.errors import InputError
from launcher.platforms import parse_kernel, parse_qemu_version
from launcher.preflight.options import Entry, as_words, entries_of_argv, entries_of_plan, flat
from launcher.preflight.side import Block, Side
from launcher.qapi import parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from launcher.capabilities import Capabilities
    from launcher.plan import Plan
    from launcher.platforms import Version
    from launcher.preflight.side import Setting
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
    settings, owners = _values(
        (v.family, v.id, v.property, v.written, str(v.origin)) for v in plan.values
    )
    settings |= _globals(entries)
    if report is not None:
        entries, settings = _observed(
            entries,
            settings,
            {
                (j.value.family, j.value.id, j.value.spelled): as_words(j.observed)
                for j in report.judged
                if j.verdict == "mismatch"
            },
        )
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
    settings, owners = _values(rows)
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


def _home(row: Mapping[str, Any]) -> tuple[str, str, str]:
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
        family, key, name = _home(row)
        told = as_words(_told(row))
        kind = told if (family, name) == ("cpu", "model") else row["type"]
        entry = found.setdefault((family, key), Entry(family, kind, key, {}))
        if name != "model":
            entry.members[name] = told
    return list(found.values())


def side_of_lock(document: Mapping[str, Any], name: str) -> Side:
    """One end from a lock file: what was decided, and what a paused machine told of itself.

    Args:
        document: the lock file, checked.
        name: how messages call this end.
    """
    rows = document["values"]
    settings, owners = _values(
        (r["family"], r["id"], r["property"], _locked(r), r["origin"]) for r in rows
    )
    entries = _entries_of_sections(document["given"])
    by_key = {(entry.family, entry.id): entry for entry in entries}
    for row in rows:
        family, key, name = _home(row)
        entry = by_key.get((family, key))
        if entry is not None and (family, name) != ("cpu", "model"):
            entry.members.setdefault(name, as_words(row["value"]))
    machine, seen = document.get("machine", {}), document.get("migration", {})
    blocks = seen.get("ram-blocks")
    version = document["qemu"]["version"]
    return Side(
        name=f"{name} (QEMU {version})",
        version=parse_qemu_version(version),
        machine=machine.get("type", ""),
        entries=tuple(entries),
        settings=settings,
        owners=owners,
        features={k: v for k, v in document.get("host", {}).items() if isinstance(v, bool)},
        asked=machine.get("asked", ""),
        told=_seen(seen),
        accel=machine.get("accel", ""),
        platform=document["platform"]["name"],
        ram={n: Block(b["used"], b["total"]) for n, b in blocks.items()} if blocks else None,
    )


def _locked(row: Mapping[str, Any]) -> Any:
    return row["observed"] if row.get("observed") is not None else row["value"]


def _seen(section: Mapping[str, Any]) -> dict[Setting, str]:
    """What QEMU told of migration when the machine was locked."""
    families = (
        ("migration-property", "compat"),
        ("migration-property", "properties"),
        ("migration-capability", "capabilities"),
        ("migration-parameter", "parameters"),
    )
    return {
        (family, name): as_words(value)
        for family, key in families
        for name, value in section.get(key, {}).items()
    }


_SECTIONS = {
    "objects": ("object", "qom-type"),
    "netdevs": ("netdev", "type"),
    "chardevs": ("chardev", "backend"),
    "blockdevs": ("blockdev", "driver"),
    "devices": ("device", "driver"),
}


def _entries_of_sections(sections: Mapping[str, Any]) -> list[Entry]:
    found = []
    for family, tag in (("machine", "type"), ("cpu", "model"), ("smp", ""), ("memory", "")):
        members = flat(sections.get(family) or {})
        if members:
            kind = members.pop(tag, "") if tag else family
            found.append(Entry(family, kind, family, _sized(members)))
    if sections.get("boot"):
        found.append(Entry("boot", "boot", "boot", flat(sections["boot"])))
    for section, (family, tag) in _SECTIONS.items():
        for key, body in (sections.get(section) or {}).items():
            members = flat(body)
            found.append(Entry(family, members.pop(tag, ""), key, members))
    found += [Entry("device", "isa-serial", "", {}) for _ in sections.get("serial") or ()]
    found += entries_of_argv(sections.get("extra-args") or ())
    return found


def _sized(members: dict[str, str]) -> dict[str, str]:
    sizes = {k: parse_size(v) for k, v in members.items() if k in ("size", "maxmem")}
    return {**members, **{k: str(v) for k, v in sizes.items() if v is not None}}


def _values(
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
    entries: list[Entry], settings: dict[Setting, str], seen: Mapping[tuple[str, str, str], str]
) -> tuple[list[Entry], dict[Setting, str]]:
    """Entries and settings with what was read back and is not as planned."""
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
