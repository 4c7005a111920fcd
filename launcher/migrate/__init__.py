"""A running guest to another QEMU, with exactly one running copy of it at every moment.

    model.py       what can be said of a migration: limits, progress, outcome, error
    transport.py   what the stream travels through: unix, tcp, file, fd
    carry.py       the stream, watched from both ends
    watch.py       one end while it lasts: what it says, what it says no more
    move.py        the order of a migration, and its undoing
    counter.py     the guest's own proof that it went on, from its console
    certificate.py  the names that a TLS certificate is for
    encrypted.py   TLS between the two ends: roles, and whether the names fit
    stream.py      a guest's state into a file, and out of one

The destination is a machine that waits (`-incoming defer`); starting it is `launcher.incoming`.
"""

from __future__ import annotations

from launcher.migrate.counter import Counter, follow
from launcher.migrate.model import Limits, Migration, MigrationError, Progress
from launcher.migrate.move import migrate
from launcher.migrate.transport import Via, parse_via

__all__ = [
    "Counter",
    "Limits",
    "Migration",
    "MigrationError",
    "Progress",
    "Via",
    "follow",
    "migrate",
    "parse_via",
]
