"""Taking guests of other hosts: which are on their way, and what was decided about each."""

from __future__ import annotations

from contextlib import suppress

from launcher.agent import messages
from launcher.agent.moves.arriving import Arriving
from launcher.agent.moves.model import (
    ABORT,
    ABORTED,
    COMMIT,
    COMMITTED,
    DESTINATION,
    LOOK,
    LOST,
    PREPARE,
    REFUSED,
    SEEN,
    UNKNOWN,
    WAITING,
    Move,
)
from launcher.agent.moves.post import SOON
from launcher.agent.moves.sides import planned_side
from launcher.agent.moves.tls import told_name
from launcher.agent.policy import PolicyError, machine_size
from launcher.errors import HostError, InputError, LauncherError
from launcher.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from launcher.agent.moves.moves import Moves
    from launcher.prepare import Prepared

#: Guests on their way here at once, more are refused; and requests that are looked at, more are
#: not heard (who asks does so again).
_MOST = 4


class Destination:
    """Guests that come to this host.

    Args:
        moves: whose part this is.
    """

    def __init__(self, moves: Moves) -> None:
        self._moves = moves
        self._arriving: dict[tuple[str, str], Arriving] = {}
        self._looks = 0

    def take(self, peer: str, order: str, body: dict[str, Any]) -> None:
        """One order of another host."""
        number = str(body["move"])
        arriving = self._arriving.get((peer, number))
        if arriving is not None:
            arriving.hear(order)
        elif order == LOOK:
            if self._looks < _MOST:
                self._moves.start(self._look(peer, number, body))
        elif order in (COMMIT, ABORT):
            self._tell_record(peer, number, order)
        elif order == PREPARE:
            known = self._moves.journal.find_move(DESTINATION, peer, number)
            if known is not None:
                self._say(peer, _verdict(known), number)
            else:
                self._begin(peer, number, body)

    def _say(self, peer: str, word: str, number: str, body: dict[str, Any] | None = None) -> None:
        seconds = SOON if word in (SEEN, REFUSED) else 0
        self._moves.post.send(peer, word, number, body, seconds)

    def _tell_record(self, peer: str, number: str, order: str) -> None:
        """About a guest that is not on its way here: what was decided, which is kept."""
        journal = self._moves.journal
        known = journal.find_move(DESTINATION, peer, number)
        if known is None and order == ABORT:
            # Its `prepare` may still be on its way, and is answered by this then.
            known = Move(number, DESTINATION, "", "", peer, ABORTED)
            journal.keep_move(known)
        self._say(peer, _verdict(known) if known is not None else UNKNOWN, number)

    # -- before anything is started -----------------------------------------------------------

    async def _prepare(self, body: dict[str, Any]) -> tuple[Prepared, str]:
        """The plan for a guest, and its UUID; all of it within our own policy.

        Raises:
            LauncherError: this host does not take it.
        """
        moves, request = self._moves, body.get("request")
        policy, machines = moves.policy, moves.machines
        if not policy.allows_verb("migrate"):
            raise PolicyError("policy does not allow migrate")
        if not policy.migration_address:
            hint = "`migration-address` in its policy names where it listens"
            raise HostError("this host takes no guests", hint=hint, code="policy")
        if not policy.migration_tls and not policy.migration_plaintext:
            hint = "`migration-tls` in its policy names the folder of its certificates"
            raise HostError("this host has no TLS for a guest", hint=hint, code="policy")
        if not isinstance(request, dict):
            raise InputError("there is no request", code="member")
        messages.check_members("start", request)
        uuid = body.get("uuid")
        if not isinstance(uuid, str) or not _is_uuid(uuid):
            raise InputError("there is no UUID", code="member")
        prepared = await machines.planner.prepare(request, sent_lock(request, body))
        # Without a pause from here until it is in the journal: another may want the name, too.
        if prepared.plan.name in machines.owned:
            words = f"{prepared.plan.name} is a machine of this host already"
            raise HostError(words, code="conflict")
        machines.check_room(prepared.plan.name, *machine_size(prepared.plan))
        return prepared, uuid

    async def _look(self, peer: str, number: str, body: dict[str, Any]) -> None:
        self._looks += 1
        try:
            prepared, uuid = await self._prepare(body)
            side = await planned_side(self._moves.machines, prepared, uuid)
        except LauncherError as error:
            self._say(peer, REFUSED, number, {"error": error.as_json()})
        else:
            self._say(peer, SEEN, number, {"side": side})
        finally:
            self._looks -= 1

    # -- on its way ---------------------------------------------------------------------------

    def _begin(self, peer: str, number: str, body: dict[str, Any]) -> None:
        if len(self._arriving) >= _MOST:
            words = f"{len(self._arriving)} guests are on their way here already"
            error = HostError(words, hint="send it again later", code="busy")
            self._say(peer, REFUSED, number, {"error": error.as_json()})
            return
        move = Move(number, DESTINATION, "", "", peer, WAITING, ran=body.get("ran") is not False)
        arriving = self._arriving[peer, number] = Arriving(self._moves, move)
        arriving.hear(PREPARE)  # is answered that it is being done
        self._moves.start(self._receive(arriving, body))

    async def _receive(self, arriving: Arriving, body: dict[str, Any]) -> None:
        move = arriving.move
        try:
            try:
                prepared, uuid = await self._prepare(body)
                tls = self._moves.policy.migration_tls
                client = told_name(body, move.peer) if tls else ""
            except LauncherError as error:
                self._say(move.peer, REFUSED, move.id, {"error": error.as_json()})
                return
            await arriving.run(prepared, uuid, body, client)
        finally:
            del self._arriving[move.peer, move.id]

    # -- coming back --------------------------------------------------------------------------

    def before_rejoin(self) -> None:
        """A guest that was told to run is ours; one that was not will be found `incoming`."""
        machines = self._moves.machines
        for move in self._moves.journal.moves(DESTINATION):
            owned = machines.owned.get(move.machine)
            if owned is None or owned.move != move.id or owned.phase != "incoming":
                continue
            if move.phase == COMMITTED:
                machines.own(replace(owned, phase="running", moving=""))

    async def after_rejoin(self) -> None:
        """What waited is dead now, and never ran; what was told to run, runs."""
        moves = self._moves
        for move in moves.journal.moves(DESTINATION):
            if move.phase == WAITING:
                moves.journal.keep_move(replace(move, phase=ABORTED))
                self._say(move.peer, ABORTED, move.id)
            elif move.phase == COMMITTED and move.result is None:
                owned = moves.machines.owned.get(move.machine)
                ours = owned is not None and owned.move == move.id
                ran = False
                if ours and move.ran:
                    with suppress(LauncherError):
                        await moves.machines.execute(move.machine, "cont", {})
                        ran = True
                result = "ran" if ours and (ran or not move.ran) else LOST
                moves.journal.keep_move(replace(move, result=result))
                self._say(move.peer, COMMITTED if result == "ran" else LOST, move.id)


def _verdict(move: Move) -> str:
    """The last word about a migration; it never changes once it was said."""
    if move.phase == COMMITTED:
        return LOST if move.result == LOST else COMMITTED
    return ABORTED if move.phase == ABORTED else UNKNOWN


def sent_lock(request: dict[str, Any], body: dict[str, Any]) -> dict[str, Any] | None:
    """The lock that a machine runs under where it is, which is not this host's own file.

    Raises:
        InputError: it should be there and is not.
    """
    if not request.get("locked"):
        return None
    lock = body.get("lock")
    if not isinstance(lock, dict):
        raise InputError(
            "the machine was started locked, and its lock was not sent",
            hint="both hosts need the same release of the launcher",
            code="lock",
        )
    return lock


def _is_uuid(text: str) -> bool:
    """Whether it is one as QEMU writes it."""
    parts = text.split("-")
    digits = set("0123456789abcdef")
    return [len(part) for part in parts] == [8, 4, 4, 4, 12] and all(
        digits >= set(p) for p in parts
    )
