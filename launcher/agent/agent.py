"""The agent: its sessions with the broker, and who is told what comes.

The broker may be away for any time: what was begun goes on, and what it brought about is told when
the broker is back.
"""

from __future__ import annotations

import asyncio
import os
import random
from contextlib import suppress
from functools import partial

from launcher.agent.commands import Commands
from launcher.agent.host_facts import gather_facts
from launcher.agent.journal import Journal
from launcher.agent.machines import Machines
from launcher.agent.metrics import Figures
from launcher.agent.moves.moves import Moves
from launcher.agent.outbox import Outbox
from launcher.agent.policy import Policy
from launcher.agent.telling import Telling, log
from launcher.bus import topics
from launcher.bus.broker import (
    Broker,
    MqttError,
    PublishError,
    acknowledge,
    make_client,
    share_pool,
    subscribe,
    subscribe_commands,
    thrown_out,
)
from launcher.bus.link import connected
from launcher.bus.refusal import RULES, refusal
from launcher.errors import HostError
from launcher.notify import Notifier
from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from launcher.bus.broker import Client, Message

#: Seconds: between two attempts to reach a broker, and for what is under way when we are ended.
_BACKOFF = (0.1, 5.0)
_GRACE = 5.0


@record
class Settings:
    """What an agent is told by who starts it.

    `state` is the folder of its journal, `pools` are those whose starts it takes.
    """

    broker: Broker
    host: str
    state: str
    profiles: str = ""
    policy: Policy = Policy()
    pools: tuple[str, ...] = ()


