"""A platform is a floor; `resolve` says what every property is worth at that floor."""

from __future__ import annotations

from launcher.errors import InputError, InputErrors, Place
from launcher.platforms.catalogue import FAMILIES, Row
from launcher.platforms.changes import AFFECTS, read_when
from launcher.platforms.reader import Reader, nearest
from launcher.platforms.versions import ALWAYS, Range, parse_version
from launcher.record import record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.nodes import Mapping
    from launcher.platforms.catalogue import Catalogue, Key
    from launcher.platforms.versions import Version

_SITE_ROW = ("value", "affects", "why", "when", "ref")


@record
class Platform:
    """A named floor: the oldest QEMU and Linux that machines of this platform must run on.

    A floor that is None pins nothing of its axis. `overrides` are the rows of a site's own file.
    """

    name: str
    qemu: Version | None
    linux: Version | None
    overrides: tuple[Row, ...] = ()
    ref: str = ""


NATIVE = Platform("native", None, None, ref="nothing is pinned")


@record
class Pin:
    """The value that a platform gives one property.

    `value` may be the template `${smp}`: `spell` fills it in. `oldest_was` is what a binary does
    that does not know the property; `reason` is one sentence for `plan --explain`.
    """

    family: str
    type: str
    property: str
    value: str
    row: Row
    axis: str
    oldest_was: str | None
    knows: Range
    reason: str


def find_platform(catalogue: Catalogue, name: str, place: Place | None = None) -> Platform:
    """The platform `native`, `qemu-<release>` or a distribution's name.

    Raises:
        InputError: there is none of that name, or its QEMU is older than the data reaches.
    """
    if name == "native":
        return NATIVE
    known = catalogue.names.get(name)
    if known is not None:
        return Platform(name, known.qemu, known.linux, ref=known.ref)
    if name.startswith("qemu-"):
        return Platform(name, _floor(catalogue, name.removeprefix("qemu-"), place), None)
    hint = nearest(name, (*catalogue.names, "native", f"qemu-{catalogue.newest}"))
    if name in _releases(catalogue):
        hint = f"did you mean qemu-{name}?"
    raise InputError(
        f"there is no platform {name!r}",
        place=place,
        hint=hint or f"known: {', '.join(sorted(catalogue.names))}, native, qemu-<release>",
        code="platform",
    )


def _floor(catalogue: Catalogue, text: str, place: Place | None) -> Version:
    """A QEMU release as a floor: one that exists and that the data reaches back to."""
    version = parse_version(text, place)
    if version.series < catalogue.oldest.series:
        raise InputError(
            f"the platform data begins with QEMU {catalogue.oldest}",
            place=place,
            hint=f"use qemu-{catalogue.oldest} or newer",
            code="platform",
        )
    # Since 5.0 QEMU numbers its three releases of a year x.0, x.1 and x.2.
    if version.numbers[1] > 2:
        raise InputError(
            f"there is no QEMU {version}",
            place=place,
            hint=nearest(text, _releases(catalogue)),
            code="platform",
        )
    return version


def _releases(catalogue: Catalogue) -> list[str]:
    majors = range(catalogue.oldest.numbers[0], catalogue.newest.numbers[0] + 1)
    return [f"{major}.{minor}" for major in majors for minor in range(3)]


def resolve(catalogue: Catalogue, platform: Platform) -> dict[Key, Pin]:
    """(family, type, property) → what the platform pins it to; what it leaves alone is absent.

    The `now` of the last change at or below the floor, else the `was` of the first change above
    it, else nothing. A site's own rows come last.
    """
    pins: dict[Key, Pin] = {}
    for axis, floor, table in (
        ("qemu", platform.qemu, catalogue.qemu),
        ("linux", platform.linux, catalogue.linux),
    ):
        if floor is None:
            continue
        for key, chain in table.items():
            pin = _pin_at(chain, floor, axis)
            if pin is not None:
                pins[key] = pin
    for row in platform.overrides:
        if row.now is None:
            pins.pop(row.key, None)
        else:
            pins[row.key] = _site_pin(catalogue, platform, row)
    return dict(sorted(pins.items()))


def _pin_at(chain: tuple[Row, ...], floor: Version, axis: str) -> Pin | None:
    below = [row for row in chain if row.release is None or row.release.series <= floor.series]
    row = below[-1] if below else chain[0]
    value = row.now if below else row.was
    if value is None:
        return None
    word = "QEMU" if axis == "qemu" else "Linux"
    reason = f"as {'in' if below else 'before'} {word} {row.release}: {row.why}"
    row = _with_later_knowledge(row, chain)
    return Pin(*row.key, value, row, axis, chain[0].was, row.knows, reason)


