"""Ports for servers that are started later, or again."""

from __future__ import annotations

import random
import socket

#: Where the kernel takes the ports of outgoing connections from, and those that it picks.
_RANGE = "/proc/sys/net/ipv4/ip_local_port_range"
_LOWEST = 20000


def free_port() -> int:
    """A port of loopback that nobody listens at, and that the kernel gives to nobody.

    One that it had picked itself could be the near end of somebody's connection by the time that
    the server comes, which then cannot have it.
    """
    with open(_RANGE) as file:
        highest = int(file.read().split()[0])
    for _ in range(100):
        port = random.randrange(_LOWEST, highest) if highest > _LOWEST else 0
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(sock.getsockname()[1])
    raise OSError("no port of loopback is free")


def free_ports(count: int) -> list[int]:
    """As many, each another one."""
    found: set[int] = set()
    while len(found) < count:
        found.add(free_port())
    return list(found)
