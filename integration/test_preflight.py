"""What preflight says, against what QEMU does: every case migrates for real, by raw QMP.

A case that fails must be predicted, in QEMU's words where there are any, and every cure that is
named must make it succeed. A case that succeeds must not be called broken.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from integration import older_kernel, pair
from integration.conftest import RELEASES, installed, matrix_folder, needs_tap
from integration.eager_guest import EagerGuest
from integration.pair import Outcome, migrate
from launcher.command import render_standalone
from launcher.data import load_rules
from launcher.ends import planned_end
from launcher.preflight import Finding, breaks, explain, preflight
from launcher.prepare import Prepared, Request, load, prepare_now

pytestmark = pytest.mark.integration

FULL = os.environ.get("QEMU_LAUNCHER_FULL") == "1"
#: A release outside the matrix, by its suite: there only where somebody brought it.
UPDATE = "trixie"

Profile = dict[str, Any]

UUIDS = [f"{n}1111111-1111-1111-1111-111111111111" for n in (1, 2)]

MICROVM: Profile = {
    "machine": {
        "type": "microvm",
        "acpi": "off",
        "pit": "on",
        "pic": "on",
        "rtc": "on",
        "isa-serial": "on",
    },
    "memory": "64MiB",
}


def q35(release: str = "7.2", **more: Any) -> Profile:
    return {"machine": f"pc-q35-{release}", "memory": "64MiB", **more}


def plain(machine: str = "pc-q35-7.2", **more: Any) -> Profile:
    """RAM of the machine type's own, without a backend."""
    return {"machine": machine, "extra-args": ["-m", "64"], **more}


def backed(kind: str, key: str, machine: str = "pc-q35-7.2", **more: Any) -> Profile:
    """RAM of a backend."""
    backend = {"qom-type": f"memory-backend-{kind}", "size": 64 << 20, **more}
    return {
        "machine": {"type": machine, "memory-backend": key},
        "extra-args": ["-m", "64"],
        "objects": {key: backend},
    }


def capable(profile: Profile, *names: str, **more: Any) -> Profile:
    """With migration capabilities; `more` are further keys of `migration`."""
    states = dict.fromkeys(names, "on")
    return {**profile, "migration": {"capabilities": states, **more}}


def users(*ids: str) -> Profile:
    """So many user networks, without a device on them."""
    return {"extra-args": [w for one in ids for w in ("-netdev", f"user,id={one}")]}


def nic(backend: str = "user", **more: Any) -> Profile:
    netdev: Profile = {"type": backend}
    if backend == "tap":
        netdev |= {"ifname": "qltap0", "script": "no", "downscript": "no"}
    device = {"driver": "virtio-net-pci", "netdev": "n0", **more.pop("device", {})}
    return {"netdevs": {"n0": {**netdev, **more}}, "devices": {"nic": device}}


class End(NamedTuple):
    """One end: a profile, what sets it apart, and the kernel that QEMU finds."""

    profile: Profile
    release: str
    platform: str = "native"
    settings: tuple[str, ...] = ()
    #: what the kernel lacks: TUN_F_* bits, and whether it lacks the header
    lacks: int = 0
    headless: bool = False

    def prepared(self) -> Prepared:
        """The plan."""
        usual = {"name": "moved", "platform": self.platform, "accel": "tcg", "uuid": UUIDS[0]}
        profile = {**usual, **self.profile}
        binary = installed(self.release).binary
        return prepare_now(load(Request(profile, self.platform, binary, self.settings)))

    def facts(self) -> dict[str, Any] | None:
        """The host as this end's QEMU finds it; None: this one."""
        if "tap" not in str(self.profile):
            return None
        return {
            "features": {
                "tun-vnet-hdr": not self.headless,
                "tun-ufo": not self.headless and not self.lacks & older_kernel.UFO,
                "tun-uso": not self.headless and not self.lacks & older_kernel.USO,
                "tun-tunnel": not self.headless and not self.lacks & older_kernel.TUNNEL,
            }
        }

    def argv(self, prepared: Prepared) -> list[str]:
        words = render_standalone(prepared.plan, tempfile.gettempdir())
        if "tap" not in str(self.profile):
            return words
        return [*older_kernel.argv(self.lacks, header=not self.headless), *words]


def predict(source: End, destination: End, via: str = "") -> tuple[Finding, ...]:
    sides = [planned_end(end.prepared(), end.facts()) for end in (source, destination)]
    return preflight(sides[0], sides[1], load_rules(), via)


def move(source: End, destination: End, **how: Any) -> Outcome:
    """What really happens; `how` goes to `migrate`."""
    plans = [end.prepared() for end in (source, destination)]
    argv = [e.argv(p) for e, p in zip((source, destination), plans, strict=True)]
    setup = [[(s.command, s.arguments) for s in p.plan.setup] for p in plans]
    return migrate(argv[0], argv[1], setup=(setup[0], setup[1]), **how)


def told(findings: tuple[Finding, ...]) -> str:
    return "\n".join(f"{f.severity} {f.code} {f.property}: {f.message}" for f in findings)


