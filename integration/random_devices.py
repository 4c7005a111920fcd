"""The devices that a random machine may have, and settings of its migration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

PC = ("pc-q35", "pc-i440fx")
Q35 = ("pc-q35",)
ALL = (*PC, "microvm")
ONOFF = ("on", "off")


class Kind(NamedTuple):
    """A device's driver, what may be set of it, and where it goes.

    `place`: `pci`; `virtio` for PCI on a PC and MMIO on a microvm; empty where nothing is to be
    chosen. A `bridge` makes a bus with `room` for so many.
    """

    driver: str
    properties: dict[str, Sequence[Any]]
    make: Callable[[Any], dict[str, Any]] | None = None
    place: str = "pci"
    families: tuple[str, ...] = PC
    since: str = ""
    bridge: bool = False
    room: int = 0
    own: tuple[str, ...] = ()


_COMMON: dict[str, Sequence[Any]] = {
    **dict.fromkeys(("event_idx", "indirect_desc", "packed", "ats", "page-per-vq"), ONOFF),
    "disable-legacy": ("on", "off", "auto"),
    "disable-modern": ("on",),
    "iommu_platform": ONOFF,
    "modern-pio-notify": ONOFF,
    "queue_reset@7.2": ONOFF,
    "multifunction": ("on",),
    "use-disabled-flag": ONOFF,
    "use-started": ONOFF,
    "any_layout": ONOFF,
    "notify_on_empty": ONOFF,
    "rombar": (0, 1),
    "x-pcie-flr-init": ONOFF,
}
#: Properties that virtio devices have over MMIO, too.
MMIO = ("event_idx", "indirect_desc", "packed", "iommu_platform", "any_layout", "notify_on_empty",
        "use-disabled-flag", "use-started", "netdev", "drive", "rng", "queue_reset")  # fmt: skip
#: Types with a `-transitional` spelling.
PCI_PLACES = ("virtio-net-pci", "virtio-blk-pci", "virtio-scsi-pci", "virtio-rng-pci",
              "virtio-balloon-pci", "virtio-serial-pci")  # fmt: skip


def _virtio(driver: str, own: dict[str, Sequence[Any]], **more: Any) -> list[Kind]:
    """A virtio device on PCI, and one on MMIO where the machine has no PCI."""
    names = tuple(n.partition("@")[0] for n in own if not n.startswith("vectors"))
    pci = Kind(f"{driver}-pci", {**_COMMON, **own}, families=ALL, own=names, **more)
    if driver in ("virtio-multitouch",):
        return [pci]
    both = pci._replace(driver=f"{driver}-device", place="mmio", families=("microvm",))
    return [pci, both]


def netdev(m: Any) -> dict[str, Any]:
    kind = m.one(
        ("user", "user", "user", "hubport", "socket", *(("dgram", "stream") * m.has("7.2")))
    )
    more: dict[str, Any] = {}
    if kind == "user":
        more = m.some({"restrict": ONOFF, "ipv6": ("off",), "net": ("10.1.0.0/24",)})
    elif kind == "hubport":
        more = {"hubid": m.one((0, 1))}
    elif kind == "socket":
        more = {"listen": "127.0.0.1:0"}
    elif kind == "dgram":
        more = {"local": {"type": "inet", "host": "127.0.0.1", "port": "0"},
                "remote": {"type": "inet", "host": "127.0.0.1", "port": "9"}}  # fmt: skip
    else:
        more = {"server": "on", "addr": {"type": "inet", "host": "127.0.0.1", "port": "0"}}
    return {"netdev": m.part("netdevs", "n", type=kind, **more)}


def node(m: Any) -> dict[str, Any]:
    """A block node, of null's kind, behind a filter, or of a file."""
    size = m.one((1, 4)) << 20
    null = {"driver": m.one(("null-co", "null-aio")), "size": size}
    way = m.one(("null", "null", "null", "raw", "filter", "throttle", "file", "qcow2", "blocked"))
    if way == "raw":
        return {"drive": m.part("blockdevs", "b", driver="raw", file=null)}
    if way == "filter":
        kind = m.one(("copy-on-read", "blkdebug", "copy-on-read"))
        member = "image" if kind == "blkdebug" else "file"
        return {"drive": m.part("blockdevs", "b", driver=kind, **{member: null})}
    if way == "throttle":
        group = m.part("objects", "t", **{"qom-type": "throttle-group", "x-iops-total": 1000})
        more = {"throttle-group": group, "file": null}
        return {"drive": m.part("blockdevs", "b", driver="throttle", **more)}
    if way in ("file", "qcow2", "blocked"):
        form = {"file": "raw", "qcow2": "qcow2", "blocked": m.one(("vmdk", "vdi"))}[way]
        file = {"driver": "file", "filename": f"{m.folder}/{m.new('i')}.{form}"}
        return {"drive": m.part("blockdevs", "b", driver=form, file=file)}
    return {"drive": m.part("blockdevs", "b", **null)}


