"""What a test left running: QEMUs of this process that nobody answers for."""

from __future__ import annotations

import itertools
import os
import signal
from contextlib import suppress

_PROGRAMS = ("qemu-system-", "qemu-storage-daemon", "qemu-kvm")


def machines_left(known: set[int]) -> dict[int, str]:
    """Children of this process that are a QEMU and not `known`: pid → name."""
    found = {}
    for thread in os.listdir("/proc/self/task"):
        with suppress(OSError), open(f"/proc/self/task/{thread}/children", "rb") as file:
            for word in file.read().split():
                pid = int(word)
                if pid not in known and (name := _name(pid)):
                    found[pid] = name
    return found


def _name(pid: int) -> str:
    """The machine's name when it is a QEMU, else "".

    By all the words of its command line: what runs it may be a loader or a distribution's wrapper.
    """
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = [word.decode("utf-8", "replace") for word in file.read().split(b"\0")]
    except OSError:
        return ""
    programs = [os.path.basename(word) for word in words[:6]]
    if not any(word.startswith(_PROGRAMS) for word in programs):
        return ""
    following = dict(itertools.pairwise(words))
    return following.get("-name", programs[0]).partition("guest=")[2] or programs[0]


def end(pid: int) -> None:
    """Kill a child and reap it."""
    with suppress(OSError):
        os.kill(pid, signal.SIGKILL)
    with suppress(OSError):
        os.waitpid(pid, 0)
