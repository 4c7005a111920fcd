"""Broker and agent killed and connections cut under commands: one effect, one final answer each."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time

import pytest

from integration.chaos import Cable, Sender
from integration.conftest import installed
from integration.mqtt import ROOT, AgentProcess, Broker, Stranger

pytestmark = pytest.mark.integration

FULL = os.environ.get("QEMU_LAUNCHER_FULL") == "1"
#: Rounds of ten commands; each ends the broker, most an agent or its connections as well.
ROUNDS = 50 if FULL else 5
NAMES = ("m0", "m1", "m2", "m3")
PROFILE = """\
qemu: {qemu}
platform: debian-12
machine: {{type: microvm, acpi: off}}
accel: tcg
memory: 32MiB
"""
#: Notes each QEMU that is started as a machine, whoever starts it: the effect itself is counted.
WRAPPER = """\
#!/bin/sh
for word; do
    case $word in guest=*) echo "$$ ${{word#guest=}}" >>{log} ;; esac
done
exec {qemu} "$@"
"""


class Host:
    """An agent behind a cable, and what QEMUs were really started."""

    def __init__(self, folder, broker: Broker, port: int) -> None:
        self.spawned = folder / "spawned"
        self.spawned.touch()
        qemu = folder / "bin" / "qemu-system-x86_64"
        qemu.parent.mkdir()
        real = installed("11.1").binary
        qemu.write_text(WRAPPER.format(log=self.spawned, qemu=real))
        qemu.chmod(0o755)
        profiles = folder / "profiles"
        profiles.mkdir()
        for name in (*NAMES, "keep"):
            (profiles / f"{name}.yaml").write_text(PROFILE.format(qemu=qemu))
        policy = folder / "policy.yaml"
        policy.write_text(f"binaries: [{qemu.parent}]\nmemory: 64MiB\nqmp: [object-add]\n")
        self.agent = AgentProcess(broker, str(folder), "chaos", str(policy), str(profiles))
        self.agent.words[self.agent.words.index(broker.url)] = f"mqtt://127.0.0.1:{port}"

    def starts(self) -> dict[str, list[int]]:
        """Pids of the machines' processes by name, in the order in which they were started."""
        found: dict[str, list[int]] = {name: [] for name in (*NAMES, "keep")}
        for line in self.spawned.read_text().splitlines():
            pid, name = line.split()
            found[name].append(int(pid))
        return found

    def living(self) -> dict[str, list[int]]:
        """Those of them that run."""
        return {
            name: [pid for pid in pids if _is_qemu(pid)] for name, pids in self.starts().items()
        }


