"""`save` and `restore` at the terminal: guests of other processes, in files, and on from there."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

import launcher
from integration.conftest import installed
from integration.test_migrate import (
    FULL,
    PAIRS,
    goes_on,
    nothing_is_left,
    profile_of,
    running,
)
from launcher.host.runtime import list_machines
from launcher.migrate import MigrationError, follow

pytestmark = pytest.mark.integration

__all__ = ["nothing_is_left"]  # a fixture that is used by all


def run(*words: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "launcher", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def qemu(release: str) -> list[str]:
    return ["--qemu", installed(release).binary]


@pytest.fixture
def profile(guest, tmp_path) -> str:
    """A guest that writes its counter to a file: nobody is at its console."""
    path = tmp_path / "moved.yaml"
    more = {"serial": {"backend": "file", "path": str(tmp_path / "console"), "append": True}}
    path.write_text(json.dumps(profile_of(guest, **more)))
    return str(path)


def counted(profile: str, at_least: int, seconds: float = 90) -> str:
    """What the guest wrote, once its counter is so far."""
    deadline = time.monotonic() + seconds
    text = ""
    while time.monotonic() < deadline:
        with (
            contextlib.suppress(FileNotFoundError),
            open(f"{os.path.dirname(profile)}/console", errors="replace") as file,
        ):
            text = file.read()
        numbers = re.findall(r"tick (\d+)\r?\n", text)
        if numbers and int(numbers[-1]) >= at_least:
            return text
        time.sleep(0.05)  # the next look; the loop has a deadline
    where = run("qmp", "moved", "query-status").stdout
    raise AssertionError(f"{where}{text[-500:]}")


def stopped(name: str = "moved") -> None:
    assert run("stop", name, "--now").returncode == 0


@pytest.mark.parametrize(("old", "new"), PAIRS if FULL else [("7.2", "11.1"), ("11.1", "7.2")])
def test_a_detached_machine_goes_on_in_another_qemu(profile, tmp_path, old, new):
    state = str(tmp_path / "moved.state")
    assert run("run", profile, "--detach", *qemu(old), "--set", "memory=130MiB").returncode == 0
    counted(profile, 3)
    told = json.loads(run("save", "moved", state, "--format", "json").stdout)
    assert told["file"] == state
    assert told["lock"] == f"{state}.lock.yaml"
    assert told["bytes"] == os.path.getsize(state) > 1 << 20
    assert [m for m in list_machines() if m.alive] == []

    before = counted(profile, 3)
    done = run("restore", state, "--detach", *qemu(new), "--format", "json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["verdict"] == "match"
    assert report["qemu"]["version"].startswith(new)
    last = int(re.findall(r"tick (\d+)", before)[-1])
    whole = counted(profile, last + 5)
    assert follow(before, whole[len(before) :]).verdict == "continues"
    shown = json.loads(run("ps", "--format", "json").stdout)["machines"]
    assert [m["uuid"] for m in shown] == [told["uuid"]]

    # What was restored can be saved again, over its own file, and is seen from anywhere.
    assert run("save", "moved", state).returncode == 0
    before = counted(profile, 3)
    assert run("restore", state, "--detach", *qemu(old)).returncode == 0
    last = int(re.findall(r"tick (\d+)", before)[-1])
    whole = counted(profile, last + 5)
    assert follow(before, whole[len(before) :]).verdict == "continues"
    stopped()


def test_a_machine_at_a_terminal_is_saved_from_elsewhere(profile, tmp_path):
    """`run` holds it: it ends, with its guest in the file, and `restore` stays with it."""
    command = [sys.executable, "-m", "launcher", "run", profile, *qemu("10.0")]
    held = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        counted(profile, 3)
        state = str(tmp_path / "moved.state")
        done = run("save", "moved", state)
        assert done.returncode == 0, done.stderr
        assert re.fullmatch(r"moved: saved to \S+, [\d.]+ MiB in [\d.]+ s\n", done.stdout)
    finally:
        held.wait(30)
    before = counted(profile, 3)
    command = [sys.executable, "-m", "launcher", "restore", state, *qemu("11.1")]
    here = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        last = int(re.findall(r"tick (\d+)", before)[-1])
        counted(profile, last + 3)
    finally:
        here.send_signal(signal.SIGINT)
        assert "verdict: match" in here.communicate(timeout=30)[1]


def test_what_cannot_be_saved_goes_on(profile, tmp_path):
    state = str(tmp_path / "moved.state")
    assert run("run", profile, "--detach", *qemu("7.2")).returncode == 0
    counted(profile, 2)
    nowhere = run("save", "moved", str(tmp_path / "no" / "folder"))
    assert (nowhere.returncode, "No such file" in nowhere.stderr) == (3, True)
    assert run("save", "nobody", state).returncode == 2

    with open(profile) as file:
        old = json.load(file)
    with open(profile, "w") as file:
        json.dump({**old, "devices": {"b": {"driver": "virtio-balloon-device"}}}, file)
    other = run("save", "moved", state, "--format", "json")
    assert other.returncode == 2
    assert "makes another machine now" in other.stdout + other.stderr
    with open(profile, "w") as file:
        json.dump(old, file)

    assert not os.path.exists(state)
    last = int(re.findall(r"tick (\d+)", counted(profile, 2))[-1])
    follow("", counted(profile, last + 3))
    stopped()


def test_interrupted_the_guest_goes_on(profile, tmp_path):
    """A save that is slow, as the profile's bandwidth has it."""
    state = str(tmp_path / "moved.state")
    slow = ["--set", "migration.parameters.max-bandwidth=8388608"]
    assert run("run", profile, "--detach", *qemu("10.0"), *slow).returncode == 0
    counted(profile, 2)
    command = [sys.executable, "-m", "launcher", "save", "moved", state]
    saving = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not os.path.exists(f"{state}.part") and time.monotonic() < deadline:
        time.sleep(0.02)  # the next look; the loop has a deadline
    saving.send_signal(signal.SIGINT)
    _, said = saving.communicate(timeout=30)
    assert (saving.returncode, "moved was not saved, and goes on" in said) == (130, True), said
    assert os.listdir(tmp_path) == [n for n in os.listdir(tmp_path) if "state" not in n]
    last = int(re.findall(r"tick (\d+)", counted(profile, 2))[-1])
    counted(profile, last + 3)
    stopped()


