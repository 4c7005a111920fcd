"""A real QEMU from its start to its end, on each release of the matrix.

`QEMU_LAUNCHER_FULL=1` runs the long form: 1000 killed launchers and a minute of floods for each.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import select
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import launcher
from integration.conftest import RELEASES, installed, needs
from launcher.errors import CommandError, MonitorError
from launcher.monitor import Monitor
from launcher.process import Deadlines, Process, describe_exit, meaningful_lines, spawn
from tests.support.leaks import held
from tests.support.talk import QMP_FD, conversation, spawn_with_qmp

pytestmark = pytest.mark.integration

FULL = os.environ.get("QEMU_LAUNCHER_FULL") == "1"
ROOT = Path(launcher.__file__).parent.parent
QUIET = ("-display", "none", "-nodefaults", "-no-user-config", "-accel", "tcg")
QUICK = Deadlines(powerdown=0.3, quit=0.3, term=0.3, kill=5.0)


@pytest.fixture(params=RELEASES)
def release(request) -> str:
    return request.param


@pytest.fixture
def qemu(release) -> str:
    return installed(release).binary


@pytest.fixture(autouse=True)
async def nothing_is_left():
    await spawn(["/bin/true"], fds={}, env={}, tie=True).wait(10)  # the tie's pipe stays
    before = held()
    yield
    assert held() == before
    assert asyncio.all_tasks() == {asyncio.current_task()}


def start(
    qemu: str, *words: str, machine: str = "none", fds: dict[int, int] | None = None
) -> tuple[Process, socket.socket]:
    argv = [qemu, "-machine", machine, *QUIET, *words]
    argv += ["-chardev", f"socket,id=qmp,fd={QMP_FD}", "-mon", "chardev=qmp,mode=control"]
    return spawn_with_qmp(argv, fds=fds)


@contextlib.asynccontextmanager
async def running(qemu: str, *words: str, machine: str = "none", fds=None):
    process, sock = start(qemu, *words, machine=machine, fds=fds)
    async with conversation(process, sock) as monitor:
        yield process, monitor


def rom(path: Path, code: bytes) -> str:
    """A BIOS that is `code` at the reset vector."""
    assert len(code) <= 16
    path.write_bytes(bytes(65536 - 16) + code.ljust(16, b"\xf4"))
    return str(path)


# mov dx, 0x505; mov al, 2; again: out dx, al; jmp again: 2 is GUEST_CRASHLOADED, 1 would be a panic
PVPANIC_LOOP = bytes.fromhex("ba 05 05 b0 02 ee eb fd")
# mov dx, 0xcf9; mov al, 6; out dx, al; hlt: a hard reset, and so on for ever
RESET_LOOP = bytes.fromhex("ba f9 0c b0 06 ee f4")
# again: jmp again
SPIN = bytes.fromhex("eb fe")


# The start


def test_a_version_is_what_the_matrix_promised(qemu, release):
    async def main() -> tuple[int, int, int]:
        async with running(qemu) as (_, monitor):
            return monitor.version

    # Spawned without a loop, attached to one later: as the command line does it.
    assert asyncio.run(main())[:2] == tuple(int(part) for part in release.split("."))


@pytest.mark.parametrize(
    ("words", "option", "says"),
    [
        (["-device", "nonsense"], "-device", "'nonsense' is not a valid device model name"),
        (["-object", "iothread,id=0"], "-object", "Parameter 'id' expects an identifier"),
        (["-device", "e1000,id=a: b"], "-device", "Parameter 'id' expects an identifier"),
        (["-nonsense"], "-nonsense", "invalid option"),
        (["-kernel", "/nonexistent"], "", "could not open kernel file '/nonexistent'"),
        # Releases differ in whether they name the option of these two.
        (["-netdev", "user"], None, "Parameter 'id' is missing"),
        (["-object", "secret,id=s,file=/x: y: z"], None, "Unable to read /x: y: z: Failed"),
    ],
)
async def test_a_bad_start_is_explained_by_qemus_own_words(qemu, words, option, says):
    machine = "pc" if "-kernel" in words else "none"
    process, sock = start(qemu, *words, machine=machine)
    with pytest.raises(MonitorError, match="QMP connection lost"):
        await Monitor.connect(sock)
    assert await process.wait(60) == 1
    first, *_ = meaningful_lines(process.stderr.lines, process.argv)
    assert says in first.message
    assert option is None or first.option == option
    if first.option:
        assert process.argv[first.index : first.index + len(words)] == tuple(words)
        assert first.value == (words[1] if len(words) > 1 else "")


async def test_an_abort_is_called_a_crash(qemu, release):
    device = '{"driver":"virtio-rng-pci","id":"a/b"}'
    process, sock = start(qemu, "-device", device, machine="q35")
    with sock:
        await process.wait(60)  # it may write a core
    first, *_ = meaningful_lines(process.stderr.lines, process.argv)
    # 5.2 does not take JSON, and 11.1 checks the id; those between look it up in vain and abort.
    crashes = release in {"7.2", "10.0"}
    expected = "QEMU crashed (SIGABRT)" if crashes else "exit status 1"
    assert describe_exit(process.returncode) == expected
    assert (first.option, first.value) == ("-device", device)


# Talking


async def test_a_conversation(qemu):
    async with running(qemu, "-S", machine="q35") as (process, monitor):
        assert (await monitor.execute("query-status"))["status"] == "prelaunch"
        with pytest.raises(CommandError, match=r"qom-get: .*/nonexistent") as caught:
            await monitor.execute("qom-get", {"path": "/nonexistent", "property": "x"})
        assert caught.value.evidence["class"] == "DeviceNotFound"
        assert len(await monitor.execute("query-qmp-schema")) > 500  # 200 kB in one line
        answers = await monitor.execute_all(
            [("qom-get", {"path": "/machine", "property": "type"})] * 300, timeout=30
        )
        assert set(answers) == {answers[0]}
        assert "q35" in answers[0]

        await monitor.execute("cont")
        await monitor.wait_event("RESUME", timeout=60)
        mark = monitor.mark()
        stopped = asyncio.create_task(monitor.wait_event("STOP", timeout=60, since=mark))
        await monitor.execute("stop")
        assert (await stopped).number > mark

        process.send_signal(signal.SIGKILL)
        with pytest.raises(MonitorError, match="QMP connection lost"):
            await monitor.wait_event("SHUTDOWN", timeout=10)
        assert await process.wait(60) == -signal.SIGKILL


async def test_a_stopped_qemu_costs_a_deadline_and_not_the_session(qemu):
    async with running(qemu) as (process, monitor):
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(MonitorError, match=r"query-status: no answer within 0\.2 s"):
            await monitor.execute("query-status", timeout=0.2)
        process.send_signal(signal.SIGCONT)
        assert await monitor.execute("query-version")
        assert await process.stop(quit=lambda: monitor.execute("quit")) == "quit"


# The end


async def test_quit_says_why_it_ended(qemu):
    async with running(qemu, machine="q35") as (process, monitor):
        assert await process.stop(quit=lambda: monitor.execute("quit")) == "quit"
        assert process.returncode == 0
        event = await monitor.wait_event("SHUTDOWN", timeout=5)
        assert event.data["reason"] == "host-qmp-quit"


async def test_sigterm_when_there_is_no_monitor_to_ask(qemu):
    async with running(qemu, machine="q35") as (process, monitor):
        assert await process.stop() == "SIGTERM"
        assert process.returncode == 0  # no sign of an error: the event is the truth
        event = await monitor.wait_event("SHUTDOWN", timeout=5)
        assert event.data["reason"] == "host-signal"


async def test_powerdown_of_a_guest_without_an_os_goes_on_to_quit(qemu, tmp_path):
    bios = rom(tmp_path / "rom", SPIN)
    async with running(qemu, "-bios", bios, machine="pc") as (process, monitor):
        rung = await process.stop(
            powerdown=lambda: monitor.execute("system_powerdown"),
            quit=lambda: monitor.execute("quit"),
            deadlines=Deadlines(powerdown=0.3, quit=60.0),
        )
        assert rung == "quit"
        assert process.ladder == ["powerdown: still running"]


async def test_a_sigstopped_qemu_is_killed(qemu):
    async with running(qemu) as (process, monitor):
        process.send_signal(signal.SIGSTOP)
        begin = time.monotonic()
        rung = await process.stop(quit=lambda: monitor.execute("quit"), deadlines=QUICK)
        assert rung == "SIGKILL"
        # The usual deadlines would have taken ten seconds.
        assert time.monotonic() - begin < QUICK.quit + QUICK.term + 7
        assert process.returncode == -signal.SIGKILL


async def test_a_qemu_blocked_on_its_stderr_is_ended(qemu, tmp_path):
    """QEMU ignores SIGTERM while it cannot write its messages; here nobody reads them."""
    reading, writing = os.pipe()
    words = ("-d", "exec,nochain", "-bios", rom(tmp_path / "rom", SPIN))
    try:
        async with running(qemu, *words, machine="pc", fds={1: writing, 2: writing}) as (
            process,
            _,
        ):
            await full(writing)
            begin = time.monotonic()
            assert await process.stop(deadlines=QUICK) in {"SIGTERM", "SIGKILL"}
            assert time.monotonic() - begin < QUICK.term + 4  # the usual one is five
    finally:
        os.close(reading)
        os.close(writing)


async def full(writing: int) -> None:
    """Until the pipe has been without room for a moment."""
    async with asyncio.timeout(60):
        while select.select([], [writing], [], 0)[1]:  # noqa: ASYNC110 (no event says "full")
            await asyncio.sleep(0.02)


async def test_a_qemu_that_floods_its_stderr_still_hears_sigterm(qemu, tmp_path):
    words = ("-d", "exec,nochain", "-bios", rom(tmp_path / "rom", SPIN))
    async with running(qemu, *words, machine="pc") as (process, monitor):
        async with asyncio.timeout(60):
            while not process.stderr.dropped_lines:
                await monitor.execute("query-status")
        assert await process.stop(deadlines=Deadlines(term=60.0)) == "SIGTERM"
        assert len("\n".join(process.stderr.lines)) <= 64 * 1024


async def test_twenty_starts_cost_nothing_that_stays(qemu):
    seen = set()
    for _ in range(20):
        async with running(qemu) as (process, monitor):
            await monitor.execute("query-status")
            # The monitor's socket, the pidfd and stderr: the tie costs none.
            seen.add((len(os.listdir("/proc/self/fd")), threading.active_count()))
            assert await process.stop(quit=lambda m=monitor: m.execute("quit")) == "quit"
    assert len(seen) == 1
    assert seen.pop()[0] - len(os.listdir("/proc/self/fd")) == 3


# The tie


async def kill_launchers(qemu: str, rounds: int, *words: str) -> dict[str, object]:
    argv = [sys.executable, str(Path(__file__).parent / "orphans.py"), qemu, str(rounds), *words]
    process = spawn(argv, fds={}, env={"PYTHONPATH": str(ROOT)}, tie=True)
    assert await process.wait(60 + rounds * 5) == 0, process.stderr.lines
    return json.loads(process.stderr.lines[-1])


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("way", [(), ("--shell",)], ids=["key", "shell"])
async def test_no_qemu_outlives_a_launcher_that_is_killed(qemu, way):
    result = await kill_launchers(qemu, 1000 if FULL else 50, *way)
    print(result)
    assert result["orphans"] == 0
    assert all(result["killed"].values())  # it was caught in each stage


async def test_the_count_of_orphans_can_see_one(qemu):
    result = await kill_launchers(qemu, 6, "--untied")
    assert result["orphans"] > 0  # of those that were killed before they spawned none is left


def options_of(qemu: str) -> str:
    """What `-help` says."""
    done = subprocess.run([qemu, "-help"], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout


async def test_a_qemu_that_has_dropped_its_uid_ends_too(qemu):
    """PR_SET_PDEATHSIG would be gone by then."""
    needs(os.getuid() == 0, "only root can let QEMU change its uid")
    has_runas = "\n-runas " in options_of(qemu)
    words = ("-runas", "nobody") if has_runas else ("-run-with", "user=nobody")
    result = await kill_launchers(qemu, 10, *words)
    assert result["orphans"] == 0
    assert result["killed"]["after the greeting"] > 0


async def test_a_machine_that_is_not_tied_stays_with_its_log(qemu, tmp_path):
    code = f"""
