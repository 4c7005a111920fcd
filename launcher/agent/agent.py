"""The agent: take a command, keep it, acknowledge it, do it, answer.

Commands for one machine are done in the order in which they came; those for different machines
side by side, as many as `SLOTS`. The broker may be away for any time: what was begun goes on, and
what it brought about is told when the broker is back.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import OrderedDict
from contextlib import suppress
from functools import partial

from launcher.agent import messages
from launcher.agent.journal import Entry, Journal
from launcher.agent.machines import Machines
from launcher.agent.outbox import Letter, Outbox
from launcher.agent.policy import Policy, PolicyError
from launcher.agent.telling import Telling, log
from launcher.agent.verbs import execute, gather_facts
from launcher.bus import topics
from launcher.bus.broker import (
    Broker,
    MqttError,
    acknowledge,
    make_client,
    property_of,
    subscribe_commands,
    thrown_out,
)
from launcher.errors import HostError, InputError, LauncherError, VerdictError
from launcher.record import record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from launcher.agent.messages import Command
    from launcher.bus.broker import Client, Message

#: Effects at once, and commands that may wait; more are refused.
SLOTS = 8
WAITING = 1000
#: Ids of commands without effect that are known again.
_RECENT = 10_000
#: Seconds: between two attempts to reach a broker, and for what is under way when we are ended.
_BACKOFF = (0.1, 5.0)
_GRACE = 5.0


@record
class Settings:
    """What an agent is told by who starts it. `state` is the folder of its journal."""

    broker: Broker
    host: str
    state: str
    profiles: str = ""
    policy: Policy = Policy()


class Agent:
    """One host's agent.

    Raises:
        HostError: another agent uses the same journal.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.host = topics.check_id(settings.host, "a host's id")
        self.journal = Journal(os.path.join(settings.state, "journal.sqlite"))
        self.outbox = Outbox()
        self._telling = Telling(self.host, self.outbox, settings.policy)
        self.machines = Machines(self.journal, settings.policy, settings.profiles, self._changed)
        self._lanes: dict[str, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(SLOTS)
        self._recent: OrderedDict[str, Entry] = OrderedDict()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ending = asyncio.Event()

    def stop(self) -> None:
        """End the agent; its machines go on."""
        self._ending.set()

    async def run(self) -> None:
        """Serve until `stop`.

        Raises:
            HostError: another agent came with our host's id.
        """
        try:
            await self.machines.rejoin()
            for entry in self.journal.untold():
                self._tell_outcome(entry)
            for entry in self.journal.unfinished():
                self._enqueue(entry, None)
            self._start(self._gather_facts())
            await self._serve()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self.machines.close()
            self.journal.close()

    # -- connections --------------------------------------------------------------------------

    async def _serve(self) -> None:
        wait = _BACKOFF[0]
        while not self._ending.is_set():
            try:
                async with self._client() as client:
                    wait = _BACKOFF[0]
                    log(f"connected to {self.settings.broker.url} as {self.host}")
                    await self._session(client)
            except (MqttError, BaseExceptionGroup) as group:
                error = _first(group)
                if not isinstance(error, MqttError):
                    raise
                if thrown_out(error):
                    raise HostError(
                        f"another agent came with the host id {self.host}",
                        hint="each host needs an id of its own",
                        code="host-id",
                    ) from None
                log(f"the broker is away: {error}")
                # Not all agents at the same moment, when it was the broker that went.
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait * random.uniform(0.5, 1.0)):  # noqa: S311
                        await self._ending.wait()
                wait = min(wait * 2, _BACKOFF[1])

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
            await client.subscribe(topics.machine_topic(self.host, "+", "state"), qos=1)
            await client.subscribe(topics.machine_topic(self.host, "+", "report"), qos=1)
            await subscribe_commands(client, topics.command_topic(self.host, "+"))
            self._telling.put_all(self.machines)
            sending = group.create_task(self.outbox.send(client))
            await self._ending.wait()
            taking.cancel()
            await self._finish_up()
            sending.cancel()

    async def _finish_up(self) -> None:
        """The clean end: what is under way may finish, and others are told that we go."""
        lanes = list(self._lanes.values())
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

    # -- taking commands ----------------------------------------------------------------------

    def _take(self, client: Client, message: Message) -> None:
        """One message: whose it is, then how large, then what it says."""
        topic = str(message.topic)
        payload = message.payload
        verb = topics.verb_of(topic, self.host)
        done: Callable[[], None] | None = partial(acknowledge, client, message)
        try:
            if verb is None:
                self._telling.correct(self.machines, topic, payload)
                return
            entry = self._read(message, verb, payload)
            if entry is not None and self._accept(entry, done):
                done = None  # a command without effect is acknowledged once it is answered
        finally:
            if done is not None:
                done()

    def _read(self, message: Message, verb: str, payload: bytes) -> Entry | None:
        """The command in a message; None when there is none that may be done."""
        reply = property_of(message, "ResponseTopic")
        reply = reply if topics.may_answer(reply) else ""
        correlation = property_of(message, "CorrelationData")
        if correlation is not None and len(correlation) > messages.MAX_CORRELATION:
            correlation = None
        expiry = property_of(message, "MessageExpiryInterval")
        try:
            if message.retain:
                raise InputError("a retained command is not done", code="retained")
            if expiry == 0:
                raise InputError("the command came too late", code="expired")
            if not self.settings.policy.allows_verb(verb):
                raise PolicyError(f"policy does not allow {verb}")
            command = messages.read_command(verb, payload)
        except LauncherError as error:
            self._refuse(Entry(_nameless(verb, payload), reply, correlation), error)
            return None
        expires = time.time() + expiry if expiry is not None else None
        return Entry(command, reply, correlation, expires)

    def _accept(self, entry: Entry, done: Callable[[], None] | None) -> bool:
        """Take a command, or say why not; True when it is acknowledged once it is done."""
        command = entry.command
        known = self._recent.get(command.id) or self.journal.find(command.id)
        if known is not None:
            self._repeat(known, entry)
            return False
        if len(self._tasks) >= WAITING:
            words = f"{WAITING} commands wait already"
            self._refuse(entry, InputError(words, hint="send it again later", code="busy"))
            return False
        effect = messages.VERBS[command.verb].effect
        if effect:
            try:
                self.journal.accept(entry)
            except HostError as error:
                self._refuse(entry, error)
                return False
        else:
            self._recent[command.id] = entry
            if len(self._recent) > _RECENT:
                self._recent.popitem(last=False)
        self._answer(entry, messages.answer(command.id, messages.ACCEPTED))
        self._enqueue(entry, None if effect else done)
        return not effect

    def _repeat(self, known: Entry, entry: Entry) -> None:
        """A command that was had before: the old answer, or that it is being done."""
        if known.command != entry.command:
            error = InputError("that id was another command's", code="id-reused")
            self._refuse(entry, error)
        elif known.outcome is not None:
            self._answer(entry, known.outcome)
        else:
            self._answer(entry, messages.answer(entry.command.id, messages.RUNNING))

    def _refuse(self, entry: Entry, error: LauncherError) -> None:
        number = entry.command.id or None
        self._answer(entry, messages.answer(number, messages.REFUSED, error=error))
        log(f"refused {entry.command.verb}: {error.code}: {error}")
        data = {"id": number, "verb": entry.command.verb, "error": error.as_json()}
        self._telling.event("refused", "", data)

    # -- doing them ---------------------------------------------------------------------------

    def _enqueue(self, entry: Entry, done: Callable[[], None] | None) -> None:
        """In line behind what came before for the same machine."""
        lane = entry.command.machine or f"/{entry.command.id}"
        task = self._start(self._do(entry, self._lanes.get(lane), done))
        self._lanes[lane] = task

        def leave(_task: object) -> None:
            if self._lanes.get(lane) is task:
                del self._lanes[lane]

        task.add_done_callback(leave)

    def _start(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _do(
        self, entry: Entry, before: asyncio.Task[None] | None, done: Callable[[], None] | None
    ) -> None:
        command = entry.command
        effect = messages.VERBS[command.verb].effect
        if before is not None:
            await asyncio.wait({before})
        async with self._slots:
            if entry.expires is not None and not entry.begun and time.time() > entry.expires:
                late = InputError("the command came too late", code="expired")
                outcome = messages.answer(command.id, messages.REFUSED, error=late)
            else:
                outcome = await self._outcome(command, entry.begun)
        entry = replace(entry, outcome=outcome)
        if effect:
            try:
                self.journal.finish(command.id, outcome)
            except HostError as error:
                log(str(error))  # told all the same; begun again when the agent is started again
        elif command.id in self._recent:
            self._recent[command.id] = entry
        self._tell_outcome(entry)
        if done is not None:
            done()

    async def _outcome(self, command: Command, again: bool) -> bytes:
        """The final answer; whatever goes wrong, there is one."""
        try:
            if messages.VERBS[command.verb].effect:
                self.journal.begin(command.id)
            result = await execute(self.machines, command, again)
        except PolicyError as error:
            log(f"refused {command.verb}: {error}")
            return messages.answer(command.id, messages.REFUSED, error=error)
        except VerdictError as error:
            from launcher.report import report_json

            shown = report_json(error.report) if error.report is not None else None
            return messages.answer(command.id, messages.FAILED, shown, error)
        except LauncherError as error:
            return messages.answer(command.id, messages.FAILED, error=error)
        except Exception as error:  # noqa: BLE001 (one command's mistake must not end the agent)
            import traceback

            traceback.print_exc()
            words = f"internal error: {type(error).__name__}: {error}; please report it"
            wrapped = LauncherError(words, code="internal")
            return messages.answer(command.id, messages.FAILED, error=wrapped)
        return messages.answer(command.id, messages.DONE, result)

    # -- telling ------------------------------------------------------------------------------

    def _answer(self, entry: Entry, payload: bytes) -> None:
        if entry.reply:
            self.outbox.put(Letter(entry.reply, payload, entry.correlation))

    def _tell_outcome(self, entry: Entry) -> None:
        assert entry.outcome is not None
        number, effect = entry.command.id, messages.VERBS[entry.command.verb].effect
        told = (lambda: self.journal.told(number)) if effect else None
        if entry.reply:
            self.outbox.put(Letter(entry.reply, entry.outcome, entry.correlation, told=told))
        elif told is not None:
            told()

    def _changed(self, name: str, how: str) -> None:
        self._telling.changed(self.machines, name, how)

    async def _gather_facts(self) -> None:
        self._telling.facts = await gather_facts()
        self._telling.put_facts()


def _nameless(verb: str, payload: bytes) -> Command:
    """Stands for a command that could not be read, with its id when that much could be."""
    return messages.Command(messages.id_of(payload) or "", verb, {})


def _first(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group
