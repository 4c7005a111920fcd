"""Ports for servers that are started later, or again."""

from __future__ import annotations

import os
import random
import socket
from collections import deque

#: Where the kernel takes the ports of outgoing connections from, and those that it picks.
_RANGE = "/proc/sys/net/ipv4/ip_local_port_range"
_LOWEST = 20000
#: Of the tests that run at once each has ports of its own, and none twice: the server of another
#: may be away just now, or not be there yet.
_WORKERS = 16
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
_given: deque[int] = deque(maxlen=400)


def free_port() -> int:
    """A port of loopback that nobody listens at, and that the kernel gives to nobody.

    One that it had picked itself could be the near end of somebody's connection by the time that
    the server comes, which then cannot have it.
    """
    with open(_RANGE) as file:
        highest = int(file.read().split()[0])
    for _ in range(1000):
        if highest - _LOWEST > _WORKERS:
            port = random.randrange(_LOWEST + _WORKER, highest, _WORKERS)
        else:
            port = 0
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            port = int(sock.getsockname()[1])
        if port not in _given:
            _given.append(port)
            return port
    raise OSError("no port of loopback is free")


def free_ports(count: int) -> list[int]:
    """As many, each another one."""
    found: set[int] = set()
    while len(found) < count:
        found.add(free_port())
    return list(found)
