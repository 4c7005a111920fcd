"""Hosts in network namespaces: each has one cable to a bridge, where the broker is."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid

from integration.conftest import needs

BROKER = "10.77.0.1"


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=30)


class Network:
    """A bridge in a namespace of its own, and hosts that are plugged into it.

    Args:
        hosts: how many; the first has the address 10.77.0.2.
    """

    def __init__(self, hosts: int) -> None:
        there = os.geteuid() == 0 and shutil.which("ip") is not None
        needs(there, "network namespaces need root and iproute2")
        self._mark = uuid.uuid4().hex[:6]
        self._names = [f"qlm{self._mark}"]
        self.addresses = [f"10.77.0.{number + 2}" for number in range(hosts)]
        try:
            self._make(hosts)
        except BaseException:
            self.close()
            raise

    def _make(self, hosts: int) -> None:
        middle = self._names[0]
        _ip("netns", "add", middle)
        _ip("-n", middle, "link", "set", "lo", "up")
        _ip("-n", middle, "link", "add", "br0", "type", "bridge")
        _ip("-n", middle, "address", "add", f"{BROKER}/24", "dev", "br0")
        _ip("-n", middle, "link", "set", "br0", "up")
        for number in range(hosts):
            name, cable = f"qlh{number}{self._mark}", f"c{number}"
            _ip("netns", "add", name)
            self._names.append(name)
            _ip("-n", middle, "link", "add", cable, "type", "veth", "peer", "name", "eth0")
            _ip("-n", middle, "link", "set", "eth0", "netns", name)
            _ip("-n", middle, "link", "set", cable, "master", "br0", "up")
            _ip("-n", name, "address", "add", f"{self.addresses[number]}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "link", "set", "eth0", "up")

    @property
    def middle(self) -> list[str]:
        """Words before a command that is to run where the broker is."""
        return ["ip", "netns", "exec", self._names[0]]

    def inside(self, host: int) -> list[str]:
        """Words before a command that is to run on a host."""
        return ["ip", "netns", "exec", self._names[host + 1]]

    def plug(self, host: int, there: bool) -> None:
        """Pull a host's cable, or plug it in again."""
        _ip("-n", self._names[0], "link", "set", f"c{host}", "up" if there else "down")

    def close(self) -> None:
        """Remove it all; what runs inside has ended by then."""
        for name in reversed(self._names):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, timeout=30)
