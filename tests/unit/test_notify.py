"""The words to a service manager, sent to a socket that is read here."""

from __future__ import annotations

import os
import socket

import pytest

from launcher.notify import Notifier, notifier


@pytest.fixture
def place(tmp_path):
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path)
        sock.settimeout(10)
        yield path, sock


def test_values_are_lines_and_no_value_becomes_another(place):
    path, sock = place
    Notifier(path).tell(READY=1, STATUS="a\nSTOPPING=1\r\n  b")
    assert sock.recv(1000) == b"READY=1\nSTATUS=a STOPPING=1 b"


def test_a_manager_that_is_gone_is_no_error(tmp_path):
    for address in ("", str(tmp_path / "absent"), "/" + "x" * 200, "@nobody-listens-here"):
        Notifier(address).tell(READY=1)


@pytest.mark.parametrize(
    ("environment", "address", "interval"),
    [
        ({}, "", 0),
        ({"NOTIFY_SOCKET": "relative"}, "", 0),
        ({"NOTIFY_SOCKET": "vsock:2:1"}, "", 0),
        ({"NOTIFY_SOCKET": "/s"}, "/s", 0),
        ({"NOTIFY_SOCKET": "@s", "WATCHDOG_USEC": "2500000"}, "@s", 2.5),
        ({"NOTIFY_SOCKET": "/s", "WATCHDOG_USEC": "x"}, "/s", 0),
        ({"NOTIFY_SOCKET": "/s", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}, "/s", 0),
        ({"NOTIFY_SOCKET": "/s", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "me"}, "/s", 1),
    ],
    ids=str,
)
def test_what_the_environment_says(environment, address, interval):
    pid = str(os.getpid())
    found = notifier({name: pid if value == "me" else value for name, value in environment.items()})
    assert (found.address, found.interval) == (address, interval)
