"""The feature profiles of the golden tests start on every release, and read back as planned.

tests/test_golden.py compares their command lines with files; here QEMU itself takes them, with
commas, equals signs and quotes in the names of real files.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

#: Feature → what this host cannot have, changed by --set.
FEATURES = {
    "backends": (),
    "commas": ("objects.random.filename=/dev/urandom",),
    "daemon": (),
    "guest-agent": (),
    "merged": (),
    "migration": (),
    "process": ("run-with=null",),
    "shorts": (),
    "swtpm": (),
    "topology": (
        *("accel=tcg", "boot.firmware=null"),
        *("objects.ram1.policy=null", "objects.ram1.host-nodes=null"),
    ),
}
#: Features that need devices of the host: a tap in tests of its own, a vhost-user daemon.
ELSEWHERE = {"tap", "tpm"}

QCOW2 = (
    *("disk,snapshot=on.qcow2", "system.qcow2", "extra/own.qcow2", "base.qcow2"),
    "alone.qcow2",
)
RAW = (
    *("d i,,s=k'.raw", "json:{}.raw", "nbd:localhost.raw", "data.raw", "odd.bin", "install.iso"),
    *("tools.iso", "back.raw", "a,b=c.raw"),
)
KERNELS = ("a,b=c/vm linuz", "parts/vmlinuz")


@pytest.fixture(scope="module")
def profiles(tmp_path_factory, project, guest):
    """A copy of the profiles beside the files that they name."""
    from integration.conftest import installed

    folder = tmp_path_factory.mktemp("features") / "profiles"
    shutil.copytree(os.path.join(project, "tests", "golden", "profiles"), folder)
    for name in KERNELS:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(os.path.join(guest, "vmlinuz"), folder / name)
    (folder / "extra").mkdir()
    tool = installed("10.0").image_tool
    for name in QCOW2:
        command = [tool, "create", "-q", "-f", "qcow2", str(folder / name), "16M"]
        subprocess.run(command, check=True, timeout=60)
    for name in RAW:
        with open(folder / name, "wb") as file:
            file.truncate(16 << 20)
    return folder


def test_every_feature_is_started_somewhere(project):
    names = os.listdir(os.path.join(project, "tests", "golden", "profiles"))
    known = {f"{name}.yaml" for name in (*FEATURES, *ELSEWHERE)}
    assert {name for name in names if name.endswith(".yaml")} == known


@pytest.mark.parametrize("feature", FEATURES)
def test_feature(feature, qemu, profiles, project):
    binary = qemu.storage_daemon if feature == "daemon" else qemu.binary
    command = [sys.executable, "-m", "launcher", "verify", str(profiles / f"{feature}.yaml")]
    command += ["--qemu", binary, "--format", "json"]
    for setting in FEATURES[feature]:
        command += ["--set", setting]
    env = {**os.environ, "PYTHONPATH": project}
    done = subprocess.run(
        command, env=env, cwd=profiles, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["verdict"] == "match"
    assert report["counts"]["mismatch"] == report["counts"]["absent"] == 0
