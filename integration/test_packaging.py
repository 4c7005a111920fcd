"""What is shipped for service managers and schedulers: as far as it can be checked without them."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess

import pytest
import yaml

from integration.conftest import ROOT, needs
from launcher.cli.parser import parse
from launcher.files import parse_yaml
from launcher.profiles import parse_profile

pytestmark = pytest.mark.integration

PACKAGING = os.path.join(ROOT, "packaging")
UNITS = ("qemu-launcher@demo.service", "qemu-launcher-agent.service")


def test_systemd_finds_nothing_wrong_with_the_units(tmp_path):
    """Its parser, not its manager: a container has none."""
    needs(shutil.which("systemd-analyze") is not None, "systemd-analyze is not installed")
    units = os.path.join(PACKAGING, "systemd")
    for name in os.listdir(units):
        shutil.copy(os.path.join(units, name), tmp_path)
    paths = [str(tmp_path / name) for name in UNITS]
    verify = ["systemd-analyze", "verify", "--man=no"]
    done = subprocess.run([*verify, *paths], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    # It does find something: the same with a mistake in each.
    for path in paths:
        template = path.replace("demo", "")
        with open(template) as file:
            text = file.read()
        with open(template, "w") as file:
            file.write(text.replace("KillMode=", "KillMood="))
        done = subprocess.run([*verify, path], capture_output=True, text=True, timeout=60)
        assert "KillMood" in done.stderr


@pytest.mark.parametrize("name", ["qemu-launcher@.service", "qemu-launcher-agent.service"])
def test_a_unit_calls_a_command_line_that_exists(name):
    with open(os.path.join(PACKAGING, "systemd", name)) as file:
        text = file.read().replace("\\\n", " ")
    [line] = [one for one in text.splitlines() if one.startswith("ExecStart=")]
    words = shlex.split(line.partition("=")[2])
    assert words[:2] == ["/usr/bin/env", "qemu-launcher"]
    parse(words[2], words[3:])


@pytest.mark.parametrize("name", ["machine.sbatch", "matrix.sbatch", "epilog.sh"])
def test_a_script_for_slurm_is_one(name):
    path = os.path.join(PACKAGING, "slurm", name)
    with open(path) as file:
        shell = file.readline().removeprefix("#!").strip()
    subprocess.run([shell, "-n", path], check=True, timeout=60)
    assert os.access(path, os.X_OK)


def test_the_pod_is_yaml_and_its_profile_is_one():
    with open(os.path.join(PACKAGING, "kubernetes", "machine.yaml")) as file:
        config, pod = yaml.safe_load_all(file)
    [container] = pod["spec"]["containers"]
    parse(container["command"][1], container["command"][2:])
    volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    profile = parse_profile(parse_yaml(config["data"]["machine.yaml"], "machine.yaml"), parse_yaml)
    patience = pod["spec"]["terminationGracePeriodSeconds"]
    assert profile.powerdown_seconds + 15 < patience
