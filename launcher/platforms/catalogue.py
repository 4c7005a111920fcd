"""What the data files say, as values: one record per kind of entry, and the whole as Catalogue."""

from __future__ import annotations

import builtins

from launcher.errors import Place
from launcher.platforms.versions import ALWAYS, Range, Version
from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    #: (family, type, property)
    Key = tuple[str, str, str]

#: The options that a value rides on. `migration-*` have the single type `migration`.
FAMILIES = (
    "object",
    "netdev",
    "chardev",
    "accel",
    "blockdev",
    "audiodev",
    "device",
    "machine",
    "tpmdev",
    "export",
    "migration-property",
    "migration-parameter",
    "migration-capability",
)


@record
class Write:
    """One entry of `translate`: on these binaries `value` is written as `write`."""

    knows: Range
    value: str
    write: str
    because: str


@record
class Cannot:
    """One entry of `cannot`: on these binaries `value` cannot be had."""

    knows: Range
    value: str
    because: str
    otherwise: str = "omit"


@record
class Row:
    """One change: what a property was before `release` and what it is from there on.

    `was` None: the property did not exist, or nothing is known. `now` None: from here on it is
    left to the machine type or to what QEMU negotiates with the host.
    """

    axis: str  # "qemu" | "linux" | "site"
    release: Version | None
    family: str
    type: str
    property: str
    was: str | None
    now: str | None
    affects: str
    knows: Range
    otherwise: str | None
    translate: tuple[Write, ...]
    cannot: tuple[Cannot, ...]
    when: tuple[tuple[str, tuple[str | None, ...]], ...]
    needs: str | None
    machine: str
    why: str
    ref: str
    place: Place

    @builtins.property  # `property` is a field here
    def key(self) -> Key:
        """(family, type, property)."""
        return (self.family, self.type, self.property)


@record
class Rename:
    """A word that changed: profiles say `new`, binaries older than `from_` want `old`.

    A value of the new word is `factor` times that of the old one (reconnect 1 s is
    reconnect-ms 1000). An `old` that begins with a dash is an option of its own on the command
    line (`-singlestep`), to be given where the new word is on. Binaries before `old_from` know
    neither word.
    """

    family: str
    type: str
    new: str
    old: str
    from_: Version
    old_until: Version | None
    factor: int
    why: str
    ref: str
    old_from: Version | None = None

    def old_value(self, new: str) -> str | None:
        """The value of `new` for the old word; None when the old word cannot express it."""
        if self.factor == 1:
            return new
        if not (new.isascii() and new.isdigit()) or int(new) % self.factor:
            return None
        return str(int(new) // self.factor)

    def new_value(self, old: str) -> str | None:
        """The value of the old word for the new one; None when it is not a number."""
        if self.factor == 1:
            return old
        return str(int(old) * self.factor) if old.isascii() and old.isdigit() else None


@record
class Removal:
    """A word, or a whole type or option (property `*`), that binaries after `until` refuse."""

    family: str
    type: str
    property: str
    until: Version
    instead: str
    ref: str


@record
class Observer:
    """How a property is read back from a binary in `knows`.

    `read` is the observer's name or None when `unobservable` says why there is none. `as_` is
    the name there, empty for the property's own. `reads_as` maps a written value to the text that
    QEMU keeps for it. `bulk` names one QMP command that answers the same value for all objects,
    under the name `bulk_as`. `bit` is for tun-flags.
    """

    knows: Range
    read: str | None
    as_: str = ""
    reads_as: tuple[tuple[str, str], ...] = ()
    bulk: str = ""
    bulk_as: str = ""
    bit: int = 0
    unobservable: str = ""


@record
class Syntax:
    """Where a command-line option exists and where it takes JSON; None: in no release."""

    option: str
    exists: Range
    json: Range | None
    pitfalls: tuple[str, ...]
    ref: str


@record
class Hazard:
    """A QMP command that ends a live QEMU. `arguments`: only with these; empty is any."""

    command: str
    arguments: tuple[tuple[str, str], ...]
    knows: Range
    effect: str
    ref: str


@record
class Name:
    """A distribution's release and the QEMU and Linux it ships."""

    name: str
    qemu: Version
    linux: Version | None
    ref: str


@record
class Catalogue:
    """Everything that the files of this folder say."""

    qemu: Mapping[Key, tuple[Row, ...]]
    linux: Mapping[Key, tuple[Row, ...]]
    renames: Mapping[Key, Rename]  # by the new word
    old_words: Mapping[Key, Rename]  # by the old word
    removals: Mapping[Key, Removal]
    additions: Mapping[Key, Version]
    observers: Mapping[Key, tuple[Observer, ...]]
    syntax: Mapping[str, Syntax]
    hazards: tuple[Hazard, ...]
    names: Mapping[str, Name]
    oldest: Version  # the baseline: nothing is known of floors below it
    newest: Version

    def rows(self, key: Key) -> tuple[Row, ...]:
        """The changes of one property, oldest first, of whichever axis has them."""
        return self.qemu.get(key) or self.linux.get(key) or ()


__all__ = [
    "ALWAYS",
    "FAMILIES",
    "Cannot",
    "Catalogue",
    "Hazard",
    "Name",
    "Observer",
    "Removal",
    "Rename",
    "Row",
    "Syntax",
    "Write",
]
