"""Machines to other hosts."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from launcher.agent.verbs.work import Work


async def preflight(work: Work) -> dict[str, Any]:
    """What would break if a machine went to another host."""
    return await work.moves.preflight(work.command)


async def migrate(work: Work) -> dict[str, Any]:
    """Move a machine to another host."""
    return await work.moves.migrate(work.command, work.again, work.tell)
