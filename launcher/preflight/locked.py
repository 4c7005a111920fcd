"""An end from a lock file: what was decided, and what a paused machine told of itself."""

from __future__ import annotations

from launcher.platforms import parse_qemu_version
from launcher.preflight.options import Entry, as_words, cpu_features, entries_of_argv, flat
from launcher.preflight.reading import home_of, settings_of
from launcher.preflight.side import Block, Side
from launcher.qapi import parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from launcher.preflight.side import Setting

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
            if family == "cpu":
                model, features = cpu_features(members)
                members = {"model": model, **features}
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


def side_of_lock(document: Mapping[str, Any], name: str) -> Side:
    """One end from a lock file: what was decided, and what a paused machine told of itself.

    Args:
        document: the lock file, checked.
        name: how messages call this end.
    """
    rows = document["values"]
    settings, owners = settings_of(
        (r["family"], r["id"], r["property"], _locked(r), r["origin"]) for r in rows
    )
    entries = _entries_of_sections(document["given"])
    by_key = {(entry.family, entry.id): entry for entry in entries}
    for row in rows:
        family, key, member = home_of(row)
        entry = by_key.get((family, key))
        if entry is not None and (family, member) != ("cpu", "model"):
            entry.members.setdefault(member, as_words(row["value"]))
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
