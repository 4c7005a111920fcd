"""One property at two ends, judged by the rules: the only place where a rule becomes a finding."""

from __future__ import annotations

from launcher.platforms.rules import holds, matching
from launcher.preflight.cures import WHERE, cures_for, property_cure
from launcher.preflight.findings import Cure, Finding
from launcher.preflight.worth import is_harmless, is_value, member, rules_for, setting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from launcher.platforms.rules import Fact, Having, Knowledge, Rule
    from launcher.preflight.options import Entry
    from launcher.preflight.side import Side

_FAMILIES = ("migration-property", "migration-capability", "migration-parameter")
_TYPE = "migration"


class Pair:
    """Two ends and what is known beside them."""

    def __init__(
        self,
        source: Side,
        destination: Side,
        know: Knowledge,
        via: str = "",
        *,
        still: bool = False,
    ) -> None:
        self.source = source
        self.destination = destination
        self.know = know
        self.via = via
        #: whether the guest is known to stand still while it is sent
        self.still = still

    @property
    def partial(self) -> bool:
        """Whether a thing that is not known at one end may be there all the same."""
        return self.source.partial or self.destination.partial

    def settings(self, family: str, name: str) -> tuple[str | None, str | None]:
        """What one of migration's settings is worth at both ends."""
        know = self.know
        return (
            setting(know, self.source, family, name),
            setting(know, self.destination, family, name),
        )

    def agreed(self, conditions: Iterable[tuple[str, str]]) -> bool:
        """Whether both ends have these capabilities in these states."""
        return all(
            self.settings("migration-capability", name) == (state, state)
            for name, state in conditions
        )

    def fact(self, code: str) -> Fact:
        """What is known of one kind of difference between these binaries."""
        return self.know.rules.fact(code, self.source.version, self.destination.version)

    def finding(
        self,
        code: str,
        what: str,
        values: tuple[object, object],
        *,
        subject: tuple[str, str, str, str],
        cures: tuple[Cure, ...] = (),
    ) -> Finding:
        """A finding of a kind that the rules describe as a whole.

        Args:
            code: the kind.
            what: what differs, the beginning of the sentence.
            values: at the source and at the destination.
            subject: family, type, id, property.
            cures: how to mend it.
        """
        fact = self.fact(code)
        words = fact.words or ("",)
        return Finding(
            code,
            fact.severity,
            *subject,
            *values,
            f"{what}: {fact.then}",
            words[0],
            cures,
            fact.ref,
            words[1:],
        )


# -- migration's own settings ---------------------------------------------------------------------


def settings_findings(pair: Pair) -> Iterator[Finding]:
    """Properties, capabilities and parameters of migration that do not go together."""
    tables = pair.know.rules.properties
    for family in _FAMILIES:
        names = [n for n in tables[family, _TYPE] if n != "*"]
        given = {**pair.source.settings, **pair.destination.settings}
        names += [n for f, n in given if f == family and n not in names]
        for name in names:
            values = pair.settings(family, name)
            told = (family, name) in given
            found = judge(pair, (family, _TYPE, _TYPE, name), values)
            # What merely follows from the releases is worth a word only when it matters.
            yield from (one for one in found if told or one.severity != "harmless")


# -- one property ---------------------------------------------------------------------------------


def members_findings(
    pair: Pair,
    source: Entry,
    destination: Entry,
    *,
    names: Iterable[str] | None = None,
    without: Iterable[str] = (),
    modern: bool = False,
) -> Iterator[Finding]:
    """The members of one thing that is at both ends; `modern`: a virtio device without legacy."""
    know = pair.know
    known = names if names is not None else _members(pair, source, destination)
    listed = [name for name in known if name not in without]
    for name in listed:
        values = (
            member(know, pair.source, source, name),
            member(know, pair.destination, destination, name),
        )
        subject = (source.family, source.type, destination.id or source.id, name)
        given = name in source.members or name in destination.members
        found = judge(pair, subject, values, modern=modern)
        yield from (one for one in found if given or one.severity != "harmless")


def _members(pair: Pair, source: Entry, destination: Entry) -> list[str]:
    """What is set at either end, and what the defaults of releases know of."""
    known = [
        name
        for (family, kind), table in pair.know.rules.defaults.items()
        if family == source.family and kind == source.type
        for name in table
    ]
    return list(dict.fromkeys((*source.members, *destination.members, *known)))


