"""The Python face without asyncio, on real QEMU."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

import launcher.console
import launcher.faults
import launcher.guest
import launcher.machine
import launcher.start
import launcher.sync.faults
import launcher.sync.guest
from integration.conftest import installed
from launcher import sync
from launcher.errors import CommandError, LauncherError, LaunchError
from launcher.sync.thread import LoopThread

pytestmark = pytest.mark.integration

EMPTY = {"name": "t", "platform": "debian-12", "machine": "q35", "accel": "tcg", "memory": "64MiB"}


def demo(project: str) -> str:
    return os.path.join(project, "profiles", "microvm-demo.yaml")


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_dead(pid: int, seconds: float = 60.0) -> bool:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    import select

    ended = select.poll()
    ended.register(pidfd, select.POLLIN)
    try:
        return bool(ended.poll(seconds * 1000))
    finally:
        os.close(pidfd)


def test_a_machine_without_asyncio(qemu, guest, project):
    with sync.launch(demo(project), qemu=qemu.binary) as machine:
        assert machine.report.verdict == "match"
        assert machine.qmp("query-status")["running"] is True
        assert machine.console.wait_for("guest is up", 60) == "guest is up"
        machine.console.wait_for("guest# ", 20)
        machine.console.write("echo $((6*7))-ok\n")
        assert machine.console.wait_for("42-ok", 20) == "42-ok"
        assert machine.verify().verdict == "match"
        pid = machine.process.pid
    assert not alive(pid)


@pytest.fixture
def counting(guest) -> dict:
    """A guest with a power button that counts ten times a second."""
    boot = {"kernel": f"{guest}/vmlinuz", "initrd": f"{guest}/initrd.img"}
    boot["append"] = "console=ttyS0 quiet loglevel=3 tick=0.1"
    return {**EMPTY, "memory": "128MiB", "cpu": "qemu64", "serial": "console", "boot": boot}


def test_a_guest_is_paused_and_powered_down(qemu, counting):
    with sync.launch(counting, qemu=qemu.binary) as machine:
        machine.console.wait_for(r"tick 3\s", 90)
        machine.pause()
        assert machine.qmp("query-status")["status"] == "paused"
        time.sleep(0.5)  # what was said before comes
        machine.console.read()
        time.sleep(0.5)  # five ticks long, in which none may come
        assert "tick" not in machine.console.read()
        machine.resume()
        machine.console.expect(r"tick \d+\s", 20)
        assert machine.powerdown() == 0


# Without us as well, the firmware of 5.2 resets for ever after system_reset of a -kernel guest.
@pytest.mark.parametrize("release", ["7.2", "10.0", "11.1"])
def test_a_guest_is_reset(release, counting):
    with sync.launch(counting, qemu=installed(release).binary) as machine:
        machine.console.expect(r"tick 3\s", 90)
        machine.reset()
        machine.console.expect(r"tick 1\s", 90)


def test_a_guest_that_does_not_heed_the_power_button(newest_qemu):
    with sync.launch(EMPTY, qemu=newest_qemu.binary) as machine:
        with pytest.raises(LauncherError, match=r"did not power down within 0\.3 s") as caught:
            machine.powerdown(0.3)
        assert any("runstate: running" in line for line in caught.value.evidence["guest"])
        assert machine.process.poll() is None


def test_errors_are_the_same(newest_qemu):
    with sync.launch(EMPTY, qemu=newest_qemu.binary) as machine:
        with pytest.raises(CommandError, match="nonsense"):
            machine.qmp("nonsense")
        with pytest.raises(LookupError, match="serial: console"):
            _ = machine.console
        with pytest.raises(TimeoutError):
            machine.wait(0.05)
        assert machine.stop() == "quit"
        assert machine.wait(60) == 0
    wrong = {**EMPTY, "blockdevs": {"d": {"driver": "file", "filename": "/nowhere"}}}
    with pytest.raises(LaunchError, match="No such file"):
        sync.launch(wrong, qemu=newest_qemu.binary)


def test_many_threads_share_one_machine_and_start_their_own(newest_qemu):
    """A thread that started a machine may end: the machine stays."""
    machines: list[sync.Machine] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            machine = sync.launch(EMPTY, qemu=newest_qemu.binary)
            machines.append(machine)
            for _ in range(20):
                assert machines[0].qmp("query-status")["running"] is True
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    try:
        assert errors == []
        assert all(m.qmp("query-status")["running"] for m in machines)
        assert len({m.process.pid for m in machines}) == 4
    finally:
        for machine in machines:
            machine.close()
    assert not any(alive(m.process.pid) for m in machines)


async def test_where_a_loop_already_runs(newest_qemu):
    """As in a notebook: the caller's loop is not ours."""
    with sync.launch(EMPTY, qemu=newest_qemu.binary) as machine:
        assert machine.qmp("query-status")["running"] is True
        assert asyncio.all_tasks() == {asyncio.current_task()}


def test_from_its_own_loop_it_refuses_instead_of_waiting_for_ever(newest_qemu):
    thread = LoopThread("own")

    async def nothing() -> None:
        return None

    async def calls_itself() -> None:
        thread.call(nothing())

    try:
        with pytest.raises(RuntimeError, match="own loop"):
            thread.call(calls_itself())
    finally:
        thread.stop()
    assert not thread.running


