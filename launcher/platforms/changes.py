"""Reading qemu/<release>.yaml and linux/<release>.yaml."""

from __future__ import annotations

from launcher.nodes import Mapping, Scalar, Sequence
from launcher.platforms.catalogue import (
    FAMILIES,
    Cannot,
    Removal,
    Rename,
    Row,
    Write,
)
from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from launcher.platforms.catalogue import Key
    from launcher.platforms.reader import Reader
    from launcher.platforms.versions import Version

AFFECTS = ("migration", "guest", "host", "command-line", "performance")
#: Besides the families, renames, removals and additions know the command line's own options, and
#: what the monitor speaks.
WORDS = (*FAMILIES, "command-line", "qmp-command", "qmp-event")
_RENAME = ("old", "from", "old-from", "old-until", "factor", "why", "ref")
_ROW = (
    "was",
    "now",
    "affects",
    "qemu",
    "otherwise",
    "translate",
    "cannot",
    "when",
    "needs",
    "machine",
    "why",
    "ref",
)


@record
class Changes:
    """What one file says, in file order."""

    rows: tuple[Row, ...]
    renames: tuple[Rename, ...]
    removals: tuple[Removal, ...]
    additions: tuple[Key, ...]


def read_changes(reader: Reader, axis: str, release: Version, tree: Mapping) -> Changes:
    """The entries of one file; mistakes go to `reader`."""
    reader.keys(tree, (*FAMILIES, "renamed", "removed", "added"))
    rows = [
        read_row(reader, (axis, release), key, body)
        for family in FAMILIES
        for key, body in _properties(reader, family, tree.get(family))
    ]
    renames = [_rename(reader, key, body) for key, body in _words(reader, tree, "renamed")]
    removals = [_removal(reader, key, body) for key, body in _words(reader, tree, "removed")]
    return Changes(
        tuple(rows),
        tuple(r for r in renames if r is not None),
        tuple(r for r in removals if r is not None),
        tuple(_additions(reader, tree)),
    )


def _properties(reader: Reader, family: str, node: object) -> Iterator[tuple[Key, Mapping]]:
    """Each (family, type, property) with its body; `a b` as a type stands for both."""
    for types, properties in reader.entries(node, family):  # type: ignore[arg-type]
        for name, body in reader.entries(properties, f"{family} {types}"):
            for type_ in types.split():
                yield (family, type_, name), body


def read_row(reader: Reader, origin: tuple[str, Version], key: Key, body: Mapping) -> Row:
    """One row of a change file."""
    reader.keys(body, _ROW, ("now", "affects", "why", "ref"))
    axis, release = origin
    otherwise = reader.choice(body, "otherwise", ("omit", "fail"), "")
    return Row(
        axis=axis,
        release=release,
        family=key[0],
        type=key[1],
        property=key[2],
        was=reader.text(body, "was"),
        now=reader.text(body, "now"),
        affects=reader.choice(body, "affects", AFFECTS, "guest"),
        knows=reader.range(body),
        otherwise=otherwise or None,
        translate=tuple(_writes(reader, body)),
        cannot=tuple(_cannots(reader, body)),
        when=read_when(reader, body),
        needs=reader.text(body, "needs"),
        machine=reader.choice(body, "machine", ("unversioned", "any"), "any"),
        why=reader.text(body, "why") or "",
        ref=reader.text(body, "ref") or "",
        place=body.place,
    )


def _writes(reader: Reader, body: Mapping) -> Iterator[Write]:
    for node in reader.list(body.get("translate"), "translate"):
        entry = reader.mapping(node, "an entry of translate")
        if entry is not None:
            reader.keys(entry, ("qemu", "value", "write", "because"), ("value", "write", "because"))
            value, write = reader.text(entry, "value"), reader.text(entry, "write")
            because = reader.text(entry, "because") or ""
            yield Write(reader.range(entry), value or "", write or "", because)


def _cannots(reader: Reader, body: Mapping) -> Iterator[Cannot]:
    for node in reader.list(body.get("cannot"), "cannot"):
        entry = reader.mapping(node, "an entry of cannot")
        if entry is not None:
            reader.keys(entry, ("qemu", "value", "otherwise", "because"), ("value", "because"))
            otherwise = reader.choice(entry, "otherwise", ("omit", "fail"), "omit")
            because = reader.text(entry, "because") or ""
            value = reader.text(entry, "value") or ""
            yield Cannot(reader.range(entry), value, because, otherwise)


def read_when(reader: Reader, body: Mapping) -> tuple[tuple[str, tuple[str | None, ...]], ...]:
    """The conditions of a row: property → the values it may have, None for not being given."""
    inner = reader.mapping(body.get("when"), "when")
    found = []
    for name, node in inner.items.items() if inner else ():
        items = node.items if isinstance(node, Sequence) else (node,)
        values = []
        for item in items:
            if isinstance(item, Scalar):
                values.append(None if item.is_null else item.text)
            else:
                reader.wrong(item.place, f"when {name} must be a value or a list of values")
        found.append((name, tuple(values)))
    return tuple(found)


def _words(reader: Reader, tree: Mapping, section: str) -> Iterator[tuple[Key, Mapping]]:
    """The entries of `renamed` or `removed`; those of the command line have no type."""
    for family, types in reader.entries(tree.get(section), section):
        _check_family(reader, tree, section, family)
        if family != "command-line":
            yield from _properties(reader, family, types)
            continue
        for word, body in reader.entries(types, f"{section} command-line"):
            option, _, name = word.partition(".")
            yield ("command-line", option, name or "*"), body


def _check_family(reader: Reader, tree: Mapping, section: str, family: str) -> None:
    if family not in WORDS:
        place = tree.items[section].place
        reader.wrong(place, f"{section}: no family {family!r}", f"known: {', '.join(WORDS)}")


def _rename(reader: Reader, key: Key, body: Mapping) -> Rename | None:
    reader.keys(body, _RENAME, ("old", "from", "ref"))
    factor = reader.text(body, "factor") or "1"
    if not factor.isdigit() or factor == "0":
        reader.wrong(body.items["factor"].place, "factor must be a whole number")
        return None
    old, from_ = reader.text(body, "old"), reader.version(body, "from")
    if old is None or from_ is None:
        return None
    why, ref = reader.text(body, "why") or "", reader.text(body, "ref") or ""
    old_from, old_until = reader.version(body, "old-from"), reader.version(body, "old-until")
    return Rename(*key, old, from_, old_until, int(factor), why, ref, old_from)


def _removal(reader: Reader, key: Key, body: Mapping) -> Removal | None:
    reader.keys(body, ("until", "instead", "ref"), ("until", "instead", "ref"))
    until = reader.version(body, "until")
    if until is None:
        return None
    return Removal(*key, until, reader.text(body, "instead") or "", reader.text(body, "ref") or "")


def _additions(reader: Reader, tree: Mapping) -> Iterator[Key]:
    """The words that a release learned; an option of the command line is a type of its own."""
    for family, types in reader.entries(tree.get("added"), "added"):
        _check_family(reader, tree, "added", family)
        for type_, node in types.items.items():
            for item in reader.list(node, f"added {family} {type_}"):
                if isinstance(item, Scalar):
                    for one in type_.split():
                        yield (family, one, item.text)
                else:
                    reader.wrong(item.place, "an added name must be text")
