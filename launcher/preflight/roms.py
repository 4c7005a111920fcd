"""RAM blocks that are as large as a file: option ROMs, the firmware, flashes.

QEMU copies such a file into a block of RAM, sends that, and takes none of another size. How large
a block is is known of a machine that was asked, and of a plan where its files are at hand.
"""

from __future__ import annotations

from launcher.platforms.rules import holds, machine_release, matching
from launcher.preflight.cures import property_cure
from launcher.preflight.findings import Cure, Finding
from launcher.preflight.images import image_of
from launcher.preflight.options import Entry
from launcher.preflight.seats import rom_file, seats
from launcher.preflight.worth import layout_of, member
from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from launcher.platforms.rules import Knowledge, Layout
    from launcher.preflight.agree import Pair
    from launcher.preflight.side import Side

#: The RAM block of a PC's firmware (hw/i386/x86-common.c), how those of flashes begin, and the copy
#: of the first flash's end that machine types before 9.1 have below 1 MiB.
BIOS, FLASH, _COPY = "pc.bios", "system.flash", "isa-bios"
#: A block is whole pages, a firmware whole 64 KiB; a ROM's own name has room for so many letters.
_PAGE, _BIOS_UNIT, _LETTERS = 4096, 64 << 10, 31
#: romsize when it is to follow from the file.
_BY_FILE = ("", "-1", "4294967295")
_BIOS_WORDS = "Size mismatch: pc.bios"
_PFLASH = "pflash"
_OF_ROMS = ("romfile", "rombar", "romsize")


@record
class FileBlock:
    """One RAM block that a file decides.

    Attributes:
        name: in QEMU's words.
        file: which file, as the command line has it or as QEMU looks for it.
        size: of the block; None where it is not known.
        of: the device, or the machine.
        absent: whether the file was looked for and is not there.
        unfit: whether QEMU refuses a file of this size.
    """

    name: str
    file: str
    size: int | None
    of: Entry
    absent: bool = False
    unfit: bool = False


def wanted_files(side: Side, know: Knowledge) -> list[str]:
    """The files whose sizes decide RAM blocks of a planned end, as `Side.sizes` has them."""
    if _known(side, know) is None:
        return []
    roms = [rom_file(know, side, device) for device in side.of("device")]
    blocks = [*(name for name in roms if name), *(b.file for b in _firmware(side, know).values())]
    return list(dict.fromkeys(name for name in blocks if name))


def _known(side: Side, know: Knowledge) -> Layout | None:
    """The machine type's layout where it is known which files it loads.

    One of a distribution's own numbering may keep others, which the binary lists since 9.1.
    """
    layout = layout_of(know, side.machine)
    if layout is None or not layout.firmware:
        return None
    theirs = "-" in side.machine and machine_release(side.machine) is None
    return None if theirs and side.compat is None else layout


def _size_of(side: Side, name: str, file: str) -> tuple[int | None, bool]:
    """The block's size as QEMU says or else the file's, and whether the file is not there."""
    if side.ram is not None and name in side.ram:
        return side.ram[name].used, False
    if side.sizes is None or file not in side.sizes:
        return None, False
    return side.sizes[file], side.sizes[file] is None


# -- option ROMs ----------------------------------------------------------------------------------


def _rom(pair: Pair, side: Side, place: str, device: Entry) -> FileBlock | None:
    """The option ROM of a device; None when it has none."""
    file = rom_file(pair.know, side, device)
    if not file:
        return None
    names = pair.know.rules.rom_blocks
    usual = matching([("", name) for name in names], "", device.type)
    name = f"{names[usual[0]] if usual else device.type}.rom"[:_LETTERS]
    name = f"{_path(place)}/{name}"
    size, absent = _size_of(side, name, file)
    if (side.ram is None or name not in side.ram) and size is not None:
        size = max(_PAGE, 1 << (size - 1).bit_length())
    told = device.members.get("romsize") or (side.compat or {}).get((device.type, "romsize"), "")
    if not absent and told not in _BY_FILE and told.isdecimal():
        size = max(_PAGE, int(told))
    return FileBlock(name, file, size, device, absent)


def places_without(pair: Pair) -> frozenset[str]:
    """Where the source has a device and the destination none of its type, in QEMU's words."""
    if pair.partial:
        return frozenset()
    source, destination = seats(pair, pair.source), seats(pair, pair.destination)
    return frozenset(
        _path(place)
        for place, here in source.items()
        if place not in destination or destination[place].type != here.type
    )


def _path(place: str) -> str:
    """A place in QEMU's words: without numbers of buses behind bridges (pcibus_get_dev_path)."""
    root = len("0000:00")
    return f"{place[:root]}{place[root:].replace(':00:', ':')}"


def _roms(pair: Pair) -> Iterator[tuple[FileBlock | None, FileBlock | None, Entry, Entry]]:
    """The ROMs of devices that are of one type and in one place at both ends."""
    if pair.partial:
        return
    source, destination = seats(pair, pair.source), seats(pair, pair.destination)
    for place, here in source.items():
        there = destination.get(place)
        if there is not None and here.type == there.type:
            yield (
                _rom(pair, pair.source, place, here),
                _rom(pair, pair.destination, place, there),
                here,
                there,
            )


