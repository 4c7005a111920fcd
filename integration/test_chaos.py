"""Broker and agent killed and connections cut under commands: one effect, one final answer each."""

from __future__ import annotations

import asyncio
import json
import os
import random
import select
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from integration.chaos import Link, Relay, Sender
from integration.conftest import installed
from integration.mqtt import ROOT, SECONDS, AgentProcess, Broker, Stranger
from integration.namespaces import BROKER, Network
from launcher.bus.broker import KEEPALIVE

pytestmark = pytest.mark.integration

FULL = os.environ.get("QEMU_LAUNCHER_FULL") == "1"
#: Rounds of ten commands; each ends the broker, most an agent or its connections as well.
ROUNDS = 50 if FULL else 4
#: What goes wrong in a round, in this order; a link is still away when the broker ends.
TROUBLES = (
    ("link", "broker"),
    ("broker", "agent"),
    ("reset", "broker"),
    ("link", "agent", "broker", "reset"),
)
#: Seconds that a link is away; every fifth time for longer than a broker waits for a sign of life
#: (1.5 * KEEPALIVE), and the agent too when it has something to say.
AWAY, LONG = (0.1, 3.0), 27.0
NAMES = ("m0", "m1", "m2", "m3")
STATUS = f"{ROOT}/hosts/chaos/status"
PROFILE = """\
qemu: {qemu}
platform: debian-12
machine: {{type: microvm, acpi: off}}
accel: tcg
memory: 32MiB
"""
#: Notes each QEMU that is started as a machine, whoever starts it: the effect itself is counted.
WRAPPER = """\
#!/bin/sh
for word; do
    case $word in guest=*) echo "$$ ${{word#guest=}}" >>{log} ;; esac
done
exec {qemu} "$@"
"""


class Host:
    """An agent behind a link and a relay, and what QEMUs were really started."""

    def __init__(self, folder, broker: Broker, port: int, prefix=()) -> None:
        self.spawned = folder / "spawned"
        self.spawned.touch()
        qemu = folder / "bin" / "qemu-system-x86_64"
        qemu.parent.mkdir()
        real = installed("11.1").binary
        qemu.write_text(WRAPPER.format(log=self.spawned, qemu=real))
        qemu.chmod(0o755)
        profiles = folder / "profiles"
        profiles.mkdir()
        for name in (*NAMES, "keep"):
            (profiles / f"{name}.yaml").write_text(PROFILE.format(qemu=qemu))
        policy = folder / "policy.yaml"
        policy.write_text(f"binaries: [{qemu.parent}]\nmemory: 64MiB\nqmp: [object-add]\n")
        words = (str(folder), "chaos", str(policy), str(profiles))
        self.agent = AgentProcess(broker, *words, prefix=prefix)
        self.agent.words[self.agent.words.index(broker.url)] = f"mqtt://{broker.address}:{port}"

    def starts(self) -> dict[str, list[int]]:
        """Pids of the machines' processes by name, in the order in which they were started."""
        found: dict[str, list[int]] = {name: [] for name in (*NAMES, "keep")}
        for line in self.spawned.read_text().splitlines():
            pid, name = line.split()
            found[name].append(int(pid))
        return found

    def living(self) -> dict[str, list[int]]:
        """Those of them that run."""
        return {
            name: [pid for pid in pids if self._is_machine(pid)]
            for name, pids in self.starts().items()
        }

    def _is_machine(self, pid: int) -> bool:
        """Whether it still is a QEMU of this host: another test's may have the number by now."""
        place = f"XDG_RUNTIME_DIR={self.agent.environment['XDG_RUNTIME_DIR']}".encode()
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read()
            with open(f"/proc/{pid}/environ", "rb") as file:
                return b"qemu-system" in words and place in file.read().split(b"\0")
        except OSError:
            return False


def commands_of(number: int) -> dict[str, tuple[str, dict[str, object]]]:
    """Ten commands of one round: each machine starts or ends, and four things that count."""
    found: dict[str, tuple[str, dict[str, object]]] = {}
    for name in NAMES:
        started = (number + NAMES.index(name)) % 2 == 0
        what = {"profile": name} if started else {"machine": name, "first": "SIGKILL"}
        found[f"r{number}-{name}"] = ("start" if started else "stop", what)
    for place in range(4):
        # A second time QEMU would refuse it: the id is taken.
        made = {"qom-type": "rng-builtin", "id": f"o{number}-{place}"}
        what = {"machine": "keep", "command": "object-add", "arguments": made}
        found[f"r{number}-o{place}"] = ("qmp", what)
    found[f"r{number}-query"] = ("query", {})
    found[f"r{number}-verify"] = ("verify", {"machine": "keep"})
    return found