def judge(
    pair: Pair,
    subject: tuple[str, str, str, str],
    values: tuple[str | None, str | None],
    *,
    modern: bool = False,
) -> Iterator[Finding]:
    """What a property's two values do to the migration, if anything.

    Args:
        pair: the two ends.
        subject: family, type, id, property.
        values: at the source and at the destination; None: nobody sets it.
        modern: it is a virtio device that does not speak the protocol before 1.0.
    """
    family, kind, _, name = subject
    differ = values[0] != values[1]
    if is_harmless(pair.know, family, kind, name):
        return
    rules = rules_for(pair.know, family, kind, name)
    fitting = (rule for rule in rules or () if not (rule.legacy and modern))
    found = first(pair, fitting, subject, values)
    if found is not None:
        yield found
    elif differ and rules is None and None in values and family in ("machine", "device", "object"):
        # What nobody set is what the machine type or the release says, which may be the same.
        yield _unknown(subject, values, "what the other end does by default is not known here")
    elif differ and rules is None:
        yield _unknown(subject, values, "what that does to the stream is not known here")


def first(
    pair: Pair,
    rules: Iterable[Rule],
    subject: tuple[str, str, str, str],
    values: tuple[str | None, str | None],
) -> Finding | None:
    """The finding of the first rule that fits, if one does."""
    return next((_finding(pair, r, subject, values) for r in rules if _fits(pair, r, values)), None)


def _unknown(
    subject: tuple[str, str, str, str], values: tuple[str | None, str | None], effect: str
) -> Finding:
    what = f"{said(subject)} {_values(values)}"
    end = "destination" if values[0] is not None else "source"
    value = values[0] if values[0] is not None else values[1] or ""
    cures = (property_cure(subject, end, value),)
    return Finding("property", "risks", *subject, *values, f"{what}: {effect}", "", cures, "")


def _fits(pair: Pair, rule: Rule, values: tuple[str | None, str | None]) -> bool:
    source, destination = values
    if rule.given:
        source, destination = (("on" if v else "off") for v in values)
    if not (holds(rule.from_, pair.source.version) and holds(rule.to, pair.destination.version)):
        return False
    if not pair.agreed(rule.agreed):
        return False
    if rule.machines and not matching([("", m) for m in rule.machines], "", pair.source.machine):
        return False
    if rule.devices and not any(_has(pair, one) for one in rule.devices):
        return False
    if rule.smaller:
        return _number(destination) < _number(source)
    if rule.source is None and rule.destination is None:
        return values[0] != values[1]
    fits = rule.source is None or source in rule.source
    return fits and (rule.destination is None or destination in rule.destination)


def _has(pair: Pair, wanted: Having) -> bool:
    """Whether the source has such a device."""
    table = [("", name) for name in wanted.types]
    return any(
        matching(table, "", device.type)
        and all(
            is_value(member(pair.know, pair.source, device, name), value)
            for name, value in wanted.values
        )
        for device in pair.source.of("device")
    )


def _number(text: str | None) -> int:
    """A member as a number; what is none is not compared."""
    return int(text) if text is not None and text.isdecimal() else 0


def _finding(
    pair: Pair,
    rule: Rule,
    subject: tuple[str, str, str, str],
    values: tuple[str | None, str | None],
) -> Finding:
    words, severity = rule.words or ("",), rule.severity
    code = "setting" if subject[0] in _FAMILIES else "property"
    message = f"{said(subject)} {_values(values)}: {rule.then}"
    differ_only = rule.source is None and rule.destination is None and not rule.smaller
    if severity == "breaks" and None in values and differ_only:
        severity, message = "risks", f"{message}, unless that is what it is by default"
    cures: tuple[Cure, ...] = ()
    if rule.severity != "harmless":
        cures = tuple(cures_for(pair, subject, rule.cures, values))
    return Finding(code, severity, *subject, *values, message, words[0], cures, rule.ref, words[1:])


def said(subject: tuple[str, str, str, str]) -> str:
    """A property for a message: `migration multifd`, `virtio-net-pci nic0 vectors`."""
    family, kind, key, name = subject
    if family in WHERE:
        return f"{family.partition('-')[0]} {name}"
    return " ".join(word for word in (kind, key, name) if word)


def _values(values: tuple[str | None, str | None]) -> str:
    source, destination = ("not set" if v is None else v or "empty" for v in values)
    if source == destination:
        return f"is {source} at both ends"
    return f"is {source} at the source and {destination} at the destination"
