"""Faults that QEMU offers, as a guest meets them, on each release."""

from __future__ import annotations

import asyncio
import time

import pytest

import launcher
from launcher.errors import CommandError, HostError, InputError

pytestmark = pytest.mark.integration

EMPTY = {"name": "t", "platform": "debian-12", "machine": "q35", "accel": "tcg", "memory": "64MiB"}


@pytest.fixture
def linux(guest) -> dict:
    """A Linux guest with a disk and a NIC; the disk `bad` cannot be written to from the start."""
    boot = {"kernel": f"{guest}/vmlinuz", "initrd": f"{guest}/initrd.img"}
    boot["append"] = "console=ttyS0 quiet loglevel=3"
    null = {"driver": "null-co", "size": 1 << 20, "read-zeroes": True}
    rule = {"event": "none", "iotype": "write", "errno": 5}
    return {
        **EMPTY,
        "memory": "128MiB",
        "cpu": "qemu64",
        "serial": "console",
        "boot": boot,
        "net": "user",
        "blockdevs": {
            "good": null,
            "bad": {"driver": "blkdebug", "image": null, "inject-error": [rule]},
        },
        "devices": {
            "disk0": {"driver": "virtio-blk-pci", "drive": "good"},
            "disk1": {"driver": "virtio-blk-pci", "drive": "bad"},
            "rp1": {"driver": "pcie-root-port"},
        },
    }


async def said(machine, line: str) -> str:
    """What a line in the guest's shell says, on one line."""
    await machine.console.send_line(f"set -- $({{ {line}; }} 2>&1); echo sa''id: $*")
    return (await machine.console.expect(r"said: ?([^\r\n]*)\r?\n", 60))[1]


async def test_what_a_guest_meets(end_qemu, linux):
    async with launcher.launch(linux, qemu=end_qemu.binary) as machine:
        await machine.console.expect("guest# ", 120)
        await _network(machine)
        await _disks(machine, end_qemu.release)
        await _processor(machine)
        await _time(machine)


async def _network(machine) -> None:
    carrier = "cat /sys/class/net/eth0/carrier"
    await said(machine, "ip link set eth0 up")
    for name in ("net0-dev", "net0"):
        assert await said(machine, carrier) == "1"
        await machine.faults.link(name, up=False)
        assert await said(machine, carrier) == "0"
        await machine.faults.link(name, up=True)
    with pytest.raises(CommandError, match="net9"):
        await machine.faults.link("net9", up=False)


async def _disks(machine, release: str) -> None:
    def write(disk: str) -> str:
        return f"dd if=/dev/zero of=/dev/{disk} bs=4k count=4 conv=fsync && echo fine"

    assert (await said(machine, write("vda"))).endswith("fine")
    assert "Input/output error" in await said(machine, write("vdb"))
    with pytest.raises(InputError, match="no disk 'disk9'"):
        await machine.faults.inject_error("disk9", iotype="write")
    with pytest.raises(InputError, match="does not know 'wirte'"):
        await machine.faults.inject_error("disk0", iotype="wirte")
    if release == "5.2":
        with pytest.raises(HostError, match="while it runs") as told:
            await machine.faults.inject_error("disk0", iotype="write")
        assert "blkdebug into the profile" in told.value.hint
    else:
        await machine.faults.inject_error("disk0", iotype="write", errno=5)
        assert "Input/output error" in await said(machine, write("vda"))
        wrong = [(j.value.id, j.value.property) for j in (await machine.verify()).wrong]
        assert wrong == [("disk0", "drive")]
        with pytest.raises(InputError, match="errors already"):
            await machine.faults.inject_error("disk0", iotype="write")
        await machine.faults.end_errors("disk0")
    assert (await said(machine, write("vda"))).endswith("fine")
    assert (await machine.verify()).verdict == "match"
    names = {n["node-name"] for n in await machine.qmp("query-named-block-nodes")}
    assert not [name for name in names if name.startswith("launcher")]
    with pytest.raises(InputError, match="no errors that could end"):
        await machine.faults.end_errors("disk0")
    # Ten requests of 4 KiB at five a second.
    await machine.faults.throttle("disk0", iops=5)
    before = time.monotonic()
    slow = "dd if=/dev/vda of=/dev/null bs=4k count=10 iflag=direct && echo fine"
    assert (await said(machine, slow)).endswith("fine")
    assert time.monotonic() - before > 1
    await machine.faults.throttle("disk0")
    with pytest.raises(InputError, match="iosp"):
        await machine.faults.throttle("disk0", iosp=5)


