"""What random pairs found that nobody had listed (test_preflight_random.py), as rows of their own.

The same rule: what fails is predicted and cured, what succeeds is not called broken.
"""

from __future__ import annotations

import os
import re
import subprocess
from typing import Any

import pytest

from integration.conftest import matrix_folder
from integration.random_moves import move as move_running
from integration.test_preflight import (
    BALLOON,
    FULL,
    MICROVM,
    RNG,
    Case,
    End,
    Fine,
    Profile,
    capable,
    check_failing,
    chosen,
    devices,
    move,
    nic,
    predict,
    q35,
    told,
)
from integration.test_preflight_rows import I440FX, NEWEST, NULL, fine, one, usb, virtio_disk
from launcher.data import load_rules
from launcher.platforms.rules import matching
from launcher.preflight import breaks

pytestmark = pytest.mark.integration

ACPI: Profile = {"machine": {"type": "microvm", "acpi": "on"}, "memory": "64MiB"}
PCIE: Profile = {"machine": {"type": "microvm", "acpi": "on", "pcie": "on"}, "memory": "64MiB"}
PORT = devices(p={"driver": "pcie-root-port", "chassis": 1})
SERIAL = {
    "chardevs": {"c": {"backend": "null"}},
    **devices(u={"driver": "qemu-xhci"}, k={"driver": "usb-serial", "chardev": "c"}),
}
SCREENS = devices(g={"driver": "virtio-gpu-pci", "max_outputs": 2})


def port(**more: Any) -> Profile:
    return devices(p={"driver": "pcie-root-port", "chassis": 1, **more})


def scsi(**more: Any) -> Profile:
    return devices(s={"driver": "virtio-scsi-pci", **more})


def apic(state: str, profile: Profile) -> Profile:
    return {**profile, "cpu": {"model": "qemu64", "apic": state}}


def microvm(driver: str, **machine: str) -> Profile:
    own = {"machine": {"type": "microvm", "acpi": "on", **machine}, "memory": "64MiB"}
    return {**own, **devices(d={"driver": driver})}


XHCI = devices(x={"driver": "qemu-xhci"})
#: Devices that offer MSI or MSI-X to a guest with a local APIC, and to no other.
MSI = {
    "hda": devices(d={"driver": "intel-hda"}),
    "serial": devices(d={"driver": "virtio-serial-pci"}),
    "keyboard": devices(d={"driver": "virtio-keyboard-pci"}),
    "megasas": devices(d={"driver": "megasas", "msi": "off"}),
    "mptsas": devices(d={"driver": "mptsas1068"}),
    "ahci": devices(d={"driver": "ich9-ahci"}),
    "pvscsi": devices(d={"driver": "pvscsi"}),
    "bridge": devices(d={"driver": "pci-bridge", "chassis_nr": 1}),
}
VIDEO = devices(v={"driver": "VGA"}, s={"driver": "vmware-svga"})


