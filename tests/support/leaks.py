"""What a test may leave behind in its own process: nothing."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import NamedTuple


class Held(NamedTuple):
    """What this process holds: its descriptors with what they lead to, children, and threads."""

    files: frozenset[str]
    children: tuple[int, ...]
    threads: int


def held() -> Held:
    """What this process holds now; the same before and after a test that leaves nothing."""
    return Held(frozenset(_files()), tuple(children()), threading.active_count())


def children() -> list[int]:
    """The pids of the children of this process's main thread."""
    pid = os.getpid()
    return [int(word) for word in Path(f"/proc/self/task/{pid}/children").read_text().split()]


def _files() -> set[str]:
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listed directory itself
            found.add(f"{fd}:{os.readlink(f'/proc/self/fd/{fd}')}")
    return found
