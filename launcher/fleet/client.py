"""A fleet as a caller has it: what is known of its hosts, and commands to them.

A command has an id from here. It is sent again on each new connection and after silence, until its
final answer has come: the agent's journal makes one effect of any number of sendings.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections import deque
from contextlib import suppress
from types import MappingProxyType

from launcher.bus import topics
from launcher.bus.broker import (
    MqttError,
    PublishError,
    property_of,
    publish,
    publish_properties,
)
from launcher.errors import InputError
from launcher.fleet import faults
from launcher.fleet.asking import Asked
from launcher.fleet.picture import ONLINE, Picture, object_of
from launcher.fleet.session import Session
from launcher.qapi import format_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from typing import Any, Self

    from launcher.bus.broker import Broker, Message
    from launcher.fleet.asking import Answer
    from launcher.fleet.looking import View
    from launcher.fleet.picture import Host

#: Commands that may be under way.
MOST = 10_000
#: Events that wait to be taken; the oldest go.
_EVENTS = 10_000
#: Seconds from one sending of a command that nobody has answered to the next, first and at most.
_AGAIN = (5.0, 60.0)


class Fleet:
    """The hosts behind one broker, inside `async with`.

    Args:
        broker: where it is and who we are to it.
        name: ours, in the topic of answers; "" for the user's.
        view: what to look at.
        seconds: to connect and see all that is retained.

    Attributes:
        reply: the topic of answers to us.
        events_lost: how many events nobody took in time.

    Raises:
        InputError: a name or a host's is no id.
    """

    def __init__(self, broker: Broker, name: str, view: View, seconds: float) -> None:
        for host in view.hosts:
            topics.check_id(host, "a host's id")
        if not name:
            name = broker.username if topics.is_id(broker.username) else "fleet"
        name = topics.check_id(name, "a client's name")
        self.reply = topics.reply_topic(name, os.urandom(16).hex())
        self.events_lost = 0
        self._view = view
        self._seconds = seconds
        self._picture = Picture()
        self._session = Session(broker, self.reply, view, self._picture, self._take, self._turned)
        self._asked: dict[str, Asked] = {}
        self._events: deque[dict[str, Any]] = deque()
        self._more, self._changed = asyncio.Event(), asyncio.Event()

    async def __aenter__(self) -> Self:
        await self._session.begin(self._seconds)
        return self

    async def __aexit__(self, *_about: object) -> None:
        await self._session.end()

    # -- what is known ------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether the broker is there now."""
        return self._session.client is not None

    @property
    def hosts(self) -> Mapping[str, Host]:
        """Hosts by name."""
        return MappingProxyType(self._picture.hosts)

    @property
    def facts(self) -> Mapping[str, dict[str, Any]]:
        """Facts by host, as `qemu-launcher host --format json` has them."""
        return MappingProxyType(self._picture.facts)

    @property
    def machines(self) -> Mapping[tuple[str, str], dict[str, Any]]:
        """What is published of each machine, by (host, name)."""
        return MappingProxyType(self._picture.machines)

    @property
    def left_out(self) -> int:
        """Messages that were not kept: no agent's, or of more hosts than `picture.MAX_HOSTS`."""
        return self._picture.odd + self._picture.left_out

    def machines_of(self, host: str) -> list[str]:
        """The names of one host's machines, sorted."""
        return self._picture.machines_of(host)

    async def changed(self, seconds: float) -> bool:
        """Wait until something is other than at the last call; False when nothing was in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        found = self._changed.is_set()
        self._changed.clear()
        return found

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """CloudEvents as they come; needs `connect(…, events=True)`."""
        while True:
            while self._events:
                yield self._events.popleft()
            self._more.clear()
            await self._more.wait()

    # -- what comes ---------------------------------------------------------------------------

    def _turned(self) -> None:
        """The connection came or went: what waits is sent again."""
        self._changed.set()
        if self.connected:
            for asked in self._asked.values():
                asked.bell.set()

    def _take(self, message: Message) -> None:
        topic, payload = str(message.topic), message.payload
        if topic == self.reply:
            self._take_answer(message)
        elif topic.endswith("/events"):
            self._take_event(payload)
        else:
            about = topics.parse_state(topic)
            before = self.hosts.get(about[0]) if about is not None else None
            about = self._picture.take(topic, payload)
            if about is None:
                return
            self._changed.set()
            if about[1:] == ("", "status"):
                self._host_turned(about[0], before)

    def _take_event(self, payload: bytes) -> None:
        event = object_of(payload)
        if event is None:
            return
        if len(self._events) >= _EVENTS:
            self._events.popleft()
            self.events_lost += 1
        self._events.append(event)
        self._more.set()

    def _take_answer(self, message: Message) -> None:
        token: bytes = property_of(message, "CorrelationData") or b""
        if not message.payload:
            if self._session.looker is not None:
                self._session.looker.mark_came(token)
            return
        value = object_of(message.payload) or {}
        number = value.get("id")
        if number is None:  # of a command that could not be read only its token is known
            number = token.decode("ascii", "replace")
        asked = self._asked.get(number) if isinstance(number, str) else None
        if asked is not None:
            asked.take(value)

    def _host_turned(self, name: str, before: Host | None) -> None:
        """A host's status came: whoever waits for it goes on, or has no reason to wait."""
        if self._session.looker is not None:
            self._session.looker.host_came(name)
        host = self.hosts.get(name)
        if host is None or (before is not None and before.status == host.status):
            return
        for asked in self._asked.values():
            if asked.host == name and host.status == ONLINE:
                asked.bell.set()
            elif asked.host == name and not asked.wait:
                asked.fail(faults.gone(name, host.status, asked.id if asked.heard else ""))

    # -- commands -----------------------------------------------------------------------------

    async def command(
        self,
        host: str,
        verb: str,
        /,
        *,
        timeout: float = 60.0,  # noqa: ASYNC109 (it also bounds when an agent may begin)
        wait: bool = False,
        command_id: str = "",
        progress: Callable[[Answer], None] | None = None,
        **arguments: Any,
    ) -> Answer:
        """Have an agent do something, once; wait for its final answer.

        Args:
            host: whose agent.
            verb: such as `start`; docs/agent.md has them.
            timeout: seconds for all of it. What an agent has not begun by then it does not do.
            wait: for a host that is away, as `timeout` allows; else that is an error at once.
            command_id: the command's; by default one of its own. What was sent before under the
                same id is answered with what became of it.
            progress: called with each answer before the final one.
            arguments: of the verb. What is None is left out.

        Raises:
            RemoteError: the agent refused it or could not do it; has the agent's own error.
            HostError: the host is not there (`offline`, `lost`, `absent`), did not answer in time
                (`timeout`), or the broker does not let us tell it or hear of it (`access`).
            InputError: no id, or too many commands are under way.
        """
        topics.check_id(host, "a host's id")
        topics.check_id(verb, "a verb")
        number = topics.check_id(command_id or os.urandom(16).hex(), "a command's id")
        if len(self._asked) >= MOST or number in self._asked:
            words = "is under way already" if number in self._asked else "is one too many"
            raise InputError(f"the command {number} {words}", code="busy")
        given = {name: value for name, value in arguments.items() if value is not None}
        payload = format_json({**given, "id": number}).encode("utf-8", "backslashreplace")
        asked = self._asked[number] = Asked(host, number, payload, wait, progress)
        try:
            async with asyncio.timeout(timeout):
                return await self._ask(asked, verb, time.monotonic() + timeout)
        except TimeoutError:
            raise faults.late(host, verb, timeout, number) from None
        finally:
            del self._asked[number]

    async def _ask(self, asked: Asked, verb: str, ends: float) -> Answer:
        again = _AGAIN[0]
        while not asked.over:
            asked.bell.clear()
            self._check_there(asked)
            left = max(1, math.ceil(ends - time.monotonic()))
            # Beside us: of a connection that has ended nobody ever says that it was received.
            sending = asyncio.create_task(self._send(asked, verb, left))
            try:
                with suppress(TimeoutError):
                    async with asyncio.timeout(again):
                        await asked.bell.wait()
            finally:
                sending.cancel()
            again = min(again * 2, _AGAIN[1])
        return asked.outcome()

    def _check_there(self, asked: Asked) -> None:
        """Say at once that nobody is there to do it, or that we would not hear of it.

        Raises:
            HostError: so it is.
        """
        if self._session.unheard is not None:
            raise self._session.unheard
        looked = not self._view.hosts or asked.host in self._view.hosts
        if asked.wait or not self.connected or not looked:
            return
        host = self.hosts.get(asked.host)
        if host is None:
            raise faults.nobody(asked.host, list(self.hosts))
        if host.status != ONLINE:
            raise faults.gone(asked.host, host.status, asked.id if asked.heard else "")

    async def _send(self, asked: Asked, verb: str, expiry: int) -> None:
        """Send it, where there is a connection; the next one has it sent again."""
        client = self._session.client
        if client is None:
            return
        properties = publish_properties(asked.id.encode(), self.reply, expiry)
        topic = topics.command_topic(asked.host, verb)
        try:
            await publish(client, topic, asked.payload, properties=properties)
        except PublishError as error:
            if error.forbidden:  # else it may be taken the next time
                asked.fail(faults.forbidden(asked.host, verb, error))
        except MqttError:
            pass
