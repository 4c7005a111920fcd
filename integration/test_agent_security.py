"""What a broker and an agent let others do: certificates, passwords, rules, hostile payloads."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import paho.mqtt.client as paho
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from integration.conftest import installed
from integration.mqtt import ROOT, AgentProcess, Broker, Stranger
from tests.support import hostile
from tests.support.certificates import Authority

pytestmark = pytest.mark.integration

FULL = os.environ.get("QEMU_LAUNCHER_FULL") == "1"
WORDS = {"h1": "one,two", "h2": "three", "orchestrator": "vier"}


@pytest.fixture(scope="module", params=["certificates", "passwords"])
def secure(request, authority, tmp_path_factory):
    """The shipped configuration and rules, with certificates or with passwords."""
    folder = str(tmp_path_factory.mktemp("secure"))
    words = WORDS if request.param == "passwords" else None
    with Broker(folder, authority=authority, passwords=words) as broker:
        yield broker


@pytest.fixture(scope="module")
def agent(secure, tmp_path_factory):
    made = agent_of(secure, tmp_path_factory.mktemp("h1"), "h1")
    yield made
    made.close()


def agent_of(broker: Broker, folder, host: str, **rules: object) -> AgentProcess:
    qemu = installed("11.1").binary
    policy, profile = folder / "policy.yaml", folder / "web.yaml"
    profile.write_text(
        f"qemu: {qemu}\nplatform: debian-12\nmachine: {{type: microvm, acpi: off}}\n"
        "accel: tcg\nmemory: 32MiB\n"
    )
    whole = {
        "binaries": [os.path.dirname(qemu), os.path.dirname(os.path.realpath(qemu))],
        "memory": "64MiB",
        **rules,
    }
    policy.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in whole.items()))
    agent = AgentProcess(broker, str(folder), host, str(policy), str(folder))
    agent.start()
    Stranger(broker, host).wait_retained("status", lambda value: value["status"] == "online")
    return agent


def publish(broker: Broker, user: str, topic: str, payload: str, *more: str) -> str:
    """What mosquitto_pub of that user says to it."""
    done = subprocess.run(
        [*broker.tool("pub", user), "-q", "1", "-t", topic, "-m", payload, *more],
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stderr + done.stdout


def check(broker: Broker, host: str, *more: str) -> tuple[int, dict[str, bool], str]:
    words = [sys.executable, "-m", "launcher", "agent", "--broker", broker.url, "--host-id", host]
    words += broker.identity(host) if broker.authority is not None else []
    done = subprocess.run(
        [*words, *more, "--check", "--format", "json"], capture_output=True, text=True, timeout=60
    )
    found = json.loads(done.stdout or "{}").get("checks", [])
    return done.returncode, {one["what"]: one["good"] for one in found}, done.stdout + done.stderr


# -- the broker's rules ---------------------------------------------------------------------------


def test_a_client_with_a_right_may_drive_a_host(agent, secure):
    stranger = Stranger(secure, "h1")
    assert stranger.do("query")["result"]["machines"] == []
    assert stranger.do("start", profile="web")["status"] == "done"
    assert stranger.do("stop", machine="web", first="SIGKILL")["status"] == "done"


def test_another_hosts_identity_reaches_nothing_of_this_host(agent, secure):
    stranger = Stranger(secure, "h1")
    before = stranger.retained(f"{ROOT}/hosts/h1/#")
    for number, topic in enumerate(
        (
            *("hosts/h1/command/start", "hosts/h1/status", "hosts/h1/machines/web/state"),
            *("hosts/h1/peer/h3/abort", "hosts/h1/peer/h1/commit", "pool/all/start"),
        )
    ):
        payload = json.dumps({"id": f"evil-{number}", "profile": "web"})
        assert "ot authorized" in publish(secure, "h2", f"{ROOT}/{topic}", payload, "-r")
    assert stranger.do("query")["result"]["machines"] == []
    assert stranger.retained(f"{ROOT}/hosts/h1/#").keys() == before.keys()
    assert agent.machines() == {}


def test_another_host_may_speak_to_this_one_in_its_own_name_only(agent, secure):
    """And what it says that makes no sense is not done."""
    for word, payload in (("abort", '{"move": "x"}'), ("prepare", "{"), ("evil", '{"move": "x"}')):
        assert "ot authorized" not in publish(
            secure, "h2", f"{ROOT}/hosts/h1/peer/h2/{word}", payload
        )
    assert Stranger(secure, "h1").do("query")["status"] == "done"
    assert "h2 said evil" in agent.log()
    assert agent.machines() == {}


def test_check_finds_nothing_wrong_with_the_shipped_rules(secure):
    code, found, shown = check(secure, "h2")
    assert code == 0, shown
    assert set(found.values()) == {True}
    assert len(found) == 9


def test_check_finds_a_broker_without_rules(tmp_path):
    broker = Broker(str(tmp_path))
    broker.start()
    try:
        code, found, shown = check(broker, "h1")
        assert code == 1, shown
        wrong = {what for what, good in found.items() if not good}
        assert wrong == {
            "another's commands",
            "another host's status",
            "command another",
            "speak as another to all",
            "speak as another to a third",
        }
    finally:
        broker.close()


def test_check_finds_a_right_to_write_that_lets_nothing_be_read(tmp_path, authority):
    """What comes back shows nothing here: the broker lets a host write to all, and read its own."""
    broker = Broker(str(tmp_path), authority=authority)
    rules = tmp_path / "acl.conf"
    rules.write_text(f"pattern readwrite {ROOT}/hosts/%u/#\npattern write {ROOT}/hosts/#\n")
    with open(broker.config) as file:
        text = file.read()
    lines = [f"acl_file {rules}" if one.startswith("acl_file") else one for one in text.split("\n")]
    with open(broker.config, "w") as file:
        file.write("\n".join(lines))
    broker.start()
    try:
        code, found, shown = check(broker, "h2")
        assert (code, found["another's commands"], found["command another"]) == (1, True, False), (
            shown
        )
    finally:
        broker.close()


def test_who_has_no_right_to_come_in_is_told_so(secure, tmp_path, authority):
    """A certificate of another authority, or a wrong password."""
    if secure.passwords is not None:
        wrong = tmp_path / "wrong"
        wrong.write_text("nonsense\n")
        more = ("--username", "h1", "--password-file", str(wrong), "--ca-file", authority.file)
    else:
        folder = tmp_path / "others"
        folder.mkdir()
        certificate, key = Authority(str(folder)).sign("h1")
        more = ("--ca-file", authority.file, "--cert-file", certificate, "--key-file", key)
    code, found, shown = check(secure, "h1", *more)
    assert (code, found) == (4, {}), shown
    assert "Traceback" not in shown


def test_a_broker_of_another_authority_is_not_spoken_to(secure, tmp_path):
    folder = tmp_path / "others"
    folder.mkdir()
    code, _, shown = check(secure, "h1", "--ca-file", Authority(str(folder)).file)
    assert code == 4
    assert "the broker's certificate is refused: self-signed certificate" in shown


# -- hostile payloads -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def open_broker(tmp_path_factory):
    broker = Broker(str(tmp_path_factory.mktemp("open")))
    broker.start()
    yield broker
    broker.close()


@pytest.fixture(scope="module")
def victim(open_broker, tmp_path_factory):
    """An agent that takes profiles of the sender's own, and has room for no machine."""
    folder = tmp_path_factory.mktemp("victim")
    rules = {"inline-profiles": "on", "machines": 0, "commands-per-second": 100_000}
    agent = agent_of(open_broker, folder, "victim", **rules)
    yield agent
    agent.close()


