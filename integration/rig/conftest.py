"""Which releases of QEMU the rig runs on."""

from __future__ import annotations

import os

import pytest

from integration.conftest import RELEASES, installed

FULL = os.environ.get("QEMU_LAUNCHER_FULL") == "1"


@pytest.fixture(params=RELEASES if FULL else RELEASES[-1:], ids="qemu-{}".format)
def qemu(request, agent_guest):
    """The binary under test."""
    return installed(request.param).binary