# -- cures ----------------------------------------------------------------------------------------

_PATHS = {
    "migration-property": "migration.properties.{0.property}",
    "migration-capability": "migration.capabilities.{0.property}",
    "migration-parameter": "migration.parameters.{0.property}",
    "machine": "machine.{0.property}",
    "memory": "memory.{0.property}",
    "smp": "smp.{0.property}",
    "cpu": "cpu.{0.property}",
    "uuid": "uuid",
}


#: An empty text, where nothing at all would mean that it is not set.
EMPTY = '""'


def cured(ends: list[End], finding: Finding, number: int) -> list[End]:
    """The ends with one cure of a finding, as it says."""
    cure = finding.cures[number]
    if cure.platform:
        return [end._replace(platform=cure.platform) for end in ends]
    path = _PATHS.get(cure.family, "{0.family}s.{0.id}.{0.property}").format(cure)
    names = [cure.property]
    if finding.code == "tap-feature":
        # The text names all of them, the field the first.
        inside = cure.text.partition("{")[2].partition("}")[0]
        names = [word.partition(":")[0] for word in inside.split(", ")]
    left_out = cure.text.startswith("leave out")
    base, value = path.removesuffix(cure.property), cure.value or EMPTY * (not left_out)
    settings = tuple(f"{base}{name}={value}" for name in names)
    if path == "uuid":
        settings = (f"uuid={cure.value}",)
    if (cure.family, cure.property) == ("smp", ""):
        settings = (f"smp={cure.value}",)
    which = {"source": (0,), "destination": (1,), "both": (0, 1)}[cure.end]
    return [
        end._replace(settings=(*end.settings, *settings)) if n in which else end
        for n, end in enumerate(ends)
    ]


class Case(NamedTuple):
    """A migration that fails, and what must be said of it.

    `properties` are those that break it. `cure`: `named` when each cure that is named can be
    applied by `--set`, `none` when nothing cures it, `words` when the cure is told in words only.
    """

    name: str
    source: End
    destination: End
    properties: tuple[str, ...]
    cure: str = "named"
    postcopy: bool = False
    full: bool = False
    #: what breaks needs a guest: one that `boots`, or an `eager` one that takes every feature
    guest: str = ""


MULTIFD = capable(MICROVM, "multifd")
PREEMPT = capable(MICROVM, "postcopy-ram", "postcopy-preempt")
SHARED = capable(backed("memfd", "mem0"), "x-ignore-shared")
NO_SWITCHOVER = ("migration.properties.send-switchover-start=off",)
FLUSH = "migration.properties.multifd-flush-after-each-section"


def fails() -> list[Case]:
    """Every failing row that needs no tap, and more of the kind."""
    switchover, flush = ("send-switchover-start",), ("multifd-flush-after-each-section",)
    cases = [
        Case("F1", End(MICROVM, "10.0"), End(MICROVM, "7.2"), switchover),
        Case("F1-11.1", End(MICROVM, "11.1"), End(MICROVM, "7.2"), switchover),
        Case("F1-5.2", End(MICROVM, "11.1"), End(MICROVM, "5.2"), switchover, full=True),
        Case("F2", End(MULTIFD, "7.2"), End(MULTIFD, "10.0"), flush, guest="boots"),
        Case("F2-11.1", End(MULTIFD, "7.2"), End(MULTIFD, "11.1"), flush, guest="boots", full=True),
        Case("F3", End(MULTIFD, "10.0", settings=NO_SWITCHOVER), End(MULTIFD, "7.2"), flush),
        Case("F1+F3", End(MULTIFD, "11.1"), End(MULTIFD, "7.2"), (*flush, *switchover)),
        Case(
            *("F4", End(PREEMPT, "10.0", settings=NO_SWITCHOVER), End(PREEMPT, "7.2")),
            ("x-preempt-pre-7-2",),
            postcopy=True,
        ),
        Case(
            *("F4-11.1", End(PREEMPT, "11.1", settings=NO_SWITCHOVER), End(PREEMPT, "7.2")),
            ("x-preempt-pre-7-2",),
            postcopy=True,
            full=True,
        ),
        Case(
            *("F10", End(q35() | users("a"), "7.2"), End(q35(), "10.0"), ("type",)),
            cure="words",
        ),
        Case(
            "F10-type",
            End(q35() | nic("user"), "10.0"),
            End(q35() | nic("hubport", hubid=0), "10.0"),
            ("type",),
            cure="words",
        ),
        *(
            Case(
                f"F11-{a}-{b}",
                End(q35("5.2") | users("a", "b"), a),
                End(q35("5.2") | users("a", "b"), b),
                ("type",),
                cure="none",
                full=(a, b) != ("10.0", "7.2"),
            )
            for a, b in (("10.0", "7.2"), ("11.1", "7.2"), ("11.1", "5.2"))
        ),
        Case(
            "F12",
            End(backed("ram", "mem0", "pc-q35-3.1"), "7.2"),
            End(backed("memfd", "mem0", "pc-q35-3.1"), "10.0"),
            ("x-use-canonical-path-for-ramblock-id",),
        ),
        Case(
            "F14",
            End(plain("pc-q35-3.1"), "7.2"),
            End(backed("memfd", "pc.ram", "pc-q35-3.1"), "10.0"),
            ("x-use-canonical-path-for-ramblock-id",),
        ),
        Case(
            *("F15", End(plain(), "7.2"), End(backed("memfd", "mem0"), "10.0"), ("id",)),
            cure="words",
        ),
        *(
            Case(
                *(f"F16-{b}", End(SHARED, "7.2"), End(SHARED, b), ("share",)),
                full=b == "11.1",
                guest="boots",
            )
            for b in ("7.2", "10.0", "11.1")
        ),
        Case("F17", End(SHARED, "10.0"), End(SHARED, "7.2"), ("share",)),
        Case(
            "F19",
            End(capable(q35(), "multifd"), "10.0", settings=(f"{FLUSH}=off",)),
            End(capable(q35(), "multifd"), "10.0"),
            flush,
        ),
        Case(
            "F19-reverse",
            End(capable(q35(), "multifd"), "10.0"),
            End(capable(q35(), "multifd"), "10.0", settings=(f"{FLUSH}=off",)),
            flush,
            guest="boots",
        ),
        Case(
            "F20",
            End(q35(), "10.0", settings=("migration.properties.send-switchover-start=on",)),
            End(q35(), "7.2"),
            switchover,
        ),
        Case(
            "F21",
            End(
                backed(
                    "ram", "mem0", "pc-q35-5.2", **{"x-use-canonical-path-for-ramblock-id": True}
                ),
                "7.2",
            ),
            End(backed("memfd", "mem0", "pc-q35-5.2"), "11.1"),
            ("x-use-canonical-path-for-ramblock-id",),
        ),
        Case("alias", End(plain("q35"), "7.2"), End(plain("q35"), "10.0"), ("type",)),
    ]
    return cases + _mismatches() + _others() + _updates()