class Agent:
    """One host's agent.

    Raises:
        HostError: another agent uses the same journal.
    """

    def __init__(self, settings: Settings, manager: Notifier | None = None) -> None:
        self.settings = settings
        self.figures = Figures()
        self._manager = manager or Notifier()
        self.host = topics.check_id(settings.host, "a host's id")
        self.journal = Journal(os.path.join(settings.state, "journal.sqlite"))
        self.outbox = Outbox(self._refused)
        self._telling = Telling(self.host, self.outbox, settings.policy)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ending = asyncio.Event()
        self._was_connected = False
        self._refusals: set[str] = set()
        policy, profiles = settings.policy, settings.profiles
        self.machines = Machines(self.journal, policy, profiles, self._changed, self._heard)
        self.moves = Moves(self.host, self.machines, self.outbox, self._start)
        self.commands = Commands(
            *(policy, self.journal, self.machines, self.moves, self.outbox, self._telling),
            self._start,
            self.figures,
        )

    def stop(self) -> None:
        """End the agent; its machines go on."""
        self._manager.tell(STOPPING=1, STATUS="ends; its machines go on")
        self._ending.set()

    async def run(self) -> None:
        """Serve until `stop`. A broker that is absent is waited for.

        Raises:
            BrokerError: the first broker that was there refuses us, or is not to be trusted.
            HostError: another agent came with our host's id.
        """
        try:
            self.moves.before_rejoin()
            await self.machines.rejoin()
            await self.moves.after_rejoin()
            self.commands.resume()
            self._start(self._gather_facts())
            self._start(self._manager.pulse(lambda _seconds: asyncio.sleep(0)))
            for pool in self.settings.pools:
                self._start(self._serve_pool(pool))
            await self._serve()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self.machines.close()
            self.journal.close()

    # -- connections --------------------------------------------------------------------------

    async def _serve(self) -> None:
        wait, told = _BACKOFF[0], ""
        while not self._ending.is_set():
            try:
                async with connected(self._client()) as client:
                    self._refusals.clear()
                    await self._session(client)
            except (MqttError, BaseExceptionGroup) as group:
                error = _first(group)
                if not isinstance(error, MqttError):
                    raise
                if self.figures.connected:
                    wait, told = _BACKOFF[0], ""
                words = self._away(error)
                if words != told:  # once, not every five seconds for as long as it is away
                    log(words)
                told = words
                # Not all agents at the same moment, when it was the broker that went.
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait * random.uniform(0.5, 1.0)):  # noqa: S311
                        await self._ending.wait()
                wait = min(wait * 2, _BACKOFF[1])

    def _away(self, error: MqttError) -> str:
        """Say that there is no broker now; the words.

        Raises:
            BrokerError: it refuses us, and never did otherwise: what we were told is wrong, and
                whoever starts us is to know. Once it has taken us it is waited for whatever it
                says: a certificate that has expired is replaced, and our machines go on meanwhile.
            HostError: another agent came with our host's id.
        """
        if thrown_out(error):
            raise HostError(
                f"another agent came with the host id {self.host}",
                hint="each host needs an id of its own",
                code="host-id",
            ) from None
        found = refusal(self.settings.broker, error, f"qemu-launcher-agent-{self.host}")
        if found.refused and not self._was_connected:
            raise found from None
        self.figures.connected = False
        words = f"the broker is away: {found}" + (f" ({found.hint})" if found.refused else "")
        self._manager.tell(STATUS=words)
        return words

    def _client(self) -> Client:
        lost = self._telling.status(self.machines, "lost")
        return make_client(
            self.settings.broker,
            f"qemu-launcher-agent-{self.host}",
            will=(topics.host_topic(self.host, "status"), lost),
        )

    async def _session(self, client: Client) -> None:
        """One connection, until it or the agent ends.

        Raises:
            ExceptionGroup: of MqttError, the connection ended.
        """
        async with asyncio.TaskGroup() as group:
            taking = group.create_task(self._take_all(client))
            # A broker that was killed may have again what we had emptied.
            await subscribe(client, *topics.heard(self.host))
            await subscribe_commands(client, topics.command_topic(self.host, "+"))
            log(f"connected to {self.settings.broker.url} as {self.host}")
            self._telling.put_all(self.machines)
            self.figures.connected = self._was_connected = True
            self._manager.tell(READY=1, STATUS=f"serves {self.host} at {self.settings.broker.url}")
            sending = group.create_task(self.outbox.send(client))
            await self._ending.wait()
            taking.cancel()
            await self._finish_up()
            sending.cancel()

    async def _finish_up(self) -> None:
        """The clean end: what is under way may finish, and others are told that we go."""
        lanes = list(self.commands.lanes.values())
        if lanes:
            await asyncio.wait(lanes, timeout=_GRACE)
        self._telling.put_status(self.machines, "offline")
        try:
            async with asyncio.timeout(_GRACE):
                await self.outbox.wait_empty()
        except TimeoutError:
            log("not everything could be told")

    async def _take_all(self, client: Client) -> None:
        async for message in client.messages:
            self._take(client, message)

    def _take(self, client: Client, message: Message) -> None:
        """One message: whose it is decides who looks at it."""
        topic = str(message.topic)
        done = partial(acknowledge, client, message)
        verb = topics.verb_of(topic, self.host)
        if verb is not None:
            self.commands.take(message, verb, done)
            return
        try:
            peer = topics.parse_peer(topic, self.host)
            if peer is None:
                self._telling.correct(self.machines, topic, bytes(message.payload))
            elif not message.retain:
                self.moves.take(*peer, bytes(message.payload))
        finally:
            done()

    async def _serve_pool(self, pool: str) -> None:
        """Take starts that any host of a pool may take, on a connection of its own.

        With a session that ends with the connection: a broker deals the messages of a shared
        subscription also to members that are away and have a session that lives.
        """
        topic, name = topics.pool_topic(pool), f"qemu-launcher-pool-{pool}-{self.host}"
        told = ""
        while True:
            try:
                async with connected(make_client(self.settings.broker, name, session=0)) as client:
                    await share_pool(client, pool, topic)
                    told = ""
                    async for message in client.messages:
                        done = partial(acknowledge, client, message)
                        if str(message.topic) == topic:
                            self.commands.take(message, "start", done, {"host": self.host})
                        else:
                            done()
            except MqttError as error:
                found = refusal(self.settings.broker, error, name)
                # A broker that is away is told of by the other connection.
                if found.refused and self.figures.connected and str(found) != told:
                    told = str(found)
                    log(f"takes no starts of the pool {pool}: {found} ({found.hint})")
            await asyncio.sleep(_BACKOFF[1] * random.uniform(0.1, 0.5))  # noqa: S311

    def metrics(self) -> str:
        """What Prometheus is told."""
        return self.figures.text(self.machines, self.commands.waiting, self.outbox.dropped)

    def _start(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _changed(self, name: str, how: str, data: Any = None) -> None:
        self._telling.changed(self.machines, name, how, data)

    def _heard(self, name: str, data: dict[str, Any]) -> None:
        self._telling.event(f"qmp.{data['event']}", name, data)

    def _refused(self, error: PublishError) -> None:
        """Say that nobody is told something; once of each kind of topic."""
        kind = topics.kind_of(error.topic)
        if kind not in self._refusals:
            self._refusals.add(kind)
            words = f"the broker throws away what goes to {error.topic}: {error.code}"
            log(f"{words} ({RULES})" if error.forbidden else words)

    async def _gather_facts(self) -> None:
        self._telling.facts = await gather_facts()
        self._telling.put_facts()


def _first(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group
