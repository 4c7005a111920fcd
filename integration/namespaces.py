"""Hosts in network namespaces: each has one cable to a bridge, where the broker is."""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
import threading
import uuid

from integration.conftest import needs

BROKER = "10.77.0.1"
#: CLONE_NEWNET of linux/sched.h.
_NEWNET = 0x40000000
_MAC = "02:00:00:00:00:01"


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
        # With an address of its own: else it is that of a cable, and goes with it.
        _ip("-n", middle, "link", "add", "br0", "address", _MAC, "type", "bridge")
        # It stays down, so that its ports are up and drop what comes.
        _ip("-n", middle, "link", "add", "nowhere", "type", "bridge")
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

    def network_only(self, host: int | None) -> list[str]:
        """The same for what others are to see that it mounts; None is where the broker is.

        `ip netns exec` gives a command a mount namespace of its own, besides the network.
        """
        return ["nsenter", f"--net=/run/netns/{self._names[0 if host is None else host + 1]}"]

    def plug(self, host: int, there: bool) -> None:
        """Pull a host's cable, or plug it in again."""
        _ip("-n", self._names[0], "link", "set", f"c{host}", "up" if there else "down")

    def lose(self, host: int, lost: bool) -> None:
        """Lose all packets between a host and the others, or no more of them; no link goes down.

        As behind a switch that died: neither end is told, and what it waits for does not come.
        """
        where = "nowhere" if lost else "br0"
        _ip("-n", self._names[0], "link", "set", f"c{host}", "master", where)

    def listen(self) -> socket.socket:
        """A socket of this process that listens where the broker is, on a port of its own."""
        made: list[socket.socket] = []

        def enter() -> None:
            with open(f"/run/netns/{self._names[0]}") as place:
                if ctypes.CDLL(None, use_errno=True).setns(place.fileno(), _NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            made.append(socket.create_server((BROKER, 0)))

        # Only the thread is in there, which ends; a socket stays where it was made.
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        assert made, "no socket in the broker's namespace"
        return made[0]

    def close(self) -> None:
        """Remove it all; what runs inside has ended by then."""
        for name in reversed(self._names):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, timeout=30)
