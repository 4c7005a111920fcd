"""A guest from one agent's host to another's: it goes on at one of them, and at exactly one."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import random
import select
import signal
import sqlite3
import time

import pytest

from integration.agent_pair import Pair, qemus
from integration.mqtt import ROOT, AgentProcess, Broker
from integration.namespaces import BROKER, Network
from integration.one_copy import Watcher
from launcher.agent.moves.arriving import LEASE
from tests.support.certificates import Authority

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

FULL = os.environ.get("QEMU_LAUNCHER_FULL") == "1"


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
    pair.strangers[1].wait_retained("status", lambda value: value["status"] == "lost")
    pair.agents[1].start()
    pair.strangers[1].wait_retained("status", lambda value: value["status"] == "online")
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
        pair = Pair(broker, tmp_path, guest, ("10.0", "11.1"), network=network, authority=authority)
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
    """With the shipped rules of the broker, from QEMU 10.0 to 11.1: it counts on without a gap."""
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


def settled(pair: Pair, lost: bool, seconds: float = 90) -> list[dict]:
    """The states of both hosts, once neither waits for the other any more.

    A guest that was told to run elsewhere and is dead there waits for a person.
    """
    # A broker that was killed has older states again until each host has come back to it.
    for stranger in pair.strangers:
        assert stranger.do("query")["status"] == "done"
    open_ones = ("incoming", "migrating", "starting", *(() if lost else ("unsettled",)))
    until = time.monotonic() + seconds
    states: list[dict] = []
    while time.monotonic() < until:
        states = pair.states()
        if not any(one.get("actual") in open_ones for one in states):
            return states
    raise AssertionError((states, pair.agents[0].log(), pair.agents[1].log()))


def decisions(agent: AgentProcess) -> dict[str, str]:
    """How each migration ended, as the journal of a host that is down has it."""
    path = os.path.join(agent.environment["XDG_STATE_HOME"], "qemu-launcher/agent/journal.sqlite")
    with contextlib.closing(sqlite3.connect(path)) as base:
        return dict(base.execute("SELECT id, phase FROM move"))


VICTIMS = ("source", "destination", "broker", "source QEMU", "destination QEMU")
#: Now and then in a full run, for a cable is away for longer than either side waits: seconds.
CABLES, AWAY, NOW_AND_THEN = ("destination's cable", "source's cable"), LEASE + 2, 13


def victim_of(number: int) -> str:
    """What dies in a round; of each kind both at a random moment and where it is decided."""
    if FULL and number % NOW_AND_THEN == NOW_AND_THEN - 1:
        return CABLES[number // NOW_AND_THEN // 2 % 2]
    return VICTIMS[number % len(VICTIMS)]


def kill_one(pair: Pair, victim: str, here: int) -> None:
    """End something as a power cut would, and start again what starts again by itself."""
    there = 1 - here
    if victim.endswith("cable"):
        end = there if victim.startswith("destination") else here
        pair.network.plug(end, False)
        time.sleep(AWAY)  # for so long it is away, and that is the point
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


@contextlib.contextmanager
def ending(pair: Pair, broker: Broker):
    """End both hosts at last; what their journals say goes together."""
    try:
        yield
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


@pytest.mark.timeout(2400 if FULL else 600)
def test_whatever_is_killed_at_whatever_moment_one_copy_runs(tmp_path, network, guest):
    """Agents, QEMUs and the broker, each killed with -9 while a guest is on its way; and cables."""
    rounds = 140 if FULL else 3
    broker = Broker(str(_folder(tmp_path, "own-broker")), prefix=network.middle, address=BROKER)
    broker.start()
    watcher = Watcher(str(tmp_path / "m"))
    # A disk that both see: who goes on needs its lock, which a copy that still lives may hold.
    image = _folder(tmp_path, "images") / "a.raw"
    image.write_bytes(bytes(1 << 20))
    more = {
        "bandwidth": "24MiB",
        "network": network,
        "monitors": str(tmp_path / "m"),
        "disks": [f"disk: {image}\n"] * 2,
        "policy": {"images": [guest, os.path.realpath(guest), str(image.parent)]},
    }
    pair = Pair(broker, tmp_path, guest, **more)
    moments = random.Random(6)
    came = collections.Counter()
    with watcher, ending(pair, broker):
        here = None
        for number in range(rounds):
            victim = victim_of(number)
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
            assert not watcher.overlaps(), f"{watcher.overlaps()} {shown}\n{logs}"
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
        print(dict(came), f"{watcher.copies} copies, asked {watcher.looks} times")
        assert watcher.together == 2
