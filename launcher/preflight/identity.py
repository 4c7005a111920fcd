"""What a machine is: its type, its CPUs, its memory slots, its UUID."""

from __future__ import annotations

import math

from launcher.platforms import reaches
from launcher.platforms.rules import matching
from launcher.platforms.versions import release_numbers
from launcher.preflight.agree import Pair, judge, members_findings
from launcher.preflight.cures import property_cure
from launcher.preflight.findings import Cure, Finding
from launcher.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from launcher.preflight.options import Entry
    from launcher.preflight.side import Side


def identity_findings(pair: Pair) -> Iterator[Finding]:
    """Machine type, its properties, CPUs, memory and UUID."""
    yield from _machine_type(pair)
    here, there = pair.source.one("machine"), pair.destination.one("machine")
    if pair.source.machine == pair.destination.machine:
        names = [n for n in (*here.members, *there.members, *_known(pair)) if n != "type"]
        yield from members_findings(pair, here, there, names=list(dict.fromkeys(names)))
        kinds = (pair.source.machine, pair.destination.machine)
        yield from judge(pair, ("machine", kinds[0], "machine", "type"), kinds)
    yield from _cpus(pair)
    yield from _cpu_model(pair)
    yield from _slots(pair)
    yield from _uuid(pair)
    yield from _icount(pair)
    if pair.source.accel and pair.destination.accel and pair.source.accel != pair.destination.accel:
        values = (pair.source.accel, pair.destination.accel)
        yield from judge(pair, ("accel", "accel", "accel", "accel"), values)


def _known(pair: Pair) -> list[str]:
    """Machine properties that have a rule: their default may differ where nobody sets them."""
    tables = pair.know.rules.properties
    return [name for (family, _), table in tables.items() if family == "machine" for name in table]


def trouble_findings(pair: Pair) -> Iterator[Finding]:
    """Ends that cannot be started, as their plans cannot be made; nothing else is known of them."""
    for word, side in (("source", pair.source), ("destination", pair.destination)):
        if not side.trouble:
            continue
        code = "machine-missing" if side.trouble_code == "machine" else "cannot-start"
        cures: tuple[Cure, ...] = ()
        subject = ("machine", side.machine, "machine", "type" if code == "machine-missing" else "")
        other = pair.destination if word == "source" else pair.source
        if code == "cannot-start" and side.trouble_hint:
            cures = (Cure("both", side.trouble_hint, *subject[:3]),)
        elif side.machines and other.machines:
            common = _newest_common(side.machines, other.machines, other.machine)
            if common:
                cures = (property_cure(subject, "both", common),)
        what = f"the {word} ({side.name}) cannot be started: {side.trouble}"
        yield pair.finding(code, what, (None, None), subject=subject, cures=cures)


def _newest_common(one: frozenset[str], other: frozenset[str], like: str) -> str:
    """The newest machine type of a family that both binaries have."""
    family = like.rpartition("-")[0]
    both = [m for m in one & other if family and m.rpartition("-")[0] == family]
    return max(both, key=release_numbers, default="")


def _machine_type(pair: Pair) -> Iterator[Finding]:
    source, destination = pair.source, pair.destination
    values = (source.machine, destination.machine)
    if not all(values):
        return
    if values[0] != values[1]:
        what = f"the machine type is {_called(source)} at the source and {_called(destination)} at"
        subject = ("machine", values[0], "machine", "type")
        cures = tuple(_type_cures(pair))
        what += " the destination"
        yield pair.finding("machine-type", what, values, subject=subject, cures=cures)
    elif destination.machines is not None and values[0] not in destination.machines:
        subject = ("machine", values[0], "machine", "type")
        common = _newest_common(
            destination.machines, source.machines or frozenset(), source.machine
        )
        cures = (property_cure(subject, "both", common),) if common else ()
        what = f"{destination.name} has no machine type {values[0]}"
        yield pair.finding("machine-missing", what, values, subject=subject, cures=cures)


def _called(side: Side) -> str:
    alias = side.asked and side.asked != side.machine
    return f"{side.machine} ({side.asked})" if alias else side.machine