async def disturb(number: int, broker: Broker, relay: Relay, link: Link, agent) -> None:
    """One round's trouble, somewhere in the middle of its commands."""
    for kind in TROUBLES[number % len(TROUBLES)]:
        await asyncio.sleep(random.uniform(0.0, 0.15))
        if kind == "link":
            long = FULL and len(link.cuts) % 5 == 4
            await link.cut(LONG if long else random.uniform(*AWAY))
        elif kind == "reset":
            relay.reset()
        elif kind == "agent":
            agent.kill()
            agent.start()
        else:
            broker.kill()
            await asyncio.sleep(random.uniform(0.0, 0.1))
            await asyncio.to_thread(broker.start)
    await link.whole()


async def check(sender: Sender, host: Host, commands: dict) -> None:
    """What was answered against what was really done."""
    unsure = set()
    for number, (verb, what) in commands.items():
        finals = [json.loads(payload) for payload in sender.finals[number]]
        answer = finals[-1]
        if verb in ("query", "verify"):  # without effect: done again by an agent that comes later
            assert answer["status"] == "done", answer
            continue
        assert len(set(sender.finals[number])) == 1, f"{number} has several answers: {finals}"
        if verb == "qmp" and answer["status"] == "failed":
            assert answer["error"]["code"] == "interrupted", answer
            unsure.add(what["arguments"]["id"])
            continue
        assert answer["status"] == "done", answer
        assert verb == "qmp" or answer["result"]["changed"] is True, answer
    made = {what["arguments"]["id"] for verb, what in commands.values() if verb == "qmp"}
    words = ("qmp", "keep", "qom-list", '{"path": "/objects"}')
    listed = json.loads((await asyncio.to_thread(host.agent.launcher, *words)).stdout)
    there = {one["name"] for one in listed} & made
    assert there | unsure == made
    # A machine that was being started when its agent was killed is ended and started anew.
    log, spawned = host.agent.log(), host.starts()
    assert "Traceback" not in log
    assert "never retrieved" not in log
    for name in NAMES:
        asked = [what for verb, what in commands.values() if what.get("profile") == name]
        count = len(asked) + (name in NAMES[1::2])
        again = log.count(f"{name}: abandoned")
        assert count <= len(spawned[name]) <= count + again
    assert len(spawned["keep"]) == 1
    print(
        f"{len(unsure)} of {len(made)} told as interrupted, {len(made - there)} of these not done"
    )


def check_retained(stranger: Stranger, host: Host) -> None:
    """What others see of this host against the processes that run.

    Once it has come back from the last trouble: a broker that was killed has forgotten what it did
    not save, and a host behind a silent link does not know yet.
    """
    running = {name: pids[0] for name, pids in host.living().items() if pids}
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        # By their pids: it may have kept what machines of the same names once were.
        found = {name: value["pid"] for name, value in _shown(stranger).items()}
        if found == running and _is_online(stranger.retained(STATUS)[STATUS]):
            break
        select.select([], [], [], 0.1)
    assert all(len(pids) <= 1 for pids in host.living().values())
    assert set(running) == {"keep", *(NAMES[1::2] if ROUNDS % 2 == 0 else NAMES[::2])}
    assert host.agent.machines() == running
    shown = _shown(stranger)
    assert {name: value["pid"] for name, value in shown.items()} == running
    assert {value["actual"] for value in shown.values()} == {"running"}
    assert {value["verdict"] for value in shown.values()} == {"match"}
    reports = stranger.retained(f"{ROOT}/hosts/chaos/machines/+/report")
    assert {topic.split("/")[-2] for topic, value in reports.items() if value} == set(running)
    status = stranger.retained(STATUS)
    assert [value["status"] for value in status.values()] == ["online"]


def _shown(stranger: Stranger) -> dict[str, dict]:
    """The retained state of each machine."""
    topics = stranger.retained(f"{ROOT}/hosts/chaos/machines/+/state")
    return {topic.split("/")[-2]: value for topic, value in topics.items() if value}


@pytest.fixture
def network():
    made = Network(1)
    yield made
    made.close()


