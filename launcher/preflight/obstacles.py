"""What cannot be migrated at all, what cannot travel this way, and block nodes."""

from __future__ import annotations

from launcher.platforms.rules import holds, machine_release, matching
from launcher.platforms.versions import ALWAYS
from launcher.preflight.agree import first
from launcher.preflight.cures import property_cure
from launcher.preflight.findings import Cure, Finding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from launcher.platforms.rules import Blocked
    from launcher.preflight.agree import Pair
    from launcher.preflight.options import Entry


def obstacle_findings(pair: Pair) -> Iterator[Finding]:
    """Blockers that are known and that QEMU tells, the transport, block nodes."""
    for reason in pair.source.blockers:
        subject = ("machine", pair.source.machine, "machine", "")
        what = f"QEMU says: {reason}"
        yield pair.finding("blocker", what, (reason, None), subject=subject)
    for reason in pair.destination.blockers:
        subject = ("machine", pair.destination.machine, "machine", "")
        what = f"QEMU says of the destination: {reason}"
        yield pair.finding("blocker-there", what, (None, reason), subject=subject)
    for entry in pair.source.entries:
        yield from _blocked(pair, entry)
    ours = {(entry.family, entry.type, entry.id) for entry in pair.source.entries}
    for entry in pair.destination.entries:
        if (entry.family, entry.type, entry.id) not in ours:
            yield from _blocked(pair, entry, there=True)
    yield from _transport(pair)
    yield from _nodes(pair)
    yield from _images(pair)
    yield from _tpms(pair)


def _blocked(pair: Pair, entry: Entry, *, there: bool = False) -> Iterator[Finding]:
    """What the data knows: of this release, or of a machine type that keeps older behaviour."""
    tables = pair.know.rules.blocked
    side = pair.destination if there else pair.source
    for kind in matching(tables, entry.family, entry.type):
        for one in tables[entry.family, kind]:
            if not holds(one.knows, side.version) or not _of_machine(pair, one):
                continue
            if there and not one.there:
                return
            what = f"{entry.type} {entry.id}".rstrip()
            subject = (entry.family, entry.type, entry.id, "")
            both = pair.destination.find(entry.family, entry.id) is not None and not there
            end = "both" if both else "destination" if there else "source"
            text = f"leave out {what} at {'both ends' if both else f'the {end}'}"
            values = (None, entry.type) if there else (entry.type, None)
            told = f"a destination of QEMU {side.version} that has {what} takes no guest"
            yield Finding(
                *("blocked", "breaks", *subject),
                values[0],
                values[1],
                told if there else f"{what} cannot be migrated by QEMU {side.version}",
                one.words,
                (Cure(end, text, *subject[:3]),),
                one.ref,
            )
            return


def _of_machine(pair: Pair, one: Blocked) -> bool:
    """Whether an entry is for this machine type, whose compat properties may keep it blocked."""
    return one.machine == ALWAYS or holds(one.machine, machine_release(pair.source.machine))


def _transport(pair: Pair) -> Iterator[Finding]:
    for name, rules in pair.know.rules.transports.get(pair.via, {}).items():
        subject = ("transport", pair.via, pair.via, name)
        found = first(pair, rules, subject, (pair.via, pair.via))
        if found is not None:
            yield found


def _nodes(pair: Pair) -> Iterator[Finding]:
    """Dirty bitmaps are told by the name of their node."""
    if pair.settings("migration-capability", "dirty-bitmaps")[0] != "on":
        return
    there = {entry.id for entry in pair.destination.of("blockdev")}
    for entry in pair.source.of("blockdev"):
        if entry.id in there:
            continue
        subject = ("blockdev", entry.type, entry.id, "node-name")
        what = f"the destination has no block node {entry.id!r}"
        text = f"call the destination's node {entry.id!r}, or map it with block-bitmap-mapping"
        cures = (Cure("destination", text, *subject, entry.id),)
        yield pair.finding("nodes", what, (entry.id, None), subject=subject, cures=cures)


def _images(pair: Pair) -> Iterator[Finding]:
    """Disks whose content does not travel: both ends must mean one file."""
    there = pair.destination.images or {}
    for key, here in (pair.source.images or {}).items():
        other = there.get(key, here)
        if other == here:
            continue
        absent = other == "absent"
        code, verb = ("image-absent", "is not") if absent else ("image", "is another file")
        entry = pair.source.find("blockdev", key)
        subject = ("blockdev", entry.type if entry is not None else "", key, "filename")
        text = "a path at the destination that leads to the source's file"
        cures = (Cure("destination", text, *subject),)
        what = f"the image of block node {key!r} {verb} at the destination"
        yield pair.finding(code, what, (here, other), subject=subject, cures=cures)


def _tpms(pair: Pair) -> Iterator[Finding]:
    """TPMs whose state goes into a swtpm of another version, or into a folder that is in use."""
    there = pair.destination.tpms or {}
    for key, version in (pair.source.tpms or {}).items():
        other = there.get(key, version)
        if other != version:
            subject = ("tpmdev", "emulator", key, "version")
            cures = (property_cure(subject, "destination", version),)
            what = f"the TPM is of version {version} at the source and {other} at the destination"
            yield pair.finding("tpm-version", what, (version, other), subject=subject, cures=cures)
    for key, folder in (pair.destination.held or {}).items():
        subject = ("tpmdev", "emulator", key, "state")
        text = "another folder for the destination's TPM: what it holds comes with the guest"
        what = f"a swtpm has locked the state of the destination's TPM, {folder}"
        cures = (Cure("destination", text, *subject),)
        yield pair.finding("tpm-state", what, (None, folder), subject=subject, cures=cures)