def _type_cures(pair: Pair) -> Iterator[Cure]:
    """Either end as the other, where its binary has that type; an unknown list allows it."""
    source, destination = pair.source, pair.destination
    subject = ("machine", source.machine, "machine", "type")
    if destination.machines is None or source.machine in destination.machines:
        yield property_cure(subject, "destination", source.machine)
    if source.machines is None or destination.machine in source.machines:
        yield property_cure(subject, "source", destination.machine)


def _cpus(pair: Pair) -> Iterator[Finding]:
    here, there = pair.source.one("smp"), pair.destination.one("smp")
    counts = (here.members.get("cpus", "1"), there.members.get("cpus", "1"))
    subject = (*_SMP, "cpus")
    fewer = counts[0].isdigit() and counts[1].isdigit() and int(counts[0]) > int(counts[1])
    if counts[0] != counts[1]:
        what = f"the source has {counts[0]} CPUs and the destination {counts[1]}"
        cures = _smp_cures(pair, property_cure(subject, "destination", counts[0]))
        code = "cpus-fewer" if fewer else "cpus-more"
        yield pair.finding(code, what, counts, subject=subject, cures=cures)
    most = (str(_most(here)), str(_most(there)))
    if most[0] != most[1] and not fewer:
        for found in judge(pair, (*_SMP, "maxcpus"), most):
            yield replace(found, cures=_smp_cures(pair, *found.cures))
    if counts[0] == counts[1]:
        names = [n for n in (*here.members, *there.members) if n not in ("cpus", "maxcpus")]
        yield from members_findings(pair, here, there, names=list(dict.fromkeys(names)))


_SMP = ("smp", "smp", "smp")
#: What of `-smp` multiplies to the number of CPUs that there may be.
_LEVELS = ("drawers", "books", "sockets", "dies", "clusters", "modules", "cores", "threads")


def _most(smp: Entry) -> int:
    """How many CPUs there may be (hw/core/machine-smp.c, machine_parse_smp_config)."""
    given = {name: int(text) for name, text in smp.members.items() if text.isdecimal()}
    product = math.prod(given.get(level, 1) for level in _LEVELS)
    return given.get("maxcpus") or max(given.get("cpus", 1), product)


def _smp_cures(pair: Pair, *usual: Cure) -> tuple[Cure, ...]:
    """One number alone may not fit to the others that an end gives; all of them do."""
    sides = (pair.source.one("smp"), pair.destination.one("smp"))
    if all(set(side.members) <= {"cpus"} for side in sides) and "maxcpus" not in usual[0].property:
        return usual
    members = sides[0].members or {"cpus": "1"}
    text = ", ".join(f"{name}: {value}" for name, value in members.items())
    value = f"{{{text}}}"
    return (Cure("destination", f"smp: {value} at the destination", *_SMP, "", value),)


def _slots(pair: Pair) -> Iterator[Finding]:
    """Slots for memory, which need a `maxmem` beside them."""
    here, there = pair.source.one("memory"), pair.destination.one("memory")
    for found in members_findings(pair, here, there, names=("slots", "maxmem")):
        if found.property == "slots" and "maxmem" not in there.members:
            most = here.members.get("maxmem", "")
            text = f"memory.slots: {found.source} and memory.maxmem: {most} at the destination"
            cures = (Cure("destination", text, "memory", "memory", "memory"),)
            yield replace(found, cures=cures)
        else:
            yield found


def _cpu_model(pair: Pair) -> Iterator[Finding]:
    """The CPU model; `max`, `host` and `base` are what the release and the host make of them."""
    source, destination = pair.source, pair.destination
    here, there = source.one("cpu"), destination.one("cpu")
    models = (here.type or None, there.type or None)
    subject = ("cpu", here.type or "cpu", "cpu", "model")
    if models[0] != models[1]:
        cures = (property_cure(subject, "destination", models[0]),) if models[0] else ()
        what = f"the CPU is {models[0] or 'not set'} at the source and {models[1] or 'not set'} at"
        what += " the destination"
        yield pair.finding("cpu-model", what, models, subject=subject, cures=cures)
    yield from members_findings(pair, here, there)
    yield from _programs(pair, here)
    if models[0] != models[1] or models[0] not in ("max", "host"):
        return
    flags = destination.cpu_flags
    gone = sorted((source.cpu_flags or frozenset()) - flags) if flags else []
    if source.accel == destination.accel == "tcg":
        gone = sorted(_gone(pair, here, "cpu-follows"))
    older = source.version is not None and source.version != destination.version
    if gone or older:
        values = (source.name, destination.name)
        what = f"the CPU model is {models[0]}"
        if gone:
            what += f", and the destination lacks {', '.join(gone[:6])}"
            what += f" and {len(gone) - 6} more" if len(gone) > 6 else ""
        yield pair.finding("cpu-follows", what, values, subject=subject)


