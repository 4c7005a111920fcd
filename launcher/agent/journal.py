"""What an agent must not forget: ids and outcomes of commands, and which machines are its own.

The bus delivers at least once. A command is on disk, flushed, before it is acknowledged and before
anything is done about it; its outcome is on disk before it is told. So an agent that is killed at
any moment finds what it had begun, and an id that comes again gets the old answer.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time

from launcher.agent.messages import Command
from launcher.agent.moves.model import OVER, Move
from launcher.errors import HostError
from launcher.record import as_dict, record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Outcomes that are kept: whoever sends an id again after so many others has another command.
KEPT = 100_000
#: Migrations that are over and kept.
_MOVES = 10_000
#: How often the oldest are looked for.
_SWEEP = 1000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS command (
    number INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, verb TEXT NOT NULL,
    arguments TEXT NOT NULL, reply TEXT, correlation BLOB, received REAL NOT NULL,
    expires REAL,
    begun INTEGER NOT NULL DEFAULT 0, outcome BLOB, told INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS untold ON command (number) WHERE told = 0;
CREATE TABLE IF NOT EXISTS machine (name TEXT PRIMARY KEY, kept TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS paper (
    machine TEXT NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL, content TEXT NOT NULL,
    PRIMARY KEY (machine, kind, key));
CREATE TABLE IF NOT EXISTS move (
    number INTEGER PRIMARY KEY, role TEXT NOT NULL, peer TEXT NOT NULL, id TEXT NOT NULL,
    machine TEXT NOT NULL, phase TEXT NOT NULL, kept TEXT NOT NULL, UNIQUE (role, peer, id));
"""


@record
class Entry:
    """One command in the journal.

    Attributes:
        reply: the topic of its answers, "" for none.
        expires: seconds since 1970 after which it is not begun any more.
        begun: whether it was begun before this agent's process.
        outcome: the final answer's payload, None while there is none.
    """

    command: Command
    reply: str
    correlation: bytes | None = None
    expires: float | None = None
    begun: bool = False
    outcome: bytes | None = None


@record
class Owned:
    """One machine that is the agent's.

    Attributes:
        digest: of what it was started from.
        wanted: `running` or `paused`.
        phase: `starting` until it was verified and let run, then `running`; `incoming` while its
            guest is on its way here.
        since: seconds since 1970, for people.
    """

    name: str
    uuid: str
    digest: str
    wanted: str
    phase: str
    since: float
    memory: int
    cpus: int
    profile: str = ""
    platform: str = ""
    #: the id of the command that started it
    command: str = ""
    #: what that command asked for, None of a machine that was adopted
    request: dict[str, Any] | None = None
    #: the host to which it is on its way, or from which
    moving: str = ""
    #: its last migration: a guest may come back with the UUID with which it went
    move: str = ""


