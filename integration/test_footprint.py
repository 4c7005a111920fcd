"""What a launch costs where no clock is involved: commands, bytes, descriptors, threads."""

from __future__ import annotations

import asyncio
import os
import selectors
import sys
import threading
import time

import pytest

import launcher
from launcher.begin import begin
from launcher.errors import CommandError
from launcher.monitor import Monitor
from launcher.prepare import Request, load, prepare
from launcher.start import attach

pytestmark = pytest.mark.integration

#: release → (commands, request bytes) that verifying the demo may take. Before qom-list-get
#: (10.1) single reads are left for what no bulk command shows.
VERIFY = {"5.2": (20, 1500), "7.2": (19, 1420), "10.0": (21, 1560), "11.1": (4, 400)}
#: The same for all that a launch sends around it: negotiation, setup, first answer, cont.
AROUND = (6, 500)


def many(count: int) -> dict:
    """A machine with `count` iothreads, each with values of its own to read back."""
    return {
        "name": "many",
        "platform": "debian-12",
        "machine": "q35",
        "accel": "tcg",
        "objects": {f"io{n}": {"qom-type": "iothread", "poll-max-ns": n} for n in range(count)},
    }


async def test_commands_and_bytes_of_a_launch(qemu, guest, project):
    path = os.path.join(project, "profiles", "microvm-demo.yaml")
    kernel = (f"kernel={guest}/vmlinuz", f"initrd={guest}/initrd.img")
    async with launcher.launch(path, qemu=qemu.binary, settings=kernel) as machine:
        commands, sent = VERIFY[qemu.release]
        assert machine.report.commands <= commands
        assert machine.report.request_bytes <= sent
        assert machine.monitor.commands <= commands + AROUND[0]
        assert machine.monitor.bytes_sent <= sent + AROUND[1]


async def test_hundreds_of_values_are_read_in_a_few_commands(qemu):
    """100 iothreads, 300 values: one bulk command, never one command per value."""
    async with launcher.launch(many(100), qemu=qemu.binary) as machine:
        read = [j for j in machine.report.judged if j.verdict == "match"]
        assert len(read) >= 200
        assert machine.report.commands <= 5
        assert machine.report.request_bytes <= 400 + 20 * 100


async def test_descriptors_and_threads_per_machine(qemu):
    """QMP, the pidfd and stderr: three descriptors a machine, and not one thread."""
    async with launcher.launch(many(1), qemu=qemu.binary):
        pass  # what all machines of a process share is made with the first one
    before, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    machines = []
    try:
        for _ in range(5):
            prepared = await prepare(load(Request(many(1), qemu=qemu.binary)))
            machines.append(await attach(begin(prepared)))
        assert len(os.listdir("/proc/self/fd")) - before == 3 * 5
        assert threading.active_count() == threads
    finally:
        for machine in machines:
            await machine.close()
    assert len(os.listdir("/proc/self/fd")) == before


async def test_nothing_sleeps_on_the_way_to_a_verified_machine(qemu):
    """Neither a sleep nor a poll with a timeout of its own: every wait is for an event."""
    slept: list[str] = []

    def watch(frame, event, argument):
        if event == "c_call" and argument is time.sleep:
            slept.append(frame.f_code.co_filename)
        if event == "call" and frame.f_code is asyncio.sleep.__code__:
            slept.append(frame.f_back.f_code.co_filename if frame.f_back else "?")

    prepared = await prepare(load(Request(many(1), qemu=qemu.binary)))
    sys.setprofile(watch)
    try:
        machine = await attach(begin(prepared))
        await machine.verify()
        await machine.resume()
    finally:
        sys.setprofile(None)
    await machine.close()
    # qemu.qmp yields to the loop with sleep(0); that is no wait.
    assert [place for place in slept if "/launcher/" in place] == []


class Counting(selectors.EpollSelector):
    """An event loop's selector that counts how its waits ended."""

    def __init__(self) -> None:
        super().__init__()
        self.by_event = self.by_clock = 0

    def select(self, timeout: float | None = None) -> list:
        ready = super().select(timeout)
        if ready:
            self.by_event += 1
        elif timeout is None or timeout > 0:
            self.by_clock += 1
        return ready


def test_every_wait_of_a_launch_ends_by_an_event(qemu):
    """No wait ends by the clock, which is what polling is; and there are few of them."""
    counting = Counting()

    async def launch_and_stop() -> tuple[int, int]:
        prepared = await prepare(load(Request(many(1), qemu=qemu.binary)))
        counting.by_event = counting.by_clock = 0
        machine = await attach(begin(prepared))
        await machine.verify()
        await machine.stop()
        counted = counting.by_event, counting.by_clock
        await machine.close()
        return counted

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(counting)) as runner:
        by_event, by_clock = runner.run(launch_and_stop())
    assert by_clock == 0
    assert by_event <= 20


async def test_the_setup_of_a_launch_takes_one_round_trip(qemu):
    """Negotiation, setup and first question go out together, and in this order."""
    prepared = await prepare(load(Request(many(1), qemu=qemu.binary)))
    started = begin(prepared)
    try:
        await started.process.watch()
        requests = [("query-name", None), ("no-such-command", None), ("query-status", None)]
        monitor = await Monitor.connect(started.resources.sockets["qmp"], requests)
        name, refused, status = monitor.answers
        assert isinstance(name, dict)
        assert isinstance(refused, CommandError)
        assert status["status"] == "prelaunch"
        assert monitor.commands == 1 + len(requests)
        await monitor.close()
    finally:
        started.abandon()
