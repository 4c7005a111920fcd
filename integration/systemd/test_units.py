"""The units that are shipped, under a systemd that is process 1, with its control groups."""

from __future__ import annotations

import time

import pytest

from integration.systemd.host import PATIENCE

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

WEB = """\
name: web
platform: debian-12
machine: q35
accel: tcg
memory: 64MiB
objects: {io0: {qom-type: iothread}}
stop: {powerdown-seconds: 1}
"""
UNIT = "qemu-launcher@web"
AGENT = "qemu-launcher-agent"
STATE = "machines/web/state"


@pytest.fixture
def web(host):
    """A machine that systemd keeps."""
    host.profile("web", WEB)
    host.sh(f"systemctl start {UNIT}")
    yield host
    host.sh(f"systemctl stop {UNIT}")
    assert host.qemus(UNIT) == []


def test_process_1_is_systemd(host):
    assert host.sh("cat /proc/1/comm") == "systemd"
    assert host.sh("stat -fc %T /sys/fs/cgroup") == "cgroup2fs"


def test_a_unit_is_active_once_its_guest_runs_as_planned(web):
    assert web.show(UNIT, "ActiveState") == "active"
    assert web.show(UNIT, "StatusText") == "web runs, as planned"
    assert len(web.qemus(UNIT)) == 1
    assert "verdict: match" in web.sh(f"journalctl -o cat -u {UNIT}")
    seen = web.sh(
        "runuser -u qemu-launcher -- env XDG_RUNTIME_DIR=/run/qemu-launcher qemu-launcher ps"
    )
    assert "foreground" in seen
    # The sandbox is in force: of both processes, since QEMU is the launcher's child.
    status = web.sh(f"grep -E 'NoNewPrivs|CapBnd|Uid' /proc/{web.qemus(UNIT)[0]}/status")
    assert "NoNewPrivs:\t1" in status
    assert "CapBnd:\t0000000000000000" in status


@pytest.mark.parametrize("victim", ["QEMU", "launcher"])
def test_what_was_killed_is_started_again(web, victim):
    before = web.qemus(UNIT)
    pid = before[0] if victim == "QEMU" else web.show(UNIT, "MainPID")
    web.sh(f"kill -9 {pid}")
    web.until(f"systemctl show -P NRestarts {UNIT}", "1")
    web.until(f"systemctl show -P StatusText {UNIT}", "web runs, as planned")
    assert len(web.running()) == 1
    assert web.running() != before


def test_a_qemu_that_hangs_is_found_by_the_watchdog(web):
    web.sh(f"kill -STOP {web.qemus(UNIT)[0]}")
    web.until(f"systemctl show -P NRestarts {UNIT}", "1")
    assert "Watchdog timeout" in web.sh(f"journalctl -o cat -u {UNIT}")
    web.until(f"systemctl show -P StatusText {UNIT}", "web runs, as planned")
    assert len(web.running()) == 1


def test_a_wrong_profile_is_not_tried_again(host):
    host.profile("wrong", WEB + "nonsense: 1\n")
    wrong = "qemu-launcher@wrong"
    host.sh(f"systemctl start {wrong}; [ $? = 1 ]")
    time.sleep(5)  # RestartSec=2: by then it would have been tried again
    assert host.show(wrong, "ActiveState") == "failed"
    assert host.show(wrong, "ExecMainStatus") == "2"
    assert host.show(wrong, "NRestarts") == "0"
    assert "has no 'nonsense'" in host.sh(f"journalctl -o cat -u {wrong}")


def test_a_guest_may_take_longer_to_power_down_than_systemd_would_wait(host):
    """45 s where the unit has TimeoutStopSec=30: the launcher asks for more time, and gets it."""
    host.profile("web", WEB.replace("powerdown-seconds: 1", "powerdown-seconds: 45"))
    host.sh(f"systemctl start {UNIT}")
    before = time.monotonic()
    host.sh(f"systemctl stop {UNIT}")  # nothing in this guest heeds the button
    assert 44 < time.monotonic() - before < PATIENCE
    assert host.show(UNIT, "Result") == "success"
    assert "SIGKILL" not in host.sh(f"journalctl -o cat -n 20 -u {UNIT}")
    assert host.running() == []


