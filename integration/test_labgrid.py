"""The labgrid driver, with labgrid itself: an environment file names a profile."""

from __future__ import annotations

import os

import pytest

from integration.conftest import ROOT

pytest_plugins = ("pytester",)
pytestmark = pytest.mark.integration

ENVIRONMENT = """
imports: [launcher.rig.labgrid]
tools: {{newest: {qemu}}}
targets:
  main:
    drivers:
      QEMULauncherDriver:
        profile: {profile}
        platform: debian-12
        qemu: newest
        settings: {{memory: 192MiB, kernel: {guest}/vmlinuz, initrd: {guest}/initrd.img}}
      ShellDriver:
        prompt: 'guest# '
        login_prompt: 'login: '
        username: root
      QEMULauncherStrategy: {{up: guest is up}}
"""


@pytest.fixture
def environment(newest_qemu, guest, tmp_path) -> str:
    path = tmp_path / "env.yaml"
    profile = os.path.relpath(os.path.join(ROOT, "profiles", "microvm-demo.yaml"), tmp_path)
    path.write_text(ENVIRONMENT.format(qemu=newest_qemu.binary, profile=profile, guest=guest))
    return str(path)


def test_an_environment_file_names_a_profile(environment):
    from labgrid import Environment
    from labgrid.protocol import ConsoleProtocol, PowerProtocol

    made = Environment(environment)
    target = made.get_target("main")
    driver = target.get_driver("QEMULauncherDriver", activate=False)
    assert target.get_driver(PowerProtocol, activate=False) is driver
    assert target.get_driver(ConsoleProtocol, activate=False) is driver
    try:
        target.activate(driver)
        driver.on()
        assert driver.machine.report.verdict == "match"
        first = driver.machine.process.pid
        _index, _before, match, _after = driver.expect(r"Linux (\S+)\s", timeout=60)
        assert match.group(1).startswith(b"6.1.")
        driver.expect("guest# ", timeout=60)
        driver.sendline("echo $((6*7))-ok")
        driver.expect("42-ok", timeout=60)
        assert driver.qmp("query-status")["running"] is True
        driver.cycle()
        assert driver.machine.process.pid != first
        assert not os.path.exists(f"/proc/{first}")
        driver.expect("guest is up", timeout=60)
        second = driver.machine.process.pid
        with pytest.raises(Exception, match=r"nothing on the console|Timeout"):
            driver.expect("never", timeout=0.5)
        driver.qmp("quit")
        driver.machine.wait(60)
        with pytest.raises(Exception, match=r"the machine has ended|End Of File"):
            driver.expect("never", timeout=5)
    finally:
        made.cleanup()
    assert not os.path.exists(f"/proc/{second}")
    assert driver.machine is None


TEST = """
def test_shell(target):
    strategy = target.get_driver("Strategy")
    strategy.transition("shell")
    shell = target.get_driver("ShellDriver")
    stdout, _stderr, status = shell.run("uname -r")
    assert status == 0 and stdout[0].startswith("6.1.")
    strategy.transition("off")
    assert target.get_driver("QEMULauncherDriver").machine is None
"""


def test_with_labgrids_own_pytest_plugin(environment, pytester, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", ROOT)
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv(
        "XDG_CACHE_HOME", os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    )
    pytester.makepyfile(test_it=TEST)
    words = ("-p", "no:cacheprovider", "-p", "no:asyncio", "--lg-env", environment)
    pytester.runpytest_subprocess(*words, timeout=200).assert_outcomes(passed=1)