def _is_qemu(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return b"qemu-system" in file.read()
    except OSError:
        return False


def commands_of(number: int) -> dict[str, tuple[str, dict[str, object]]]:
    """Ten commands of one round: each machine starts or ends, and four things that count."""
    found: dict[str, tuple[str, dict[str, object]]] = {}
    for name in NAMES:
        started = (number + NAMES.index(name)) % 2 == 0
        what = {"profile": name} if started else {"machine": name, "first": "SIGKILL"}
        found[f"r{number}-{name}"] = ("start" if started else "stop", what)
    for place in range(4):
        # A second time QEMU would refuse it: the id is taken.
        made = {"qom-type": "rng-builtin", "id": f"o{number}-{place}"}
        what = {"machine": "keep", "command": "object-add", "arguments": made}
        found[f"r{number}-o{place}"] = ("qmp", what)
    found[f"r{number}-query"] = ("query", {})
    found[f"r{number}-verify"] = ("verify", {"machine": "keep"})
    return found


async def disturb(number: int, broker: Broker, cable: Cable, agent: AgentProcess) -> None:
    """One round's trouble, somewhere in the middle of its commands."""
    kinds = (("broker",), ("broker", "agent"), ("cut", "broker"), ("agent", "broker", "cut"))
    for kind in kinds[number % 4]:
        await asyncio.sleep(random.uniform(0.0, 0.15))
        if kind == "cut":
            cable.cut()
        elif kind == "agent":
            agent.kill()
            agent.start()
        else:
            broker.kill()
            await asyncio.sleep(random.uniform(0.0, 0.1))
            await asyncio.to_thread(broker.start)


async def check(sender: Sender, host: Host, commands: dict) -> None:
    """What was answered against what was really done."""
    unsure = set()
    for number, (verb, what) in commands.items():
        finals = [json.loads(payload) for payload in sender.finals[number]]
        answer = finals[-1]
        if verb in ("query", "verify"):  # without effect: done again by an agent that comes later
            assert answer["status"] == "done", answer
            continue
        assert len(set(sender.finals[number])) == 1, f"{number} has several answers: {finals}"
        if verb == "qmp" and answer["status"] == "failed":
            assert answer["error"]["code"] == "interrupted", answer
            unsure.add(what["arguments"]["id"])
            continue
        assert answer["status"] == "done", answer
        assert verb == "qmp" or answer["result"]["changed"] is True, answer
    made = {what["arguments"]["id"] for verb, what in commands.values() if verb == "qmp"}
    words = ("qmp", "keep", "qom-list", '{"path": "/objects"}')
    listed = json.loads((await asyncio.to_thread(host.agent.launcher, *words)).stdout)
    there = {one["name"] for one in listed} & made
    assert there | unsure == made
    # A machine that was being started when its agent was killed is ended and started anew.
    log, spawned = host.agent.log(), host.starts()
    assert "Traceback" not in log
    assert "never retrieved" not in log
    for name in NAMES:
        asked = [what for verb, what in commands.values() if what.get("profile") == name]
        count = len(asked) + (name in NAMES[1::2])
        again = log.count(f"{name}: abandoned")
        assert count <= len(spawned[name]) <= count + again
    assert len(spawned["keep"]) == 1
    print(
        f"{len(unsure)} of {len(made)} told as interrupted, {len(made - there)} of these not done"
    )


def check_retained(stranger: Stranger, host: Host) -> None:
    """What others see of this host against the processes that run."""
    running = {name: pids[0] for name, pids in host.living().items() if pids}
    assert all(len(pids) <= 1 for pids in host.living().values())
    assert set(running) == {"keep", *(NAMES[1::2] if ROUNDS % 2 == 0 else NAMES[::2])}
    assert host.agent.machines() == running
    topics = stranger.retained(f"{ROOT}/hosts/chaos/machines/+/state")
    shown = {topic.split("/")[-2]: value for topic, value in topics.items() if value}
    assert {name: value["pid"] for name, value in shown.items()} == running
    assert {value["actual"] for value in shown.values()} == {"running"}
    assert {value["verdict"] for value in shown.values()} == {"match"}
    reports = stranger.retained(f"{ROOT}/hosts/chaos/machines/+/report")
    assert {topic.split("/")[-2] for topic, value in reports.items() if value} == set(running)


@pytest.mark.timeout(900 if FULL else 120)
async def test_each_command_has_one_effect_and_one_final_answer(tmp_path):
    broker = Broker(str(tmp_path))
    broker.start()
    cable = Cable(broker.port)
    begun, everything = time.monotonic(), {}
    kills = ROUNDS // 2
    async with cable:
        host = Host(tmp_path, broker, cable.port)
        agent = host.agent
        agent.start()
        try:
            async with Sender(broker.port, "chaos") as sender:
                first = {"keep": ("start", {"profile": "keep"})}
                first |= {f"first-{n}": ("start", {"profile": n}) for n in NAMES[1::2]}
                await sender.finish(first)
                for number in range(ROUNDS):
                    commands = commands_of(number)
                    everything |= commands
                    trouble = asyncio.ensure_future(disturb(number, broker, cable, agent))
                    for one, (verb, what) in commands.items():
                        # The bus delivers at least once.
                        await asyncio.gather(*(sender.send(one, verb, what) for _ in range(2)))
                    await trouble
                    await sender.finish(commands)
                await check(sender, host, everything)
            stranger = Stranger(broker, "chaos")
            await asyncio.to_thread(check_retained, stranger, host)
        finally:
            await asyncio.to_thread(agent.close)
            broker.close()
    print(
        f"{len(everything)} commands, {sender.sent} sent, {ROUNDS} kills of the broker,"
        f" {kills} of the agent, {cable.cuts} cuts, {time.monotonic() - begun:.0f} s"
    )
