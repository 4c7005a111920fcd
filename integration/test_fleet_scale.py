"""A hundred hosts on a broker with its own settings: nothing of what is retained is missed."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time

import pytest

import launcher.fleet
from integration.fleet_hosts import fleet_json, fleet_words, run_fleet
from integration.mqtt import ROOT, Broker
from launcher.bus.broker import Broker as Where
from launcher.bus.broker import make_client

pytestmark = pytest.mark.integration

HOSTS = 100
#: In full as many as policy allows by default: 6400 states.
MACHINES = 64 if os.environ.get("QEMU_LAUNCHER_FULL") == "1" else 20


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    """A mosquitto as Debian ships it: it queues 1000 messages for a client."""
    made = Broker(str(tmp_path_factory.mktemp("broker")))
    with open(made.config) as file:
        lines = file.read().splitlines()
    own = ("listener", "allow_anonymous", "set_tcp_nodelay", "user", "log_type")
    with open(made.config, "w") as file:
        file.write("".join(f"{line}\n" for line in lines if line.startswith(own)))
    made.start()
    asyncio.run(publish(made))
    yield made
    made.close()


def facts() -> dict:
    """Facts of this host, with a QEMU whether or not one is on PATH."""
    from launcher.host.facts import FORMAT, gather

    qemu = {"path": "/usr/bin/qemu-system-x86_64", "version": "10.0.2", "tool": "qemu-system"}
    return {"format": FORMAT, **gather(), "qemu": [{**qemu, "target": "x86_64"}]}


async def publish(broker: Broker) -> None:
    """What a hundred agents keep published; one of the hosts has an older QEMU than the others."""
    whole = facts()
    old = [{**whole["qemu"][0], "version": "7.2.1"}]
    slots = asyncio.Semaphore(100)
    async with make_client(Where(broker.url), "hosts", session=0, by_hand=False) as client:

        async def put(topic: str, value: object) -> None:
            async with slots:
                payload = json.dumps(value).encode()
                await client.publish(f"{ROOT}/hosts/{topic}", payload, qos=1, retain=True)

        work = []
        for number in range(HOSTS):
            host, used = f"h{number}", {"machines": MACHINES, "cpus": MACHINES, "memory": 1 << 30}
            limits = {"machines": 64, "memory": 1 << 36}
            status = {"status": "online", "version": "0.1.0", "boot_id": "b"}
            status["capacity"] = {"limits": limits, "used": used}
            work.append(put(f"{host}/status", status))
            here = {**whole, "qemu": old} if number == 7 else whole
            work.append(put(f"{host}/facts", {**here, "name": host}))
            for machine in range(MACHINES):
                state = {"name": f"m{machine}", "actual": "running", "verdict": "match", "pid": 1}
                work.append(put(f"{host}/machines/m{machine}/state", state))
        await asyncio.gather(*work)


def test_every_machine_of_a_hundred_hosts_is_listed(broker):
    began = time.monotonic()
    found = fleet_json(broker, "ls")["hosts"]
    print(f"fleet ls: {HOSTS} hosts, {HOSTS * MACHINES} machines: {time.monotonic() - began:.2f} s")
    assert len(found) == HOSTS
    assert {len(one["machines"]) for one in found} == {MACHINES}


def test_the_platform_of_a_hundred_hosts_names_the_one_that_limits_it(broker):
    began = time.monotonic()
    found = fleet_json(broker, "platform")
    print(f"fleet platform: {HOSTS} hosts: {time.monotonic() - began:.2f} s")
    assert len(found["hosts"]) == HOSTS
    assert found["qemu"]["floor"] == "7.2"
    assert found["qemu"]["limited_by"] == ["h7"]


async def test_hosts_that_come_later_are_seen_with_their_machines(broker):
    async with launcher.fleet.connect(broker.url, facts=False, timeout=60) as fleet:
        assert (len(fleet.hosts), len(fleet.machines)) == (HOSTS, HOSTS * MACHINES)
        assert fleet.left_out == 0
        async with make_client(Where(broker.url), "late", session=0, by_hand=False) as client:
            state = b'{"name": "web", "actual": "running"}'
            topic = f"{ROOT}/hosts/late"
            await client.publish(f"{topic}/machines/web/state", state, qos=1, retain=True)
            await client.publish(f"{topic}/status", b'{"status": "online"}', qos=1, retain=True)
            async with asyncio.timeout(30):
                while ("late", "web") not in fleet.machines:
                    await fleet.changed(1)
            for leaf in ("machines/web/state", "status"):
                await client.publish(f"{topic}/{leaf}", b"", qos=1, retain=True)
            async with asyncio.timeout(30):
                while "late" in fleet.hosts or ("late", "web") in fleet.machines:
                    await fleet.changed(1)


def test_where_we_may_not_write_to_our_own_topic_quiet_will_do(tmp_path):
    """The mark does not come back: all is seen all the same, after a second without a message."""
    folder = tmp_path / "strict"
    folder.mkdir()
    made = Broker(str(folder))
    (folder / "acl").write_text(
        f"topic read {ROOT}/#\ntopic write {ROOT}/hosts/#\ntopic readwrite ready\n"
    )
    with open(made.config, "a") as file:
        file.write(f"acl_file {folder}/acl\n")
    made.start()
    try:
        for leaf, value in (("status", '{"status": "online"}'), ("machines/web/state", "{}")):
            tool = [*made.tool("pub"), "-q", "1", "-r", "-t", f"{ROOT}/hosts/h1/{leaf}"]
            subprocess.run([*tool, "-m", value], check=True, timeout=60)
        listed = fleet_json(made, "ls")["hosts"]
        assert [(one["name"], len(one["machines"])) for one in listed] == [("h1", 1)]
    finally:
        made.close()


def test_a_table_on_a_terminal_shows_what_a_pipe_is_told(broker):
    """`fleet watch` draws with rich where stdout is a terminal."""
    import pty

    pid, fd = pty.fork()
    if pid == 0:
        os.environ |= {"COLUMNS": "120", "LINES": "50", "TERM": "xterm"}
        words = fleet_words(broker, "watch", "h1", "--for", "1.5")
        os.execv(words[0], words)
    shown = b""
    try:
        while data := os.read(fd, 65536):
            shown += data
    except OSError:
        pass  # the terminal's other end is gone
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert b"\x1b[" in shown
    assert b"online" in shown
    assert b"running" in shown
    plain = run_fleet(broker, "watch", "h1", "--for", "1").stdout
    assert "h1/m0  running  match" in plain
    assert "\x1b" not in plain