def test_an_interrupted_wait_ends_and_the_machine_goes_on(newest_qemu):
    with sync.launch(EMPTY, qemu=newest_qemu.binary) as machine:
        timer = threading.Timer(0.2, signal.pthread_kill, (threading.get_ident(), signal.SIGINT))
        before = time.monotonic()

        def waits() -> None:
            timer.start()  # in the block: on a slow machine it may come at once
            machine.wait(100)

        with pytest.raises(KeyboardInterrupt):
            waits()
        assert time.monotonic() - before < 60
        timer.join()
        assert machine.qmp("query-status")["running"] is True


def test_an_interrupted_start_leaves_nothing(newest_qemu):
    """Interrupted at many moments of a launch, and in between: no QEMU stays."""
    outcomes = set()
    for step in range(12):
        timer = threading.Timer(
            step * 0.015, signal.pthread_kill, (threading.get_ident(), signal.SIGINT)
        )
        machine = None
        try:
            timer.start()
            machine = sync.launch(EMPTY, qemu=newest_qemu.binary)
            timer.join()
        except KeyboardInterrupt:
            outcomes.add("interrupted")
        if machine is not None:
            outcomes.add("started")
            machine.close()
        timer.join()
        assert children() == []
    assert "interrupted" in outcomes


def children() -> list[str]:
    """Of all our threads: it is another one that spawns."""
    found = []
    for thread in os.listdir("/proc/self/task"):
        with (
            contextlib.suppress(FileNotFoundError),
            open(f"/proc/self/task/{thread}/children", encoding="ascii") as file,
        ):
            found += file.read().split()
    return found


ENDS = """
import sys
from launcher import sync
machine = sync.launch({profile!r}, qemu={qemu!r})
print(machine.process.pid, flush=True)
{then}
"""


@pytest.mark.parametrize(
    ("then", "code"),
    [
        ("", 0),
        ("raise SystemExit(3)", 3),
        ("import os; os.kill(os.getpid(), 9)", -9),
        ("import os; os.kill(os.getpid(), 2)", -2),
        ("machine.close(); machine.close()", 0),
    ],
)
def test_nothing_outlives_the_interpreter(newest_qemu, then, code):
    script = ENDS.format(profile=EMPTY, qemu=newest_qemu.binary, then=then)
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert wait_dead(int(done.stdout))
    if code >= 0:
        # -X dev also tells what took longer than 0.1 s, which a slow machine is free to do.
        said = done.stderr.splitlines()
        assert [
            line for line in said if not re.match(r"Executing <.*> took \S+ seconds$", line)
        ] == []


def test_a_fork_has_no_part_in_our_machines(newest_qemu):
    with sync.launch(EMPTY, qemu=newest_qemu.binary) as machine:
        pid = os.fork()
        if pid == 0:
            try:
                with sync.launch(EMPTY, qemu=newest_qemu.binary) as other:
                    os._exit(0 if other.qmp("query-status")["running"] else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert machine.qmp("query-status")["running"] is True


def test_a_migration_without_asyncio(newest_qemu):
    with sync.launch(EMPTY, qemu=newest_qemu.binary) as source:
        target = sync.incoming(EMPTY, qemu=newest_qemu.binary, uuid=source.plan.uuid, folder="t-2")
        with target:
            assert source.migrate(target).result == "completed"
            assert target.qmp("query-status")["running"] is True


def test_a_console_is_waited_for_in_vain(newest_qemu):
    with sync.launch({**EMPTY, "serial": "console"}, qemu=newest_qemu.binary) as machine:
        with pytest.raises(LauncherError, match=r"did not show .never.: not within 0\.3 s"):
            machine.console.wait_for("never", 0.3)
        assert "SeaBIOS" in machine.console.text or machine.console.dropped == 0


def _public(kind: type) -> dict[str, inspect.Signature | None]:
    found = {}
    for name, value in inspect.getmembers(kind):
        if not name.startswith("_"):
            found[name] = inspect.signature(value) if inspect.isfunction(value) else None
    return found


@pytest.mark.parametrize(
    ("asynchronous", "synchronous"),
    [
        (launcher.machine.Machine, sync.Machine),
        (launcher.console.Console, sync.Console),
        (launcher.faults.Faults, launcher.sync.faults.Faults),
        (launcher.guest.Guest, launcher.sync.guest.Guest),
    ],
)
def test_the_face_without_asyncio_has_all_of_the_other(asynchronous, synchronous):
    """A new method of a machine belongs into launcher/sync/machine.py as well."""
    here, there = _public(synchronous), _public(asynchronous)
    assert set(there) - set(here) == set()
    for name, signature in there.items():
        if signature is not None:
            assert [p.replace(annotation="") for p in here[name].parameters.values()] == [
                p.replace(annotation="") for p in signature.parameters.values()
            ], name


@pytest.mark.parametrize("name", ["launch"])
def test_it_starts_machines_with_the_same_arguments(name):
    assert list(inspect.signature(getattr(sync, name)).parameters) == list(
        inspect.signature(getattr(launcher.start, name)).parameters
    )
