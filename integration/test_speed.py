"""A guest under KVM that the kernel interprets is told of, by `run` and by `verify`."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from integration.conftest import ROOT
from launcher.host.kvm import climb

pytestmark = pytest.mark.integration

WARNING = b"is not at native speed"
#: SeaBIOS takes 0.1 s of a CPU, and more than a second of the kernel's time when interpreted.
PROFILE = "name: {name}\nplatform: debian-12\nmachine: pc\nmemory: 64MiB\naccel: {accel}\n"
PROFILE += "stop: {{powerdown-seconds: 0}}\n"


@pytest.fixture
def command(tmp_path, qemu):
    """The command line with a cache and a runtime directory of its own, and what it ran."""
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    env = {
        **os.environ,
        "PYTHONPATH": ROOT,
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "XDG_RUNTIME_DIR": str(runtime),
    }
    started: list[subprocess.Popen[bytes]] = []

    def start(*words: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "launcher", *words],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.terminate()
        process.communicate(timeout=60)


def believed(command, cache: Path) -> None:
    """Let the launcher believe what held when it looked: that the CPU runs the guest."""
    told, _ = command("host", "kvm").communicate(timeout=60)
    assert told
    path = cache / "qemu-launcher" / "host-kvm.json"
    kept = json.loads(path.read_text())
    kept["value"] |= {
        "ok": True,
        "rung": "native-speed",
        "broken": None,
        "reason": "",
    }
    path.write_text(json.dumps(kept))


def said(process: subprocess.Popen[bytes], words: bytes, seconds: float) -> bytes:
    """What a process says on stderr until those words come."""
    assert process.stderr is not None
    found, deadline = b"", time.monotonic() + seconds
    while words not in found and (left := deadline - time.monotonic()) > 0:
        if select.select([process.stderr], [], [], left)[0]:
            part = os.read(process.stderr.fileno(), 65536)
            if not part:
                break
            found += part
    return found


def test_run_and_verify_tell_of_an_interpreted_guest(command, qemu, tmp_path):
    ladder = climb()
    trap = ladder.rung == "runs" and ladder.ok is False
    profile, report = tmp_path / "p.yaml", tmp_path / "report.json"
    name = f"speed-{os.getpid()}"
    profile.write_text(PROFILE.format(name=name, accel="kvm" if trap else "tcg"))
    if trap:
        believed(command, tmp_path / "cache")
    process = command(
        "run", str(profile), "--qemu", qemu.binary, "--report", str(report), "--format", "json"
    )
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    assert first["verdict"] == "match", first
    assert first["speed"] is None  # the guest had not run
    if trap:
        warned = said(process, WARNING, 90)
        assert WARNING in warned
        assert b"use accel: tcg or move the VM" in warned
    told, errors = command("verify", name, "--format", "json").communicate(timeout=60)
    assert told, errors
    speed = json.loads(told)["speed"]
    assert (speed and speed["native"]) is (False if trap else None)
    process.terminate()
    _out, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert trap or WARNING not in errors
    if trap:
        assert json.loads(report.read_text())["speed"]["native"] is False
