"""Rows of the table of differences that are not in test_preflight.py, and more of the kind.

The same rule: what fails is predicted and cured, what succeeds is not called broken.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from typing import Any

import pytest

from integration import older_kernel, pair
from integration.eager_guest import EagerGuest
from integration.test_preflight import (
    BALLOON,
    MICROVM,
    RNG,
    Case,
    End,
    Fine,
    Profile,
    _tap,
    backed,
    capable,
    check_failing,
    chosen,
    devices,
    move,
    nic,
    predict,
    q35,
    tapped,
    told,
)
from launcher.command import render_standalone
from launcher.preflight import breaks

pytestmark = pytest.mark.integration

__all__ = ["_tap"]  # a fixture, by its name

NULL: Profile = {"blockdevs": {"d": {"driver": "null-co", "size": 1 << 20}}}
I440FX: Profile = {"machine": "pc-i440fx-7.2", "memory": "64MiB"}


#: Files for RAM on a tmpfs, of this process.
TMPFS = {name: f"/dev/shm/ql-{os.getpid()}-{name}" for name in ("a", "b")}


@pytest.fixture(autouse=True, scope="module")
def _tmpfs():
    yield
    for path in TMPFS.values():
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)


def one(
    name: str,
    key: str,
    source: Profile,
    destination: Profile,
    releases: tuple[str, str] = ("10.0", "10.0"),
    base: Profile | None = None,
    **more: Any,
) -> Case:
    """A case between two ends that share `base`."""
    base = q35() if base is None else base
    ends = [End({**base, **own}, r) for own, r in zip((source, destination), releases, strict=True)]
    return Case(name, ends[0], ends[1], (key,), **more)


def fine(name: str, source: Profile, destination: Profile, **more: Any) -> Fine:
    case = one(name, "", source, destination, **more)
    return Fine(name, case.source, case.destination)


def scsi(driver: str) -> Profile:
    disk = {"driver": driver, "drive": "d"}
    return {**NULL, **devices(s={"driver": "virtio-scsi-pci"}, v=disk)}


def usb(driver: str) -> Profile:
    return devices(u={"driver": "qemu-xhci"}, k={"driver": driver})


def sound(driver: str) -> Profile:
    codec = {"driver": driver, "audiodev": "a"}
    more = devices(h={"driver": "intel-hda"}, c=codec)
    return {"audiodevs": {"a": {"driver": "none"}}, **more}


def dimm(**more: Any) -> Profile:
    return {
        "memory": {"size": "64MiB", "slots": 2, "maxmem": "1GiB"},
        "objects": {"m": {"qom-type": "memory-backend-ram", "size": 128 << 20}},
        **devices(d={"driver": "pc-dimm", "memdev": "m", **more}),
    }


def cpu(**features: Any) -> Profile:
    return {"cpu": {"model": "qemu64", **features}}


NEWEST = ("11.1", "11.1")
NO_APIC = cpu(apic="off")


def fails() -> list[Case]:
    old = {"machine": "isapc", "memory": "64MiB"}
    rng = {"objects": {"r": {"qom-type": "rng-builtin"}}, **devices(r0={"driver": RNG, "rng": "r"})}
    return [
        Case("isapc-5.2", End(old, "7.2"), End(old, "5.2"), ("type",), cure="none"),
        # Since 11.0 QEMU words it otherwise.
        one("device-missing-11.1", "", rng, {}, NEWEST, cure="words"),
        one("smp-11.1", "cpus", {"smp": 2}, {"smp": 1}, NEWEST),
        one("smp-4-2", "cpus", {"smp": 4}, {"smp": 2}),
        one("serial-11.1", "", {"serial": "console"}, {}, NEWEST, cure="words"),
        one("apic", "apic", cpu(), NO_APIC),
        one("apic-back", "apic", NO_APIC, cpu()),
        one("apic-words", "apic", {"cpu": "qemu64,-apic"}, {"cpu": "qemu64,+apic"},
            cure="words"),
        one("apic-11.1", "apic", cpu(), NO_APIC, NEWEST, base=MICROVM),
        one("apic-i440fx", "apic", cpu(), NO_APIC, ("5.2", "7.2"),
            base={"machine": "pc-i440fx-5.2", "memory": "64MiB"}, full=True),
        one("vmport", "vmport", {}, {"machine": {"type": "pc-q35-7.2", "vmport": "off"}}),
        one("sata", "sata", {}, {"machine": {"type": "pc-q35-7.2", "sata": "off"}}, full=True),
        one("usb", "usb", {"machine": {"type": "pc-q35-7.2", "usb": "on"}}, {}, full=True),
        one("nic-extra", "", nic(), {}, cure="words"),
        one("queues", "num-queues",
            {**NULL, **devices(v={"driver": "virtio-blk-pci", "drive": "d", "num-queues": 1})},
            {**NULL, **devices(v={"driver": "virtio-blk-pci", "drive": "d", "num-queues": 2})}),
        one("controller", "driver",
            {**NULL, **devices(v={"driver": "virtio-blk-pci", "drive": "d"})}, scsi("scsi-hd"),
            cure="words"),
        one("scsi-missing", "", scsi("scsi-hd"), devices(s={"driver": "virtio-scsi-pci"}),
            cure="words"),
        one("usb-kind", "driver", usb("usb-tablet"), usb("usb-kbd")),
        one("sound-kind", "driver", sound("hda-duplex"), sound("hda-output")),
        one("watchdog", "", devices(w={"driver": "i6300esb"}), {}, cure="words"),
        one("root-port", "", devices(p={"driver": "pcie-root-port", "chassis": 1},
            q={"driver": "pcie-root-port", "chassis": 2}),
            devices(p={"driver": "pcie-root-port", "chassis": 1}), cure="words"),
        one("dimm-missing", "", dimm(),
            {"memory": {"size": "64MiB", "slots": 2, "maxmem": "1GiB"}}, cure="words"),
        *_blocked(),
        # What follows from the number of CPUs where nobody sets it.
        one("queues-per-cpu", "num-queues", {"smp": 2, **virtio_disk()},
            {"smp": 4, **virtio_disk()}),
        one("queues-per-cpu-scsi", "num_queues", {"smp": 1, **controller()},
            {"smp": 2, **controller()}, full=True),
        one("queue-shrinks", "queue-size", virtio_disk(**{"queue-size": 1024}), virtio_disk(),
            NEWEST),
        one("queue-shrinks-net", "rx_queue_size", nic(device={"rx_queue_size": 1024}), nic(),
            ("10.0", "11.1"), full=True),
        one("icount", "shift", counted(3), {}, cure="words"),
        one("icount-11.1", "shift", counted(3), {}, NEWEST, cure="words", full=True),
        one("icount-adapts", "shift", counted("auto"), counted(3), cure="words", full=True),
        one("nvme-back", "", nvme(), nvme(), ("11.1", "10.0"), cure="none"),
        one("ipmi-back", "", ipmi(), ipmi(), ("11.1", "10.0"), cure="none"),
        one("flash-here", "pflash0", flash(), {"machine": "pc-q35-7.2"}, cure="words",
            base={"memory": "64MiB"}),
        one("flash-there", "pflash0", {"machine": "pc-q35-7.2"}, flash(), cure="words",
            base={"memory": "64MiB"}),
    ]  # fmt: skip


def virtio_disk(**more: Any) -> Profile:
    return {**NULL, **devices(v={"driver": "virtio-blk-pci", "drive": "d", **more})}


def controller(**more: Any) -> Profile:
    return devices(s={"driver": "virtio-scsi-pci", **more})


def counted(shift: int | str) -> Profile:
    return {"extra-args": ["-icount", f"shift={shift}"]}


def nvme() -> Profile:
    return {**NULL, **devices(n={"driver": "nvme", "drive": "d", "serial": "s"})}


def ipmi() -> Profile:
    bmc = {"driver": "ipmi-bmc-sim"}
    return devices(b=bmc, k={"driver": "isa-ipmi-kcs", "bmc": "b"})


def flash(node: str = "f") -> Profile:
    """Firmware as a flash; 256 KiB, as large as the ROM that is there otherwise."""
    content = {"driver": "null-co", "size": 256 << 10, "read-zeroes": True, "read-only": True}
    return {
        "machine": {"type": "pc-q35-7.2", "pflash0": node},
        "blockdevs": {node: content},
    }


def _blocked() -> list[Case]:
    """What needs something beside it to start."""
    card = {"driver": "virtio-crypto-pci", "cryptodev": "c"}
    shared = {"m": {"qom-type": "memory-backend-ram", "size": 1 << 20}}
    made: dict[str, Profile] = {
        "crypto": {"objects": {"c": {"qom-type": "cryptodev-backend-builtin"}}, **devices(c0=card)},
        "usb-serial": {
            "chardevs": {"c": {"backend": "null"}},
            **devices(u={"driver": "qemu-xhci"}, k={"driver": "usb-serial", "chardev": "c"}),
        },
        "usb-audio": {
            "audiodevs": {"a": {"driver": "none"}},
            **devices(u={"driver": "qemu-xhci"}, k={"driver": "usb-audio", "audiodev": "a"}),
        },
        "ivshmem": {
            "objects": shared,
            **devices(i={"driver": "ivshmem-plain", "memdev": "m"}),
        },
    }
    return [
        one(name, "", more, more, NEWEST, cure="words", full=name == "usb-serial")
        for name, more in made.items()
    ]


@pytest.mark.parametrize("case", chosen(fails()))
def test_what_fails_is_predicted_and_cured(case, guest, tmp_path):
    check_failing(case, str(tmp_path), guest)


def succeeds() -> list[Fine]:
    extra: dict[str, Profile] = {
        "throttle": {"objects": {"x": {"qom-type": "throttle-group",
                                       "limits": {"iops-total": 100}}}},
        "secret": {"objects": {"x": {"qom-type": "secret", "file": "/etc/hostname"}}},
        "audiodev": {"audiodevs": {"x": {"driver": "none"}}},
        "backend": {"objects": {"x": {"qom-type": "memory-backend-ram", "size": 1 << 20}}},
        "chardev": {"chardevs": {"x": {"backend": "null"}}},
    }  # fmt: skip
    alike = [(usb, "usb-mouse", "usb-tablet"), (sound, "hda-output", "hda-duplex"),
             (scsi, "scsi-hd", "scsi-cd")]  # fmt: skip
    throttled = {
        "objects": {"t": {"qom-type": "throttle-group", "limits": {"iops-total": 100}}},
        "blockdevs": {**NULL["blockdevs"],
                      "f": {"driver": "throttle", "throttle-group": "t", "file": "d"}},
        **devices(v={"driver": "virtio-blk-pci", "drive": "f"}),
    }  # fmt: skip
    bare = {**NULL, **devices(v={"driver": "virtio-blk-pci", "drive": "d"})}
    zero = capable({}, "multifd", parameters={"zero-page-detection": "none"})
    ide = {**NULL, **devices(v={"driver": "ide-hd", "drive": "d"})}
    ram = [backed("file", "mem0", **{"mem-path": TMPFS[name], "share": on})
           for name, on in (("a", True), ("b", False))]  # fmt: skip
    return [
        *(fine(f"extra-{name}", {}, more) for name, more in extra.items()),
        *(fine(f"less-{name}", more, {}) for name, more in extra.items()),
        *(fine(f"alike-{a}", kind(a), kind(b)) for kind, a, b in alike),
        fine("validate-uuid-alone", capable({}, "validate-uuid"), {}),
        fine("runstate", {"migration": {"properties": {"store-global-state": "off"}}}, {}),
        fine("zero-pages-none", zero, capable({}, "multifd"), releases=("10.0", "7.2")),
        fine("file-shared", ram[0], ram[1], base={}),
        fine("file-private", ram[1], ram[0], releases=("7.2", "10.0"), base={}),
        fine("postcopy-on-tmpfs", capable(ram[0], "postcopy-ram"), capable(ram[1], "postcopy-ram"),
             base={}),
        fine("throttled", bare, throttled),
        fine("unthrottled", throttled, bare),
        fine("ide-missing", ide, {}),
        fine("ide-missing-i440fx", ide, {}, base=I440FX),
        fine("apic-microvm", NO_APIC, cpu(), base=MICROVM),
        fine("dimm-slot", dimm(slot=0), dimm(slot=1)),
        fine("vmport-extra", {"machine": {"type": "pc-q35-7.2", "vmport": "off"}}, {}),
        fine("nic-extra-there", {}, nic()),
        fine("topology", {"smp": {"sockets": 2, "cores": 1, "threads": 1}},
             {"smp": {"sockets": 1, "cores": 2, "threads": 1}}),
        fine("queues-per-cpu", {"smp": 2, **virtio_disk()},
             {"smp": 2, **virtio_disk(**{"num-queues": 2})}, releases=("7.2", "11.1")),
        fine("queue-grows", virtio_disk(), virtio_disk(**{"queue-size": 1024}), releases=NEWEST),
        fine("queue-shrinks", virtio_disk(**{"queue-size": 1024}), virtio_disk()),
        fine("icount-shift", counted(3), counted(5), releases=("7.2", "11.1")),
        fine("icount-there", {}, counted(3)),
        fine("nvme", nvme(), nvme(), releases=NEWEST),
        fine("ipmi", ipmi(), ipmi(), releases=("7.2", "11.1")),
        fine("flash-node", flash(), flash("other"), base={"memory": "64MiB"}),
        fine("balloon-reporting", devices(b={"driver": BALLOON, "free-page-reporting": "on"}),
             devices(b={"driver": BALLOON})),
        *(fine(f"clean-tls-{a}-{b}-{off}", *tls(a == off, b == off), releases=(a, b))
          for a, b, off in (("7.2", "10.0", ""), ("10.0", "7.2", ""), ("7.2", "11.1", "11.1"),
                            ("11.1", "7.2", "11.1"))),
    ]  # fmt: skip


def tls(*unclean: bool) -> list[Profile]:
    """multifd over TLS at both ends; an older binary knows no property of how it ends."""
    ends = []
    for endpoint, off in zip(("client", "server"), unclean, strict=True):
        made = capable({}, "multifd", parameters={"tls-creds": "t", "tls-hostname": ""})
        if off:
            made["migration"]["properties"] = {"multifd-clean-tls-termination": "off"}
        made["objects"] = {"t": {"qom-type": "tls-creds-anon", "endpoint": endpoint}}
        ends.append(made)
    return ends


@pytest.mark.parametrize("case", [pytest.param(c, id=c.name) for c in succeeds()])
def test_what_succeeds_is_not_called_broken(case):
    findings = predict(case.source, case.destination)
    assert not breaks(findings), told(findings)
    outcome = move(case.source, case.destination)
    assert outcome.result == "completed", (outcome, told(findings))


# -- what an end does not even begin --------------------------------------------------------------


@pytest.mark.parametrize("release", ["10.0", "11.1"])
def test_a_file_that_postcopy_cannot_ask_for(release):
    """FACTS 5b: the capability is refused by the destination; which file systems do is known."""
    # /tmp is a tmpfs on some machines, which would do.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        own = backed("file", "mem0", **{"mem-path": f"{folder}/ram", "share": True})
        ends = End(capable(own, "postcopy-ram"), "7.2"), End(capable(own, "postcopy-ram"), release)
        findings = breaks(predict(*ends))
        assert [f.code for f in findings] == ["postcopy-file"], told(findings)
        outcome = move(*ends)
        assert (outcome.result, outcome.said) == ("refused", findings[0].words)


@pytest.mark.usefixtures("_tap")
@pytest.mark.parametrize("release", ["7.2", "10.0"])
def test_a_header_that_the_kernel_has_not(release):
    """FACTS F8: `vnet_hdr: on` makes an early error of it, and that is what is told."""
    ends = [End(tapped("7.2"), release),
            End(tapped("7.2", vnet_hdr=True), release, headless=True)]  # fmt: skip
    [finding] = breaks(predict(*ends))
    assert finding.code == "tap-start"
    outcome = move(*ends)
    assert outcome.result == "refused"
    assert finding.words in outcome.said
    off = [end._replace(settings=("netdevs.n0.vnet_hdr=off",)) for end in ends]
    assert not breaks(predict(*off))
    assert move(*off).result == "completed"


def test_mapped_ram_wants_a_file():
    """FACTS 5b: told as one-sided, and QEMU does not begin over a socket."""
    for ends in (("mapped-ram",), ()), ((), ("mapped-ram",)):
        case = [End(capable(q35(), *names), "10.0") for names in ends]
        assert "mapped-ram" in {f.property for f in breaks(predict(*case))}
        assert move(*case).result == "refused"


# -- what loads and is wrong ----------------------------------------------------------------------


def test_a_module_at_another_address_loses_its_content(tmp_path):
    here, there = 0x100000000, 0x110000000
    ends = [End(q35() | dimm(addr=at), "10.0") for at in (here, there)]
    [loss] = breaks(predict(*ends))
    assert (loss.property, loss.type) == ("addr", "pc-dimm")
    words = []
    for number, end in enumerate((ends[1], ends[0])):
        folder = tmp_path / str(number)
        folder.mkdir()
        words.append(_word_at(here, ends[0], end, str(folder)))
    assert words[1] == "0xaaaaaaaa"
    assert words[0] != "0xaaaaaaaa"


def _word_at(address: int, source: End, destination: End, folder: str) -> str:
    """What is at an address once the machine has moved; the guest had 0xaa there."""
    guest = EagerGuest(os.path.join(folder, "qtest"))
    argv = [render_standalone(end.prepared().plan, folder) for end in (source, destination)]
    with contextlib.ExitStack() as stack:
        stack.callback(guest.close)
        first = pair.End([*argv[0], *guest.argv])
        stack.callback(first.raw.close)
        guest.meet()
        second = pair.End([*argv[1], "-incoming", "defer"])
        stack.callback(second.raw.close)
        guest.fill(address, 4096, 0xAA)
        outcome = pair._migrate(first, second, f"unix:{folder}/s", False)
        assert outcome.result == "completed", outcome
        return second.raw.hmp(f"xp /1xw {address:#x}").split()[-1]


# -- virtio-net over tap --------------------------------------------------------------------------


def taps() -> list[Case]:
    pinned = {"mq": "on", "vectors": 6}
    return [
        Case("F7-11.1", End(tapped(), "10.0"), End(tapped(), "11.1", lacks=older_kernel.UFO),
             ("vnet_hdr",)),
        Case("F9-vectors", End(tapped(queues=2, device=pinned), "10.0"),
             End(tapped(queues=1, device=pinned), "10.0"), ("queues",)),
        Case("F10-tap", End(q35("10.0") | nic("user"), "10.0"), End(tapped(), "10.0"), ("type",),
             cure="words"),
    ]  # fmt: skip


@pytest.mark.usefixtures("_tap")
@pytest.mark.parametrize("case", chosen(taps()))
def test_what_the_kernel_takes_away_is_predicted_and_cured(case, guest, tmp_path):
    check_failing(case, str(tmp_path), guest)


@pytest.mark.usefixtures("_tap")
@pytest.mark.parametrize("releases", [("5.2", "11.1"), ("11.1", "5.2")], ids=str)
def test_taps_of_the_oldest_machine_type(releases):
    ends = [End(tapped("5.2"), release) for release in releases]
    findings = predict(*ends)
    assert not breaks(findings), told(findings)
    assert move(*ends).result == "completed"
