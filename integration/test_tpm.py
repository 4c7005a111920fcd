"""A TPM that a helper emulates: real swtpm beside real QEMU, and firmware that talks to it."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import launcher
from integration.conftest import installed, needs
from launcher.begin import begin
from launcher.errors import HostError, LaunchError
from launcher.prepare import Request, load, prepare_now
from launcher.record import replace
from launcher.start import start

ROOT = Path(launcher.__file__).parent.parent


@pytest.fixture(autouse=True)
def swtpm():
    needs(shutil.which("swtpm") is not None, "scripts/test installs swtpm")


@pytest.fixture
def binary(qemu) -> str:
    return qemu.binary


@pytest.fixture
def newest() -> str:
    return installed("11.1").binary


def ends(pidfd: int) -> bool:
    """Whether that process ends within a minute."""
    try:
        return bool(select.select([pidfd], [], [], 60)[0])
    finally:
        os.close(pidfd)


def profile(tmp_path, **more) -> dict:
    return {
        "name": "tpm",
        "platform": "debian-12",
        "machine": "q35",
        "accel": "tcg",
        "memory": "64MiB",
        "tpm": str(tmp_path / "state, with a comma"),
        **more,
    }


def helpers_of(folder: Path) -> list[int]:
    """The swtpms that work in `folder`."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                where = os.readlink(f"/proc/{entry}/cwd")
                name = Path(f"/proc/{entry}/comm").read_text()
            except OSError:
                continue
            if name == "swtpm\n" and where == str(folder):
                found.append(int(entry))
    return found


@pytest.mark.parametrize("version", ["2.0", "1.2"])
async def test_a_tpm_is_read_back_and_ends_with_qemu(binary, tmp_path, version):
    state = tmp_path / "state"
    more = {"tpm": {"state": str(state), "version": version}}
    async with launcher.launch(profile(tmp_path, **more), qemu=binary) as machine:
        verdicts = {(j.value.family, j.value.property): j.verdict for j in machine.report.judged}
        assert verdicts["tpmdev", "chardev"] == verdicts["device", "tpmdev"] == "match"
        assert len(helpers_of(state)) == 1
    assert helpers_of(state) == []
    # QEMU had it initialised before the guest ran.
    assert any(name.startswith("tpm") for name in os.listdir(state))
    assert state.stat().st_mode & 0o777 == 0o700


async def test_linux_finds_it(newest, tmp_path, guest):
    boot = {
        "kernel": f"{guest}/vmlinuz",
        "initrd": f"{guest}/initrd.img",
        "append": "console=ttyS0",
    }
    more = {"boot": boot, "serial": "console", "memory": "256MiB", "cpu": "max"}
    async with launcher.launch(profile(tmp_path, **more), qemu=newest) as machine:
        await machine.console.wait_for("guest is up", 100)
        lines = machine.console.text.splitlines()
        assert any("tpm_crb MSFT0101" in line for line in lines)
        assert not any("TPM error" in line or "tpm_crb: probe" in line for line in lines)


async def test_a_folder_in_use_is_told_with_its_line(newest, tmp_path):
    file = tmp_path / "tpm.yaml"
    file.write_text(
        "name: tpm\nplatform: native\nmachine: q35\naccel: tcg\nmemory: 64MiB\ntpm: state\n"
    )
    async with launcher.launch(str(file), qemu=newest):
        with pytest.raises(LaunchError) as caught:
            async with launcher.launch(str(file), qemu=newest):
                pass
        assert caught.value.place is not None
        assert caught.value.place.line == 6
        assert "swtpm said" in caught.value.hint
        assert len(helpers_of(tmp_path / "state")) == 1
    assert helpers_of(tmp_path / "state") == []


async def test_a_helper_that_has_ended_is_no_match(newest, tmp_path):
    given = profile(tmp_path)
    async with launcher.launch(given, qemu=newest) as machine:
        (pid,) = helpers_of(Path(given["tpm"]))
        pidfd = os.pidfd_open(pid)
        os.kill(pid, signal.SIGKILL)
        assert ends(pidfd)
        report = await machine.verify()
        assert report.verdict == "mismatch"
        assert report.complaints == ("tpm: swtpm ended (killed by SIGKILL): it said nothing",)