def disk(m: Any) -> dict[str, Any]:
    found = node(m)
    if m.maybe(0.3):
        found["iothread"] = m.part("objects", "io", **{"qom-type": "iothread"})
    return found


def chardev(m: Any) -> dict[str, Any]:
    kind = m.one(("null", "ringbuf", "null", "file"))
    more = {"path": "/dev/null"} if kind == "file" else {}
    return {"chardev": m.part("chardevs", "c", backend=kind, **more)}


def rng(m: Any) -> dict[str, Any]:
    if m.maybe(0.3):
        return {}
    kind = m.one(("rng-builtin", "rng-random"))
    return {"rng": m.part("objects", "r", **{"qom-type": kind})}


def _other(m: Any, head: str, driver: str, **members: Any) -> str:
    key: str = m.part("devices", head, driver=driver, **members)
    return key


def on_usb(m: Any) -> dict[str, Any]:
    """A port of a USB controller that is made for it, or of one that is there."""
    there = [k for k, d in m.profile.get("devices", {}).items() if "xhci" in d["driver"]]
    if there and m.maybe(0.7):
        return {"bus": f"{m.one(there)}.0"}
    return {"bus": f"{_other(m, 'u', m.one(('qemu-xhci', 'nec-usb-xhci')))}.0"}


def on_scsi(m: Any) -> dict[str, Any]:
    names = ("virtio-scsi", "lsi53c", "megasas", "pvscsi", "mptsas", "am53c974")
    there = [k for k, d in m.profile.get("devices", {}).items() if d["driver"].startswith(names)]
    if not (there and m.maybe(0.7)):
        there = [_other(m, "s", m.one(("virtio-scsi-pci", "virtio-scsi-pci", "lsi53c895a")))]
    more = {"scsi-id": m.one(range(1, 6)), "lun": 0} if m.maybe(0.3) else {}
    return {**node(m), "bus": f"{m.one(there)}.0", **more}


def on_hda(m: Any) -> dict[str, Any]:
    audio = m.part("audiodevs", "a", driver="none")
    controller = _other(m, "h", m.one(("intel-hda", "ich9-intel-hda")))
    return {"audiodev": audio, "bus": f"{controller}.0"}


def audio(m: Any) -> dict[str, Any]:
    return {"audiodev": m.part("audiodevs", "a", driver="none")}


def on_serial(m: Any) -> dict[str, Any]:
    there = [k for k, d in m.profile.get("devices", {}).items()
             if d["driver"].startswith("virtio-serial")]  # fmt: skip
    if not (there and m.maybe(0.7)):
        mmio = m.family == "microvm" and not m.pci
        there = [_other(m, "v", f"virtio-serial-{'device' if mmio else 'pci'}")]
    return {"bus": f"{m.one(there)}.0", **chardev(m)}


def port(m: Any) -> dict[str, Any]:
    return {"chassis": len(m.profile.get("devices", {})) + 1, "slot": m.made % 30}


def bridge(m: Any) -> dict[str, Any]:
    return {"chassis_nr": len(m.profile.get("devices", {})) + 1}


def on_ahci(m: Any) -> dict[str, Any]:
    made = _other(m, "h", "ich9-ahci")
    return {**node(m), "bus": f"{made}.{m.one(range(3))}"}


_DISK = {"write-cache": ONOFF, "serial": ("abc",), "share-rw": ("on",),
    "logical_block_size": (512,),
         "werror": ("report",)}  # fmt: skip

