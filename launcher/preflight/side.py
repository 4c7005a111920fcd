"""What is known of one end of a migration."""

from __future__ import annotations

from launcher.preflight.options import Entry
from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from launcher.platforms import Version

    #: (family, property) of what is set of migration
    Setting = tuple[str, str]


@record
class Block:
    """One RAM block: its used and its largest size, in bytes."""

    used: int
    total: int


@record
class Side:
    """One end. Whatever is not known is None or empty, and nothing is claimed of it.

    Attributes:
        name: how messages call it.
        version: the binary's release.
        machine: the machine type, its alias resolved; `asked` is what the profile says.
        machines: the machine types of the binary.
        compat: the machine type's own compat properties, as the binary lists them (since 9.1).
        defaults: what the binary says of its devices' properties, by (type, property).
        ram_id: the RAM block's name that the machine type itself gives.
        entries: everything with members, in the order of the command line.
        settings: what is set of migration's capabilities, parameters and properties.
        owners: who set a value, by (family, id, property), in the plan's words.
        draws_uuid: the profile gives none, and this end is not started yet.
        partial: not everything that the machine has is known, as a report tells values only.
        told: settings of migration as QEMU itself tells them, set by anybody or by nobody.
        features: what the kernel offers: True, False, or None for unknown.
        ram: RAM blocks by name, as QEMU says.
        sizes: bytes of the files that decide RAM blocks, by their names as `wanted_files` tells
            them; None for one that was looked for and is not there.
        file_systems: what the files of memory backends are on (`ext4`), by path.
        images: which files the guest's writable disks are (`inode 12`, or `absent`), by block
            node. Known of two hosts that share their storage, and of no others.
        tpms: which version of the TPM a swtpm of ours emulates, by its chardev.
        held: folders of a TPM's state that another swtpm has locked, by the chardev.
        blockers: why QEMU itself says that it cannot be migrated.
        trouble: why this end cannot be started at all; `trouble_code` is that error's, and
            `trouble_hint` what to do about it.
    """

    name: str
    version: Version | None
    machine: str
    entries: tuple[Entry, ...]
    settings: Mapping[Setting, str]
    owners: Mapping[tuple[str, str, str], str]
    features: Mapping[str, bool | None]
    asked: str = ""
    draws_uuid: bool = False
    partial: bool = False
    told: Mapping[Setting, str] | None = None
    machines: frozenset[str] | None = None
    compat: Mapping[tuple[str, str], str] | None = None
    defaults: Mapping[tuple[str, str], str] | None = None
    ram_id: str = ""
    accel: str = ""
    platform: str = ""
    linux: Version | None = None
    cpu_flags: frozenset[str] | None = None
    ram: Mapping[str, Block] | None = None
    sizes: Mapping[str, int | None] | None = None
    file_systems: Mapping[str, str] | None = None
    images: Mapping[str, str] | None = None
    tpms: Mapping[str, str] | None = None
    held: Mapping[str, str] | None = None
    blockers: tuple[str, ...] = ()
    trouble: str = ""
    trouble_code: str = ""
    trouble_hint: str = ""

    def of(self, family: str) -> list[Entry]:
        """The entries of one family, in order."""
        return [entry for entry in self.entries if entry.family == family]

    def one(self, family: str) -> Entry:
        """The entry of a family that has one; an empty one when it is not there."""
        found = self.of(family)
        return merged(found) if found else Entry(family, "", family, {})

    def find(self, family: str, key: str) -> Entry | None:
        """An entry by its id."""
        return next((e for e in self.of(family) if e.id == key and key), None)

    def owner(self, family: str, key: str, name: str) -> str:
        """Who set a value; empty when that is not known."""
        return self.owners.get((family, key, name), "")


def merged(entries: list[Entry]) -> Entry:
    """Several of one family as one: `-kernel` and `-append`, or a repeated `-machine`."""
    members: dict[str, str] = {}
    for entry in entries:
        members |= entry.members
    kind = next((e.type for e in reversed(entries) if e.type), "")
    return Entry(entries[0].family, kind, entries[0].id, members)
