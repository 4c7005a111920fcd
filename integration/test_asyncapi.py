"""A stranger who has docs/asyncapi.yaml and mosquitto's own clients, and nothing else of ours."""

from __future__ import annotations

import json
import os
import subprocess
import time
import uuid

import pytest

from integration.conftest import ROOT as PROJECT
from integration.fleet_hosts import make_host, some_id
from integration.mqtt import Broker
from tests.support.asyncapi import Book

pytestmark = pytest.mark.integration

SECONDS = 100


@pytest.fixture(scope="module")
def book() -> Book:
    return Book(os.path.join(PROJECT, "docs", "asyncapi.yaml"))


@pytest.fixture
def broker(own_broker):
    return own_broker


@pytest.fixture
def agent(broker, tmp_path_factory):
    made = make_host(broker, str(tmp_path_factory.mktemp("h")), some_id())
    yield made
    made.close()
    assert made.machines() == {}


class Outsider:
    """Reads topics from the document, and keeps all answers with the verb that they are to."""

    def __init__(self, book: Book, broker: Broker, host: str) -> None:
        self.book, self.broker, self.host = book, broker, host
        self.session = uuid.uuid4().hex
        self.verbs: dict[str, str] = {}

    def topic(self, address: str, **levels: str) -> str:
        levels = {"host": self.host, "client": "outsider", "session": self.session, **levels}
        return address.format(**levels)

    def ask(self, verb: str, **arguments: object) -> dict:
        """mosquitto_rr shows one answer: the same id is sent until that is the last one."""
        number = arguments.pop("id", uuid.uuid4().hex)
        payload = json.dumps({"id": number, **arguments})
        self.verbs[number] = verb
        ends = time.monotonic() + SECONDS
        while time.monotonic() < ends:
            done = subprocess.run(
                [
                    *self.broker.tool("rr"),
                    *("-q", "1", "-W", str(SECONDS), "-m", payload),
                    *("-t", self.topic(self.book.address(verb))),
                    *("-e", self.topic(self.book.reply_address(verb))),
                ],
                capture_output=True,
                text=True,
                check=True,
                timeout=SECONDS,
            )
            answer = json.loads(done.stdout)
            # That of the one before may come again, as often as that was sent.
            if answer["id"] == number and answer["status"] in ("done", "failed", "refused"):
                return answer
        raise AssertionError(f"{verb} was not answered")


class Spy:
    """Everything that goes over a broker, as mosquitto_sub tells it."""

    def __init__(self, broker: Broker, folder: str) -> None:
        self.broker, self.path = broker, os.path.join(folder, "seen")
        self.file = open(self.path, "wb")
        words = [*broker.tool("sub"), "-t", "#", "-q", "1", "-F", "%r %t %x"]
        self.process = subprocess.Popen(words, stdout=self.file)
        self._wait_mark()

    def seen(self) -> list[tuple[bool, str, bytes]]:
        """(retained, topic, payload) of all that came until now."""
        self._wait_mark()
        found = [one for one in self._read() if not one[1].startswith(("end/", "ready"))]
        self.process.kill()
        self.process.wait()
        self.file.close()
        return found

    def _wait_mark(self) -> None:
        """Until it has seen what is published now."""
        last = uuid.uuid4().hex
        while not (found := self._read()) or found[-1][1] != f"end/{last}":
            tool = [*self.broker.tool("pub"), "-q", "1", "-t", f"end/{last}", "-m", "x"]
            subprocess.run(tool, check=True, timeout=SECONDS)
            time.sleep(0.05)  # mosquitto_sub writes when it likes

    def _read(self) -> list[tuple[bool, str, bytes]]:
        with open(self.path) as file:
            lines = [line.rstrip("\n").split(" ") for line in file if line.endswith("\n")]
        return [(line[0] == "1", line[1], bytes.fromhex(line[2])) for line in lines]


