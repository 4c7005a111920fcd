"""Random machines: what is drawn starts on two releases.

A property or a device is drawn only where the older of the two has it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from integration.random_devices import DEVICES, MMIO, PCI_PLACES, SETTINGS, Kind
from integration.test_preflight import Profile

#: Machine types that the releases of the matrix share, by the oldest that a pair has.
_TYPES = ("4.2", "5.0", "5.1", "5.2", "6.0", "6.1", "6.2", "7.0", "7.1", "7.2", "8.0", "8.1", "8.2",
          "9.0", "9.1", "9.2", "10.0", "10.1", "10.2", "11.0", "11.1")  # fmt: skip
_ANCIENT = ("2.4", "2.6", "2.9", "2.10", "2.11", "2.12", "3.0", "3.1", "4.0", "4.1")
_CPUS = (
    *("qemu64", "max", "Nehalem", "Haswell", "SandyBridge", "EPYC", "Conroe", "Westmere", "kvm64"),
    *("Skylake-Client", "Opteron_G5", "core2duo", "phenom", "IvyBridge", "Penryn", "Broadwell-v4"),
)
_FEATURES = ("avx", "pmu", "aes", "sse4.2", "smep", "xsave", "rdrand", "apic", "x2apic", "svm")


def numbers(release: str) -> tuple[int, ...]:
    return tuple(int(n) for n in release.split("."))


class Maker:
    """One profile in the making."""

    def __init__(self, chance: random.Random, low: str, high: str, folder: str) -> None:
        self.chance, self.low, self.high, self.folder = chance, numbers(low), numbers(high), folder
        self.profile: Profile = {}
        self.made = 0
        #: buses that a PCI device may stand on, with the room that is left there
        self.buses: dict[str, int] = {}
        self.family = ""

    def maybe(self, share: float) -> bool:
        return self.chance.random() < share

    def one(self, values: Sequence[Any]) -> Any:
        return self.chance.choice(list(values))

    def has(self, since: str) -> bool:
        """Whether both releases have what came with one."""
        return not since or self.low >= numbers(since)

    def new(self, head: str) -> str:
        self.made += 1
        return f"{head}{self.made}"

    def part(self, family: str, head: str, **members: Any) -> str:
        """Add a part, and give its id."""
        key = self.new(head)
        self.profile.setdefault(family, {})[key] = members
        return key

    def some(self, choices: dict[str, Sequence[Any]], share: float = 0.15) -> Profile:
        """A few of the properties; a name with `@` has the release that it came with."""
        found = {}
        for word, values in choices.items():
            name, _, since = word.partition("@")
            if self.maybe(share) and self.has(since):
                found[name] = self.one(values)
        return found

    # -- the machine ------------------------------------------------------------------------------

    def machine(self, family: str = "") -> None:
        self.family = family or self.one(("pc-q35", "pc-q35", "pc-i440fx", "pc-i440fx", "microvm"))
        if self.family == "microvm":
            more = self.some({"acpi": ("on", "off"), "pit": ("on", "off"), "pic": ("on", "off"),
                              "rtc": ("on", "off"), "isa-serial": ("on", "off"),
                              "usb": ("on",)}, 0.3)  # fmt: skip
            if self.maybe(0.3):
                more |= {"acpi": "on", "pcie": "on"}
            if more.get("usb") == "on":
                more["acpi"] = "on"
            self.profile["machine"] = {"type": "microvm", **more}
        else:
            old = _ANCIENT[3:] if self.family == "pc-q35" else _ANCIENT
            usual = [t for t in _TYPES if numbers(t) <= self.low]
            ancient = self.maybe(0.2) and self.high < (11,)
            if self.high >= (11,):
                usual = [t for t in usual if numbers(t) >= (5, 2)]
            more = self.some({"pit": ("on", "off"), "hpet": ("on", "off"), "smbus": ("on", "off"),
                              "sata": ("on", "off"), "vmport": ("on", "off", "auto"),
                              "usb": ("on", "off"), "acpi": ("on", "off"), "smm": ("on", "off"),
                              "i8042@7.0": ("on",), "graphics": ("off",), "mem-merge": ("off",),
                              "nvdimm": ("on",), "hmat": ("off",), "max-ram-below-4g": ("1G",),
                              "default-bus-bypass-iommu@6.1": ("on",), "fd-bootchk@8.0": ("off",),
                              "suppress-vmdesc": ("on",)}, 0.05)  # fmt: skip
            if self.high >= (11,):
                for gone in ("nvdimm", "hmat"):
                    more.pop(gone, None)
            kind = self.one(old if ancient else usual)
            kind = f"{self.family}-{kind}"
            if self.maybe(0.06) and self.low == self.high:
                kind = "q35" if self.family == "pc-q35" else "pc"
            self.profile["machine"] = {"type": kind, **more}
        if self.pci:
            self.buses[""] = 20

    @property
    def pci(self) -> bool:
        machine = self.profile["machine"]
        return self.family != "microvm" or machine.get("pcie") == "on"

    def processors(self) -> None:
        if self.maybe(0.5):
            self.profile["smp"] = self.one((1, 2, 3, 4))
        elif self.maybe(0.5):
            s, c, t = (self.one((1, 2)) for _ in range(3))
            self.profile["smp"] = {"cpus": s * c * t, "sockets": s, "cores": c, "threads": t}
            if self.maybe(0.3):
                self.profile["smp"] |= {"maxcpus": s * c * t * 2, "sockets": s * 2}
        if self.maybe(0.4):
            features = {n: self.one(("on", "off")) for n in _FEATURES if self.maybe(0.06)}
            self.profile["cpu"] = {"model": self.one(_CPUS), **features}
        options = self.some({"thread": ("single", "multi"), "tb-size": (16, 64),
                             "split-wx@6.0": ("on",)}, 0.1)  # fmt: skip
        if options:
            self.profile["accel"] = [{"accel": "tcg", **options}]

    def backend(self, size: int) -> Profile:
        kind = self.one(("ram", "memfd", "file"))
        more = self.some({"share": ("on", "off"), "prealloc": ("on",), "merge": ("off",),
                          "dump": ("off",)}, 0.25)  # fmt: skip
        if self.maybe(0.07):
            more["x-use-canonical-path-for-ramblock-id"] = self.one(("on", "off"))
        if kind == "file":
            more["mem-path"] = f"/dev/shm/ql-{self.folder.rpartition('/')[2]}-{self.new('m')}"
        return {"qom-type": f"memory-backend-{kind}", "size": size, **more}

    def memory(self) -> None:
        size = self.one((32, 64, 96, 128)) << 20
        way = self.one(("short", "short", "plain", "backend", "numa"))
        if way == "numa" and self.family != "microvm":
            nodes = self.one((1, 2))
            self.profile["memory"] = {"size": size}
            keys = []
            for _ in range(nodes):
                keys.append(self.new("mem"))
                part = self.backend(size // nodes)
                self.profile.setdefault("objects", {})[keys[-1]] = part
            self.profile["numa"] = [
                {"type": "node", "nodeid": n, "memdev": key} for n, key in enumerate(keys)
            ]
        elif way == "plain":
            self.profile["extra-args"] = ["-m", str(size >> 20)]
        elif way == "backend":
            key = self.new("mem")
            self.profile["memory"] = {"size": size}
            self.profile.setdefault("objects", {})[key] = self.backend(size)
            self.profile["machine"]["memory-backend"] = key
        else:
            self.profile["memory"] = {"size": size}
            if self.maybe(0.2):
                self.profile["memory"] |= {"slots": self.one((1, 2, 4)), "maxmem": "2GiB"}
            if self.family == "microvm":
                self.profile["memory"].pop("slots", None)

    # -- what migrates it -------------------------------------------------------------------------

    def migration(self) -> None:
        for name, value in self.chance.sample(SETTINGS, self.one((0, 0, 0, 1, 1, 2, 3))):
            set_migration(self, self.profile, name, value)
        repaired(self.profile)


def set_migration(maker: Maker, profile: Profile, word: str, value: Any) -> bool:
    """One of migration's settings: `capabilities.multifd@SINCE-UNTIL`."""
    name, _, known = word.partition("@")
    since, _, until = known.partition("-")
    if not maker.has(since) or (until and maker.high > numbers(until)):
        return False
    family, _, key = name.partition(".")
    chosen = maker.one(value) if isinstance(value, (list, tuple)) else value
    profile.setdefault("migration", {}).setdefault(family, {})[key] = chosen
    return True


