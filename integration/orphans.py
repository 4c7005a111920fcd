"""Kill launchers at random moments and count the QEMUs that outlive them.

usage: orphans.py QEMU ROUNDS [--untied | --shell] [OPTION OF QEMU...]

QEMU is held back by its key, as in a launch, with --shell by a shell, as whatever is not known to
be a QEMU.

Each round forks a launcher that spawns one QEMU, kills the launcher with SIGKILL after a random
time (a third of them within 3 ms, in which it spawns, a third within 30 ms, in which QEMU starts,
the rest within 250 ms), and looks ten seconds later at the latest for processes that carry the
round's name. The first is killed when QEMU has greeted, and on a machine where that takes longer
all the times are longer as well. While a stage was never met there are more rounds, up to four
times as many. Prints JSON.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import socket
import sys
import time
import uuid

from launcher.command import render_key
from launcher.process import spawn

_PATIENCE = 10.0
#: The same where QEMUs are to be left.
_UNTIED_PATIENCE = 1.0
#: Of three rounds, the longest times after which they are killed, and when QEMU greets at most.
_LONGEST = (0.003, 0.030, 0.250)
_GREETS = 0.100
_WAYS = ("--untied", "--shell")


def command(qemu: list[str], name: str, keyed: bool) -> list[str]:
    quiet = ["-S", "-display", "none", "-nodefaults", "-no-user-config"]
    qmp = ["-readconfig", "/dev/fd/0"] if keyed else ["-chardev", "socket,id=qmp,fd=3"]
    words = [*qmp, "-qmp", "chardev:qmp"]
    return [*qemu, "-name", name, "-machine", "none", "-accel", "tcg", *quiet, *words]


def carriers(name: str) -> list[int]:
    """Processes that have `name` on their command line."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/cmdline", "rb") as file:
                    if name.encode() in file.read().split(b"\0"):
                        found.append(int(entry))
            except OSError:
                continue
    return found


def launch_and_wait(qemu: list[str], name: str, way: str, told: int) -> None:
    ours, theirs = socket.socketpair()
    key = b"" if way else render_key("qemu-system", {"qmp": 3})
    argv = command(qemu, name, bool(key))
    os.write(told, b"spawning")
    spawn(argv, fds={3: theirs.fileno()}, env={}, tie=way != "--untied", key=key)
    theirs.close()
    os.write(told, b"spawned")
    select.select([ours], [], [])  # the greeting
    os.write(told, b"greeted")
    while True:
        signal.pause()


def one_round(qemu: list[str], delay: float | None, way: str) -> tuple[str, list[int]]:
    """What the launcher had reached when it was killed, and who was left.

    Args:
        delay: seconds after which it is killed; None waits for QEMU's greeting.
    """
    name = f"orphan-{uuid.uuid4()}"
    reading, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            launch_and_wait(qemu, name, way, told)
        finally:
            os._exit(1)
    os.close(told)
    select.select([reading], [], [])  # it is about to spawn
    said = b""
    if delay is None:
        while b"greeted" not in said and (part := os.read(reading, 64)):
            said += part
    else:
        time.sleep(delay)  # the moment of the kill is what is drawn
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    while part := os.read(reading, 64):  # to its end: nobody else holds it
        said += part
    os.close(reading)
    deadline = time.monotonic() + (_UNTIED_PATIENCE if way == "--untied" else _PATIENCE)
    while (left := carriers(name)) and time.monotonic() < deadline:
        time.sleep(0.002)  # nothing tells when a process of others is gone; up to _PATIENCE
    for orphan in left:
        os.kill(orphan, signal.SIGKILL)
    return said.decode().rpartition("spawn")[2], left


def main() -> None:
    way = "".join(word for word in sys.argv[3:] if word in _WAYS)
    rounds = int(sys.argv[2])
    qemu = [sys.argv[1], *(word for word in sys.argv[3:] if word not in _WAYS)]
    reached = {"ing": 0, "ed": 0, "edgreeted": 0}
    orphans = done = 0
    slower, began = 1.0, time.monotonic()
    most = rounds if way == "--untied" else 4 * rounds
    while done < rounds or (done < most and not all(reached.values())):
        delay = random.uniform(0, slower * _LONGEST[done % 3]) if done else None
        stage, left = one_round(qemu, delay, way)
        if not done and way != "--untied":
            slower = max(1.0, (time.monotonic() - began) / _GREETS)
        reached[stage] += 1
        orphans += bool(left)
        done += 1
    names = {"ing": "while spawning", "ed": "after spawn", "edgreeted": "after the greeting"}
    killed = {names[stage]: count for stage, count in reached.items()}
    json.dump({"rounds": done, "orphans": orphans, "killed": killed}, sys.stdout)


if __name__ == "__main__":
    main()