def _updates() -> list[Case]:
    """Debian trixie's QEMU, where `scripts/qemu-matrix trixie` brought it: 10.0.13 or later."""
    if not os.path.exists(os.path.join(matrix_folder(), UPDATE)):
        return []
    balloon = devices(b0={"driver": BALLOON})
    disk: Profile = {
        "blockdevs": {"d": {"driver": "null-co", "size": 1048576}},
        **devices(v0={"driver": "virtio-blk-pci", "drive": "d"}),
    }
    both = [(q35(), balloon), (q35("10.0"), nic()), (q35(), disk), (MICROVM, _MMIO)]
    return [
        Case(
            f"queues-{number}",
            End({**base, **more}, UPDATE),
            End({**base, **more}, "11.1"),
            ("",),
            cure="words",
        )
        for number, (base, more) in enumerate(both)
    ]


def _mismatches() -> list[Case]:
    """Capabilities and parameters that differ, and properties of the stream."""
    on = capable(q35(), "multifd")

    def one(
        name: str,
        key: str,
        source: Profile,
        destination: Profile,
        release: str = "10.0",
        **more: Any,
    ) -> Case:
        ends = End({**q35(), **source}, release), End({**q35(), **destination}, release)
        return Case(name, *ends, (key,), **more)

    def having(*names: str, **parameters: Any) -> Profile:
        return dict(capable({}, *names, parameters=parameters).items())

    def without(name: str) -> Profile:
        return {"migration": {"properties": {name: "off"}}}

    zstd, channels = {"multifd-compression": "zstd"}, "multifd-channels"
    tls: Profile = {
        "objects": {"t": {"qom-type": "tls-creds-anon", "endpoint": "client"}},
        "migration": {"parameters": {"tls-creds": "t"}},
    }
    other = {"objects": {"t": {"qom-type": "tls-creds-anon", "endpoint": "server"}}}
    return [
        one("multifd-source", "multifd", having("multifd"), {}),
        one("multifd-source-11.1", "multifd", having("multifd"), {}, "11.1", full=True),
        one("multifd-destination", "multifd", {}, having("multifd")),
        one(channels, channels, having("multifd", **{channels: 4}), having("multifd")),
        one(f"{channels}-more", channels, having("multifd"), having("multifd", **{channels: 4})),
        one("compression", "multifd-compression", having("multifd", **zstd), having("multifd")),
        one(
            *("compression-reverse", "multifd-compression"),
            *(having("multifd"), having("multifd", **zstd)),
            full=True,
        ),
        one("postcopy-source", "postcopy-ram", having("postcopy-ram"), {}),
        one("ignore-shared-source", "x-ignore-shared", having("x-ignore-shared"), {}),
        one("ignore-shared-there", "x-ignore-shared", {}, having("x-ignore-shared"), full=True),
        one("compress", "compress", having("compress"), {}, "7.2"),
        one("tls-source", "tls-creds", tls, other, cure="words"),
        one("footer", "send-section-footer", without("send-section-footer"), {}),
        one("footer-reverse", "send-section-footer", {}, without("send-section-footer"), full=True),
        one("configuration", "send-configuration", without("send-configuration"), {}),
        one(
            *("configuration-reverse", "send-configuration"),
            *({}, without("send-configuration")),
            full=True,
        ),
        one("memory", "size", {"memory": "64MiB"}, {"memory": "128MiB"}),
        Case(
            "uuid-multifd",
            End({**capable(q35(), "multifd"), "uuid": UUIDS[0]}, "10.0"),
            End({**capable(q35(), "multifd"), "uuid": UUIDS[1]}, "10.0"),
            ("uuid",),
        ),
        Case(
            "uuid",
            End({**capable(q35(), "validate-uuid"), "uuid": UUIDS[0]}, "10.0"),
            End({**q35(), "uuid": UUIDS[1]}, "10.0"),
            ("uuid",),
        ),
        one("preempt-destination", "postcopy-preempt", having("postcopy-ram"),
            having("postcopy-ram", "postcopy-preempt"), postcopy=True),
        Case("multifd-7.2", End(on, "7.2"), End(q35(), "11.1"), ("multifd",), full=True),
    ]  # fmt: skip