def repaired(profile: Profile) -> None:
    """What QEMU itself refuses at one end says nothing of a migration."""
    found = profile.get("migration", {}).get("capabilities")
    if not found:
        return
    for name, wants in (("postcopy-preempt", "postcopy-ram"), ("switchover-ack", "return-path"),
                        ("x-colo", "return-path")):  # fmt: skip
        if found.get(name) == "on":
            found[wants] = "on"
    alone = ("background-snapshot", "mapped-ram")
    for name in alone:
        if found.get(name) == "on":
            profile["migration"] = {"capabilities": {name: "on"}}
            return
    if found.get("multifd") == "on":
        for name in ("compress", "xbzrle"):
            found.pop(name, None)
    if found.get("postcopy-ram") == "on":
        for name in ("x-ignore-shared", "compress", "multifd"):
            found.pop(name, None)
    if found.get("compress") == "on":
        found.pop("xbzrle", None)


#: Bridges with a hotplug controller of PCI's own.
SLOTTED = ("pci-bridge", "pcie-pci-bridge")

# -- devices --------------------------------------------------------------------------------------


def fitting(made: Profile, already: Profile) -> Profile:
    """Properties that do not exclude each other."""
    both = {**already, **made}
    if both.get("disable-modern") == "on" or both.get("iommu_platform") == "on":
        made.pop("disable-legacy", None)
        made.pop("disable-modern", None)
        made.pop("iommu_platform", None)
    return made


