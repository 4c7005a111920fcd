"""The pytest plugin, by pytest's own means: each test here runs a test run of its own."""

from __future__ import annotations

import os
import re
import select
import signal
import statistics
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

from launcher.rig.leaks import machines_left

pytest_plugins = ("pytester",)
pytestmark = pytest.mark.integration

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
EMPTY = {"name": "t", "platform": "debian-12", "machine": "q35", "accel": "tcg", "memory": "64MiB"}
HEAD = f"""
import asyncio, os, signal, time
import pytest
from launcher import sync
from launcher.errors import LauncherError
EMPTY = {EMPTY!r}
CONSOLE = {{**EMPTY, "serial": "console"}}
DEMO = {os.path.join(ROOT, "profiles", "microvm-demo.yaml")!r}
"""
CACHE = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
RELEASES = ("5.2", "7.2", "10.0", "11.1")


@pytest.fixture
def run(pytester, monkeypatch):
    """Writes a test module and runs pytest on it, as a process of its own."""
    monkeypatch.setenv("PYTHONPATH", ROOT)
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", CACHE)  # pytester moves the home folder

    def running(text: str, *words: str):
        pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
        pytester.makepyfile(test_it=HEAD + text)
        arguments = (
            "-p",
            "launcher.rig.plugin",
            "-p",
            "no:labgrid",
            "-p",
            "no:cacheprovider",
            "-v",
            *words,
        )
        result = pytester.runpytest_subprocess(*arguments, timeout=400)
        assert machines_left(set()) == {}
        return result

    return running


BOTH = """
@pytest.mark.machine(EMPTY, platform="debian-12")
async def test_boot(machine):
    assert machine.report.verdict == "match"
    assert (await machine.qmp("query-status"))["running"] is True
    await machine.qmp("stop")
    assert (await machine.wait_event("STOP", timeout=5)).name == "STOP"
    async for event in machine.events("STOP"):
        break
    assert event.name == "STOP"

@pytest.mark.machine(EMPTY, platform=["debian-11", "debian-12"])
def test_plain(machine, qemu, platform):
    assert machine.plan.platform == platform
    assert machine.plan.binary == qemu
    assert machine.qmp("query-status")["running"] is True

async def test_factory(machine_factory):
    one, two = await asyncio.gather(machine_factory(EMPTY), machine_factory(EMPTY))
    assert one.process.pid != two.process.pid
    assert (await two.qmp("query-status"))["running"] is True
"""


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "two-workers"])
def test_the_whole_matrix(run, workers):
    result = run(BOTH, "--qemu", "matrix", *workers)
    result.assert_outcomes(passed=16)
    text = result.stdout.str()
    for release in RELEASES:
        assert f"test_boot[qemu-{release}-debian-12]" in text
        assert f"test_plain[qemu-{release}-debian-11]" in text
        assert f"test_factory[qemu-{release}]" in text


FAKE = """
def test_the_code_under_test(fake_machines):
    old, new = fake_machines(EMPTY, release="7.2"), fake_machines(EMPTY, platform="debian-13")
    assert old.plan.version.startswith("7.2.")
    assert new.plan.platform == "debian-13"
    old.inject("GUEST_PANICKED", {"action": "pause"})
    assert old.wait_event("GUEST_PANICKED", timeout=5).data["action"] == "pause"
"""


def test_machines_without_a_qemu(run):
    run(FAKE).assert_outcomes(passed=1)


SHARED = """
pytestmark = pytest.mark.machine(DEMO, up="guest# ")

def timed(machine):
    return time.monotonic()

@pytest.mark.parametrize("n", range(3))
def test_each_gets_it_fresh(module_machine, n):
    console = module_machine.console
    assert console.text == "" or n == 0
    console.send_line("[ -e /tmp/mark ] || echo fre''sh; touch /tmp/mark; echo don''e")
    assert "fresh" in console.wait_for("(?s)fresh.*done", 30)
    assert module_machine.events("STOP").history == []

async def test_also_when_asynchronous(module_machine):
    await module_machine.console.send_line("[ -e /tmp/mark ] || echo fre''sh")
    await module_machine.console.expect("fresh", 30)

def test_again_of_the_whole_run(session_machine):
    session_machine.qmp("quit")
    assert session_machine.wait(60) == 0

def test_after_one_ended_it(session_machine):
    assert session_machine.qmp("query-status")["running"] is True
"""


