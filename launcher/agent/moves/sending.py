"""Sending a guest to another host: agree, carry, commit; or keep it.

Until the destination is told to commit it runs nothing, so the guest may go on here whatever has
become of the other host. From the moment in which the journal says `committing` it may not, unless
the destination answers that its copy is dead and never ran.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from launcher.agent.machines import LOCK
from launcher.agent.moves import tls
from launcher.agent.moves.model import (
    ABORT,
    ABORTED,
    COMMIT,
    COMMITTED,
    COMMITTING,
    KEPT,
    LOST,
    MOVED,
    PREPARE,
    PREPARED,
    PROGRESS,
    SENDING,
    VERDICTS,
    Move,
)
from launcher.agent.moves.post import peer_error, said_of
from launcher.agent.moves.remote import Remote
from launcher.agent.moves.sides import source_side
from launcher.data import load_rules
from launcher.errors import HostError, InputError, LauncherError
from launcher.migrate import Limits, Migration, MigrationError
from launcher.migrate.carry import Carrying
from launcher.migrate.move import let_go, surely
from launcher.migrate.transport import Transport, Via
from launcher.preflight import breaks, counts, explain, side_from_json
from launcher.preflight import preflight as compare
from launcher.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from launcher.agent.journal import Owned
    from launcher.agent.moves.moves import Moves
    from launcher.migrate import Progress
    from launcher.preflight import Finding
    from launcher.rejoined import Rejoined

#: Seconds for the other host: to start a machine that waits, to decide.
_START, DECIDE = 90.0, 15.0
#: Seconds for the other host to say that its copy is dead before the guest goes on here.
DEAD = 8.0


def request_of(owned: Owned) -> dict[str, Any]:
    """What the other host is asked to start: what was asked of this one, under this name."""
    asked = {key: value for key, value in (owned.request or {}).items() if key != "verify"}
    return {**asked, "name": owned.name}


def asked_of(moves: Moves, owned: Owned) -> dict[str, Any]:
    """All that the other host needs to plan the same machine: not its own lock file, but ours."""
    body: dict[str, Any] = {"request": request_of(owned), "uuid": owned.uuid}
    lock = moves.journal.paper(owned.name, LOCK) if body["request"].get("locked") else None
    return body if lock is None else {**body, "lock": lock}


class Sending:
    """One guest on its way from here, step by step."""

    def __init__(
        self, moves: Moves, move: Move, source: Rejoined, tell: Callable[[Any], None]
    ) -> None:
        self.moves = moves
        self.move = move
        self.source = source
        self.findings: tuple[Finding, ...] = ()
        self.timings: dict[str, float] = {}
        self.stream: Carrying | None = None
        self._tell = tell
        self._place: dict[str, Any] = {}
        self._said: tuple[str, ...] = ()
        self._name = ""
        self._answered = False
        self._resumed = False
        self._began = self._mark = time.monotonic()

    def _lap(self, name: str) -> None:
        now = time.monotonic()
        self.timings[name] = round((now - self._mark) * 1000, 1)
        self._mark = now

    def _note(self, phase: str, result: Any = None) -> None:
        self.move = replace(self.move, phase=phase, result=result)
        self.moves.journal.keep_move(self.move)

    async def agree(self, force: bool) -> None:
        """The destination waits, and nothing speaks against it.

        Raises:
            PeerError: it does not take it, or cannot.
            MigrationError: something speaks against it.
        """
        moves, move = self.moves, self.move
        owned = moves.machines.owned[move.machine]
        body = {**asked_of(moves, owned), "ran": move.ran}
        if moves.policy.migration_tls:
            self._name = body["certificate"] = tls.client_name(moves.policy.migration_tls)
        last, ask = (PREPARED, ABORTED), moves.post.ask
        answer = await ask(move.peer, PREPARE, move.id, body, (*last, PROGRESS), DECIDE)
        self._answered = answer is not None
        if answer is not None and answer[0] == PROGRESS:
            answer = await ask(move.peer, PREPARE, move.id, body, last, _START)
        if answer is None:
            raise silent(move.peer)
        if answer[0] == ABORTED:
            # It began, and could not have a machine that waits: an image is not there, for example.
            self._said = said_of(answer[1]) or ()
            raise peer_error(move.peer, answer[1].get("error"))
        self._place = answer[1]
        self._lap("prepared")
        here = await source_side(moves.machines, owned, self.source)
        there = side_from_json(answer[1].get("side"), move.peer)
        self.findings = compare(here, there, load_rules(), "tcp", still=not move.ran)
        self._lap("preflight")
        wrong = breaks(self.findings)
        if wrong and not force:
            migration = Migration("refused", "tcp", self.findings)
            cure = " or ".join(one.text for one in wrong[0].cures) or "nothing cures it"
            words = f"it would fail: {wrong[0].message}"
            raise MigrationError(words, migration=migration, hint=cure)

    async def carry(self) -> None:
        """Send everything, and hear that the destination has proved it.

        Raises:
            LauncherError: an end failed.
        """
        via = await self._arm()
        self._note(SENDING)
        self.stream = stream = Carrying(
            self.source,
            lambda news: Remote(self.moves.post, self.move, news),
            Transport(via),
            Limits(),
            self._progress,
        )
        remote = stream.there
        assert isinstance(remote, Remote)
        try:
            await stream.carry()
            self._lap("carried")
            async with asyncio.timeout(DECIDE):
                while remote.proof is None:
                    if remote.error is not None:
                        raise remote.error
                    await asyncio.sleep(0.005)
        except TimeoutError:
            raise silent(self.move.peer) from None
        except LauncherError as error:
            raise remote.error or error from None
        finally:
            self._said = tuple(dict.fromkeys((*remote.words(), *stream.here.words())))
            stream.stop_watching()
        self._lap("proved")

    async def _arm(self) -> Via:
        """Where the stream goes, with what it is protected by.

        Raises:
            HostError: it is not to go there.
        """
        place, policy, monitor = self._place, self.moves.policy, self.source.monitor
        address, port = place.get("address"), place.get("port")
        if not isinstance(address, str) or not isinstance(port, int):
            raise HostError(f"{self.move.peer} does not say where it waits", code="peer")
        if place.get("tls"):
            tls.check_folder(policy.migration_tls, "client")
            await tls.arm(monitor, policy.migration_tls, "client", hostname=self.move.peer)
        elif not policy.migration_plaintext:
            hint = "`migration-tls` at both hosts, or `migration-plaintext: on` at both"
            raise HostError(f"{self.move.peer} has no TLS for a guest", hint=hint, code="policy")
        events = {"capabilities": [{"capability": "events", "state": True}]}
        await monitor.execute("migrate-set-capabilities", events)
        return Via("tcp", host=address, port=port)

    def _progress(self, progress: Progress) -> None:
        self._tell(progress_json(progress))

    async def keep(self, error: BaseException) -> None:
        """The guest goes on here, the destination's copy is dead; never raises for an end's fault.

        The destination is given the time to say that it is; if it says nothing, the guest goes on
        all the same: that copy runs only when it is told to, and it never will be.
        """
        moves, move, monitor = self.moves, self.move, self.source.monitor
        begun = self.stream is not None and self.stream.begun
        if begun:
            with suppress(LauncherError):
                await monitor.execute("migrate_cancel", timeout=5.0)
        if self._answered:
            with suppress(LauncherError):
                within = DEAD if isinstance(error, LauncherError) else 1.0
                last = await moves.post.ask(move.peer, ABORT, move.id, {}, (ABORTED,), within)
                self._hear(last[1] if last is not None else {})
        else:
            moves.post.send(move.peer, ABORT, move.id)  # nothing of it is there that we know of
        try:
            await let_go(monitor, begun, move.ran, Limits().undo)
        except (LauncherError, TimeoutError):
            self._note(SENDING)  # not at an end: gone on with until the guest runs
            moves.settle(self.move)
            return
        await tls.disarm(monitor)
        self._resumed = True
        self._over(KEPT)

    def _hear(self, body: dict[str, Any]) -> None:
        """What the destination's QEMU said last, too."""
        self._said = tuple(dict.fromkeys((*self._said, *(said_of(body) or ()))))

    def _over(self, phase: str) -> None:
        self._note(phase)
        owned = self.moves.machines.owned.get(self.move.machine)
        if owned is not None:
            left = {"moving": ""} if phase == KEPT else {"phase": "unsettled"}
            self.moves.machines.own(replace(owned, **left))
            self.moves.machines.tell(owned.name, phase, {"to": self.move.peer})

    async def commit(self) -> dict[str, Any]:
        """Have the destination run its copy, and end ours. There is no way back from here but its.

        Raises:
            MigrationError: it did not, or it is not known whether it did.
        """
        moves, move = self.moves, self.move
        self._note(COMMITTING)
        answer = await moves.post.ask(move.peer, COMMIT, move.id, {}, VERDICTS, DECIDE)
        word = answer[0] if answer is not None else ""
        if word == COMMITTED:
            return await self._moved()
        if word == ABORTED:
            error = LauncherError(f"{move.peer} gave up before it ran the guest", code="peer")
            self._note(SENDING)  # its copy never ran
            await surely(self.keep(error))
            raise self.failure(error)
        if word == LOST:
            self._over(LOST)
            raise move_error(self.move, f"{move.machine} was not migrated: {lost_words(move.peer)}")
        owned = moves.machines.owned[move.machine]
        moves.machines.own(replace(owned, phase="unsettled"))
        moves.machines.tell(move.machine, "unsettled", {"to": move.peer})
        moves.settle(self.move)
        raise move_error(self.move, f"{move.machine}: {unsettled_words(move.peer)}")

    async def _moved(self) -> dict[str, Any]:
        self._lap("resumed")
        stopped = [e for e in self.source.monitor.events if e.name == "STOP"]
        if stopped and self.move.ran:
            # By this host's clock alone, until the answer was here: the guest ran before that.
            self.timings["blackout"] = round((time.time() - stopped[-1].seconds) * 1000, 1)
        self.timings["total"] = round((time.monotonic() - self._began) * 1000, 1)
        progress = self.stream.progress if self.stream is not None else None
        result = {
            "result": "completed",
            "name": self.move.machine,
            "from": self.moves.host,
            "to": self.move.peer,
            "tls": bool(self._place.get("tls")),
            "timings": self.timings,
            "counts": counts(self.findings),
            "ram": progress_json(progress) if progress is not None else None,
        }
        self._note(MOVED, result)
        await self.source.monitor.close()
        await end_here(self.moves, self.move)
        return result

    def failure(self, error: LauncherError) -> MigrationError:
        """What happened, and where the guest is."""
        words = list(self._said)
        known = explain(self.findings, "\n".join(words)) if self.stream is not None else ()
        why = f" ({known[0].message})" if known else ""
        turned_away = [one for one in words if tls.REFUSED in one]
        if turned_away:
            said = "" if tls.REFUSED in error.message else f": {turned_away[-1]}"
            why = f" ({self.move.peer} takes the certificate of {self._name} only{said})"
        if not self._resumed:
            where = (
                f"it did not go on here yet, which is tried again; {self.move.peer} runs nothing"
            )
        else:
            where = "the guest runs here as before" if self.move.ran else "it is paused as before"
        message = f"{self.move.machine} was not migrated: {error.message}{why}; {where}"
        made = move_error(self.move, message, words)
        made.hint = error.hint
        # What a QEMU said is what became of the migration.
        made.code = made.code if error.code in ("error", "qemu") else error.code
        made.evidence |= {
            "findings": [one.as_json() for one in self.findings if one.severity != "harmless"],
            **error.evidence,
        }
        return made