class Journal:
    """The file. Used by one process: a second one on the same file is refused.

    Args:
        path: of the file; folders above it are made, for this user alone.

    Raises:
        HostError: it cannot be had.
    """

    def __init__(self, path: str) -> None:
        self._accepted = 0
        try:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
            self.base = sqlite3.connect(path, timeout=1.0, isolation_level=None)
            # EXCLUSIVE: two agents of one host would each do what the other does.
            self.base.execute("PRAGMA locking_mode = EXCLUSIVE")
            self.base.execute("PRAGMA journal_mode = WAL")
            # FULL: the log is flushed at each commit; NORMAL would flush at checkpoints only.
            self.base.execute("PRAGMA synchronous = FULL")
            self.base.executescript(_SCHEMA)
            self.base.execute("BEGIN IMMEDIATE")
            self.base.execute("COMMIT")
        except (OSError, sqlite3.Error) as error:
            held = "locked" in str(error)
            raise HostError(
                f"the journal {path} cannot be had: {error}",
                hint="another agent of this host runs" if held else "",
                code="journal",
            ) from None

    def close(self) -> None:
        """Let go of the file."""
        self.base.close()

    def write(self, statement: str, values: tuple[Any, ...]) -> None:
        """One statement, on disk when this returns.

        Raises:
            HostError: it cannot be written (a full disk).
        """
        try:
            self.base.execute(statement, values)
        except sqlite3.Error as error:
            raise HostError(f"the journal cannot be written: {error}", code="journal") from None

    # -- commands -----------------------------------------------------------------------------

    def accept(self, entry: Entry) -> None:
        """Keep a command before it is acknowledged; its id must be new (see `find`)."""
        command = entry.command
        self.write(
            "INSERT INTO command (id, verb, arguments, reply, correlation, received, expires)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                *(command.id, command.verb, _text(command.arguments)),
                *(entry.reply, entry.correlation, time.time(), entry.expires),
            ),
        )
        self._accepted += 1
        if self._accepted % _SWEEP == 0:
            self.write(
                "DELETE FROM command WHERE told = 1 AND number <="
                " (SELECT max(number) FROM command) - ?",
                (KEPT,),
            )

    def begin(self, number: str) -> None:
        """Note that a command is being done: what cannot be done twice is not begun again."""
        self.write("UPDATE command SET begun = 1 WHERE id = ?", (number,))

    def finish(self, number: str, outcome: bytes) -> None:
        """Keep a command's final answer before it is told."""
        self.write("UPDATE command SET outcome = ? WHERE id = ?", (outcome, number))

    def told(self, number: str) -> None:
        """Note that the broker has the final answer."""
        self.write("UPDATE command SET told = 1 WHERE id = ?", (number,))

    def find(self, number: str) -> Entry | None:
        """The command of that id."""
        row = self.base.execute(f"{_SELECT} WHERE id = ?", (number,)).fetchone()
        return _entry(row) if row else None

    def unfinished(self) -> list[Entry]:
        """Commands without an outcome, in the order in which they came."""
        rows = self.base.execute(f"{_SELECT} WHERE outcome IS NULL ORDER BY number")
        return [_entry(row) for row in rows]

    def untold(self) -> list[Entry]:
        """Commands whose outcome the broker may not have, in the order in which they came."""
        rows = self.base.execute(
            f"{_SELECT} WHERE told = 0 AND outcome IS NOT NULL ORDER BY number"
        )
        return [_entry(row) for row in rows]

    # -- machines -----------------------------------------------------------------------------

    def machines(self) -> dict[str, Owned]:
        """The machines that are the agent's, by name."""
        rows = self.base.execute("SELECT kept FROM machine ORDER BY name")
        return {one.name: one for one in (Owned(**json.loads(row[0])) for row in rows)}

    def keep(self, machine: Owned) -> None:
        """Write down a machine, before there is a process, or what changed of it."""
        self.write(
            "INSERT OR REPLACE INTO machine VALUES (?, ?)",
            (machine.name, _text(as_dict(machine))),
        )

    def forget(self, name: str) -> None:
        """Cross out a machine, and what is kept of it."""
        self.write("DELETE FROM paper WHERE machine = ?", (name,))
        self.write("DELETE FROM machine WHERE name = ?", (name,))

    # -- what is kept of a machine ------------------------------------------------------------

    def keep_paper(self, machine: str, kind: str, key: str, content: Any) -> None:
        """Keep JSON of a kind (`side`, `lock`, `snapshot`) for as long as a machine is ours."""
        self.write(
            "INSERT OR REPLACE INTO paper VALUES (?, ?, ?, ?)",
            (machine, kind, key, _text(content)),
        )

    def paper(self, machine: str, kind: str, key: str = "") -> Any:
        """What is kept of that kind, None for nothing."""
        row = self.base.execute(
            "SELECT content FROM paper WHERE machine = ? AND kind = ? AND key = ?",
            (machine, kind, key),
        ).fetchone()
        return json.loads(row[0]) if row else None

    def paper_keys(self, machine: str, kind: str) -> list[str]:
        """The keys under which something of a kind is kept."""
        rows = self.base.execute(
            "SELECT key FROM paper WHERE machine = ? AND kind = ? ORDER BY key", (machine, kind)
        )
        return [row[0] for row in rows]

    # -- guests on their way ------------------------------------------------------------------

    def keep_move(self, move: Move) -> None:
        """Write down how far a migration is, before anything follows from it."""
        self.write(
            "INSERT INTO move (role, peer, id, machine, phase, kept) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (role, peer, id) DO UPDATE SET phase = excluded.phase,"
            " kept = excluded.kept",
            (move.role, move.peer, move.id, move.machine, move.phase, _text(as_dict(move))),
        )
        if move.phase in OVER:
            self.write(
                "DELETE FROM move WHERE number <= (SELECT max(number) FROM move) - ?"
                " AND phase IN (?, ?, ?, ?, ?)",
                (_MOVES, *OVER),
            )

    def find_move(self, role: str, peer: str, number: str) -> Move | None:
        """A migration by what both hosts call it."""
        row = self.base.execute(
            "SELECT kept FROM move WHERE role = ? AND peer = ? AND id = ?", (role, peer, number)
        ).fetchone()
        return Move(**json.loads(row[0])) if row else None

    def moves(self, role: str) -> list[Move]:
        """All migrations on record in which this host has that role, oldest first."""
        rows = self.base.execute("SELECT kept FROM move WHERE role = ? ORDER BY number", (role,))
        return [Move(**json.loads(row[0])) for row in rows]


_SELECT = "SELECT id, verb, arguments, reply, correlation, expires, begun, outcome FROM command"


def _entry(row: tuple[Any, ...]) -> Entry:
    number, verb, arguments, reply, correlation, expires, begun, outcome = row
    command = Command(number, verb, json.loads(arguments))
    return Entry(command, reply, correlation, expires, bool(begun), outcome)


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"))
