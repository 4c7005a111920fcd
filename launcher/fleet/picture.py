"""What the hosts have published, as far as it was taken. Pure.

Whoever may write to a host's topics may write nonsense there: what is not as an agent publishes it
is counted and left out, and there is a bound on what is kept.
"""

from __future__ import annotations

from launcher.bus import topics
from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_HOSTS = 10_000
MAX_MACHINES = 100_000

ONLINE, OFFLINE, LOST = "online", "offline", "lost"
_STATUSES = (ONLINE, OFFLINE, LOST)


@record
class Host:
    """One host by its agent's status: `online`, `offline` (ended cleanly) or `lost`."""

    name: str
    status: str
    version: str
    boot_id: str
    limits: dict[str, int]
    used: dict[str, int]


class Picture:
    """What is known of hosts and machines.

    Attributes:
        hosts: by name.
        facts: by host, as `qemu-launcher host --format json` has them.
        machines: states by (host, name).
        odd: messages that no agent of ours would publish.
        left_out: messages about more hosts or machines than are kept.
    """

    def __init__(self) -> None:
        self.hosts: dict[str, Host] = {}
        self.facts: dict[str, dict[str, Any]] = {}
        self.machines: dict[tuple[str, str], dict[str, Any]] = {}
        self.odd = 0
        self.left_out = 0

    def take(self, topic: str, payload: bytes) -> tuple[str, str, str] | None:
        """Note a message; which host, machine and leaf it changed, None when none."""
        about = topics.parse_state(topic)
        if about is None:
            return None
        host, machine, leaf = about
        if not payload:
            return about if self._empty(host, machine, leaf) else None
        value = object_of(payload)
        if value is None:
            self.odd += 1
            return None
        if machine:
            done = leaf == "state" and self._machine(host, machine, value)
        elif leaf == "status":
            done = self._status(host, value)
        else:
            done = leaf == "facts" and self._facts(host, value)
        return about if done else None

    def machines_of(self, host: str) -> list[str]:
        """The machines of one host, by name."""
        return sorted(name for where, name in self.machines if where == host)

    def _empty(self, host: str, machine: str, leaf: str) -> bool:
        if machine:
            return leaf == "state" and self.machines.pop((host, machine), None) is not None
        if leaf == "status":
            return self.hosts.pop(host, None) is not None
        return leaf == "facts" and self.facts.pop(host, None) is not None

    def _status(self, name: str, value: dict[str, Any]) -> bool:
        host = _host(name, value)
        if host is None:
            self.odd += 1
            return False
        return self._keep(self.hosts, name, host, MAX_HOSTS)

    def _facts(self, host: str, value: dict[str, Any]) -> bool:
        return self._keep(self.facts, host, value, MAX_HOSTS)

    def _machine(self, host: str, name: str, value: dict[str, Any]) -> bool:
        return self._keep(self.machines, (host, name), value, MAX_MACHINES)

    def _keep(self, where: dict[Any, Any], key: Any, value: Any, most: int) -> bool:
        if key not in where and len(where) >= most:
            self.left_out += 1
            return False
        where[key] = value
        return True


def object_of(payload: bytes) -> dict[str, Any] | None:
    """The JSON object in a payload, None when there is none."""
    import json

    try:
        value = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _host(name: str, value: dict[str, Any]) -> Host | None:
    status, capacity = value.get("status"), value.get("capacity")
    if status not in _STATUSES:
        return None
    parts = capacity if isinstance(capacity, dict) else {}
    limits, used = (_numbers(parts.get(word)) for word in ("limits", "used"))
    version, boot = (str(value.get(word) or "") for word in ("version", "boot_id"))
    return Host(name, status, version, boot, limits, used)


def _numbers(value: Any) -> dict[str, int]:
    if not isinstance(value, dict):
        return {}
    return {name: number for name, number in value.items() if isinstance(number, int)}
