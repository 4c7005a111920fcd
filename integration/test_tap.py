"""Network offloads that QEMU negotiates with the host kernel, over a real tap in a namespace."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from integration.conftest import needs_tap

pytestmark = pytest.mark.integration

#: Runs in a network namespace of its own, with its own /sys: tun_flags show only there.
SCRIPT = """
import asyncio, json, sys
import launcher
from launcher.report import report_json

async def main():
    profile = {
        "name": "tap", "platform": sys.argv[2], "machine": "pc-q35-5.2", "accel": "tcg",
        "memory": "64MiB",
        "netdevs": {"n0": {"type": "tap", "ifname": "qltap0", "script": "no", "downscript": "no"}},
        "devices": {"nic": {"driver": "virtio-net-pci", "netdev": "n0"}},
    }
    async with launcher.launch(profile, qemu=sys.argv[1]) as machine:
        print(json.dumps(report_json(machine.report)))

asyncio.run(main())
"""


def report_of(binary: str, platform: str) -> dict:
    enter = 'mount -t sysfs sysfs /sys && exec "$@"'
    inside = ["unshare", "--net", "--mount", "sh", "-c", enter, "sh"]
    done = subprocess.run(
        [*inside, sys.executable, "-c", SCRIPT, binary, platform],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(autouse=True)
def _may_make_namespaces():
    needs_tap()


def test_a_tap_is_pinned_and_the_kernel_confirms_it(qemu):
    report = report_of(qemu.binary, "debian-12")
    assert report["verdict"] == "match"
    values = {(v["id"], v["property"]): v for v in report["values"]}
    header = values["n0", "vnet_hdr"]
    assert (header["planned"], header["observed"], header["verdict"]) == (True, True, "match")
    assert header["observer"] == "tun-flags"


def test_an_older_linux_floor_takes_offloads_away(newer_qemu):
    """USO came with Linux 6.2: debian-12 (6.1) keeps it off, debian-13 (6.12) leaves it alone."""
    old = {v["property"]: v for v in report_of(newer_qemu.binary, "debian-12")["values"]}
    for name in ("host_uso", "guest_uso4", "guest_uso6"):
        assert old[name]["verdict"] == "match"
        assert old[name]["observed"] is False
        assert old[name]["origin"] == "platform debian-12"
    new = {v["property"] for v in report_of(newer_qemu.binary, "debian-13")["values"]}
    assert "host_uso" not in new
