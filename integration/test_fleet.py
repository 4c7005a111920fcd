"""Two agents with real machines, driven from one desk: `launcher.fleet` and `fleet`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess

import pytest

import launcher.fleet
from integration.fleet_hosts import fleet_json, fleet_words, make_host, run_fleet, some_id, until
from integration.mqtt import ROOT, Broker, Stranger
from launcher.errors import HostError, InputError
from launcher.fleet.faults import RemoteError

pytestmark = pytest.mark.integration

#: Kills of agent and broker with a command under way.
ROUNDS = 50 if os.environ.get("QEMU_LAUNCHER_FULL") == "1" else 4


@pytest.fixture
def hosts(broker, tmp_path_factory):
    """Two agents with QEMUs of two releases; their machines are gone after the test."""
    # Paths of sockets are bounded: a test's own folder has a long name.
    made = [
        make_host(broker, str(tmp_path_factory.mktemp("h")), some_id(), release)
        for release in ("11.1", "7.2")
    ]
    yield made
    for agent in made:
        agent.close()
        assert agent.machines() == {}
        for leaf in ("status", "facts"):
            Stranger(broker, agent.host).publish(f"{ROOT}/hosts/{agent.host}/{leaf}", b"", "-r")


async def test_machines_are_started_seen_verified_and_stopped(broker, hosts):
    one, two = (agent.host for agent in hosts)
    async with launcher.fleet.connect(broker.url) as fleet:
        assert {fleet.hosts[name].status for name in (one, two)} == {"online"}
        assert fleet.facts[one]["format"] == "host-facts-1"
        heard = []
        answer = await fleet.command(one, "start", profile="web", progress=heard.append)
        assert (answer.status, answer.result["changed"]) == ("done", True)
        # What takes long is sent again, and then it is told that it is being done.
        assert heard[0].status == "accepted"
        assert {told.status for told in heard[1:]} <= {"running"}
        assert hosts[0].machines() == {"web": answer.result["pid"]}
        await until(fleet, lambda: (one, "web") in fleet.machines)
        assert fleet.machines[one, "web"]["verdict"] == "match"
        assert fleet.machines_of(two) == []
        again = await fleet.command(one, "start", command_id=answer.id, profile="web")
        assert again == answer
        with pytest.raises(RemoteError, match=f"{two}: no machine 'web' runs") as caught:
            await fleet.command(two, "stop", machine="web")
        assert (caught.value.status, caught.value.code) == ("failed", "absent")
        assert caught.value.as_json()["host"] == two
        await fleet.command(one, "stop", machine="web", first="quit")
        await until(fleet, lambda: (one, "web") not in fleet.machines)


async def test_a_host_that_is_away_is_told_at_once_unless_one_waits(broker, hosts):
    agent = hosts[0]
    async with launcher.fleet.connect(broker.url) as fleet:
        with pytest.raises(HostError, match="no agent has told") as caught:
            await fleet.command("nobody", "query")
        assert caught.value.code == "absent"
        agent.kill(signal.SIGTERM)
        await until(fleet, lambda: fleet.hosts[agent.host].status == "offline")
        with pytest.raises(HostError) as caught:
            await fleet.command(agent.host, "query")
        assert caught.value.code == "offline"
        with pytest.raises(HostError) as caught:
            await fleet.command(agent.host, "query", wait=True, timeout=1.5)
        assert caught.value.code == "timeout"
        waiting = asyncio.create_task(fleet.command(agent.host, "query", wait=True))
        agent.start()
        assert (await waiting).result == {"machines": []}


@pytest.mark.timeout(600)
async def test_a_command_outlives_kills_of_agent_and_broker_and_is_done_once(tmp_path_factory):
    broker = Broker(str(tmp_path_factory.mktemp("broker")))
    broker.start()
    try:
        agent = make_host(broker, str(tmp_path_factory.mktemp("h")), some_id())
        try:
            async with launcher.fleet.connect(broker.url) as fleet:
                await fleet.command(agent.host, "start", profile="db")
                for number in range(ROUNDS):
                    verb = "stop" if number % 2 else "start"
                    what = {"machine": "web", "first": "SIGKILL"}
                    what = what if number % 2 else {"profile": "web"}
                    asked = asyncio.create_task(fleet.command(agent.host, verb, wait=True, **what))
                    await asyncio.sleep(
                        0.02 * (number % 10)
                    )  # each at another point of the command
                    agent.kill()
                    broker.kill()
                    broker.start()
                    agent.start()
                    answer = await asked
                    assert answer.result["changed"] is True
                    running = {"db"} if number % 2 else {"db", "web"}
                    assert set(agent.machines()) == running
        finally:
            agent.close()
    finally:
        broker.close()


async def test_no_broker_is_an_error_and_no_password_is_in_an_address():
    with pytest.raises(HostError) as caught:
        async with launcher.fleet.connect("mqtt://127.0.0.1:1"):
            pass
    assert caught.value.code == "broker"
    with pytest.raises(InputError, match="holds no user and no password") as wrong:
        async with launcher.fleet.connect("mqtt://me:secret@127.0.0.1"):
            pass
    assert "secret" not in str(wrong.value)


def test_the_command_line_lists_starts_verifies_and_stops(broker, hosts):
    one, two = (agent.host for agent in hosts)
    done = run_fleet(broker, "start", one, "web")
    assert done.returncode == 0, done.stderr
    assert f"{one}/web: started, pid {hosts[0].machines()['web']}, match" in done.stdout
    assert "runs already" in run_fleet(broker, "start", one, "web").stdout
    profile = os.path.join(hosts[1].folder, "profiles", "db.yaml")
    sent = fleet_json(broker, "start", two, profile, "--name", "other")
    assert sent["result"]["name"] == "other"
    assert hosts[1].machines() == {"other": sent["result"]["pid"]}

    listed = fleet_json(broker, "ls", one, two)["hosts"]
    assert [(h["name"], h["status"], [m["name"] for m in h["machines"]]) for h in listed] == [
        (one, "online", ["web"]),
        (two, "online", ["other"]),
    ]
    text = run_fleet(broker, "ls").stdout
    assert f"{one}" in text
    assert "other" in text
    found = fleet_json(broker, "verify")
    assert found["verdict"] == "match"
    assert {(one["host"], one["machine"]) for one in found["machines"]} >= {
        (one, "web"),
        (two, "other"),
    }
    assert fleet_json(broker, "query", one, "web")["result"]["status"] == "running"
    qmp = run_fleet(broker, "qmp", one, "web", "query-status")
    assert json.loads(qmp.stdout)["status"] == "running"
    refused = run_fleet(broker, "qmp", one, "web", "quit")
    assert refused.returncode == 4
    assert "policy" in refused.stderr
    for host, name in ((one, "web"), (two, "other")):
        stopped = fleet_json(broker, "stop", host, name, "--now")
        assert stopped["stopped"] == [{"host": host, "name": name, "by": "quit"}]
    absent = run_fleet(broker, "stop", one, "web")
    assert absent.returncode == 2
    assert "web" in absent.stderr


def test_verify_finds_what_was_changed_behind_the_launchers_back(broker, hosts):
    agent = hosts[0]
    assert run_fleet(broker, "start", agent.host, "web").returncode == 0
    command = '{"zero-page-detection": "none"}'
    words = ("qmp", "web", "migrate-set-parameters", command)
    assert agent.launcher(*words).returncode == 0
    done = run_fleet(broker, "verify", agent.host)
    assert done.returncode == 1
    assert "zero-page-detection" in done.stdout
    found = fleet_json(broker, "verify", agent.host)
    assert found["verdict"] == "mismatch"
    assert [one["property"] for one in found["machines"][0]["wrong"]] == ["zero-page-detection"]


def test_the_platform_of_a_fleet_is_that_of_its_facts(broker, hosts):
    one, two = (agent.host for agent in hosts)
    facts = fleet_json(broker, "facts", one, two)["hosts"]
    assert set(facts) == {one, two}
    found = fleet_json(broker, "platform", one, two)
    assert (found["qemu"]["floor"], found["qemu"]["limited_by"]) == ("7.2", [two])
    assert found["linux"]["limited_by"] == sorted([one, two])  # one kernel for both
    # A host that is away still has its word: its machines are to move there one day.
    older = {**facts[one], "name": "old", "kernel": {"release": "5.10.0-1", "series": "5.10"}}
    stranger = Stranger(broker, "old-host")
    stranger.publish(f"{ROOT}/hosts/old-host/facts", json.dumps(older), "-r")
    status = {"status": "lost", "version": "0", "boot_id": "x", "capacity": {}}
    stranger.publish(f"{ROOT}/hosts/old-host/status", json.dumps(status), "-r")
    try:
        found = fleet_json(broker, "platform", one, two, "old-host")
        assert found["linux"]["floor"] == "5.10"
        assert found["linux"]["limited_by"] == ["old-host"]
        assert sorted(found["hosts"]) == sorted([one, two, "old-host"])
        text = run_fleet(broker, "platform", one, two, "old-host").stdout
        assert 'linux: "5.10"  # old-host' in text
        lost = run_fleet(broker, "verify", one, "old-host")
        assert lost.returncode == 1
        assert "old-host is lost" in lost.stdout
    finally:
        for leaf in ("facts", "status"):
            stranger.publish(f"{ROOT}/hosts/old-host/{leaf}", b"", "-r")


def test_watch_goes_on_when_the_broker_comes_back(tmp_path):
    broker = Broker(str(tmp_path))
    broker.start()
    watching = subprocess.Popen(
        fleet_words(broker, "watch", "--for", "600"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        for number in range(4):
            assert watching.stdout.readline().split()[1:] == ["broker", "connected"]
            broker.kill()
            assert watching.stdout.readline().split()[1:] == ["broker", "away"]
            if number < 3:
                broker.start()
        assert watching.poll() is None
    finally:
        watching.kill()
        said = watching.communicate()[1]
        broker.close()
    assert said == ""


def test_watch_prints_a_line_for_each_change(broker, hosts):
    agent = hosts[0]
    watching = subprocess.Popen(
        fleet_words(broker, "watch", agent.host, "--format", "json", "--for", "600"),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        seen = []
        for line in watching.stdout:
            found = json.loads(line)
            seen.append(
                (
                    found["host"],
                    found["machine"],
                    found["is"] and found["is"]["status"]
                    if found["machine"] is None
                    else (found["is"] or {}).get("actual"),
                )
            )
            if seen[-1] == (agent.host, None, "online"):
                run_fleet(broker, "start", agent.host, "web")
            elif seen[-1][1:] == ("web", "running"):
                run_fleet(broker, "stop", agent.host, "web", "--force")
            elif seen[-1] == (agent.host, "web", None):
                break
        assert (None, None, "connected") in seen
        assert (agent.host, "web", "running") in seen
    finally:
        watching.kill()
        watching.wait()
        watching.stdout.close()