DEVICES: tuple[Kind, ...] = (
    *_virtio("virtio-net", {"vectors": (0, 2, 3, 4), "mq": ("on",), "ctrl_vq": ONOFF,
        "status": ONOFF,
        "csum": ONOFF, "gso": ONOFF, "guest_csum": ONOFF, "mrg_rxbuf": ONOFF,
            "guest_announce": ONOFF,
        "rx_queue_size": (256, 512, 1024), "host_mtu": (1500, 9000), "speed": (1000,),
            "hash": ("on",),
        "rss": ("on",), "tx": ("timer",), "romfile": ("",), "ctrl_rx": ONOFF,
            "guest_rsc_ext": ONOFF},
        make=netdev),
    *_virtio("virtio-blk", {"vectors": (0, 2, 3), "num-queues": (1, 2, 4), "queue-size": (128, 256,
        512),
        "discard": ONOFF, "write-zeroes": ONOFF, "config-wce": ONOFF, "seg-max-adjust": ONOFF,
        "request-merging": ONOFF, **_DISK}, make=disk),
    *_virtio("virtio-scsi", {"vectors": (0, 3, 5), "num_queues": (1, 2, 4), "virtqueue_size": (128,
        256),
        "cmd_per_lun": (64,), "hotplug": ONOFF, "param_change": ONOFF, "max_sectors": (1024,)}),
    *_virtio("virtio-balloon", {"vectors@10.0": (0, 2, 4), "deflate-on-oom": ONOFF,
        "free-page-reporting": ONOFF, "page-poison": ONOFF}),
    *_virtio("virtio-rng", {"vectors@7.2": (0, 1, 2), "max-bytes": (1024,), "period": (1000,)},
        make=rng),
    *_virtio("virtio-serial", {"vectors": (0, 2, 4), "max_ports": (1, 2, 31)}),
    *_virtio("virtio-keyboard", {"vectors": (0, 2), "serial": ("k",)}),
    *_virtio("virtio-mouse", {"vectors": (0, 2)}),
    *_virtio("virtio-tablet", {"vectors": (0, 2)}),
    *_virtio("virtio-multitouch", {"vectors": (0, 2)}, since="10.0"),
    *_virtio("virtio-gpu", {"vectors": (0, 3), "max_outputs": (1, 2), "edid": ONOFF, "xres": (800,),
        "max_hostmem": (1 << 28,)}),
    Kind("virtio-vga", {"max_outputs": (1, 2), "edid": ONOFF}),
    Kind("virtio-iommu-pci", {}, families=Q35, since="7.2"),
    Kind("virtio-crypto-pci", {}, make=lambda m: {
        "cryptodev": m.part("objects", "y", **{"qom-type": "cryptodev-backend-builtin"})}),
    *(Kind(n, {"mac": ("52:54:00:11:22:33",), "romfile": ("",), "rombar": (0, 1),
        "multifunction": ("on",)}, make=netdev)
      for n in ("e1000", "e1000e", "rtl8139", "i82559er", "pcnet", "ne2k_pci", "vmxnet3", "tulip",
          "i82550",
                "e1000-82545em")),
    Kind("VGA", {"vgamem_mb": (8, 16, 32), "edid": ONOFF, "mmio": ONOFF, "rombar": (0, 1),
        "xres": (800,),
        "qemu-extended-regs": ONOFF}),
    Kind("bochs-display", {"vgamem": ("8M", "16M"), "edid": ONOFF}),
    Kind("secondary-vga", {"vgamem_mb": (8, 16), "edid": ONOFF}),
    Kind("cirrus-vga", {"vgamem_mb": (4, 8), "blitter": ONOFF}),
    Kind("ati-vga", {"vgamem_mb": (16,)}),
    Kind("vmware-svga", {"vgamem_mb": (16,)}),
    Kind("qemu-xhci", {"p2": (1, 4, 8), "p3": (1, 4, 8), "streams": ONOFF}),
    Kind("nec-usb-xhci", {"p2": (1, 4), "msi": ("on", "off", "auto"), "msix": ("on", "off",
        "auto")}),
    *(Kind(n, {"multifunction": ("on",)}) for n in ("usb-ehci", "ich9-usb-uhci1", "piix3-usb-uhci",
        "pci-ohci",
        "ich9-usb-ehci1")),
    *(Kind(n, {"serial": ("x",), "msos-desc": ONOFF}, make=on_usb, place="")
      for n in ("usb-kbd", "usb-mouse", "usb-tablet", "usb-hub", "usb-ccid")),
    Kind("usb-storage", {"removable": ONOFF, **_DISK}, make=lambda m: {**on_usb(m), **node(m)},
        place=""),
    Kind("usb-audio", {"multi": ONOFF}, make=lambda m: {**on_usb(m), **audio(m)}, place=""),
    Kind("usb-serial", {}, make=lambda m: {**on_usb(m), **chardev(m)}, place=""),
    Kind("scsi-hd", {"rotation_rate": (1,), "dpofua": ONOFF, "removable": ONOFF, **_DISK},
        make=on_scsi, place=""),
    Kind("scsi-cd", {}, make=on_scsi, place=""),
    *(Kind(n, {"mixer": ONOFF}, make=on_hda, place="") for n in ("hda-duplex", "hda-output",
        "hda-micro")),
    Kind("AC97", {}, make=audio),
    Kind("ES1370", {}, make=audio),
    Kind("sb16", {}, make=audio, place=""),
    *(Kind(n, {}) for n in ("edu", "pci-testdev", "sdhci-pci", "am53c974", "pvscsi", "mptsas1068",
        "dc390")),
    Kind("megasas", {"max_sge": (128,), "msi": ("on", "off", "auto"), "msix": ("on", "off")}),
    Kind("lsi53c895a", {}),
    Kind("ich9-ahci", {}),
    Kind("ide-hd", {"rotation_rate": (1,), **_DISK}, make=on_ahci, place=""),
    Kind("i6300esb", {}),
    Kind("ib700", {}, place=""),
    Kind("pvpanic", {}, place=""),
    Kind("pvpanic-pci", {}, since="7.2"),
    Kind("vmcoreinfo", {}, place=""),
    Kind("isa-parallel", {}, make=chardev, place=""),
    Kind("isa-serial", {"index": (2,), "baudbase": (9600,)}, make=chardev, place=""),
    Kind("pci-serial", {}, make=chardev),
    Kind("pci-serial-4x", {},
        make=lambda m: {f"chardev{n}": chardev(m)["chardev"] for n in range(1, 5)}),
    Kind("isa-debug-exit", {"iobase": (0xF4,)}, place=""),
    Kind("intel-iommu", {"intremap": ("off",), "caching-mode": ONOFF}, place="", families=Q35),
    Kind("ipmi-bmc-sim", {}, place=""),
    Kind("nvme", {"serial": ("n",), "max_ioqpairs": (4,)}, make=lambda m: {**node(m),
        "serial": "s"}),
    Kind("virtserialport", {"nr": (3, 5), "name": ("p",)}, make=on_serial, place="", families=ALL),
    Kind("virtconsole", {}, make=on_serial, place="", families=ALL),
    Kind("pcie-root-port", {"port": (3,), "hotplug@6.0": ONOFF, "x-speed": ("2_5", "8"),
        "x-width": ("1", "4"),
        "disable-acs": ("on",), "power_controller_present": ONOFF, "aer_log_max": (4,),
            "io-reserve": (4096,)},
        make=port, families=Q35),
    Kind("pcie-root-port", {}, make=port, place="port", families=(*Q35, "microvm"), bridge=True,
        room=1),
    Kind("ioh3420", {}, make=port, place="port", families=Q35, bridge=True, room=1),
    Kind("pcie-pci-bridge", {"msi": ("on", "off", "auto")}, place="port", families=Q35,
        bridge=True, room=4),
    Kind("i82801b11-bridge", {}, place="port", families=Q35, bridge=True, room=4),
    Kind("pci-bridge", {"shpc": ONOFF, "msi": ("on", "off", "auto")}, make=bridge, place="port",
        families=PC,
        bridge=True, room=4),
)  # fmt: skip

