"""What is measured, in groups: each gives rows of goal, target, measured, verdict."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
import threading
import time
from functools import partial
from typing import Any

from rounds import Floor, in_turns, median, process, ratio, timed

from launcher.begin import begin
from launcher.cache import cache_folder
from launcher.capabilities import Capabilities
from launcher.command import MONITOR_FD, render_argv
from launcher.data import load_catalogue
from launcher.files import parse_yaml
from launcher.plan import HostFacts, make_plan
from launcher.platforms import find_platform, resolve
from launcher.prepare import Prepared, Request, hazardous_types, load, prepare
from launcher.probe import cached_index, cached_replies, replies_of
from launcher.profiles import parse_profile
from launcher.record import replace
from launcher.start import attach

Rows = list[dict[str, Any]]
Binaries = dict[str, str]

#: A bare machine, for everything that is about starting.
BARE = {"name": "bare", "platform": "native", "machine": "q35", "accel": "tcg", "memory": "128MiB"}
#: Devices whose properties make the wide machine wide, in this order; none needs a backend.
_DEVICES = (
    *("virtio-net-pci", "virtio-scsi-pci", "virtio-balloon-pci", "virtio-serial-pci"),
    *("virtio-rng-pci", "virtio-net-pci", "virtio-net-pci", "virtio-net-pci", "virtio-net-pci"),
)
#: So many values are to be read back, or a few more.
_WIDE = 300
_TYPES = ("bool", "uint8", "uint16", "uint32", "uint64", "size", "OnOffAuto")
#: Properties whose default QEMU replaces by what it chose.
_CHOSEN = ("class", "disable-legacy", "num_queues", "rombar", "vectors")
#: Milliseconds that the C floor of the bare machine took where the goals in milliseconds were set.
_USUAL_FLOOR = 26.0
_SCALE = 50


def row(goal: str, target: float | None, measured: float, note: str = "") -> dict[str, Any]:
    """One line of the table; without a target it is only shown."""
    verdict = "shown" if target is None else "met" if measured <= target else "missed"
    return {
        "goal": goal,
        "target": target,
        "measured": measured,
        "verdict": verdict,
        "note": note,
    }


def scaled(goal: str, target: float, ours: list[float], floors: list[float]) -> dict[str, Any]:
    """A goal in milliseconds, for a host on which the bare machine's floor is the usual one."""
    note = f"{median(ours):.2f} ms here, where the floor is {median(floors):.1f} ms"
    name = f"{goal}, ms at a floor of {_USUAL_FLOOR:g}"
    return row(name, target, ratio(ours, floors) * _USUAL_FLOOR, note)


def newest(binaries: Binaries) -> str:
    """The binary of the newest release."""
    return binaries[max(binaries, key=lambda name: tuple(int(n) for n in name.split(".")))]


async def bare(binary: str) -> Prepared:
    """A plan of the bare machine."""
    return await prepare(load(Request(dict(BARE), qemu=binary)))


async def wide(binary: str) -> Prepared:
    """A plan with 300 values or a few more: plain properties of devices, at their defaults."""
    described = (await replies_of(binary, _DEVICES, _hazards()))["device-list-properties"]
    devices: dict[str, Any] = {}
    objects = {f"io{number}": {"qom-type": "iothread"} for number in range(4)}
    profile = {**BARE, "name": "wide", "platform": "debian-11", "objects": objects}
    for kind in _DEVICES:
        devices[f"d{len(devices)}"] = {"driver": kind, **_usual(described[kind])}
        prepared = await prepare(load(Request({**profile, "devices": devices}, qemu=binary)))
        if len(prepared.plan.values) >= _WIDE:
            break
    return prepared


def _usual(properties: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        one["name"]: one["default-value"]
        for one in properties
        if one["type"] in _TYPES
        and one.get("default-value") not in (None, -1, 2**32 - 1)
        and one["name"] not in _CHOSEN
        and not one["name"].startswith("x-")
    }


def _hazards() -> frozenset[str]:
    return hazardous_types(load_catalogue())


async def start_and_stop(prepared: Prepared, *, verify: bool) -> dict[str, float]:
    """One machine from spawn to its end, in milliseconds, and what its verification cost."""
    clock = time.perf_counter
    begun = clock()
    machine = await attach(begin(prepared))
    ready = clock()
    found: dict[str, float] = {"ready": (ready - begun) * 1000}
    try:
        if verify:
            report = await machine.verify()
            done = clock()
            assert report.verdict == "match", report.wrong
            found |= {"verify": (done - ready) * 1000, "both": (done - begun) * 1000}
            found |= {"commands": report.commands, "bytes": report.request_bytes}
            found["values"] = len(report.judged)
        asked = clock()
        await machine.stop()
        found["stop"] = (clock() - asked) * 1000
    finally:
        await machine.close()
    return found


