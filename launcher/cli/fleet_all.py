"""`fleet verify`, `drain`: many commands, and a table of what came of them."""

from __future__ import annotations

from launcher.cli.show import note, out, out_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable
    from typing import Any

    from launcher.fleet.asking import Answer
    from launcher.fleet.chores import Moved, Verified
    from launcher.fleet.client import Fleet
    from launcher.fleet.looking import View


def _view(options: argparse.Namespace) -> View:
    from launcher.fleet.looking import View

    hosts = (options.host, *options.to) if options.what == "drain" else options.hosts
    return View(tuple(hosts), facts=False)


async def verify(fleet: Fleet, options: argparse.Namespace) -> int:
    """Every machine read back anew; 1 when one is not as planned, or could not be asked."""
    from launcher.fleet.chores import verify_all

    found = await verify_all(fleet, options.hosts, seconds=options.timeout)
    good = all(one.good for one in found)
    if options.format == "json":
        verdict = "match" if good else "mismatch"
        out_json({"verdict": verdict, "machines": [_verified_json(one) for one in found]})
    else:
        _show(found)
    return 0 if good else 1


def _verified_json(one: Verified) -> dict[str, Any]:
    from launcher.cli.fleet_text import wrong_values

    report = one.report or {}
    return {
        "host": one.host,
        "machine": one.machine or None,
        "verdict": report.get("verdict"),
        "counts": report.get("counts"),
        "wrong": wrong_values(report),
        "complaints": report.get("complaints", []),
        "error": one.error.as_json() if one.error is not None else None,
    }


def _show(found: list[Verified]) -> None:
    import sys

    from launcher.cli import fleet_text as text
    from launcher.cli.show import colors
    from launcher.report import table

    if not found:
        note("no machine runs")
        return
    rows = [
        (
            *(one.host, one.machine or "-"),
            *(text.word((one.report or {}).get("verdict")), _said(one)),
        )
        for one in found
    ]
    marks = text.MARKS if colors(sys.stdout) else {}
    out(table(rows, ("host", "machine", "verdict", "values"), marks))
    wrong = [
        text.wrong_row(one.host, one.machine, value)
        for one in found
        for value in text.wrong_values(one.report)
    ]
    if wrong:
        out("")
        out(table(wrong, text.WRONG_HEAD, marks))


def _said(one: Verified) -> str:
    from launcher.cli import fleet_text as text

    if one.error is not None:
        return text.word(one.error)
    report = one.report or {}
    complaints = [text.word(line) for line in report.get("complaints") or ()]
    return "; ".join([text.counted(report.get("counts")), *complaints])


async def drain(fleet: Fleet, options: argparse.Namespace) -> int:
    """Machines moved away one after the other; 1 when one had to stay."""
    from launcher.fleet import chores

    quiet = options.format == "json"
    moved = await chores.drain(
        *(fleet, options.host, options.to),
        seconds=options.timeout,
        force=options.force,
        progress=None if quiet else _progress,
        told=None if quiet else lambda one: _tell(options.host, one),
    )
    if quiet:
        out_json({"host": options.host, "machines": [_moved_json(one) for one in moved]})
    elif not moved:
        note(f"no machine runs on {options.host}")
    return 0 if all(one.to is not None for one in moved) else 1


def _moved_json(one: Moved) -> dict[str, Any]:
    from launcher.cli.fleet_text import reason_json

    tried = [{"to": to, **reason_json(what)} for to, what in one.tried]
    return {"machine": one.machine, "to": one.to, "result": one.result, "tried": tried}


def _tell(host: str, one: Moved) -> None:
    from launcher.cli.fleet_text import reasons

    out(f"{one.machine}: {host} -> {one.to}" if one.to else f"{one.machine}: stays on {host}")
    for line in reasons(one):
        out(f"  not to {line}")


def _progress(machine: str, to: str, answer: Answer) -> None:
    from launcher.cli.fleet_text import progress_text

    said = progress_text(answer.result)
    if said:
        note(f"{machine} -> {to}: {said}")


VERBS: dict[str, Callable[[Fleet, argparse.Namespace], Awaitable[int]]] = {
    "verify": verify,
    "drain": drain,
}
VIEWS = dict.fromkeys(VERBS, _view)
