"""How long it takes to find the platform that many hosts share."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from functools import partial

from measures import Binaries, Rows, row
from rounds import Floor, in_turns, median, process, ratio, timed

from launcher.cli.meet import meeting
from launcher.host.facts import FORMAT, gather

_COUNTS = (2, 100, 500, 1000)


async def meet(binaries: Binaries, _floor: Floor, rounds: int) -> Rows:
    """Copies of this host's facts, each with another name and a kernel of its own."""
    facts = {"format": FORMAT, **gather(binaries=list(binaries.values()))}
    with tempfile.TemporaryDirectory(prefix="bench-hosts-") as folder:
        files = [_write(folder, facts, number) for number in range(max(_COUNTS))]

        def whole(count: int) -> float:
            words = ["-m", "launcher", "platform", "meet", *files[:count]]
            return process([sys.executable, *words])[0]

        decided = in_turns(
            rounds,
            {str(n): partial(timed, partial(meeting, files[:n], "meet")) for n in _COUNTS},
        )
        command = in_turns(rounds, {"500": lambda: whole(500)})
    return [
        row("platform meet of 500 hosts, whole command, s", 0.5, median(command["500"]) / 1000),
        row("meet of 1000 hosts / of 2, per host", 1.0, ratio(decided["1000"], decided["2"]) / 500),
        row(
            "meet of 1000 hosts / of 100, per host",
            None,
            ratio(decided["1000"], decided["100"]) / 10,
        ),
        row("meet of 1000 hosts, ms", None, median(decided["1000"])),
    ]


def _write(folder: str, facts: dict[str, object], number: int) -> str:
    kernel = {"release": f"6.{number % 12 + 1}.0", "series": f"6.{number % 12 + 1}"}
    path = os.path.join(folder, f"{number:04}.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump({**facts, "name": f"host-{number:04}", "kernel": kernel}, file)
    return path