async def launch(binaries: Binaries, floor: Floor, rounds: int) -> Rows:
    """Warm launch and stop."""
    rows = []
    for release, binary in binaries.items():
        prepared = await bare(binary)
        ours, theirs = [], []
        argv = await command_line(prepared)
        for _ in range(rounds):
            ours.append(await start_and_stop(prepared, verify=False))
            theirs.append(floor.once(argv))
        ready = ratio([o["ready"] for o in ours], [ready for ready, _ended in theirs])
        stop = ratio([o["stop"] for o in ours], [ended for _ready, ended in theirs])
        note = f"floor {median(ready for ready, _ in theirs):.1f} ms"
        rows.append(row(f"{release}: warm launch to first reply / C floor", 1.05, ready, note))
        note = f"floor {median(ended for _, ended in theirs):.1f} ms"
        rows.append(row(f"{release}: quit to reaped / C floor", 1.10, stop, note))
    return rows


async def command_line(prepared: Prepared) -> list[str]:
    """The words of a launch of the plan, its monitor's too; that is on descriptor 3."""
    machine = await attach(begin(prepared))
    await machine.close()
    return render_argv(prepared.plan, {"qmp": MONITOR_FD}, "")


async def verify(binaries: Binaries, floor: Floor, rounds: int) -> Rows:
    """Warm launch and verification of more than 300 values."""
    rows = []
    for release, binary in binaries.items():
        prepared = await wide(binary)
        argv = await command_line(prepared)
        plain = await command_line(await bare(binary))
        ours, theirs, floors = [], [], []
        for _ in range(rounds):
            floors.append(floor.once(plain)[0])
            ours.append(await start_and_stop(prepared, verify=True))
            theirs.append(floor.once(argv)[0])
        one = ours[0]
        both = ratio([o["both"] for o in ours], theirs)
        note = f"{one['values']} values"
        rows.append(row(f"{release}: launch + verify / launch-only C floor", 1.10, both, note))
        alone = [o["verify"] for o in ours]
        rows.append(scaled(f"{release}: verify alone", 3.0, alone, floors))
        rows.append(row(f"{release}: verify, QMP requests", 2, one["commands"]))
        rows.append(row(f"{release}: verify, request bytes", 1024, one["bytes"]))
    return rows


# -- processes ------------------------------------------------------------------------------------


def profile_of_344_lines() -> str:
    """Many iothreads: two keys each, in the shape that profiles have."""
    lines = ["name: long", "platform: debian-12", "machine: q35", "accel: tcg", "objects:"]
    number = 0
    while len(lines) <= 344 - 3:
        lines += [f"  io{number}:", "    qom-type: iothread", f"    poll-max-ns: {number + 1}"]
        number += 1
    return "\n".join(lines + ["# the end"] * (344 - len(lines))) + "\n"