def _subject(device: Entry, name: str = "romfile") -> tuple[str, str, str, str]:
    return ("device", device.type, device.id, name)


def _missing(pair: Pair, here: FileBlock, there: Entry) -> Finding:
    """The destination's device has no option ROM, and the source sends one."""
    no_bar = there.members.get("rombar", "1") in ("0", "off")
    subject = _subject(there, "rombar" if no_bar else "romfile")
    values = tuple(device.members.get(subject[3]) for device in (here.of, there))
    if no_bar:
        first = property_cure(subject, "destination", "1")
    elif values[0]:
        first = property_cure(subject, "destination", values[0])
    else:
        text = f"leave out romfile of {there.id or there.type} at the destination"
        first = Cure("destination", text, *subject)
    other = property_cure((*subject[:2], here.of.id, subject[3]), "source", values[1] or "")
    what = f"RAM block {here.name!r} of the source is not there"
    ends = (here.name, None)
    return pair.finding("ram-name", what, ends, subject=subject, cures=(first, other))


# -- firmware -------------------------------------------------------------------------------------


def _firmware(side: Side, know: Knowledge) -> dict[str, FileBlock]:
    """The flashes of a machine, and the ROM that is there without the first of them."""
    machine = Entry("machine", side.machine, "machine", side.one("machine").members)
    found = {}
    for number in range(2):
        node = side.find("blockdev", machine.members.get(f"pflash{number}", ""))
        if f"pflash{number}" in machine.members:
            file, size = image_of(side, node) if node is not None else ("", None)
            found[f"{FLASH}{number}"] = _flash(side, number, file, size, node or machine)
    for number, drive in enumerate(e for e in side.of("drive") if e.type == "pflash"):
        told = drive.members.get("unit", drive.members.get("index", ""))
        unit = int(told) if told.isdecimal() else number
        file = drive.members.get("file", "") if drive.members.get("format") == "raw" else ""
        found[f"{FLASH}{unit}"] = _flash(side, unit, file, None, drive)
    layout = _known(side, know)
    if f"{FLASH}0" not in found and layout is not None:
        usual = layout.firmware
        if layout.firmware_acpi and member(know, side, machine, "acpi") == "on":
            usual = layout.firmware_acpi
        file = side.one("boot").members.get("firmware", "") or usual
        size, absent = _size_of(side, BIOS, file)
        unfit = size is not None and (size <= 0 or size % _BIOS_UNIT != 0)
        found[BIOS] = FileBlock(BIOS, file, size, machine, absent, unfit)
    return found


def _flash(side: Side, number: int, file: str, size: int | None, of: Entry) -> FileBlock:
    name = f"{FLASH}{number}"
    told, _ = _size_of(side, name, file)
    known = side.ram is not None and name in side.ram
    return FileBlock(name, file, told if known or size is None else size, of)


# -- findings -------------------------------------------------------------------------------------


def rom_findings(pair: Pair) -> Iterator[Finding]:
    """What the two ends' files make of their RAM blocks; only what is known of both."""
    for side, end in ((pair.source, "source"), (pair.destination, "destination")):
        yield from _absent(pair, side, end)
    for here, there, _, device in _roms(pair):
        if here is not None and there is None:
            yield _missing(pair, here, device)
        elif here is not None and there is not None:
            yield from _sizes(pair, here, there)
    source, destination = (_firmware(s, pair.know) for s in (pair.source, pair.destination))
    drives = not _flashes_of_machine(pair) and not pair.partial
    for name, block in source.items():
        if name in destination:
            yield from _sizes(pair, block, destination[name])
        elif drives:
            # Of flashes that are the machine's own the rule of pflash0 and pflash1 tells.
            subject = ("drive", "pflash", "", "if")
            what = f"RAM block {name!r} of the source is not there"
            cures = (Cure("both", "the same flashes at both ends", *subject),)
            yield pair.finding("ram-name", what, (name, None), subject=subject, cures=cures)


def _flashes_of_machine(pair: Pair) -> bool:
    members = (side.one("machine").members for side in (pair.source, pair.destination))
    return any(name.startswith(_PFLASH) for names in members for name in names)


def _sizes(pair: Pair, here: FileBlock, there: FileBlock) -> Iterator[Finding]:
    if here.size is None or there.size is None or here.size == there.size:
        return
    if not (here.unfit or there.unfit):
        yield size_finding(pair, here.name, here.size, there.size)


def _absent(pair: Pair, side: Side, end: str) -> Iterator[Finding]:
    """Files that a planned end would be started with and cannot be."""
    for place, device in () if pair.partial else seats(pair, side).items():
        rom = _rom(pair, side, place, device)
        if rom is not None and rom.absent:
            what = f"{device.type} {device.id}".rstrip()
            what += f" of the {end} has the option ROM {rom.file}, which is nowhere"
            yield _unusable(pair, "rom-absent", what, end, rom, _subject(device))
    bios = _firmware(side, pair.know).get(BIOS)
    if bios is not None and (bios.absent or bios.unfit):
        what = f"the firmware {bios.file} of the {end} "
        what += "is nowhere" if bios.absent else f"is {bios.size} bytes, which is not whole 64 KiB"
        subject = ("boot", "boot", "boot", "firmware")
        yield _unusable(pair, "firmware-file", what, end, bios, subject)


