"""One round: collect the questions of all readers, send them in one go, read the answers."""

from __future__ import annotations

from launcher.report import Observation
from launcher.verify.readers import READERS, Context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from launcher.capabilities import Capabilities
    from launcher.monitor import Monitor
    from launcher.plan import Plan, Value
    from launcher.report.model import Key
    from launcher.verify.readers import Question

#: How the nodes begin that stand between a device and its disk after a snapshot.
OVERLAY = "launcher-snapshot-"
#: Seconds for the whole verification of a paused machine; it takes 2 to 150 ms.
DEADLINE = 30.0


async def observe(
    plan: Plan, monitor: Monitor, capabilities: Capabilities
) -> dict[Key, Observation]:
    """Read back every value of `plan` that has an observer.

    Raises:
        MonitorError: QEMU went away or did not answer within the deadline.
    """
    import asyncio

    context = Context(plan, capabilities)
    grouped: dict[str, list[Value]] = {}
    for value in plan.values:
        if value.observer.read is not None:
            grouped.setdefault(value.observer.read, []).append(value)
    observations: dict[Key, Observation] = {}
    async with asyncio.timeout(DEADLINE):
        for round_number in (0, 1):
            # A second round only where a bulk read did not hold what it should have.
            questions = [
                (read, values, question)
                for read, values in grouped.items()
                for question in READERS[read].ask(values, context, round_number)
            ]
            if not questions:
                break
            answers = await _ask(monitor, [question for _, _, question in questions])
            for read, values in grouped.items():
                mine = [
                    (question, answers[question]) for kind, _, question in questions if kind == read
                ]
                READERS[read].answer(values, mine, context, observations)
            grouped = _left(grouped, observations)
    _see_through_overlays(plan, observations)
    return observations


def overlay_name(node: str) -> str:
    """What a block node is called that `Machine.snapshot` lays over another one."""
    return f"{OVERLAY}{node}"[:31]  # names of nodes have at most 31 characters (block.h)


def _see_through_overlays(plan: Plan, observations: dict[Key, Observation]) -> None:
    """A device whose disk has an overlay of ours shows that one, and has the disk all the same."""
    for value in plan.values:
        key = (value.family, value.id, value.property)
        seen = observations.get(key) if key[::2] == ("device", "drive") else None
        if seen is not None and seen.value == overlay_name(str(value.written)):
            observations[key] = Observation("read", value.written)


async def _ask(monitor: Monitor, questions: list[Question]) -> dict[Question, Any]:
    """The answers by question; the same question of two readers is sent once."""
    unique = list(dict.fromkeys(questions))
    answers = await monitor.execute_all([(q.command, q.arguments) for q in unique if q.command])
    found = iter(answers)
    return {q: next(found) if q.command else None for q in unique}


def _left(
    grouped: dict[str, list[Value]], observations: dict[Key, Observation]
) -> dict[str, list[Value]]:
    left = {}
    for read, values in grouped.items():
        rest = [v for v in values if (v.family, v.id, v.property) not in observations]
        if rest:
            left[read] = rest
    return left
