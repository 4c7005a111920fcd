"""What a property is worth at one end: set by somebody, by the machine type, or by the release."""

from __future__ import annotations

from launcher.platforms.rules import floor, holds, matching, worth
from launcher.preflight.options import as_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.platforms.rules import Default, Knowledge, Layout, Rule
    from launcher.preflight.options import Entry
    from launcher.preflight.side import Side

_TYPE = "migration"
#: A default of the data that stands for what the device works out when it starts.
BY_ITSELF = "by itself"
#: What is written and means that nobody says.
_AUTO = "auto"
#: Migration's properties and parameters name some settings twice; a capability's property may
#: have `x-` in front (migration/options.c).
_ALSO = {
    "migration-property": ("migration-parameter",),
    "migration-parameter": ("migration-property",),
    "migration-capability": ("migration-property",),
}


def setting(know: Knowledge, side: Side, family: str, name: str) -> str | None:
    """What one of migration's settings is worth at one end; None when it is not known."""
    for one in (family, *_ALSO[family]):
        for word in (name, f"x-{name}"):
            if (one, word) in side.settings:
                return side.settings[one, word]
    for one in (family, *_ALSO[family]):
        if side.told is not None and (one, name) in side.told:
            return side.told[one, name]
    if side.compat is not None and (_TYPE, name) in side.compat:
        return as_words(side.compat[_TYPE, name])
    machine = "" if side.compat is not None else side.machine
    for one in (family, *_ALSO[family]):
        found = worth(know.catalogue, (one, _TYPE, name), machine, side.version)
        if found is not None:
            return found
    return _default(know, side, family, _TYPE, name)


def member(know: Knowledge, side: Side, entry: Entry, name: str) -> str | None:
    """What one member of an entry is worth; None when nobody sets it and nothing is known."""
    given = entry.members.get(name)
    if given is not None and given != _AUTO:
        return given
    if side.compat is not None and (entry.type, name) in side.compat:
        return as_words(side.compat[entry.type, name])
    known = _default(know, side, entry.family, entry.type, name)
    if known == "{cpus}":
        return side.one("smp").members.get("cpus", "1")
    if known == "{tcg}":
        return "on" if side.accel == "tcg" else "off"
    if known is not None and known.startswith("{"):
        name, _, more = known[1:].partition("}+")
        other = member(know, side, entry, name) or ""
        return str(int(other) + int(more)) if other.isdecimal() else BY_ITSELF
    if known is None and given is not None:
        return given
    if known is None and side.defaults is not None:
        return side.defaults.get((entry.type, name))
    return known


def is_value(found: str | None, wanted: str) -> bool:
    """Whether a value is what a rule wants: `!1` is any but 1."""
    return found != wanted[1:] if wanted.startswith("!") else found == wanted


def _default(know: Knowledge, side: Side, family: str, kind: str, name: str) -> str | None:
    tables = know.rules.defaults
    at = floor(side.machine, side.version)
    for type_ in matching(tables, family, kind):
        table = tables[family, type_]
        listed: tuple[Default, ...] = table.get(name) or table.get("*") or ()
        for default in listed:
            if holds(default.knows, at):
                return default.value
    return None


def rules_for(know: Knowledge, family: str, kind: str, name: str) -> tuple[Rule, ...] | None:
    """The rules of one property: of its own type before those of all types. None: none known."""
    tables = know.rules.properties
    types = matching(tables, family, kind)
    for wanted in (name, "*"):
        for type_ in types:
            if wanted in tables[family, type_]:
                return tables[family, type_][wanted]
    return None


def is_harmless(know: Knowledge, family: str, kind: str, name: str) -> bool:
    """Whether a difference in one property says nothing about the stream.

    What is so of all types may not be so of one of them: then that one has a rule.
    """
    rules = know.rules.properties
    if any(name in rules[family, t] for t in matching(rules, family, kind) if t != "*"):
        return False
    tables = know.rules.harmless
    return any(name in tables[family, type_] for type_ in matching(tables, family, kind))


def canonical(know: Knowledge, side: Side, backend: Entry) -> bool:
    """Whether a memory backend's RAM block is called by its QOM path (hw_compat_3_1)."""
    return member(know, side, backend, "x-use-canonical-path-for-ramblock-id") == "on"


def layout_of(know: Knowledge, machine: str) -> Layout | None:
    """Where a machine type puts things; None when that is not known."""
    layouts = know.rules.layouts
    fits = matching([("", name) for name in layouts], "", machine)
    return layouts[fits[0]] if fits else None
