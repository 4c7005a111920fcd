"""Devices: where each is plugged, and what is plugged there at the other end.

The stream tells a device by its place (`0000:00:02.0/virtio-net`), never by its id. Places follow
from `bus` and `addr`, and where those are not given from the order of the command line.
"""

from __future__ import annotations

from launcher.platforms.rules import matching
from launcher.preflight.agree import judge, members_findings
from launcher.preflight.cures import property_cure
from launcher.preflight.findings import Cure, Finding
from launcher.preflight.forms import form, formed, formless
from launcher.preflight.worth import layout_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from launcher.platforms.rules import Knowledge
    from launcher.preflight.agree import Pair
    from launcher.preflight.options import Entry
    from launcher.preflight.side import Side

    Seats = dict[str, Entry]


def seats(pair: Pair, side: Side) -> Seats:
    """Place → device, in the order of the command line."""
    found: Seats = {}
    of_id: dict[str, str] = {}
    for device in side.of("device"):
        place = _place(pair, side, device, found, of_id)
        found[place] = device
        if device.id:
            of_id[device.id] = place
    return found


def _kind(pair: Pair, driver: str) -> str:
    table = pair.know.rules.seats
    fits = matching([("", name) for name in table], "", driver)
    return table[fits[0]] if fits else ""


#: Kinds whose devices share a row of places.
_ROWS = ("usb", "scsi", "mmio", "hda")


def _place(pair: Pair, side: Side, device: Entry, taken: Seats, of_id: dict[str, str]) -> str:
    kind = _kind(pair, device.type)
    bus = device.members.get("bus", "")
    if kind == "pci":
        return _pci(pair, side, device, taken, of_id)
    if kind == "scsi" and "scsi-id" in device.members:
        members = device.members
        lun, channel = members.get("lun", "0"), members.get("channel", "0")
        return f"scsi {bus} {channel}:{members['scsi-id']}:{lun}"
    if kind == "port":
        return _port(device, _bus(bus, of_id), taken)
    if kind == "usb" and "port" in device.members:
        return f"usb {bus} {device.members['port']}"
    row = f"{kind} {_bus(bus, of_id)}".strip() if kind in _ROWS else ""
    return _next(row or device.type, taken)


def _port(device: Entry, bus: str, taken: Seats) -> str:
    """Port 0 is for the first console (hw/char/virtio-serial-bus.c virtser_port_device_realize)."""
    number = int(device.type != "virtconsole")
    while f"port {bus} {number}" in taken:
        number += 1
    return f"port {bus} {device.members.get('nr', number)}"


def _bus(bus: str, of_id: dict[str, str]) -> str:
    """A bus by the place of the device that makes it: `xhci0.0` belongs to `xhci0`."""
    return of_id.get(bus) or of_id.get(bus.partition(".")[0]) or bus


def _next(row: str, taken: Seats) -> str:
    number = 0
    while f"{row} #{number}" in taken:
        number += 1
    return f"{row} #{number}"


def _pci(pair: Pair, side: Side, device: Entry, taken: Seats, of_id: dict[str, str]) -> str:
    layout = layout_of(pair.know, side.machine)
    bus = device.members.get("bus", "")
    root = layout is None or bus in ("", layout.bus, layout.bus.partition(".")[0])
    where = "0000:00" if root else f"{_bus(bus, of_id)}:00"
    address = device.members.get("addr", "")
    if address:
        slot, function = _address(address)
        return f"{where}:{slot:02x}.{function}"
    slot = layout.slot if root and layout is not None else 0
    while any(place.startswith(f"{where}:{slot:02x}.") for place in taken):
        slot += 1
    return f"{where}:{slot:02x}.0"


def _address(text: str) -> tuple[int, int]:
    """`06.1` as slot and function; a plain number of JSON holds both (set_pci_devfn)."""
    slot, _, function = text.partition(".")
    try:
        return int(slot, 16), int(function or "0", 16)
    except ValueError:
        return 0, 0


def device_findings(pair: Pair) -> Iterator[Finding]:
    """Devices that are missing, moved, exchanged, of another type, or set up differently."""
    if pair.partial:
        for here in pair.source.of("device"):
            same = pair.destination.find("device", here.id)
            if same is not None and same.type == here.type:
                yield from members_findings(pair, here, same)
        return
    source, destination = seats(pair, pair.source), seats(pair, pair.destination)
    for place, here in source.items():
        there = destination.get(place)
        if there is None:
            yield _missing(pair, place, here, source, destination)
        elif (kind := form(here, place, source)) == form(there, place, destination) and not (
            here.type != there.type and _has_rom(pair, here)
        ):
            ends, modern = (formless(here), formless(there)), "-non-tr" in kind
            yield from members_findings(pair, *ends, without=_ROM, modern=modern)
            yield from _rom(pair, here, there)
        elif here.type == there.type:
            ends = formed(here, place, source), formed(there, place, destination)
            yield from members_findings(pair, *ends, without=_ROM)
            yield from _rom(pair, here, there)
        else:
            yield _other(pair, place, here, there)
    for place, there in destination.items():
        if place not in source:
            yield _extra(pair, place, there, destination, source)
    yield from _ids(pair, source, destination)


#: What says whether there is an option ROM.
_ROM = ("rombar", "romfile")


def _has_rom(pair: Pair, device: Entry) -> bool:
    """Whether a device has an option ROM: its RAM block is called by the device's type."""
    return rom_file(pair.know, pair.source, device) != ""