@pytest.fixture
def agent(host):
    """An agent with a broker there, and a machine of its own."""
    host.profile("web", WEB)
    host.write("/etc/qemu-launcher/policy.yaml", "{}\n")
    host.write("/etc/qemu-launcher/agent.env", "QEMU_LAUNCHER_BROKER=mqtt://127.0.0.1\n")
    host.write("/etc/mosquitto/conf.d/t.conf", "listener 1883 127.0.0.1\nallow_anonymous true\n")
    host.sh("systemctl restart mosquitto")
    host.sh(f"systemctl start {AGENT}")
    yield host
    host.sh(f"systemctl start {AGENT} mosquitto")
    if host.running():
        host.command("stop", id=f"end-{time.monotonic_ns()}", machine="web", first="quit")
    host.sh(f"systemctl stop {AGENT} mosquitto")
    assert host.running() == []


def _machine(host) -> int:
    answer = host.command("start", id=f"start-{time.monotonic_ns()}", profile="web")
    assert answer["status"] == "done", answer
    [pid] = host.running()
    assert host.retained(STATE)["pid"] == pid
    return pid


def test_a_machine_outlives_every_end_of_its_agent(agent):
    pid = _machine(agent)
    for end in ("restart", "kill", "hang", "stop"):
        main = agent.show(AGENT, "MainPID")
        restarts = int(agent.show(AGENT, "NRestarts"))
        if end == "restart":
            agent.sh(f"systemctl restart {AGENT}")
        elif end == "stop":
            agent.sh(f"systemctl stop {AGENT}")
            assert agent.retained("status")["status"] == "offline"
            assert agent.running() == [pid]
            agent.sh(f"systemctl start {AGENT}")
        else:
            agent.sh(f"kill -{'STOP' if end == 'hang' else 'KILL'} {main}")
            agent.until(f"systemctl show -P NRestarts {AGENT}", str(restarts + 1))
            agent.until(f"systemctl show -P ActiveState {AGENT}", "active")
        assert agent.show(AGENT, "MainPID") != main
        assert agent.running() == [pid], end
        answer = agent.command("verify", id=f"verify-{end}", machine="web")
        assert answer["status"] == "done", answer
        state = agent.retained(STATE)
        assert (state["pid"], state["actual"], state["verdict"]) == (pid, "running", "match"), end


def test_a_machine_that_dies_is_told_and_its_agent_goes_on(agent):
    pid = _machine(agent)
    main = agent.show(AGENT, "MainPID")
    agent.sh(f"kill -9 {pid}")
    topic = f"qemu-launcher/v1/hosts/systest/{STATE}"  # emptied: nothing comes in five seconds
    agent.until(f"mosquitto_sub -V 5 -W 5 -C 1 -t {topic} 2>/dev/null | wc -c", "0")
    assert agent.show(AGENT, "MainPID") == main


def test_a_broker_that_is_away_is_waited_for(agent):
    pid = _machine(agent)
    agent.sh("systemctl stop mosquitto")
    time.sleep(40)  # longer than WatchdogSec
    assert agent.show(AGENT, "NRestarts") == "0"
    agent.sh(f"systemctl stop {AGENT}")
    agent.sh(f"systemctl start --no-block {AGENT}")
    time.sleep(40)  # longer than WatchdogSec here, too
    assert agent.show(AGENT, "ActiveState") == "activating"
    agent.sh("systemctl start mosquitto")
    agent.until(f"systemctl show -P ActiveState {AGENT}", "active")
    assert agent.running() == [pid]
    assert agent.retained(STATE)["pid"] == pid
