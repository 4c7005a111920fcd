"""What the releases of the two ends do to a thing that the source has, whatever is set of it."""

from __future__ import annotations

from launcher.platforms.rules import holds, matching
from launcher.preflight.findings import Cure, Finding
from launcher.preflight.options import Entry, as_words
from launcher.preflight.seats import seats
from launcher.preflight.worth import is_value, member, setting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from launcher.platforms.rules import Between
    from launcher.preflight.agree import Pair
    from launcher.preflight.side import Side


def between_findings(pair: Pair) -> Iterator[Finding]:
    """One finding for each thing of the source that a release at the other end does not take."""
    tables = pair.know.rules.between
    there = _opposite(pair)
    entries = [entry for entry in pair.source.entries if entry.family != "accel"]
    for entry in (*entries, Entry("accel", pair.source.accel, "accel", {})):
        kinds = matching(tables, entry.family, entry.type)
        rules = tables[entry.family, kinds[0]] if kinds else ()
        rule = next((r for r in rules if _holds(pair, r, entry, there.get(id(entry)))), None)
        if rule is not None:
            yield _finding(pair, rule, entry)


def _opposite(pair: Pair) -> dict[int, Entry]:
    """The destination's device in the place of each of the source's, by that one's identity.

    Where places are not known, ids must do.
    """
    if pair.partial:
        same = (
            (here, pair.destination.find("device", here.id)) for here in pair.source.of("device")
        )
        return {id(here): there for here, there in same if there is not None}
    source, destination = seats(pair, pair.source), seats(pair, pair.destination)
    return {id(here): destination[place] for place, here in source.items() if place in destination}


def _holds(pair: Pair, rule: Between, entry: Entry, there: Entry | None) -> bool:
    source, destination = pair.source, pair.destination
    if not (holds(rule.from_, source.version) and holds(rule.to, destination.version)):
        return False
    if rule.running and pair.still:
        return False
    if rule.after and not _is_after(pair, rule.after, there):
        return False
    if not all(is_value(_worth(pair, source, entry, name), value) for name, value in rule.having):
        return False
    return not any(_worth(pair, destination, there, name) == value for name, value in rule.unless)


def _is_after(pair: Pair, types: tuple[str, ...], there: Entry | None) -> bool:
    """Whether the destination makes a device of one of these types before this one."""
    listed = pair.destination.of("device")
    at = next((n for n, one in enumerate(listed) if one is there), 0)
    return any(one.type in types for one in listed[:at])


def _worth(pair: Pair, side: Side, entry: Entry | None, name: str) -> str | None:
    """What a member is worth at one end: a thing's, the machine's, boot's, CPU's, or a type's.

    `migration.NAME` is a capability; a type's is what `-global` says.
    """
    kind, dot, key = name.partition(".")
    if not dot:
        return member(pair.know, side, entry, name) if entry is not None else None
    if kind == "migration":
        return setting(pair.know, side, "migration-capability", key)
    if kind in ("machine", "boot", "cpu"):
        what = side.machine if kind == "machine" else kind
        return member(pair.know, side, Entry(kind, what, kind, side.one(kind).members), key)
    given = [e.members[key] for e in side.of("global") if e.type == kind and key in e.members]
    if given:
        return given[-1]
    compat = (side.compat or {}).get((kind, key))
    return None if compat is None else as_words(compat)


def _finding(pair: Pair, rule: Between, entry: Entry) -> Finding:
    what = f"{entry.type} {entry.id}".rstrip() if entry.family != "accel" else entry.type
    words = rule.words or ("",)
    subject = (entry.family, entry.type, entry.id, "")
    ends = (pair.source.name, pair.destination.name)
    cures = tuple(
        Cure(end, text.replace("{id}", entry.id or entry.type), *subject[:3])
        for end, text in rule.cures
    )
    return Finding(
        *("releases", rule.severity, *subject, *ends),
        f"{what} goes from {ends[0]} to {ends[1]}: {rule.then}",
        words[0],
        cures,
        rule.ref,
        words[1:],
    )
