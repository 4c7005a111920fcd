"""Two agents with one profile, and a guest that goes from one to the other."""

from __future__ import annotations

import json
import os
import re
import time
import uuid

from integration.conftest import installed
from integration.mqtt import ROOT, AgentProcess, Stranger
from integration.one_copy import WRAPPER

MICROVM = "{type: microvm, acpi: off, pit: on, pic: on, rtc: on, isa-serial: on}"
PROFILE = """\
qemu: {qemu}
platform: debian-12
machine: {machine}
accel: tcg
cpu: qemu64
memory: 128MiB
boot:
  kernel: {guest}/vmlinuz
  initrd: {guest}/initrd.img
  append: console=ttyS0 quiet loglevel=3 tick=0.1
serial: console
migration: {{parameters: {{max-bandwidth: {bandwidth}}}}}
"""


def _watched(folder, qemu: str, monitors: str) -> str:
    """A QEMU with a monitor for a `Watcher`."""
    folder.mkdir()
    made = folder / "qemu-system-x86_64"
    made.write_text(WRAPPER.format(qemu=qemu, folder=monitors))
    made.chmod(0o755)
    return str(made)


class Pair:
    """Two agents with one profile, `web`, each as its own QEMU release has it.

    Args:
        broker: where they meet.
        folder: a folder of each host is made in it.
        guest: the folder of the guest.
        releases: of QEMU, of each host.
        more: `network` and `authority`, by which they speak; `bandwidth`, `machine` and (for each
            host) `disks` of the profile; `policy`, what their policies have besides; `monitors`,
            the folder of a `Watcher`.
    """

    def __init__(self, broker, folder, guest, releases=("11.1", "11.1"), **more) -> None:
        self.broker, self.uuid, self.network = broker, "", more.get("network")
        machine, disks = more.get("machine", MICROVM), more.get("disks", ("", ""))
        mark = uuid.uuid4().hex[:8]
        self.names = [f"a{mark}", f"b{mark}"]
        self.agents, self.strangers = [], []
        for name, release in zip(self.names, releases, strict=True):
            home = folder / name
            profiles = home / "profiles"
            profiles.mkdir(parents=True)
            qemu = installed(release).binary
            real, bandwidth = qemu, more.get("bandwidth", "1GiB")
            if "monitors" in more:
                qemu = _watched(home / "bin", real, more["monitors"])
            text = PROFILE.format(qemu=qemu, guest=guest, bandwidth=bandwidth, machine=machine)
            (profiles / "web.yaml").write_text(text + disks[len(self.agents)])
            number = len(self.agents)
            network, authority = more.get("network"), more.get("authority")
            tls = authority and authority.qemu_folder(str(home / "tls"), name)
            policy = home / "policy.yaml"
            folders = [os.path.dirname(one) for one in (qemu, real, os.path.realpath(real))]
            rules = {
                "binaries": folders,
                "images": [guest, os.path.realpath(guest)],
                "migration-address": network.addresses[number] if network else "127.0.0.1",
                "migration-plaintext": "off" if tls else "on",
                **({"migration-tls": tls} if tls else {}),
                **more.get("policy", {}),
            }
            policy.write_text("".join(f"{k}: {json.dumps(v)}\n" for k, v in rules.items()))
            prefix = network.inside(number) if network else ()
            words = (str(home), name, str(policy), str(profiles))
            agent = AgentProcess(broker, *words, prefix=prefix)
            self.agents.append(agent)
            agent.start()
            self.strangers.append(Stranger(broker, name))
        for stranger in self.strangers:
            stranger.wait_retained("status", lambda value: value["status"] == "online")

    def close(self) -> None:
        for agent in self.agents:
            agent.close()

    def said(self, end: int, pattern: str, least: int = 3, seconds: float = 120) -> list[str]:
        """What the guest's console at one end says; at least so many matches of a pattern."""
        return [one for part in self._parts(end, pattern, least, seconds) for one in part]

    def _parts(self, end: int, pattern: str, least: int, seconds: float) -> list[list[str]]:
        """The same, each time that it was listened to by itself: between two nobody hears it."""
        parts: list[list[str]] = []
        until = time.monotonic() + seconds
        while sum(map(len, parts)) < least and time.monotonic() < until:
            answer = self.strangers[end].do("console", machine="web", seconds=1)
            assert answer["status"] == "done", answer
            parts.append(re.findall(pattern, answer["result"]["text"]))
        assert sum(map(len, parts)) >= least, f"{parts}: {self.agents[end].log()}"
        return parts

    def counts(self, end: int) -> list[int]:
        """The guest's own numbers, as its console at one end tells them: none of them is missed."""
        found: list[int] = []
        for part in self._parts(end, r"tick (\d+)\r?\n", 3, 120):
            numbers = [int(number) for number in part]
            if numbers:
                assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), numbers
                assert not found or numbers[0] > found[-1], (found, numbers)
            found += numbers
        return found

    def running(self) -> list[int]:
        """At which ends a copy of the guest runs, as QEMU itself says."""
        found = []
        for number, agent in enumerate(self.agents):
            while "web" in agent.machines():
                done = agent.launcher("qmp", "web", "query-status")
                if done.returncode == 0:  # else its agent speaks to it just now
                    found += [number] * json.loads(done.stdout)["running"]
                    break
        return found

    def states(self) -> list[dict]:
        """What is retained of the machine at each end; empty where it is not."""
        topics = self.strangers[0].retained(f"{ROOT}/hosts/+/machines/web/state")
        places = [f"{ROOT}/hosts/{name}/machines/web/state" for name in self.names]
        return [topics.get(place) or {} for place in places]

    def state(self, end: int) -> dict:
        """The same of one end."""
        return self.states()[end]


def qemus(guest_uuid: str) -> dict[int, str]:
    """Every QEMU of this machine with that UUID, and whose runtime directory it was given."""
    found = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
            with open(f"/proc/{entry}/environ", "rb") as file:
                places = [one for one in file.read().split(b"\0") if one.startswith(b"XDG_RUN")]
        except OSError:
            continue
        # One that ends between the two looks has no environment any more.
        if guest_uuid.encode() in words and b"-uuid" in words and places:
            found[int(entry)] = places[0].decode()
    return found
