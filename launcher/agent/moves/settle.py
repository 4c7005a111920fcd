"""The end of a migration that its source did not see: after a kill, or a silence.

What the journal says decides. Before `committing` the guest goes on here. Since then the
destination is asked, for as long as it takes, and nothing runs here meanwhile.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from launcher.agent.moves import tls
from launcher.agent.moves.model import (
    ABORT,
    ABORTED,
    COMMIT,
    COMMITTED,
    COMMITTING,
    KEPT,
    LOST,
    MOVED,
    OVER,
    SENDING,
    VERDICTS,
)
from launcher.agent.moves.sending import end_here
from launcher.errors import LauncherError
from launcher.migrate import Limits
from launcher.migrate.move import let_go
from launcher.record import replace
from launcher.rejoined import rejoined

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from launcher.agent.moves.model import Move
    from launcher.agent.moves.moves import Moves

#: Seconds that the other host has for each answer, and between two attempts.
_ANSWER, _PAUSE = 8.0, 3.0


async def settle(moves: Moves, move: Move) -> None:
    """Bring a migration of ours to its end."""
    if move.phase == MOVED:
        await end_here(moves, move)
    while move.phase not in OVER:
        before = move.phase
        move = await _step(moves, move)
        if move.phase == before:
            await asyncio.sleep(_PAUSE)


async def _step(moves: Moves, move: Move) -> Move:
    owned = moves.machines.owned.get(move.machine)
    gone = owned is None or owned.move != move.id
    if move.phase == COMMITTING:
        if owned is not None and not gone and owned.phase != "unsettled":
            moves.machines.own(replace(owned, phase="unsettled"))
            moves.machines.tell(move.machine, "unsettled", {"to": move.peer})
        return await _ask(moves, move)
    if gone:
        # It ended here, by a stop or a crash, and was not handed over.
        moves.post.send(move.peer, ABORT, move.id)
        return _over(moves, move, KEPT)
    with suppress(LauncherError):
        answer = await moves.post.ask(move.peer, ABORT, move.id, {}, VERDICTS, _ANSWER)
        if answer is not None and answer[0] in (COMMITTED, LOST):
            # Our journal is older than what we did: what runs there is not run here.
            return _keep(moves, replace(move, phase=COMMITTING))
    return await _go_on(moves, move)


async def _ask(moves: Moves, move: Move) -> Move:
    """Whether the destination runs its copy."""
    answer = None
    with suppress(LauncherError):
        answer = await moves.post.ask(move.peer, COMMIT, move.id, {}, VERDICTS, _ANSWER)
    word = answer[0] if answer is not None else ""
    if word == COMMITTED:
        result = {"result": "completed", "from": moves.host, "to": move.peer}
        move = _keep(moves, replace(move, phase=MOVED, result={"name": move.machine, **result}))
        await end_here(moves, move)
    elif word == ABORTED:
        move = _keep(moves, replace(move, phase=SENDING))  # the next step lets it go on here
    elif word == LOST:
        move = _over(moves, move, LOST)
    return move


async def _go_on(moves: Moves, move: Move) -> Move:
    """Let the guest run here as it did."""
    try:
        async with rejoined(moves.machines.find(move.machine)) as machine:
            monitor = machine.monitor
            info: dict[str, Any] = await monitor.execute("query-migrate")
            begun = info.get("status", "none") != "none"
            if begun:
                with suppress(LauncherError):
                    await monitor.execute("migrate_cancel", timeout=5.0)
            await let_go(monitor, begun, move.ran, Limits().undo)
            await tls.disarm(monitor)
    except (LauncherError, TimeoutError):
        return move
    return _over(moves, move, KEPT)


def _keep(moves: Moves, move: Move) -> Move:
    moves.journal.keep_move(move)
    return move


def _over(moves: Moves, move: Move, phase: str) -> Move:
    move = _keep(moves, replace(move, phase=phase))
    owned = moves.machines.owned.get(move.machine)
    if owned is not None and owned.move == move.id:
        left = {"phase": "running", "moving": ""} if phase == KEPT else {"phase": "unsettled"}
        moves.machines.own(replace(owned, **left))
        moves.machines.tell(move.machine, phase, {"to": move.peer})
    return move