def devices(*drivers: str, **members: Profile) -> Profile:
    """Devices by driver; an id is the driver's first letter and its number."""
    made = {f"{d.rpartition('-')[0][-1]}{n}": {"driver": d} for n, d in enumerate(drivers)}
    return {"devices": {**made, **members}}


RNG, BALLOON = "virtio-rng-pci", "virtio-balloon-pci"
_MMIO = devices(b0={"driver": "virtio-balloon-device"})
_WIDE = ["-global", "virtio-mmio.x-override-queue-size=1024"]


def _others() -> list[Case]:
    """What nobody measured before: what an expert would try."""

    def one(name: str, key: str, source: Profile, destination: Profile, **more: Any) -> Case:
        base = more.pop("base", q35())
        ends = End({**base, **source}, "10.0"), End({**base, **destination}, "10.0")
        return Case(name, *ends, (key,), **more)

    objects = {"objects": {"rnd": {"qom-type": "rng-builtin"}}}
    rng = {**objects, **devices(r0={"driver": RNG, "rng": "rnd"})}
    both = {**objects, **devices(r0={"driver": RNG, "rng": "rnd"}, b0={"driver": BALLOON})}
    turned = {**objects, **devices(b0={"driver": BALLOON}, r0={"driver": RNG, "rng": "rnd"})}
    moved = {**objects, **devices(r0={"driver": RNG, "rng": "rnd", "addr": "05"})}
    ports = {
        name: {"driver": "pcie-root-port", "chassis": number}
        for number, name in enumerate(("p1", "p2"), 1)
    }
    behind = [
        {**objects, **devices(**ports, r0={"driver": RNG, "rng": "rnd", "bus": p})} for p in ports
    ]
    channel = {
        "chardevs": {"c": {"backend": "null"}},
        **devices(
            s={"driver": "virtio-serial-pci"}, c0={"driver": "virtserialport", "chardev": "c"}
        ),
    }
    mmio = ("virtio-balloon-device", "virtio-keyboard-device")
    acpi = {"machine": {**MICROVM["machine"], "acpi": "on"}}
    mmio_rng = devices(r0={"driver": "virtio-rng-device", "rng": "rnd"})
    gpu = {"devices": {"g0": {"driver": "virtio-gpu-device"}}}
    pcie = {"machine": {"type": "microvm", "acpi": "on", "pcie": "on"}, **rng}
    return [
        one("device-missing", "", rng, {}, cure="words"),
        one("device-order", "addr", both, turned),
        one("device-moved", "addr", rng, moved),
        one("bridge", "", *behind, cure="words"),
        one("mmio-order", "driver", devices(*mmio), devices(*mmio[::-1]), base=MICROVM,
            cure="words"),
        one("usb-order", "driver", devices("qemu-xhci", "usb-kbd", "usb-tablet"),
            devices("qemu-xhci", "usb-tablet", "usb-kbd"), cure="words", full=True),
        one("smp", "cpus", {"smp": 2}, {"smp": 1}),
        one("serial", "", {"serial": "console"}, {}, cure="words"),
        one("serial-microvm", "", {"serial": "console"}, {}, base=MICROVM, cure="words", full=True),
        one("vectors", "vectors", nic(device={"vectors": 4}), nic(device={"vectors": 3})),
        one("legacy", "disable-legacy", nic(device={"disable-legacy": "on"}),
            nic(device={"disable-legacy": "off"}), full=True),
        one("rom", "rombar", nic(), nic(device={"rombar": 0})),
        one("rom-of-another-spelling", "driver", nic(),
            nic(device={"driver": "virtio-net-pci-transitional"})),
        one("other-form", "driver", devices(b0={"driver": BALLOON}),
            devices(b0={"driver": f"{BALLOON}-non-transitional"}), full=True),
        one("video-memory", "vgamem_mb", devices(v={"driver": "VGA", "vgamem_mb": 32}),
            devices(v={"driver": "VGA"})),
        one("hotplug", "hotplug", devices(p1=ports["p1"]),
            devices(p1={**ports["p1"], "hotplug": "off"})),
        one("slot-number", "slot", devices(p1=ports["p1"]),
            devices(p1={**ports["p1"], "slot": 3}), full=True),
        one("usb-ports", "p2", devices(x={"driver": "qemu-xhci", "p2": 8}),
            devices(x={"driver": "qemu-xhci"}), full=True),
        one("serial-ports", "", devices(s={"driver": "virtio-serial-pci"}), channel, cure="words"),
        one("pit", "pit", {}, {"machine": {"type": "pc-q35-7.2", "pit": "off"}}),
        one("hpet", "hpet", {}, {"machine": {"type": "pc-q35-7.2", "hpet": "off"}}, full=True),
        one("acpi", "acpi", {}, {"machine": {"type": "pc-q35-7.2", "acpi": "off"}}, full=True),
        one("acpi-microvm", "acpi", {}, acpi, base=MICROVM),
        one("slots", "slots", {"memory": {"size": "64MiB", "slots": 2, "maxmem": "1GiB"}}, {},
            cure="words"),
        Case("microvm-acpi", End({**MICROVM, **acpi}, "7.2"), End({**MICROVM, **acpi}, "10.0"),
             ("",), cure="words"),
        Case("microvm-gpu", End(MICROVM | gpu, "7.2"), End(MICROVM | gpu, "10.0"),
             ("x-scanout-vmstate-version",), cure="words"),
        Case("microvm-vectors", End({**MICROVM, **pcie}, "5.2"), End({**MICROVM, **pcie}, "7.2"),
             ("vectors",)),
        one("queue-reset", "queue_reset", nic(device={"queue_reset": "on"}),
            nic(device={"queue_reset": "off"}), guest="eager"),
        Case("mmio-queues", End({**MICROVM, **acpi, **objects, **mmio_rng}, "10.0"),
             End({**MICROVM, **acpi, **objects, **mmio_rng}, "11.1"), ("",), cure="words",
             guest="boots"),
        Case("isapc", End({"machine": "isapc", "memory": "64MiB"}, "10.0"),
             End({"machine": "isapc", "memory": "64MiB"}, "7.2"),
             ("type", "send-switchover-start"), cure="none", full=True),
        Case("vdagent", End(q35("10.0", chardevs={"v": {"backend": "qemu-vdagent"}}), "11.1"),
             End(q35("10.0", chardevs={"v": {"backend": "qemu-vdagent"}}), "11.1"), ("",),
             cure="words"),
        one("nvme", "", {"blockdevs": {"d": {"driver": "null-co", "size": 1048576}},
            **devices(n0={"driver": "nvme", "drive": "d", "serial": "s"})},
            {"blockdevs": {"d": {"driver": "null-co", "size": 1048576}},
            **devices(n0={"driver": "nvme", "drive": "d", "serial": "s"})}, cure="words"),
    ]  # fmt: skip


