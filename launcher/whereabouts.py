"""Where a running guest is: what to look at when a wait for it has failed."""

from __future__ import annotations

import asyncio
import re

from launcher.display import printable
from launcher.errors import CommandError, MonitorError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from launcher.monitor import Monitor

#: Seconds for all questions: who asks has waited long already.
_PATIENCE = 3.0
#: A state may change without an event that says so; then it is asked for so often.
_ASK_AGAIN = 1.0
_EVENTS = 10

# HMP `info registers -a`: a head for each CPU ("CPU#0" since 2.10, on 5.2 as well), then lines of
# NAME=HEX in the target's own words.
_CPU = re.compile(r"^(?:CPU#(\d+))\s*$", re.MULTILINE)
_PC = re.compile(r"\b(?:RIP|EIP|PC|pc|NIP|PSW)\s*[= ]\s*([0-9a-fA-F]{4,16})\b")
_HALTED = re.compile(r"\bHLT=1\b")
_RING = re.compile(r"\bCPL=(\d)\b")


async def whereabouts(monitor: Monitor) -> list[str]:
    """The runstate, the last events and where each vCPU is; never raises for a QEMU in trouble."""
    lines: list[str] = []
    try:
        async with asyncio.timeout(_PATIENCE):
            status = await monitor.execute("query-status")
            lines.append(f"runstate: {status['status']}")
            cpus = await monitor.execute("query-cpus-fast")
            text = await monitor.execute(
                "human-monitor-command", {"command-line": "info registers -a"}
            )
            threads = {cpu["cpu-index"]: cpu.get("thread-id") for cpu in cpus}
            lines += vcpu_lines(str(text), threads)
    except (MonitorError, CommandError, TimeoutError) as error:
        lines.append(f"QEMU does not say: {str(error) or 'no answer in time'}")
    resets = sum(e.name == "RESET" and bool(e.data.get("guest")) for e in monitor.events)
    if resets > 1:
        lines.append(f"the guest has reset itself {resets} times")
    events = list(monitor.events)[-_EVENTS:]
    shown = [f"  {e.name} {printable(str(dict(e.data)))}"[:200] for e in events]
    return [*lines, "events:" if shown else "events: none", *shown]


def vcpu_lines(registers: str, threads: dict[int, int | None]) -> list[str]:
    """Where each vCPU is, from HMP `info registers -a`.

    Args:
        registers: the text.
        threads: vCPU → id of its host thread.
    """
    found: dict[int, str] = {}
    parts = _CPU.split(registers)
    for number, text in zip(parts[1::2], parts[2::2], strict=True):
        counter, ring = _PC.search(text), _RING.search(text)
        where = f"at 0x{counter.group(1)}" if counter else "somewhere"
        if ring:
            where += f", ring {ring.group(1)}"
        if _HALTED.search(text):
            where += ", halted"
        found[int(number)] = where
    return [
        f"vCPU {index}: {found.get(index, 'not told')} (thread {threads.get(index)})"
        for index in sorted(found.keys() | threads.keys())
    ]


async def wait_runstate(monitor: Monitor, states: Sequence[str], seconds: float) -> str:
    """Wait until QEMU is in one of `states` (QAPI: RunState); returns which.

    Raises:
        MonitorError: it was not within `seconds`, or QEMU ended.
    """
    seen = ""
    try:
        async with asyncio.timeout(seconds):
            with monitor.listen() as news:
                while True:
                    seen = str((await monitor.execute("query-status"))["status"])
                    if seen in states:
                        return seen
                    try:
                        async with asyncio.timeout(_ASK_AGAIN):
                            await anext(news)
                    except (TimeoutError, StopAsyncIteration):
                        continue
    except TimeoutError:
        wanted = " or ".join(states)
        raise MonitorError(
            f"the guest was not {wanted} within {seconds:g} s; it is {seen}",
            evidence={"command": "query-status", "cause": "timeout"},
        ) from None
