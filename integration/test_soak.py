"""Many tests with a machine each, one after another: nothing is left, and nothing grows.

`QEMU_LAUNCHER_FULL=1` runs 200 of them in each way, else 20.
"""

from __future__ import annotations

import json
import os
import statistics

import pytest

from integration.conftest import ROOT, installed

pytest_plugins = ("pytester",)
pytestmark = pytest.mark.integration

COUNT = 200 if os.environ.get("QEMU_LAUNCHER_FULL") == "1" else 20
#: Of so many tests the process is still warming up: modules, caches, arenas of malloc.
WARM = COUNT // 4
CACHE = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")

TESTS = """
import gc, json, os, threading
import pytest

PROFILE = {"name": "soak", "platform": "debian-12", "machine": "q35", "accel": "tcg",
    "memory": "32MiB", "serial": "console", "guest-agent": True, "net": "user"}
seen = []

def look(pid):
    gc.collect()  # else what is left to collect goes up and down by ten megabytes
    with open("/proc/self/statm") as file:
        resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    fds = os.listdir("/proc/self/fd")
    seen.append({"pid": pid, "fds": len(fds), "resident": resident,
        "threads": threading.active_count()})
    with open(os.environ["SOAK"] + f"/{os.getpid()}.json", "w") as file:
        json.dump(seen, file)

@pytest.mark.machine(PROFILE)
@pytest.mark.parametrize("n", range(COUNT // 2))
def test_plain(machine, n):
    machine.pause()
    machine.wait_event("STOP", timeout=30)
    machine.snapshot()
    look(machine.process.pid)

@pytest.mark.machine(PROFILE)
@pytest.mark.parametrize("n", range(COUNT - COUNT // 2))
async def test_asynchronous(machine, n):
    await machine.console.expect("SeaBIOS|", 30)
    await machine.wait_runstate("running")
    look(machine.process.pid)
"""


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "workers", [(), ("-n", "2", "--dist", "each")], ids=["alone", "two-workers"]
)
def test_nothing_is_left_and_nothing_grows(pytester, monkeypatch, tmp_path, workers):
    soak, runtime, temporary = (tmp_path / name for name in ("soak", "runtime", "tmp"))
    for folder in (soak, runtime, temporary):
        folder.mkdir(mode=0o700)
    environment = {"PYTHONPATH": ROOT, "XDG_CACHE_HOME": CACHE, "SOAK": str(soak)}
    environment |= {"XDG_RUNTIME_DIR": str(runtime), "TMPDIR": str(temporary)}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("CI", raising=False)
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    pytester.makepyfile(test_it=TESTS.replace("COUNT", str(COUNT)))
    words = (
        "-q",
        "-p",
        "launcher.rig.plugin",
        "-p",
        "no:labgrid",
        "-p",
        "no:cacheprovider",
        *workers,
    )
    binary = installed("11.1").binary
    result = pytester.runpytest_subprocess(*words, "--qemu", binary, timeout=800)
    # Each worker runs all of them: how they share them depends on who is faster.
    result.assert_outcomes(passed=COUNT * (2 if workers else 1))
    processes = [json.loads(path.read_text()) for path in soak.iterdir()]
    assert len(processes) == (2 if workers else 1)
    assert [len(seen) for seen in processes] == [COUNT] * len(processes)
    for seen in processes:
        assert not any(os.path.exists(f"/proc/{one['pid']}") for one in seen)
        warm = seen[WARM:]
        for what in ("fds", "threads"):
            counts = [one[what] for one in warm]
            # Of a plain and of an asynchronous test one each, and these do not grow.
            assert max(counts) - min(counts) <= 6, (what, counts)
            assert statistics.median(counts[-5:]) <= statistics.median(counts[:5]) + 4, counts
        grown = (warm[-1]["resident"] - warm[0]["resident"]) / len(warm)
        print(f"{len(seen)} tests: {warm[0]['resident'] >> 20} MiB, {grown / 1024:.1f} KiB a test")
        print([one["fds"] for one in seen][:: COUNT // 10])
        # A machine has some 400 KiB of plan, report and events: one that is kept would show.
        assert grown < (16 << 10 if COUNT >= 200 else 128 << 10)
    assert [path for path in runtime.rglob("*") if not path.is_dir()] == []
    assert [path for path in temporary.rglob("*") if path.is_socket()] == []
    ours = [path.name for path in temporary.iterdir() if not path.name.startswith("pytest-of-")]
    assert ours == []