def _unusable(
    pair: Pair, code: str, what: str, end: str, block: FileBlock, subject: tuple[str, str, str, str]
) -> Finding:
    cures = (Cure(end, f"a file at the {end} that QEMU finds and takes", *subject),)
    values = (block.file, None) if end == "source" else (None, block.file)
    return pair.finding(code, what, values, subject=subject, cures=cures)


def size_finding(pair: Pair, name: str, source: int, destination: int) -> Finding:
    """A RAM block that is of two sizes, whoever told them."""
    memory = ("memory", "memory", "memory", "size")
    found = _rom_cures(pair, name, source, destination) or _flash_cures(pair, name, source)
    subject, cures = found or (memory, ())
    if name == BIOS:
        subject = ("boot", "boot", "boot", "firmware")
        cures = (Cure("both", "boot.firmware: one file for both ends", *subject),)
    elif found is None and "/" not in name.removeprefix("/objects/"):
        text = f"memory.size: {source} at the destination"
        cures = (Cure("destination", text, *memory, str(source)),)
    what = f"RAM block {name!r} is 0x{source:x} bytes at the source and 0x{destination:x} at the"
    values = (source, destination)
    return pair.finding("ram-size", f"{what} destination", values, subject=subject, cures=cures)


_Cured = tuple[tuple[str, str, str, str], tuple[Cure, ...]]


def _rom_cures(pair: Pair, name: str, source: int, destination: int) -> _Cured | None:
    """The smaller ROM can be made as large as the other; one file, or none, is of one size."""
    end = "destination" if destination < source else "source"
    side = pair.source if end == "source" else pair.destination
    where, _, what = name.rpartition("/")
    if not what.endswith(".rom") and len(what) < _LETTERS:
        return None
    for place, device in seats(pair, side).items():
        if _path(place) != where:
            continue
        cures = []
        if holds(pair.know.rules.romsize, side.version):
            larger = str(max(source, destination))
            cures.append(property_cure(_subject(device, "romsize"), end, larger))
        text = f"devices.{device.id or device.type}.romfile: one file for both ends"
        cures.append(Cure("both", text, *_subject(device)))
        cures.append(property_cure(_subject(device), "both", ""))
        return _subject(device), tuple(cures)
    return None


def _flash_cures(pair: Pair, name: str, source: int) -> _Cured | None:
    """What is in a flash comes with the stream, so of the destination's file the size counts."""
    name = f"{FLASH}0" if name == _COPY else name
    if not name.startswith(FLASH):
        return None
    pflash = f"pflash{name.removeprefix(FLASH)}"
    subject = ("machine", pair.destination.machine, "machine", pflash)
    there = _firmware(pair.destination, pair.know).get(name)
    node = f" behind {there.of.id}" if there is not None and there.of.id else ""
    texts = (
        ("both", f"machine.{pflash}: one file for both ends"),
        ("destination", f"a file of {source} bytes{node} at the destination, padded or cut"),
    )
    return subject, tuple(Cure(end, text, *subject) for end, text in texts)


# -- what sizes settle ----------------------------------------------------------------------------


def settled_by_sizes(pair: Pair, findings: Iterable[Finding]) -> list[Finding]:
    """The findings without what was only feared of files whose sizes are known."""
    known: dict[tuple[str, str], bool] = {}
    for here, there, of, device in _roms(pair):
        key = (device.type, device.id or of.id)
        sure = here is None or there is None or None not in (here.size, there.size)
        known[key] = sure and known.get(key, True)
    source, destination = (_firmware(s, pair.know) for s in (pair.source, pair.destination))
    sizes = {end[BIOS].size if BIOS in end else None for end in (source, destination)}
    alike = len(sizes) == 1 and None not in sizes
    # A flash may be the machine's own at one end and a drive at the other.
    flashes = {name.replace(FLASH, _PFLASH) for name in source if name in destination}
    return [
        f
        for f in findings
        if not (_of_rom(f) and known.get((f.type, f.id)))
        and not (alike and f.words.startswith(_BIOS_WORDS))
        and not (f.family == "machine" and f.code == "property" and f.property in flashes)
    ]


def _of_rom(finding: Finding) -> bool:
    return (
        finding.code == "property"
        and finding.family == "device"
        and finding.property in _OF_ROMS
        and finding.severity != "harmless"
    )


def told_once(findings: list[Finding], blocks: Iterable[Finding]) -> list[Finding]:
    """The blocks' findings without the firmware's, where a rule of releases tells that already."""
    if not any(f.words.startswith(_BIOS_WORDS) for f in findings):
        return list(blocks)
    return [b for b in blocks if (b.code, b.property) != ("ram-size", "firmware")]