def chosen(cases: list[Case]) -> list[Any]:
    return [pytest.param(one, id=one.name) for one in cases if FULL or not one.full]


@pytest.mark.parametrize("case", chosen(fails()))
def test_what_fails_is_predicted_and_cured(case, guest, tmp_path):
    check_failing(case, str(tmp_path), guest)


def _larger(profile: Profile) -> Profile:
    """With enough RAM for the guest."""
    if "memory" in profile:
        return {**profile, "memory": "128MiB"}
    objects = {k: {**o, "size": 128 << 20} for k, o in profile["objects"].items()}
    return {**profile, "objects": objects, "extra-args": ["-m", "128"]}


def running(case: Case, guest: str, log: str) -> Case:
    """The case with a guest that boots, and writes to `log` when it is up."""
    more = {
        "boot": {
            "kernel": f"{guest}/vmlinuz",
            "initrd": f"{guest}/initrd.img",
            # microvm with ACPI has no timer to measure the TSC by: see scripts/guest.
            "append": "console=ttyS0 quiet loglevel=3 tsc_early_khz=1000000",
        },
        "serial": {"backend": "file", "path": log},
    }
    ends = [end._replace(profile=_larger({**end.profile, **more})) for end in case[1:3]]
    return case._replace(source=ends[0], destination=ends[1])


def check_failing(case: Case, folder: str, guest: str) -> None:
    how: dict[str, Any] = {"postcopy": case.postcopy}
    if case.guest == "eager":
        how["eager"] = True
    elif case.guest == "boots":
        log = os.path.join(folder, "console")
        case = running(case, guest, log)
        how["until"] = (log, "qemu-launcher guest is up")
    findings = predict(case.source, case.destination)
    broken = breaks(findings)
    assert set(case.properties) <= {f.property for f in broken}, told(findings)

    outcome = move(case.source, case.destination, **how)
    assert outcome.result != "completed", "QEMU does not mind"
    said = f"{outcome.said}\n{outcome.source}"
    if outcome.result != "hung" and any(f.words for f in broken):
        assert explain(broken, said), f"{said}\n{told(findings)}"

    named = [f for f in broken if f.property in case.properties]
    if case.cure == "none":
        assert any(not f.cures for f in named)
        return
    assert all(f.cures for f in named), told(broken)
    if case.cure == "named":
        _try_cures(case, broken, how)


