"""The agent on the real broker, driven by a stranger who has mosquitto's own clients."""

from __future__ import annotations

import json
import os
import signal
import time
import uuid

import pytest

from integration.conftest import installed
from integration.mqtt import ROOT, AgentProcess, Broker, Stranger

pytestmark = pytest.mark.integration

FULL = os.environ.get("QEMU_LAUNCHER_FULL") == "1"
PROFILE = """\
qemu: {qemu}
platform: debian-12
machine: {{type: microvm, acpi: off}}
accel: tcg
memory: 32MiB
"""


@pytest.fixture
def make_agent(tmp_path):
    """Agents that are gone, with all that they started, after the test."""
    made = []

    def make(broker: Broker, more: str = "") -> AgentProcess:
        qemu = installed("11.1").binary
        profiles = tmp_path / "profiles"
        profiles.mkdir()
        for name in ("web", *(f"m{number}" for number in range(20))):
            (profiles / f"{name}.yaml").write_text(PROFILE.format(qemu=qemu))
        folders = f"[{os.path.dirname(qemu)}, {os.path.dirname(os.path.realpath(qemu))}]"
        policy = tmp_path / "policy.yaml"
        policy.write_text(f"binaries: {folders}\nmemory: 64MiB\n{more}")
        host = f"h{uuid.uuid4().hex[:8]}"
        agent = AgentProcess(broker, str(tmp_path), host, str(policy), str(profiles))
        made.append(agent)
        agent.start()
        Stranger(broker, host).wait_retained("status", lambda value: value["status"] == "online")
        return agent

    yield make
    for agent in made:
        agent.close()
        assert agent.machines() == {}


def test_a_stranger_starts_verifies_pauses_and_stops_a_machine(broker, make_agent):
    agent = make_agent(broker)
    stranger = Stranger(broker, agent.host)
    started = stranger.do("start", profile="web")
    assert (started["status"], started["result"]["changed"]) == ("done", True)
    assert agent.machines() == {"web": started["result"]["pid"]}
    again = stranger.do("start", profile="web")
    assert (again["status"], again["result"]["changed"]) == ("done", False)
    other = stranger.do("start", profile="web", settings=["memory=48MiB"])
    assert (other["status"], other["error"]["code"]) == ("failed", "conflict")
    assert stranger.do("verify", machine="web")["result"]["verdict"] == "match"
    assert stranger.do("pause", machine="web")["status"] == "done"
    assert stranger.do("query", machine="web")["result"]["status"] == "paused"
    assert stranger.do("resume", machine="web")["status"] == "done"
    told = stranger.do("qmp", machine="web", command="query-status")
    assert told["result"]["status"] == "running"
    assert stranger.do("stop", machine="web", first="quit")["result"]["by"] == "quit"
    assert agent.machines() == {}
    topics = stranger.retained(f"{ROOT}/hosts/{agent.host}/machines/#")
    assert {topic: value for topic, value in topics.items() if value} == {}


def test_plan_lock_and_facts_start_nothing_that_stays(broker, make_agent):
    agent = make_agent(broker)
    stranger = Stranger(broker, agent.host)
    assert stranger.do("plan", profile="web")["result"]["machine"] == "microvm"
    assert stranger.do("lock", profile="web")["result"]["lock"]["values"]
    assert stranger.do("facts")["result"]["format"] == "host-facts-1"
    assert agent.machines() == {}


def test_answers_carry_the_correlation_and_come_in_order(broker, make_agent):
    agent = make_agent(broker)
    stranger = Stranger(broker, agent.host)
    found = stranger.answers("query", '{"id": "q-1"}', 2)
    assert [one["answer"]["status"] for one in found] == ["accepted", "done"]
    assert {one["properties"]["correlation-data"] for one in found} == {"token"}


def test_an_id_is_done_once_and_answered_each_time(broker, make_agent):
    agent = make_agent(broker)
    stranger = Stranger(broker, agent.host)
    first = stranger.do("start", id="one", profile="web")
    assert stranger.do("stop", id="two", machine="web", first="SIGKILL")["status"] == "done"
    # The machine is stopped: the same id again must not start it again.
    assert stranger.do("start", id="one", profile="web") == first
    assert agent.machines() == {}
    # Another agent process remembers, too.
    agent.kill()
    agent.start()
    assert stranger.do("start", id="one", profile="web") == first
    assert agent.machines() == {}
    assert stranger.do("stop", id="one", machine="web")["error"]["code"] == "id-reused"


