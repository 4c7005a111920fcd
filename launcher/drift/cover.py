"""Which row, addition, removal, rename or waiver covers a change. The rule: docs/drift.md."""

from __future__ import annotations

from launcher.drift.waivers import Waiver, plain
from launcher.platforms import parse_qemu_version
from launcher.platforms.changes import WORDS
from launcher.platforms.steps import came, following, went
from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from launcher.drift.compare import Change, Comparison
    from launcher.errors import Place
    from launcher.platforms import Catalogue, Rename, Row, Version

#: Migration's object has every parameter and capability once more, some as `x-NAME`.
_TWICE = ("migration-parameter", "migration-capability")
_COMPAT_FAMILIES = {"chardev-": "chardev", "memory-backend-": "object", "sev-": "object"}
#: Two facets are about the word itself; all others are about its value or its form.
_WORD = "word"


@record
class By:
    """What covers a change: a piece of platform data, and what it says."""

    kind: str  # "row" | "added" | "removed" | "renamed" | "hazard" | "waiver"
    file: str
    line: int
    release: str | None
    was: str | None
    now: str | None
    affects: str | None
    why: str
    ref: str


@record
class Cover:
    """The judgement on one change."""

    verdict: str  # "covered" | "waived" | "uncovered"
    by: By | None


class Covering:
    """Finds the cover of the changes between two binaries.

    Args:
        catalogue: the platform data.
        waivers: in the order of their file; the first that matches counts.
        compared: the two sides, for their releases.
    """

    def __init__(
        self, catalogue: Catalogue, waivers: Sequence[Waiver], compared: Comparison
    ) -> None:
        self.catalogue = catalogue
        self.waivers = waivers
        self.old = parse_qemu_version(compared.old.head.version)
        self.new = parse_qemu_version(compared.new.head.version)
        self.used: set[Waiver] = set()

    def cover(self, change: Change) -> Cover:
        """What covers a change."""
        for key in _keys(change):
            by = self._by_data(key, change)
            if by is not None:
                return Cover("covered", by)
        for waiver in self.waivers:
            if waiver.matches(change, self.old, self.new):
                self.used.add(waiver)
                file, line = _file(waiver.place), waiver.place.line
                by = By("waiver", file, line, None, None, None, None, waiver.because, "")
                return Cover("waived", by)
        return Cover("uncovered", None)

    def _by_data(self, key: tuple[str, str, str], change: Change) -> By | None:
        if change.facet in ("value", "default"):
            return self._row(key, change)
        if change.facet == "instance":
            return self._hazard(key) or self._gone(key)
        if change.facet == _WORD or change.facet.startswith("takes "):
            return self._appeared(key) if change.change == "appeared" else self._gone(key)
        return None

    # -- values -------------------------------------------------------------------------------

    def _row(self, key: tuple[str, str, str], change: Change) -> By | None:
        """The last row between the two releases, when it and the first say what was seen."""
        rows = [r for r in self.catalogue.rows(key) if self._between(r.release)]
        if change.change == "appeared":
            return self._appeared(key)
        if not rows or change.change == "gone":
            return None
        was, now = rows[0].was, rows[-1].now
        says = _says(was, change.old) and (now is None or _says(now, change.new))
        return _by_row(rows[-1]) if says else None

    def _between(self, release: Version | None) -> bool:
        return came(release, self.old, self.new)

    def _hazard(self, key: tuple[str, str, str]) -> By | None:
        """A type that ends one of the two when it is made, and not the other."""
        for one in self.catalogue.hazards:
            makes = one.command == "object-add" and ("qom-type", key[1]) in one.arguments
            if makes and one.knows.contains(self.old) is not one.knows.contains(self.new):
                until = str(one.knows.until) if one.knows.until is not None else None
                place = ("hazards.yaml", 0, until, None, None, None)
                return By("hazard", *place, one.effect, one.ref)
        return None

    # -- words --------------------------------------------------------------------------------

    def _appeared(self, key: tuple[str, str, str]) -> By | None:
        for one in _wider(key):
            for row in self.catalogue.rows(one):
                if self._between(row.knows.from_):
                    return _by_row(row)
            rename = self.catalogue.renames.get(one)
            if rename is not None and self._between(rename.from_):
                release = str(rename.from_)
                return _by("renamed", release, rename.old, rename.new, rename.why, rename.ref)
            old = self._old_word(one)
            if old is not None and self._between(old.old_from):
                why = f"{old.new} is its name from {old.from_} on"
                return _by("renamed", str(old.from_), old.old, old.new, why, old.ref)
            since = self.catalogue.additions.get(one)
            if since is not None and self._between(since):
                why = f"QEMU learned it in {since}; before, the binary does not know the word."
                return _by("added", str(since), None, None, why, "")
        return None

    def _gone(self, key: tuple[str, str, str]) -> By | None:
        for one in _wider(key):
            rename = self._old_word(one)
            if rename is not None and self._left(rename.old_until):
                release = str(rename.from_)
                return _by("renamed", release, rename.old, rename.new, rename.why, rename.ref)
            removal = self.catalogue.removals.get(one)
            if removal is not None and self._left(removal.until):
                why = f"instead: {removal.instead}"
                release = following(removal.until)
                return _by("removed", release, None, None, why, removal.ref)
        return None

    def _old_word(self, key: tuple[str, str, str]) -> Rename | None:
        """The rename of an old word; an old option of the command line goes by its own name."""
        found = self.catalogue.old_words.get(key)
        if found is None and key[0] == "command-line":
            for rename in self.catalogue.renames.values():
                if rename.old == key[1] and rename.family == "command-line":
                    return rename
                if rename.old == f"-{key[1]}":
                    return rename
                if (rename.family, rename.old) == (key[1], key[2]):
                    return rename
        return found

    def _left(self, until: Version | None) -> bool:
        """Whether the newer of the two refuses a word. The older may show it without taking it."""
        return went(until, self.new)