def test_secrets_are_not_on_record_and_asked_for(guest, tmp_path):
    path = tmp_path / "moved.yaml"
    secret = {"objects": {"s": {"qom-type": "secret", "data": "from the profile"}}}
    path.write_text(json.dumps(profile_of(guest, **secret)))
    state, given = str(tmp_path / "moved.state"), ["--set", "objects.s.data=hunter2hunter2"]
    assert run("run", str(path), "--detach", *qemu("10.0"), *given).returncode == 0
    [machine] = [m for m in list_machines() if m.alive]
    with open(f"{machine.path}/state.json") as file:
        assert "hunter2" not in file.read()
    refused = run("save", "moved", state)
    assert (refused.returncode, "give it again with --set objects.s.data" in refused.stderr) == (
        2,
        True,
    )
    assert run("save", "moved", state, *given).returncode == 0
    with open(f"{state}.lock.yaml") as file:
        assert "hunter2" not in file.read()


async def test_a_preflight_against_the_lock_comes_before_the_state(guest, tmp_path):
    """Programs of the guest chose AVX, which 5.2 does not emulate."""
    path, state = tmp_path / "moved.yaml", str(tmp_path / "guest.state")
    path.write_text(json.dumps(profile_of(guest, cpu="max")))
    async with running(str(path), "7.2") as source:
        await launcher.save(source, state)
    with pytest.raises(MigrationError) as caught:
        await launcher.restore(state, qemu=installed("5.2").binary)
    assert (caught.value.exit_status, caught.value.migration.result) == (1, "refused")
    assert "emulates no avx" in caught.value.message
    assert "cpu.avx: off" in caught.value.hint
    done = run("restore", state, *qemu("5.2"))
    assert (done.returncode, "emulates no avx" in done.stderr) == (1, True), done.stderr
    restored = await launcher.restore(state, qemu=installed("10.0").binary)
    try:
        await goes_on(restored, source.console.text)
    finally:
        await restored.close()
    forced = await launcher.restore(state, qemu=installed("5.2").binary, force=True)
    await forced.close()