def test_by_the_document_alone_a_machine_is_started_verified_queried_and_stopped(
    book, broker, agent
):
    outsider = Outsider(book, broker, agent.host)
    started = outsider.ask("start", profile="web", platform="debian-12")
    assert started["result"]["changed"] is True
    assert agent.machines() == {"web": started["result"]["pid"]}
    assert outsider.ask("verify", machine="web")["result"]["verdict"] == "match"
    assert outsider.ask("query", machine="web")["result"]["status"] == "running"
    state = subprocess.run(
        [
            *broker.tool("sub"),
            *("-t", outsider.topic(book.address("machineState"), machine="web")),
            *("-C", "1", "-W", str(SECONDS)),
        ],
        capture_output=True,
        check=True,
        timeout=SECONDS,
    )
    assert json.loads(state.stdout)["actual"] == "running"
    assert outsider.ask("stop", machine="web", first="quit")["result"]["by"] == "quit"
    assert agent.machines() == {}


def test_by_the_document_alone_a_machine_goes_to_another_host(
    book, broker, agent, tmp_path_factory
):
    other = make_host(broker, str(tmp_path_factory.mktemp("h")), some_id())
    try:
        outsider = Outsider(book, broker, agent.host)
        assert outsider.ask("start", profile="web")["status"] == "done"
        found = outsider.ask("preflight", machine="web", to=other.host)
        assert found["result"]["counts"]["breaks"] == 0
        moved = outsider.ask("migrate", machine="web", to=other.host)
        assert moved["result"]["result"] == "completed", moved
        assert book.fits(book.value["components"]["messages"]["migrate-answer"]["payload"], moved)
        assert agent.machines() == {}
        there = Outsider(book, broker, other.host)
        assert there.ask("query", machine="web")["result"]["status"] == "running"
        assert there.ask("stop", machine="web", first="quit")["result"]["by"] == "quit"
    finally:
        other.close()


def test_every_message_is_as_the_document_says(book, broker, agent, tmp_path):
    spy = Spy(broker, str(tmp_path))
    outsider = Outsider(book, broker, agent.host)
    ask = outsider.ask
    ask("start", profile="web")
    ask("start", profile="web", settings=["memory=48MiB"])  # conflict
    ask("start", profile="nothing")
    ask("start", profile="db", settings=["memory=1GiB"])  # policy
    ask("start", profile={"machine": "microvm", "platform": "none", "memory": "x"})
    for verb in ("verify", "pause", "query", "resume", "reset", "adopt"):
        ask(verb, machine="web")
    ask("qmp", machine="web", command="query-version")
    ask("qmp", machine="web", command="quit")
    for verb in ("plan", "lock"):
        ask(verb, profile="db")
    for verb in ("query", "facts"):
        ask(verb)
    # Verbs that a later agent has; the document says whether this one has them.
    later = {"snapshot": {"tag": "t"}, "restore": {"tag": "t"}, "screendump": {}, "console": {}}
    for verb, more in later.items():
        if f"command-{verb}" in book.value["channels"]:
            ask(verb, machine="web", **more)
    ask("verify", machine="nobody")
    ask("stop", machine="web", first="quit")
    ask("stop", machine="web", nonsense=1)
    ask("forget", machine="web")
    agent.kill(15)
    seen = spy.seen()

    wrong, kinds = [], set()
    for retained, topic, payload in seen:
        verb = ""
        if "/reply/" in topic:
            number = json.loads(payload)["id"]
            verb = outsider.verbs[number]
        kinds.add(topic.split("/")[-1] if "/reply/" not in topic else f"{verb}-answer")
        if "/command/" in topic and "nonsense" in payload.decode():
            continue  # ours, and wrong on purpose
        wrong += [f"{topic}: {one}" for one in book.judge(topic, payload, verb)]
        assert not (retained and "/command/" in topic)
    assert wrong == []
    asked = {f"{verb}-answer" for verb in outsider.verbs.values()}
    assert kinds >= {"status", "facts", "state", "report", "events"} | asked
    # Each verb that there is was asked, but those that need a second host.
    left = set(book.value["channels"]) - {f"command-{v}" for v in outsider.verbs.values()}
    left = {name for name in left if name.startswith("command-")}
    assert left <= {"command-preflight", "command-migrate"}
