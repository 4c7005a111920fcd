"""A guest from one agent's host to another's: it goes on at one of them, and at exactly one."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import random
import re
import select
import signal
import sqlite3
import time
import uuid

import pytest

from integration.conftest import installed
from integration.mqtt import ROOT, AgentProcess, Broker, Stranger
from integration.namespaces import BROKER, Network
from tests.support.certificates import Authority

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

FULL = os.environ.get("QEMU_LAUNCHER_FULL") == "1"
PROFILE = """\
qemu: {qemu}
platform: debian-12
machine: {{type: microvm, acpi: off, pit: on, pic: on, rtc: on, isa-serial: on}}
accel: tcg
cpu: qemu64
memory: 128MiB
boot:
  kernel: {guest}/vmlinuz
  initrd: {guest}/initrd.img
  append: console=ttyS0 quiet loglevel=3 tick=0.1
serial: console
migration: {{parameters: {{max-bandwidth: {bandwidth}}}}}
"""


class Pair:
    """Two agents with one profile, `web`, each as its own QEMU release has it."""

    def __init__(self, broker, folder, guest, releases=("11.1", "11.1"), **more) -> None:
        self.broker, self.uuid, self.network = broker, "", more.get("network")
        mark = uuid.uuid4().hex[:8]
        self.names = [f"a{mark}", f"b{mark}"]
        self.agents, self.strangers = [], []
        for name, release in zip(self.names, releases, strict=True):
            home = folder / name
            profiles = home / "profiles"
            profiles.mkdir(parents=True)
            qemu = installed(release).binary
            bandwidth = more.get("bandwidth", "1GiB")
            (profiles / "web.yaml").write_text(
                PROFILE.format(qemu=qemu, guest=guest, bandwidth=bandwidth)
            )
            number = len(self.agents)
            network, authority = more.get("network"), more.get("authority")
            tls = authority and authority.qemu_folder(str(home / "tls"), name)
            policy = home / "policy.yaml"
            folders = [os.path.dirname(qemu), os.path.dirname(os.path.realpath(qemu))]
            rules = {
                "binaries": folders,
                "images": [guest, os.path.realpath(guest)],
                "migration-address": network.addresses[number] if network else "127.0.0.1",
                "migration-plaintext": "off" if tls else "on",
                **({"migration-tls": tls} if tls else {}),
                **more.get("policy", {}),
            }
            policy.write_text("".join(f"{k}: {json.dumps(v)}\n" for k, v in rules.items()))
            prefix = network.inside(number) if network else ()
            words = (str(home), name, str(policy), str(profiles))
            agent = AgentProcess(broker, *words, prefix=prefix)
            self.agents.append(agent)
            agent.start()
            self.strangers.append(Stranger(broker, name))
        for stranger in self.strangers:
            stranger.wait_retained("status", lambda value: value["status"] == "online")

    def close(self) -> None:
        for agent in self.agents:
            agent.close()

    def counts(self, end: int, least: int = 3, seconds: float = 40) -> list[int]:
        """The guest's own numbers, as its console at one end tells them; at least so many."""
        found: list[int] = []
        until = time.monotonic() + seconds
        while len(found) < least and time.monotonic() < until:
            answer = self.strangers[end].do("console", machine="web", seconds=1)
            assert answer["status"] == "done", answer
            found += [int(n) for n in re.findall(r"tick (\d+)\r?\n", answer["result"]["text"])]
        assert len(found) >= least, f"{found}: {self.agents[end].log()}"
        return found

    def running(self) -> list[int]:
        """At which ends a copy of the guest runs, as QEMU itself says."""
        found = []
        for number, agent in enumerate(self.agents):
            while "web" in agent.machines():
                done = agent.launcher("qmp", "web", "query-status")
                if done.returncode == 0:  # else its agent speaks to it just now
                    found += [number] * json.loads(done.stdout)["running"]
                    break
        return found

    def state(self, end: int) -> dict:
        topics = self.strangers[end].retained(f"{ROOT}/hosts/{self.names[end]}/machines/web/state")
        return next((value for value in topics.values() if value), {})


@pytest.fixture
def network():
    made = Network(2)
    yield made
    made.close()


@pytest.fixture
def make_pair(broker, tmp_path, guest):
    """Pairs of agents that are gone, with all that they started, after the test."""
    made = []

    def make(releases=("11.1", "11.1"), **more) -> Pair:
        pair = Pair(broker, tmp_path, guest, releases, **more)
        made.append(pair)
        return pair

    yield make
    for pair in made:
        pair.close()
        assert [agent.machines() for agent in pair.agents] == [{}, {}]


