"""One platform on two releases: every machine type that both have gives the same values."""

from __future__ import annotations

import asyncio
import os
import subprocess
from typing import Any

import pytest

from integration.conftest import installed
from launcher.begin import begin
from launcher.prepare import Request, load, prepare
from launcher.start import attach, refuse

pytestmark = pytest.mark.integration

FULL = os.environ.get("QEMU_LAUNCHER_FULL") == "1"
PAIRS = [("5.2", "7.2"), ("7.2", "10.0"), ("10.0", "11.1"), *([("5.2", "11.1")] if FULL else [])]
#: Machine types that do not start with what a host has, and what they want.
WANTING = {
    "none": "it has no machine",
    "x-remote": "the socket of another QEMU",
    "xenpv": "Xen",
    "xenfv": "Xen",
    "nitro-enclave": "an enclave image and a vhost-user vsock",
}
#: What takes a netdev where there is no PCI bus.
NICS = {"microvm": "virtio-net-device", "isapc": "ne2k_isa"}
#: The same, said in other words: property, as the older one says it, as the newer one does.
WORDS = {
    # A link to the backend, told as its id by 5.2 and as its path from then on.
    ("memory-backend", "ram", "/objects/ram"),
    # 0 always meant twice as long; 11.1 stores what it means.
    ("poll-grow", 0, 2),
}
AT_ONCE = 2


def machine_types(release: str) -> set[str]:
    """What `-machine help` lists, aliases left out: they follow the binary."""
    command = [installed(release).binary, "-machine", "help"]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    lines = [line for line in text.splitlines()[1:] if "(alias of" not in line]
    return {line.split()[0] for line in lines if line.strip()}


def profile(machine: str) -> dict[str, Any]:
    return {
        "name": "types",
        "platform": "debian-11",
        "machine": machine,
        "accel": "tcg",
        "memory": "128MiB",
        "objects": {
            "io0": {"qom-type": "iothread"},
            "mem0": {"qom-type": "memory-backend-memfd", "size": 16 << 20},
            "rng0": {"qom-type": "rng-random"},
        },
        "netdevs": {"n0": {"type": "user"}},
        "devices": {"nic0": {"driver": NICS.get(machine, "virtio-net-pci"), "netdev": "n0"}},
        "blockdevs": {"d0": {"driver": "null-co"}},
        "chardevs": {"c0": {"backend": "ringbuf"}},
    }


async def values_of(machine: str, release: str, number: int) -> dict:
    """Values by what they belong to, as read back; without those that cannot be."""
    made = await prepare(load(Request(profile(machine), qemu=installed(release).binary)))
    paused = await attach(begin(made, folder=f"types-{os.getpid()}-{release}-{number}"))
    try:
        report = await paused.verify()
        refuse(report)
    finally:
        await paused.close()
    return {
        (one.value.family, one.value.type, one.value.id, one.value.property): one.observed
        for one in report.judged
        if one.verdict != "unobservable"
    }


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("old", "new"), PAIRS)
async def test_values_are_the_same_on_both(old, new):
    both = sorted(machine_types(old) & machine_types(new))
    both = [m for m in both if not any(m.startswith(word) for word in WANTING)]
    assert "microvm" in both
    assert len(both) >= 4, both
    turns = asyncio.Semaphore(AT_ONCE)

    async def differences(number: int, machine: str) -> tuple[int, list]:
        async with turns:
            here = await values_of(machine, old, number)
            there = await values_of(machine, new, number)
        shared = here.keys() & there.keys()
        pairs = [(machine, *key, here[key], there[key]) for key in shared]
        return len(shared), [p for p in pairs if p[-2] != p[-1] and p[-3:] not in WORDS]

    found = await asyncio.gather(*(differences(n, m) for n, m in enumerate(both)))
    counts = [count for count, _ in found]
    print(f"{old} and {new}: {len(both)} machine types, {min(counts)} to {max(counts)} values")
    assert [one for _, many in found for one in many] == []
    assert min(counts) >= 15, counts
