"""An agent's part in migrations: one face for the verbs and for what other hosts say."""

from __future__ import annotations

from fnmatch import fnmatchcase

from launcher.agent.links import Budget
from launcher.agent.messages import read_object
from launcher.agent.moves import source
from launcher.agent.moves.destination import Destination
from launcher.agent.moves.model import (
    COMMITTING,
    LOST,
    MOVED,
    ORDERS,
    OVER,
    REFUSED,
    SOURCE,
    WORDS,
)
from launcher.agent.moves.post import SOON, Post
from launcher.agent.moves.settle import settle
from launcher.agent.policy import PolicyError
from launcher.agent.telling import log
from launcher.bus.topics import is_id
from launcher.errors import InputError
from launcher.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine
    from typing import Any

    from launcher.agent.machines import Machines
    from launcher.agent.messages import Command
    from launcher.agent.moves.model import Move
    from launcher.agent.outbox import Outbox

#: Bytes of what another host says: its end of a preflight is the largest.
_MOST = 512 * 1024


#: Messages of other hosts: so many at once, then so many a second.
_BURST, _RATE = 400.0, 100.0


class Moves:
    """Guests on their way to and from this host.

    Args:
        host: our own id.
        machines: of this agent.
        outbox: where messages go.
        start: begins work that goes on by itself.
    """

    def __init__(
        self,
        host: str,
        machines: Machines,
        outbox: Outbox,
        start: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self.host = host
        self.machines = machines
        self.journal = machines.journal
        self.policy = machines.policy
        self.post = Post(host, outbox)
        self.start = start
        self._budget = Budget(_BURST, _RATE)
        self._destination = Destination(self)
        self._settling: dict[str, asyncio.Task[None]] = {}

    # -- the verbs ----------------------------------------------------------------------------

    async def preflight(self, command: Command) -> dict[str, Any]:
        """What would break if a machine of ours went to another host; see `source.preflight`."""
        return await source.preflight(self, command.arguments["machine"], self._peer_of(command))

    async def migrate(
        self, command: Command, again: bool, tell: Callable[[Any], None]
    ) -> dict[str, Any]:
        """Move a machine of ours to another host; see `source.migrate`."""
        if again:
            for move in self.journal.moves(SOURCE):
                if move.command == command.id:
                    return await source.resolved(self, move)
        force = bool(command.arguments.get("force"))
        return await source.migrate(self, command, self._peer_of(command), force, tell)

    def _peer_of(self, command: Command) -> str:
        peer = command.arguments["to"]
        if peer == self.host:
            raise InputError(f"{self.host} is where it runs already", code="member")
        return str(peer)

    # -- what other hosts say -----------------------------------------------------------------

    def take(self, peer: str, word: str, payload: bytes) -> None:
        """One message of another agent; what makes no sense is told to our own log."""
        if not self._budget.admits():
            return  # what matters is said again
        try:
            body = read_object(payload, _MOST)
        except InputError as error:
            log(f"{peer} said {word}, and it cannot be read: {error}")
            return
        if not is_id(body.get("move")) or peer == self.host:
            log(f"{peer} said {word} about no migration")
        elif word in ORDERS:
            if not any(fnmatchcase(peer, one) for one in self.policy.migrate_from):
                told = PolicyError(f"policy takes no guests of {peer}").as_json()
                self.post.send(peer, REFUSED, body["move"], {"error": told}, SOON)
                return
            self._destination.take(peer, word, body)
        elif word in WORDS:
            self.post.take(peer, word, body)
        else:
            log(f"{peer} said {word}, which is no word of ours")

    # -- coming back --------------------------------------------------------------------------

    def before_rejoin(self) -> None:
        """Before machines are looked for: guests that were told to run here are ours."""
        self._destination.before_rejoin()

    async def after_rejoin(self) -> None:
        """Once machines are found: end what was decided, and ask about the rest."""
        await self._destination.after_rejoin()
        for move in self.journal.moves(SOURCE):
            owned = self.machines.owned.get(move.machine)
            ours = owned is not None and owned.move == move.id
            if move.phase not in OVER or (move.phase == MOVED and ours):
                self.settle(move)

    def settle(self, move: Move) -> asyncio.Task[None]:
        """Go on with a migration whose end was not seen, until it is."""
        task = self._settling.get(move.id)
        if task is None or task.done():
            task = self._settling[move.id] = self.start(settle(self, move))
            task.add_done_callback(lambda _task: self._settling.pop(move.id, None))
        return task

    def take_back(self, name: str) -> None:
        """A person vouches that the guest does not run at the other host: it may run here.

        Raises:
            InputError: no such machine of ours.
        """
        self.machines.find(name)
        owned = self.machines.owned[name]
        if owned.phase != "unsettled":
            return
        for move in self.journal.moves(SOURCE):
            if move.id == owned.move and move.phase in (COMMITTING, LOST):
                task = self._settling.pop(move.id, None)
                if task is not None:
                    task.cancel()
                self.journal.keep_move(replace(move, phase=LOST, result="taken back"))
        self.machines.own(replace(owned, phase="running", moving=""))
        log(f"{name}: taken back by force from {owned.moving}")
