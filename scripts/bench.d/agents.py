"""An agent and a hundred: from a command to its answers, against the broker's own round trip."""

from __future__ import annotations

import itertools
import json
import os
import re
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from measures import Binaries, Rows, newest, row
from rounds import Floor, median, ratio
from wire import Broker, Wire

from launcher.cache import cache_folder

_ROOT = "qemu-launcher/v1"
_REPLY = f"{_ROOT}/reply/bench/1"
_HOSTS, _PROCESSES, _MACHINES = 100, 2, 50
#: Commands of one round, each sent when the one before is answered.
_ONE_BY_ONE = 40
#: Commands to all hosts, and how many of them are under way at a time.
_COMMANDS, _WINDOW = 2000, 100
_SECONDS = 120.0
_PROFILE = {"platform": "debian-12", "machine": {"type": "microvm", "acpi": "off"}, "accel": "tcg"}


async def agents(binaries: Binaries, _floor: Floor, rounds: int) -> Rows:
    """All of it on one private broker, which scripts/bench brought."""
    tools = os.path.join(cache_folder(), "broker", "bin")
    if not os.path.exists(os.path.join(tools, "mosquitto")):  # noqa: ASYNC240 (nothing else runs)
        return [row("agent", None, 0.0, "not measured: no mosquitto")]
    rows: Rows = []
    with (
        tempfile.TemporaryDirectory(prefix="bench-agent-") as folder,
        Broker(tools, folder) as broker,
    ):
        with _agent(broker.port, folder, newest(binaries)) as agent:
            client = Wire(broker.port, "bench")
            client.subscribe(_REPLY)
            rows += _latencies(broker.port, client, rounds)
            rows += _machines(client, agent)
        rows += _hundred(broker.port, folder, client)
        client.close()
    return rows


