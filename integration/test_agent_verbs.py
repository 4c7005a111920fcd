"""What an agent does with machines beyond start and stop, and what it tells of them."""

from __future__ import annotations

import base64
import json
import os
import struct
import time
import uuid

import pytest

from integration.conftest import installed
from integration.mqtt import ROOT, SECONDS, AgentProcess, Stranger

pytestmark = pytest.mark.integration

PROFILE = """\
qemu: {qemu}
platform: debian-12
machine: {{type: q35}}
accel: tcg
memory: 128MiB
boot:
  kernel: {guest}/vmlinuz
  initrd: {guest}/initrd.img
  append: console=ttyS0 quiet loglevel=3
serial: console
devices: {{v: {{driver: VGA}}, p: {{driver: pvpanic}}}}
"""


def agent_of(broker, folder, guest, qemu, host, *more: str) -> AgentProcess:
    folder.mkdir(exist_ok=True)
    (folder / "web.yaml").write_text(PROFILE.format(qemu=qemu, guest=guest))
    (folder / "bare.yaml").write_text(
        f"qemu: {qemu}\nplatform: debian-12\nmachine: microvm\naccel: tcg\nmemory: 32MiB\n"
    )
    rules = {
        "binaries": [os.path.dirname(qemu), os.path.dirname(os.path.realpath(qemu))],
        "images": [guest, os.path.realpath(guest)],
        "qmp": ["inject-nmi"],
    }
    policy = folder / "policy.yaml"
    policy.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in rules.items()))
    agent = AgentProcess(broker, str(folder), host, str(policy), str(folder), more)
    agent.start()
    Stranger(broker, host).wait_retained("status", lambda value: value["status"] == "online")
    return agent


@pytest.fixture(scope="module", params=["5.2", "11.1"])
def running(request, broker, tmp_path_factory, guest):
    """A stranger, and an agent whose machine `web` is up; the oldest QEMU and the newest."""
    host = f"v{uuid.uuid4().hex[:8]}"
    agent = agent_of(
        broker, tmp_path_factory.mktemp("v"), guest, installed(request.param).binary, host
    )
    stranger = Stranger(broker, host)
    try:
        started = stranger.do("start", profile="web")
        assert started["status"] == "done", (started, agent.log())
        wait_prompt(stranger)
        yield agent, stranger
    finally:
        agent.close()


def console(stranger: Stranger, text: str, seconds: int) -> str:
    answer = stranger.do("console", machine="web", seconds=seconds, input=text)
    assert answer["status"] == "done", answer
    return answer["result"]["text"]


def wait_prompt(stranger: Stranger) -> None:
    """Type nothing but returns at the console until the guest's shell is there."""
    said, until = "", time.monotonic() + SECONDS
    while time.monotonic() < until:
        said += console(stranger, "\n", 1)
        if "guest# " in said:
            return
    raise AssertionError(said)


def typed(stranger: Stranger, command: str, wanted: str) -> None:
    """Type a command at the console until it shows what is wanted.

    What it shows while nobody listens is lost, so a slow guest is listened to for longer each time.
    When this returns, it has done all that was typed: the last one has a number of its own.
    """
    said = ""
    for number in range(1, 9):
        said = console(stranger, f"{command}; echo typed-$(({number}))\n", 2 * number)
        if f"typed-{number}\r\n" in said:
            assert wanted in said, said
            return
    raise AssertionError(said)


def test_screen_console_events_and_lock_are_told(running):
    _, stranger = running
    shown = stranger.do("screendump", machine="web")
    assert shown["status"] == "done", shown
    png = base64.b64decode(shown["result"]["png"])
    size = struct.unpack(">II", png[16:24])
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    assert size == (shown["result"]["width"], shown["result"]["height"])
    base = f"{ROOT}/hosts/{stranger.host}/machines/web"
    listener = stranger.listen(f"{base}/+", 1000)
    try:
        typed(stranger, "echo seen-$((40+2))", "seen-42")
        assert stranger.do("pause", machine="web")["status"] == "done"
        assert stranger.do("resume", machine="web")["status"] == "done"
        assert stranger.do("lock", profile="web")["status"] == "done"
        found = {"console": "", "events": set(), "lock": False}
        for line in listener.stdout:
            one = json.loads(line)
            leaf = one["topic"].rpartition("/")[2]
            if leaf == "console":
                found["console"] += str(one["payload"])
            elif leaf == "events":
                event = json.loads(one["payload"])
                found["events"].add(event["type"])
                assert event["data"]["dropped"] == 0 if ".qmp." in event["type"] else True
            elif leaf == "lock":
                found["lock"] = True
            wanted = {f"qemu-launcher.machine.qmp.{name}" for name in ("STOP", "RESUME")}
            if found["lock"] and "seen-42" in found["console"] and wanted <= found["events"]:
                break
        else:
            raise AssertionError(found)
    finally:
        listener.kill()
        listener.wait()
        listener.stdout.close()
    lock = stranger.retained(f"{base}/lock")[f"{base}/lock"]
    assert lock["values"]