def fails() -> list[Case]:
    old = ("5.2", "7.2")
    esp, q52 = devices(s={"driver": "am53c974"}), q35("5.2")
    bare = {"migration": {"properties": {"send-configuration": "off"}}}
    plain, wide = ({"smp": {"cpus": 1, "maxcpus": n}} for n in (2, 4))
    xhci = devices(x={"driver": "nec-usb-xhci"})
    quiet = devices(x={"driver": "nec-usb-xhci", "msi": "off"})
    bridge = [devices(b={"driver": "pci-bridge", "chassis_nr": 1, **more})
              for more in ({}, {"shpc": "off"})]  # fmt: skip
    legacy = [devices(b={"driver": BALLOON, **more}) for more in ({}, {"disable-legacy": "on"})]
    twice = devices(x={"driver": RNG}, b={"driver": BALLOON})
    return [
        one("maxcpus", "maxcpus", {"smp": 1}, {"smp": 2}, guest="boots"),
        one("maxcpus-wide", "maxcpus", plain, wide, guest="boots", base=I440FX, full=True),
        one("maxcpus-11.1", "maxcpus", plain, wide, NEWEST),
        one("configuration-10.0", "send-configuration", bare, bare),
        one("configuration-11.1", "send-configuration", bare, bare, ("11.1", "7.2"), full=True),
        *(one(f"esp-{a}-{b}", "", esp, esp, (a, b), base=q52, cure="none", full=b == "11.1")
          for a, b in (("7.2", "5.2"), ("7.2", "10.0"), ("5.2", "11.1"), ("11.1", "10.0"))),
        one("xhci-msix", "", devices(x={"driver": "nec-usb-xhci", "msix": "off"}),
            devices(x={"driver": "nec-usb-xhci", "msix": "off"}), cure="words"),
        one("xhci-msi", "msi", xhci, quiet),
        one("outputs", "", SCREENS, SCREENS, ("7.2", "10.0"), base=q52, cure="words"),
        one("outputs-back", "", SCREENS, SCREENS, ("11.1", "5.2"), base=q52, cure="words",
            full=True),
        one("blocked-there", "", {}, SERIAL, cure="words"),
        one("block", "", capable(virtio_disk(), "block"), capable(virtio_disk(), "block"),
            ("7.2", "7.2"), cure="words"),
        one("colo-there", "x-colo", {}, capable({}, "x-colo", "return-path"), NEWEST),
        one("romfile", "romfile", nic(), nic(device={"romfile": ""})),
        one("shpc", "shpc", *bridge),
        one("reserve", "io-reserve", port(**{"io-reserve": 4096}), port(), ("7.2", "10.0")),
        one("vgamem", "vgamem", *(devices(d={"driver": "bochs-display", "vgamem": n})
                                  for n in ("8M", "16M")), ("7.2", "10.0")),
        one("speed", "x-speed", port(), port(**{"x-speed": "8"})),
        one("acs", "disable-acs", port(), port(**{"disable-acs": "on"}), NEWEST, full=True),
        one("form", "disable-legacy", legacy[1], legacy[0], base=I440FX),
        one("first-of-all", "driver", devices(b={"driver": BALLOON}), twice, cure="words"),
        Case("mmio-acpi", End(ACPI | devices(b={"driver": "virtio-balloon-device"}), old[0]),
             End(ACPI | devices(b={"driver": "virtio-balloon-device"}), old[1]), ("",),
             cure="words"),
        Case("ioapic2", End(ACPI, old[1]), End(ACPI, old[0]), ("",), cure="words"),
        Case("microvm-port", End(PCIE | PORT, old[0]), End(PCIE | PORT, old[1]), ("",),
             cure="none"),
        *(one(f"feature-{name}", name, nic(device={name: "on"}), nic(device={name: "off"}),
              guest="eager", full=name not in ("event_idx", "mq"))
          for name in ("event_idx", "indirect_desc", "packed", "mrg_rxbuf", "status", "ctrl_vq",
                       "guest_announce", "mq", "rss", "guest_rsc_ext")),
        one("vectors", "vectors", virtio_disk(), virtio_disk(vectors=0)),
        one("vectors-scsi", "vectors", scsi(vectors=0), scsi(), full=True),
        *(one(f"no-msi-{key}", "apic", apic("off", d), apic("on", d), base=I440FX, full=bool(n))
          for n, (key, d) in enumerate(MSI.items())),
        *(one(f"no-msi-xhci-{b}", "", apic("off", XHCI), apic("off", XHCI), (a, b), cure="words",
              base={**I440FX, "machine": "pc-i440fx-5.2"}, full=b != "10.0")
          for a, b in (("10.0", "10.0"), ("5.2", "7.2"), ("11.1", "11.1"))),
        one("no-msi-xhci-there", "", apic("off", XHCI), apic("on", XHCI), base=I440FX,
            cure="words"),
        *(one(f"svga-after-vga-{r}", "", VIDEO, VIDEO, (r, r), base=q52, cure="words")
          for r in ("5.2", "7.2", "10.0")),
        *(Case(f"mmio-places-{n}", End(microvm(d, **here), a), End(microvm(d), "7.2"), ("",),
               cure="words")
          for n, (d, a, here) in enumerate((
              ("virtio-gpu-device", "5.2", {}), ("virtio-balloon-device", "5.2", {"acpi": "off"}),
              ("virtio-gpu-device", "7.2", {"ioapic2": "off"}),
          ))),
        Case("ioapic2-gone", End(microvm("virtio-gpu-device"), "10.0"),
             End(microvm("virtio-gpu-device", ioapic2="off"), "10.0"), ("",), cure="words"),
        one("feature-mtu", "host_mtu", nic(device={"host_mtu": 1500}), nic(), guest="eager"),
        one("feature-speed", "speed", nic(device={"speed": 1000}), nic(), guest="eager"),
    ]  # fmt: skip


@pytest.mark.parametrize("case", chosen(fails()))
def test_what_fails_is_predicted_and_cured(case, guest, tmp_path):
    check_failing(case, str(tmp_path), guest)


