"""Subscriptions to what hosts publish, in portions that no broker drops.

A broker keeps a bounded queue for each client and drops what is beyond it without a word: of 5000
retained states a mosquitto with its own settings delivered 1128 to one subscription with QoS 1.
So statuses come first; they tell how many machines each host has, and hosts are subscribed to in
portions, each waited for. A portion is there when a mark that was sent to ourselves after it has
come back; where we may not write to our own topic, when there is quiet.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress

from launcher.bus import topics
from launcher.bus.broker import PublishError, publish, publish_properties, subscribe
from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from launcher.bus.broker import Client
    from launcher.fleet.picture import Picture

#: Messages in one portion; mosquitto queues 1000 for a client by default.
_PORTION = 500
#: Seconds without a message after which there will be none, where no mark comes back.
_QUIET = 1.0


@record
class View:
    """What is looked at. `hosts` are named ones; none stands for all."""

    hosts: tuple[str, ...] = ()
    facts: bool = True
    machines: bool = True
    events: bool = False


class Looker:
    """The subscriptions of one connection.

    Args:
        client: connected, and subscribed to `reply`.
        view: what to look at.
        picture: where statuses end up.
        reply: our own topic, for marks.
    """

    def __init__(self, client: Client, view: View, picture: Picture, reply: str) -> None:
        self.messages = 0
        self._client = client
        self._view = view
        self._picture = picture
        self._reply = reply
        self._seen: set[str] = set()
        self._marks: dict[bytes, asyncio.Event] = {}
        self._more = asyncio.Event()

    def mark_came(self, mark: bytes) -> None:
        """A message to ourselves came back."""
        event = self._marks.get(mark)
        if event is not None:
            event.set()

    def host_came(self, host: str) -> None:
        """A host told its status."""
        if host not in self._seen:
            self._more.set()

    async def look(self) -> None:
        """Subscribe, and wait until all that is retained has come.

        Raises:
            MqttError: the connection ended.
        """
        leaves = [topics.host_topic(host, "status") for host in self._view.hosts or ("+",)]
        await subscribe(self._client, *leaves)
        await self._settle()
        await self._look_at_new()

    async def follow(self) -> None:
        """Subscribe to hosts that come later, until the connection ends.

        Raises:
            MqttError: it did.
        """
        while True:
            await self._more.wait()
            await self._look_at_new()

    async def _look_at_new(self) -> None:
        self._more.clear()
        known = self._view.hosts or tuple(self._picture.hosts)
        new = [host for host in known if host not in self._seen]
        self._seen.update(new)
        for portion in self._portions(new):
            wanted = [topic for host in portion for topic in self._topics(host)]
            if wanted:
                await subscribe(self._client, *wanted)
                await self._settle()

    def _topics(self, host: str) -> Iterator[str]:
        if self._view.facts:
            yield topics.host_topic(host, "facts")
        if self._view.machines:
            yield topics.machine_topic(host, "+", "state")
        if self._view.events:
            yield topics.host_topic(host, "events")
            yield topics.machine_topic(host, "+", "events")

    def _portions(self, hosts: list[str]) -> Iterator[list[str]]:
        portion: list[str] = []
        room = _PORTION
        for host in hosts:
            told = self._picture.hosts.get(host)
            needed = 2 + (told.used.get("machines", 0) if told and self._view.machines else 0)
            if portion and needed > room:
                yield portion
                portion, room = [], _PORTION
            portion.append(host)
            room -= needed
        if portion:
            yield portion

    async def _settle(self) -> None:
        """Wait until what was subscribed to has come, as far as it was retained."""
        mark = os.urandom(16)
        came = self._marks[mark] = asyncio.Event()
        try:
            with suppress(PublishError):
                await publish(self._client, self._reply, b"", properties=publish_properties(mark))
            while not came.is_set():
                before = self.messages
                try:
                    async with asyncio.timeout(_QUIET):
                        await came.wait()
                except TimeoutError:
                    if self.messages == before:
                        return
        finally:
            del self._marks[mark]