async def _processor(machine) -> None:
    count = "grep NMI: /proc/interrupts"
    before = int((await said(machine, count)).split()[1])
    await machine.faults.nmi()
    for _ in range(50):
        if int((await said(machine, count)).split()[1]) > before:
            break
    else:
        pytest.fail("no NMI came")
    await machine.faults.pcie_error("rp1", "BAD_TLP")
    with pytest.raises(CommandError, match="pcie_aer_inject_error"):
        await machine.faults.pcie_error("disk0", "BAD_TLP")
    with pytest.raises(InputError):
        await machine.faults.pcie_error("rp1 x", "BAD_TLP")


async def _time(machine) -> None:
    up = "cut -d. -f1 /proc/uptime"
    clocks = f"{up}; cat /sys/class/rtc/rtc0/since_epoch; {up}"

    async def ahead() -> int:
        async with asyncio.timeout(100):
            while True:
                before, clock, after = (int(w) for w in (await said(machine, clocks)).split())
                if before == after:  # else the machine was busy between them
                    return clock - before

    before = await ahead()
    await machine.faults.gap(3)
    # The timers stood still, the clock on the wall went on.
    assert await ahead() - before >= 2


#: A boot sector that switches machine checks on (CR4.MCE), says "R" on the serial port, and at
#: each machine check the two low bytes of where it was (IA32_MC9_ADDR), then leaves it.
LISTENER = bytes.fromhex(
    "31c0 8ed8 c7064800 1f7c a34a00"  # vector 18 of the real mode's table: 0000:7c1f
    "0f20e0 0c40 0f22e0 b052 baf803 ee fb f4 ebfd"
    "66b926040000 0f32 bbf803 87da ee 66c1e808 ee"  # rdmsr 0x426, out al, out ah
    "b17a b501 6631c0 6631d2 0f30 cf"  # wrmsr 0x17a (IA32_MCG_STATUS) = 0, iret
)


async def test_a_guest_hears_of_a_memory_error(qemu, tmp_path):
    path = tmp_path / "boot.raw"
    path.write_bytes(LISTENER.ljust(510, b"\0") + b"\x55\xaa" + bytes(1 << 20))
    profile = {**EMPTY, "cpu": "qemu64", "disk": str(path), "serial": "console"}
    async with launcher.launch(profile, qemu=qemu.binary) as machine:
        await machine.console.expect("R", 60)
        with pytest.raises(CommandError, match="mce: "):
            await machine.faults.machine_check(bank=77)
        with pytest.raises(InputError, match="no vCPU 5"):
            await machine.faults.machine_check(cpu=5)
        mark = machine.events.mark()
        for word in ("OK", "42"):
            address = 0x10000 + int.from_bytes(word.encode(), "little")
            await machine.faults.machine_check(address=address)
            await machine.console.expect(word, 20)
        assert machine.events("RESET", since=mark).history == []


async def test_a_clock_that_starts_elsewhere(qemu):
    """All that QEMU lets one choose of it: its property can be read only."""
    profile = {**EMPTY, "rtc": {"base": "2001-02-03T04:05:06"}}
    async with launcher.launch(profile, qemu=qemu.binary) as machine:
        clock = await machine.qmp("qom-get", path="/machine", property="rtc-time")
        assert (clock["tm_year"], clock["tm_mon"], clock["tm_mday"]) == (101, 1, 3)
        with pytest.raises(CommandError):
            await machine.qmp("qom-set", path="/machine", property="rtc-time", value=clock)


async def test_a_machine_check_without_a_guest_that_hears_it(newest_qemu):
    async with launcher.launch(EMPTY, qemu=newest_qemu.binary) as machine:
        mark = machine.events.mark()
        await machine.faults.machine_check()
        await machine.wait_event("RESET", timeout=20, since=mark)
