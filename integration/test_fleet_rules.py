"""A fleet behind TLS and the shipped rules: who drives hosts, who looks, and who is nobody."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from integration.fleet_hosts import make_host, run_fleet
from integration.mqtt import Broker
from tests.support.certificates import Authority

pytestmark = pytest.mark.integration

WORDS = {"h1": "one", "orchestrator": "two", "watcher": "three"}


@pytest.fixture(scope="module", params=["certificates", "passwords"])
def secure(request, authority, tmp_path_factory):
    words = WORDS if request.param == "passwords" else None
    folder = str(tmp_path_factory.mktemp("secure"))
    with Broker(folder, authority=authority, passwords=words) as broker:
        yield broker


@pytest.fixture(scope="module")
def agent(secure, tmp_path_factory):
    made = make_host(secure, str(tmp_path_factory.mktemp("h1")), "h1")
    yield made
    made.close()
    assert made.machines() == {}


def desk(broker: Broker, name: str, *words: str):
    """`qemu-launcher fleet …` as somebody; a certificate does not tell us our own name."""
    return run_fleet(broker, *words, *broker.identity(name), "--client", name)


def test_who_may_drive_hosts_drives_them(secure, agent):
    started = desk(secure, "orchestrator", "start", "h1", "web", "--format", "json")
    assert started.returncode == 0, started.stderr + started.stdout
    assert json.loads(started.stdout)["result"]["pid"] == agent.machines()["web"]
    assert desk(secure, "orchestrator", "verify", "h1").returncode == 0
    assert desk(secure, "orchestrator", "stop", "h1", "web", "--now").returncode == 0


def test_who_may_look_looks_and_no_more(secure, agent):
    listed = desk(secure, "watcher", "ls", "--format", "json")
    assert [one["name"] for one in json.loads(listed.stdout)["hosts"]] == ["h1"]
    tried = desk(secure, "watcher", "start", "h1", "web", "--timeout", "2", "--format", "json")
    assert (tried.returncode, json.loads(tried.stdout)["error"]["code"]) == (4, "access")
    assert agent.machines() == {}


#: How a broker with certificates, and one with passwords, keeps somebody out.
REFUSALS = ("wants a certificate of ours", "refuses our certificate", "does not let us in")


def test_nobody_is_not_let_in(secure, agent, tmp_path):
    other = Authority(str(tmp_path))
    certificate, key = other.sign("orchestrator")
    known = ("--ca-file", secure.authority.file)
    for more in (known, (*known, "--cert-file", certificate, "--key-file", key)):
        done = run_fleet(secure, "ls", *more)
        assert done.returncode == 4, done.stdout
        assert secure.url in done.stderr
        assert any(one in done.stderr for one in REFUSALS), done.stderr
    # Nor do we speak to a broker that nobody whom we trust has signed.
    done = run_fleet(secure, "ls", "--ca-file", other.file)
    assert done.returncode == 4
    assert "the broker's certificate is refused" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_says_who_we_are(secure, agent, tmp_path):
    words = secure.identity("watcher")
    lines = [f"broker: {secure.url}", "client: watcher"]
    pairs = zip(words[::2], words[1::2], strict=True)
    lines += [f"{name.removeprefix('--')}: {value}" for name, value in pairs]
    path = tmp_path / "broker.yaml"
    path.write_text("\n".join(lines) + "\n")
    done = subprocess.run(
        [sys.executable, "-m", "launcher", "fleet", "ls"],
        env={**os.environ, "QEMU_LAUNCHER_BROKER_FILE": str(path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "h1" in done.stdout