def test_retained_and_expired_commands_are_not_done(broker, make_agent):
    agent = make_agent(broker)
    stranger = Stranger(broker, agent.host)
    payload = json.dumps({"id": "kept", "profile": "web"})
    agent.kill(signal.SIGTERM)
    stranger.send("start", payload, "-r")
    listener = stranger.listen(stranger.reply, 1)
    agent.start()
    try:
        stranger.wait_retained("status", lambda value: value["status"] == "online")
        # A broker hands out what is retained at each subscription.
        found = [json.loads(line)["payload"] for line in listener.stdout]
        answers = [json.loads(one) if isinstance(one, str) else one for one in found]
        assert answers[0]["error"]["code"] in ("retained", "expired")
        assert stranger.do("query")["result"]["machines"] == []
    finally:
        listener.kill()
        listener.wait()
        listener.stdout.close()
        stranger.publish(f"{ROOT}/hosts/{agent.host}/command/start", b"", "-r")


def test_killed_with_its_machines_running_it_finds_them_all_again(broker, make_agent):
    count = 20 if FULL else 4
    agent = make_agent(broker)
    stranger = Stranger(broker, agent.host)
    for number in range(count):
        assert stranger.do("start", profile=f"m{number}")["status"] == "done"
    before = agent.machines()
    assert len(before) == count
    agent.kill()
    os.kill(before.pop("m0"), signal.SIGKILL)  # one dies meanwhile
    agent.start()
    stranger.wait_retained(
        "status",
        lambda value: (
            value["status"] == "online" and value["capacity"]["used"]["machines"] == count - 1
        ),
    )
    found = stranger.do("query")["result"]["machines"]
    assert {one["name"]: one["pid"] for one in found} == before == agent.machines()
    assert {one["verdict"] for one in found} == {"match"}
    assert "m0: died" in agent.log()


def test_a_machine_of_somebody_else_is_left_alone_until_it_is_adopted(broker, make_agent):
    agent = make_agent(broker)
    stranger = Stranger(broker, agent.host)
    profile = os.path.join(agent.folder, "profiles", "web.yaml")
    assert agent.launcher("run", "--detach", profile).returncode == 0
    pid = agent.machines()["web"]
    for verb, more in (("stop", {}), ("qmp", {"command": "query-status"}), ("forget", {})):
        assert stranger.do(verb, machine="web", **more)["error"]["code"] == "foreign"
    assert stranger.do("start", profile="web")["error"]["code"] == "busy"
    assert agent.machines() == {"web": pid}
    assert stranger.do("adopt", machine="web")["result"]["verdict"] == "match"
    assert stranger.do("forget", machine="web")["status"] == "done"
    assert agent.machines() == {"web": pid}


def test_a_machine_that_dies_is_told(broker, make_agent):
    agent = make_agent(broker)
    stranger = Stranger(broker, agent.host)
    pid = stranger.do("start", profile="web")["result"]["pid"]
    listener = stranger.listen(f"{ROOT}/hosts/{agent.host}/machines/web/events", 1000)
    os.kill(pid, signal.SIGKILL)
    # What QEMU said when it began to run may be told this late.
    stranger.wait_event(listener, "qemu-launcher.machine.crashed")
    assert stranger.do("query")["result"]["machines"] == []


@pytest.mark.parametrize(
    ("profile", "reason"),
    [
        ({"extra-args": ["-incoming", "exec:id"]}, "raw argument"),
        ({"memory": "1GiB"}, "bytes of RAM"),
        ({"smp": 64}, "CPUs"),
        ({"disk": {"file": "/etc/passwd", "format": "raw"}}, "the file /etc/passwd"),
        ({"boot": {"kernel": "/boot/vmlinuz"}}, "the file /boot/vmlinuz"),
        ({"net": {"type": "user", "hostfwd": [{"str": "tcp::22-:22"}]}}, ""),
        ({"chardevs": {"c": {"backend": "file", "path": "/tmp/x"}}}, "chardev file"),
        ({"sandbox": "off"}, "sandbox"),
        ({"qemu": "/bin/sh"}, "the binary /bin/sh"),
        ({"platform": "/etc/passwd"}, "platforms by name"),
        ({"extends": "/etc/passwd"}, "cannot extend"),
    ],
)
def test_what_policy_does_not_allow_is_refused(own_profiles, profile, reason):
    agent, stranger, base = own_profiles
    answer = stranger.do("start", profile={**base, **profile})
    assert answer["status"] in ("refused", "failed")
    assert reason in answer["error"]["message"]
    assert agent.machines() == {}