def test_shared_machines_are_restored(run, guest, newest_qemu):
    result = run(SHARED, "--qemu", newest_qemu.binary, "--durations=0", "--durations-min=0")
    result.assert_outcomes(passed=6)
    setups = [
        float(seconds)
        for seconds, test in re.findall(r"([\d.]+)s setup +\S+::(\S+)", result.stdout.str())
        if "fresh" in test or "asynchronous" in test
    ]
    boot, *restored = sorted(setups, reverse=True)
    print(f"boot {boot:.2f} s, restored {restored}, {max(restored) / boot:.3f}")
    assert len(restored) == 3
    # One of them may have met something else on the machine.
    assert statistics.median(restored) < boot / 2


FAILS = """
@pytest.mark.machine({**CONSOLE, "devices": {"vga0": {"driver": "VGA"}}})
def test_waits_in_vain(machine):
    machine.console.wait_for("never to be seen", 0.5)
"""


def test_a_failed_test_shows_and_keeps_what_there_is(run, newest_qemu, tmp_path):
    kept, junit = tmp_path / "kept", tmp_path / "junit.xml"
    words = ("--qemu", newest_qemu.binary, "--machine-artifacts", str(kept))
    result = run(FAILS, *words, f"--junitxml={junit}")
    result.assert_outcomes(failed=1)
    text = result.stdout.str()
    for shown in ("machine t", "runstate: running", "vCPU 0: at 0x", "RESUME {}", "kept:"):
        assert shown in text
    folders = [p.parent for p in kept.rglob("plan.json")]
    assert len(folders) == 1
    names = {path.name for path in folders[0].iterdir()}
    assert names >= {"plan.json", "report.json", "versions.json", "qmp.log", "screen.png"}
    assert names >= {"console.log", "whereabouts.txt", "stderr.log"}
    assert str(folders[0] / "qmp.log") in text
    assert re.search(rb'\[ +\d+\.\d{3}\] > .*"cont"', (folders[0] / "qmp.log").read_bytes())
    assert (folders[0] / "screen.png").read_bytes().startswith(b"\x89PNG")
    properties = {p.get("value") for p in ET.parse(junit).iter("property")}
    assert str(folders[0]) in properties


def test_a_passed_test_keeps_nothing(run, newest_qemu, tmp_path):
    kept = tmp_path / "kept"
    result = run(BOTH, "--qemu", newest_qemu.binary, "--machine-artifacts", str(kept))
    result.assert_outcomes(passed=4)
    assert list(kept.rglob("*")) == []


# -device pvpanic and a guest that writes 1 (panicked) to its port; -watchdog i6300esb would need
# a driver, inject-nmi does what it does.
FAULTY = """
ROM = bytes(65536 - 16) + bytes.fromhex("ba 05 05 b0 01 ee f4".replace(" ", "")).ljust(16, b"\\xf4")

@pytest.fixture
def panics(tmp_path):
    path = tmp_path / "rom"
    path.write_bytes(ROM)
    return {**CONSOLE, "boot": {"firmware": str(path)}, "devices": {"p0": {"driver": "pvpanic"}}}

def test_panic(machine_factory, panics):
    machine_factory(panics).console.wait_for("never", 60)

def test_panic_allowed(machine_factory, panics):
    machine = machine_factory(panics, allow="panic")
    machine.wait_event("GUEST_PANICKED", timeout=20)

@pytest.mark.machine(CONSOLE)
def test_crash(machine):
    os.kill(machine.process.pid, signal.SIGSEGV)
    machine.console.wait_for("never", 60)

@pytest.mark.machine(CONSOLE)
async def test_crash_asynchronous(machine):
    os.kill(machine.process.pid, signal.SIGABRT)
    await machine.wait(60)
    await machine.console.wait_for("never", 60)

@pytest.mark.machine(CONSOLE)
def test_crash_unnoticed(machine):
    os.kill(machine.process.pid, signal.SIGSEGV)
    while machine.process.returncode is None:
        pass

@pytest.mark.machine(CONSOLE, allow=["crash"])
def test_crash_allowed(machine):
    os.kill(machine.process.pid, signal.SIGSEGV)
    assert machine.wait(60) == -signal.SIGSEGV

@pytest.mark.machine(CONSOLE)
def test_the_guest_ends_by_itself(machine):
    machine.qmp("quit")
    with pytest.raises(LauncherError, match="the console was closed"):
        machine.console.wait_for("never", 60)
"""


