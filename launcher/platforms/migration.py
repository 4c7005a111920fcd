"""Reading migration.yaml: the file as `Rules`, with every mistake in it at its place. Pure."""

from __future__ import annotations

from launcher.errors import InputErrors
from launcher.nodes import Mapping, Scalar
from launcher.platforms.catalogue import FAMILIES
from launcher.platforms.reader import Reader
from launcher.platforms.rules import (
    Between,
    Blocked,
    Default,
    Emulated,
    Fact,
    Having,
    Layout,
    Offer,
    Rule,
    Rules,
)
from launcher.platforms.versions import ALWAYS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from launcher.nodes import Node

SEVERITIES = ("breaks", "risks", "harmless")
ENDS = ("source", "destination", "both")
#: Families of migration.yaml that are no families of a plan's values.
_MORE = ("smp", "memory", "cpu", "numa", "boot", "uuid")
_BETWEEN = (
    *("from", "to", "having", "unless", "after", "guest", "severity", "words", "then"),
    *("cure", "ref"),
)
_RULE = (
    *("source", "destination", "from", "to", "with", "given", "severity", "words", "then"),
    *("machine", "smaller", "legacy", "device", "cure", "ref"),
)

_SECTIONS = (
    *("properties", "harmless", "defaults", "blocked", "between", "stateless", "alike"),
    *("facts", "offers", "tcg", "machines", "seats", "roms", "rom-blocks", "romsize"),
    *("instances", "transports"),
)


def read_rules(tree: Mapping) -> Rules:
    """The rules of a parsed migration.yaml.

    Raises:
        InputErrors: everything that is wrong in it, each with its place.
    """
    reader = Reader()
    reader.keys(tree, _SECTIONS, _SECTIONS)
    rules = Rules(
        properties={k: _rules(reader, body) for k, body in _typed(reader, tree, "properties")},
        harmless={k: frozenset(body.items) for k, body in _typed(reader, tree, "harmless")},
        defaults={k: _defaults(reader, body) for k, body in _typed(reader, tree, "defaults")},
        blocked=_blocked(reader, tree),
        between=_between(reader, tree),
        stateless=frozenset(_words(reader, tree, "stateless")),
        alike={name: tuple(text.split()) for name, text in reader.pairs(tree, "alike")},
        facts=_facts(reader, tree),
        offers=tuple(_offers(reader, tree)),
        layouts=dict(_layouts(reader, tree)),
        emulated=tuple(_emulated(reader, tree)),
        seats=dict(reader.pairs(tree, "seats")),
        roms=dict(reader.pairs(tree, "roms")),
        rom_blocks=dict(reader.pairs(tree, "rom-blocks")),
        romsize=reader.range(tree, "romsize"),
        instances={
            name: reader.range(body, "numbered")
            for name, body in reader.entries(tree.get("instances"), "instances")
        },
        transports={
            via: _rules(reader, body)
            for via, body in reader.entries(tree.get("transports"), "transports")
        },
    )
    if reader.mistakes:
        raise InputErrors(reader.mistakes)
    return rules


def _typed(
    reader: Reader, tree: Mapping, section: str
) -> Iterator[tuple[tuple[str, str], Mapping]]:
    """((family, type), body) of a section; `a b` as a type stands for both."""
    outer = reader.mapping(tree.get(section), section)
    if outer is None:
        return
    reader.keys(outer, (*FAMILIES, *_MORE))
    for family, node in outer.items.items():
        for types, body in reader.entries(node, f"{section} {family}"):
            for one in types.split():
                yield (family, one), body


def _words(reader: Reader, body: Mapping, key: str) -> tuple[str, ...]:
    """Text or a list of texts under `key`."""
    node = body.get(key)
    if node is None:
        return ()
    listed = (node,) if isinstance(node, Scalar) else reader.list(node, key)
    return tuple(item.text for item in listed if isinstance(item, Scalar))


def _rules(reader: Reader, body: Mapping) -> dict[str, tuple[Rule, ...]]:
    """Property → its rules; `a b` as a property stands for both."""
    found: dict[str, tuple[Rule, ...]] = {}
    for names, node in body.items.items():
        made = tuple(_rule(reader, one) for one in _mappings(reader, node, names))
        found |= dict.fromkeys(names.split(), made)
    return found


def _mappings(reader: Reader, node: Node, what: str) -> Iterator[Mapping]:
    for item in reader.list(node, what):
        body = reader.mapping(item, f"an entry of {what}")
        if body is not None:
            yield body


def _values(reader: Reader, body: Mapping, key: str) -> tuple[str, ...] | None:
    return _words(reader, body, key) if key in body.items else None


def _rule(reader: Reader, body: Mapping) -> Rule:
    reader.keys(body, _RULE, ("severity", "then", "ref"))
    return Rule(
        source=_values(reader, body, "source"),
        destination=_values(reader, body, "destination"),
        from_=reader.range(body, "from"),
        to=reader.range(body, "to"),
        agreed=reader.pairs(body, "with"),
        given=reader.text(body, "given") == "on",
        severity=reader.choice(body, "severity", SEVERITIES, "risks"),
        words=_words(reader, body, "words"),
        then=reader.text(body, "then") or "",
        cures=_cures(reader, body),
        ref=reader.text(body, "ref") or "",
        machines=_words(reader, body, "machine"),
        smaller=reader.choice(body, "smaller", ("destination",), "") == "destination",
        legacy=reader.text(body, "legacy") == "on",
        devices=tuple(_having(reader, body)),
    )


