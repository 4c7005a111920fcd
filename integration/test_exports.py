"""What a storage daemon exports is read back, on each release of the matrix."""

from __future__ import annotations

import pytest

import launcher
from launcher.begin import begin
from launcher.prepare import Request, load, prepare
from launcher.record import replace
from launcher.start import attach

pytestmark = pytest.mark.integration

PROFILE = {
    "name": "exports",
    "platform": "debian-12",
    "tool": "qemu-storage-daemon",
    "blockdevs": {"data": {"driver": "null-co", "size": 1 << 20}},
    "nbd-server": {"addr": {"type": "unix", "data": {"path": "${runtime}/nbd"}}},
    "exports": {"data0": {"type": "nbd", "node-name": "data", "name": "data"}},
}


async def test_type_and_node_of_an_export(qemu):
    async with launcher.launch(PROFILE, qemu=qemu.storage_daemon) as daemon:
        found = {
            one.value.property: (one.verdict, one.observed)
            for one in daemon.report.judged
            if one.value.family == "export"
        }
    assert found == {
        "type": ("match", "nbd"),
        "node-name": ("match", "data"),
        "name": ("unobservable", None),
    }


@pytest.mark.parametrize(
    ("changed", "verdict"),
    [({"written": "other"}, "mismatch"), ({"id": "data1"}, "absent")],
)
async def test_another_export_than_the_planned_one(qemu, changed, verdict):
    prepared = await prepare(load(Request(PROFILE, qemu=qemu.storage_daemon)))
    values = [
        replace(v, **changed) if v.property == "node-name" else v for v in prepared.plan.values
    ]
    prepared.plan = replace(prepared.plan, values=tuple(values))
    machine = await attach(begin(prepared))
    try:
        report = await machine.verify()
        assert [(j.value.property, j.verdict) for j in report.wrong] == [("node-name", verdict)]
    finally:
        await machine.close()