def _try_cures(case: Case, broken: tuple[Finding, ...], how: dict[str, Any]) -> None:
    """The first cure of each, then the last of each: a platform where one does, and a property."""
    done = set()
    for last in (False, True):
        ends = [case.source, case.destination]
        for finding in broken:
            ends = cured(ends, finding, len(finding.cures) - 1 if last else 0)
        key = str(ends)
        if key in done:
            continue
        done.add(key)
        assert not breaks(again := predict(*ends)), told(again)
        outcome = move(*ends, **how)
        assert outcome.result == "completed", (outcome, [e.settings for e in ends])


# -- what succeeds --------------------------------------------------------------------------------


class Fine(NamedTuple):
    """A migration that succeeds."""

    name: str
    source: End
    destination: End
    full: bool = False
    postcopy: bool = False


def pairs() -> list[tuple[str, str]]:
    """Neighbours and both ends of the matrix, both directions; all pairs in a full run."""
    if FULL:
        return [(a, b) for a in RELEASES for b in RELEASES]
    near = list(itertools.pairwise(RELEASES))
    return [
        *near,
        *((b, a) for a, b in near),
        (RELEASES[0], RELEASES[-1]),
        (RELEASES[-1], RELEASES[0]),
    ]


def succeeds() -> list[Fine]:
    usual = q35("5.2", smp=2) | {
        "netdevs": {"n0": {"type": "user"}},
        "objects": {"rnd": {"qom-type": "rng-builtin"}},
        "blockdevs": {"d": {"driver": "null-co", "size": 1048576}},
        "devices": {
            "nic": {"driver": "virtio-net-pci", "netdev": "n0"},
            "disk": {"driver": "virtio-blk-pci", "drive": "d"},
            "rng": {"driver": RNG, "rng": "rnd"},
            "balloon": {"driver": BALLOON},
        },
    }
    found = [Fine(f"q35-{a}-{b}", End(usual, a), End(usual, b)) for a, b in pairs()]
    found += [
        Fine(f"microvm-{a}-{b}", End(MULTIFD, a, p), End(MULTIFD, b, p), full=True)
        for a, b in pairs()
        for p in ("debian-11",)
    ]
    return found + _harmless()


