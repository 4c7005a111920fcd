"""A machine's events, and its whole state kept and brought back, on each release."""

from __future__ import annotations

import asyncio
import os
import subprocess

import pytest

import launcher
from launcher.errors import LauncherError, MonitorError

pytestmark = pytest.mark.integration

EMPTY = {"name": "t", "platform": "debian-12", "machine": "q35", "accel": "tcg", "memory": "64MiB"}


async def test_a_guest_is_brought_back_as_it_was(qemu, guest, project):
    demo = os.path.join(project, "profiles", "microvm-demo.yaml")
    async with launcher.launch(demo, qemu=qemu.binary) as machine:
        console = machine.console
        await console.wait_for("guest# ", 90)
        await console.send_line("x=before")
        await console.expect("x=before\r?\n.*guest# ", 20)
        kept = await machine.snapshot()
        for word in ("first", "second"):
            await console.send_line(f"x={word}; echo now-$x")
            await console.expect(f"now-{word}\r?\n", 20)
            await machine.restore(kept)
            assert console.text == ""
            await console.send_line("echo is-$x")
            assert (await console.expect(r"is-(\w+)\r?\n", 20)).group(1) == "before"
        assert (await machine.verify()).verdict == "match"
        # What the profile wanted of migrations is as it was.
        assert (await machine.wait_runstate("running", timeout=60)) == "running"


async def test_the_disks_of_a_profile_are_not_written_to(qemu, tmp_path):
    """Raw or qcow2: what the guest writes after a snapshot is in memory, and can be undone."""
    raw, cow = tmp_path / "a.raw", tmp_path / "b.qcow2"
    for kind, path in (("raw", raw), ("qcow2", cow)):
        command = [qemu.image_tool, "create", "-q", "-f", kind, path, "1M"]
        subprocess.run(command, check=True, timeout=60)  # noqa: ASYNC221
    disks = [{"file": str(raw), "format": "raw"}, {"file": str(cow), "format": "qcow2"}]
    before = raw.read_bytes(), cow.read_bytes()
    async with launcher.launch({**EMPTY, "disk": disks}, qemu=qemu.binary) as machine:
        kept = await machine.snapshot()
        assert len(kept.nodes) == 3
        assert (await machine.verify()).verdict == "match"
        devices = [block["qdev"] for block in await machine.qmp("query-block") if block.get("qdev")]
        for device in devices:
            await _io(machine, device, "write -P 7 0 4k")
            assert "verification failed" in await _io(machine, device, "read -P 0 0 4k")
        await machine.restore(kept)
        for device in devices:
            assert "verification failed" not in await _io(machine, device, "read -P 0 0 4k")
        again = await machine.snapshot()
        assert again.nodes == kept.nodes
        await machine.restore(kept)
    assert (raw.read_bytes(), cow.read_bytes()) == before
    assert sorted(os.listdir(tmp_path)) == ["a.raw", "b.qcow2"]


async def _io(machine, device: str, command: str) -> str:
    """What HMP's qemu-io says: on QEMU's own terminal, not in its answer."""
    before = len(machine.process.stderr.lines)
    line = f'qemu-io -d {device} "{command}"'
    assert await machine.qmp("human-monitor-command", {"command-line": line}) == ""
    machine.process.drain()
    return "\n".join(machine.process.stderr.lines[before:])


async def test_events_are_not_lost_between_two_waits(qemu):
    async with launcher.launch({**EMPTY, "serial": "console"}, qemu=qemu.binary) as machine:
        mark = machine.events.mark()
        for _ in range(3):
            await machine.qmp("stop")
            await machine.qmp("cont")
        seen = []
        async for event in machine.events("STOP", "RESUME", since=mark):
            seen.append(event.name)
            if len(seen) == 6:
                break
        assert seen == ["STOP", "RESUME"] * 3
        assert [e.name for e in machine.events("STOP", since=mark).history] == ["STOP"] * 3

        async def the_next_stop() -> str:
            async for event in machine.events("STOP", since=machine.events.mark()):
                return event.name
            return ""

        waiting = asyncio.ensure_future(the_next_stop())
        await asyncio.sleep(0)
        paused = asyncio.ensure_future(machine.wait_runstate("paused", timeout=10))
        await machine.qmp("stop")
        assert await waiting == "STOP"
        assert await paused == "paused"
        with pytest.raises(MonitorError, match=r"was not running within 0\.1 s; it is paused"):
            await machine.wait_runstate("running", timeout=0.1)
        with pytest.raises(MonitorError, match="no SHUTDOWN within"):
            await machine.wait_event("SHUTDOWN", timeout=0.05)
        await machine.stop()
        assert (await machine.wait_event("SHUTDOWN", timeout=5)).data["guest"] is False
        assert [e.name async for e in machine.events("SHUTDOWN")] == ["SHUTDOWN"]


async def test_a_wait_in_vain_says_where_the_guest_is(qemu):
    wanted = {**EMPTY, "serial": "console", "smp": 2}
    async with launcher.launch(wanted, qemu=qemu.binary) as machine:
        with pytest.raises(LauncherError) as caught:
            await machine.console.wait_for("login:", 0.5)
    lines = caught.value.evidence["guest"]
    assert lines[0] == "runstate: running"
    assert [line.partition(" at 0x")[0] for line in lines[1:3]] == ["vCPU 0:", "vCPU 1:"]
    assert "  RESUME {}" in lines
