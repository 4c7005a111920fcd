"""Fixtures of the tests that need no QEMU, and the guard that keeps the pure ones pure."""

from __future__ import annotations

import os
import sys

import pytest
from hypothesis import settings

from tests.support.records import RELEASES, capabilities_of, catalogue

# Inputs for each property: enough to find what is likely, few enough for every run. A deadline in
# wall clock time would fail on a busy machine; what must be quick is measured where it matters.
settings.register_profile("usual", max_examples=50, deadline=None)
settings.register_profile("full", max_examples=2000, deadline=None)
settings.load_profile("full" if os.environ.get("QEMU_LAUNCHER_FULL") else "usual")

HERE = os.path.dirname(os.path.abspath(__file__))

#: Events of the interpreter (see sys.addaudithook) that a hermetic test must not cause.
_FORBIDDEN = (
    "os.exec",
    "os.fork",
    "os.posix_spawn",
    "os.spawn",
    "os.system",
    "pty.spawn",
    "socket.__new__",
    "subprocess.Popen",
)
_guarded = False


def _guard(event: str, _arguments: object) -> None:
    if _guarded and event in _FORBIDDEN:
        raise AssertionError(f"a hermetic test caused {event}")


sys.addaudithook(_guard)


@pytest.fixture(autouse=True)
def _hermetic(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """No process, no socket, nobody's home and a far time zone, for tests marked `hermetic`."""
    global _guarded
    if request.node.get_closest_marker("hermetic") is None:
        yield
        return
    # Goldens hold paths as they are seen from the checkout.
    monkeypatch.chdir(os.path.dirname(HERE))
    for name in list(os.environ):
        if name.startswith(("QEMU", "XDG_")):
            monkeypatch.delenv(name)
    # Below a device: whatever wants to keep something there cannot, even as root.
    monkeypatch.setenv("HOME", "/dev/null/nobody-lives-here")
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    _guarded = True
    try:
        yield
    finally:
        _guarded = False


@pytest.fixture(scope="session")
def platform_data():
    """The catalogue of the shipped platform data, read from its files."""
    return catalogue()


@pytest.fixture(params=RELEASES)
def capabilities(request):
    """What each recorded qemu-system-x86_64 can do, in turn."""
    return capabilities_of(request.param)