class Answers:
    """All final answers to one stranger, as they come."""

    def __init__(self, broker: Broker, host: str) -> None:
        self.stranger = Stranger(broker, host)
        self.listener = self.stranger.listen(self.stranger.reply, 1_000_000)
        self.codes: list[str] = []

    def wait(self, count: int) -> None:
        while len(self.codes) < count:
            self._read(f"{len(self.codes)} of {count} were answered")

    def wait_for(self, *codes: str) -> None:
        """Until each of these was told at least once."""
        while not set(codes) <= set(self.codes):
            self._read(f"{', '.join(self.codes) or 'nothing'} was told of {', '.join(codes)}")

    def _read(self, otherwise: str) -> None:
        assert self.listener.stdout is not None
        line = self.listener.stdout.readline()
        assert line, otherwise
        one = json.loads(line)
        told = one["payload"]
        answer = json.loads(told) if isinstance(told, str) else told
        if isinstance(answer, dict) and answer["status"] in ("refused", "failed", "done"):
            self.codes.append(answer["error"]["code"] if answer["error"] else "done")

    def close(self) -> None:
        self.listener.kill()
        self.listener.wait()
        self.listener.stdout.close()


def unharmed(agent: AgentProcess, broker: Broker) -> None:
    assert agent.process.poll() is None
    assert Stranger(broker, agent.host).do("query")["result"] == {"machines": []}
    assert agent.machines() == {}
    log = agent.log()
    assert "Traceback" not in log
    assert "internal error" not in log
    assert not any(one < " " and one != "\n" for one in log)


def test_hostile_payloads_are_refused_and_answered_and_start_nothing(open_broker, victim):
    payloads = hostile.payloads()
    assert len(payloads) >= 250
    answers = Answers(open_broker, "victim")
    try:
        sent = 0
        for verb, payload in payloads:
            if " " in verb or verb == "..":
                continue
            answers.stranger.send(verb, payload)
            sent += 1
        answers.wait(sent)
    finally:
        answers.close()
    assert "done" not in answers.codes
    assert {"json", "size", "depth", "character", "member", "verb", "id", "policy"} <= set(
        answers.codes
    )
    unharmed(victim, open_broker)