def _programs(pair: Pair, here: Entry) -> Iterator[Finding]:
    """Instructions that programs choose when they start, and that the destination's tcg lacks."""
    gone = _gone(pair, here, "cpu-programs")
    if not gone or not pair.source.accel == pair.destination.accel == "tcg":
        return
    subject = ("cpu", here.type, "cpu", gone[0])
    ends = (pair.source.name, pair.destination.name)
    what = f"the CPU is {here.type}, and {ends[1]} emulates no {gone[0]}"
    # Where nobody names a model there is none to take a feature from.
    end = "both" if pair.destination.of("cpu") else "source"
    cures = (property_cure(subject, end, "off"),)
    yield pair.finding("cpu-programs", what, ends, subject=subject, cures=cures)


def _gone(pair: Pair, here: Entry, code: str) -> list[str]:
    """CPU features of the source that tcg has there, and at the destination not yet."""
    versions = (pair.source.version, pair.destination.version)
    if None in versions:
        return []
    found = []
    for one in pair.know.rules.emulated:
        has = [reaches(one.since, v) for v in versions if v is not None]
        if one.code != code or has != [True, False]:
            continue
        usual = "on" if matching([("", model) for model in one.models], "", here.type) else "off"
        found += [name for name in one.features if here.members.get(name, usual) == "on"]
    return found


def _icount(pair: Pair) -> Iterator[Finding]:
    """A clock that counts instructions has state of its own, and one that adapts has more."""
    shifts = [
        s.one("icount").members.get("shift") if s.of("icount") else None
        for s in (pair.source, pair.destination)
    ]
    subject = ("icount", "icount", "icount", "shift")
    values = (shifts[0], shifts[1])
    if shifts[0] is None or pair.partial:
        return
    code = "icount" if shifts[1] is None else "icount-auto"
    if shifts[1] is None or (shifts[0] == "auto" != shifts[1]):
        what = f"the source has -icount shift={shifts[0]}, and the destination "
        what += "has none" if shifts[1] is None else f"shift={shifts[1]}"
        cures = (Cure("destination", f"-icount shift={shifts[0]} at the destination", *subject),)
        yield pair.finding(code, what, values, subject=subject, cures=cures)


def _uuid(pair: Pair) -> Iterator[Finding]:
    """Compared when the source sends it with validate-uuid, and with every multifd channel."""
    sent = pair.settings("migration-capability", "validate-uuid")[0] == "on"
    channels = pair.agreed((("multifd", "on"),))
    ids = [s.one("uuid").members.get("uuid", "") for s in (pair.source, pair.destination)]
    subject = ("uuid", "uuid", "uuid", "uuid")
    if not sent and not channels:
        return
    if not any(ids) and pair.source.draws_uuid and pair.destination.draws_uuid:
        cures = (Cure("both", "uuid: one for both ends", *subject),)
        what = "the profile gives no uuid, and each start draws its own"
        yield pair.finding("uuid-drawn", what, (None, None), subject=subject, cures=cures)
    elif all(ids) and ids[0] != ids[1]:
        cures = (Cure("destination", f"uuid: {ids[0]} at the destination", *subject, ids[0]),)
        what = f"the machine's UUID is {ids[0]} at the source and {ids[1]} at the destination"
        code = "uuid" if sent else "uuid-channels"
        yield pair.finding(code, what, (ids[0], ids[1]), subject=subject, cures=cures)