def _harmless() -> list[Fine]:
    """Differences that look bad and are not."""

    def one(name: str, source: Profile, destination: Profile, a: str = "10.0", b: str = "10.0",
            base: Profile | None = None, **more: Any) -> Fine:  # fmt: skip
        base = q35() if base is None else base
        return Fine(name, End({**base, **source}, a), End({**base, **destination}, b), **more)

    balloon = [devices(**{key: {"driver": BALLOON}}) for key in ("b0", "other")]
    slot = devices(b0={"driver": BALLOON, "addr": "01"})
    null = {"d": {"driver": "null-co", "size": 1048576}}
    nodes = [
        {"blockdevs": {k: null["d"]}, **devices(v={"driver": "virtio-blk-pci", "drive": k})}
        for k in ("here", "there")
    ]
    threaded = [
        {"blockdevs": null,
         **devices(v={"driver": "virtio-blk-pci", "drive": "d", "num-queues": 1, **more})}
        for more in ({"iothread": "i"}, {})
    ]  # fmt: skip
    private = {**SHARED, "objects": {"mem0": {**SHARED["objects"]["mem0"], "share": False}}}
    gpu = {"devices": {"g0": {"driver": "virtio-gpu-device"}}}
    file_backed = [{"x": {"qom-type": "iothread"}}, {}]
    ports = [
        {
            "objects": {"rnd": {"qom-type": "rng-builtin"}},
            **devices(
                **{
                    key: {"driver": "pcie-root-port", "chassis": 1},
                    "r0": {"driver": RNG, "rng": "rnd", "bus": key},
                }
            ),
        }
        for key in ("p1", "zz")
    ]
    return [
        *(
            Fine(f"microvm-plain-{a}-{b}", End(MICROVM, a), End(MICROVM, b), full=b == "11.1")
            for a, b in (("5.2", "7.2"), ("7.2", "10.0"), ("10.0", "11.1"), ("7.2", "11.1"))
        ),
        Fine("multifd-7.2-10.0", End(capable(q35(), "multifd"), "7.2"),
             End(capable(q35(), "multifd"), "10.0")),
        Fine("multifd-11.1-7.2", End(capable(q35(), "multifd"), "11.1"),
             End(capable(q35(), "multifd"), "7.2"), full=True),
        Fine("preempt-forward", End(PREEMPT, "7.2"), End(PREEMPT, "10.0"), postcopy=True),
        one("ids", *balloon),
        one("defaults-by-hand", balloon[0],
            devices(b0={"driver": BALLOON, "multifunction": "off", "rombar": 1})),
        one("iothread-here", {"objects": {"i": {"qom-type": "iothread"}}, **threaded[0]},
            threaded[1]),
        one("slot-by-hand", balloon[0], slot),
        one("spellings", balloon[0], devices(b0={"driver": f"{BALLOON}-transitional"})),
        one("spellings-back", devices(b0={"driver": f"{BALLOON}-transitional"}), balloon[0],
            full=True),
        one("node-names", *nodes),
        one("bridge-ids", *ports),
        one("extra-objects", {}, {"objects": file_backed[0]}),
        one("extra-device", {}, balloon[0]),
        one("extra-user", {}, users("a")),
        one("two-users-forward", users("a", "b"), users("a", "b"), "7.2", "10.0"),
        one("two-users-7.2", users("a", "b"), users("a"), "7.2", "7.2", full=True),
        one("alias-of-one-release", {"machine": "q35"}, {"machine": "pc-q35-10.0"}),
        one("cpu", {"cpu": "max"}, {"cpu": "qemu64"}),
        one("cpu-max", {"cpu": "max"}, {"cpu": "max"}, "10.0", "7.2"),
        one("serial-there", {}, {"serial": "console"}),
        one("postcopy-there", {}, capable({}, "postcopy-ram")),
        one("xbzrle-here", capable({}, "xbzrle"), {}),
        one("channels-without-multifd", {"migration": {"parameters": {"multifd-channels": 4}}}, {}),
        one("share", {"memory": {"size": "64MiB", "share": True}},
            {"memory": {"size": "64MiB", "share": False}}),
        one("ram-to-memfd", backed("ram", "mem0"), backed("memfd", "mem0"), base={}),
        one("ignore-shared-10.0", SHARED, SHARED, base={}),
        one("unshared", private, private, "7.2", "10.0", base={}),
        one("maxmem", {"memory": {"size": "64MiB", "slots": 2, "maxmem": "1GiB"}},
            {"memory": {"size": "64MiB", "slots": 2, "maxmem": "2GiB"}}),
        one("boot-order", {"boot": {"order": "c"}}, {"boot": {"order": "d"}}),
        one("zero-pages-near",
            capable({}, "multifd", parameters={"zero-page-detection": "multifd"}),
            capable({}, "multifd"), "10.0", "11.1", full=True),
        one("zero-pages-without-multifd", {"migration": {"parameters": {"zero-page-detection":
            "multifd"}}}, {}, "10.0", "7.2", full=True),
        one("microvm-gpu-near", gpu, gpu, "5.2", "7.2", base=MICROVM, full=True),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "case", [pytest.param(one, id=one.name) for one in succeeds() if FULL or not one.full]
)
def test_what_succeeds_is_not_called_broken(case):
    findings = predict(case.source, case.destination)
    assert not breaks(findings), told(findings)
    outcome = move(case.source, case.destination, postcopy=case.postcopy)
    assert outcome.result == "completed", (outcome, told(findings))


def updates_that_succeed() -> list[Any]:
    """The stable update with the rest of the matrix, and what mends its queues."""
    if not os.path.exists(os.path.join(matrix_folder(), UPDATE)):
        return []
    usual = q35("5.2") | devices(b0={"driver": BALLOON})
    disks = [
        q35("5.2")
        | {"blockdevs": {"d": {"driver": "null-co", "size": 1048576}}}
        | devices(v0={"driver": "virtio-blk-pci", "drive": "d", **more})
        for more in ({}, {"queue-size": 1024})
    ]
    wide = {**MICROVM, **_MMIO, "extra-args": _WIDE}
    return [
        *(Fine(f"to-{b}", End(usual, UPDATE), End(usual, b)) for b in RELEASES[:3]),
        *(Fine(f"from-{a}", End(usual, a), End(usual, UPDATE)) for a in RELEASES),
        Fine("bare", End(q35("5.2"), UPDATE), End(q35("5.2"), "11.1")),
        Fine("disk", End(disks[0], UPDATE), End(disks[1], "11.1")),
        Fine("mmio", End({**MICROVM, **_MMIO}, UPDATE), End(wide, "11.1")),
    ]


def test_what_a_stable_update_can_do_is_not_called_broken():
    """One test for all: where nobody brought the update there is nothing to skip."""
    for case in updates_that_succeed():
        findings = predict(case.source, case.destination)
        assert not breaks(findings), (case.name, told(findings))
        outcome = move(case.source, case.destination)
        assert outcome.result == "completed", (case.name, outcome)


def test_queues_of_virtio_mmio_are_cured(guest, tmp_path):
    acpi = {"machine": {**MICROVM["machine"], "acpi": "on"}, **_MMIO}
    log = str(tmp_path / "console")
    ends = [{**MICROVM, **acpi, "extra-args": more} for more in ([], _WIDE)]
    case = Case("", End(ends[0], "10.0"), End(ends[1], "11.1"), ())
    case = running(case, guest, log)
    findings = predict(case.source, case.destination)
    assert not breaks(findings), told(findings)
    outcome = move(case.source, case.destination, until=(log, "qemu-launcher guest is up"))
    assert outcome.result == "completed", outcome


# -- what loads and is wrong ----------------------------------------------------------------------

PAGE = 0x100000