def test_what_cannot_go_is_refused_and_stays(make_pair):
    """By the preflight, by the other host's policy, and by its absence."""
    pair = make_pair(("10.0", "7.2"))
    here = pair.strangers[0]
    native = {"profile": "web", "platform": "native", "name": "other"}
    assert here.do("start", **native)["status"] == "done"
    found = here.do("preflight", machine="other", to=pair.names[1])
    assert found["result"]["counts"]["breaks"] >= 1, found
    refused = here.do("migrate", machine="other", to=pair.names[1])
    assert refused["error"]["code"] == "preflight", refused
    assert "send-switchover-start" in refused["error"]["message"]
    failed = here.do("migrate", machine="other", to=pair.names[1], force=True)
    assert failed["error"]["code"] == "migration", failed
    assert "MIG_CMD 0xb unknown" in failed["error"]["message"]
    absent = here.do("migrate", machine="other", to="nowhere")
    assert absent["error"]["code"] == "silent", absent
    with open(os.path.join(pair.agents[1].folder, "policy.yaml"), "a") as file:
        file.write("migrate-from: [h-1]\n")
    pair.agents[1].kill()
    pair.agents[1].start()
    denied = here.do("migrate", machine="other", to=pair.names[1])
    assert denied["error"]["code"] == "policy", denied
    state = here.do("query", machine="other")["result"]
    assert (state["status"], state["actual"], state["moving"]) == ("running", "running", None)
    assert pair.agents[1].machines() == {}
    assert here.retained(f"{ROOT}/hosts/{pair.names[1]}/machines/#") == {}


@pytest.fixture
def far(network, tmp_path, guest):
    """Two hosts in network namespaces, with the shipped broker's rules and TLS everywhere."""
    authority = Authority(str(_folder(tmp_path, "authority")))
    folder = str(_folder(tmp_path, "broker"))
    broker = Broker(folder, prefix=network.middle, address=BROKER, authority=authority)
    pair = None
    broker.start()
    try:
        pair = Pair(broker, tmp_path, guest, ("7.2", "11.1"), network=network, authority=authority)
        yield pair
    finally:
        if pair is not None:
            pair.close()
        broker.close()


def _folder(parent, name):
    made = parent / name
    made.mkdir()
    return made


def test_a_guest_goes_over_tls_to_a_host_in_another_namespace_and_back(far):
    """With the shipped rules of the broker, from QEMU 7.2 to 11.1: it counts on without a gap."""
    here, there = far.strangers
    started = here.do("start", profile="web")
    assert started["status"] == "done", started
    before = far.counts(0)
    found = here.do("preflight", machine="web", to=far.names[1])
    assert found["result"]["counts"]["breaks"] == 0, found
    assert far.agents[1].machines() == {}
    moved = here.do("migrate", machine="web", to=far.names[1])
    assert moved["status"] == "done", (moved, far.agents[0].log(), far.agents[1].log())
    result = moved["result"]
    assert (result["from"], result["to"], result["tls"]) == (*far.names, True)
    print(result["timings"])
    after = far.counts(1)
    assert after[0] > before[-1]
    assert after == list(range(after[0], after[0] + len(after)))
    assert far.running() == [1]
    assert (far.agents[0].machines(), far.state(0)) == ({}, {})
    state = far.state(1)
    assert (state["actual"], state["verdict"]) == ("running", "match")
    assert state["uuid"] == started["result"]["uuid"]
    back = there.do("migrate", machine="web", to=far.names[0])
    assert back["status"] == "done", back
    assert far.running() == [0]
    assert far.counts(0)[0] > after[-1]
    assert here.do("start", profile="web")["result"]["changed"] is False


# -- whatever dies --------------------------------------------------------------------------------


def qemus(guest_uuid: str) -> dict[int, str]:
    """Every QEMU of this machine with that UUID, and whose runtime directory it was given."""
    found = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
            with open(f"/proc/{entry}/environ", "rb") as file:
                places = [one for one in file.read().split(b"\0") if one.startswith(b"XDG_RUN")]
        except OSError:
            continue
        if guest_uuid.encode() in words and b"-uuid" in words:
            found[int(entry)] = places[0].decode()
    return found


def settled(pair: Pair, lost: bool, seconds: float = 90) -> list[dict]:
    """The states of both hosts, once neither waits for the other any more.

    A guest that was told to run elsewhere and is dead there waits for a person.
    """
    open_ones = ("incoming", "migrating", "starting", *(() if lost else ("unsettled",)))
    until = time.monotonic() + seconds
    states: list[dict] = []
    while time.monotonic() < until:
        states = [pair.state(0), pair.state(1)]
        if not any(one.get("actual") in open_ones for one in states):
            return states
    raise AssertionError((states, pair.agents[0].log(), pair.agents[1].log()))


def decisions(agent: AgentProcess) -> dict[str, str]:
    """How each migration ended, as the journal of a host that is down has it."""
    path = os.path.join(agent.environment["XDG_STATE_HOME"], "qemu-launcher/agent/journal.sqlite")
    with contextlib.closing(sqlite3.connect(path)) as base:
        return dict(base.execute("SELECT id, phase FROM move"))