def _wider(key: tuple[str, str, str]) -> Iterator[tuple[str, str, str]]:
    """A key, then what holds it: `server` of `server.host`, the word of all types, the type."""
    family, type_, name = key
    while name:
        yield family, type_, name
        yield family, "*", name
        name = name.rpartition("." if "=" not in name else "=")[0]
    yield family, type_, "*"


def _keys(change: Change) -> Iterator[tuple[str, str, str]]:
    """The keys under which the platform data may speak of a change."""
    family, type_, name = change.family, change.type, change.property
    if change.facet.startswith("takes "):
        name += "=" + change.facet.removeprefix("takes ")
    if family in WORDS:
        yield family, type_, name
    if family == "migration-property":
        for other in _TWICE:
            yield other, type_, name.removeprefix("x-")
            yield other, type_, name
    if family == "migration-parameter":
        yield "migration-property", type_, name
    if family == "compat":
        yield "machine", type_, "*"
        yield from _compat_keys(name)


def _compat_keys(name: str) -> Iterator[tuple[str, str, str]]:
    """`chardev-vc.encoding` is the chardev vc's encoding; `migration.…` the object's property."""
    qom_type, _, word = name.partition(".")
    if qom_type == "migration":
        yield "migration-property", "migration", word
        yield "migration-parameter", "migration", word
    for prefix, family in _COMPAT_FAMILIES.items():
        if qom_type.startswith(prefix):
            type_ = qom_type.removeprefix(prefix) if family == "chardev" else qom_type
            yield family, type_, word


def _says(said: str | None, seen: object) -> bool:
    """Whether a row's text is the value that was seen. A template is the number of CPUs."""
    if said is None:
        return False
    if said == "${smp}":
        return str(seen).isdigit()
    return said == plain(seen)


def _by_row(row: Row) -> By:
    return By(
        "row",
        _file(row.place),
        row.place.line,
        str(row.release) if row.release is not None else None,
        row.was,
        row.now,
        row.affects,
        row.why,
        row.ref,
    )


def _by(kind: str, release: str, was: str | None, now: str | None, why: str, ref: str) -> By:
    return By(kind, f"qemu/{release}.yaml", 0, release, was, now, None, why, ref)


def _file(place: Place) -> str:
    """The last two parts of a path: `qemu/11.1.yaml`."""
    return "/".join(place.file.split("/")[-2:])
