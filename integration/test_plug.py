"""Parts that come and go while a machine runs, on each release."""

from __future__ import annotations

import asyncio
import socket

import pytest

import launcher
from integration.conftest import ENDS, installed
from launcher.errors import CommandError, InputError, LauncherError, VerdictError

pytestmark = pytest.mark.integration

EMPTY = {"name": "t", "platform": "debian-12", "machine": "q35", "accel": "tcg", "memory": "64MiB"}
PORTS = {
    "rp1": {"driver": "pcie-root-port", "chassis": 1},
    "rp2": {"driver": "pcie-root-port", "chassis": 2},
    "scsi0": {"driver": "virtio-scsi-pci"},
}
READY = {**EMPTY, "devices": PORTS}
DISK = {"driver": "null-co", "size": 1 << 20, "read-zeroes": True}


def values(report, family: str) -> dict[tuple[str, str], object]:
    return {(j.value.id, j.value.property): j for j in report.judged if j.value.family == family}


async def nodes(machine) -> set[str]:
    return {n["node-name"] for n in await machine.qmp("query-named-block-nodes")}


async def test_objects_come_with_what_the_platform_pins_and_go(qemu):
    async with launcher.launch(READY, qemu=qemu.binary) as machine:
        before = machine.plan
        report = await machine.plug(objects={"io1": {"qom-type": "iothread"}})
        assert report.verdict == "match"
        judged = values(report, "object")
        assert judged["io1", "poll-max-ns"].observed == 32768
        assert str(judged["io1", "poll-max-ns"].value.origin) == "platform debian-12"
        assert [t["id"] for t in await machine.qmp("query-iothreads")] == ["io1"]
        assert machine.changes == ["objects.io1"]
        # The machine's own report has them, before anybody asks again.
        assert values(machine.report, "object")["io1", "poll-max-ns"].verdict == "match"
        assert machine.report.plan is machine.plan
        assert (await machine.verify()).verdict == "match"
        assert ("io1", "poll-max-ns") in values(machine.report, "object")
        path = {"path": "/objects/io1", "property": "poll-max-ns"}
        await machine.qmp("qom-set", {**path, "value": 7})
        wrong = (await machine.verify()).wrong
        assert [(j.value.id, j.value.property) for j in wrong] == [("io1", "poll-max-ns")]
        await machine.unplug("io1")
        assert await machine.qmp("query-iothreads") == []
        assert machine.changes == []
        assert machine.plan.values == before.values
        assert (await machine.verify()).verdict == "match"
        assert len(machine.report.judged) == len(before.values)


async def test_a_plugged_machine_is_as_planned_as_one_started_with_it(qemu):
    """The plan and what is read back are those of a machine that had everything from the start."""
    more = {
        "objects": {"io1": {"qom-type": "iothread"}, "lim": {"qom-type": "throttle-group"}},
        "chardevs": {"log": {"backend": "ringbuf", "size": 4096}},
        "blockdevs": {
            "d1": {**DISK},
            "d2": {"driver": "throttle", "throttle-group": "lim", "file": "d1"},
        },
        "netdevs": {"n1": {"type": "user", "restrict": True}},
        "devices": {
            "sd1": {"driver": "scsi-hd", "drive": "d2", "bus": "scsi0.0", "serial": "a,b=c"},
            "nic1": {"driver": "virtio-net-pci", "netdev": "n1", "bus": "rp1", "addr": "00.0"},
        },
    }
    whole = {**READY, **more, "devices": {**PORTS, **more["devices"]}}
    async with launcher.launch(whole, qemu=qemu.binary) as machine:
        expected = {
            (j.value.family, j.value.id, j.value.property): j for j in machine.report.judged
        }
    async with launcher.launch(READY, qemu=qemu.binary) as machine:
        report = await machine.plug(**more)
        assert report.verdict == "match"
        assert len(report.judged) + len(machine.report.judged) > len(expected)
        assert (await machine.verify()).verdict == "match"
        found = {(j.value.family, j.value.id, j.value.property): j for j in machine.report.judged}
        assert {
            k: (j.value.written, j.observed, j.verdict, str(j.value.origin).partition(":")[0])
            for k, j in found.items()
        } == {
            k: (j.value.written, j.observed, j.verdict, str(j.value.origin).partition(":")[0])
            for k, j in expected.items()
        }
        # The device goes, and with it all that only it used, whoever used that.
        await machine.unplug("sd1")
        assert await nodes(machine) == set()
        assert machine.changes == ["chardevs.log", "devices.nic1", "netdevs.n1", "objects.io1"]
        with pytest.raises(InputError, match=r"netdevs\.n1 is used by devices\.nic1"):
            await machine.unplug("n1")
        await machine.unplug("log", "io1")
        assert "log" not in {c["label"] for c in await machine.qmp("query-chardev")}