def over_mmio(kind: Kind, members: Profile) -> Profile:
    """What a virtio device has without PCI."""
    return {k: v for k, v in members.items() if (k in MMIO or k in kind.own) and k != "romfile"}


def device(m: Maker) -> None:
    """One device with what it needs, where there is room for it."""
    kind: Kind = m.one(DEVICES)
    for _ in range(20):
        kind = m.one(DEVICES)
        if m.has(kind.since) and m.family in kind.families and _room(m, kind):
            break
    else:
        return
    members = kind.make(m) if kind.make is not None else {}
    driver = kind.driver
    if kind.place == "pci":
        members |= _bus(m)
        if kind.driver in PCI_PLACES and m.maybe(0.15):
            driver += m.one(("-transitional", "-non-transitional"))
    members |= fitting(m.some(kind.properties), {})
    if driver.endswith("-device"):
        members = over_mmio(kind, members)
    if driver.endswith("transitional"):
        members = {k: v for k, v in members.items() if not k.startswith("disable-")}
    key = m.part("devices", "d", driver=driver, **members)
    if kind.bridge:
        m.buses[key] = kind.room


def _room(m: Maker, kind: Kind) -> bool:
    if kind.place in ("pci", "port"):
        return m.pci and any(m.buses.values())
    if kind.place == "mmio":
        return sum("-device" in d["driver"] for d in m.profile.get("devices", {}).values()) < 7
    return True


def _bus(m: Maker) -> Profile:
    free = [name for name, room in m.buses.items() if room]
    behind = [name for name in free if name]
    name = m.one(behind) if behind and m.maybe(0.5) else m.one(free)
    m.buses[name] -= 1
    if not name:
        return {}
    kind = m.profile["devices"][name]["driver"]
    # A bridge with a hotplug controller takes nothing in its slot 0.
    return {"bus": name, **({"addr": f"0{m.buses[name] + 1}"} if kind in SLOTTED else {})}
