"""What a service manager is told by a machine and by an agent, over a socket of the test."""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid

import pytest

from integration.conftest import installed
from integration.mqtt import AgentProcess, Broker

pytestmark = pytest.mark.integration

PATIENCE = 60.0
PROFILE = """\
name: service
qemu: {qemu}
platform: debian-11
machine: pc
accel: tcg
memory: 32MiB
stop: {{powerdown-seconds: {powerdown}}}
"""


class Manager:
    """Stands where systemd would: what it is told, in order."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self.seen: list[dict[str, str]] = []

    def next(self, seconds: float = PATIENCE) -> dict[str, str]:
        self.sock.settimeout(seconds)
        lines = self.sock.recv(65536).decode().split("\n")
        self.seen.append(dict(line.split("=", 1) for line in lines))
        return self.seen[-1]

    def until(self, name: str, seconds: float = PATIENCE) -> dict[str, str]:
        end = time.monotonic() + seconds
        while name not in (found := self.next(max(0.01, end - time.monotonic()))):
            pass
        return found

    def rest(self) -> list[dict[str, str]]:
        """All that was told so far."""
        try:
            while True:
                self.next(0.01)
        except TimeoutError:
            return self.seen


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path_factory):
    folder = tempfile.mkdtemp(prefix="notify-")
    abstract = f"@qemu-launcher-test-{uuid.uuid4().hex}"
    made = Manager(abstract if request.param == "abstract" else os.path.join(folder, "socket"))
    yield made
    made.sock.close()
    if request.param == "path":
        os.unlink(made.address)
    os.rmdir(folder)


@pytest.fixture
def start(tmp_path, manager):
    """Start machines as a service manager does; nothing of them is left after the test."""
    made = []
    runtime = tempfile.mkdtemp(prefix="run-")  # short: a socket's path has 107 bytes at most

    def start(qemu: str = "", powerdown: int = 0, **environment: str) -> subprocess.Popen[str]:
        profile = tmp_path / "service.yaml"
        qemu = qemu or installed("11.1").binary
        profile.write_text(PROFILE.format(qemu=qemu, powerdown=powerdown))
        process = subprocess.Popen(
            [sys.executable, "-m", "launcher", "run", str(profile)],
            env={
                **os.environ,
                "XDG_RUNTIME_DIR": runtime,
                "NOTIFY_SOCKET": manager.address,
                **environment,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        made.append(process)
        return process

    yield start
    for process in made:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=PATIENCE)
    shown = subprocess.run(
        [sys.executable, "-m", "launcher", "ps"],  # a killed launcher's folder is removed by it
        env={**os.environ, "XDG_RUNTIME_DIR": runtime},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert "service" not in shown.stdout
    folder = os.path.join(runtime, "qemu-launcher")
    assert not os.path.exists(folder) or os.listdir(folder) == []
    shutil.rmtree(runtime)


def qemu_of(process: subprocess.Popen[str]) -> int:
    with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
        return int(file.read().split()[0])


def test_ready_comes_when_the_guest_runs_and_a_signal_ends_it_well(manager, start):
    process = start()
    ready = manager.until("READY")
    assert ready == {"READY": "1", "STATUS": "service runs, as planned"}
    assert manager.seen[0] == {"STATUS": "service starts"}
    process.send_signal(signal.SIGTERM)
    stopping = manager.until("STOPPING")
    assert stopping["STATUS"] == "service stops: SIGTERM"
    assert process.wait(PATIENCE) == 0


def test_a_manager_waits_as_long_as_the_profile_lets_the_guest_power_down(manager, start):
    process = start(powerdown=200)  # nothing runs in this machine that would heed the button
    manager.until("READY")
    process.send_signal(signal.SIGHUP)
    assert 200e6 < int(manager.until("STOPPING")["EXTEND_TIMEOUT_USEC"]) < 300e6
    begun = time.monotonic()
    while process.poll() is None:  # the second one hurries
        process.send_signal(signal.SIGTERM)
        time.sleep(0.01)
    assert process.returncode == 0
    assert time.monotonic() - begun < 100


def test_what_is_not_as_planned_is_never_ready(manager, start, tmp_path):
    # A QEMU that is started with another default than the one that was asked for.
    qemu = tmp_path / "qemu-system-x86_64"
    more = "-global migration.send-switchover-start=on"
    qemu.write_text(f'#!/bin/sh\nexec {installed("10.0").binary} "$@" {more}\n')
    qemu.chmod(0o755)
    process = start(qemu=str(qemu))
    assert process.wait(PATIENCE) == 1
    assert manager.rest()[-1] == {
        "STATUS": "service: 1 value is not what was planned; the guest did not run"
    }
    assert not any("READY" in told for told in manager.seen)


def fewer_than(count: int, manager: Manager) -> bool:
    """Whether the signs of life stop before there were so many."""
    manager.rest()  # what was told before, and not read yet
    try:
        for _ in range(count):
            manager.until("WATCHDOG", 1.5)
    except TimeoutError:
        return True
    return False


def test_signs_of_life_are_qemus_and_not_the_launchers(manager, start):
    process = start(WATCHDOG_USEC="400000")
    manager.until("READY")
    for _ in range(3):
        manager.until("WATCHDOG")
    qemu = qemu_of(process)
    os.kill(qemu, signal.SIGSTOP)
    try:
        assert fewer_than(5, manager)  # one or two may be under way
    finally:
        os.kill(qemu, signal.SIGCONT)
    manager.until("WATCHDOG")
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0


def test_the_watchdogs_signal_leaves_no_machine(manager, start):
    process = start(WATCHDOG_USEC="400000")
    manager.until("READY")
    qemu = os.pidfd_open(qemu_of(process))
    try:
        signal.pidfd_send_signal(qemu, signal.SIGSTOP)
        process.send_signal(signal.SIGABRT)  # what systemd sends when no sign came
        assert process.wait(PATIENCE) == -signal.SIGABRT
        assert select.select([qemu], [], [], PATIENCE)[0], "QEMU outlived its launcher"
    finally:
        os.close(qemu)


@pytest.mark.parametrize("manager", ["path"], indirect=True)
def test_an_agent_is_ready_once_the_broker_takes_it(manager, tmp_path):
    folder = tmp_path / "broker"
    folder.mkdir()
    broker = Broker(str(folder))
    policy = tmp_path / "policy.yaml"
    policy.write_text("memory: 64MiB\n")
    agent = AgentProcess(broker, str(tmp_path), "service", str(policy), str(tmp_path))
    agent.environment |= {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "400000"}
    try:
        agent.start()
        while "the broker is away" not in manager.until("STATUS")["STATUS"]:
            pass
        manager.until("WATCHDOG")  # it lives, and waits
        assert not any("READY" in told for told in manager.seen)
        broker.start()
        assert manager.until("READY")["STATUS"] == f"serves service at {broker.url}"
        assert agent.kill(signal.SIGTERM) == 0
        assert any("STOPPING" in told for told in manager.rest())
    finally:
        agent.close()
        broker.close()
