"""Guests that do what no guest should, in a few instructions each, on each release."""

from __future__ import annotations

import asyncio
import re

import pytest

import launcher
from integration.test_rig import run
from launcher.console import KEEP
from launcher.errors import LauncherError

pytestmark = pytest.mark.integration
pytest_plugins = ("pytester",)

__all__ = ["run"]

EMPTY = {"name": "t", "platform": "debian-12", "machine": "q35", "accel": "tcg", "memory": "64MiB"}

#: Boot sectors, loaded to 0000:7c00 in real mode.
FLOOD = "baf803 b078 ee ebfd"  # dx = 0x3f8, al = 'x', for ever
SAY = "31c0 8ed8 be147c baf803 ac 84c0 7403 ee ebf8 fa f4"  # what stands behind it, up to a zero
HANG = "fa f4"  # cli, hlt
PANIC = "ba0505 b001 ee fa f4"  # pvpanic's port: panicked
WATCHDOG = "ba4304 b00e ee fa f4"  # ib700's port: in two seconds; and hang
REBOOT = "baf90c b006 ee fa f4"  # the chipset's reset register
POWER_OFF = "ba0406 b80020 ef fa f4"  # PM1a_CNT: SLP_EN, S5


@pytest.fixture
def guest_of(tmp_path):
    """A profile whose guest is that code."""

    def making(code: str, text: bytes = b"", **more: object) -> dict:
        path = tmp_path / "boot.raw"
        sector = (bytes.fromhex(code) + text).ljust(510, b"\0")
        path.write_bytes(sector + b"\x55\xaa" + bytes(1 << 20))
        disk = {"file": str(path), "read-only": True}
        return {**EMPTY, "disk": disk, "serial": "console", **more}

    return making


async def test_floods_its_console(qemu, guest_of):
    async with launcher.launch(guest_of(FLOOD), qemu=qemu.binary) as machine:
        console = machine.console
        await console.wait_for("x{1000}", 60)
        async with asyncio.timeout(120):
            while not console.dropped:
                await machine.qmp("query-status")
                await asyncio.sleep(0.01)
        assert len(console.text) == KEEP
        with pytest.raises(LauncherError, match=r"not within 0\.5 s") as told:
            await console.wait_for("never", 0.5)
        # What is told of it is bounded as well.
        assert len("\n".join([str(told.value), *told.value.__notes__])) < 300_000
        await machine.pause()
        assert (await machine.wait_runstate("paused", timeout=20)) == "paused"


ESCAPES = b"a\x1b[2J\x1b[1;31mb\x1b]0;title\x07c\x1bPq#0\x1b\\d\x9b\xff\xfee\x1b[6n\x1b(Bf\x08\rg\n"


async def test_sends_escape_sequences(qemu, guest_of):
    async with launcher.launch(guest_of(SAY, ESCAPES), qemu=qemu.binary) as machine:
        await machine.console.wait_for("f\x08\rg\n", 60)
        assert machine.console.text.endswith("abcd\ufffd\ufffd\ufffdef\x08\rg\n")
        assert "\x1b" not in machine.console.text
        with pytest.raises(LauncherError) as told:
            await machine.console.wait_for("never", 0.2)
        shown = "\n".join([str(told.value), *told.value.__notes__])
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", shown)


async def test_hangs(qemu, guest_of):
    async with launcher.launch(guest_of(HANG), qemu=qemu.binary) as machine:
        async with asyncio.timeout(60):
            # SeaBIOS halts too, and is woken; this one is not.
            while "at 0x00007c02, ring 0, halted" not in str(await machine.whereabouts()):  # noqa: ASYNC110 (no event tells)
                await asyncio.sleep(0.05)
        with pytest.raises(LauncherError, match=r"not within 0\.2 s") as told:
            await machine.console.wait_for("never", 0.2)
        assert "halted" in told.value.evidence["guest"][1]
        with pytest.raises(LauncherError, match="did not power down"):
            await machine.powerdown(0.2)
        assert await machine.stop() == "quit"


async def test_reboots_in_a_loop(qemu, guest_of):
    async with launcher.launch(guest_of(REBOOT), qemu=qemu.binary) as machine:
        mark = machine.events.mark()
        for _ in range(3):
            event = await machine.wait_event("RESET", timeout=60, since=mark)
            assert event.data["guest"] is True
            mark = event.number
        with pytest.raises(LauncherError) as told:
            await machine.console.wait_for("never", 0.2)
        lines = told.value.evidence["guest"]
        assert any(re.fullmatch(r"the guest has reset itself \d+ times", line) for line in lines)
    once = guest_of(REBOOT, action={"reboot": "shutdown"})
    async with launcher.launch(once, qemu=qemu.binary) as machine:
        assert await machine.wait(60) == 0
        event = await machine.wait_event("SHUTDOWN", timeout=5)
        assert (event.data["guest"], event.data["reason"]) == (True, "guest-reset")


async def test_powers_itself_off(qemu, guest_of):
    async with launcher.launch(guest_of(POWER_OFF), qemu=qemu.binary) as machine:
        with pytest.raises(LauncherError, match="the console was closed"):
            await machine.console.wait_for("never", 60)
        assert await machine.wait(20) == 0
        event = await machine.wait_event("SHUTDOWN", timeout=5)
        assert (event.data["guest"], event.data["reason"]) == (True, "guest-shutdown")
    stays = guest_of(POWER_OFF, action={"shutdown": "pause"})
    async with launcher.launch(stays, qemu=qemu.binary) as machine:
        assert await machine.wait_runstate("shutdown", timeout=60) == "shutdown"


IN_THE_RIG = """
def guest_of(tmp_path, code, **more):
    path = tmp_path / "boot.raw"
    path.write_bytes(bytes.fromhex(code).ljust(510, b"\\0") + b"\\x55\\xaa" + bytes(1 << 20))
    return {**CONSOLE, "disk": {"file": str(path), "read-only": True}, **more}

def test_panics(machine_factory, tmp_path):
    devices = {"p0": {"driver": "pvpanic"}}
    machine_factory(guest_of(tmp_path, PANIC, devices=devices)).console.wait_for("never", 60)

def test_hangs_with_a_watchdog(machine_factory, tmp_path):
    devices = {"w0": {"driver": "ib700"}}
    machine_factory(guest_of(tmp_path, WATCHDOG, devices=devices)).console.wait_for("never", 60)

def test_powers_itself_off(machine_factory, tmp_path):
    machine = machine_factory(guest_of(tmp_path, POWER_OFF))
    assert machine.wait(60) == 0
"""


def test_the_rig_tells_them_apart(run):
    words = f"PANIC, WATCHDOG, POWER_OFF = {PANIC!r}, {WATCHDOG!r}, {POWER_OFF!r}\n"
    result = run(words + IN_THE_RIG, "--qemu", "matrix", "--durations=0")
    result.assert_outcomes(passed=4, failed=8)
    text = result.stdout.str()
    assert len(re.findall(r"^E .*GuestFault: t: the guest panicked", text, re.M)) == 4
    assert len(re.findall(r"^E .*GuestFault: t: the guest's watchdog fired", text, re.M)) == 4
    assert max(float(seconds) for seconds in re.findall(r"([\d.]+)s call", text)) < 45
