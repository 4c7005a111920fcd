"""A guest from one agent's host to another's: it goes on at one of them, and at exactly one."""

from __future__ import annotations

import json
import os
import re
import time
import uuid

import pytest

from integration.conftest import installed
from integration.mqtt import ROOT, AgentProcess, Broker, Stranger

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
        self.broker = broker
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
            tls = more.get("tls", {}).get(name)
            policy = home / "policy.yaml"
            folders = [os.path.dirname(qemu), os.path.dirname(os.path.realpath(qemu))]
            rules = {
                "binaries": folders,
                "images": [guest, os.path.realpath(guest)],
                "migration-address": "127.0.0.1",
                "migration-plaintext": "off" if tls else "on",
                **({"migration-tls": tls} if tls else {}),
                **more.get("policy", {}),
            }
            policy.write_text("".join(f"{k}: {json.dumps(v)}\n" for k, v in rules.items()))
            agent = AgentProcess(broker, str(home), name, str(policy), str(profiles))
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
            done = agent.launcher("qmp", "web", "query-status")
            if done.returncode == 0 and json.loads(done.stdout)["running"]:
                found.append(number)
        return found

    def state(self, end: int) -> dict:
        topics = self.strangers[end].retained(f"{ROOT}/hosts/{self.names[end]}/machines/web/state")
        return next((value for value in topics.values() if value), {})


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    made = Broker(str(tmp_path_factory.mktemp("broker")))
    made.start()
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


def test_a_guest_goes_on_at_the_other_host(make_pair):
    pair = make_pair(("7.2", "11.1"))
    here, there = pair.strangers
    started = here.do("start", profile="web")
    assert started["status"] == "done", started
    before = pair.counts(0)
    found = here.do("preflight", machine="web", to=pair.names[1])
    assert found["status"] == "done", found
    assert found["result"]["counts"]["breaks"] == 0, found
    assert pair.agents[1].machines() == {}
    moved = here.do("migrate", machine="web", to=pair.names[1])
    assert moved["status"] == "done", (moved, pair.agents[0].log(), pair.agents[1].log())
    assert (moved["result"]["from"], moved["result"]["to"]) == tuple(pair.names)
    assert pair.agents[0].machines() == {}
    assert pair.running() == [1]
    after = pair.counts(1)
    assert after[0] > before[-1]
    assert after == list(range(after[0], after[0] + len(after)))
    assert pair.state(0) == {}
    state = pair.state(1)
    assert (state["actual"], state["uuid"]) == ("running", started["result"]["uuid"])
    assert state["verdict"] == "match"
    # And back.
    back = there.do("migrate", machine="web", to=pair.names[0])
    assert back["status"] == "done", back
    assert pair.running() == [0]
    assert pair.counts(0)[0] > after[-1]
    assert here.do("start", profile="web")["result"]["changed"] is False