def succeeds() -> list[Fine]:
    file = os.path.join(matrix_folder(), "10.0/root/usr/share/qemu/bios-microvm.bin")
    firmware = {"boot": {"firmware": os.path.realpath(file)}}
    second = {**ACPI["machine"], "ioapic2": "off"}
    mmio = devices(b={"driver": "virtio-balloon-device"})
    rom = [devices(b={"driver": BALLOON, "rombar": n}) for n in (1, 0)]
    channel = devices(s={"driver": "virtio-serial-pci"})
    console = {
        "chardevs": {"c": {"backend": "null"}},
        "devices": {**channel["devices"], "c0": {"driver": "virtconsole", "chardev": "c"}},
    }
    console["devices"]["c0"]["bus"] = "s.0"
    other = {**console, "devices": {**console["devices"]}}
    other["devices"]["c0"] = {"driver": "virtserialport", "chardev": "c", "bus": "s.0"}
    before = {"devices": dict(reversed(VIDEO["devices"].items()))}
    return [
        Fine("sata-i440fx", End(I440FX, "7.2"),
             End({**I440FX, "machine": {"type": I440FX["machine"], "sata": "off"}}, "10.0")),
        Fine("one-firmware", End(ACPI | firmware, "7.2"), End(ACPI | firmware, "10.0")),
        Fine("ioapic2-there", End(ACPI | mmio, "5.2"), End({**ACPI, "machine": second, **mmio},
             "7.2")),
        Fine("ioapic2-here", End({**ACPI, "machine": second}, "7.2"), End(ACPI, "5.2")),
        fine("no-rom", *rom),
        fine("first-console", channel, console),
        fine("controller-with-ports", {}, other),
        fine("msi-by-itself", devices(x={"driver": "nec-usb-xhci", "msi": "auto"}),
             devices(x={"driver": "nec-usb-xhci", "msi": "on"})),
        fine("colo-there-10.0", {}, capable({}, "x-colo", "return-path")),
        fine("outputs-alike", SCREENS, SCREENS, releases=("10.0", "11.1")),
        Fine("rtc-by-itself", End({**MICROVM, "machine": {"type": "microvm", "acpi": "off"}},
             "7.2"), End({**MICROVM, "machine": {"type": "microvm", "acpi": "off", "rtc": "on"}},
             "7.2")),
        fine("vectors-alike", scsi(vectors=4), scsi(), base=I440FX),
        *(fine(f"no-msi-{n}", apic("off", d), apic("on", d), base=I440FX)
          for n, d in enumerate((devices(d={"driver": "intel-hda", "msi": "off"}),
                                 devices(d={"driver": "virtio-serial-pci", "vectors": 0}),
                                 devices(d={"driver": "virtio-rng-pci", "vectors": 0}),
                                 devices(d={"driver": "megasas", "msi": "off", "msix": "off"}),
                                 devices(d={"driver": "usb-ehci"})))),
        fine("no-msi-xhci", apic("off", XHCI), apic("off", XHCI), releases=("7.2", "5.2"),
             base={**I440FX, "machine": "pc-i440fx-5.2"}),
        *(fine(f"svga-before-vga-{r}", before, before, releases=(r, r)) for r in ("7.2", "10.0")),
        Fine("mmio-places", End(microvm("virtio-gpu-device", acpi="off"), "7.2"),
             End(microvm("virtio-gpu-device", ioapic2="off"), "7.2")),
        fine("usb", usb("usb-kbd"), usb("usb-kbd"), releases=("7.2", "11.1")),
    ]  # fmt: skip


@pytest.mark.parametrize("case", [pytest.param(c, id=c.name) for c in succeeds()])
def test_what_succeeds_is_not_called_broken(case):
    findings = predict(case.source, case.destination)
    assert not breaks(findings), told(findings)
    outcome = move(case.source, case.destination)
    assert outcome.result == "completed", (outcome, told(findings))


REGIONS = {
    "speed": ("virtio-net-pci", {}, {"speed": 1000}),
    "mq": ("virtio-net-pci", {"mq": "off"}, {"mq": "on"}),
    "write-zeroes": ("virtio-blk-pci", {"discard": "off", "write-zeroes": "off"}, {}),
}


@pytest.mark.parametrize("name", REGIONS if FULL else ["speed"])
def test_an_io_region_that_grows_does_not_fit(name):
    """The firmware gives the smaller region an address; of three one does not fit the larger."""
    driver, here, there = REGIONS[name]
    link = {"virtio-net-pci": ("netdev", "n"), "virtio-blk-pci": ("drive", "d")}[driver]
    base = {
        "machine": "pc-i440fx-7.2",
        "memory": "64MiB",
        "netdevs": {f"n{n}": {"type": "user"} for n in range(3)} if link[1] == "n" else {},
        "blockdevs": {f"d{n}": NULL["blockdevs"]["d"] for n in range(3)} if link[1] == "d" else {},
    }
    ends = [
        End({**base, "devices": {f"v{n}": {"driver": driver, link[0]: f"{link[1]}{n}", **more}
                                 for n in range(3)}}, "7.2")
        for more in (here, there)
    ]  # fmt: skip
    broken = breaks(predict(*ends))
    assert {f.property for f in broken} >= {name}, told(broken)
    outcome = move_running(*ends, runs=True, hung=30)
    assert outcome.result == "failed", outcome
    assert "Bad config data: i=0x10" in outcome.said
    # A device without the older protocol has no such region.
    modern = [
        end._replace(settings=tuple(f"devices.v{n}.disable-legacy=on" for n in range(3)))
        for end in ends
    ]
    assert not breaks(predict(*modern))
    assert move_running(*modern, runs=True, hung=30).result == "completed"


def test_every_device_of_pci_takes_a_slot(qemu):
    """One that is not known to would move all that follow it."""
    words = [qemu.binary, "-device", "help"]
    listed = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout
    names = set(re.findall(r'^name "([^"]+)", bus PCI', listed, re.MULTILINE))
    assert len(names) > 100
    seats = load_rules().rules.seats
    table = [("", name) for name in seats]
    elsewhere = {n for n in names if [seats[f] for f in matching(table, "", n)][:1] != ["pci"]}
    assert {n for n in elsewhere if not n.startswith(("xen-", "igd-", "x-"))} == set()