async def test_a_disk_may_stay_when_its_device_goes(qemu):
    async with launcher.launch(READY, qemu=qemu.binary) as machine:
        device = {"driver": "scsi-hd", "drive": "d1", "bus": "scsi0.0"}
        await machine.plug(blockdevs={"d1": DISK}, devices={"one": device})
        await machine.unplug("one", backends=False)
        assert await nodes(machine) == {"d1"}
        assert (await machine.plug(devices={"two": device})).verdict == "match"
        await machine.unplug("two")
        assert await nodes(machine) == set()
        with pytest.raises(InputError, match="has no part 'two'"):
            await machine.unplug("two")


async def test_what_is_wrong_is_told_before_qemu_is(qemu):
    async with launcher.launch(READY, qemu=qemu.binary) as machine:
        said: list[str] = []
        machine.monitor.overhear(lambda way, message: said.append(way))
        for given, words in (
            ({"devices": {"x": {"driver": "virtio-rng-pci", "nonsense": 1}}}, "'nonsense'"),
            ({"devices": {"x": {"driver": "no-such"}}}, "no device 'no-such'"),
            ({"devices": {"x": {"driver": "scsi-hd", "drive": "d9"}}}, "block node 'd9'"),
            ({"devices": {"rp1": {"driver": "virtio-rng-pci"}}}, r"devices\.rp1 exists already"),
            ({"objects": {"x": {"qom-type": "iothread", "poll-max-ns": "much"}}}, "must be"),
            ({"objects": {"9x": {"qom-type": "iothread"}}}, "cannot be an id"),
            (
                {
                    "chardevs": {
                        "x": {"backend": "socket", "path": "p", "server": True, "wait": True}
                    }
                },
                "stand still",
            ),
            ({"chardevs": {"x": {"backend": "ringbuf", "sise": 1}}}, "sise"),
            ({}, "nothing was given"),
        ):
            with pytest.raises(InputError, match=words):
                await machine.plug(**given)
        assert said == []
        assert machine.changes == []


async def test_what_qemu_refuses_leaves_nothing_behind(qemu):
    async with launcher.launch(READY, qemu=qemu.binary) as machine:
        nic = {"driver": "virtio-net-pci", "netdev": "n1"}
        with pytest.raises(
            CommandError, match=r"devices\.nic1: .*does not support hotplug"
        ) as told:
            await machine.plug(netdevs={"n1": {"type": "user"}}, devices={"nic1": nic})
        assert "`bus: rp1`" in told.value.hint
        network = {"command-line": "info network"}
        assert "n1" not in await machine.qmp("human-monitor-command", network)
        assert machine.changes == []
        assert (await machine.verify()).verdict == "match"


