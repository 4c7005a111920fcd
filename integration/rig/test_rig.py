"""Guests on every machine type: they boot, work, move, fall and get up again."""

from __future__ import annotations

import os
import signal

import pytest

from launcher import sync

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

HERE = os.path.dirname(os.path.abspath(__file__))
PC, Q35, MICROVM = (f"{HERE}/profiles/{name}.yaml" for name in ("pc", "q35", "microvm"))
UP = "guest# "


@pytest.mark.parametrize("profile", [PC, Q35, MICROVM], ids=["pc", "q35", "microvm"])
async def test_boots_and_powers_down(machine_factory, profile):
    machine = await machine_factory(profile)
    await machine.console.wait_for(UP, timeout=90)
    assert machine.report.verdict == "match"
    assert (await machine.guest.run("uname -r")).check().stdout.startswith("6.1.")
    assert await machine.powerdown() == 0


@pytest.mark.machine(Q35, up=UP)
class TestOneBoot:
    """Each of these gets the guest as it was when it had booted."""

    async def test_commands(self, module_machine):
        ran = await module_machine.guest.run("echo out; echo err >&2; exit 3", timeout=30)
        assert (ran.status, ran.stdout, ran.stderr) == (3, "out\n", "err\n")

    async def test_files(self, module_machine):
        await module_machine.guest.write("/tmp/mark", b"\x00\xff")
        assert await module_machine.guest.read("/tmp/mark") == b"\x00\xff"

    def test_is_fresh(self, module_machine):
        shell = module_machine.guest.over("shell")
        assert shell.run("test -e /tmp/mark").status == 1

    def test_pause(self, module_machine):
        module_machine.pause()
        module_machine.wait_event("STOP", timeout=10)
        module_machine.resume()
        module_machine.guest.ping(30)

    def test_floods_the_console(self, module_machine):
        console = module_machine.console
        console.send_line("n=0; while [ $n -lt 20000 ]; do echo $n; n=$((n+1)); done; echo do''ne")
        console.expect("done", timeout=60)
        assert module_machine.guest.run("uptime", timeout=30).status == 0

    async def test_parts_come_and_go(self, module_machine):
        count = "ls /sys/bus/pci/devices | wc -l"
        before = int((await module_machine.guest.run(count, timeout=30)).stdout)
        assert (await module_machine.plug(net={"type": "user", "id": "lan"})).verdict == "match"
        seen = f"until [ $({count}) = {before + 1} ]; do sleep 0.1; done"
        assert (await module_machine.guest.run(seen, timeout=30)).status == 0
        await module_machine.unplug("lan-dev")
        assert int((await module_machine.guest.run(count, timeout=30)).stdout) == before

    def test_goes_back_in_time(self, module_machine):
        kept = module_machine.snapshot()
        module_machine.guest.write("/tmp/later", "x")
        module_machine.restore(kept)
        assert module_machine.guest.run("test -e /tmp/later", timeout=30).status == 1


@pytest.mark.machine(Q35)
def test_migrates(machine, qemu):
    machine.console.wait_for(UP, timeout=90)
    machine.guest.write("/tmp/luggage", "here")
    uuid, folder = machine.plan.uuid, f"rig-{os.getpid()}"
    with sync.incoming(Q35, qemu=qemu, uuid=uuid, folder=folder) as there:
        assert machine.migrate(there).result == "completed"
        assert there.guest.read("/tmp/luggage") == b"here"
        assert there.guest.shutdown() == 0


@pytest.mark.machine(PC, allow="panic")
def test_panics(machine):
    machine.console.wait_for(UP, timeout=90)
    machine.console.send_line("echo c >/proc/sysrq-trigger")
    assert machine.wait_event("GUEST_PANICKED", timeout=30).data["action"] in ("pause", "poweroff")
    machine.console.wait_for("Kernel panic - not syncing|sysrq_handle_crash", timeout=10)


@pytest.mark.machine(Q35, allow="crash")
def test_qemu_crashes(machine):
    os.kill(machine.process.pid, signal.SIGSEGV)
    assert machine.wait(10) == -signal.SIGSEGV