def _with_later_knowledge(row: Row, chain: tuple[Row, ...]) -> Row:
    """`row` with what any file says of writing the property: nobody edits the older files.

    A release that changes how a value is written, or forgets the property, says so in its own
    file, and that holds for the values of older platforms too.
    """
    ranges = [r.knows for r in chain if r.knows != ALWAYS]
    conditions = [r.when for r in chain if r.when]
    return replace(
        row,
        knows=ranges[-1] if ranges else ALWAYS,
        when=conditions[-1] if conditions else (),
        translate=tuple(entry for r in chain for entry in r.translate),
        cannot=tuple(entry for r in chain for entry in r.cannot),
    )


def _site_pin(catalogue: Catalogue, platform: Platform, row: Row) -> Pin:
    """A site's value with what the data knows of the property: ranges, translations, limits."""
    chain = catalogue.rows(row.key)
    row = _with_later_knowledge(row, (*chain, row))
    oldest = chain[0].was if chain else None
    reason = f"set by {platform.name}" + (f": {row.why}" if row.why else "")
    return Pin(*row.key, row.now or "", row, "site", oldest, row.knows, reason)


def locked_pin(catalogue: Catalogue, key: Key, value: str, place: Place) -> Pin:
    """One value of a lock file, with what the data knows of writing and needing it.

    A lock is kept or refused: what a platform may leave out (`otherwise: omit`) is refused here,
    unless the binary behaves so by itself.
    """
    chain = catalogue.rows(key)
    known = next((row for row in reversed(chain) if row.now == value), None)
    row = _with_later_knowledge(known or _bare_row(key, place), chain)
    row = replace(
        row,
        now=value,
        otherwise="fail" if row.otherwise == "fail" else None,
        cannot=tuple(replace(limit, otherwise="fail") for limit in row.cannot),
        machine="",
        place=place,
    )
    return Pin(*key, value, row, "lock", chain[0].was if chain else None, row.knows, "locked")


def own_value(catalogue: Catalogue, key: Key, version: Version) -> str | None:
    """What a QEMU of `version` does when it is told nothing; None where the data does not say."""
    chain = catalogue.qemu.get(key)
    pin = _pin_at(chain, version, "qemu") if chain else None
    return pin.value if pin is not None and pin.knows.contains(version) else None


def _bare_row(key: Key, place: Place) -> Row:
    """A row of which only the value will be known."""
    return Row(
        axis="lock",
        release=None,
        family=key[0],
        type=key[1],
        property=key[2],
        was=None,
        now=None,
        affects="guest",
        knows=ALWAYS,
        otherwise=None,
        translate=(),
        cannot=(),
        when=(),
        needs=None,
        machine="",
        why="",
        ref="",
        place=place,
    )


def platform_from_file(catalogue: Catalogue, tree: Mapping) -> Platform:
    """A site's own platform: `name`, `extends`, `qemu`, `linux`, and rows with `value` and `why`.

    Raises:
        InputErrors: everything that is wrong in it, each with its place.
    """
    reader = Reader()
    reader.keys(tree, ("name", "extends", "qemu", "linux", *FAMILIES), ("name",))
    base = NATIVE
    extends = reader.text(tree, "extends")
    try:
        if extends is not None:
            base = find_platform(catalogue, extends, tree.items["extends"].place)
        qemu = reader.text(tree, "qemu")
        floor = _floor(catalogue, qemu, tree.items["qemu"].place) if qemu else base.qemu
    except InputError as error:
        reader.mistakes.append(error)
        floor = None
    platform = Platform(
        reader.text(tree, "name") or "",
        floor,
        reader.version(tree, "linux") or base.linux,
        (*base.overrides, *_site_rows(reader, tree)),
        tree.place.file,
    )
    if reader.mistakes:
        raise InputErrors(reader.mistakes)
    return platform


def _site_rows(reader: Reader, tree: Mapping) -> tuple[Row, ...]:
    found = []
    for family in FAMILIES:
        for types, properties in reader.entries(tree.get(family), family):
            for name, body in reader.entries(properties, f"{family} {types}"):
                reader.keys(body, _SITE_ROW, ("value",))
                found += [_site_row(reader, (family, one, name), body) for one in types.split()]
    return tuple(found)


def _site_row(reader: Reader, key: Key, body: Mapping) -> Row:
    return Row(
        axis="site",
        release=None,
        family=key[0],
        type=key[1],
        property=key[2],
        was=None,
        now=reader.text(body, "value"),
        affects=reader.choice(body, "affects", AFFECTS, "guest"),
        knows=ALWAYS,
        otherwise=None,
        translate=(),
        cannot=(),
        when=read_when(reader, body),
        needs=None,
        machine="any",
        why=reader.text(body, "why") or "",
        ref=reader.text(body, "ref") or "",
        place=body.place,
    )
