"""Who runs when: a monitor of our own in each QEMU of a guest, and what they tell together.

A copy runs from its RESUME until its STOP, or the SHUTDOWN of one that is told to quit and says
nothing else (system/runstate.c vm_shutdown), by a clock that all of them share. One that
was killed ran at least until it last said that it runs. So nothing is seen that was not, and of
what was, at most what a killed copy did in its last moments is missed.
"""

from __future__ import annotations

import json
import os
import select
import socket
import threading
import time

from launcher.record import record

#: Seconds between two questions to each copy.
_OFTEN = 0.02
#: Gives each QEMU that is started as a machine one more monitor, whoever starts it.
WRAPPER = """\
#!/bin/sh
for word; do
    case $word in guest=*) exec {qemu} "$@" -qmp unix:{folder}/$$,server=on,wait=off ;; esac
done
exec {qemu} "$@"
"""


@record
class Ran:
    """One time for which a copy ran, in seconds of the epoch."""

    copy: str
    since: float
    until: float


class Copy:
    """One QEMU, as its monitor tells."""

    def __init__(self, name: str, sock: socket.socket) -> None:
        self.name, self.sock = name, sock
        self.ran: list[Ran] = []
        self.since: float | None = None
        #: When it last was known to run.
        self.seen = 0.0
        self.asked: float | None = None
        self._rest = b""
        sock.sendall(b'{"execute": "qmp_capabilities"}')

    def take(self) -> bool:
        """Read what it says; whether it is still there."""
        try:
            part = self.sock.recv(65536)
        except OSError:
            part = b""
        *lines, self._rest = (self._rest + part).split(b"\n")
        for line in filter(None, lines):
            self._hear(json.loads(line))
        return bool(part)

    def _hear(self, told: dict) -> None:
        if told.get("event") in ("STOP", "RESUME", "SHUTDOWN"):
            stamp = told["timestamp"]["seconds"] + told["timestamp"]["microseconds"] / 1e6
            if told["event"] == "RESUME":
                self.since = self.seen = stamp
            elif self.since is not None:
                self.end(stamp)
        elif "running" in told.get("return", {}):
            # It was so at some moment since it was asked.
            asked, self.asked = self.asked or 0.0, None
            if told["return"]["running"]:
                self.since = self.since or time.time()
                self.seen = max(self.seen, asked)

    def end(self, until: float) -> None:
        """It runs no more."""
        assert self.since is not None
        self.ran.append(Ran(self.name, self.since, until))
        self.since = None

    def ask(self) -> None:
        """Ask whether it runs, unless it still owes an answer."""
        if self.asked is None:
            self.asked = time.time()
            self.sock.sendall(b'{"execute": "query-status"}')


class Watcher(threading.Thread):
    """Looks at all copies for as long as a test lasts.

    Args:
        folder: where their monitors are, see `WRAPPER`.

    Attributes:
        looks: how often all of them were asked.
        together: how many copies were there at once, at most.
        copies: how many there were.
    """

    def __init__(self, folder: str) -> None:
        super().__init__(daemon=True)
        self.looks = self.together = self.copies = 0
        self._folder = folder
        self._known: set[str] = set()
        self._copies: dict[int, Copy] = {}
        self._ran: list[Ran] = []
        self._lock = threading.Lock()
        self._ending = threading.Event()

    def __enter__(self) -> Watcher:
        os.mkdir(self._folder)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self.join()
        for copy in self._copies.values():
            copy.sock.close()

    def run(self) -> None:
        """Look until the end."""
        while not self._ending.wait(_OFTEN):
            with self._lock:
                self._look()

    def _look(self) -> None:
        for name in set(os.listdir(self._folder)) - self._known:
            sock = socket.socket(socket.AF_UNIX)
            try:
                sock.connect(os.path.join(self._folder, name))
                copy = Copy(name, sock)
            except OSError:
                sock.close()  # it does not listen yet, or has ended
                continue
            self._known.add(name)
            self._copies[sock.fileno()] = copy
            self.copies += 1
        self.together = max(self.together, len(self._copies))
        self.looks += 1
        for number, copy in list(self._copies.items()):
            try:
                copy.ask()
            except OSError:
                self._gone(number)
        for number in select.select(list(self._copies), [], [], 0)[0]:
            if not self._copies[number].take():
                self._gone(number)

    def _gone(self, number: int) -> None:
        copy = self._copies.pop(number)
        while copy.take():
            pass  # what it said before it ended
        if copy.since is not None:
            copy.end(copy.seen)
        self._ran += copy.ran
        copy.sock.close()

    def overlaps(self) -> list[tuple[Ran, Ran]]:
        """Times in which two copies ran at once."""
        with self._lock:
            ran = list(self._ran)
            for copy in self._copies.values():
                ran += copy.ran
                if copy.since is not None:
                    ran.append(Ran(copy.name, copy.since, copy.seen))
        pairs = [(a, b) for n, a in enumerate(ran) for b in ran[n + 1 :] if a.copy != b.copy]
        return [(a, b) for a, b in pairs if max(a.since, b.since) < min(a.until, b.until)]
