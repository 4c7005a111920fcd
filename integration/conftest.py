"""The QEMUs under test, and what the tests share."""

from __future__ import annotations

import os
import subprocess

import pytest

from launcher.cache import cache_folder

RELEASES = ("5.2", "7.2", "10.0", "11.1")
#: Tests that boot a Linux go through the oldest and the newest release, and through all when asked.
ENDS = RELEASES if os.environ.get("QEMU_LAUNCHER_FULL") == "1" else (RELEASES[0], RELEASES[-1])
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Installed:
    """One release of the matrix."""

    def __init__(self, release: str, folder: str) -> None:
        self.release = release
        self.binary = os.path.join(folder, "qemu-system-x86_64")
        self.storage_daemon = os.path.join(folder, "qemu-storage-daemon")
        self.image_tool = os.path.join(folder, "qemu-img")


def needs(there: bool, otherwise: str) -> None:
    """Skip the test on a machine that cannot run it, with the reason.

    That is for whoever runs a test by itself: scripts/test brings everything first, and where CI
    is set the project's conftest.py makes a failure of each skipped integration test.
    """
    if not there:
        pytest.skip(otherwise)


def needs_tap() -> None:
    """Skip the test where no tap can be made in a network namespace of its own."""
    there = os.geteuid() == 0 and os.path.exists("/dev/net/tun")
    needs(there, "a tap in a namespace of its own needs root and /dev/net/tun")


def matrix_folder() -> str:
    return os.environ.get("QEMU_LAUNCHER_MATRIX") or os.path.join(cache_folder(), "matrix")


def installed(release: str) -> Installed:
    folder = os.path.join(matrix_folder(), release, "bin")
    there = os.path.exists(os.path.join(folder, "qemu-system-x86_64"))
    needs(there, f"QEMU {release} is not there; scripts/qemu-matrix brings it")
    return Installed(release, folder)


@pytest.fixture(params=RELEASES)
def qemu(request):
    """Each release of the matrix in turn."""
    return installed(request.param)


@pytest.fixture(params=ENDS)
def end_qemu(request):
    """The oldest and the newest release; each one with QEMU_LAUNCHER_FULL=1."""
    return installed(request.param)


@pytest.fixture(params=("10.0", "11.1"))
def newer_qemu(request):
    """The releases that know `compat-props` and `legacy-vm-type`."""
    return installed(request.param)


@pytest.fixture
def newest_qemu():
    """The newest release of the matrix."""
    return installed(RELEASES[-1])


@pytest.fixture(scope="session")
def project() -> str:
    """The folder of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def guest() -> str:
    """The folder of the small Linux guest."""
    folder = os.environ.get("QEMU_LAUNCHER_GUEST") or os.path.join(cache_folder(), "guest")
    there = os.path.exists(os.path.join(folder, "vmlinuz"))
    needs(there, "the guest is not there; scripts/guest builds it")
    return folder


@pytest.fixture(scope="session")
def agent_guest() -> str:
    """The folder of the same guest with qemu-guest-agent in it."""
    folder = os.path.join(cache_folder(), "guest-agent")
    folder = os.environ.get("QEMU_LAUNCHER_GUEST_AGENT") or folder
    there = os.path.exists(os.path.join(folder, "vmlinuz"))
    needs(there, "the guest with an agent is not there; scripts/guest --agent builds it")
    return folder


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    """A mosquitto on loopback, for the tests of one module."""
    from integration.mqtt import Broker

    with Broker(str(tmp_path_factory.mktemp("broker"))) as made:
        yield made


@pytest.fixture
def own_broker(tmp_path_factory):
    """One that has retained nothing yet, for one test."""
    from integration.mqtt import Broker

    with Broker(str(tmp_path_factory.mktemp("broker"))) as made:
        yield made


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """Who signs certificates."""
    from tests.support.certificates import Authority

    return Authority(str(tmp_path_factory.mktemp("authority")))


@pytest.fixture(scope="session")
def disk(tmp_path_factory) -> str:
    """A small empty qcow2 image, whose name holds a comma and an equals sign."""
    path = str(tmp_path_factory.mktemp("disk") / "a,b=c.qcow2")
    tool = installed("10.0").image_tool
    subprocess.run([tool, "create", "-q", "-f", "qcow2", path, "16M"], check=True, timeout=60)
    return path