def _rom(pair: Pair, here: Entry, there: Entry) -> Iterator[Finding]:
    """The option ROM of one place, which matters where the source has one."""
    if not _has_rom(pair, here):
        return
    know = pair.know
    files = (_any_file(know, pair.source, here), _any_file(know, pair.destination, there))
    bars = (here.members.get("rombar", "1"), there.members.get("rombar", "1"))
    key = there.id or here.id
    if files[0] != files[1]:
        yield from judge(pair, ("device", here.type, key, "romfile"), files)
    if bars[0] != bars[1]:
        yield from judge(pair, ("device", here.type, key, "rombar"), bars)


def rom_file(know: Knowledge, side: Side, device: Entry) -> str:
    """The file of a device's option ROM, as QEMU looks for it; empty when it has none."""
    if device.members.get("rombar", "1") in ("0", "off"):
        return ""
    return _any_file(know, side, device)


def _any_file(know: Knowledge, side: Side, device: Entry) -> str:
    """The same, whether the ROM is shown to the guest or not."""
    roms = know.rules.roms
    usual = matching([("", name) for name in roms], "", device.type)
    default = roms[usual[0]] if usual else ""
    # Machine types of a distribution's own may keep an older file.
    default = (side.compat or {}).get((device.type, "romfile"), default)
    return device.members.get("romfile", default)


def _missing(pair: Pair, place: str, here: Entry, source: Seats, destination: Seats) -> Finding:
    moved = [
        (other, there)
        for other, there in destination.items()
        if there.type == here.type
        and (other not in source or source[other].type != there.type)
        and there.id == here.id
    ]
    cures: tuple[Cure, ...] = ()
    what = f"{_name(here)} is at {place} at the source, and nothing is there at the destination"
    subject = ("device", here.type, here.id, "")
    if moved and _same_bus(place, moved[0][0]):
        subject = ("device", here.type, here.id, "addr")
        cures = (property_cure(subject, "destination", _slot(place)),)
    elif moved:
        cures = (Cure("destination", f"plug {_name(here)} where the source has it", *subject[:3]),)
    else:
        cures = (Cure("destination", f"add {_name(here)} at the destination", *subject[:3]),)
    if here.type in pair.know.rules.stateless:
        what = f"{_name(here)} is missing at the destination"
        values = (here.type, None)
        return pair.finding("device-stateless", what, values, subject=subject, cures=cures)
    return pair.finding("device-missing", what, (place, None), subject=subject, cures=cures)


def _alike(one: Entry, other: Entry) -> bool:
    return (one.type, one.id) == (other.type, other.id)


def _same_bus(one: str, other: str) -> bool:
    """Whether two places are on one PCI bus, so that an address tells them apart."""
    head = one.rpartition(":")[0]
    return " " not in one and head == other.rpartition(":")[0]


def _slot(place: str) -> str:
    return place.rpartition(":")[2].removesuffix(".0")


def _other(pair: Pair, place: str, here: Entry, there: Entry) -> Finding:
    what = f"at {place} the source has {_name(here)} and the destination {_name(there)}"
    subject = ("device", here.type, here.id, "driver")
    cures: tuple[Cure, ...] = ()
    same = [p for p, e in seats(pair, pair.destination).items() if _alike(e, here)]
    if here.id == there.id != "":
        cures = (property_cure(subject, "destination", here.type),)
    elif not any(_alike(e, there) for e in pair.source.of("device")):
        # What is too much there would still stand in that place.
        text = f"{_name(there)}, or give it after all others, at the destination"
        text = f"leave out {text}" if same else f"put {_name(here)} in the place of {text}"
        cures = (Cure("destination", text, "device", there.type, there.id),)
    elif same and _same_bus(place, same[0]):
        subject = ("device", here.type, here.id, "addr")
        cures = (property_cure(subject, "destination", _slot(place)),)
    elif not same:
        text = f"add {_name(here)} before {_name(there)} at the destination"
        cures = (Cure("destination", text, *subject[:3]),)
    else:
        text = "give the devices of both ends in the same order"
        cures = (Cure("destination", text, *subject[:3]),)
    code = (
        "device-alike" if there.type in pair.know.rules.alike.get(here.type, ()) else "device-type"
    )
    return pair.finding(code, what, (here.type, there.type), subject=subject, cures=cures)


def _extra(pair: Pair, place: str, there: Entry, destination: Seats, source: Seats) -> Finding:
    what = f"{_name(there)} at {place} is at the destination only"
    subject = ("device", there.type, there.id, "")
    cures = (Cure("destination", f"leave out {_name(there)}", *subject[:3]),)
    bus = _bus(there.members.get("bus", ""), {e.id: p for p, e in destination.items()})
    # The map of ports has the first one in any case, for a console.
    port = _kind(pair, there.type) == "port" and not place.endswith(" 0")
    port = port and (bus in source or not bus)
    code = "port-extra" if port else "device-extra"
    return pair.finding(code, what, (None, place), subject=subject, cures=cures)


def _ids(pair: Pair, source: Seats, destination: Seats) -> Iterator[Finding]:
    """Devices of one type whose ids changed places, and ids that are merely other ones."""
    ids = {there.id: place for place, there in destination.items() if there.id}
    for place, here in source.items():
        there = destination.get(place)
        if there is None or there.type != here.type or here.id == there.id:
            continue
        subject = ("device", here.type, here.id, "id")
        values = (here.id or None, there.id or None)
        if here.id in ids:
            what = f"{_name(here)} and {_name(there)} have changed places"
            cures = (Cure("destination", "give them in the order of the source", *subject[:3]),)
            yield pair.finding("device-swapped", what, values, subject=subject, cures=cures)
        elif here.id and there.id:
            what = f"{_name(here)} is called {there.id!r} at the destination"
            yield pair.finding("device-id", what, values, subject=subject)


def _name(device: Entry) -> str:
    return f"{device.type} {device.id}".rstrip()
