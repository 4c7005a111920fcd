"""One migration between two hosts, as each of the two journals has it. Pure."""

from __future__ import annotations

from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SOURCE, DESTINATION = "source", "destination"

#: Phases at the source. `asking`: the destination was asked to take it. `sending`: QEMU was, or
#: may have been, told to send. `committing`: the destination is told to let its copy run; from
#: here on only the destination knows. Then `moved`, `kept` (it stays here), or `lost` (told to
#: run there, and dead).
ASKING, SENDING, COMMITTING = "asking", "sending", "committing"
MOVED, KEPT, LOST = "moved", "kept", "lost"
#: Phases at the destination. `waiting` until something is decided, once and for all.
WAITING, COMMITTED, ABORTED = "waiting", "committed", "aborted"
OVER = (MOVED, KEPT, LOST, COMMITTED, ABORTED)

#: What a source says to a destination.
LOOK, PREPARE, KEEP, COMMIT, ABORT = "look", "prepare", "keep", "commit", "abort"
ORDERS = (LOOK, PREPARE, KEEP, COMMIT, ABORT)
#: What a destination says to a source; of the last four one is the last word of a migration.
SEEN, REFUSED, PREPARED, PROGRESS, PROVED = "seen", "refused", "prepared", "progress", "proved"
UNKNOWN = "unknown"
WORDS = (SEEN, REFUSED, PREPARED, PROGRESS, PROVED, COMMITTED, ABORTED, LOST, UNKNOWN)
VERDICTS = (COMMITTED, ABORTED, LOST, UNKNOWN)


@record
class Move:
    """One guest on its way.

    Attributes:
        id: what both hosts call it, made up by the source; new for each attempt.
        role: of this host.
        peer: the other host.
        ran: whether the guest ran when it began.
        command: the id of the command at the source.
        result: what came of it, as JSON.
    """

    id: str
    role: str
    machine: str
    uuid: str
    peer: str
    phase: str
    ran: bool = True
    command: str = ""
    result: Any = None
