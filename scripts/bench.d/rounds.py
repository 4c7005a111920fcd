"""Paired measurements: what is compared is measured in turns, and compared within each round."""

from __future__ import annotations

import os
import statistics
import subprocess
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

median = statistics.median


class Floor:
    """The C program that starts a QEMU at the least cost."""

    def __init__(self, path: str) -> None:
        self.path = path

    def once(self, argv: Sequence[str]) -> tuple[float, float]:
        """Milliseconds to the first reply, and from quit to the end."""
        done = subprocess.run([self.path, "1", *argv], check=True, capture_output=True, text=True)
        ready, ended = done.stdout.split()
        return int(ready) / 1000, int(ended) / 1000

    def whole(self, argv: Sequence[str]) -> float:
        """Milliseconds of the whole process: start, ready, quit, end."""
        return process([self.path, "1", *argv])[0]


def process(argv: Sequence[str], env: dict[str, str] | None = None) -> tuple[float, float]:
    """Run a program to its end; milliseconds of wall clock and of CPU.

    Raises:
        RuntimeError: it failed.
    """
    null = os.open(os.devnull, os.O_RDWR)
    actions = [(os.POSIX_SPAWN_DUP2, null, number) for number in (0, 1)]
    try:
        begun = time.perf_counter()
        pid = os.posix_spawn(argv[0], argv, env or dict(os.environ), file_actions=actions)
        _pid, status, used = os.wait4(pid, 0)
        wall = time.perf_counter() - begun
    finally:
        os.close(null)
    if status:
        raise RuntimeError(
            f"{' '.join(argv)} ended with status {os.waitstatus_to_exitcode(status)}"
        )
    return wall * 1000, (used.ru_utime + used.ru_stime) * 1000


def in_turns(count: int, measures: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Each measure `count` times, in turns, every other round backwards."""
    found: dict[str, list[float]] = {name: [] for name in measures}
    names = list(measures)
    for number in range(count):
        for name in names if number % 2 else reversed(names):
            found[name].append(measures[name]())
    return found


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the rounds' own ratios."""
    return median(a / b for a, b in zip(ours, theirs, strict=True))


def timed(action: Callable[[], object]) -> float:
    """Milliseconds of a call."""
    begun = time.perf_counter()
    action()
    return (time.perf_counter() - begun) * 1000
