"""The Python face on real QEMU: start verified, refuse what is off, leave nothing behind."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from pathlib import Path

import pytest

import launcher
from launcher.begin import begin
from launcher.errors import HostError, LaunchError, VerdictError
from launcher.prepare import Request, load, prepare
from launcher.start import attach, refuse, start

pytestmark = pytest.mark.integration


def profile(**more):
    return {
        "name": "t",
        "platform": "debian-12",
        "machine": "q35",
        "accel": "tcg",
        "memory": "64MiB",
        "objects": {"io0": {"qom-type": "iothread", "poll-max-ns": 1000}},
        "migration": {"parameters": {"max-bandwidth": 1048576}},
        **more,
    }


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("machine", ["q35", "pc", "microvm"])
async def test_starts_verified_and_runs(qemu, machine):
    async with launcher.launch(profile(machine=machine), qemu=qemu.binary) as running:
        assert running.report.verdict == "match"
        assert running.report.counts["match"] > 5
        assert (await running.qmp("query-status"))["running"] is True
        pid = running.process.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("qom-set", {"path": "/objects/io0", "property": "poll-max-ns", "value": 7}),
        ("migrate-set-parameters", {"max-bandwidth": 4096}),
    ],
)
async def test_a_value_changed_behind_the_launchers_back_is_a_mismatch(qemu, command, arguments):
    prepared = await prepare(load(Request(profile(), qemu=qemu.binary)))
    machine = await attach(begin(prepared))
    try:
        await machine.qmp(command, arguments)
        report = await machine.verify()
        assert report.verdict == "mismatch"
        assert [w.value.property for w in report.wrong] == [
            "poll-max-ns" if command == "qom-set" else "max-bandwidth"
        ]
        with pytest.raises(VerdictError, match="guest did not run"):
            refuse(report)
        assert (await machine.qmp("query-status"))["running"] is False
    finally:
        await machine.close()


async def test_a_listed_compat_property_that_is_not_applied_is_found(newer_qemu):
    """query-machines lists sev-guest.legacy-vm-type=on; QEMU 10.0 and 11.1 leave it at auto."""
    sev = {"qom-type": "sev-guest", "cbitpos": 47, "reduced-phys-bits": 1}
    wanted = profile(machine="pc-q35-9.0", objects={"sev0": sev})
    with pytest.raises(VerdictError) as caught:
        async with launcher.launch(wanted, platform="native", qemu=newer_qemu.binary):
            pass
    wrong = caught.value.report.wrong
    off = [(w.value.property, str(w.value.origin), w.observed) for w in wrong]
    assert off == [("legacy-vm-type", "machine type pc-q35-9.0", "auto")]
    async with launcher.launch(wanted, platform="debian-12", qemu=newer_qemu.binary) as machine:
        assert machine.report.verdict == "match"


async def test_qemus_own_words_lead_to_the_profiles_line(qemu, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(
        "platform: debian-12\nmachine: q35\naccel: tcg\n"
        "blockdevs:\n  d: {driver: file, filename: /nowhere/at/all}\n"
    )
    before = descriptors()
    with pytest.raises(LaunchError) as caught:
        async with launcher.launch(str(path), qemu=qemu.binary):
            pass
    error = caught.value
    assert "No such file or directory" in error.message
    assert (error.place.file, error.place.line) == (str(path), 5)
    assert error.evidence["returncode"] == 1
    assert descriptors() == before


async def test_a_cancelled_launch_leaves_nothing(qemu):
    """Cancelled at twenty moments of a launch: no process, no descriptor, no task stays."""
    # The first launch of a process makes what all of them share (one pipe, the probe's cache).
    async with launcher.launch(profile(), qemu=qemu.binary):
        pass
    before = descriptors()
    for step in range(20):

        async def run():
            async with launcher.launch(profile(), qemu=qemu.binary):
                await asyncio.sleep(10)

        task = asyncio.ensure_future(run())
        await asyncio.sleep(step * 0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(asyncio.all_tasks()) == 1
    assert descriptors() == before
    assert Path(f"/proc/self/task/{os.getpid()}/children").read_text().split() == []


async def test_two_machines_of_one_name(qemu, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    prepared = await prepare(load(Request(profile(), qemu=qemu.binary)))
    first = begin(prepared, named=True)
    try:
        with pytest.raises(HostError, match=f"process {os.getpid()}"):
            begin(prepared, named=True)
    finally:
        first.abandon()
    begin(prepared, named=True).abandon()
    assert os.listdir(tmp_path / "qemu-launcher") == []


async def test_the_storage_daemon_exports_what_was_planned(project, qemu):
    path = os.path.join(project, "profiles", "storage-daemon.yaml")
    async with launcher.launch(path, qemu=qemu.storage_daemon) as machine:
        assert machine.report.verdict == "match"
        where = os.path.join(machine.resources.directory.path, "nbd")
        info = await asyncio.create_subprocess_exec(
            qemu.image_tool,
            *("info", "--output=json", f"nbd+unix:///data?socket={where}"),
            stdout=asyncio.subprocess.PIPE,
        )
        shown, _ = await info.communicate()
        assert info.returncode == 0
        assert b'"virtual-size": 67108864' in shown


async def test_secrets_reach_neither_argv_nor_reports(qemu):
    wanted = profile(objects={"key0": {"qom-type": "secret", "data": "c4n4ry-hunter2"}})
    async with launcher.launch(wanted, qemu=qemu.binary) as machine:
        for name in ("cmdline", "environ"):
            assert b"c4n4ry" not in Path(f"/proc/{machine.process.pid}/{name}").read_bytes()
        from launcher.report import report_json, report_text

        assert "c4n4ry" not in report_text(machine.report)
        assert "c4n4ry" not in str(report_json(machine.report))
        # Through a descriptor it cannot even be read back over QMP.
        told = await machine.qmp("qom-get", {"path": "/objects/key0", "property": "data"})
        assert told == ""
    # It does arrive: QEMU decodes it, and says so when it is not what `format` promises.
    broken = {"qom-type": "secret", "data": "c4n4ry!", "format": "base64"}
    with pytest.raises(LaunchError, match=r"objects.key0: .*[Bb]ase64"):
        async with launcher.launch(profile(objects={"key0": broken}), qemu=qemu.binary):
            pass


async def test_a_guest_that_is_interpreted_is_told_from_one_that_runs(qemu, guest):
    """Where /dev/kvm is a trap the vCPU threads give it away; on real hardware they prove it."""
    from launcher.host.kvm import climb
    from launcher.speed import watch_speed

    ladder = climb()
    if ladder.rung not in ("runs", "native-speed"):
        # Nothing runs under KVM here: TCG never spends a tick in a guest, and is not accused.
        wanted = profile(boot={"kernel": f"{guest}/vmlinuz"})
        async with launcher.launch(wanted, qemu=qemu.binary) as machine:
            assert (await watch_speed(machine, 1.0)).native is None
        return
    kernel = {"kernel": f"{guest}/vmlinuz", "append": "console=ttyS0"}
    wanted = profile(accel="kvm", boot=kernel)
    # `this_host=False`: the ladder would refuse the trap before the launch.
    request = Request(wanted, qemu=qemu.binary, this_host=False)
    machine = await start(begin(await prepare(load(request))))
    try:
        verdict = await watch_speed(machine, 10.0)
        assert verdict.native is ladder.ok, verdict.reason
    finally:
        await machine.close()


async def test_the_end_of_a_session_can_be_cancelled_and_nobody_complains(newest_qemu):
    """Else asyncio tells of a future that was lost, on stderr and with a traceback."""
    told = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context))
    for turns in range(8):
        async with launcher.launch(profile(), qemu=newest_qemu.binary) as machine:
            machine.process.send_signal(signal.SIGKILL)
            await machine.wait()
            ending = asyncio.ensure_future(machine.monitor.close())
            for _ in range(turns):
                await asyncio.sleep(0)
            ending.cancel()
            await asyncio.gather(ending, return_exceptions=True)
        gc.collect()
        await asyncio.sleep(0)
    assert told == []
