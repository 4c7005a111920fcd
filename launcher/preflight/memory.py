"""RAM: the names and sizes of its blocks, and the backends behind them."""

from __future__ import annotations

from launcher.preflight.agree import members_findings
from launcher.preflight.cures import platform_cures, property_cure
from launcher.preflight.findings import Cure, Finding
from launcher.preflight.roms import rom_findings, size_finding
from launcher.preflight.worth import canonical, layout_of
from launcher.qapi import parse_size
from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from launcher.preflight.agree import Pair
    from launcher.preflight.options import Entry
    from launcher.preflight.side import Side

_BACKEND = "memory-backend-"
_CANONICAL = "x-use-canonical-path-for-ramblock-id"
#: QEMU's own when nobody says how much (hw/core/machine.c, default_ram_size of PCs).
_USUAL = 128 << 20


@record
class Ram:
    """One RAM block as the command line makes it; `backend` None: the machine type's own."""

    name: str
    size: int | None
    backend: Entry | None


def memory_findings(pair: Pair) -> Iterator[Finding]:
    """What differs in the guest's RAM: blocks as QEMU tells them, else as the plans make them."""
    source = planned_ram(pair, pair.source)
    destination = planned_ram(pair, pair.destination)
    told = _told(pair) if pair.source.ram is not None and pair.destination.ram is not None else None
    if told is None:
        for number, here in enumerate(source):
            there = destination[number] if number < len(destination) else None
            yield from _planned(pair, here, there)
        yield from rom_findings(pair)
    else:
        yield from told
    for here, other in zip(source, destination, strict=False):
        if here.backend is not None and other.backend is not None:
            yield from members_findings(pair, here.backend, other.backend, names=_NAMES)
    yield from _postcopy_files(pair, destination)


#: What postcopy can ask pages of (migration/postcopy-ram.c, test_ramblock_postcopiable).
_FAULTING = ("tmpfs", "hugetlbfs")


def _postcopy_files(pair: Pair, blocks: list[Ram]) -> Iterator[Finding]:
    """Files behind the destination's RAM that postcopy cannot be done with."""
    if pair.settings("migration-capability", "postcopy-ram")[1] != "on":
        return
    known = pair.destination.file_systems or {}
    for backend in [ram.backend for ram in blocks if ram.backend is not None]:
        path = backend.members.get("mem-path", "")
        kind = known.get(path)
        if not path or kind in _FAULTING:
            continue
        subject = ("object", backend.type, backend.id, "mem-path")
        off = ("migration-capability", "migration", "migration", "postcopy-ram")
        cures = (
            Cure("destination", "a mem-path on tmpfs or hugetlbfs", *subject[:3]),
            property_cure(off, "both", "off"),
        )
        what = f"{backend.type} {backend.id} of the destination is {path}"
        what += f", which is on {kind}" if kind else ""
        code = "postcopy-file" if kind else "postcopy-file-unknown"
        yield pair.finding(code, what, (None, kind), subject=subject, cures=cures)


#: Of a backend only what decides whether its RAM travels; its size is the block's.
_NAMES = ("share", "mem-path", "hugetlb", "hugetlbsize")


def planned_ram(pair: Pair, side: Side) -> list[Ram]:
    """The blocks of a machine's RAM in their order: its own or NUMA's, then DIMMs'."""
    named = [e.members["memdev"] for e in side.of("numa") if "memdev" in e.members]
    main = side.one("machine").members.get("memory-backend", "").rpartition("/")[2]
    if not named and main:
        named = [main]
    found = [] if named else [Ram(_own(pair, side), _size(side), None)]
    named += [e.members["memdev"] for e in side.of("device") if "memdev" in e.members]
    for key in named:
        backend = side.find("object", key)
        if backend is not None:
            found.append(_of_backend(pair, side, backend))
    return [ram for ram in found if ram.name]


def _of_backend(pair: Pair, side: Side, backend: Entry) -> Ram:
    path = canonical(pair.know, side, backend)
    size = parse_size(backend.members.get("size", ""))
    return Ram(f"/objects/{backend.id}" if path else backend.id, size, backend)


def _own(pair: Pair, side: Side) -> str:
    """The name that the machine type gives: as the binary says, or as the data does."""
    layout = layout_of(pair.know, side.machine)
    return side.ram_id or (layout.ram if layout is not None else "")


