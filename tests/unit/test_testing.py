"""Machines without a QEMU: what a program sees of one is what it sees of a machine."""

from __future__ import annotations

import asyncio
import os

import pytest

from launcher.errors import CommandError, InputError, LauncherError
from launcher.sync.thread import THREAD
from launcher.testing import fake_machine, releases
from tests.support.leaks import held
from tests.support.records import RELEASES

PROFILE = {
    "name": "t",
    "platform": "debian-12",
    "machine": "q35",
    "memory": "64MiB",
    "objects": {"io0": {"qom-type": "iothread"}},
    "serial": "console",
}


def test_the_recorded_releases():
    assert releases() == RELEASES


@pytest.mark.parametrize("release", RELEASES)
async def test_what_a_release_has(release):
    async with fake_machine(PROFILE, release=release) as machine:
        assert machine.plan.version.startswith(f"{release}.")
        assert machine.plan.platform == "debian-12"
        answered = await machine.qmp("query-version")
        assert f"{answered['qemu']['major']}.{answered['qemu']['minor']}" == release
        assert machine.monitor.version[0] == answered["qemu"]["major"]
        known = {c["name"] for c in await machine.qmp("query-commands")}
        assert ("qom-list-get" in known) is (release == "11.1")
        assert {m["name"] for m in await machine.qmp("query-machines")} >= {"microvm"}
        value = await machine.qmp("qom-get", path="/objects/io0", property="poll-max-ns")
        assert value == 32768
        assert machine.argv[0] == f"recorded/qemu-{release}"


async def test_it_says_that_nothing_was_read_back():
    async with fake_machine(PROFILE, platform="debian-13") as machine:
        assert machine.plan.platform == "debian-13"
        counts = machine.report.counts
        assert counts["unobservable"] == len(machine.plan.values) > 0
        assert counts["match"] == counts["mismatch"] == 0
        assert {j.reason for j in machine.report.judged if j.value.observer.read is not None} == {
            "recorded: no QEMU was asked"
        }


@pytest.mark.parametrize(
    ("command", "arguments", "kind", "words"),
    [
        ("nonsense", {}, "CommandNotFound", "nonsense has not been found"),
        ("qom-list-get", {"paths": []}, "CommandNotFound", "has not been found"),
        ("query-block", {}, "GenericError", "query-block is not recorded"),
        ("qom-get", {"path": "/objects/io0", "property": "no"}, "GenericError", "not recorded"),
        ("qom-list-types", {"implements": "x"}, "GenericError", "not recorded"),
        ("device-list-properties", {"typename": "no"}, "DeviceNotFound", "not recorded"),
        ("device-list-properties", {"typename": "x3130-upstream"}, "GenericError", "not recorded"),
    ],
)
async def test_what_it_does_not_know(command, arguments, kind, words):
    async with fake_machine(PROFILE, release="7.2") as machine:
        with pytest.raises(CommandError, match=words) as caught:
            await machine.qmp(command, arguments)
        assert caught.value.evidence["class"] == kind


async def test_answers_of_a_test():
    async with fake_machine(PROFILE) as machine:
        machine.answer("query-block", [{"device": "disk0"}])
        assert await machine.qmp("query-block") == [{"device": "disk0"}]
        machine.answer("my-command", lambda arguments: arguments["x"] + 1)
        assert await machine.qmp("my-command", x=1) == 2
        machine.answer("query-block", CommandError("no", evidence={"class": "DeviceNotActive"}))
        with pytest.raises(CommandError, match="no") as caught:
            await machine.qmp("query-block")
        assert caught.value.evidence["class"] == "DeviceNotActive"


async def test_runstates_and_events():
    async with fake_machine(PROFILE) as machine:
        assert await machine.wait_runstate("running") == "running"
        await machine.pause()
        await machine.wait_event("STOP", timeout=5)
        assert (await machine.qmp("query-status"))["status"] == "paused"
        await machine.resume()
        await machine.reset(5)
        machine.inject("GUEST_PANICKED", {"action": "pause"})
        event = await machine.wait_event("GUEST_PANICKED", timeout=5)
        assert event.data == {"action": "pause"}
        assert await machine.powerdown(5) == 0
        assert machine.events.history[-1].data["reason"] == "guest-shutdown"


async def test_a_console():
    async with fake_machine(PROFILE) as machine:
        machine.feed(b"\x1b[1mlogin: ")
        assert await machine.console.wait_for("login: ", 5) == "login: "
        await machine.console.send_line("root")
        assert machine.typed() == b"root\n"
        assert machine.typed() == b""
        with pytest.raises(LauncherError, match="did not show"):
            await machine.console.wait_for("never", 0.05)


async def test_its_ends():
    async with fake_machine(PROFILE) as machine:
        assert await machine.stop() == "quit"
        assert await machine.wait(5) == 0
        with pytest.raises(LauncherError, match="the console was closed"):
            await machine.console.wait_for("never", 5)
    async with fake_machine(PROFILE) as machine:
        assert await machine.stop(powerdown=True) == "powerdown"
    async with fake_machine(PROFILE) as machine:
        machine.process.send_signal(11)
        assert await machine.wait(5) == -11
        with pytest.raises(ProcessLookupError):
            os.kill(machine.process.pid, 0)
    with pytest.raises(InputError, match=r"qemu-4\.2 is not recorded"):
        async with fake_machine(PROFILE, release="4.2"):
            pass


def test_without_asyncio():
    with fake_machine(PROFILE, settings=("memory=128MiB",)) as machine:
        assert machine.qmp("query-status")["running"] is True
        machine.feed("login: ")
        machine.console.expect("login: ", 5)
        machine.console.write("x")
        assert machine.typed() == b"x"
        machine.answer("query-block", [])
        assert machine.qmp("query-block") == []
        machine.inject("SHUTDOWN", {"guest": True, "reason": "guest-shutdown"})
        assert machine.wait_event("SHUTDOWN", timeout=5).data["guest"] is True
        assert machine.powerdown(5) == 0
    THREAD.stop()


async def test_it_leaves_nothing():
    async with fake_machine(PROFILE):
        pass
    before = held()
    for _ in range(5):
        async with fake_machine(PROFILE) as machine:
            await machine.pause()
    assert held() == before
    assert len(asyncio.all_tasks()) == 1