#: `family.name@SINCE-UNTIL` and the values that it may have.
SETTINGS: tuple[tuple[str, Any], ...] = (
    *(("capabilities.multifd", "on"),) * 4,
    *((f"capabilities.{name}", "on") for name in (
        "xbzrle", "auto-converge", "postcopy-ram", "events", "return-path@7.2", "release-ram",
        "pause-before-switchover", "x-ignore-shared", "validate-uuid", "late-block-activate",
        "postcopy-blocktime", "dirty-bitmaps", "background-snapshot@7.2", "postcopy-preempt@7.2",
        "switchover-ack@10.0", "mapped-ram@10.0", "rdma-pin-all",
        "compress@-7.2", "block@-7.2", "zero-blocks@-10.0", "x-colo")),
    *(("parameters.multifd-channels", (1, 2, 4)),) * 2,
    ("parameters.multifd-compression", ("none", "zlib")),
    ("parameters.multifd-zlib-level", (1, 9)),
    ("parameters.xbzrle-cache-size", (4 << 20, 1 << 20)),
    ("parameters.max-bandwidth", (1 << 30,)),
    ("parameters.downtime-limit", (100, 1000)),
    ("parameters.cpu-throttle-initial", (10,)),
    ("parameters.max-postcopy-bandwidth", (1 << 20,)),
    ("parameters.announce-rounds", (1,)),
    ("parameters.zero-page-detection@10.0", ("none", "legacy", "multifd")),
    ("parameters.direct-io@10.0", ("off",)),
    ("properties.send-section-footer", ("on", "off")),
    ("properties.send-configuration", ("on", "off")),
    ("properties.store-global-state", ("on", "off")),
    ("properties.send-switchover-start@10.0", ("on", "off")),
    ("properties.multifd-flush-after-each-section@10.0", ("on", "off")),
    ("properties.x-preempt-pre-7-2@10.0", ("on", "off")),
    ("properties.multifd-clean-tls-termination@10.0", ("on", "off")),
)  # fmt: skip