async def end_here(moves: Moves, move: Move) -> None:
    """End our copy of a guest that runs at the other host."""
    machines = moves.machines
    owned = machines.owned.get(move.machine)
    if owned is None or owned.move != move.id:
        return
    with suppress(InputError):
        await machines.end_quietly(move.machine, "quit")
    machines.gone(move.machine, "migrated", {"name": move.machine, "to": move.peer})


def progress_json(progress: Progress) -> dict[str, Any]:
    """How far it is, for an answer."""
    names = ("status", "transferred", "remaining", "total", "dirty_rate", "rate", "downtime")
    return {**{n: getattr(progress, n) for n in names}, "seconds": round(progress.seconds, 3)}


def silent(peer: str) -> LauncherError:
    """The error of a host that says nothing."""
    return HostError(f"{peer} does not answer", hint="is its agent there?", code="silent")


def lost_words(peer: str) -> str:
    """What is said of a guest that was told to run elsewhere and is dead."""
    return f"{peer} was told to run the guest, and its QEMU ended then; it is left paused here"


def unsettled_words(peer: str) -> str:
    """What is said of a guest of which only the other host knows."""
    return (
        f"{peer} was told to run the guest and does not answer whether it does; the guest is left "
        "paused here until it has answered"
    )


def move_error(move: Move, message: str, words: list[str] | None = None) -> MigrationError:
    """An error that says by its code how the migration stands."""
    error = MigrationError(message, evidence={"qemu_stderr": words or [], "to": move.peer})
    error.code = {COMMITTING: "unsettled", LOST: "lost"}.get(move.phase, "migration")
    return error
