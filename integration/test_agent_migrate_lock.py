"""A machine that was started locked is what its lock says at each host that it comes to."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3

import pytest

from integration.mqtt import ROOT
from integration.test_agent_migrate import Pair

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


VALUES = (1111, 2222)


@pytest.fixture
def pair(broker, tmp_path, guest):
    """Each host has a lock of its own beside its profile, and they differ in one value."""
    made = Pair(broker, tmp_path, guest, ("7.2", "10.0"))
    for agent, value in zip(made.agents, VALUES, strict=True):
        with open(profile_of(agent), "a") as file:
            file.write("objects: {io0: {qom-type: iothread}}\n")
        words = ("lock", profile_of(agent), "--set", f"objects.io0.poll-max-ns={value}")
        assert agent.launcher(*words).returncode == 0
    yield made
    made.close()
    assert [agent.machines() for agent in made.agents] == [{}, {}]


def profile_of(agent) -> str:
    return os.path.join(agent.folder, "profiles", "web.yaml")


def value_at(pair: Pair, end: int) -> int:
    """What QEMU itself has."""
    words = ("web", "qom-get", "path=/objects/io0", "property=poll-max-ns")
    return json.loads(pair.agents[end].launcher("qmp", *words).stdout)


def lock_at(pair: Pair, end: int) -> dict:
    """What a host publishes of the machine's lock."""
    topic = f"{ROOT}/hosts/{pair.names[end]}/machines/web/lock"
    return pair.strangers[end].retained(topic).get(topic) or {}


def test_a_lock_goes_with_the_machine_there_and_back(pair):
    here, there = pair.strangers
    started = here.do("start", profile="web", locked=True)
    assert started["status"] == "done", started
    lock = lock_at(pair, 0)
    print(f"{len(json.dumps(lock))} bytes of a lock")
    assert value_at(pair, 0) == VALUES[0]
    # The file is not what decides any more, at either host.
    os.unlink(profile_of(pair.agents[0]).replace(".yaml", ".lock.yaml"))
    found = here.do("preflight", machine="web", to=pair.names[1])
    assert found["status"] == "done", found
    assert found["result"]["counts"]["breaks"] == 0, found
    moved = here.do("migrate", machine="web", to=pair.names[1])
    assert moved["status"] == "done", moved
    assert pair.running() == [1]
    assert pair.state(1)["verdict"] == "match"
    assert value_at(pair, 1) == VALUES[0]
    assert lock_at(pair, 1) == lock
    assert lock_at(pair, 0) == {}
    back = there.do("migrate", machine="web", to=pair.names[0])
    assert back["status"] == "done", back
    assert pair.running() == [0]
    assert value_at(pair, 0) == VALUES[0]
    assert lock_at(pair, 0) == lock


def test_a_host_whose_profile_is_another_does_not_take_it(pair):
    here = pair.strangers[0]
    assert here.do("start", profile="web", locked=True)["status"] == "done"
    with open(profile_of(pair.agents[1]), "r+") as file:
        text = file.read().replace("memory: 128MiB", "memory: 160MiB")
        file.seek(0)
        file.write(text)
    refused = here.do("migrate", machine="web", to=pair.names[1])
    assert refused["status"] == "failed", refused
    assert "web.lock.yaml" in refused["error"]["message"], refused
    assert pair.running() == [0]


def test_a_lock_that_an_agent_was_killed_before_it_kept_is_kept_by_the_next(pair):
    """The machine runs, and the command that started it is sent again."""
    here, agent = pair.strangers[0], pair.agents[0]
    assert here.do("start", profile="web", locked=True)["status"] == "done"
    lock = lock_at(pair, 0)
    agent.kill()
    path = os.path.join(agent.environment["XDG_STATE_HOME"], "qemu-launcher/agent/journal.sqlite")
    with contextlib.closing(sqlite3.connect(path)) as base, base:
        assert base.execute("DELETE FROM paper WHERE kind = 'lock'").rowcount == 1
    agent.start()
    again = here.do("start", profile="web", locked=True)
    assert (again["status"], again["result"]["changed"]) == ("done", False)
    assert here.do("migrate", machine="web", to=pair.names[1])["status"] == "done"
    assert lock_at(pair, 1) == lock