async def test_the_storage_daemon_takes_parts_as_well(qemu):
    profile = {"name": "t", "platform": "debian-12", "tool": "qemu-storage-daemon"}
    async with launcher.launch(profile, qemu=qemu.storage_daemon) as machine:
        more = {
            "objects": {"io1": {"qom-type": "iothread"}, "lim": {"qom-type": "throttle-group"}},
            "blockdevs": {"d1": {"driver": "throttle", "throttle-group": "lim", "file": DISK}},
        }
        if qemu.release == "5.2":
            with pytest.raises(CommandError, match=r"objects\.io1: .* has not been found") as told:
                await machine.plug(**more)
            assert "at start only" in told.value.hint
            return
        report = await machine.plug(**more)
        assert report.verdict == "match"
        assert (await machine.verify()).verdict == "match"
        await machine.unplug("d1", "io1")
        assert await nodes(machine) == set()
        assert machine.changes == []
        with pytest.raises(InputError, match="qemu-storage-daemon has no devices"):
            await machine.plug(devices={"d": {"driver": "virtio-rng-pci"}})


async def test_several_at_once_wait_for_each_other(newest_qemu):
    async with launcher.launch(READY, qemu=newest_qemu.binary) as machine:
        names = [f"io{n}" for n in range(5)]
        plugs = [machine.plug(objects={name: {"qom-type": "iothread"}}) for name in names]
        assert {r.verdict for r in await asyncio.gather(*plugs)} == {"match"}
        assert machine.changes == [f"objects.{name}" for name in names]
        assert (await machine.verify()).verdict == "match"
        await asyncio.gather(*(machine.unplug(name) for name in names))
        assert machine.changes == []


async def test_under_a_lock(newest_qemu, tmp_path):
    """What the lock holds is kept; what it does not hold is planned without it."""
    lock = str(tmp_path / "t.lock.yaml")
    await launcher.lock(READY, qemu=newest_qemu.binary, output=lock)
    async with launcher.launch(READY, qemu=newest_qemu.binary, locked=lock) as machine:
        report = await machine.plug(objects={"io1": {"qom-type": "iothread"}})
        assert report.verdict == "match"
        origins = {str(j.value.origin) for j in report.judged}
        assert origins == {"platform debian-12"}
        assert any(str(j.value.origin).startswith("lock ") for j in machine.report.judged)
        assert (await machine.verify()).verdict == "match"


async def test_microvm_knows_no_hot_plug_of_devices(qemu):
    async with launcher.launch({**EMPTY, "machine": "microvm"}, qemu=qemu.binary) as machine:
        with pytest.raises(CommandError, match="does not support hotplugging") as told:
            await machine.plug(devices={"r": {"driver": "virtio-rng-device"}})
        assert "virtio-mmio, which knows no hot plug" in told.value.hint
        assert (await machine.plug(objects={"io": {"qom-type": "iothread"}})).verdict == "match"


async def test_a_value_that_is_not_applied_is_taken_out_again(newer_qemu):
    """QEMU 10.0 lists legacy-vm-type=on for pc-q35-9.0, and does not apply it."""
    profile = {**EMPTY, "platform": "native", "machine": "pc-q35-9.0"}
    sev = {"sev0": {"qom-type": "sev-guest", "cbitpos": 47, "reduced-phys-bits": 1}}
    async with launcher.launch(profile, qemu=newer_qemu.binary) as machine:
        with pytest.raises(
            VerdictError, match="1 value is not what was planned; it was taken"
        ) as told:
            await machine.plug(objects=sev)
        assert [j.value.property for j in told.value.report.wrong] == ["legacy-vm-type"]
        listed = await machine.qmp("qom-list", path="/objects")
        assert "sev0" not in {entry["name"] for entry in listed}
        assert (await machine.verify()).verdict == "match"
        assert (await machine.plug(objects=sev, verify="warn")).verdict == "mismatch"
        assert machine.changes == ["objects.sev0"]
        assert (await machine.verify()).verdict == "mismatch"


