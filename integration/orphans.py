"""Kill launchers at random moments and count the QEMUs that outlive them.

usage: orphans.py QEMU ROUNDS [--untied | --shell] [OPTION OF QEMU...]

QEMU is held back by its key, as in a launch, with --shell by a shell, as whatever is not known to
be a QEMU.

Each round forks a launcher that spawns one QEMU, kills the launcher with SIGKILL after a random
time (a third of them within 3 ms, in which it spawns, a third within 30 ms, in which QEMU starts,
the rest within 250 ms), and looks one second later at the latest for processes that carry the
round's name. Prints JSON.
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

_PATIENCE = 1.0
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


def one_round(qemu: list[str], delay: float, way: str) -> tuple[str, list[int]]:
    """What the launcher had reached when it was killed, and who was left."""
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
    time.sleep(delay)  # the moment of the kill is what is drawn
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    said = b""
    while part := os.read(reading, 64):  # to its end: nobody else holds it
        said += part
    os.close(reading)
    deadline = time.monotonic() + _PATIENCE
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
    orphans = 0
    for number in range(rounds):
        longest = (0.003, 0.030, 0.250)[number % 3]
        stage, left = one_round(qemu, random.uniform(0, longest), way)
        reached[stage] += 1
        orphans += bool(left)
    names = {"ing": "while spawning", "ed": "after spawn", "edgreeted": "after the greeting"}
    killed = {names[stage]: count for stage, count in reached.items()}
    json.dump({"rounds": rounds, "orphans": orphans, "killed": killed}, sys.stdout)


if __name__ == "__main__":
    main()