async def test_without_the_program_nothing_is_started(newest, tmp_path, monkeypatch):
    monkeypatch.setattr("launcher.helpers._ELSEWHERE", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="needs the program swtpm") as caught:
        async with launcher.launch(profile(tmp_path), qemu=newest):
            pass
    assert "package swtpm" in caught.value.hint


async def test_a_folder_that_cannot_be(newest, tmp_path):
    (tmp_path / "file").write_text("")
    for state, words in ((tmp_path / "file", "is not a folder"), (tmp_path / "a" / "b", "cannot")):
        with pytest.raises(HostError, match=words):
            async with launcher.launch(profile(tmp_path, tpm=str(state)), qemu=newest):
                pass


@pytest.mark.parametrize("detached", [False, True], ids=["tied", "detached"])
def test_it_ends_when_qemu_cannot_be_started(newest, tmp_path, monkeypatch, detached):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    tmp_path.chmod(0o700)
    given = profile(tmp_path)
    ready = prepare_now(load(Request(given, qemu=newest)))
    with pytest.raises(LaunchError, match="no such file"):
        begin(
            ready.with_plan(replace(ready.plan, binary=str(tmp_path / "gone"))), detached=detached
        )
    assert helpers_of(Path(given["tpm"])) == []


@pytest.mark.parametrize("detached", [False, True], ids=["tied", "detached"])
async def test_it_ends_when_qemu_refuses_to_start(newest, tmp_path, monkeypatch, detached):
    """Before QEMU has said anything to it."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    tmp_path.chmod(0o700)
    given = profile(tmp_path, **{"extra-args": ["-nosuch"]})
    with pytest.raises(LaunchError, match="invalid option"):
        await start(begin(prepare_now(load(Request(given, qemu=newest))), detached=detached))
    assert helpers_of(Path(given["tpm"])) == []


def test_it_does_not_outlive_a_launcher_that_is_killed(newest, tmp_path):
    code = f"""
        from launcher import sync
        machine = sync.launch({profile(tmp_path)!r}, qemu={newest!r}).__enter__()
        print("up", flush=True)
        import time; time.sleep(600)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    folder = Path(profile(tmp_path)["tpm"])
    assert process.stdout.readline() == b"up\n"
    pidfd = os.pidfd_open(helpers_of(folder)[0])
    process.kill()
    process.wait()
    process.stdout.close()
    assert ends(pidfd)


@pytest.fixture
def detached(newest, tmp_path):
    """`qemu-launcher` with a machine `tpm-detached` that outlives it."""
    file = tmp_path / "tpm-detached.yaml"
    file.write_text("platform: native\nmachine: q35\naccel: tcg\nmemory: 64MiB\ntpm: state\n")
    env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    (tmp_path / "run").mkdir(mode=0o700)

    def run(*words: str) -> tuple[int, str]:
        whole = [sys.executable, "-m", "launcher", *words]
        done = subprocess.run(whole, env=env, capture_output=True, text=True, timeout=60, cwd=ROOT)
        return done.returncode, done.stdout + done.stderr

    status, said = run("run", str(file), "--detach", "--qemu", newest)
    assert status == 0, said
    yield run
    run("stop", "tpm-detached", "--now")
    assert helpers_of(tmp_path / "state") == []


def test_beside_a_detached_machine_it_ends_with_it(detached, tmp_path):
    (helper,) = helpers_of(tmp_path / "state")
    pidfd = os.pidfd_open(helper)
    assert "verdict: match" in detached("verify", "tpm-detached")[1]
    assert detached("stop", "tpm-detached", "--now")[0] == 0
    assert ends(pidfd)


def test_beside_a_detached_machine_it_is_missed(detached, tmp_path):
    """How it ended nobody was told."""
    (helper,) = helpers_of(tmp_path / "state")
    os.kill(helper, signal.SIGKILL)
    status, said = detached("verify", "tpm-detached")
    assert (status, "tpm: swtpm has ended: it said nothing" in said) == (1, True), said