class Home:
    """A cache folder of our own, so that what is cold is really cold; gone with the block."""

    def __enter__(self) -> Home:
        self.path = tempfile.mkdtemp(prefix="qemu-launcher-bench-")
        self.env = {**os.environ, "XDG_CACHE_HOME": self.path}
        self.env.pop("PYTHONDONTWRITEBYTECODE", None)
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def profile(self, text: str) -> str:
        """The path of a profile, not so new that a plan of it would not be kept."""
        path = os.path.join(self.path, "bench.yaml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        os.utime(path, ns=(time.time_ns() - 10**10,) * 2)
        return path

    def forget(self, kind: str) -> None:
        """Empty one part of the cache."""
        shutil.rmtree(os.path.join(self.path, "qemu-launcher", kind), ignore_errors=True)


def cli(*words: str) -> list[str]:
    """The installed command."""
    return [os.path.join(os.path.dirname(sys.executable), "qemu-launcher"), *words]


async def helps(_binaries: Binaries, _floor: Floor, rounds: int) -> Rows:
    """`--help` and `VERB --help`."""
    found = in_turns(
        rounds,
        {
            "pass": lambda: process([sys.executable, "-c", "pass"])[1],
            "help": lambda: process(cli("--help"))[1],
            "verb": lambda: process(cli("run", "--help"))[1],
        },
    )
    note = f"python -c pass: {median(found['pass']):.1f} ms of CPU"
    return [
        row("--help / python -c pass, CPU", 2.5, ratio(found["help"], found["pass"]), note),
        row("run --help / python -c pass, CPU", 2.5, ratio(found["verb"], found["pass"])),
    ]


async def plans(binaries: Binaries, _floor: Floor, rounds: int) -> Rows:
    """`plan` of 344 lines, with and without a kept plan."""
    with Home() as home:
        profile = home.profile(profile_of_344_lines())
        words = cli("plan", profile, "--qemu", newest(binaries))

        def planned(*, cold: bool) -> float:
            if cold:
                home.forget("plan")
            return process(words, home.env)[1]

        planned(cold=True)
        found = in_turns(
            rounds,
            {
                "pass": lambda: process([sys.executable, "-c", "pass"])[1],
                "cold": lambda: planned(cold=True),
                "kept": lambda: planned(cold=False),
            },
        )
    return [
        row(
            "plan, 344 lines, cold / python -c pass, CPU", 4.0, ratio(found["cold"], found["pass"])
        ),
        row(
            "plan, 344 lines, kept / python -c pass, CPU", 2.5, ratio(found["kept"], found["pass"])
        ),
    ]


_READY_AND_OUT = """
import sys
from launcher.prepare import Request, load, prepare_now
from launcher.begin import begin
started = begin(prepare_now(load(Request(sys.argv[1], qemu=sys.argv[2]))))
import asyncio
from launcher.start import attach
async def out():
    await (await attach(started)).close()
asyncio.run(out())
"""


async def cold(binaries: Binaries, floor: Floor, rounds: int) -> Rows:
    """A whole process: start, QEMU ready, quit, end."""
    binary = newest(binaries)
    with Home() as home:
        profile = home.profile("".join(f"{key}: {value}\n" for key, value in BARE.items()))
        argv = await command_line(await bare(binary))
        code = [sys.executable, "-c", _READY_AND_OUT, profile, binary]
        words = cli("verify", profile, "--qemu", binary)
        process(words, home.env)
        found = in_turns(
            rounds,
            {
                "floor": lambda: floor.whole(argv),
                "ready": lambda: process(code, home.env)[0],
                "verify": lambda: process(words, home.env)[0],
            },
        )
    note = f"floor {median(found['floor']):.1f} ms"
    return [
        row(
            "process to ready and out / C floor process",
            3.0,
            ratio(found["ready"], found["floor"]),
            note,
        ),
        row("CLI verify, whole / C floor process", 3.0, ratio(found["verify"], found["floor"])),
    ]


async def probe(binaries: Binaries, floor: Floor, rounds: int) -> Rows:
    """Asking a binary everything, and reading what it said before."""
    rows = []
    usual = os.environ.get("XDG_CACHE_HOME")
    for release, binary in binaries.items():
        argv = await command_line(await bare(binary))
        ours, theirs, full, slim = [], [], [], []
        with Home() as home:
            os.environ["XDG_CACHE_HOME"] = home.path
            try:
                for _ in range(rounds):
                    home.forget("probe")
                    begun = time.perf_counter()
                    await replies_of(binary, (), _hazards())
                    ours.append((time.perf_counter() - begun) * 1000)
                    theirs.append(floor.once(argv)[0])
                    full.append(timed(partial(cached_replies, binary)))
                    slim.append(timed(partial(_slim, binary)))
            finally:
                if usual is None:
                    del os.environ["XDG_CACHE_HOME"]
                else:
                    os.environ["XDG_CACHE_HOME"] = usual
        rows.append(row(f"{release}: probe cold / launch floor", 4.0, ratio(ours, theirs)))
        rows.append(scaled(f"{release}: probe kept, whole", 3.0, full, theirs))
        rows.append(scaled(f"{release}: probe kept, a look", 0.3, slim, theirs))
    return rows


def _slim(binary: str) -> None:
    index = cached_index(binary)
    assert index is not None
    known = Capabilities(index)
    assert known.version
    assert known.machine("microvm") is not None
    assert known.types


# -- many machines --------------------------------------------------------------------------------


async def scale(binaries: Binaries, floor: Floor, rounds: int) -> Rows:
    """Fifty machines from one process, as many at a time as there are cores."""
    prepared = await bare(newest(binaries))
    argv = await command_line(prepared)
    floors = [floor.once(argv)[0] for _ in range(rounds)]
    cores = len(os.sched_getaffinity(0))
    alone = [(await start_and_stop(prepared, verify=False))["ready"] for _ in range(rounds)]
    before = _ourselves()
    gate = asyncio.Semaphore(cores)
    times: list[float] = []

    async def one() -> Any:
        async with gate:
            begun = time.perf_counter()
            machine = await attach(begin(prepared))
            times.append((time.perf_counter() - begun) * 1000)
            return machine

    begun, used = time.perf_counter(), time.process_time()
    machines = await asyncio.gather(*(one() for _ in range(_SCALE)))
    wall = (time.perf_counter() - begun) * 1000
    ours = (time.process_time() - used) * 1000
    theirs = sum(_cpu_of(machine.process.pid) for machine in machines)
    after = _ourselves()
    await asyncio.gather(*(machine.close() for machine in machines))
    each = {name: (after[name] - before[name]) / _SCALE for name in before}
    return [
        row(f"{_SCALE} machines: wall / (CPU / cores)", 1.10, wall * cores / (theirs + ours)),
        row(
            f"{_SCALE} machines: median time to ready / one alone",
            1.25,
            median(times) / median(alone),
        ),
        scaled("launcher per machine: CPU", 1.5, [ours / _SCALE] * rounds, floors),
        row("launcher per machine: threads", 0, each["threads"]),
        row("launcher per machine: descriptors", 2, each["fds"], "monitor, pidfd, stderr"),
        row("launcher per machine: resident, kB", 50, each["kilobytes"]),
    ]


def _ourselves() -> dict[str, float]:
    with open("/proc/self/statm", encoding="ascii") as file:
        pages = int(file.read().split()[1])
    return {
        "threads": threading.active_count(),
        "fds": len(os.listdir("/proc/self/fd")),
        "kilobytes": pages * os.sysconf("SC_PAGE_SIZE") / 1024,
    }


def _cpu_of(pid: int) -> float:
    """Milliseconds of CPU of all threads of a process (schedstat, nanoseconds)."""
    total = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/schedstat", encoding="ascii") as file:
            total += int(file.read().split()[0])
    return total / 1e6


# -- growth ---------------------------------------------------------------------------------------


async def growth(binaries: Binaries, _floor: Floor, rounds: int) -> Rows:
    """How time grows with the size of a profile and of the platform data: 1 is linear."""
    binary = newest(binaries)
    await replies_of(binary, (), _hazards())
    index = cached_index(binary)
    assert index is not None
    known = Capabilities(index)
    catalogue = load_catalogue()
    floor = find_platform(catalogue, "debian-12")
    sample = next(iter(catalogue.qemu.values()))

    def plan(count: int) -> None:
        lines = ["name: many", "platform: debian-12", "machine: q35", "accel: tcg", "objects:"]
        lines += [f"  o{n}: {{qom-type: iothread, poll-max-ns: 1}}" for n in range(count)]
        tree = parse_yaml("\n".join(lines), "many.yaml")
        profile = parse_profile(tree, lambda path: tree, [], "", cache_folder())
        facts = HostFacts("6.1.0", "x86_64", (None, ""), {})
        make_plan(profile, floor, catalogue, known, facts, binary=binary, uuid="")

    def resolved(count: int) -> None:
        resolve(bigger[count], floor)

    bigger = {}
    for count in (100, 10_000):
        keys = {("object", f"type-{n:05}", "property"): sample for n in range(count)}
        bigger[count] = replace(catalogue, qemu=keys, linux={})
    objects = in_turns(
        min(rounds, 15), {str(n): lambda n=n: timed(lambda: plan(n)) for n in (10, 1000)}
    )
    rows = in_turns(
        min(rounds, 15), {str(n): lambda n=n: timed(lambda: resolved(n)) for n in bigger}
    )
    return [
        row(
            "plan of 1000 objects / of 10, per object",
            1.0,
            ratio(objects["1000"], objects["10"]) / 100,
        ),
        row("10 000 platform rows / 100, per row", 1.0, ratio(rows["10000"], rows["100"]) / 100),
        row("plan of 1000 objects, ms", None, median(objects["1000"])),
    ]


# -- drift ----------------------------------------------------------------------------------------


async def drift(binaries: Binaries, floor: Floor, rounds: int) -> Rows:
    """Comparing two releases: from their records, and by asking the binaries."""
    names = sorted(binaries, key=lambda name: tuple(int(n) for n in name.split(".")))[-2:]
    if len(names) < 2:
        return []
    argvs = [await command_line(await bare(binaries[name])) for name in names]
    records = cli("drift", *(f"qemu-{name}" for name in names))
    asked = cli("drift", *(binaries[name] for name in names))
    with Home() as home:
        process(records, home.env)
        found = in_turns(
            min(rounds, 7),
            {
                "floor": lambda: sum(floor.whole(argv) for argv in argvs),
                "pass": lambda: process([sys.executable, "-c", "pass"])[1],
                "records": lambda: process(records, home.env)[1],
                "asked": lambda: process(asked, home.env)[0],
            },
        )
    pair = " and ".join(names)
    note = f"{median(found['asked']) / 1000:.2f} s; floors {median(found['floor']):.1f} ms"
    return [
        row(
            f"drift of {pair}, records / python -c pass, CPU",
            None,
            ratio(found["records"], found["pass"]),
            f"{median(found['records']):.0f} ms of CPU",
        ),
        row(
            f"drift of {pair}, binaries / both C floors",
            None,
            ratio(found["asked"], found["floor"]),
            note,
        ),
    ]


GROUPS = {
    "help": helps,
    "plan": plans,
    "launch": launch,
    "verify": verify,
    "cold": cold,
    "probe": probe,
    "scale": scale,
    "growth": growth,
    "drift": drift,
}
