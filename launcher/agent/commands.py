"""Commands: take one, keep it, acknowledge it, do it, answer it.

Commands for one machine are done in the order in which they came; those for different machines
side by side, as many as `SLOTS`, and as many again of those that may take minutes.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict

from launcher.agent import messages
from launcher.agent.journal import Entry
from launcher.agent.links import Budget
from launcher.agent.outbox import Letter
from launcher.agent.policy import PolicyError
from launcher.agent.telling import log
from launcher.agent.verbs import execute
from launcher.agent.verbs.work import Work
from launcher.bus import topics
from launcher.bus.broker import property_of
from launcher.errors import HostError, InputError, LauncherError, VerdictError
from launcher.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from launcher.agent.journal import Journal
    from launcher.agent.machines import Machines
    from launcher.agent.messages import Command
    from launcher.agent.metrics import Figures
    from launcher.agent.moves.moves import Moves
    from launcher.agent.outbox import Outbox
    from launcher.agent.policy import Policy
    from launcher.agent.telling import Telling
    from launcher.bus.broker import Message

#: Effects at once, and commands that may wait; more are refused.
SLOTS = 8
WAITING = 1000
#: Ids of commands without effect that are known again.
_RECENT = 10_000
#: Seconds' worth of commands that may come at once.
_BURST = 5.0
#: Seconds between two answers that say how far a command is.
_TELL = 0.4
#: Turns of the loop from a packet in a socket to its command.
_TURNS = 4


class Commands:
    """What others tell this host to do.

    Args:
        policy: what they may.
        journal: of ids and outcomes.
        machines: of this agent.
        moves: guests on their way.
        outbox: where answers go.
        telling: where events go.
        start: begins work that goes on by itself.
        figures: what is counted of them.
    """

    def __init__(
        self,
        policy: Policy,
        journal: Journal,
        machines: Machines,
        moves: Moves,
        outbox: Outbox,
        telling: Telling,
        start: Callable[[Any], asyncio.Task[Any]],
        figures: Figures,
    ) -> None:
        self.policy = policy
        self.journal = journal
        self.machines = machines
        self.moves = moves
        self.outbox = outbox
        self.lanes: dict[str, asyncio.Task[None]] = {}
        self._telling = telling
        self._start = start
        self._figures = figures
        self.waiting = 0
        self._came = 0
        self._slots = asyncio.Semaphore(SLOTS), asyncio.Semaphore(SLOTS)
        self._recent: OrderedDict[str, Entry] = OrderedDict()
        rate = float(policy.commands_per_second)
        self._budget = Budget(rate * _BURST, rate)

    def resume(self) -> None:
        """Go on with what an agent before us left: tell what was done, do what was not."""
        for entry in self.journal.untold():
            self._tell_outcome(entry)
        for entry in self.journal.unfinished():
            self._enqueue(entry, None)

    # -- taking -------------------------------------------------------------------------------

    def take(
        self, message: Message, verb: str, done: Callable[[], None], accepted: Any = None
    ) -> None:
        """One message, of which it is known that it is a command for this host.

        Args:
            message: as it came.
            verb: from its topic.
            done: acknowledges it; called now, or once the command is answered.
            accepted: the result of the answer that it is accepted.
        """
        later = False
        self._came += 1
        try:
            entry = self._read(message, verb, bytes(message.payload))
            later = entry is not None and self._accept(entry, done, accepted)
        finally:
            if not later:
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
            if not self._budget.admits():
                words = f"more than {self.policy.commands_per_second} commands a second"
                raise InputError(words, hint="send it again later", code="rate")
            if not self.policy.allows_verb(verb):
                raise PolicyError(f"policy does not allow {verb}")
            command = messages.read_command(verb, payload)
        except LauncherError as error:
            self._refuse(Entry(_nameless(verb, payload), reply, correlation), error)
            return None
        expires = time.time() + expiry if expiry is not None else None
        return Entry(command, reply, correlation, expires)

    def _accept(self, entry: Entry, done: Callable[[], None], accepted: Any) -> bool:
        """Take a command, or say why not; True when it is acknowledged once it is done."""
        command = entry.command
        known = self._recent.get(command.id) or self.journal.find(command.id)
        if known is not None:
            self._repeat(known, entry)
            return False
        if self.waiting >= WAITING:
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
        self._answer(entry, messages.answer(command.id, messages.ACCEPTED, accepted))
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
        self._figures.refused(entry.command.verb, error.code)
        log(f"refused {entry.command.verb}: {error.code}: {error}")
        data = {"id": number, "verb": entry.command.verb, "error": error.as_json()}
        self._telling.event("refused", "", data)

    # -- doing --------------------------------------------------------------------------------

    def _enqueue(self, entry: Entry, done: Callable[[], None] | None) -> None:
        """In line behind what came before for the same machine."""
        aside = messages.VERBS[entry.command.verb].aside
        lane = "" if aside else entry.command.machine
        lane = lane or f"/{entry.command.id}"
        task = self._start(self._do(entry, self.lanes.get(lane), done))
        self.lanes[lane] = task
        self.waiting += 1

        def leave(_task: object) -> None:
            self.waiting -= 1
            if self.lanes.get(lane) is task:
                del self.lanes[lane]

        task.add_done_callback(leave)

    async def _do(
        self, entry: Entry, before: asyncio.Task[None] | None, done: Callable[[], None] | None
    ) -> None:
        command, came = entry.command, time.monotonic()
        verb = messages.VERBS[command.verb]
        if before is not None:
            await asyncio.wait({before})
        async with self._slots[verb.apart]:
            await self._first_take()
            if entry.expires is not None and not entry.begun and time.time() > entry.expires:
                late = InputError("the command came too late", code="expired")
                outcome = messages.answer(command.id, messages.REFUSED, error=late)
            else:
                outcome = await self._outcome(entry)
        entry = replace(entry, outcome=outcome)
        status = messages.status_of(outcome)
        self._figures.answered(command.verb, status, time.monotonic() - came)
        if verb.effect:
            try:
                self.journal.finish(command.id, outcome)
            except HostError as error:
                log(str(error))  # told all the same; begun again when the agent is started again
        elif command.id in self._recent:
            self._recent[command.id] = entry
        self._tell_outcome(entry)
        if done is not None:
            done()

    async def _first_take(self) -> None:
        """Let what has arrived be accepted before the next effect begins.

        A packet takes a few turns of the loop, and each step of a start holds that up for tens of
        milliseconds: of fifty starts at once half were accepted after a second only.
        """
        for _ in range(WAITING):  # and not for ever, whoever goes on sending
            seen = self._came
            for _ in range(_TURNS):
                await asyncio.sleep(0)
            if seen == self._came:
                break

    async def _outcome(self, entry: Entry) -> bytes:
        """The final answer; whatever goes wrong, there is one."""
        command = entry.command
        try:
            if messages.VERBS[command.verb].effect:
                self.journal.begin(command.id)
            result = await execute(self._work(entry))
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

    def _work(self, entry: Entry) -> Work:
        told = 0.0

        def tell(result: Any) -> None:
            nonlocal told
            now = time.monotonic()
            if now - told >= _TELL:
                told = now
                self._answer(entry, messages.answer(entry.command.id, messages.RUNNING, result))

        show = self._telling.console
        return Work(self.machines, self.moves, entry.command, entry.begun, tell, show)

    # -- answering ----------------------------------------------------------------------------

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


def _nameless(verb: str, payload: bytes) -> Command:
    """Stands for a command that could not be read, with its id when that much could be."""
    return messages.Command(messages.id_of(payload) or "", verb, {})
