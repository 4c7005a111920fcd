"""What must agree at the two ends of a migration, as values, and look-ups in them. Pure.

The rows of `qemu/` and `linux/` say what a release changed; migration.yaml says what a difference
does to a migration. `worth` is where the two meet: what a property is worth on one binary and
machine type when nobody sets it.
"""

from __future__ import annotations

from launcher.errors import InputError
from launcher.platforms.versions import ALWAYS, Range, Version, parse_version
from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from launcher.platforms.catalogue import Catalogue, Key


@record
class Having:
    """Devices of some types (patterns) with some values; a ! before one means any other."""

    types: tuple[str, ...]
    values: tuple[tuple[str, str], ...]


@record
class Rule:
    """What a difference in one property does.

    `source` and `destination` are the values for which it holds (None: any); without either it
    holds for values that differ. `from_` and `to` are the releases of the two binaries. `agreed`
    are capabilities that both ends have, `machines` patterns of their machine types (empty: any).
    With `given`, `on` and `off` stand for whether there is a value at all. With `smaller` both are
    numbers, and the destination's is the smaller one. With `legacy` it holds only for a virtio
    device that speaks the protocol before 1.0 as well. With `devices` it holds only where the
    source has one of them. `cures` are (end, value) pairs, all of them needed.
    """

    source: tuple[str, ...] | None
    destination: tuple[str, ...] | None
    from_: Range
    to: Range
    agreed: tuple[tuple[str, str], ...]
    given: bool
    severity: str
    words: tuple[str, ...]
    then: str
    cures: tuple[tuple[str, str], ...]
    ref: str
    machines: tuple[str, ...] = ()
    smaller: bool = False
    legacy: bool = False
    devices: tuple[Having, ...] = ()


@record
class Fact:
    """What one kind of difference does that no single property stands for."""

    severity: str
    words: tuple[str, ...]
    then: str
    ref: str
    from_: Range = ALWAYS
    to: Range = ALWAYS


@record
class Default:
    """What a property is worth when nobody sets it, on machine types and binaries in `knows`."""

    knows: Range
    value: str


@record
class Blocked:
    """Something that cannot be migrated, on binaries in `knows` and machine types in `machine`.

    With `there` a destination that has it does not load a stream either.
    """

    knows: Range
    machine: Range
    words: str
    ref: str
    there: bool = False


@record
class Between:
    """What two releases do to something that the source has, whatever is set of it.

    `having` are values at the source and `unless` at the destination, as (name, value): the name
    of a member, `machine.NAME`, or `TYPE.NAME` as `-global` writes it. With `running` it matters
    only to a guest that runs while it is sent. With `after` it holds only where the destination
    makes a device of one of these types before it. `cures` are (end, text); `{id}` in a text is
    the id of what the source has.
    """

    from_: Range
    to: Range
    having: tuple[tuple[str, str], ...]
    unless: tuple[tuple[str, str], ...]
    running: bool
    severity: str
    words: tuple[str, ...]
    then: str
    cures: tuple[tuple[str, str], ...]
    ref: str
    after: tuple[str, ...] = ()


@record
class Offer:
    """A feature of the kernel's tap that virtio-net shows to the guest.

    `properties` of the device take it away; without any the netdev's `vnet_hdr` alone does.
    `since` is the first machine type and binary that ask the kernel for it.
    """

    feature: str
    properties: tuple[str, ...]
    since: Version | None
    code: str


@record
class Emulated:
    """CPU features that tcg has since a release, on the models that have them.

    `code` is the kind of finding when they go away; patterns of models may end in a star.
    """

    features: tuple[str, ...]
    since: Version
    models: tuple[str, ...]
    code: str


@record
class Layout:
    """Where a machine type puts things: its RAM block, its PCI root bus and first free slot.

    `firmware` is the file that it loads when nobody names one, empty where that is not known;
    `firmware_acpi` is another one for a machine with ACPI.
    """

    ram: str
    bus: str
    slot: int
    firmware: str = ""
    firmware_acpi: str = ""


@record
class Rules:
    """Everything that migration.yaml says. A star in a type stands for any text.

    `alike` has, for a device's type, those that load its state although they are another device.
    `rom_blocks` has how the RAM block of an option ROM is called, where it is not as the type;
    `romsize` are the releases that can be told how large it is.
    """

    properties: dict[tuple[str, str], dict[str, tuple[Rule, ...]]]
    harmless: dict[tuple[str, str], frozenset[str]]
    defaults: dict[tuple[str, str], dict[str, tuple[Default, ...]]]
    blocked: dict[tuple[str, str], tuple[Blocked, ...]]
    between: dict[tuple[str, str], tuple[Between, ...]]
    stateless: frozenset[str]
    alike: dict[str, tuple[str, ...]]
    facts: dict[str, tuple[Fact, ...]]
    offers: tuple[Offer, ...]
    layouts: dict[str, Layout]
    emulated: tuple[Emulated, ...]
    seats: dict[str, str]
    roms: dict[str, str]
    rom_blocks: dict[str, str]
    romsize: Range
    instances: dict[str, Range]
    transports: dict[str, dict[str, tuple[Rule, ...]]]

    def fact(self, code: str, from_: Version | None, to: Version | None) -> Fact:
        """What is known of one kind of difference between two binaries (None: not known)."""
        return next(f for f in self.facts[code] if holds(f.from_, from_) and holds(f.to, to))


def holds(knows: Range, version: Version | None) -> bool:
    """Whether a range holds for a binary; of one that is not known only what always holds."""
    return knows == ALWAYS if version is None else knows.contains(version)


def matching(tables: Iterable[tuple[str, str]], family: str, kind: str) -> list[str]:
    """The types of `tables` that stand for `kind`: exact, then the longest with a star."""
    fits = [name for of, name in tables if of == family and _stands_for(name, kind)]
    return sorted(fits, key=lambda n: (n != kind, -len(n)))


def _stands_for(name: str, kind: str) -> bool:
    """Whether a name is a type, or has a star for a part of it: `virtio-*-pci`."""
    head, star, tail = name.partition("*")
    if not star:
        return name == kind
    return kind.startswith(head) and kind[len(head) :].endswith(tail)


def machine_release(name: str) -> Version | None:
    """The release of a versioned machine type (`pc-q35-7.2`); None for any other."""
    try:
        return parse_version(name.rpartition("-")[2])
    except InputError:
        return None  # microvm, or a distribution's own numbering


def floor(machine: str, version: Version | None) -> Version | None:
    """The release whose defaults hold: the machine type's where it has one, else the binary's.

    A machine type is never newer than a binary that has it.
    """
    return machine_release(machine) or version


def worth(catalogue: Catalogue, key: Key, machine: str, version: Version | None) -> str | None:
    """What a property of the change files is worth when neither profile nor platform sets it.

    Args:
        catalogue: the change files.
        key: (family, type, property).
        machine: the machine type; its compat properties hold older values.
        version: the binary's release; None when it is not known.
    """
    chain = catalogue.rows(key)
    at = floor(machine, version)
    if not chain or at is None:
        return None
    if version is not None and not chain[-1].knows.contains(version):
        return chain[0].was
    below = [r for r in chain if r.release is not None and r.release.series <= at.series]
    return below[-1].now if below else chain[0].was


@record
class Knowledge:
    """What a preflight knows beside the two ends."""

    catalogue: Catalogue
    rules: Rules
