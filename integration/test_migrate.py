"""Migrations between real releases: the guest goes on at one end, and at exactly one.

`QEMU_LAUNCHER_FULL=1` runs all pairs, 200 migrations in a row, and more random moments.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager

import pytest

import launcher
from integration.conftest import RELEASES, installed
from integration.lost_pages import check_kernel, once_more_after_a_lost_page
from launcher.begin import begin
from launcher.errors import InputError, LauncherError, VerdictError
from launcher.host.runtime import list_machines
from launcher.incoming import incoming
from launcher.locks.model import HEAD
from launcher.migrate import Limits, MigrationError, follow
from launcher.prepare import Request, load, prepare
from launcher.rehearse import Rehearsal, Rehearsing
from launcher.start import start

pytestmark = pytest.mark.integration

FULL = os.environ.get("QEMU_LAUNCHER_FULL") == "1"
PAIRS = [(a, b) for a, b in itertools.permutations(RELEASES, 2)]
NEIGHBOURS = [("5.2", "7.2"), ("7.2", "10.0"), ("10.0", "7.2"), ("10.0", "11.1"), ("11.1", "10.0")]
SOME = PAIRS if FULL else [*NEIGHBOURS, ("5.2", "11.1"), ("11.1", "5.2")]
PATIENT = Limits(stall=20.0, whole=90.0)
#: For tests that repeat: the usual two minutes do not suffice for all the rounds of a full run.
LONG = pytest.mark.timeout(1800 if FULL else 600)


def profile_of(guest: str, **more) -> dict:
    """A small guest that counts ten times a second."""
    return {
        "name": "moved",
        "platform": "debian-11",
        "machine": {
            "type": "microvm",
            "acpi": "off",
            **dict.fromkeys(("pit", "pic", "rtc", "isa-serial"), "on"),
        },
        "accel": "tcg",
        "cpu": "qemu64",
        "memory": "128MiB",
        "boot": {
            "kernel": f"{guest}/vmlinuz",
            "initrd": f"{guest}/initrd.img",
            "append": "console=ttyS0 quiet loglevel=3 tick=0.1",
        },
        "serial": "console",
        **more,
    }


Q35 = {"type": "pc-q35-5.2"}


async def prepared(profile: dict, release: str, *settings: str):
    request = Request(profile, qemu=installed(release).binary, settings=settings)
    return await prepare(load(request))


numbers = itertools.count(1)


def folder_name() -> str:
    return f"test-migrate-{os.getpid()}-{next(numbers)}"


@asynccontextmanager
async def running(profile: dict, release: str, *settings: str):
    """A machine whose guest counts."""
    machine = await start(begin(await prepared(profile, release, *settings), folder=folder_name()))
    try:
        await machine.console.wait_for(r"tick 1\s", 90)
        yield machine
    finally:
        await machine.close()


async def waiting(source, profile: dict, release: str, *settings: str):
    made = await prepared(profile, release, *settings)
    return await incoming(made, uuid=source.plan.uuid, folder=folder_name())


async def goes_on(machine, before: str = "") -> None:
    """The guest runs here, and has done so without a gap since `before`."""
    last = re.findall(r"tick (\d+)\r?\n", before + machine.console.text)[-1]
    try:
        await machine.console.wait_for(rf"tick {int(last) + 3}\s", 30)
    except LauncherError:
        check_kernel(machine.console.text)
        raise
    found = follow(before, machine.console.text)
    assert found.faults == ()


def leftovers() -> list[str]:
    """Runtime directories that a test made, and QEMUs that are still our children."""
    names = [m.name for m in list_machines()]
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return names + file.read().split()


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
async def nothing_is_left(monkeypatch):
    # A place of our own: what others run on this host is not left over. Sockets need a short path.
    with tempfile.TemporaryDirectory(prefix="ql-") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        before = leftovers()  # a broker that other tests share, say
        yield
        assert leftovers() == before
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def assert_at_source(source, destination) -> None:
    """The guest runs at the source as if nothing had been tried."""
    assert destination.process.poll() is not None
    assert (await source.qmp("query-status"))["running"] is True
    await goes_on(source)


# -- what works -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("old", "new"), SOME, ids=lambda value: value)
@once_more_after_a_lost_page
async def test_microvm_goes_on_with_a_platform(guest, old, new):
    """FACTS F1 to F3: without a versioned machine type only the platform keeps both ends alike."""
    capabilities = {"migration": {"capabilities": {"multifd": "on"}}}
    profile = profile_of(guest, **capabilities)
    async with running(profile, old) as source:
        destination = await waiting(source, profile, new)
        try:
            migration = await source.migrate(destination, limits=PATIENT)
            assert migration.result == "completed"
            assert [f for f in migration.findings if f.severity == "breaks"] == []
            assert ("tcg" in [f.type for f in migration.findings]) is (old in ("5.2", "7.2"))
            assert migration.before.verdict == migration.after.verdict == "match"
            assert source.process.poll() == 0
            await goes_on(destination, source.console.text)
            seen = follow(source.console.text, destination.console.text)
            assert (seen.verdict, seen.faults) == ("continues", ())
        finally:
            await destination.close()


def image_tool(*words: str) -> str:
    """What qemu-img says on stderr."""
    command = [installed("5.2").image_tool, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60).stderr


@pytest.fixture
def raw_image(tmp_path) -> str:
    path = tmp_path / "disk.raw"
    with open(path, "wb") as file:
        file.truncate(16 << 20)
    return str(path)


@pytest.mark.parametrize(("old", "new"), SOME if FULL else SOME[:2] + SOME[-1:], ids=str)
@once_more_after_a_lost_page
async def test_q35_takes_its_disk_with_it(guest, tmp_path, old, new):
    """Both ends name one image; its lock goes from one QEMU to the other, and back on failure."""
    image = str(tmp_path / "disk.qcow2")
    assert image_tool("create", "-q", "-f", "qcow2", image, "16M") == ""
    disk = {"disk": {"file": image, "format": "qcow2"}, "net": "user"}
    profile = profile_of(guest, machine=Q35, **disk)
    async with running(profile, old) as source:
        destination = await waiting(source, profile, new)
        try:
            await source.migrate(destination, limits=PATIENT)
            await goes_on(destination, source.console.text)
            assert follow(source.console.text, destination.console.text).verdict == "continues"
            # The lock is the destination's now: nobody else can write.
            assert "lock" in image_tool("resize", "-q", "-f", "qcow2", image, "32M")
        finally:
            await destination.close()


@pytest.mark.parametrize("via", ["tcp", "file", "fd"])
@pytest.mark.parametrize(("old", "new"), [("7.2", "10.0"), ("11.1", "10.0")], ids=str)
@once_more_after_a_lost_page
async def test_every_transport(guest, old, new, via):
    profile = profile_of(guest)
    async with running(profile, old) as source:
        destination = await waiting(source, profile, new)
        try:
            migration = await source.migrate(destination, via=via, limits=PATIENT)
            assert migration.via.startswith(via)
            assert not os.path.exists(migration.via.partition(":")[2])
            await goes_on(destination, source.console.text)
            assert follow(source.console.text, destination.console.text).verdict == "continues"
        finally:
            await destination.close()


async def test_a_paused_guest_stays_paused(guest):
    profile = profile_of(guest)
    async with running(profile, "7.2") as source:
        await source.qmp("stop")
        destination = await waiting(source, profile, "10.0")
        try:
            migration = await source.migrate(destination, limits=PATIENT)
            # What stands still loses no page that its tcg would not see.
            assert "tcg" not in [f.type for f in migration.findings]
            assert (await destination.qmp("query-status"))["running"] is False
            await destination.resume()
            await goes_on(destination, source.console.text)
            assert follow(source.console.text, destination.console.text).verdict == "continues"
        finally:
            await destination.close()


@LONG
async def test_there_and_back_again_and_again_leaves_nothing(guest, tmp_path):
    """The same guest, moved to and fro: no process, descriptor, socket or file is left over."""
    path = tmp_path / "moved.yaml"
    path.write_text(json.dumps(profile_of(guest)))
    steps: list[int] = []
    rehearsal = Rehearsal(
        Rehearsing(
            str(path),
            # Not from a QEMU before 9.0: under tcg it sometimes loses a page (docs/migration.md).
            source=installed("10.0").binary,
            destination=installed("11.1").binary,
            # Without it a guest that is slow to come up is moved while it boots: no proof.
            up=r"tick 1\s",
            up_seconds=240,
            legs=200 if FULL else 20,
            limits=PATIENT,
        ),
        on_step=lambda text: steps.append(open_files()) if "following" in text else None,
    )
    await rehearsal.run()
    counters = [leg.counter for leg in rehearsal.legs]
    assert [(n, c) for n, c in enumerate(counters) if c.verdict != "continues"] == []
    assert len(rehearsal.legs) == len(steps) == (200 if FULL else 20)
    assert len(set(steps[1:])) == 1, steps


# -- what fails, cleanly --------------------------------------------------------------------------


async def fails(source, destination, **more) -> MigrationError:
    with pytest.raises(MigrationError) as caught:
        await source.migrate(destination, **more)
    assert caught.value.migration is not None
    return caught.value


async def test_what_preflight_refuses_sends_no_byte(guest):
    profile = profile_of(guest, platform="native")
    async with running(profile, "10.0") as source:
        destination = await waiting(source, profile, "7.2")
        error = await fails(source, destination)
        assert error.migration.result == "refused"
        assert error.exit_status == 1
        assert "send-switchover-start" in error.message
        assert (await source.qmp("query-migrate")).get("status", "none") == "none"
        await assert_at_source(source, destination)


async def test_a_destination_that_dies_of_the_stream_leaves_the_source_running(guest):
    """FACTS F1: the source may even say `completed`."""
    profile = profile_of(guest, platform="native")
    async with running(profile, "10.0") as source:
        destination = await waiting(source, profile, "7.2")
        error = await fails(source, destination, force=True)
        assert error.migration.result == "failed"
        assert error.migration.guest == "source"
        assert "MIG_CMD 0xb unknown" in error.message
        assert "send-switchover-start" in error.message
        await assert_at_source(source, destination)


async def test_the_source_goes_on_from_completed(guest):
    """All was sent, the source has stopped for good, and the destination cannot load it."""
    profile = profile_of(guest, platform="native")
    async with running(profile, "10.0") as source:
        destination = await waiting(source, profile, "7.2")
        error = await fails(source, destination, force=True, via="file")
        assert error.migration.progress.status == "completed"
        await assert_at_source(source, destination)


async def test_ends_that_hang_are_given_up(guest):
    """FACTS F2: multifd between 7.2 and 10.0 on a machine type without versions."""
    profile = profile_of(guest, platform="native", migration={"capabilities": {"multifd": "on"}})
    async with running(profile, "7.2") as source:
        destination = await waiting(source, profile, "10.0")
        error = await fails(source, destination, force=True, limits=Limits(stall=4.0))
        assert "hangs" in error.message or "stopped answering" in error.message
        await assert_at_source(source, destination)


async def test_a_destination_whose_monitor_stops_is_ended(guest):
    """FACTS 5b: four channels to a destination that waits for two."""
    four = {"capabilities": {"multifd": "on"}, "parameters": {"multifd-channels": 4}}
    two = {"capabilities": {"multifd": "on"}, "parameters": {"multifd-channels": 2}}
    async with running(profile_of(guest, migration=four), "10.0") as source:
        destination = await waiting(source, profile_of(guest, migration=two), "10.0")
        error = await fails(source, destination, force=True, limits=Limits(stall=4.0))
        assert "stopped answering" in error.message
        await assert_at_source(source, destination)


async def test_a_target_that_takes_no_byte(guest):
    """QEMU 7.2 is given the file as a descriptor."""
    profile = profile_of(guest)
    async with running(profile, "7.2") as source:
        destination = await waiting(source, profile, "11.1")
        error = await fails(source, destination, via="file:/dev/full", limits=PATIENT)
        assert "No space left on device" in error.message
        await assert_at_source(source, destination)


async def test_the_source_takes_its_disk_back_after_a_failure(guest, raw_image):
    """The destination is dead, and the guest can write again."""
    disk = {"disk": {"file": raw_image, "format": "raw"}}
    profile = profile_of(guest, machine=Q35, **disk)
    async with running(profile, "10.0") as source:
        destination = await waiting(source, profile, "7.2", "migration.properties={}")
        error = await fails(source, destination, force=True, via="file:/dev/full", limits=PATIENT)
        assert error.migration.guest == "source"
        await assert_at_source(source, destination)
        await source.console.write("echo written >/dev/vda && sync && echo it is there\n")
        await source.console.wait_for("it is there", 30)


@pytest.mark.parametrize(
    ("old", "new", "cpu"),
    [
        ("10.0", "5.2", "max"),
        *([("7.2", "5.2", "max"), ("11.1", "5.2", "max"), ("7.2", "5.2", "Haswell")] * FULL),
    ],
)
async def test_programs_die_of_instructions_that_went_away(guest, old, new, cpu):
    """It loads, and the guest's own programs meet an invalid opcode; the cure keeps them alive."""
    for features, result in ({"avx": "off"}, "continues"), ({}, "stopped"):
        profile = profile_of(guest, cpu={"model": cpu, **features})
        async with running(profile, old) as source:
            destination = await waiting(source, profile, new)
            try:
                migration = await source.migrate(destination, limits=PATIENT, force=True)
                broken = {f.property for f in migration.findings if f.severity == "breaks"}
                assert broken == (set() if features else {"avx"})
                # What has stopped says no more; what goes on may take its time.
                seconds = 60 if features else 5
                with contextlib.suppress(LauncherError):
                    await destination.console.wait_for(r"tick \d+\s+tick \d+\s", seconds)
                seen = follow(source.console.text, destination.console.text)
                assert seen.verdict == result
            finally:
                await destination.close()


