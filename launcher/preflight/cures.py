"""How a difference is mended: a property in the profile's words, or a platform for both ends."""

from __future__ import annotations

from launcher.platforms import Platform, reaches, resolve
from launcher.preflight.findings import Cure, Finding
from launcher.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from launcher.platforms import Name
    from launcher.preflight.agree import Pair

    #: family, type, id, property
    Subject = tuple[str, str, str, str]

_SAME = "same"
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
        if value == _SAME:
            value = values[0] if values[0] is not None else values[1] or ""
            end = "destination" if values[0] is not None else "source"
        ends = ("source", "destination") if end == "both" else (end,)
        if not any(_stubborn(pair, one, subject) for one in ends):
            yield from platform_cures(pair, subject, value)
        yield property_cure(subject, end, value)


def property_cure(subject: Subject, end: str, value: str) -> Cure:
    """The cure that sets a property, in the profile's words."""
    family, kind, key, name = subject
    where = WHERE.get(family, f"{family}s.{key or kind}.{{property}}: {{value}}")
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
