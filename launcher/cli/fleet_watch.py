"""`fleet watch`: a live table on a terminal, and a line for each change elsewhere."""

from __future__ import annotations

import sys
import time

from launcher.cli import fleet_text as text
from launcher.cli.show import note, out, out_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from typing import Any

    from launcher.fleet.client import Fleet
    from launcher.fleet.looking import View

#: Seconds between two looks: a busy fleet must not fill a terminal's line.
_PACE = 0.25
#: What of a machine is worth a line.
_TOLD = ("actual", "wanted", "verdict", "pid")


def _view(options: argparse.Namespace) -> View:
    from launcher.fleet.looking import View

    return View(tuple(options.hosts), facts=False)


async def watch(fleet: Fleet, options: argparse.Namespace) -> int:
    """Show changes until Ctrl-C, or for some seconds."""
    ends = time.monotonic() + options.seconds if options.seconds else float("inf")
    if options.format == "text" and sys.stdout.isatty():
        try:
            from rich.live import Live
        except ImportError:
            note("a table needs rich: pip install 'qemu-launcher[fleet]'")
        else:
            return await _draw(fleet, ends, Live)
    return await _list(fleet, ends, options.format)


async def _list(fleet: Fleet, ends: float, form: str) -> int:
    """A line for each change; first of all for what there is."""
    before: dict[tuple[str, str], Any] = {}
    while True:
        now = _snapshot(fleet)
        for host, machine, was, is_ in changes(before, now):
            if form == "json":
                told = {"host": host or None, "machine": machine or None, "was": was, "is": is_}
                out_json({"time": round(time.time(), 3), **told})
            else:
                out(f"{time.strftime('%H:%M:%S')}  {_line(host, machine, is_)}")
        before = now
        if not await _next(fleet, ends):
            return 0


async def _next(fleet: Fleet, ends: float) -> bool:
    """Wait for a change, or for the end."""
    import asyncio

    while (left := ends - time.monotonic()) > 0:
        await asyncio.sleep(min(_PACE, left))
        if await fleet.changed(min(60.0, max(ends - time.monotonic(), 0.001))):
            return True
    return False


def _snapshot(fleet: Fleet) -> dict[tuple[str, str], Any]:
    """What is told, by (host, machine); the broker itself is ("", "")."""
    found: dict[tuple[str, str], Any] = {
        ("", ""): {"status": "connected" if fleet.connected else "away"}
    }
    found |= {(name, ""): {"status": host.status} for name, host in fleet.hosts.items()}
    for key, state in fleet.machines.items():
        found[key] = {name: state.get(name) for name in _TOLD}
    return found


def changes(
    before: dict[tuple[str, str], Any], now: dict[tuple[str, str], Any]
) -> Iterator[tuple[str, str, Any, Any]]:
    """(host, machine, was, is) of all that is not as before; None for what is not there."""
    for key in sorted({*before, *now}):
        was, is_ = before.get(key), now.get(key)
        if was != is_:
            yield *key, was, is_


def _line(host: str, machine: str, found: Any) -> str:
    name = "/".join(part for part in (host, machine) if part) or "broker"
    if found is None:
        return f"{name}  gone"
    words = [text.word(found[key]) for key in ("status", "actual", "verdict") if key in found]
    pid = f"  pid {text.word(found['pid'])}" if found.get("pid") else ""
    return f"{name}  {'  '.join(words)}{pid}"


async def _draw(fleet: Fleet, ends: float, live: Any) -> int:
    """The table, drawn again at each change."""
    with live(_table(fleet), auto_refresh=False) as shown:
        while await _next(fleet, ends):
            shown.update(_table(fleet), refresh=True)
    return 0


def _table(fleet: Fleet) -> Any:
    from rich.console import Group
    from rich.text import Text

    away = [] if fleet.connected else [Text("the broker is away", style="red")]
    hosts = [text.host_row(fleet.hosts[name]) for name in sorted(fleet.hosts)]
    machines = [text.machine_row(*key, fleet.machines[key]) for key in sorted(fleet.machines)]
    return Group(*away, _drawn(hosts, text.HOST_HEAD), _drawn(machines, text.MACHINE_HEAD))


def _drawn(rows: list[tuple[str, ...]], head: tuple[str, ...]) -> Any:
    from rich.table import Table
    from rich.text import Text

    styles = {"\x1b[32m": "green", "\x1b[31m": "red", "\x1b[33m": "yellow"}
    drawn = Table(*head, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        # Text, not markup: what an agent published is no instruction to rich.
        drawn.add_row(*(Text(cell, style=styles.get(text.MARKS.get(cell, ""), "")) for cell in row))
    return drawn


VERBS = {"watch": watch}
VIEWS = {"watch": _view}
