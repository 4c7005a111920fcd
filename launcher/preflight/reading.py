"""Ends from what tells of them: a plan and its report, their JSON, a lock file's sections."""

from __future__ import annotations

from launcher.errors import InputError
from launcher.platforms import parse_kernel, parse_qemu_version
from launcher.preflight.options import Entry, as_words, entries_of_argv, entries_of_plan, flat
from launcher.preflight.side import Side
from launcher.qapi import parse_size

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


def _entries_of_values(rows: Iterable[Mapping[str, Any]]) -> list[Entry]:
    """Entries as far as a report tells them: things without any value are not in it."""
    found: dict[tuple[str, str], Entry] = {}
    for row in rows:
        if row["family"].startswith("migration"):
            continue
        key = (row["family"], row["id"])
        entry = found.setdefault(key, Entry(row["family"], row["type"], row["id"], {}))
        entry.members[row["property"]] = as_words(_told(row))
    return list(found.values())


def side_of_sections(
    sections: Mapping[str, Any],
    rows: Iterable[Mapping[str, Any]],
    *,
    name: str,
    version: str,
    machine: str,
    asked: str,
    accel: str,
    platform: str,
    facts: Mapping[str, Any] | None,
    ram: Mapping[str, Block] | None,
) -> Side:
    """One end from a lock file: what the profile resolved to, and the values that were decided.

    Args:
        sections: the resolved profile: `machine`, `objects`, `devices` and so on.
        rows: the values, with `family`, `type`, `id`, `property`, `value`, `origin`, and
            `observed` where it was read back.
        name: how messages call this end.
        version: of the binary.
        machine: the machine type; `asked` is what the profile says.
        asked: see `machine`.
        accel: the accelerator.
        platform: the platform's name.
        facts: of the host, as for `side_of_plan`.
        ram: RAM blocks by name.
    """
    rows = list(rows)
    told = [
        (
            *(row["family"], row["id"], row["property"]),
            row["observed"] if row.get("observed") is not None else row["value"],
            row.get("origin", ""),
        )
        for row in rows
    ]
    settings, owners = _values(told)
    entries = _entries_of_sections(sections)
    by_key = {(e.family, e.id): e for e in entries}
    for row in rows:
        entry = by_key.get((row["family"], row["id"]))
        if entry is not None:
            entry.members.setdefault(row["property"], as_words(row["value"]))
    return Side(
        name=name,
        version=parse_qemu_version(version),
        machine=machine,
        entries=tuple(entries),
        settings=settings,
        owners=owners,
        features=dict((facts or {}).get("features", {})),
        asked=asked,
        accel=accel,
        platform=platform,
        linux=_kernel(facts),
        cpu_flags=_flags(facts),
        ram=ram,
    )


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
    found += [Entry("device", "isa-serial", "", {}) for _ in sections.get("serials") or ()]
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
