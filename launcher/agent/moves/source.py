"""A machine of ours to another host: the two verbs, and the answer about one that was cut short."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from launcher.agent.moves.model import ASKING, KEPT, LOOK, LOST, MOVED, SEEN, SOURCE, Move
from launcher.agent.moves.sending import (
    DEAD,
    DECIDE,
    Sending,
    asked_of,
    lost_words,
    move_error,
    silent,
    unsettled_words,
)
from launcher.agent.moves.sides import source_side
from launcher.data import load_rules
from launcher.errors import InputError, LauncherError
from launcher.migrate.move import surely
from launcher.preflight import counts, side_from_json
from launcher.preflight import preflight as compare
from launcher.prepare import new_uuid
from launcher.record import replace
from launcher.rejoined import rejoined

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from launcher.agent.journal import Owned
    from launcher.agent.messages import Command
    from launcher.agent.moves.moves import Moves
    from launcher.rejoined import Rejoined

#: Seconds for the other host to look at a request.
_LOOK = 15.0
_SNAPSHOT_NODE = "launcher-snapshot"


def sent_of(moves: Moves, name: str) -> Owned:
    """A machine of ours that could go to another host.

    Raises:
        InputError: it is none.
    """
    moves.machines.find(name)
    owned = moves.machines.owned[name]
    if owned.request is None:
        raise InputError(
            f"{name} was not started by an agent: what the other host should start is not known",
            code="adopted",
        )
    if owned.moving:
        words = f"{name} is on its way to {owned.moving}, and how that ended is not known"
        raise InputError(words, code="moving")
    return owned


async def preflight(moves: Moves, name: str, peer: str) -> dict[str, Any]:
    """What would break if a machine of ours went to another host; nothing is started there.

    Raises:
        PeerError: the other host would not take it.
        LauncherError: the other host does not answer, or QEMU here does not.
    """
    owned = sent_of(moves, name)
    number = new_uuid()
    body = asked_of(moves, owned)
    answer = await moves.post.ask(peer, LOOK, number, body, (SEEN,), _LOOK)
    if answer is None:
        raise silent(peer)
    async with rejoined(moves.machines.find(name)) as source:
        here = await source_side(moves.machines, owned, source)
    findings = compare(here, side_from_json(answer[1].get("side"), peer), load_rules(), "tcp")
    return {"findings": [one.as_json() for one in findings], "counts": counts(findings)}


async def migrate(
    moves: Moves, command: Command, peer: str, force: bool, tell: Callable[[Any], None]
) -> dict[str, Any]:
    """Move a guest to another host, and end the machine here.

    Raises:
        MigrationError: it was refused or failed, and says where the guest is.
        LauncherError: it was not begun.
    """
    name = command.arguments["machine"]
    owned = sent_of(moves, name)
    machine = moves.machines.find(name)
    move = Move(new_uuid(), SOURCE, name, owned.uuid, peer, ASKING, command=command.id)
    async with rejoined(machine) as source:
        move = replace(move, ran=bool((await source.qmp("query-status"))["running"]))
        await _refuse_snapshots(source)
        sending = Sending(moves, move, source, tell)
        moves.journal.keep_move(move)
        moves.machines.own(replace(owned, moving=peer, move=move.id))
        try:
            await sending.agree(force)
            await sending.carry()
        except BaseException as error:
            await surely(sending.keep(error))
            if isinstance(error, LauncherError):
                raise sending.failure(error) from error
            raise
        return await sending.commit()


async def resolved(moves: Moves, move: Move) -> dict[str, Any]:
    """The outcome of a migration that an agent before us began.

    Raises:
        MigrationError: the guest did not move, or that is not known.
    """
    task = moves.settle(move)
    with suppress(TimeoutError):
        async with asyncio.timeout(DECIDE + DEAD):
            await asyncio.shield(task)
    now = moves.journal.find_move(SOURCE, move.peer, move.id) or move
    if now.phase == MOVED:
        return dict(now.result or {})
    where = {
        KEPT: f"the agent ended while it went to {move.peer}; the guest runs here as before",
        LOST: lost_words(move.peer),
    }.get(now.phase) or unsettled_words(move.peer)
    raise move_error(now, f"{move.machine} was not migrated: {where}")


async def _refuse_snapshots(source: Rejoined) -> None:
    """A machine that was kept by `snapshot` writes to memory of this host since then.

    Raises:
        InputError: it was.
    """
    nodes = await source.qmp("query-named-block-nodes")
    if any(node["node-name"] == _SNAPSHOT_NODE for node in nodes):
        words = "since its first snapshot the machine's disks are in this host's memory"
        raise InputError(words, hint="a machine without snapshots can migrate", code="snapshot")