def _size(side: Side) -> int | None:
    memory = side.one("memory").members
    return parse_size(memory["size"]) if "size" in memory else _USUAL


def _planned(pair: Pair, here: Ram, there: Ram | None) -> Iterator[Finding]:
    if there is None or here.name != there.name:
        cures = _name_cures(pair, here, there)
        yield _name_finding(pair, here.name, there.name if there else None, cures)
    elif None not in (here.size, there.size) and here.size != there.size:
        yield size_finding(pair, here.name, here.size or 0, there.size or 0)


def _name_finding(
    pair: Pair, source: str, destination: str | None, cures: tuple[Cure, ...]
) -> Finding:
    there = f"is called {destination!r} there" if destination else "is not there"
    what = f"RAM block {source!r} of the source {there}"
    usual = ("machine", pair.destination.machine, "machine", "memory-backend")
    named = [(cure.family, cure.type, cure.id, cure.property) for cure in cures if cure.property]
    subject = named[0] if named else usual
    values = (source, destination)
    return pair.finding("ram-name", what, values, subject=subject, cures=cures)


def _name_cures(pair: Pair, here: Ram, there: Ram | None) -> tuple[Cure, ...]:
    """The same ids, the same spelling of the path, or a backend of the name that is wanted."""
    if there is None:
        return ()
    if (here.name.rpartition("/")[2]) == there.name.rpartition("/")[2]:
        return tuple(_spelling_cures(pair, here, there))
    wanted = here.name.rpartition("/")[2]
    if there.backend is None:
        machine = ("machine", pair.destination.machine, "machine", "memory-backend")
        return (property_cure(machine, "destination", wanted),)
    cures = [
        Cure(
            "destination",
            f"call the memory backend {there.backend.id!r} of the destination {wanted!r}",
            *("object", there.backend.type, there.backend.id, "id", wanted),
        )
    ]
    if there.name.startswith("/") != here.name.startswith("/"):
        # The new id alone would still be written as the other end does not.
        value = "on" if here.name.startswith("/") else "off"
        subject = ("object", there.backend.type, wanted, _CANONICAL)
        also = property_cure(subject, "destination", value)
        cures = [Cure(**{**_fields(also), "text": f"{cures[0].text}, and {also.text}"})]
    return tuple(cures)


def _fields(cure: Cure) -> dict[str, str]:
    names = ("end", "text", "family", "type", "id", "property", "value", "platform")
    return {name: getattr(cure, name) for name in names}


def _spelling_cures(pair: Pair, here: Ram, there: Ram) -> Iterator[Cure]:
    """One is `ram`, the other `/objects/ram`: either end can be made to write as the other."""
    backends = [ram.backend for ram in (there, here) if ram.backend is not None]
    if not any(_CANONICAL in backend.members for backend in backends):
        # The machine type's own block has no path, so one of the two has a backend.
        subject = ("object", backends[0].type, backends[0].id, _CANONICAL)
        yield from platform_cures(pair, subject, "off")
    if there.backend is not None:
        value = "on" if here.name.startswith("/") else "off"
        subject = ("object", there.backend.type, there.backend.id, _CANONICAL)
        yield property_cure(subject, "destination", value)
    if here.backend is not None:
        value = "on" if there.name.startswith("/") else "off"
        subject = ("object", here.backend.type, here.backend.id, _CANONICAL)
        yield property_cure(subject, "source", value)


def _told(pair: Pair) -> list[Finding]:
    """The blocks of both ends as QEMU tells them. Only what the source has must be there."""
    source, destination = pair.source.ram or {}, pair.destination.ram or {}
    planned = {r.name: r for r in planned_ram(pair, pair.source)}
    others = [r for r in planned_ram(pair, pair.destination) if r.name not in source]
    found = []
    for name, block in source.items():
        other = destination.get(name)
        if other is None:
            here = planned.get(name)
            there = others.pop(0) if here is not None and others else None
            cures = _name_cures(pair, here, there) if here is not None else ()
            found.append(_name_finding(pair, name, there.name if there else None, cures))
        elif block.used != other.used and (other.total == other.used or block.used > other.total):
            found.append(size_finding(pair, name, block.used, other.used))
    return found