CHARDEVS = {
    "null0": {"backend": "null"},
    "ring0": {"backend": "ringbuf", "size": 8192},
    "file0": {"backend": "file", "path": "DIR/file0", "append": True},
    "pty0": {"backend": "pty"},
    "unix0": {"backend": "socket", "path": "DIR/unix0", "server": True, "wait": False},
    "inet0": {"backend": "socket", "host": "127.0.0.1", "port": 0, "server": True, "wait": False},
    "udp0": {"backend": "udp", "host": "127.0.0.1", "port": 9, "localport": 0},
    "tel0": {
        "backend": "socket",
        "host": "127.0.0.1",
        "port": 0,
        "server": True,
        "wait": False,
        "telnet": True,
    },
    "cli0": {"backend": "socket", "path": "DIR/listening", "delay": False},
    "log0": {"backend": "null", "logfile": "DIR/log0", "logappend": True},
    "vc0": {"backend": "vc", "cols": 80, "rows": 25},
}


async def test_chardevs_have_the_words_of_the_command_line(qemu, tmp_path):
    """One that is plugged is what one is that was there from the start."""
    chardevs = {
        key: {n: v.replace("DIR", str(tmp_path)) if isinstance(v, str) else v for n, v in c.items()}
        for key, c in CHARDEVS.items()
    }

    async def shown(machine) -> dict[str, str]:
        listed = await machine.qmp("query-chardev")
        # Ports and terminals are the kernel's choice.
        return {
            c["label"]: "".join(" " if d.isdigit() else d for d in c["filename"])
            for c in listed
            if c["label"] in chardevs
        }

    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "listening"))
    listening.listen(4)
    async with launcher.launch({**EMPTY, "chardevs": chardevs}, qemu=qemu.binary) as machine:
        expected = await shown(machine)
    for name in ("unix0", "file0"):
        (tmp_path / name).unlink(missing_ok=True)
    async with launcher.launch(EMPTY, qemu=qemu.binary) as machine:
        assert (await machine.plug(chardevs=chardevs)).verdict == "match"
        assert await shown(machine) == expected
        assert len(expected) == len(chardevs)
        await machine.unplug(*chardevs)
        assert await shown(machine) == {}
    listening.close()


@pytest.fixture
def linux(guest) -> dict:
    """A Linux guest that has drivers for PCI and virtio."""
    boot = {"kernel": f"{guest}/vmlinuz", "initrd": f"{guest}/initrd.img"}
    boot["append"] = "console=ttyS0 quiet loglevel=3"
    return {**READY, "memory": "128MiB", "cpu": "qemu64", "serial": "console", "boot": boot}


SEEN = "cat /sys/bus/pci/devices/*/device | grep -c 0x10[04][01]; echo sai''d"


# With PCIe's own hot plug, which q35 of 5.2 has, a guest that is still busy with the new device
# ignores the button, and QEMU 5.2 presses it once only.
@pytest.mark.parametrize(
    ("release", "kind"),
    [(release, "pc" if release == "5.2" else "q35") for release in ENDS],
)
async def test_a_guest_gets_a_nic_and_gives_it_back(linux, release, kind):
    devices = PORTS if kind == "q35" else {"scsi0": PORTS["scsi0"]}
    profile = {**linux, "machine": kind, "devices": devices}
    async with launcher.launch(profile, qemu=installed(release).binary) as machine:
        console = machine.console
        await console.wait_for("guest# ", 120)
        report = await machine.plug(net={"type": "user", "mac": "52:54:00:aa:bb:cc"})
        if kind == "q35":
            bus = values(report, "device")["net0-dev", "bus"]
            assert bus.observed == "/machine/peripheral/rp1/rp1"
        for _ in range(100):
            await console.send_line(SEEN)
            if (await console.expect(r"(\d)\r?\nsaid", 20))[1] == "1":
                break
        else:
            pytest.fail("the guest did not see the device")
        await machine.unplug("net0-dev", timeout=60)
        await console.send_line(SEEN)
        assert (await console.expect(r"(\d)\r?\nsaid", 20))[1] == "0"
        network = await machine.qmp("human-monitor-command", {"command-line": "info network"})
        assert "net0" not in network
        assert machine.changes == []
        # The next one is numbered as if there had been none.
        await machine.plug(net="user")
        assert "devices.net0-dev" in machine.changes