#: A cable that is pulled for longer than a destination waits takes a minute a round.
VICTIMS = ("source", "destination", "broker", "source QEMU", "destination QEMU")
VICTIMS += ("destination's cable", "source's cable") if FULL else ()


def kill_one(pair: Pair, victim: str, here: int) -> None:
    """End something as a power cut would, and start again what starts again by itself."""
    there = 1 - here
    if victim.endswith("cable"):
        end = there if victim.startswith("destination") else here
        pair.network.plug(end, False)
        time.sleep(27)  # it is gone for longer than either side waits, and that is the point
        pair.network.plug(end, True)
    elif victim == "broker":
        pair.broker.kill()
        pair.broker.start()
    elif victim in ("source", "destination"):
        agent = pair.agents[here if victim == "source" else there]
        agent.kill()
        agent.start()
    else:
        agent = pair.agents[here if victim == "source QEMU" else there]
        mine = f"XDG_RUNTIME_DIR={agent.environment['XDG_RUNTIME_DIR']}"
        for pid, place in qemus(pair.uuid).items():
            if place == mine:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@pytest.mark.timeout(3600 if FULL else 600)
def test_whatever_is_killed_at_whatever_moment_one_copy_runs(tmp_path, network, guest):
    """Agents, QEMUs and the broker, each killed with -9 while a guest is on its way; and cables."""
    rounds = 140 if FULL else 3
    broker = Broker(str(_folder(tmp_path, "own-broker")), prefix=network.middle, address=BROKER)
    broker.start()
    pair = Pair(broker, tmp_path, guest, bandwidth="24MiB", network=network)
    moments = random.Random(6)
    came = collections.Counter()
    try:
        here = None
        for number in range(rounds):
            victim = VICTIMS[number % len(VICTIMS)]
            if here is None:
                here = 0
                started = pair.strangers[0].do("start", profile="web")
                assert started["status"] == "done", started
                pair.uuid = started["result"]["uuid"]
                pair.counts(0)
            command = {"id": f"m{number}", "machine": "web", "to": pair.names[1 - here]}
            # Half of them where it is decided: the destination has just said that it has all.
            proved = f"{ROOT}/hosts/{pair.names[here]}/peer/{pair.names[1 - here]}/proved"
            listener = pair.strangers[here].listen(proved, 1) if number % 2 else None
            pair.strangers[here].send("migrate", json.dumps(command))
            if listener is not None:
                select.select([listener.stdout], [], [], 20)
            else:
                time.sleep(moments.uniform(0.0, 3.0))  # the moment of the kill is what is drawn
            kill_one(pair, victim, here)
            if listener is not None:
                listener.kill()
                listener.wait()
                listener.stdout.close()
            outcome = pair.strangers[here].do("migrate", **command)
            while outcome["status"] == "running":
                outcome = pair.strangers[here].do("migrate", **command)
            code = (outcome["error"] or {}).get("code")
            states = settled(pair, lost=victim == "destination QEMU")
            running, alive = pair.running(), qemus(pair.uuid)
            shown = repr((number, victim, outcome, states, running, alive))
            logs = "\n".join(agent.log()[-3000:] for agent in pair.agents)
            assert len(running) <= 1, f"{shown}\n{logs}"
            if outcome["status"] == "done" and not running:
                # It went, and was killed there.
                assert victim == "destination QEMU", f"{shown}\n{logs}"
                came["gone"] += 1
            elif outcome["status"] == "done":
                assert running == [1 - here], f"{shown}\n{logs}"
                came["moved"] += 1
            elif running and code == "unsettled":
                # It was said that it is not known; both hosts agree by now.
                came["settled later"] += 1
            elif running:
                assert running == [here], f"{shown}\n{logs}"
                came["stayed"] += 1
            else:
                # Only what killed the guest itself may leave none; and it is said.
                assert victim.endswith("QEMU"), f"{shown}\n{logs}"
                assert outcome["status"] == "failed", f"{shown}\n{logs}"
                came["gone"] += 1
            if running:
                assert len(alive) == 1, f"{shown}\n{logs}"
                here = running[0]
                assert states[here]["actual"] == "running", f"{shown}\n{logs}"
                assert states[1 - here] == {}, f"{shown}\n{logs}"
                continue
            if states[here].get("actual") == "unsettled":
                assert code == "lost", f"{shown}\n{logs}"
                again = pair.strangers[here].do("resume", machine="web", force=True)
                assert again["status"] == "done", again
                assert pair.running() == [here]
            else:
                here = None
                assert alive == {}, f"{shown}\n{logs}"
        print(dict(came))
    finally:
        for agent in pair.agents:
            agent.kill()
        ends = [decisions(agent) for agent in pair.agents]
        for key in ends[0].keys() & ends[1].keys():
            # What one host ran on word of the other, the other did not go on with.
            assert {ends[0][key], ends[1][key]} != {"kept", "committed"}
        for agent in pair.agents:
            agent.close()
            assert agent.machines() == {}
        broker.close()
