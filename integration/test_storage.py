"""The storage daemon from a profile, and real clients at its exports: QEMU's own tools."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

import launcher
from integration.conftest import Installed, installed
from integration.rawqmp import RawQMP
from integration.test_cli import Line, line
from launcher.errors import QEMUError

pytestmark = pytest.mark.integration

__all__ = ["line"]  # a fixture

LUKS = "storage-luks.yaml"
#: The client is of one release whatever serves: NBD is a protocol.
CLIENT = "10.0"


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory) -> Path:
    """A folder with an encrypted image of 8 MiB and its key: making one takes seconds."""
    folder: Path = tmp_path_factory.mktemp("luks")
    key = folder / "key.txt"
    key.write_text("hunter2-c4n4ry")
    # Few rounds of hashing: the test is not about the passphrase's strength.
    options = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"
    tool = installed(CLIENT).image_tool
    words = ("create", "-q", "-f", "qcow2", "--object", f"secret,id=s,file={key}", "-o", options)
    subprocess.run([tool, *words, str(folder / "disk.qcow2"), "8M"], check=True, timeout=60)
    return folder


@pytest.fixture
def image(encrypted, tmp_path) -> tuple[str, ...]:
    """The settings of a copy of it."""
    disk = shutil.copy(encrypted / "disk.qcow2", tmp_path)
    return (f"disk={disk}", f"key={encrypted / 'key.txt'}")


def sample(project: str) -> str:
    return os.path.join(project, "profiles", LUKS)


def url(directory: str, export: str) -> str:
    return f"nbd+unix:///{export}?socket={directory}/nbd"


async def client(program: str, *words: str) -> tuple[int, str]:
    """Exit status and words of one of QEMU's tools."""
    path = os.path.join(os.path.dirname(installed(CLIENT).binary), program)
    process = await asyncio.create_subprocess_exec(
        path,
        *words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    told, _ = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode is not None
    return process.returncode, told.decode()


async def io(where: str, *commands: str, read_only: bool = False) -> tuple[int, str]:
    """`qemu-io` at one export."""
    words = [word for command in commands for word in ("-c", command)]
    return await client("qemu-io", *(["-r"] if read_only else []), "-f", "raw", *words, where)


# -- data -----------------------------------------------------------------------------------------


async def test_what_a_client_writes_is_in_the_encrypted_image(qemu, project, image):
    started = launcher.launch(sample(project), qemu=qemu.storage_daemon, settings=image)
    async with started as machine:
        assert machine.report.verdict == "match"
        directory = machine.resources.directory.path
        disk, backup = url(directory, "disk"), url(directory, "backup")
        _status, info = await client("qemu-img", "info", "--output=json", disk)
        assert '"virtual-size": 8388608' in info
        status, told = await io(disk, "write -P 0x5a 1M 128k", "read -P 0x5a 1M 128k", "flush")
        assert (status, "wrote 131072/131072" in told) == (0, True), told
        # Another client at the other export sees it while the first may be writing.
        status, told = await io(backup, "read -P 0x5a 1M 128k", "read -P 0 0 1M", read_only=True)
        assert (status, "failed" in told) == (0, False), told
        status, told = await io(disk, "read -P 0x5b 1M 128k")
        assert "Pattern verification failed" in told
    settings = dict(setting.split("=", 1) for setting in image)
    assert b"\x5a" * 512 not in Path(settings["disk"]).read_bytes()
    opened = f"driver=qcow2,encrypt.key-secret=s,file.filename={settings['disk']}"
    status, told = await client(
        "qemu-io",
        *("--object", f"secret,id=s,file={settings['key']}", "--image-opts"),
        *("-c", "read -P 0x5a 1M 128k", opened),
    )
    assert (status, "failed" in told) == (0, False), told


async def test_an_export_that_is_not_writable_refuses_a_write(qemu, project, image):
    started = launcher.launch(sample(project), qemu=qemu.storage_daemon, settings=image)
    async with started as machine:
        backup = url(machine.resources.directory.path, "backup")
        _status, told = await io(backup, "write -P 1 0 4k")
        assert "wrote" not in told
        assert "Permission denied" in told, told
        status, told = await io(backup, "read -P 0 0 4k", read_only=True)
        assert (status, "failed" in told) == (0, False), told


async def test_limits_hold_what_they_promise(qemu, project, image):
    """A lower bound: a busy machine only makes it slower."""
    slow = (*image, "objects.limits0.limits.iops-total=20")
    started = launcher.launch(sample(project), qemu=qemu.storage_daemon, settings=slow)
    async with started as machine:
        told = await machine.qmp("qom-get", {"path": "/objects/limits0", "property": "limits"})
        assert (told["iops-total"], told["bps-total"]) == (20, 104857600)
        disk = url(machine.resources.directory.path, "disk")
        begun = time.monotonic()
        status, _told = await io(disk, *(f"write -P 1 {n * 4}k 4k" for n in range(40)))
        took = time.monotonic() - begun
        assert status == 0
        # 40 requests of 20 a second, of which a tenth of a second's may come at once.
        assert took > 1.5, took


async def test_an_export_in_a_thread_of_its_own(qemu, project, image):
    """It works but on 7.2, which ends when the first client leaves, and says so."""
    threaded = (*image, "objects.io0.qom-type=iothread", "exports.disk-rw.iothread=io0")
    started = launcher.launch(sample(project), qemu=qemu.storage_daemon, settings=threaded)
    async with started as machine:
        disk = url(machine.resources.directory.path, "disk")
        status, told = await io(disk, "write -P 9 0 64k", "read -P 9 0 64k")
        assert (status, "failed" in told) == (0, False), told
        if qemu.release == "7.2":
            assert await machine.process.wait(60) == -signal.SIGABRT
            assert "nbd_blockdev_client_closed: Assertion" in "".join(machine.process.stderr.lines)
        else:
            status, told = await io(disk, "read -P 9 0 64k")
            assert (status, "failed" in told) == (0, False), told


# -- the platform ---------------------------------------------------------------------------------


def _polling(daemon: str, options: str) -> dict[str, object]:
    """What an iothread polls with, by a client that knows nothing of the launcher."""
    with RawQMP([daemon, "--object", f"iothread,id=io0{options}"], daemon=True) as qmp:
        listed = qmp.execute("qom-list", path="/objects/io0")
        names = [p["name"] for p in listed if p["name"].startswith("poll-")]
        return {n: qmp.execute("qom-get", path="/objects/io0", property=n) for n in names}


async def test_the_iothread_polls_as_on_the_platform(qemu, project):
    """11.1 changed the defaults, and no machine type could keep them in the daemon."""
    new = {"poll-max-ns": 32768, "poll-grow": 2, "poll-shrink": 2, "poll-weight": 3}
    old = {"poll-max-ns": 32768, "poll-grow": 0, "poll-shrink": 0}
    assert _polling(qemu.storage_daemon, "") == (new if qemu.release == "11.1" else old)
    for platform, wanted in (("debian-12", old), ("qemu-11.1", new)):
        path = os.path.join(project, "profiles", "storage-daemon.yaml")
        async with launcher.launch(path, platform=platform, qemu=qemu.storage_daemon) as machine:
            plan = machine.plan
            found = {v.property: v.written for v in plan.values if v.type == "iothread"}
            left = {o.property for o in plan.omitted if o.type == "iothread"}
            assert {*found, *left} == {*wanted}
            for name, value in found.items():
                told = await machine.qmp("qom-get", {"path": "/objects/io0", "property": name})
                # 11.1 keeps the factor 2 that 0 always meant for poll-grow.
                assert told == value
                assert value == wanted[name] or (name, value) == ("poll-grow", 2)
            assert left <= {"poll-shrink", "poll-weight"}


# -- the verbs ------------------------------------------------------------------------------------


def runs(pid: int) -> bool:
    """Whether the process is there; what nobody has waited for yet has no command line."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except OSError:
        return False


def served(line: Line, release: Installed, image: tuple[str, ...], project: str) -> list[str]:
    settings = [word for setting in (f"name={line.name}", *image) for word in ("--set", setting)]
    return [sample(project), "--qemu", release.storage_daemon, *settings]


def test_a_detached_daemon_serves_until_it_is_stopped(line, qemu, project, image):
    words = served(line, qemu, image, project)
    line("run", *words, "--detach")
    (machine,) = line.json("ps")["machines"]
    assert (machine["name"], machine["mode"]) == (line.name, "detached")
    directory = machine["directory"]
    status, told = asyncio.run(io(url(directory, "disk"), "write -P 7 0 4k", "read -P 7 0 4k"))
    assert (status, "failed" in told) == (0, False), told
    report = line.json("verify", line.name)
    assert report["verdict"] == "match"
    exports = line.json("qmp", line.name, "query-block-exports")
    assert sorted((e["id"], e["node-name"]) for e in exports) == [
        ("disk-ro", "limited0"),
        ("disk-rw", "limited0"),
    ]
    # What it has no use for is told, and harms nothing.
    assert "has no console" in line("console", line.name, check=2).stderr
    assert "query-status" in line("qmp", line.name, "query-status", check=3).stderr
    limits = '{"path": "/objects/limits0", "property": "limits", "value": {"iops-total": 7}}'
    line("qmp", line.name, "qom-set", limits)
    wrong = [
        v for v in line.json("verify", line.name, check=1)["values"] if v["verdict"] == "mismatch"
    ]
    assert ("limits.iops-total", 1000, 7) in [
        (v["property"], v["planned"], v["observed"]) for v in wrong
    ]
    assert line.json("stop", line.name)["stopped"][0]["by"] == "quit"
    assert not runs(machine["pid"])
    assert not os.path.exists(directory)


def test_a_foreground_daemon_ends_with_its_launcher(line, qemu, project, image):
    process = line.running(*served(line, qemu, image, project))
    (machine,) = line.json("ps")["machines"]
    assert (machine["mode"], machine["launcher"]) == ("foreground", process.pid)
    assert os.path.exists(os.path.join(machine["directory"], "nbd"))
    process.kill()  # not even a chance to clean up
    process.communicate()
    deadline = time.monotonic() + 60
    while runs(machine["pid"]) and time.monotonic() < deadline:
        os.sched_yield()
    assert not runs(machine["pid"])
    assert line.json("ps")["machines"] == []
    assert not os.path.exists(machine["directory"])


# -- deaths ---------------------------------------------------------------------------------------


UNNAMED = ("nvalid password", "[Bb]ase64")


@pytest.mark.parametrize(
    ("settings", "place", "words"),
    [
        (("disk=/nowhere/disk.qcow2",), "blockdevs.disk0", "No such file or directory"),
        (("key=/dev/null",), "blockdevs.disk0", UNNAMED[0]),
        (("objects.key0.format=base64",), "objects.key0", UNNAMED[1]),
        (("key=/nowhere/key",), "objects.key0", "/nowhere/key"),
        (("exports.disk-rw.name=backup",), "exports.disk-ro", "backup"),
        (("nbd-server.addr.data.path=/nowhere/nbd",), "nbd-server", "No such file"),
    ],
    ids=["no-image", "wrong-key", "not-base64", "no-key", "same-name", "no-folder"],
)
async def test_a_daemon_that_does_not_start_tells_what_it_was(
    qemu, project, image, settings, place, words
):
    started = launcher.launch(
        sample(project), qemu=qemu.storage_daemon, settings=(*image, *settings)
    )
    # What came on the command line of a 5.2 is not always named by it.
    named = qemu.release != "5.2" or words not in UNNAMED
    wanted = rf"{place}: .*({words})" if named else words
    with pytest.raises(QEMUError, match=wanted) as caught:
        async with started:
            pass
    if named:
        assert caught.value.place is not None