def _having(reader: Reader, body: Mapping) -> Iterator[Having]:
    for one in _mappings(reader, body.items["device"], "device") if "device" in body.items else ():
        reader.keys(one, ("type", "having"), ("type",))
        yield Having(_words(reader, one, "type"), reader.pairs(one, "having"))


def _cures(reader: Reader, body: Mapping) -> tuple[tuple[str, str], ...]:
    cures = reader.pairs(body, "cure")
    for end, _ in cures:
        if end not in ENDS:
            reader.wrong(body.items["cure"].place, f"there is no end {end!r}", " | ".join(ENDS))
    return cures


def _defaults(reader: Reader, body: Mapping) -> dict[str, tuple[Default, ...]]:
    found: dict[str, tuple[Default, ...]] = {}
    for name, node in body.items.items():
        if isinstance(node, Scalar):
            found[name] = (Default(ALWAYS, node.text),)
            continue
        found[name] = tuple(
            Default(reader.range(one), reader.text(one, "value") or "")
            for one in _mappings(reader, node, name)
        )
    return found


def _listed(
    reader: Reader, tree: Mapping, section: str
) -> Iterator[tuple[tuple[str, str], tuple[Mapping, ...]]]:
    """((family, type), entries) of a section of lists; `a b` as a type stands for both."""
    outer = reader.mapping(tree.get(section), section)
    for family, node in outer.items.items() if outer else ():
        types = reader.mapping(node, f"{section} {family}")
        for names, entries in types.items.items() if types else ():
            bodies = tuple(_mappings(reader, entries, names))
            for one in names.split():
                yield (family, one), bodies


def _blocked(reader: Reader, tree: Mapping) -> dict[tuple[str, str], tuple[Blocked, ...]]:
    def one(body: Mapping) -> Blocked:
        reader.keys(body, ("qemu", "machine", "there", "words", "ref"), ("words", "ref"))
        words, ref = reader.text(body, "words") or "", reader.text(body, "ref") or ""
        there = reader.text(body, "there") == "on"
        return Blocked(reader.range(body), reader.range(body, "machine"), words, ref, there)

    return {key: tuple(map(one, bodies)) for key, bodies in _listed(reader, tree, "blocked")}


def _between(reader: Reader, tree: Mapping) -> dict[tuple[str, str], tuple[Between, ...]]:
    def one(body: Mapping) -> Between:
        reader.keys(body, _BETWEEN, ("severity", "then", "ref"))
        return Between(
            from_=reader.range(body, "from"),
            to=reader.range(body, "to"),
            having=reader.pairs(body, "having"),
            unless=reader.pairs(body, "unless"),
            running=reader.choice(body, "guest", ("runs", "any"), "any") == "runs",
            severity=reader.choice(body, "severity", SEVERITIES, "risks"),
            words=_words(reader, body, "words"),
            then=reader.text(body, "then") or "",
            cures=_cures(reader, body),
            ref=reader.text(body, "ref") or "",
            after=_words(reader, body, "after"),
        )

    return {key: tuple(map(one, bodies)) for key, bodies in _listed(reader, tree, "between")}


def _facts(reader: Reader, tree: Mapping) -> dict[str, tuple[Fact, ...]]:
    outer = reader.mapping(tree.get("facts"), "facts")
    found = {}
    for code, node in outer.items.items() if outer else ():
        made = []
        for body in _mappings(reader, node, code):
            known = ("severity", "words", "then", "ref", "from", "to")
            reader.keys(body, known, ("severity", "then", "ref"))
            made.append(
                Fact(
                    reader.choice(body, "severity", SEVERITIES, "risks"),
                    _words(reader, body, "words"),
                    reader.text(body, "then") or "",
                    reader.text(body, "ref") or "",
                    reader.range(body, "from"),
                    reader.range(body, "to"),
                )
            )
        found[code] = tuple(made)
    return found


def _offers(reader: Reader, tree: Mapping) -> Iterator[Offer]:
    for feature, body in reader.entries(tree.get("offers"), "offers"):
        reader.keys(body, ("properties", "since", "code"), ("code",))
        properties = _words(reader, body, "properties")
        since = reader.version(body, "since")
        yield Offer(feature, properties, since, reader.text(body, "code") or "")


def _emulated(reader: Reader, tree: Mapping) -> Iterator[Emulated]:
    for body in _mappings(reader, tree.items["tcg"], "tcg") if "tcg" in tree.items else ():
        known = ("features", "since", "models", "code")
        reader.keys(body, known, known)
        since = reader.version(body, "since")
        if since is not None:
            features, models = _words(reader, body, "features"), _words(reader, body, "models")
            yield Emulated(features, since, models, reader.text(body, "code") or "")


def _layouts(reader: Reader, tree: Mapping) -> Iterator[tuple[str, Layout]]:
    for name, body in reader.entries(tree.get("machines"), "machines"):
        reader.keys(body, ("ram", "bus", "slot", "firmware", "firmware-acpi"), ("ram",))
        slot = reader.text(body, "slot") or "0"
        yield (
            name,
            Layout(
                reader.text(body, "ram") or "",
                reader.text(body, "bus") or "",
                int(slot) if slot.isdigit() else 0,
                reader.text(body, "firmware") or "",
                reader.text(body, "firmware-acpi") or "",
            ),
        )
