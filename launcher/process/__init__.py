"""argv and inherited file descriptors → a running process, its stderr, and its end.

    spawn.py     starts it, and ties its life to ours
    running.py   the process while it runs: reaped by pidfd, stderr drained, the stop ladder
    stderr.py    what it said, and what its exit status means, as words for a user

Nothing here imports asyncio before there is a loop to attach to: QEMU is spawned first, and the
launcher imports the rest of itself while QEMU starts.
"""

from __future__ import annotations

from launcher.process.running import Deadlines, Process
from launcher.process.spawn import spawn
from launcher.process.stderr import (
    Complaint,
    StderrTail,
    describe_exit,
    meaningful_lines,
)

__all__ = [
    "Complaint",
    "Deadlines",
    "Process",
    "StderrTail",
    "describe_exit",
    "meaningful_lines",
    "spawn",
]
