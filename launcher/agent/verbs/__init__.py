"""A command to its effect, by the functions that the command line calls.

    work.py       one command, with all that doing it needs
    starting.py   start, plan, lock
    running.py    stop, verify, query, pause, resume, reset, qmp, adopt, forget, facts
    keeping.py    snapshot, restore
    looking.py    screendump, console
    moving.py     preflight, migrate

Each effect may be begun again after the agent was killed in the middle of it and ends in the same
state; those that cannot promise that are not begun twice.
"""

from __future__ import annotations

from launcher.agent.verbs import keeping, looking, moving, running, starting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from launcher.agent.verbs.work import Work

_VERBS: dict[str, Callable[[Work], Awaitable[Any]]] = {
    "start": starting.start,
    "plan": starting.plan,
    "lock": starting.lock,
    "stop": running.stop,
    "verify": running.verify,
    "query": running.query,
    "qmp": running.qmp,
    "pause": running.pause,
    "resume": running.resume,
    "reset": running.reset,
    "adopt": running.adopt,
    "forget": running.forget,
    "facts": running.facts,
    "snapshot": keeping.snapshot,
    "restore": keeping.restore,
    "screendump": looking.screendump,
    "console": looking.console,
    "preflight": moving.preflight,
    "migrate": moving.migrate,
}


async def execute(work: Work) -> Any:
    """Do what a command says.

    Returns:
        The result, ready for JSON.

    Raises:
        LauncherError: it could not be done.
    """
    return await _VERBS[work.command.verb](work)
