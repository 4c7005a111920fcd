"""The guard around hermetic tests holds, and lets go."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from tests.support.records import ROOT


@pytest.mark.hermetic
@pytest.mark.parametrize(
    "attempt",
    [
        lambda: subprocess.run(["true"], check=False),
        lambda: os.system("true"),
        lambda: os.posix_spawn("/bin/true", ["true"], {}),
        lambda: os.fork(),
        lambda: socket.socket(),
        lambda: socket.create_connection(("127.0.0.1", 1)),
    ],
)
def test_no_process_and_no_socket(attempt):
    with pytest.raises(AssertionError, match="a hermetic test caused"):
        attempt()


@pytest.mark.hermetic
def test_nobodys_environment():
    assert os.getcwd() == ROOT
    home = os.path.expanduser("~")
    assert not os.path.exists(home)
    with pytest.raises(OSError, match="Not a directory"):
        os.makedirs(home)
    assert not [name for name in os.environ if name.startswith(("QEMU", "XDG_"))]


def test_other_tests_are_free():
    assert subprocess.run([sys.executable, "-c", ""], check=False).returncode == 0


def test_every_pure_test_is_hermetic():
    """Tests of the pure core and of goldens carry the mark."""
    pure = ("record", "errors", "nodes", "files", "qapi", "capabilities", "index", "command", "hmp")
    pure += ("report", "profiles", "plan.")
    unit = os.path.join(ROOT, "tests", "unit")
    paths = [
        os.path.join(unit, name)
        for name in os.listdir(unit)
        if name.endswith(".py") and name.removeprefix("test_").startswith(pure)
    ]
    paths += [os.path.join(ROOT, "tests", f"test_{name}.py") for name in ("golden", "bad_input")]
    assert len(paths) > 12
    for path in paths:
        with open(path, encoding="utf-8") as file:
            assert "pytest.mark.hermetic" in file.read(), path