def word_after(source: Prepared, destination: Prepared, folder: str) -> str:
    """A page that becomes zero after it was sent, as the destination has it in the end."""
    guest = EagerGuest(os.path.join(folder, "qtest"))
    argv = [render_standalone(p.plan, folder) for p in (source, destination)]
    with contextlib.ExitStack() as stack:
        stack.callback(guest.close)
        first = pair.End([*argv[0], *guest.argv])
        stack.callback(first.raw.close)
        guest.meet()
        second = pair.End([*argv[1], "-incoming", "defer"])
        stack.callback(second.raw.close)
        for end, made in ((first, source), (second, destination)):
            assert not end.set_up([(s.command, s.arguments) for s in made.plan.setup])
        guest.fill(PAGE, 20 << 20, 0xAA)
        first.do("migrate-set-parameters", {"max-bandwidth": 2_000_000, "downtime-limit": 1})
        uri = {"uri": f"unix:{folder}/stream"}
        assert not second.do("migrate-incoming", uri) + first.do("migrate", uri)
        _wait(lambda: first.status(5).get("ram", {}).get("transferred", 0) > 3_000_000)
        guest.fill(PAGE, 4096, 0)
        first.do("migrate-set-parameters", {"max-bandwidth": 1 << 30, "downtime-limit": 3000})
        _wait(lambda: second.status(5).get("status") == "completed")
        return second.raw.hmp(f"xp /1xw {PAGE:#x}").split()[-1]


def _wait(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline
        select.select([], [], [], 0.05)


def test_a_page_that_became_zero_is_lost_and_that_is_said(tmp_path):
    ends = End(capable(q35(), "multifd"), "10.0"), End(capable(q35(), "multifd"), "7.2")
    setting = "migration.parameters.zero-page-detection=multifd"
    newer = ends[0]._replace(settings=(setting,))
    findings = predict(newer, ends[1])
    loss = next(f for f in findings if f.property == "zero-page-detection")
    assert (loss.severity, loss.cures[-1].value) == ("breaks", "legacy")
    folders = [str(tmp_path / name) for name in ("newer", "older")]
    for folder in folders:
        os.mkdir(folder)
    assert word_after(newer.prepared(), ends[1].prepared(), folders[0]) == "0xaaaaaaaa"
    # The machine type keeps the older way, which tells every zero page in the main stream.
    assert not any(f.property == "zero-page-detection" for f in predict(*ends))
    assert word_after(ends[0].prepared(), ends[1].prepared(), folders[1]) == "0x00000000"


# -- virtio-net over tap --------------------------------------------------------------------------


@pytest.fixture
def _tap():
    needs_tap()


def tapped(machine: str = "10.0", **more: Any) -> Profile:
    return q35(machine) | nic("tap", **more)


LACKS = older_kernel.USO | older_kernel.TUNNEL


def taps() -> list[Case]:
    return [
        Case("F5", End(tapped(), "10.0"), End(tapped(), "10.0", lacks=LACKS), ("host_uso",),
             guest="eager"),
        Case("F5-11.1", End(tapped(), "10.0"), End(tapped(), "11.1", lacks=LACKS), ("host_uso",),
             full=True, guest="eager"),
        Case("F6", End(tapped("11.1"), "11.1"), End(tapped("11.1"), "11.1", lacks=LACKS),
             ("host_uso", "host_tunnel"), guest="eager"),
        Case("F7", End(tapped("7.2"), "7.2"), End(tapped("7.2"), "10.0", lacks=older_kernel.UFO),
             ("vnet_hdr",)),
        Case("F8", End(tapped(), "10.0"), End(q35("10.0") | nic("user"), "10.0"), ("vnet_hdr",)),
        Case("F8-kernel", End(tapped(), "10.0"), End(tapped(), "10.0", headless=True),
             ("vnet_hdr",)),
        Case("F9", End(tapped(queues=2, device={"mq": "on"}), "10.0"),
             End(tapped(queues=1, device={"mq": "on"}), "10.0"), ("queues",)),
    ]  # fmt: skip


@pytest.mark.usefixtures("_tap")
@pytest.mark.parametrize("case", chosen(taps()))
def test_what_the_kernel_takes_away_is_predicted_and_cured(case, guest, tmp_path):
    check_failing(case, str(tmp_path), guest)


@pytest.mark.usefixtures("_tap")
@pytest.mark.parametrize("platform", ["native", "debian-12"])
@pytest.mark.parametrize("releases", [("10.0", "11.1"), ("11.1", "10.0"), ("7.2", "10.0")])
def test_taps_of_one_kernel_go_together(releases, platform):
    ends = [End(tapped("7.2"), release, platform) for release in releases]
    findings = predict(*ends)
    assert not breaks(findings), told(findings)
    assert move(*ends).result == "completed"


@pytest.mark.usefixtures("_tap")
def test_more_offloads_there_do_no_harm():
    ends = End(tapped(), "10.0", lacks=LACKS), End(tapped(), "10.0")
    findings = predict(*ends)
    assert not breaks(findings), told(findings)
    assert move(*ends).result == "completed"
