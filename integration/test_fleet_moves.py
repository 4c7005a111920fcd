"""Machines from host to host by a fleet's word: real agents, real QEMUs of two releases."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

import launcher.fleet
from integration.conftest import ROOT as PROJECT
from integration.conftest import installed
from integration.fleet_hosts import fleet_json, make_host, run_fleet, some_id
from launcher.errors import HostError
from launcher.fleet.chores import drain

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture
def broker(own_broker):
    return own_broker


@pytest.fixture
def make(broker, tmp_path_factory):
    """Hosts that are gone after the test, with all that they ran."""
    made = []

    def one(release: str) -> object:
        made.append(make_host(broker, str(tmp_path_factory.mktemp("h")), some_id(), release))
        return made[-1]

    yield one
    for agent in made:
        agent.close()
        assert agent.machines() == {}


def test_a_host_is_emptied_as_far_as_the_named_hosts_take_its_machines(broker, make):
    newer, older = make("11.1"), make("7.2")
    assert run_fleet(broker, "start", newer.host, "web").returncode == 0
    # Without a platform QEMU 11.1 sends what QEMU 7.2 does not know.
    assert run_fleet(broker, "start", newer.host, "db", "--platform", "native").returncode == 0

    done = run_fleet(broker, "drain", newer.host, "--to", older.host)
    assert done.returncode == 1, done.stderr
    assert f"web: {newer.host} -> {older.host}" in done.stdout
    assert f"db: stays on {newer.host}" in done.stdout
    assert f"not to {older.host}: " in done.stdout
    assert f"web -> {older.host}: completed, " in done.stderr
    assert set(newer.machines()) == {"db"}
    assert set(older.machines()) == {"web"}
    assert fleet_json(broker, "verify")["verdict"] == "match"

    alone = run_fleet(broker, "migrate", newer.host, "db", "--to", older.host)
    assert alone.returncode == 2
    assert "--force" in alone.stderr
    forced = run_fleet(broker, "migrate", newer.host, "db", "--to", older.host, "--force")
    assert forced.returncode == 3, (forced.stdout, forced.stderr)
    assert set(newer.machines()) == {"db"}
    assert set(older.machines()) == {"web"}
    assert fleet_json(broker, "query", newer.host, "db")["result"]["status"] == "running"

    other = make("11.1")
    words = ("drain", newer.host, "--to", older.host, "--to", other.host)
    found = fleet_json(broker, *words)["machines"]
    assert [(one["machine"], one["to"]) for one in found] == [("db", other.host)]
    assert [one["to"] for one in found[0]["tried"]] == [older.host]
    assert {one["severity"] for one in found[0]["tried"][0]["findings"]} == {"breaks"}
    assert found[0]["result"]["result"] == "completed"
    assert newer.machines() == {}
    assert set(other.machines()) == {"db"}
    assert run_fleet(broker, *words).returncode == 0  # nothing is left to move


def test_the_demonstration_comes_about_and_leaves_nothing(tmp_path_factory):
    """scripts/demo-fleet itself sees to it that the guest went on, and that nothing is left."""
    qemu = os.path.dirname(installed("11.1").binary)
    folder = str(tmp_path_factory.mktemp("d"))
    done = subprocess.run(
        [os.path.join(PROJECT, "scripts", "demo-fleet")],
        env={
            **os.environ,
            "PATH": f"{qemu}:{os.environ['PATH']}",
            "QEMU_LAUNCHER_BIN": os.path.dirname(sys.executable),
            "TMPDIR": folder,
        },
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all of it came about, and nothing is left" in done.stderr
    assert os.listdir(folder) == []


async def test_a_candidate_that_is_away_is_told_and_the_next_one_has_the_machine(broker, make):
    source, away, there = make("11.1"), make("11.1"), make("11.1")
    away.kill(signal.SIGTERM)
    heard = []
    async with launcher.fleet.connect(broker.url) as fleet:
        with pytest.raises(HostError, match="no agent has told"):
            await drain(fleet, source.host, ["nobody"])
        await fleet.command(source.host, "start", profile="web")
        moved = await drain(
            *(fleet, source.host, [away.host, there.host]),
            progress=lambda machine, to, answer: heard.append((machine, to, answer.status)),
        )
    assert [(one.machine, one.to) for one in moved] == [("web", there.host)]
    host, reason = moved[0].tried[0]
    assert (host, reason.code) == (away.host, "offline")
    assert ("web", there.host, "running") in heard
    assert set(there.machines()) == {"web"}
    assert json.loads(there.launcher("qmp", "web", "query-status").stdout)["running"] is True