@pytest.mark.parametrize("release", ["5.2", "11.1"])
async def test_a_guest_refuses_to_give_memory_back(linux, release):
    # Kernel memory cannot be moved out of the way, and Linux takes it where it was given last.
    boot = {**linux["boot"], "append": "console=ttyS0 quiet memhp_default_state=online_kernel"}
    memory = {"size": "256MiB", "slots": 2, "maxmem": "1GiB"}
    profile = {**linux, "memory": memory, "boot": boot}
    async with launcher.launch(profile, qemu=installed(release).binary) as machine:
        console = machine.console
        await console.wait_for("guest# ", 120)
        dimm = {"driver": "pc-dimm", "memdev": "m1"}
        backend = {"qom-type": "memory-backend-ram", "size": 128 << 20}
        report = await machine.plug(objects={"m1": backend}, devices={"d1": dimm})
        assert report.verdict == "match"
        total = "sed -n 's/MemTotal: *//p' /proc/meminfo; echo sai''d"
        for _ in range(100):
            await console.send_line(total)
            if int((await console.expect(r"(\d+) kB\r?\nsaid", 20))[1]) > 256 << 10:
                break
        else:
            pytest.fail("the guest did not take the memory")
        await console.send_line("mount -t tmpfs none /tmp; cd /tmp; mkdir $(seq 3000); echo sai''d")
        await console.expect("said", 60)
        with pytest.raises(LauncherError, match="refuses to let go of d1: the device is busy"):
            await machine.unplug("d1", timeout=60)
        assert machine.changes == ["devices.d1", "objects.m1"]
        assert (await machine.verify()).verdict == "match"


async def _gone(machine, device: str) -> int:
    """Have QEMU remove a device behind our back; the event before."""
    await asyncio.sleep(0)  # what was begun sends its command first
    mark = machine.events.mark()
    await machine.qmp("device_del", id=device)
    return mark


async def test_a_guest_that_does_not_take_part(qemu):
    async with launcher.launch(READY, qemu=qemu.binary) as machine:
        await machine.plug(devices={"r1": {"driver": "virtio-rng-pci", "bus": "rp1"}})
        scsi = {"driver": "scsi-hd", "drive": "d1", "bus": "scsi0.0"}
        await machine.plug(blockdevs={"d1": DISK}, devices={"sd1": scsi})
        unplugging = asyncio.ensure_future(machine.unplug("r1", timeout=0.5))
        # Another one that goes meanwhile is not the one.
        await machine.wait_event("DEVICE_DELETED", timeout=20, since=await _gone(machine, "sd1"))
        with pytest.raises(LauncherError, match=r"did not let go of r1 within 0\.5 s") as told:
            await unplugging
        await machine.unplug("sd1")
        assert told.value.code == "unplug"
        assert "the guest must take part" in told.value.hint
        assert "runstate: running" in told.value.evidence["guest"]
        assert machine.changes == ["devices.r1"]
        assert (await machine.verify()).verdict == "match"


# PCIe's own hot plug on q35 of 5.2 waits for the guest, whatever resets it.
@pytest.mark.parametrize(
    ("release", "kind"),
    [("5.2", "pc"), ("7.2", "pc"), ("7.2", "q35"), ("10.0", "q35"), ("11.1", "q35")],
)
async def test_a_reset_completes_what_the_guest_did_not_do(release, kind):
    profile = READY if kind == "q35" else {**EMPTY, "machine": kind}
    bus = {"bus": "rp1"} if kind == "q35" else {}
    device = {"driver": "virtio-rng-pci", "rng": "e", **bus}
    async with launcher.launch(profile, qemu=installed(release).binary) as machine:
        await machine.plug(objects={"e": {"qom-type": "rng-builtin"}}, devices={"r1": device})
        with pytest.raises(LauncherError, match="did not let go"):
            await machine.unplug("r1", timeout=0.2)
        await machine.reset()
        await machine.unplug("r1", timeout=60)
        assert machine.changes == []
        assert (await machine.verify()).verdict == "match"
