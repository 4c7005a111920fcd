"""How a difference is mended: a property in the profile's words, or a platform for both ends."""

from __future__ import annotations

from launcher.platforms import Platform, reaches, resolve
from launcher.preflight.findings import Cure, Finding
from launcher.preflight.worth import BY_ITSELF
from launcher.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from launcher.platforms import Name
    from launcher.preflight.agree import Pair

    #: family, type, id, property
    Subject = tuple[str, str, str, str]

_SAME = "same"
#: No value: the property is left out of the profile.
_UNSET = "unset"
#: What the short form `memory` makes (launcher/profiles/shorts.py); it may be written out as well.
_MAIN_RAM = ("object", "ram")
#: Where a profile writes a property of each family.
WHERE = {
    "migration-property": "migration.properties.{property}: {value}",
    "migration-capability": "migration.capabilities.{property}: {value}",
    "migration-parameter": "migration.parameters.{property}: {value}",
    "accel": "accel: {value}",
    "machine": "machine.{property}: {value}",
    "memory": "memory.{property}: {value}",
    "smp": "smp.{property}: {value}",
    "cpu": "cpu.{property}: {value}",
    "tpmdev": "tpm.{property}: {value}",
    "transport": "--via {value}",
}


def cures_for(
    pair: Pair,
    subject: Subject,
    wanted: Iterable[tuple[str, str]],
    values: tuple[str | None, str | None],
) -> Iterator[Cure]:
    """The ways to give the ends the values that a rule wants: a platform first, if one does.

    Args:
        pair: the two ends.
        subject: the property.
        wanted: (end, value); `same` is the other end's value.
        values: the property's at the source and at the destination.
    """
    for end, value in wanted:
        if value == _UNSET:
            yield Cure(end, f"leave out devices.{subject[2]}.{subject[3]} at the {end}", *subject)
            continue
        if value == _SAME:
            end, value = _agreeing(pair, subject, values)
        ends = ("source", "destination") if end == "both" else (end,)
        if not any(_stubborn(pair, one, subject) for one in ends):
            yield from platform_cures(pair, subject, value)
        yield property_cure(subject, end, value)


def _agreeing(
    pair: Pair, subject: Subject, values: tuple[str | None, str | None]
) -> tuple[str, str]:
    """At which end to set the other's value: at the destination, if it can have that one.

    What nobody set and follows from the releases is set at the newer one, for the older may not
    have the property; and what a device works out by itself cannot be written down.
    """
    at_source = values[0] is None or values[0] == BY_ITSELF
    versions = (pair.source.version, pair.destination.version)
    if not at_source and None not in (values[1], *versions) and not _given(pair, subject):
        older = not reaches(versions[0], versions[1]) if versions[0] and versions[1] else False
        at_source = older and values[1] != BY_ITSELF
    return ("source", values[1] or "") if at_source else ("destination", values[0] or "")


def _given(pair: Pair, subject: Subject) -> bool:
    """Whether somebody wrote the property at one of the ends."""
    family, _, key, name = subject
    entries = (side.find(family, key) for side in (pair.source, pair.destination))
    return any(entry is not None and name in entry.members for entry in entries)


def property_cure(subject: Subject, end: str, value: str) -> Cure:
    """The cure that sets a property, in the profile's words."""
    family, kind, key, name = subject
    where = WHERE.get(family, f"{family}s.{key or kind}.{{property}}: {{value}}")
    if (family, key) == _MAIN_RAM:
        where = f"memory.{{property}}: {{value}} (where objects.ram is written out, {where})"
    text = where.format(property=name, value=value or '""')
    at = "both ends" if end == "both" else f"the {end}"
    return Cure(end, f"{text} at {at}", *subject, value)


def _stubborn(pair: Pair, end: str, subject: Subject) -> bool:
    """Whether somebody set the value who is stronger than any platform."""
    side = pair.source if end == "source" else pair.destination
    family, _, key, name = subject
    owner = side.owner(family, key, name)
    return owner.startswith(("profile", "command line", "lock"))


def platform_cures(pair: Pair, subject: Subject, value: str) -> Iterator[Cure]:
    """The best named platform that gives a property this value, if there is one."""
    best = _best(pair, _platforms(pair, subject, value))
    if best is not None:
        yield _platform_cure(best, subject, value)


def _platform_cure(name: Name, subject: Subject, value: str) -> Cure:
    text = f"platform: {name.name} at both ends"
    return Cure("both", text, *subject, value, platform=name.name)


def _platforms(pair: Pair, subject: Subject, value: str) -> list[Name]:
    """The named platforms that pin a property to `value` and that both ends can run."""
    family, kind, _, name = subject
    found = []
    for one in runs_both(pair):
        pin = resolve(pair.know.catalogue, Platform(one.name, one.qemu, one.linux)).get(
            (family, kind, name)
        )
        if pin is not None and pin.value == value:
            found.append(one)
    return found


def _best(pair: Pair, names: list[Name]) -> Name | None:
    """The newest, of the distribution that an end has already if there is one."""
    sides = (pair.source, pair.destination)
    for like in (*(side.platform.partition("-")[0] for side in sides), "debian"):
        liked = [name for name in names if name.name.partition("-")[0] == like]
        if liked:
            names = liked
            break
    return max(names, key=lambda n: (n.qemu.numbers, n.name), default=None)


def settled(pair: Pair, findings: Iterable[Finding]) -> list[Finding]:
    """The findings with one platform for all that breaks, where one mends them all."""
    listed = list(findings)
    common: list[Name] | None = None
    for finding in listed:
        for cure in finding.cures if finding.severity == "breaks" else ():
            if cure.platform:
                mends = _platforms(pair, _subject(cure), cure.value)
                common = mends if common is None else [n for n in common if n in mends]
    best = _best(pair, common or [])
    if best is None:
        return listed
    return [_with_platform(finding, best) for finding in listed]


def _subject(cure: Cure) -> Subject:
    return (cure.family, cure.type, cure.id, cure.property)


def _with_platform(finding: Finding, best: Name) -> Finding:
    if finding.severity != "breaks":
        return finding
    cures = tuple(
        _platform_cure(best, _subject(cure), cure.value) if cure.platform else cure
        for cure in finding.cures
    )
    return replace(finding, cures=cures)


def runs_both(pair: Pair) -> list[Name]:
    """The named platforms whose floors both ends reach, as far as they are known."""
    sides = (pair.source, pair.destination)
    return [
        one
        for one in pair.know.catalogue.names.values()
        if all(s.version is None or reaches(one.qemu, s.version) for s in sides)
        and all(s.linux is None or reaches(one.linux, s.linux) for s in sides)
    ]
