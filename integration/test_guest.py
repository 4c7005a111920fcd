"""Commands and files in a real guest: over Debian's qemu-guest-agent, and over its shell.

`QEMU_LAUNCHER_FULL=1` tries every release and machine type, and every liar.
"""

from __future__ import annotations

import os
import time

import pytest

import launcher
from integration.conftest import RELEASES, installed
from launcher import sync
from launcher.guest import GuestError

pytestmark = pytest.mark.integration

MACHINES = {
    "pc": {"machine": "pc"},
    "q35": {"machine": "q35"},
    # The kernel finds virtio devices on microvm by ACPI only; for tsc_early_khz see scripts/guest.
    "microvm": {
        "machine": {"type": "microvm", "acpi": True, "pit": True, "pic": True, "rtc": True},
        "action": {"reboot": "shutdown"},
    },
}


def profile(guest: str, machine: str = "q35", **more) -> dict:
    append = "console=ttyS0 quiet loglevel=3"
    if machine == "microvm":
        append += " tsc_early_khz=1000000"
    return {
        "name": "guest",
        "platform": "debian-12",
        "accel": "tcg",
        "cpu": "max",
        "memory": "192MiB",
        "boot": {"kernel": f"{guest}/vmlinuz", "initrd": f"{guest}/initrd.img", "append": append},
        "serial": "console",
        "guest-agent": True,
        **MACHINES[machine],
        **more,
    }


async def up(machine) -> None:
    await machine.console.wait_for("guest# ", 90)


FULL = os.environ.get("QEMU_LAUNCHER_FULL") == "1"
EVERYWHERE = [("5.2", "q35"), ("11.1", "microvm")]
if FULL:
    EVERYWHERE = [(release, kind) for release in RELEASES for kind in MACHINES]


@pytest.mark.parametrize(("release", "kind"), EVERYWHERE)
async def test_both_ways_on_every_release_and_machine(agent_guest, release, kind):
    """One boot for all of it."""
    wanted = profile(agent_guest, kind)
    async with launcher.launch(wanted, qemu=installed(release).binary) as machine:
        assert machine.report.verdict == "match"
        await up(machine)
        assert machine.guest.via == "agent"
        for via in ("agent", "shell"):
            guest = machine.guest.over(via)
            await guest.ping(30)
            assert (await guest.run("uname -r")).stdout.startswith("6.1.")
            found = await guest.run("echo out; echo err >&2; exit 3")
            assert (found.status, found.via) == (3, via)
            assert (found.stdout, found.stderr) == (
                ("out\n", "err\n") if via == "agent" else ("out\nerr\n", None)
            )
            with pytest.raises(GuestError, match="ended with status 3 in the guest: "):
                found.check()
            assert (await guest.run("cat", input=bytes(range(256)))).output == bytes(range(256))
            assert (await guest.run(["printf", "%s", "a  b\\377"])).stdout == "a  b\\377"
            data = os.urandom(5000)
            await guest.write(f"/tmp/{via} '", data)
            assert await guest.read(f"/tmp/{via} '") == data
            with pytest.raises(GuestError, match="No such file"):
                await guest.read("/nowhere")
        info = await machine.guest.execute("guest-info")
        assert "guest-exec" in {c["name"] for c in info["supported_commands"]}
        with pytest.raises(GuestError, match="refused nonsense"):
            await machine.guest.execute("nonsense")
        assert await machine.guest.shutdown() == 0


async def test_big_outputs_and_long_commands(agent_guest, newest_qemu):
    async with launcher.launch(profile(agent_guest), qemu=newest_qemu.binary) as machine:
        await up(machine)
        guest = machine.guest
        whole = await guest.run("head -c 1500000 /dev/zero", limit=2 << 20)
        assert (whole.output, whole.truncated) == (bytes(1_500_000), False)
        cut = await guest.run("head -c 3000000 /dev/zero; head -c 9 /dev/zero >&2", limit=1000)
        assert (cut.output, cut.errors, cut.truncated) == (bytes(1000), bytes(9), True)
        data = os.urandom(1_000_000)
        await guest.write("/tmp/big", data)
        assert await guest.read("/tmp/big") == data
        with pytest.raises(GuestError, match="more than 1000 bytes"):
            await guest.read("/tmp/big", limit=1000)
        with pytest.raises(GuestError, match=r"did not end within 5 s; it is process \d+"):
            await guest.run("sleep 600", timeout=5)  # which is long enough to begin
        assert (await guest.run("kill -9 $$")).status == 137
        cut = await guest.over("shell").run("head -c 50000 /dev/urandom", limit=20_000)
        assert (len(cut.output), cut.truncated) == (20_000, True)