@pytest.fixture(scope="module")
def own_profiles(broker, tmp_path_factory):
    """An agent that takes profiles of the sender's own."""
    folder = tmp_path_factory.mktemp("own")
    qemu = installed("11.1").binary
    policy = folder / "policy.yaml"
    folders = f"[{os.path.dirname(qemu)}, {os.path.dirname(os.path.realpath(qemu))}]"
    policy.write_text(f"binaries: {folders}\nmemory: 64MiB\ninline-profiles: on\n")
    agent = AgentProcess(broker, str(folder), "own", str(policy), str(folder))
    agent.start()
    stranger = Stranger(broker, "own")
    stranger.wait_retained("status", lambda value: value["status"] == "online")
    base = {"name": "web", "qemu": qemu, "machine": "microvm", "accel": "tcg", "memory": "32MiB"}
    base["platform"] = "debian-12"
    yield agent, stranger, base
    agent.close()


def test_commands_survive_kills_of_agent_and_broker_with_one_effect_each(tmp_path, make_agent):
    folder = tmp_path / "own-broker"
    folder.mkdir()
    broker = Broker(str(folder))
    broker.start()
    try:
        agent = make_agent(broker)
        rounds = 20 if FULL else 3
        stranger = Stranger(broker, agent.host)
        expected = {}
        for number in range(rounds):
            for name in ("m0", "m1"):
                key = f"c{number}-{name}"
                verb = "stop" if number % 2 else "start"
                what = {"machine": name, "first": "SIGKILL"} if number % 2 else {"profile": name}
                payload = json.dumps({"id": key, **what})
                stranger.send(verb, payload)
                stranger.send(verb, payload)  # the bus delivers at least once
                expected[key] = (verb, what)
            agent.kill()
            if number % 2:
                broker.kill()
                broker.start()
                # It may know the agent as online from before.
                stranger.publish(f"{ROOT}/hosts/{agent.host}/status", "", "-r")
            agent.start()
            if number % 2:
                stranger.wait_retained(
                    "status", lambda value: value and value["status"] == "online"
                )
            # What a broker had confirmed and not saved is gone when it is killed: whoever sends has
            # an answer before he goes on, as a fleet does.
            for name in ("m0", "m1"):
                verb, what = expected[f"c{number}-{name}"]
                stranger.do(verb, id=f"c{number}-{name}", **what)
        for key, (verb, what) in expected.items():
            answer = stranger.do(verb, id=key, **what)
            if answer["status"] == "running":
                answer = stranger.do(verb, id=key, **what)
            assert answer["status"] == "done", answer
            assert answer["result"]["changed"] is True, answer
        running = {} if rounds % 2 == 0 else {"m0", "m1"}
        assert set(agent.machines()) == set(running)
        log = agent.log()
        for name in ("m0", "m1"):
            starts = log.count(f"{name}: started") + log.count(f"{name}: adopted")
            assert starts >= 1
    finally:
        if agent.process.poll() is None:
            agent.close()
        broker.close()


def test_what_a_broker_still_has_of_machines_that_are_gone_is_emptied(tmp_path, make_agent):
    """It was killed, and has come back as it was before the machine ended."""
    folder = tmp_path / "own-broker"
    folder.mkdir()
    with Broker(str(folder)) as broker:
        agent = make_agent(broker)
        stranger = Stranger(broker, agent.host)
        agent.kill()
        topics = [
            f"{ROOT}/hosts/{agent.host}/machines/gone/{n}" for n in ("state", "report", "lock")
        ]
        for topic in topics:
            stranger.publish(topic, '{"name": "gone"}', "-r")
        agent.start()
        stranger.wait_retained("status", lambda value: value["status"] == "online")
        assert stranger.do("query")["status"] == "done"
        until = time.monotonic() + 30
        while time.monotonic() < until and stranger.retained(f"{ROOT}/hosts/+/machines/#"):
            pass
        assert stranger.retained(f"{ROOT}/hosts/+/machines/#") == {}
        agent.close()
