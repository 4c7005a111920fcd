"""What a machine whose parts came and went is to others: snapshots, files, migrations, the rig."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

import launcher
from integration.conftest import installed
from integration.test_rig import run
from launcher import sync
from launcher.begin import begin
from launcher.errors import InputError, LauncherError
from launcher.incoming import incoming
from launcher.migrate import MigrationError
from launcher.prepare import Request, load, prepare
from launcher.rejoin import find, verify
from launcher.saved.saving import save_running
from launcher.start import start

pytest_plugins = ("pytester",)
pytestmark = pytest.mark.integration

__all__ = ["run"]

EMPTY = {"name": "t", "platform": "debian-12", "machine": "q35", "accel": "tcg", "memory": "64MiB"}
SCSI = {"scsi0": {"driver": "virtio-scsi-pci"}}
READY = {**EMPTY, "devices": SCSI}


async def io(machine, device: str, command: str) -> str:
    """What HMP's qemu-io says: on QEMU's own terminal, not in its answer."""
    blocks = await machine.qmp("query-block")
    qdev = next(b["qdev"] for b in blocks if device in b.get("qdev", "").split("/"))
    machine.process.drain()
    before = len(machine.process.stderr.lines)
    line = f'qemu-io -d {qdev} "{command}"'
    assert await machine.qmp("human-monitor-command", {"command-line": line}) == ""
    machine.process.drain()
    return "\n".join(machine.process.stderr.lines[before:])


async def test_snapshots_are_of_a_machine_with_its_parts(qemu, tmp_path):
    images = [tmp_path / "a.raw", tmp_path / "b.raw"]
    for image in images:
        image.write_bytes(bytes(1 << 20))
    first = {**READY, "blockdevs": {"a": file(images[0])}}
    first["devices"] = {**SCSI, "sda": {"driver": "scsi-hd", "drive": "a", "bus": "scsi0.0"}}
    async with launcher.launch(first, qemu=qemu.binary) as machine:
        before = await machine.snapshot()
        device = {"driver": "scsi-hd", "drive": "b", "bus": "scsi0.0"}
        await machine.plug(blockdevs={"b": file(images[1])}, devices={"sdb": device})
        with pytest.raises(InputError, match=r"blockdevs\.b, devices\.sdb: plugged or unplugged"):
            await machine.restore(before)
        # The disk that came later is kept, too, and its image is not written to either.
        kept = await machine.snapshot()
        assert len(kept.nodes) == 3
        await io(machine, "sdb", "write -P 7 0 4k")
        assert "verification failed" in await io(machine, "sdb", "read -P 0 0 4k")
        await machine.restore(kept)
        assert "verification failed" not in await io(machine, "sdb", "read -P 0 0 4k")
        await machine.unplug("sdb")
        listed = await machine.qmp("query-named-block-nodes")
        names = {node["node-name"] for node in listed}
        assert "b" not in names
        assert not [name for name in names if name.startswith("launcher-snapshot-b")]
        await machine.restore(before)
    assert [image.read_bytes() for image in images] == [bytes(1 << 20)] * 2


def file(path: os.PathLike[str]) -> dict:
    return {"driver": "raw", "file": {"driver": "file", "filename": str(path)}}


async def test_a_changed_machine_is_not_saved(newest_qemu, tmp_path):
    state = tmp_path / "t.state"
    async with launcher.launch(READY, qemu=newest_qemu.binary) as machine:
        await machine.plug(objects={"io1": {"qom-type": "iothread"}})
        with pytest.raises(InputError, match=r"not what its profile says: objects\.io1"):
            await launcher.save(machine, str(state))
        assert not state.exists()
        assert (await machine.qmp("query-status"))["running"]


async def test_a_migration_wants_the_same_parts_at_both_ends(qemu):
    parts = {
        "netdevs": {"n1": {"type": "user"}},
        "devices": {"tablet": {"driver": "usb-tablet", "bus": "usb.0"}},
    }
    base = {**EMPTY, "devices": {"usb": {"driver": "qemu-xhci"}}}
    more = {"devices": parts["devices"]}

    async def target(profile: dict, source) -> launcher.Machine:
        prepared = await prepare(load(Request(profile, qemu=qemu.binary)))
        return await incoming(prepared, uuid=source.plan.uuid, folder="t-2")

    async with launcher.launch(base, qemu=qemu.binary) as source:
        await source.plug(**more)
        bare = await target(base, source)
        with pytest.raises(MigrationError, match="tablet"):
            await source.migrate(bare)
        await bare.close()
        assert (await source.qmp("query-status"))["running"]
        plugged = await target(base, source)
        await plugged.plug(**more)
        try:
            assert (await source.migrate(plugged)).result == "completed"
            assert (await plugged.qmp("query-status"))["running"]
            assert (await plugged.verify()).verdict == "match"
            # USB needs no guest to take part.
            await plugged.unplug("tablet", timeout=10)
            assert plugged.changes == []
        finally:
            await plugged.close()


async def test_who_asks_from_elsewhere_is_told_of_the_parts(newest_qemu, tmp_path):
    """`verify NAME` of another process goes by the plan on record, and so does `save NAME`."""
    profile = tmp_path / "plugged.yaml"
    profile.write_text(json.dumps({**READY, "name": "plugged"}))
    prepared = await prepare(load(Request(str(profile), qemu=newest_qemu.binary)))
    machine = await start(begin(prepared, named=True))
    try:
        await machine.plug(objects={"io1": {"qom-type": "iothread"}})
        report = await verify(find("plugged"))
        assert report.verdict == "match"
        assert ("object", "io1") in {(j.value.family, j.value.id) for j in report.judged}
        with pytest.raises(InputError, match=r"not what its profile says: objects\.io1"):
            await save_running(find("plugged"), str(tmp_path / "state"))
        assert sorted(os.listdir(tmp_path)) == ["plugged.yaml"]
        assert (await machine.qmp("query-status"))["running"]
        await machine.unplug("io1")
        report = await verify(find("plugged"))
        assert ("object", "io1") not in {(j.value.family, j.value.id) for j in report.judged}
    finally:
        await machine.close()


async def test_a_secret_is_not_said(end_qemu, tmp_path):
    """Not in what goes over the monitor; and QEMU opens an encrypted image with it."""
    image = tmp_path / "a.luks"
    word = "correct horse"
    command = [end_qemu.image_tool, "create", "-q", "-f", "luks", "--object"]
    command += [f"secret,id=s,data={word}", "-o", "key-secret=s,iter-time=10", image, "1M"]
    subprocess.run(command, check=True, timeout=60)  # noqa: ASYNC221
    async with launcher.launch(READY, qemu=end_qemu.binary) as machine:
        said: list[str] = []
        machine.monitor.overhear(lambda way, message: said.append(f"{way} {bytes(message)!r}"))
        report = await machine.plug(
            objects={"s": {"qom-type": "secret", "data": word}},
            blockdevs={"e": {"driver": "luks", "key-secret": "s", "file": file(image)["file"]}},
        )
        assert report.verdict == "match"
        assert not [line for line in said if word in line or "Y29ycmVjdCBob3JzZ" in line]
        assert await machine.qmp("query-fdsets") == []
        with pytest.raises(InputError, match=r"objects\.s is used by blockdevs\.e"):
            await machine.unplug("s")
        await machine.unplug("e")
        assert machine.changes == []


def test_what_is_known_to_end_a_qemu_is_not_sent():
    with sync.launch(READY, qemu=installed("10.0").binary) as machine:
        compare = {"primary_in": "c", "secondary_in": "c", "outdev": "c", "iothread": "io"}
        with pytest.raises(InputError, match=r"objects\.cc is not sent to QEMU 10\.0.*SIGABRT"):
            machine.plug(
                chardevs={"c": {"backend": "null"}},
                objects={
                    "io": {"qom-type": "iothread"},
                    "cc": {"qom-type": "colo-compare", **compare},
                },
            )
        assert machine.qmp("query-iothreads") == []
        assert machine.changes == []


IN_THE_RIG = """
SCSI = {**EMPTY, "devices": {"scsi0": {"driver": "virtio-scsi-pci"}}}
IO = {"io1": {"qom-type": "iothread"}}
pids = []