# -- into a file, and out of it -------------------------------------------------------------------


@pytest.mark.parametrize(("old", "new"), SOME if FULL else [("7.2", "11.1"), ("11.1", "7.2")])
async def test_a_saved_guest_goes_on_in_another_qemu(guest, tmp_path, old, new):
    path, state = tmp_path / "moved.yaml", str(tmp_path / "guest.state")
    path.write_text(json.dumps(profile_of(guest)))
    async with running(str(path), old) as source:
        await launcher.save(source, state)
        assert source.process.poll() == 0
    assert sorted(os.listdir(tmp_path)) == ["guest.state", "guest.state.lock.yaml", "moved.yaml"]
    restored = await launcher.restore(state, qemu=installed(new).binary)
    try:
        assert restored.plan.uuid == source.plan.uuid
        await goes_on(restored, source.console.text)
    finally:
        await restored.close()


async def test_a_guest_that_could_not_be_saved_goes_on(guest, tmp_path):
    path = tmp_path / "moved.yaml"
    path.write_text(json.dumps(profile_of(guest)))
    async with running(str(path), "7.2") as source:
        with pytest.raises(MigrationError, match="No such file or directory"):
            await launcher.save(source, str(tmp_path / "no" / "folder"))
        path.write_text(json.dumps(profile_of(guest, memory="129MiB")))
        with pytest.raises(VerdictError, match="not what its profile says now"):
            await launcher.save(source, str(tmp_path / "guest.state"))
        await goes_on(source)
        assert os.listdir(tmp_path) == ["moved.yaml"]