@pytest.mark.timeout(1500 if FULL else 120)
async def test_each_command_has_one_effect_and_one_final_answer(tmp_path, network):
    broker = Broker(str(tmp_path), prefix=network.middle, address=BROKER)
    broker.start()
    relay, link = Relay(broker.socket, network.listen()), Link(network)
    # No link of the host's is on the sender's way, but it is in another namespace.
    door = Relay(broker.socket, socket.create_server(("127.0.0.1", 0)))
    begun, everything = time.monotonic(), {}
    async with relay, door:
        host = Host(tmp_path, broker, relay.port, network.inside(0))
        agent = host.agent
        agent.start()
        try:
            async with Sender(door.port, "chaos") as sender:
                first = {"keep": ("start", {"profile": "keep"})}
                first |= {f"first-{n}": ("start", {"profile": n}) for n in NAMES[1::2]}
                await sender.finish(first)
                for number in range(ROUNDS):
                    commands = commands_of(number)
                    everything |= commands
                    trouble = asyncio.ensure_future(disturb(number, broker, relay, link, agent))
                    for one, (verb, what) in commands.items():
                        # The bus delivers at least once.
                        await asyncio.gather(*(sender.send(one, verb, what) for _ in range(2)))
                    await trouble
                    await sender.finish(commands)
                await check(sender, host, everything)
            stranger = Stranger(broker, "chaos")
            await asyncio.to_thread(check_retained, stranger, host)
        finally:
            await link.whole()
            await asyncio.to_thread(agent.close)
            broker.close()
    kills = sum("agent" in TROUBLES[number % len(TROUBLES)] for number in range(ROUNDS))
    print(
        f"{len(everything)} commands, {sender.sent} sent, {ROUNDS} kills of the broker,"
        f" {kills} of the agent, {relay.resets} resets, link cut {len(link.cuts)} times for"
        f" {sum(link.cuts):.0f} s, {time.monotonic() - begun:.0f} s"
    )


async def test_a_relay_that_hangs_up_while_the_broker_is_away_is_tried_again_soon(tmp_path):
    """As load balancers do: they let everybody in, and hang up when there is no broker behind."""
    broker = Broker(str(tmp_path))
    relay = Relay(broker.socket, socket.create_server(("127.0.0.1", 0)))
    async with relay:
        agent = Host(tmp_path, broker, relay.port).agent
        agent.start()
        try:
            # Once it is up: three more attempts, each of which may not take ten seconds.
            for count, seconds in ((1, SECONDS), (4, 20)):
                async with asyncio.timeout(seconds):
                    while relay.taken < count:
                        relay.news.clear()
                        await relay.news.wait()
            broker.start()
            stranger = Stranger(broker, "chaos")
            await asyncio.to_thread(stranger.wait_retained, "status", _is_online)
        finally:
            await asyncio.to_thread(agent.close)
            broker.close()


def _is_online(status: dict) -> bool:
    return status["status"] == "online"


@pytest.mark.timeout(240)
def test_what_happened_behind_a_silent_link_is_told_when_it_is_back(tmp_path, network):
    """A machine dies and a command is sent meanwhile; in full also for so long that it is lost."""
    broker = Broker(str(tmp_path), prefix=network.middle, address=BROKER)
    broker.start()
    host = Host(tmp_path, broker, broker.port, network.inside(0))
    stranger = Stranger(broker, "chaos")
    pool = ThreadPoolExecutor(1)
    try:
        host.agent.start()
        stranger.wait_retained("status", _is_online)
        assert stranger.do("start", profile="keep")["status"] == "done"
        network.lose(0, True)
        began = time.monotonic()
        os.kill(host.living()["keep"][0], signal.SIGKILL)
        # Another one, for each has a topic of its own for its answers.
        asked = pool.submit(Stranger(broker, "chaos").do, "start", id="meanwhile", profile="m0")
        if FULL:
            stranger.wait_retained("status", lambda value: value["status"] == "lost")
            print(f"lost after {time.monotonic() - began:.1f} s")
        else:
            shown, took = stranger.retained(STATUS)[STATUS], time.monotonic() - began
            assert _is_online(shown) or (shown["status"], took > KEEPALIVE) == ("lost", True)
        shown = stranger.retained(f"{ROOT}/hosts/chaos/machines/+/state")
        # As far as anybody here can know.
        assert [value["actual"] for value in shown.values()] == ["running"]
        assert not asked.done()
        network.lose(0, False)
        began = time.monotonic()
        answer = asked.result(SECONDS)
        assert (answer["status"], answer["result"]["changed"]) == ("done", True), answer
        print(f"answered {time.monotonic() - began:.1f} s after it was back")
        stranger.wait_retained("status", _is_online)
        shown = stranger.retained(f"{ROOT}/hosts/chaos/machines/+/state")
        living = {name: pids for name, pids in host.living().items() if pids}
        assert {topic.split("/")[-2] for topic, value in shown.items() if value} == {"m0"}
        assert [(name, len(pids)) for name, pids in living.items()] == [("m0", 1)]
    finally:
        pool.shutdown()
        host.agent.close()
        broker.close()