@contextmanager
def _running(
    words: list[str], env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A process that prints a line with `ready` or `connected` in it once it is."""
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env
    )
    assert process.stdout is not None
    seen = ""
    try:
        while "ready" not in seen and "connected" not in seen:
            there = select.select([process.stdout], [], [], _SECONDS)[0]
            line = process.stdout.readline() if there else ""
            if not line:
                raise RuntimeError(f"{words}: {seen}")
            seen += line
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=_SECONDS)


def _responder(kind: str, port: int, *words: str) -> Any:
    script = os.path.join(sys.path[0], "responders.py")
    return _running([sys.executable, script, kind, str(port), *words])


def _agent(port: int, folder: str, qemu: str) -> Any:
    profiles = os.path.join(folder, "profiles")
    os.makedirs(profiles)
    os.makedirs(os.path.join(folder, "run"), mode=0o700)
    for number in range(_MACHINES):
        with open(os.path.join(profiles, f"m{number}.yaml"), "w", encoding="utf-8") as file:
            json.dump({**_PROFILE, "qemu": qemu, "memory": "32MiB"}, file)
    policy = os.path.join(folder, "policy.yaml")
    with open(policy, "w", encoding="utf-8") as file:
        # The path is a link to where the binary is; policy wants both.
        places = [os.path.dirname(qemu), os.path.dirname(os.path.realpath(qemu))]
        json.dump({"binaries": places, "machines": _MACHINES, "commands-per-second": 100_000}, file)
    words = ["-m", "launcher", "agent", "--broker", f"mqtt://127.0.0.1:{port}", "--host-id", "one"]
    words += ["--profiles", profiles, "--policy", policy, "--state", os.path.join(folder, "state")]
    env = {**os.environ, "XDG_RUNTIME_DIR": os.path.join(folder, "run")}
    return _running([sys.executable, *words], env)


# -- one command at a time ------------------------------------------------------------------------


def _latencies(port: int, client: Wire, rounds: int) -> Rows:
    """Query against an echo, in turns within each round, by the same client."""
    found: dict[str, list[float]] = {n: [] for n in ("wire", "library", "accepted", "done")}
    slowest: list[float] = []
    with _responder("wire", port, "echo/wire"), _responder("library", port, "echo/library"):
        for number in range(rounds):
            for kind in ("wire", "library"):
                found[kind].append(
                    median(_echo(client, f"echo/{kind}") for _ in range(_ONE_BY_ONE))
                )
            both = [_query(client, f"r{number}-{n}") for n in range(_ONE_BY_ONE)]
            found["accepted"].append(median(one for one, _ in both))
            found["done"].append(median(two for _, two in both))
            slowest += [two for _, two in both]
    plain, same = median(found["wire"]), median(found["library"])
    note = f"{median(found['accepted']):.2f} ms; the round trip takes {same:.2f} ms"
    return [
        row(
            "agent: command to accepted / round trip (its library)",
            2.0,
            ratio(found["accepted"], found["library"]),
            note,
        ),
        row(
            "agent: query to done / round trip (its library)",
            3.0,
            ratio(found["done"], found["library"]),
            f"{median(found['done']):.2f} ms",
        ),
        row(
            "agent: command to accepted / round trip (plain sockets)",
            5.0,
            ratio(found["accepted"], found["wire"]),
            f"the round trip takes {plain:.2f} ms",
        ),
        row("agent: query to done, p50, ms", 10.0, median(slowest)),
        row("agent: query to done, p99, ms", 10.0, _p99(slowest)),
    ]


def _echo(client: Wire, topic: str) -> float:
    begun = time.perf_counter()
    client.publish(topic, b"x" * 60, _REPLY)
    client.take()
    return (time.perf_counter() - begun) * 1000


def _query(client: Wire, number: str) -> tuple[float, float]:
    """Milliseconds to `accepted` and to `done`."""
    begun = time.perf_counter()
    _command(client, "one", "query", number)
    times = []
    for status in ("accepted", "done"):
        _topic, payload = client.take()
        times.append((time.perf_counter() - begun) * 1000)
        assert f'"status":"{status}"'.encode() in payload, payload
    return times[0], times[1]


def _command(client: Wire, host: str, verb: str, number: str, **arguments: Any) -> None:
    payload = json.dumps({"id": number, **arguments}).encode()
    client.publish(f"{_ROOT}/hosts/{host}/command/{verb}", payload, _REPLY)


def _p99(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.99))]


# -- many -----------------------------------------------------------------------------------------


_number = itertools.count()
_ANSWER = re.compile(rb'"id":"([a-z0-9-]+)","status":"(\w+)"')


def _flood(client: Wire, commands: list[tuple[str, str, dict[str, Any]]], window: int) -> Any:
    """Send all, so many at a time; wall clock and latencies of both answers, in milliseconds."""
    sent: dict[str, float] = {}
    accepted, done, results = [], [], []
    left = iter(commands)

    def another() -> None:
        found = next(left, None)
        if found is not None:
            host, verb, arguments = found
            name = f"f{next(_number)}"
            sent[name] = time.perf_counter()
            _command(client, host, verb, name, **arguments)

    begun = time.perf_counter()
    for _ in range(window):
        another()
    while len(done) < len(commands):
        _topic, payload = client.take()
        match = _ANSWER.search(payload)
        assert match is not None, payload
        took = (time.perf_counter() - sent[match[1].decode()]) * 1000
        if match[2] == b"accepted":
            accepted.append(took)
        else:
            assert match[2] == b"done", payload
            done.append(took)
            results.append(json.loads(payload)["result"])
            another()
    return time.perf_counter() - begun, accepted, done, results


def _shown(what: str, wall: float, accepted: list[float], done: list[float]) -> Rows:
    return [
        row(f"{what}: commands/s", None, len(done) / wall),
        row(f"{what}: accepted p50, ms", None, median(accepted), f"p99 {_p99(accepted):.1f} ms"),
        row(f"{what}: done p50, ms", None, median(done), f"p99 {_p99(done):.1f} ms"),
    ]


def _machines(client: Wire, agent: subprocess.Popen[str]) -> Rows:
    """Fifty machines: all started at once, asked at once, and ended at once."""
    names = [f"m{number}" for number in range(_MACHINES)]
    before = _memory(agent.pid)["Rss"]
    starts = [("one", "start", {"profile": name}) for name in names]
    *times, results = _flood(client, starts, _MACHINES)
    rows = _shown(f"{_MACHINES} machines, start", *times)
    after = _memory(agent.pid)["Rss"]
    each = [_memory(one["pid"]) for one in results]
    asked = [("one", "query", {"machine": name}) for name in names * 4]
    *_, done, _ = _flood(client, asked, 1)
    rows.append(row(f"{_MACHINES} machines, query of one, done p50, ms", 10.0, median(done)))
    *times, _ = _flood(client, asked, 8)
    rows += _shown(f"{_MACHINES} machines, query of one, 8 at a time", *times)
    *_, done, _ = _flood(client, [("one", "query", {})] * 50, 1)
    rows.append(row(f"{_MACHINES} machines, query of all, done p50, ms", 10.0, median(done)))
    stops = [("one", "stop", {"machine": name, "first": "quit"}) for name in names]
    *times, _ = _flood(client, stops, _MACHINES)
    rows += _shown(f"{_MACHINES} machines, stop", *times)
    note = f"{before} kB without, QEMU itself {median(one['Pss'] for one in each)} kB (PSS)"
    rows.append(row("agent per machine: resident, kB", None, (after - before) / _MACHINES, note))
    return rows


def _memory(pid: int) -> dict[str, int]:
    """Kilobytes of a process."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        found = re.findall(r"^(Rss|Pss): +(\d+) kB", file.read(), re.MULTILINE)
    return {name: int(value) for name, value in found}


def _hundred(port: int, folder: str, client: Wire) -> Rows:
    """A hundred hosts on one broker: two processes of fifty agents each."""
    share = _HOSTS // _PROCESSES
    parts = [("hosts", port, folder, str(n * share), str(share)) for n in range(_PROCESSES)]
    with _responder(*parts[0]) as first, _responder(*parts[1]) as second:
        commands = [(f"host-{n % _HOSTS}", "query", {}) for n in range(_COMMANDS)]
        *alone, _ = _flood(client, commands[:200], 1)
        *times, _ = _flood(client, commands, _WINDOW)
        held = sum(_memory(one.pid)["Rss"] for one in (first, second))
    rows = _shown(f"{_HOSTS} hosts, query, one at a time", *alone)
    rows += _shown(f"{_HOSTS} hosts, query, {_WINDOW} at a time", *times)
    rows.append(row(f"{_HOSTS} hosts: resident per simulated host, kB", None, held / _HOSTS))
    return rows
