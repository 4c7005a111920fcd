"""A host whose process 1 is systemd: minutes to build and to boot, so with QEMU_LAUNCHER_FULL=1."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile

import pytest

import launcher.sync
from integration.conftest import ROOT, installed, needs
from integration.systemd.host import Host
from launcher.cache import cache_folder

FULL = os.environ.get("QEMU_LAUNCHER_FULL") == "1"
collect_ignore = [] if FULL else ["test_units.py"]

#: Seconds that a Debian takes to come up under TCG on a busy machine.
BOOT = 600


def _project(path: str) -> None:
    """A tar of what is installed on such a host: the package, the command, the units."""
    with tarfile.open(path, "w") as tar:
        for name, place in (
            ("launcher", "usr/local/lib/python3.11/dist-packages/launcher"),
            ("packaging/systemd", "etc/systemd/system"),
        ):
            tar.add(
                os.path.join(ROOT, name),
                place,
                filter=lambda member: None if "__pycache__" in member.name else member,
            )
        with open(os.path.join(ROOT, "packaging", "qemu-launcher"), "rb") as file:
            text = file.read().replace(b"#!python", b"#!/usr/bin/python3", 1)
        member = tarfile.TarInfo("usr/local/bin/qemu-launcher")
        member.size, member.mode = len(text), 0o755
        tar.addfile(member, io.BytesIO(text))
    # A disk is made of whole sectors, and tar pads with zeroes itself.


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """It runs the units, the launcher and the policy of this checkout."""
    built = os.path.join(cache_folder(), "systemd")
    there = os.path.exists(os.path.join(built, "stamp"))
    needs(there, "the guest with systemd is not there; scripts/systemd-guest builds it")
    folder = str(tmp_path_factory.mktemp("systemd"))
    qemu = installed("11.1")
    _project(os.path.join(folder, "project.tar"))
    disk = os.path.join(folder, "disk.qcow2")
    backing = ["-b", os.path.join(built, "disk.img"), "-F", "raw"]
    make = [qemu.image_tool, "create", "-q", "-f", "qcow2", *backing, disk]
    subprocess.run(make, check=True, timeout=60)
    profile = {
        "name": "systemd",
        "platform": "debian-13",
        "machine": "q35",
        "accel": {"accel": "tcg", "thread": "multi", "tb-size": 512},
        "cpu": "max",
        "smp": 2,
        "memory": "2GiB",
        "boot": {
            "kernel": os.path.join(built, "vmlinuz"),
            "initrd": os.path.join(built, "initrd.img"),
            "append": "console=ttyS0 root=/dev/vda rw quiet loglevel=3 systemd.show_status=0",
        },
        "disk": [
            {"file": disk, "format": "qcow2", "cache": {"no-flush": True}},
            {"file": os.path.join(folder, "project.tar"), "format": "raw", "read-only": True},
        ],
        "serial": "console",
    }
    with launcher.sync.launch(profile, qemu=qemu.binary) as machine:
        machine.console.wait_for("guest# ", timeout=BOOT)
        host = Host(machine)
        host.sh("tar xf /dev/vdb -C / && chown -R root:root /etc/systemd/system")
        host.sh("adduser --system --group --quiet qemu-launcher")
        host.sh("python3 -m compileall -q /usr/local/lib/python3.11/dist-packages/launcher")
        host.sh("mkdir -p /etc/qemu-launcher/profiles && systemctl daemon-reload")
        yield host
        print(machine.console.text[-4000:])
