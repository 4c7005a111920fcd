"""A broker with rules of its own that refuses a subscription or throws a message away.

Mosquitto's files of rules grant every subscription and deliver nothing; its dynamic security says
no, as other brokers do.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time

import pytest

from integration.fleet_hosts import fleet_json, make_host
from integration.mqtt import ROOT, Broker, Stranger

pytestmark = pytest.mark.integration

OWN = f"{ROOT}/hosts/h1"


class Ruled(Broker):
    """A mosquitto that forbids some topics to everybody.

    Args:
        folder: of its own.
        forbidden: pairs of an ACL type of dynamic security and a topic.
    """

    def __init__(self, folder, forbidden) -> None:
        super().__init__(str(folder))
        plugin = os.path.join(
            os.path.dirname(self.tools),
            "root/usr/lib/x86_64-linux-gnu/mosquitto_dynamic_security.so",
        )
        rules = [
            {"acltype": kind, "topic": topic, "priority": 0, "allow": False}
            for kind, topic in forbidden
        ]
        kinds = ("publishClientSend", "publishClientReceive", "subscribe", "unsubscribe")
        file = os.path.join(self.folder, "rules.json")
        with open(file, "w") as out:
            json.dump(
                {
                    "defaultACLAccess": dict.fromkeys(kinds, True),
                    "clients": [],
                    "roles": [{"rolename": "all", "acls": rules}],
                    "groups": [{"groupname": "nobody", "roles": [{"rolename": "all"}]}],
                    "anonymousGroup": "nobody",
                },
                out,
            )
        with open(self.config, "a") as out:
            out.write(f"plugin {plugin}\nplugin_opt_config_file {file}\n")


@pytest.fixture
def ruled(tmp_path):
    """How such a broker is made."""
    made = []

    def make(*forbidden) -> Broker:
        folder = tmp_path / "broker"
        folder.mkdir()
        broker = Ruled(folder, forbidden)
        made.append(broker)
        broker.start()
        return broker

    yield make
    for broker in made:
        broker.close()


def check(broker: Broker, *words: str) -> tuple[int, dict[str, tuple[bool, str]]]:
    command = [sys.executable, "-m", "launcher", "agent", "--check", "--format", "json"]
    command += ["--broker", broker.url, "--host-id", "h1", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    rows = json.loads(done.stdout)["checks"]
    return done.returncode, {row["what"]: (row["good"], row["found"]) for row in rows}


def wait_for(agent, words: str) -> str:
    until = time.monotonic() + 60
    while words not in agent.log():
        assert time.monotonic() < until, agent.log()
        select.select([], [], [], 0.05)
    return agent.log()


@pytest.fixture
def hosted(tmp_path):
    """How an agent is made, which need not be online."""
    made = []

    def make(broker: Broker, *more: str, online: bool = True):
        folder = tmp_path / "h1"
        folder.mkdir()
        agent = make_host(broker, str(folder), "h1", more=more, online=online)
        made.append(agent)
        return agent

    yield make
    for agent in made:
        agent.close()


def test_an_agent_that_may_not_hear_its_commands_ends_and_says_so(ruled, hosted):
    """It would be `online` and deaf."""
    broker = ruled(("subscribeLiteral", f"{OWN}/command/+"))
    status, rows = check(broker)
    good, found = rows["hear what is for this host"]
    assert (status, good) == (1, False)
    assert found.startswith(f"the broker refuses {OWN}/command/+: Not authorized: write an ACL")
    agent = hosted(broker, online=False)
    assert agent.process.wait(60) == 4
    said = agent.log()
    assert f"the broker refuses the subscription to {OWN}/command/+: Not authorized" in said
    assert "packaging/agent/acl.conf" in said
    # Nobody is told of one that does not listen.
    assert Stranger(broker, "h1").retained(f"{OWN}/status") == {}


def test_an_agent_that_gets_no_starts_of_a_pool_says_so_and_serves_its_host(ruled, hosted):
    broker = ruled(("subscribePattern", f"$share/+/{ROOT}/pool/web/start"))
    status, rows = check(broker, "--pool", "web", "--pool", "db")
    assert (status, rows["starts of the pool db"]) == (1, (True, "the broker grants it"))
    good, found = rows["starts of the pool web"]
    assert (good, "Not authorized" in found) == (False, True)
    agent = hosted(broker, "--pool", "web", "--pool", "db")
    said = wait_for(agent, "takes no starts of the pool web: ")
    assert f"refuses the subscription to $share/web/{ROOT}/pool/web/start: Not authorized" in said
    stranger = Stranger(broker, "h1")
    assert stranger.do("query")["result"] == {"machines": []}
    # Each attempt is the same; it is told once.
    select.select([], [], [], 6)
    assert agent.log().count("takes no starts of the pool") == 1


def test_a_desk_that_is_not_answered_looks_and_is_told_why_it_cannot_command(ruled, hosted):
    broker = ruled(("subscribePattern", f"{ROOT}/reply/fleet/+"))
    hosted(broker)
    assert fleet_json(broker, "ls")["hosts"][0]["name"] == "h1"
    error = fleet_json(broker, "start", "h1", "web")["error"]
    assert error["code"] == "access"
    assert f"refuses the subscription to {ROOT}/reply/fleet/" in error["message"]


def test_a_desk_whose_commands_are_thrown_away_is_told_at_once(ruled, hosted):
    broker = ruled(("publishClientSend", f"{OWN}/command/start"))
    agent = hosted(broker)
    before = time.monotonic()
    error = fleet_json(broker, "start", "h1", "web", "--timeout", "50")["error"]
    assert time.monotonic() - before < 30
    assert error["code"] == "access"
    assert (
        "h1: the broker does not take the command start of us: Not authorized" in error["message"]
    )
    assert f"{OWN}/command/start" in error["hint"]
    assert fleet_json(broker, "verify", "h1")["machines"] == []
    assert agent.machines() == {}


def test_an_agent_whose_answers_are_thrown_away_says_so_once(ruled, hosted):
    broker = ruled(("publishClientSend", f"{ROOT}/reply/#"))
    agent = hosted(broker)
    stranger = Stranger(broker, "h1")
    for number in range(3):
        stranger.send("query", json.dumps({"id": f"q{number}"}))
    said = wait_for(agent, "the broker throws away what goes to ")
    assert f"{stranger.reply}: Not authorized (the broker's rules must allow it" in said
    stranger.send("start", json.dumps({"id": "s", "profile": "web"}))
    # It is done all the same, and told to whoever may hear it.
    stranger.wait_retained("machines/web/state", lambda state: state["actual"] == "running")
    assert agent.log().count("the broker throws away") == 1
    assert list(agent.machines()) == ["web"]