def test_a_guest_beyond_help_fails_its_test_at_once(run, newest_qemu):
    result = run(FAULTY, "--qemu", newest_qemu.binary, "--durations=3")
    result.assert_outcomes(passed=4, failed=3, errors=1)
    text = result.stdout.str()
    assert "GuestFault: t: the guest panicked" in text
    assert len(re.findall(r"GuestFault: t: QEMU crashed \(SIG(?:SEGV|ABRT)\)", text)) >= 3
    slowest = max(float(s) for s in re.findall(r"([\d.]+)s call", text))
    assert slowest < 30


COLLECTING = """
import gc

class Telling(Exception):
    def __str__(self):
        return "collections are " + ("on" if gc.isenabled() else "off")

@pytest.mark.machine(EMPTY)
def test_it(machine):
    raise Telling

def test_next():
    assert gc.isenabled()
"""


def test_a_report_is_made_without_collections(run, newest_qemu):
    """Or another thread that formats a traceback meanwhile ends the run, on CPython 3.11."""
    result = run(COLLECTING, "--qemu", newest_qemu.binary)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["E *Telling: collections are off"])


def test_what_this_host_cannot_run(run, newest_qemu):
    text = """
@pytest.mark.machine({**EMPTY, "accel": "xen"})
def test_it(machine):
    pass
"""
    result = run(text, "--qemu", newest_qemu.binary, "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*this host cannot run it: *xen*"])
    result = run(text, "--qemu", newest_qemu.binary, "--strict-host")
    result.assert_outcomes(errors=1)
    run(text, "--qemu", newest_qemu.binary, "--accel", "tcg").assert_outcomes(passed=1)
    none = run(text, "--qemu", "/nowhere/qemu")
    none.stderr.fnmatch_lines(["*--qemu: /nowhere/qemu: *"])


LEAKS = """
def test_leaks(machine_factory, qemu):
    machine_factory(EMPTY)
    sync.launch({**EMPTY, "name": "left"}, qemu=qemu)

@pytest.mark.machine(EMPTY)
def test_next(machine):
    pass
"""


def test_a_leak_is_told_of_the_test_that_made_it(run, newest_qemu):
    result = run(LEAKS, "--qemu", newest_qemu.binary)
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*test_leaks* left running: left (process *); ended now*"])


HANGS = """
@pytest.mark.machine(CONSOLE)
def test_hangs(machine, module_machine):
    print("PID", machine.process.pid, module_machine.process.pid, flush=True)
    machine.console.wait_for("never", 300)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_nothing_outlives_the_run(newest_qemu, pytester, number, tmp_path):
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    pytester.makepyfile(test_it=HEAD + HANGS)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-s",
        "-p",
        "launcher.rig.plugin",
        "-p",
        "no:labgrid",
    ]
    command += ["--qemu", newest_qemu.binary, "--basetemp", str(tmp_path / "temp")]
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    environment = {
        **os.environ,
        "PYTHONPATH": ROOT,
        "XDG_RUNTIME_DIR": str(runtime),
        "XDG_CACHE_HOME": CACHE,
    }
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment, cwd=pytester.path
    ) as started:
        line = next(line for line in started.stdout if "PID" in line)
        ends = [os.pidfd_open(int(word)) for word in line.partition("PID")[2].split()]
        started.send_signal(number)
        for pidfd in ends:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            assert poll.poll(60_000)
            os.close(pidfd)
        started.stdout.read()
        started.wait(60)
    assert [path for path in runtime.rglob("*") if not path.is_dir()] == []


def test_a_test_that_is_timed_out_leaves_nothing(run, newest_qemu):
    # In its call: on a slow machine starting its two machines takes longer than that.
    words = ("-p", "timeout", "--timeout=3", "-o", "timeout_func_only=true")
    result = run(HANGS, "--qemu", newest_qemu.binary, *words)
    result.assert_outcomes(failed=1)
