"""The goals, measured and judged; started by scripts/bench, which says how to use it."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys

import agents
import hosts
import measures
import moves
import restores
from rounds import Floor


def main() -> int:
    """Measure, print, and say whether all goals were met."""
    parser = argparse.ArgumentParser(prog="scripts/bench")
    parser.add_argument("--floor", required=True)
    parser.add_argument("--matrix", required=True)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json")
    parser.add_argument("--only", default="")
    parser.add_argument("releases", nargs="*", default=["5.2", "7.2", "10.0", "11.1"])
    options = parser.parse_args()
    binaries, missing = {}, []
    for release in options.releases:
        path = os.path.join(options.matrix, release, "bin", "qemu-system-x86_64")
        if os.access(path, os.X_OK):
            binaries[release] = path
        else:
            missing.append(release)
    if not binaries:
        sys.stderr.write("scripts/bench: no QEMU of the matrix is here\n")
        return 2
    print(f"{'goal':<56} {'target':>8} {'measured':>8}  verdict", flush=True)
    found = []
    groups = {**measures.GROUPS, "meet": hosts.meet, "moves": moves.moves}
    groups |= {"restore": restores.restores, "agent": agents.agents}
    for group, measure in groups.items():
        if options.only not in group:
            continue
        for row in asyncio.run(measure(binaries, Floor(options.floor), options.rounds)):
            found.append(row)
            print(line(row), flush=True)
    for release in missing:
        print(f"QEMU {release} is not in the matrix: not measured")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"host": host(), "rounds": options.rounds, "goals": found}, file, indent=1)
            file.write("\n")
    return int(any(row["verdict"] == "missed" for row in found))


def line(row: dict[str, object]) -> str:
    """One row of the table."""
    target = "" if row["target"] is None else f"<= {row['target']:g}"
    measured = f"{row['measured']:.2f}" if isinstance(row["measured"], float) else row["measured"]
    return (
        f"{row['goal']:<56} {target:>8} {measured:>8}  {row['verdict']:<7} {row['note']}".rstrip()
    )


def host() -> dict[str, object]:
    """What the figures were taken on."""
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
    }


if __name__ == "__main__":
    raise SystemExit(main())
