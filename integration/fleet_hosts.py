"""Two hosts on one machine for the tests of a fleet: an agent each, with directories of its own."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Sequence

from integration.conftest import installed
from integration.mqtt import AgentProcess, Broker, Stranger

PROFILE = """\
qemu: {qemu}
platform: debian-12
machine: {{type: microvm, acpi: off}}
accel: tcg
memory: 32MiB
"""
#: For one program to its end; a machine may be ten times as slow as ours.
SECONDS = 100


def make_host(
    broker: Broker,
    folder: str,
    host: str,
    release: str = "11.1",
    *,
    more: Sequence[str] = (),
    online: bool = True,
) -> AgentProcess:
    """An agent with profiles `web`, `db` and `cache`.

    Args:
        broker: whose.
        folder: of its own.
        host: its id.
        release: of QEMU.
        more: words of its command line.
        online: wait until it is.
    """
    qemu = installed(release).binary
    profiles = os.path.join(folder, "profiles")
    os.makedirs(profiles)
    for name in ("web", "db", "cache"):
        with open(os.path.join(profiles, f"{name}.yaml"), "w") as file:
            file.write(PROFILE.format(qemu=qemu))
    policy = os.path.join(folder, "policy.yaml")
    folders = f"[{os.path.dirname(qemu)}, {os.path.dirname(os.path.realpath(qemu))}]"
    with open(policy, "w") as file:
        file.write(
            f"binaries: {folders}\nmemory: 64MiB\ninline-profiles: on\n"
            "migration-address: 127.0.0.1\nmigration-plaintext: on\n"
        )
    agent = AgentProcess(broker, folder, host, policy, profiles, more)
    agent.environment["PATH"] = f"{os.path.dirname(qemu)}:{os.environ['PATH']}"
    agent.start()
    if not online:
        return agent
    stranger = Stranger(broker, host)
    stranger.wait_retained("status", lambda value: value["status"] == "online")
    stranger.wait_retained("facts")
    return agent


def some_id() -> str:
    return f"h{uuid.uuid4().hex[:8]}"


def fleet_words(broker: Broker, *words: str) -> list[str]:
    what, *rest = words
    return [sys.executable, "-m", "launcher", "fleet", what, "--broker", broker.url, *rest]


def run_fleet(broker: Broker, *words: str) -> subprocess.CompletedProcess[str]:
    """`qemu-launcher fleet …`, whatever this user has written down about brokers."""
    return subprocess.run(
        fleet_words(broker, *words),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env={**os.environ, "XDG_CONFIG_HOME": "/nonexistent"},
    )


def fleet_json(broker: Broker, *words: str) -> dict:
    done = run_fleet(broker, *words, "--format", "json")
    return json.loads(done.stdout)


async def until(fleet: object, test: Callable[[], bool]) -> None:
    """Wait until a test of what a fleet knows passes."""
    async with asyncio.timeout(SECONDS):
        while not test():
            await fleet.changed(1)
