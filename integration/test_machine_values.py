"""What -cpu, -smp and -m set is read back from the machine, on each release of the matrix."""

from __future__ import annotations

import pytest

import launcher
from launcher.begin import begin
from launcher.prepare import Request, load, prepare
from launcher.record import replace
from launcher.start import attach

pytestmark = pytest.mark.integration


def profile(**more: object) -> dict:
    return {"name": "values", "platform": "debian-11", "machine": "q35", "accel": "tcg", **more}


FULL = profile(
    cpu={"model": "Nehalem", "vmx": "off"},
    smp={"cpus": 2, "sockets": 2, "cores": 1, "threads": 2, "maxcpus": 4},
    memory={"size": "256MiB", "slots": 2, "maxmem": "1GiB"},
)


async def verdicts(wanted: dict, binary: str) -> dict[str, tuple[str, object]]:
    async with launcher.launch(wanted, qemu=binary) as machine:
        return {
            one.value.property: (one.verdict, one.observed)
            for one in machine.report.judged
            if one.value.type in ("cpu", "smp", "memory")
        }


async def test_every_value_of_cpu_smp_and_memory(qemu):
    found = await verdicts(FULL, qemu.binary)
    assert found.pop("cpu.model") == ("match", "Nehalem")
    assert found.pop("cpu.vmx") == ("unobservable", None)
    assert found.pop("smp.cpus") == ("match", 2)
    assert found.pop("memory.size") == ("match", 256 << 20)
    topology = {"smp.sockets": 2, "smp.cores": 1, "smp.threads": 2, "smp.maxcpus": 4}
    wanted = {**topology, "memory.slots": 2, "memory.max-size": 1 << 30}
    if qemu.release == "5.2":
        assert found == dict.fromkeys(wanted, ("unobservable", None))
    else:
        assert found == {name: ("match", value) for name, value in wanted.items()}


async def test_an_odd_size_is_rounded_up(qemu):
    """RAM is a multiple of 8 KiB, whatever was asked for."""
    wanted = profile(machine={"type": "pc", "memory-backend": "ram"}, memory="100000001B")
    backend = {"qom-type": "memory-backend-ram", "size": 100007936}
    found = await verdicts({**wanted, "objects": {"ram": backend}}, qemu.binary)
    assert found == {"memory.size": ("match", 100007936)}


async def test_what_tcg_says_of_itself(qemu):
    """A translation buffer of an odd size, and one instruction at a time."""
    wanted = profile(accel={"accel": "tcg", "tb-size": 37, "one-insn-per-tb": "on"})
    async with launcher.launch(wanted, qemu=qemu.binary) as machine:
        found = {
            one.value.property: (one.verdict, one.observed)
            for one in machine.report.judged
            if one.value.family == "accel"
        }
    unobservable = ("unobservable", None)
    assert found["tb-size"] == (unobservable if qemu.release == "5.2" else ("match", 37))
    word = found["one-insn-per-tb"]
    assert word == (unobservable if qemu.release in ("5.2", "7.2") else ("match", "on"))


@pytest.mark.parametrize("kind", ["microvm", "pc"])
async def test_the_short_forms(qemu, kind):
    wanted = profile(machine=kind, cpu="max", smp=2, memory="96MiB")
    assert await verdicts(wanted, qemu.binary) == {
        "cpu.model": ("match", "max"),
        "smp.cpus": ("match", 2),
        "memory.size": ("match", 96 << 20),
    }


async def test_what_they_cost(qemu):
    """Nothing but a path where one request reads the whole machine; two short ones before."""
    bare = profile(machine={"type": "q35", "vmport": "off"})
    costs = []
    for wanted in (bare, {**bare, "cpu": "Nehalem", "smp": 2}):
        async with launcher.launch(wanted, qemu=qemu.binary) as machine:
            costs.append((machine.report.commands, machine.report.request_bytes))
    commands, sent = (after - before for before, after in zip(*costs, strict=True))
    if qemu.release == "11.1":
        assert (commands, sent) == (0, len(',"/machine/unattached"'))
    else:
        assert commands == 2
        assert sent <= 120


@pytest.mark.parametrize("name", ["cpu.model", "smp.cpus", "memory.size"])
async def test_a_wrong_expectation_is_found(qemu, name):
    """Another value is planned than the one that was written."""
    wrong = {"cpu.model": "Haswell", "smp.cpus": 3, "memory.size": 1 << 20}[name]
    prepared = await prepare(load(Request(FULL, qemu=qemu.binary)))
    values = [replace(v, written=wrong) if v.property == name else v for v in prepared.plan.values]
    prepared.plan = replace(prepared.plan, values=tuple(values))
    machine = await attach(begin(prepared))
    try:
        report = await machine.verify()
        assert [(j.value.property, j.verdict) for j in report.wrong] == [(name, "mismatch")]
    finally:
        await machine.close()
