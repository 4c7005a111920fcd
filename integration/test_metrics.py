"""/metrics of an agent, read by the parser of Prometheus's own client library."""

from __future__ import annotations

import http.client
import os
import re
import select
import signal
import socket

import pytest
from prometheus_client.parser import text_string_to_metric_families

from integration.conftest import installed
from integration.mqtt import AgentProcess, Broker, Stranger

pytestmark = pytest.mark.integration

PROFILE = """\
qemu: {qemu}
platform: debian-12
machine: {{type: microvm, acpi: off}}
accel: tcg
memory: 32MiB
smp: 2
"""


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    folder = tmp_path_factory.mktemp("metrics")
    broker = Broker(str(folder))
    broker.start()
    qemu = installed("11.1").binary
    (folder / "web.yaml").write_text(PROFILE.format(qemu=qemu))
    policy = folder / "policy.yaml"
    folders = f"[{os.path.dirname(qemu)}, {os.path.dirname(os.path.realpath(qemu))}]"
    policy.write_text(f"binaries: {folders}\nmemory: 64MiB\n")
    made = AgentProcess(broker, str(folder), "metrics", str(policy), str(folder))
    made.words += ["--metrics", "0"]
    try:
        made.start()
        stranger = Stranger(broker, made.host)
        stranger.wait_retained("status", lambda value: value["status"] == "online")
        yield made, stranger
    finally:
        made.close()
        broker.close()


def place(agent: AgentProcess) -> tuple[str, int]:
    found = re.search(r"metrics at http://(127\.0\.0\.1):(\d+)/metrics", agent.log())
    assert found, agent.log()
    return found[1], int(found[2])


def ask(agent: AgentProcess, path: str = "/metrics", method: str = "GET"):
    connection = http.client.HTTPConnection(*place(agent), timeout=60)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type"), answer.read().decode()
    finally:
        connection.close()


def scrape(agent: AgentProcess) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    status, kind, text = ask(agent)
    assert status == 200
    assert kind == "text/plain; version=0.0.4; charset=utf-8"
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.type in ("gauge", "counter", "histogram")
        assert family.documentation
        for sample in family.samples:
            key = (sample.name.removeprefix("qemu_launcher_"), frozenset(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


def value(found, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


def test_the_figures_follow_what_happens(agent):
    process, stranger = agent
    before = scrape(process)
    assert value(before, "machines", state="running") == 0
    assert value(before, "connected") == 1
    assert stranger.do("start", profile="web")["status"] == "done"
    stranger.send("start", '{"id": "bad", "what": 1}')
    stranger.send("no-such-verb", '{"id": "bad2"}')
    for _ in range(3):
        assert stranger.do("query")["status"] == "done"
    assert stranger.do("pause", machine="nobody")["status"] == "failed"
    found = scrape(process)
    assert value(found, "machines", state="running") == 1
    assert value(found, "machine_reports", verdict="match") == 1
    assert value(found, "cpus_used") == 2
    assert value(found, "memory_used_bytes") == 32 << 20
    assert value(found, "commands_total", verb="start", status="done") == 1
    assert value(found, "commands_total", verb="start", status="refused") == 1
    assert value(found, "commands_total", verb="other", status="refused") == 1
    assert value(found, "commands_total", verb="pause", status="failed") == 1
    assert value(found, "refused_total", code="verb") == 1
    assert value(found, "refused_total", code="member") == 1
    assert value(found, "events_dropped_total") == 0
    assert value(found, "command_seconds_count", verb="query") == 3
    assert value(found, "command_seconds_bucket", verb="query", le="+Inf") == 3
    # A start takes the time that a QEMU takes, and no bucket holds fewer than the one before it.
    assert value(found, "command_seconds_bucket", verb="start", le="0.001") == 0
    assert value(found, "command_seconds_sum", verb="start") > 0.01
    assert stranger.do("pause", machine="web")["status"] == "done"
    assert value(scrape(process), "machines", state="paused") == 1
    assert stranger.do("stop", machine="web", first="quit")["status"] == "done"
    found = scrape(process)
    assert value(found, "machines", state="paused") == value(found, "memory_used_bytes") == 0


def test_it_says_so_when_the_broker_is_away(agent):
    process, stranger = agent
    stranger.broker.kill(signal.SIGKILL)
    while "the broker is away" not in process.log():
        select.select([], [], [], 0.05)
    assert value(scrape(process), "connected") == 0
    stranger.broker.start()
    stranger.wait_retained("status", lambda told: told["status"] == "online")


def test_other_questions_are_answered_shortly(agent):
    process, _ = agent
    assert ask(process, "/")[0] == 404
    assert ask(process, "/metrics", "POST")[0] == 405
    assert ask(process, "/metrics", "HEAD")[::2] == (200, "")
    assert ask(process, "/metrics?a=b")[0] == 200


def test_who_holds_connections_or_sends_much_keeps_nobody_out(agent):
    process, _ = agent
    before = len(process.log())
    idle = [socket.create_connection(place(process), timeout=60) for _ in range(30)]
    try:
        # More than a few at once are sent away; a request without an end is not waited for.
        idle[0].sendall(b"GET " + b"x" * 20000)
        assert all(one.recv(1) == b"" for one in (idle[0], *idle[8:]))
        assert all(one.recv(1) == b"" for one in idle)
    finally:
        for one in idle:
            one.close()
    assert ask(process)[0] == 200
    assert "Traceback" not in process.log()[before:], process.log()[before:]