def test_ten_megabytes_and_wrong_levels_reach_nobody(open_broker, victim):
    stranger = Stranger(open_broker, "victim")
    whole = json.dumps({"id": "big", "profile": "x" * 10_000_000})
    for verb in ("start", "query"):
        stranger.send(verb, whole)
    base = f"{ROOT}/hosts/victim"
    command = json.dumps({"id": "level", "profile": "web"})
    for topic in (
        *(f"{base}/command", f"{base}/command/start/x", f"{base}/command//start"),
        *(f"{base}/command/start/", f"{base}/COMMAND/start", f"{ROOT}/hosts//command/start"),
        *(f"{base}/peer/x", f"{base}/peer/x/commit/y", f"{base}/peer//commit", f"/{base}"),
        *(f"{base}/peer/victim/commit", f"{base}/peer/../commit", f"{base}/peer/X/commit"),
    ):
        stranger.publish(topic, command)
        stranger.publish(topic, command, "-r")
        stranger.publish(topic, b"", "-r")
    unharmed(victim, open_broker)


def test_a_peer_that_talks_nonsense_moves_nothing(open_broker, victim):
    stranger = Stranger(open_broker, "victim")
    base = f"{ROOT}/hosts/victim/peer/liar"
    request = {"profile": "web", "name": "web"}
    for word in ("look", "prepare", "keep", "commit", "abort", "prepared", "committed", "proved"):
        for body in (
            *({}, {"move": "../x"}, {"move": "m"}, {"move": "m", "request": 1}),
            *({"move": "m1", "request": {"profile": "/etc/passwd"}, "uuid": "x"},),
            *({"move": "m2", "request": request, "uuid": "../../../etc"},),
            *({"move": "m3", "request": {**request, "extra": 1}, "uuid": "0" * 36},),
            {"move": "m4", "request": request, "uuid": "e65e313e-2969-427e-8192-e966eb72b4bd"},
        ):
            stranger.publish(f"{base}/{word}", json.dumps(body))
        stranger.publish(f"{base}/{word}", b"[" * 40)
    unharmed(victim, open_broker)


def test_an_id_that_is_replayed_is_done_once(open_broker, victim):
    answers = Answers(open_broker, "victim")
    try:
        payload = json.dumps({"id": "replayed", "profile": "web"})
        for _ in range(20):
            answers.stranger.send("start", payload)
        answers.stranger.send("start", json.dumps({"id": "replayed", "profile": "other"}))
        # Whoever comes while it is under way is told so, and nothing more: on a slow machine that
        # is each of the twenty but the first.
        answers.wait_for("room", "id-reused")
        # Everything was taken by now, so one more is told what the first was told.
        repeats = answers.codes.count("room")
        answers.stranger.send("start", payload)
        answers.wait(repeats + 2)
    finally:
        answers.close()
    assert answers.codes.count("id-reused") == 1
    assert set(answers.codes) == {"room", "id-reused"}
    assert victim.log().count("refused start: ") >= 1
    unharmed(victim, open_broker)


def test_more_commands_than_the_rate_allows_are_refused(open_broker, tmp_path):
    agent = agent_of(open_broker, tmp_path, "slow", **{"commands-per-second": 2})
    answers = Answers(open_broker, "slow")
    try:
        flood(open_broker, answers, [("query", b'{"id": "q%d"}' % n) for n in range(200)])
        answers.wait(200)
    finally:
        answers.close()
        agent.close()
    assert answers.codes.count("rate") >= 100
    assert answers.codes.count("done") >= 5


def flood(broker: Broker, answers: Answers, commands: list[tuple[str, bytes]]) -> None:
    """Many commands through one client, each as it is."""
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    more = Properties(PacketTypes.PUBLISH)
    more.ResponseTopic = answers.stranger.reply
    client.connect(broker.address, broker.port)
    client.loop_start()
    try:
        base = f"{ROOT}/hosts/{answers.stranger.host}/command"
        sent = [client.publish(f"{base}/{verb}", one, 1, properties=more) for verb, one in commands]
        for info in sent:
            info.wait_for_publish(60)
    finally:
        client.disconnect()
        client.loop_stop()


@pytest.mark.timeout(1800 if FULL else 300)
def test_commands_that_were_damaged_at_random_are_answered(open_broker, victim):
    """`QEMU_LAUNCHER_FULL=1` sends 10 000 of them."""
    count = 10_000 if FULL else 400
    damaged = hostile.mutations(7, count)
    codes = []
    for at in range(0, count, 400):
        some = damaged[at : at + 400]
        answers = Answers(open_broker, "victim")
        try:
            flood(open_broker, answers, some)
            answers.wait(len(some))
        finally:
            answers.close()
        codes += answers.codes
    # What is whole by chance plans, and nothing more.
    assert len(codes) == count
    assert "internal" not in codes
    unharmed(victim, open_broker)
