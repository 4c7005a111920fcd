"""Putting the files of this folder together: `build_catalogue`, and the checks across files."""

from __future__ import annotations

from launcher.errors import InputError, InputErrors, Place
from launcher.platforms.catalogue import Catalogue
from launcher.platforms.changes import read_changes
from launcher.platforms.reader import Reader, nearest
from launcher.platforms.tables import read_hazards, read_names, read_observers, read_syntax
from launcher.platforms.versions import parse_version

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.nodes import Mapping
    from launcher.platforms.catalogue import Key, Removal, Rename, Row
    from launcher.platforms.changes import Changes
    from launcher.platforms.versions import Version

_TABLES = ("names.yaml", "observers.yaml", "syntax.yaml", "hazards.yaml")


def build_catalogue(files: dict[str, Mapping]) -> Catalogue:
    """The catalogue of parsed files, keyed by their path below this folder (`qemu/10.0.yaml`).

    Raises:
        InputErrors: everything that is wrong in them, each with its place.
    """
    reader = Reader()
    changes = _read_all(reader, files)
    qemu = _rows(reader, [(v, c) for axis, v, c in changes if axis == "qemu"])
    linux = _rows(reader, [(v, c) for axis, v, c in changes if axis == "linux"])
    for key in sorted(qemu.keys() & linux.keys()):
        message = f"{_said(key)} has changes in QEMU and in Linux: no rule says which wins"
        reader.wrong(linux[key][0].place, message)
    releases = [version for axis, version, _ in changes if axis == "qemu"]
    if not releases:
        reader.wrong(Place("qemu"), "no release file qemu/<release>.yaml")
    missing = [name for name in _TABLES if name not in files]
    for name in missing:
        reader.wrong(Place(name), "is missing")
    if missing or not releases:
        raise InputErrors(reader.mistakes)
    renames = _renames([c for _, _, c in changes])
    catalogue = Catalogue(
        qemu=qemu,
        linux=linux,
        renames=renames,
        old_words={(r.family, r.type, r.old): r for r in renames.values()},
        removals=_removals([c for _, _, c in changes]),
        additions=_additions([(v, c) for axis, v, c in changes if axis == "qemu"]),
        observers=read_observers(reader, files["observers.yaml"]),
        syntax=read_syntax(reader, files["syntax.yaml"]),
        hazards=read_hazards(reader, files["hazards.yaml"]),
        names=read_names(reader, files["names.yaml"]),
        oldest=min(releases),
        newest=max(releases),
    )
    if reader.mistakes:
        raise InputErrors(reader.mistakes)
    return catalogue


def _said(key: Key) -> str:
    return f"{key[0]} {key[1]}.{key[2]}"


def _read_all(reader: Reader, files: dict[str, Mapping]) -> list[tuple[str, Version, Changes]]:
    """(axis, release, what the file says), oldest release first."""
    found = []
    for path, tree in files.items():
        if path in _TABLES:
            continue
        axis, _, name = path.partition("/")
        if axis not in ("qemu", "linux") or not name.endswith(".yaml"):
            hint = nearest(path, _TABLES) or "known: qemu/<release>.yaml, linux/<release>.yaml"
            reader.wrong(tree.place, f"{path} is no file of the platform data", hint)
            continue
        try:
            release = parse_version(name.removesuffix(".yaml"), tree.place)
        except InputError as error:
            reader.mistakes.append(error)
            continue
        found.append((axis, release, read_changes(reader, axis, release, tree)))
    return sorted(found, key=lambda entry: (entry[0], entry[1].numbers))


def _rows(reader: Reader, files: list[tuple[Version, Changes]]) -> dict[Key, tuple[Row, ...]]:
    """The rows of one axis by property; `was` of each must be `now` of the one before."""
    chains: dict[Key, list[Row]] = {}
    for _, changes in files:
        for row in changes.rows:
            chain = chains.setdefault(row.key, [])
            _check_link(reader, chain[-1] if chain else None, row)
            chain.append(row)
    return {key: tuple(chain) for key, chain in chains.items()}


def _check_link(reader: Reader, before: Row | None, row: Row) -> None:
    said = _said(row.key)
    if before is None:
        return
    if before.release == row.release:
        reader.wrong(row.place, f"{said} stands twice in the file of {row.release}")
    elif before.now != row.was:
        message = f"{said} was {row.was!r} before {row.release}, but {before.release} made it"
        reader.wrong(row.place, f"{message} {before.now!r}")
    elif row.was == row.now:
        reader.wrong(row.place, f"{said} does not change in {row.release}")


def _renames(files: list[Changes]) -> dict[Key, Rename]:
    return {(r.family, r.type, r.new): r for changes in files for r in changes.renames}


def _removals(files: list[Changes]) -> dict[Key, Removal]:
    return {(r.family, r.type, r.property): r for changes in files for r in changes.removals}


def _additions(files: list[tuple[Version, Changes]]) -> dict[Key, Version]:
    """The first release that has each word: later files may only repeat it."""
    found: dict[Key, Version] = {}
    for release, changes in files:
        for key in changes.additions:
            found.setdefault(key, release)
    return found
