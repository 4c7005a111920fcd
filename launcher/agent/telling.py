"""What an agent publishes of its own accord: its status, its host's facts, its machines, events."""

from __future__ import annotations

import sys
import time

from launcher.agent.outbox import Letter
from launcher.bus import topics
from launcher.qapi import format_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from launcher.agent.machines import Machines
    from launcher.agent.outbox import Outbox
    from launcher.agent.policy import Policy


#: Seconds that a piece of a console is worth telling.
_CONSOLE = 10


class Telling:
    """Puts into the outbox what others are to see of this host.

    Args:
        host: its id.
        outbox: where letters go.
        policy: whose limits are part of the status.
    """

    def __init__(self, host: str, outbox: Outbox, policy: Policy) -> None:
        self.host = host
        self.outbox = outbox
        self.policy = policy
        self.facts: dict[str, Any] | None = None

    def status(self, machines: Machines, status: str) -> bytes:
        """The payload of `status`: `online`, `offline` or `lost`."""
        from launcher import __version__
        from launcher.host.boot_cache import boot_id

        limits = {"machines": self.policy.machines, "memory": self.policy.total_memory}
        return payload_of(
            {
                "status": status,
                "version": __version__,
                "boot_id": boot_id(),
                "capacity": {"limits": limits, "used": machines.used()},
            }
        )

    def put_status(self, machines: Machines, status: str) -> None:
        """Publish the status."""
        self._put("status", self.status(machines, status))

    def put_facts(self) -> None:
        """Publish the facts, once they are known."""
        if self.facts is not None:
            self._put("facts", payload_of(self.facts))

    def put_all(self, machines: Machines) -> None:
        """Publish everything: a broker may have been restarted without its memory."""
        self.put_status(machines, "online")
        self.put_facts()
        for name in machines.owned:
            self.put_machine(machines, name)

    def put_machine(self, machines: Machines, name: str) -> None:
        """Publish a machine's state, report and lock, or empty them when it is no more."""
        owned, report = name in machines.owned, machines.reports.get(name)
        state = payload_of(machines.state(name)) if owned else b""
        self.outbox.put_state(topics.machine_topic(self.host, name, "state"), state)
        if report is not None or not owned:
            from launcher.report import report_json

            shown = payload_of(report_json(report)) if report is not None and owned else b""
            self.outbox.put_state(topics.machine_topic(self.host, name, "report"), shown)
        lock = machines.journal.paper(name, "lock") if owned else None
        if lock is not None or not owned:
            shown = payload_of(lock) if lock is not None else b""
            self.outbox.put_state(topics.machine_topic(self.host, name, "lock"), shown)

    def changed(self, machines: Machines, name: str, how: str, data: Any = None) -> None:
        """Something about a machine changed: its state, its report, an event."""
        self.put_machine(machines, name)
        state = machines.state(name) if name in machines.owned else {"name": name}
        self.event(how, name, {**state, **(data or {})})
        self.put_status(machines, "online")
        log(f"{name}: {how}")

    def correct(self, machines: Machines, topic: str, payload: bytes) -> None:
        """Empty what an agent before us left about a machine that is no more."""
        about = topics.parse_state(topic)
        if about is not None and about[1] and payload and about[1] not in machines.owned:
            self.outbox.put_state(topic, b"")

    def event(self, kind: str, name: str, data: dict[str, Any]) -> None:
        """Tell what happened, as a CloudEvent (its specification, 1.0, JSON)."""
        from launcher.prepare import new_uuid

        levels = ("machines", name, "events") if name else ("events",)
        topic = topics.host_topic(self.host, *levels)
        value = {
            "specversion": "1.0",
            "id": new_uuid(),
            "source": topic.rpartition("/")[0],
            "type": f"qemu-launcher.{'machine' if name else 'command'}.{kind}",
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "datacontenttype": "application/json",
            "data": data,
        }
        self.outbox.put(Letter(topic, payload_of(value), event=True))

    def console(self, name: str, data: bytes) -> None:
        """Publish what a machine's console said, as it said it."""
        topic = topics.machine_topic(self.host, name, "console")
        self.outbox.put(Letter(topic, data, event=True, expiry=_CONSOLE))

    def _put(self, leaf: str, payload: bytes) -> None:
        self.outbox.put_state(topics.host_topic(self.host, leaf), payload)


def payload_of(value: Any) -> bytes:
    """JSON as UTF-8; names of files need not be that."""
    return format_json(value).encode("utf-8", "backslashreplace")


def log(words: str) -> None:
    """One line for the journal of the system, which cannot be forged by what a command held."""
    from launcher.display import printable

    sys.stderr.write(f"{printable(words)}\n")
    sys.stderr.flush()