@pytest.mark.machine(SCSI)
@pytest.mark.parametrize("n", range(3))
def test_shared(module_machine, n):
    pids.append(module_machine.process.pid)
    assert module_machine.changes == []
    module_machine.plug(objects=IO)
    if n == 0:
        module_machine.unplug("io1")  # as it was: the next one is restored

def test_only_what_was_left_costs_a_boot():
    assert (pids[0] == pids[1], pids[1] == pids[2]) == (True, False)

@pytest.mark.machine({**SCSI, "devices": {**SCSI["devices"], "v": {"driver": "VGA"}}})
async def test_asynchronous(machine):
    assert (await machine.plug(objects=IO)).verdict == "match"
    assert machine.changes == ["objects.io1"]
    await machine.faults.nmi()
    await machine.send_key("a")
    assert (await machine.screendump()).startswith(b"\\x89PNG")
    await machine.unplug("io1")
    assert machine.changes == []
"""


def test_in_the_rig(run, newest_qemu):
    run(IN_THE_RIG, "--qemu", newest_qemu.binary).assert_outcomes(passed=5)


def test_without_asyncio(newest_qemu, tmp_path):
    devices = {**SCSI, "v": {"driver": "VGA"}, "rp1": {"driver": "pcie-root-port"}}
    profile = {**EMPTY, "devices": devices, "net": "user"}
    with sync.launch(profile, qemu=newest_qemu.binary) as machine:
        assert machine.plug(objects={"io1": {"qom-type": "iothread"}}).verdict == "match"
        machine.unplug("io1")
        assert machine.changes == []
        machine.send_key("esc")
        machine.type_text("a")
        assert machine.screendump().startswith(b"\x89PNG")
        assert machine.dump_guest_memory(str(tmp_path / "d")) > 64 << 20
        machine.faults.link("net0", up=False)
        machine.faults.nmi()
        machine.faults.pcie_error("rp1", "BAD_TLP")
        machine.faults.gap(0.1)
        machine.plug(
            blockdevs={"d": {"driver": "null-co"}},
            devices={"sd": {"driver": "scsi-hd", "drive": "d", "bus": "scsi0.0"}},
        )
        machine.faults.throttle("sd", iops=5)
        machine.faults.inject_error("sd", iotype="read", errno=5)
        machine.faults.end_errors("sd")
        machine.unplug("sd")
        with pytest.raises(LauncherError, match="no vCPU 7"):
            machine.faults.machine_check(7)
        assert machine.verify().verdict == "match"