async def test_the_agent_is_started_again_and_the_guest_reset(agent_guest, newest_qemu):
    async with launcher.launch(profile(agent_guest), qemu=newest_qemu.binary) as machine:
        await up(machine)
        guest, shell = machine.guest, machine.guest.over("shell")
        await guest.ping(30)
        for _ in range(2):
            mark = machine.events.mark()
            await shell.run("killall -9 qemu-ga")
            # What is sent to an agent that is about to end is lost, and told; so wait for the next.
            await machine.wait_event("VSERPORT_CHANGE", lambda e: e.data["open"], since=mark)
            assert (await guest.run("echo back", timeout=30)).stdout == "back\n"
        # A command under way when its agent ends: told, and not only by the deadline.
        began = time.monotonic()
        with pytest.raises(GuestError):
            await guest.run("sleep 1; killall -9 qemu-ga; sleep 60", timeout=100)
        assert time.monotonic() - began < 60
        kept = await machine.snapshot()
        await guest.write("/tmp/later", "x")
        await machine.restore(kept)
        assert (await guest.run("test -e /tmp/later", timeout=30)).status == 1
        await machine.pause()
        with pytest.raises(GuestError, match=r"did not answer within 0\.5 s"):
            await guest.ping(0.5)
        await machine.resume()
        await guest.ping(30)
        await machine.reset()
        await up(machine)
        await guest.ping(60)


# What takes the agent's place in the guest: each writes to its port, and reads nothing.
LIARS = {
    "floods": "while :; do cat /bin/busybox; done >{port}",
    "answers before it is asked": ("while :; do printf '\\377{{\"return\": 1}}\\n'; done >{port}"),
    "never ends a line": "tr '\\0' x </dev/zero >{port}",
    "is deaf": "sleep 100 <>{port}",
}


async def test_an_agent_that_is_none(agent_guest, newest_qemu):
    async with launcher.launch(profile(agent_guest), qemu=newest_qemu.binary) as machine:
        await up(machine)
        guest, shell = machine.guest, machine.guest.over("shell")
        await guest.ping(30)
        await shell.run("killall agent; killall -9 qemu-ga")
        with pytest.raises(
            GuestError, match=r"no agent has opened its port|ended or was started again"
        ):
            await guest.ping(3)
        for liar in list(LIARS.values())[: None if FULL else 2]:
            lying = liar.format(port="/dev/vport*p1")
            await shell.write("/tmp/liar", f"#!/bin/busybox sh\n{lying}\n")
            await shell.run("chmod 755 /tmp/liar; /tmp/liar >/dev/null 2>&1 & sleep 0.5")
            with pytest.raises(GuestError):
                await guest.run("true", timeout=1)
            assert (await machine.qmp("query-status"))["running"]
            await shell.run("killall -9 liar cat tr sleep 2>/dev/null")
        await shell.run("PATH=/bin:/usr/sbin setsid agent >/dev/null 2>&1 &")
        assert (await guest.run("echo honest", timeout=60)).stdout == "honest\n"


def test_without_asyncio_and_without_an_agent(guest, newest_qemu):
    """A machine with a port, which nothing in the guest opens."""
    with sync.launch(profile(guest), qemu=newest_qemu.binary) as machine:
        machine.console.wait_for("guest# ", 90)
        assert machine.guest.via == "agent"
        with pytest.raises(GuestError, match="no agent has opened its port") as caught:
            machine.guest.ping(0.5)
        assert 'over("shell")' in caught.value.hint
        shell = machine.guest.over("shell")
        assert shell.run("uname -r").check().stdout.startswith("6.1.")
        with pytest.raises(LookupError, match="guest-agent: true"):
            shell.execute("guest-info")
        assert shell.shutdown() == 0


def test_what_a_machine_does_not_have(newest_qemu):
    bare = {"name": "t", "platform": "native", "machine": "q35", "accel": "tcg"}
    with sync.launch(bare, qemu=newest_qemu.binary) as machine:
        assert machine.guest.via == ""
        with pytest.raises(LookupError, match=r"guest-agent: true.*serial: console"):
            machine.guest.ping()
        with pytest.raises(LookupError, match="add `guest-agent: true`"):
            machine.guest.over("agent")
        with pytest.raises(LookupError, match="agent or shell"):
            machine.guest.over("ssh")