def test_a_machine_is_kept_and_brought_back_over_a_kill_of_the_agent(running):
    agent, stranger = running
    typed(stranger, "x=before; echo is-$x", "is-before\r\n")
    kept = stranger.do("snapshot", machine="web", tag="one")
    assert kept["status"] == "done", kept
    assert stranger.do("snapshot", machine="web", tag="one")["error"]["code"] == "conflict"
    typed(stranger, "x=after; echo is-$x", "is-after\r\n")
    agent.kill()
    agent.start()
    assert stranger.do("restore", machine="web", tag="two")["error"]["code"] == "absent"
    assert stranger.do("restore", machine="web", tag="one")["status"] == "done"
    typed(stranger, "echo is-$x", "is-before\r\n")
    refused = stranger.do("migrate", machine="web", to="elsewhere")
    assert refused["error"]["code"] == "snapshot"
    assert stranger.do("stop", machine="web", first="quit")["status"] == "done"
    assert stranger.retained(f"{ROOT}/hosts/{stranger.host}/machines/web/#") == {}


def test_what_a_machine_has_not_is_said(broker, tmp_path, guest):
    """No display, no console, no other host."""
    host = f"v{uuid.uuid4().hex[:8]}"
    agent = agent_of(broker, tmp_path, guest, installed("11.1").binary, host)
    stranger = Stranger(broker, host)
    try:
        assert stranger.do("start", profile="bare")["status"] == "done"
        assert "console" in stranger.do("screendump", machine="bare")["error"]["message"]
        assert stranger.do("console", machine="bare")["error"]["code"] == "console"
        assert stranger.do("migrate", machine="bare", to=host)["error"]["code"] == "member"
        assert stranger.do("snapshot", machine="gone", tag="t")["status"] == "failed"
        listener = stranger.listen(f"{ROOT}/hosts/{host}/machines/bare/events", 1000)
        assert stranger.do("reset", machine="bare")["status"] == "done"
        # What QEMU said when it began to run may be told this late.
        stranger.wait_event(listener, "qemu-launcher.machine.qmp.RESET")
    finally:
        agent.close()


def test_a_start_of_a_pool_is_done_by_one_host_and_never_by_one_that_is_away(
    broker, tmp_path, guest
):
    """RELIABILITY M8: a live session is dealt to while its client is away. There is none here."""
    qemu, mark = installed("11.1").binary, uuid.uuid4().hex[:8]
    pool = f"p{mark}"
    agents = [
        agent_of(broker, tmp_path / name, guest, qemu, f"{name}{mark}", "--pool", pool)
        for name in ("a", "b")
    ]
    stranger = Stranger(broker, agents[0].host)
    topic = f"{ROOT}/pool/{pool}/start"
    answer = ("-D", "publish", "response-topic", stranger.reply)

    def start(name: str) -> str:
        """The host that took it, and that it was done."""
        listener = stranger.listen(stranger.reply, 1000)
        body = {"id": f"{name}-{uuid.uuid4().hex[:6]}", "profile": "bare", "name": name}
        stranger.publish(topic, json.dumps(body), *answer)
        taken: list[dict] = []
        for line in listener.stdout:
            one = json.loads(line)
            found = json.loads(one["payload"]) if one["topic"] == stranger.reply else {}
            if found.get("id") == body["id"]:
                taken.append(found)
            if len(taken) == 2:
                break
        listener.kill()
        listener.wait()
        listener.stdout.close()
        assert [one["status"] for one in taken] == ["accepted", "done"], taken
        return taken[0]["result"]["host"]

    try:
        # A member takes part some moments after it is online; what it refuses it takes as well.
        until = time.monotonic() + SECONDS
        while not all("refused start: " in agent.log() for agent in agents):
            assert time.monotonic() < until, [agent.log() for agent in agents]
            stranger.publish(topic, '{"id": "is-anybody-there"}')
        hosts = [start(f"m{number}") for number in range(4)]
        names = [{*agent.machines()} for agent in agents]
        assert sorted([*names[0], *names[1]]) == ["m0", "m1", "m2", "m3"]
        for number, host in enumerate(hosts):
            assert f"m{number}" in names[[a.host for a in agents].index(host)]
        agents[0].kill()
        for number in range(4, 7):
            assert start(f"m{number}") == agents[1].host
    finally:
        for agent in agents:
            agent.close()
