"""The command as pip installs it, from a wheel and from the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import venv

import pytest

from tests.support.records import ROOT

#: A build backend's hooks (PEP 517, PEP 660); each writes a wheel and returns its name.
_BUILD = "import sys, hatchling.build as b; print(getattr(b, sys.argv[1])(sys.argv[2]))"


def run(*words: str, cwd: str = "/", **env: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        words, capture_output=True, text=True, env=os.environ | env, cwd=cwd, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("hook", ["build_wheel", "build_editable"])
def test_the_installed_command_loads_nothing_before_ours(tmp_path, hook):
    """For an entry point, older pips write a script that imports `re`."""
    built = run(sys.executable, "-c", _BUILD, hook, str(tmp_path), cwd=ROOT).stdout.split()[-1]
    venv.create(tmp_path / "venv", symlinks=True)
    folder = tmp_path / "venv" / "bin"
    pip = (sys.executable, "-m", "pip", "--python", str(folder / "python"))
    run(*pip, "install", "--no-deps", "--no-index", str(tmp_path / built))
    command = str(folder / "qemu-launcher")

    done = run(command, "--help", PYTHONPROFILEIMPORTTIME="1")
    assert "usage: qemu-launcher" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "launcher.cli" in imported
    assert imported & {"re", "argparse", "typing", "importlib.metadata"} == set()
    assert run(command, "--version").stdout.startswith("qemu-launcher ")
