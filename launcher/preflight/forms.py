"""The forms of a virtio device over PCI: two spellings may be one device, and one spelling two.

`virtio-net-pci-transitional` speaks the protocol before 1.0 as well, and `-non-transitional` does
not. `virtio-net-pci` is either of them: what its `disable-legacy` says, else, with `auto`, without
the older protocol behind a PCI Express port and with it anywhere else (hw/virtio/virtio-pci.c,
virtio_pci_realize and virtio_pci_types_register).
"""

from __future__ import annotations

from launcher.preflight.options import Entry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

#: What the form follows from, once it is known.
_MADE_OF = ("disable-legacy", "disable-modern")
#: Devices with a PCI Express bus that is not a root bus.
_PORTS = ("pcie-root-port", "ioh3420", "xio3130-downstream")


def form(device: Entry, place: str, seats: Mapping[str, Entry]) -> str:
    """A device's type as the stream tells it: the virtio device with its form, else the type.

    Args:
        device: the device.
        place: where it is, `0000:00:01.0` or behind another `0000:00:01.0:00:00.0`.
        seats: all devices of its machine by their places.
    """
    head, pci, suffix = device.type.partition("-pci")
    if not pci or not head.startswith(("virtio-", "vhost-")) or suffix.startswith("-"):
        return device.type
    if device.members.get("disable-modern", "off") != "off":
        return device.type
    legacy = device.members.get("disable-legacy", "auto")
    if legacy == "auto":
        bridge = seats.get(place.rpartition(":")[0].rpartition(":")[0])
        legacy = "on" if bridge is not None and bridge.type in _PORTS else "off"
    return f"{device.type}-{'non-' if legacy == 'on' else ''}transitional"


def formed(device: Entry, place: str, seats: Mapping[str, Entry]) -> Entry:
    """A device with what its form says instead of `auto`: for two that have not the same."""
    made = form(device, place, seats)
    if made == device.type:
        return device
    legacy = "on" if made.endswith("-non-transitional") else "off"
    members = {**device.members, "disable-legacy": legacy}
    return Entry(device.family, device.type, device.id, members)


def formless(device: Entry) -> Entry:
    """A device without what its form follows from: for two that have the same."""
    members = {n: v for n, v in device.members.items() if n not in _MADE_OF}
    return Entry(device.family, device.type, device.id, members)