async def test_a_save_that_fails_leaves_an_earlier_one(guest, tmp_path):
    path, state = tmp_path / "moved.yaml", tmp_path / "guest.state"
    path.write_text(json.dumps(profile_of(guest)))
    lock = tmp_path / "guest.state.lock.yaml"
    state.write_text("the state of before")
    lock.write_text("notes of somebody")
    async with running(str(path), "7.2") as source:
        with pytest.raises(InputError, match="is not a lock file"):
            await launcher.save(source, str(state))
        assert lock.read_text() == "notes of somebody"
        lock.write_text(HEAD)
        (tmp_path / "guest.state.part").mkdir()  # in the way of the new one
        with pytest.raises(MigrationError, match="directory"):
            await launcher.save(source, str(state))
        await goes_on(source)
    assert (state.read_text(), lock.read_text()) == ("the state of before", HEAD)


async def test_a_state_that_is_cut_off(guest, tmp_path):
    path, state = tmp_path / "moved.yaml", str(tmp_path / "guest.state")
    path.write_text(json.dumps(profile_of(guest)))
    async with running(str(path), "10.0") as source:
        await launcher.save(source, state)
    os.truncate(state, os.path.getsize(state) // 2)
    with pytest.raises(MigrationError, match="could not be loaded"):
        await launcher.restore(state, qemu=installed("11.1").binary)


# -- at any moment --------------------------------------------------------------------------------

#: Slow enough for moments in between.
SLOW = {"parameters": {"max-bandwidth": 32 << 20}}
ROUNDS = 40 if FULL else 8


def moments(seed: int) -> list[float]:
    """Seconds after which something happens; a migration takes two or three."""
    picked = random.Random(seed)
    return [picked.uniform(0.0, 3.5) for _ in range(ROUNDS)]


@LONG
async def test_cancelled_at_any_moment(guest):
    profile = profile_of(guest, migration=SLOW)
    releases = itertools.cycle(("10.0", "11.1"))
    async with contextlib.AsyncExitStack() as stack:
        source = await stack.enter_async_context(running(profile, next(releases)))
        for delay in moments(4):
            destination = await waiting(source, profile, next(releases))
            stack.push_async_callback(destination.close)
            moving = asyncio.ensure_future(source.migrate(destination, limits=PATIENT))
            await asyncio.wait({moving}, timeout=delay)
            moving.cancel()
            await asyncio.gather(moving, return_exceptions=True)
            ends = [end for end in (source, destination) if end.process.poll() is None]
            assert len(ends) == 1, (delay, moving)
            assert (await ends[0].qmp("query-status"))["running"] is True
            await goes_on(ends[0], "" if ends[0] is source else source.console.text)
            source = ends[0]


async def test_cancelled_by_somebody_else(guest):
    # Slower still: it must be under way when the cancelling comes.
    profile = profile_of(guest, migration={"parameters": {"max-bandwidth": 4 << 20}})
    async with running(profile, "7.2") as source:
        destination = await waiting(source, profile, "7.2")
        moving = asyncio.ensure_future(source.migrate(destination, limits=PATIENT))
        await source.monitor.wait_event(
            "MIGRATION", lambda e: e.data["status"] == "active", timeout=20
        )
        await source.qmp("migrate_cancel")
        with pytest.raises(MigrationError) as caught:
            await moving
        assert caught.value.migration.result == "cancelled"
        await assert_at_source(source, destination)


@LONG
async def test_a_destination_killed_at_any_moment(guest):
    profile = profile_of(guest, migration=SLOW)
    seen = []
    async with contextlib.AsyncExitStack() as stack:
        source = None
        for delay in moments(5):
            if source is None:
                source = await stack.enter_async_context(running(profile, "11.1"))
            destination = await waiting(source, profile, "10.0")
            stack.push_async_callback(destination.close)
            seen.append(await kill_destination(source, destination, delay))
            if seen[-1] != "source":
                source = None  # the guest is gone with the destination, as with any QEMU
    print(seen)
    assert len(seen) == ROUNDS
    assert "source" in seen


async def kill_destination(source, destination, delay: float) -> str:
    """Where the guest was when the destination was killed; it runs at the source or nowhere."""
    moving = asyncio.ensure_future(source.migrate(destination, limits=PATIENT))
    await asyncio.wait({moving}, timeout=delay)
    destination.process.send_signal(signal.SIGKILL)
    [error] = await asyncio.gather(moving, return_exceptions=True)
    if not isinstance(error, BaseException):
        # It ran there already, and at most the source's end was awaited.
        assert (error.result, source.process.poll()) == ("completed", 0)
        return "destination"
    assert isinstance(error, MigrationError)
    if error.migration.guest == "source":
        await assert_at_source(source, destination)
        return "source"
    # It had been told to run: whatever it did, the source must not do again.
    assert (await source.qmp("query-status"))["running"] is False
    assert "left paused" in error.message
    return "unknown"


@pytest.mark.parametrize("delay", moments(6)[: 20 if FULL else 3], ids=lambda d: f"{d:.2f}")
async def test_a_source_killed_at_any_moment(guest, delay):
    profile = profile_of(guest, migration=SLOW)
    async with running(profile, "10.0") as source:
        destination = await waiting(source, profile, "7.2")
        try:
            moving = asyncio.ensure_future(source.migrate(destination, limits=PATIENT))
            await asyncio.wait({moving}, timeout=delay)
            source.process.send_signal(signal.SIGKILL)
            [error] = await asyncio.gather(moving, return_exceptions=True)
            if isinstance(error, MigrationError):
                assert re.search("the source (has )?ended", error.message)
                assert error.migration is not None
                assert error.migration.guest == ""
                assert destination.process.poll() is not None
            else:
                await goes_on(destination, source.console.text)
        finally:
            await destination.close()


# -- the verb -------------------------------------------------------------------------------------


def run_verb(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "launcher", "migrate", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=180)


def test_the_verb_there_and_back(guest, tmp_path):
    path = tmp_path / "moved.yaml"
    path.write_text(json.dumps(profile_of(guest)))
    ends = ["--from", installed("10.0").binary, "--to", installed("11.1").binary]
    done = run_verb(str(path), *ends, "--there-and-back", "--format", "json")
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert told["result"] == "completed"
    assert told["verdict"] == "match"
    assert told["source"]["qemu"]["version"].startswith("10.0")
    assert told["destination"]["qemu"]["version"].startswith("11.1")
    assert told["counter"]["verdict"] == told["back"]["counter"]["verdict"] == "continues"
    assert told["timings"]["total"] > 0
    assert all(finding["severity"] != "breaks" for finding in told["preflight"])


def test_the_verb_refuses_with_a_cure(guest, tmp_path):
    path = tmp_path / "moved.yaml"
    path.write_text(json.dumps(profile_of(guest, platform="native")))
    ends = ["--from", installed("10.0").binary, "--to", installed("7.2").binary]
    done = run_verb(str(path), *ends, "--format", "json")
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert told["result"] == "refused"
    assert told["error"]["code"] == "preflight"
    assert "send-switchover-start" in told["error"]["hint"]
    cured = run_verb(str(path), *ends, "--platform", "debian-12")
    assert cured.returncode == 0, cured.stderr
    assert "without a gap or a repeat" in cured.stdout


@pytest.mark.parametrize("release", ["7.2", "11.1"])
def test_a_full_disk_at_the_target(guest, tmp_path, release):
    """A file system of 8 MiB, in a mount namespace of its own."""
    path, small = tmp_path / "moved.yaml", tmp_path / "small"
    small.mkdir()
    path.write_text(json.dumps(profile_of(guest)))
    ends = ["--from", installed(release).binary, "--to", installed("10.0").binary]
    script = 'mount -t tmpfs -o size=8m small "$0" && "$@"; status=$?; ls -A "$0" >&2; exit $status'
    verb = [sys.executable, "-m", "launcher", "migrate", str(path), *ends]
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, str(small)]
    done = subprocess.run(
        [*inside, *verb, "--via", f"file:{small}/guest", "--format", "json"],
        capture_output=True,
        text=True,
        timeout=180,
    )
    told = json.loads(done.stdout)
    assert (done.returncode, told["result"], told["guest"]) == (3, "failed", "source")
    assert "No space left on device" in told["error"]["message"]
    assert done.stderr == "", "the part of a file that was written is of no use"