import os, socket, sys
from launcher.process import spawn
sock = socket.socket(socket.AF_UNIX)
sock.bind({str(tmp_path / "qmp")!r})
sock.listen()
log = os.open({str(tmp_path / "log")!r}, os.O_WRONLY | os.O_CREAT)
argv = [{qemu!r}, "-machine", "none", *{QUIET!r}, "-chardev",
        "socket,id=qmp,fd=3,server=on,wait=off", "-mon", "chardev=qmp,mode=control"]
print(spawn(argv, fds={{1: log, 2: log, 3: sock.fileno()}}, env={{}}, tie=False).pid)
"""
    argv = [sys.executable, "-c", code]
    process = spawn(argv, fds={}, env={"PYTHONPATH": str(ROOT)}, tie=True)
    assert await process.wait(20) == 0, process.stderr.lines
    pid = int(process.stderr.lines[-1])
    pidfd = os.pidfd_open(pid)
    try:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(tmp_path / "qmp"))
        monitor = await Monitor.connect(sock)
        assert await monitor.execute("query-version")
        await monitor.execute("quit")
        await monitor.close()
        assert select.select([pidfd], [], [], 60)[0]
    finally:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)


# Hostile guests


def resident() -> float:
    """Our own memory, in MB."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024


async def latencies(monitor: Monitor, seconds: float) -> list[float]:
    """How long each `stop` takes, in ms, while the guest floods: for so long, or 20 times."""
    found: list[float] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(found) < 20:
        await asyncio.sleep(0.05)  # let it flood
        begin = time.monotonic()
        await monitor.execute("stop")
        found.append((time.monotonic() - begin) * 1000)
        await monitor.execute("cont")
    return found


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("code", "device", "event"),
    [(PVPANIC_LOOP, ["-device", "pvpanic"], "GUEST_CRASHLOADED"), (RESET_LOOP, [], "RESET")],
    ids=["pvpanic", "reset"],
)
async def test_a_guest_that_floods_events_cannot_shut_us_out(qemu, tmp_path, code, device, event):
    bios = rom(tmp_path / "rom", code)
    async with running(qemu, "-bios", bios, *device, machine="pc") as (process, monitor):
        await monitor.wait_event(event, timeout=20)
        await latencies(monitor, 1)  # warm
        before, dropped = resident(), monitor.dropped.get(event, 0)
        begin = time.monotonic()
        took = await latencies(monitor, 60 if FULL else 4)
        grown = resident() - before
        rate = (monitor.dropped.get(event, 0) - dropped) / (time.monotonic() - begin)
        p99 = statistics.quantiles(took, n=100)[98]
        print(
            f"{event}: {rate:.0f} dropped/s; stop p50 {statistics.median(took):.1f} p99 {p99:.1f} "
            f"max {max(took):.1f} ms of {len(took)}; {grown:+.1f} MB"
        )
        assert rate > 200  # several times what the budget lets in
        assert list(monitor.dropped) == [event]  # STOP and RESUME all came through
        stops = sum(e.name == "STOP" for e in monitor.events)
        assert stops > 10
        # The goal is a p99 of 100 ms; where other tests share the cores, the median shows it.
        # Without a budget for events there is no answer in 5 s at all.
        assert statistics.median(took) <= 100
        assert p99 <= (100 if FULL else 5000)
        assert grown <= 5
        assert await process.stop(quit=lambda: monitor.execute("quit")) == "quit"
