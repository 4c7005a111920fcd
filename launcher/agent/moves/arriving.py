"""One guest on its way here: a machine that waits for it, and runs when its source says so.

It is killed and reaped first, and the source hears of it afterwards: when it fails, when the source
says so, and when the source was not heard for a while. Only the source's `commit` lets it run.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from launcher.agent.digest import digest_of
from launcher.agent.journal import Owned
from launcher.agent.links import MONITOR
from launcher.agent.machines import LOCK
from launcher.agent.moves import tls
from launcher.agent.moves.model import (
    ABORT,
    ABORTED,
    COMMIT,
    COMMITTED,
    LOST,
    PREPARE,
    PREPARED,
    PROGRESS,
    PROVED,
)
from launcher.agent.moves.post import SOON
from launcher.agent.moves.sides import keep_side, waiting_side
from launcher.agent.policy import machine_size
from launcher.agent.telling import log
from launcher.begin import begin
from launcher.errors import CommandError, HostError, LauncherError, QEMUError
from launcher.incoming import waiting_plan
from launcher.migrate.transport import Transport, Via
from launcher.migrate.watch import Watched
from launcher.record import replace
from launcher.start import attach, refuse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from launcher.agent.moves.model import Move
    from launcher.agent.moves.moves import Moves
    from launcher.machine import Machine
    from launcher.prepare import Prepared
    from launcher.report import Report

#: Seconds without a sign of its source after which a guest is given up here.
LEASE = 20.0
#: Seconds between two reports to the source, when nothing changes.
_TELL = 1.0


class Arriving:
    """One guest on its way here.

    Args:
        moves: whose part this is.
        move: as far as it is known.
    """

    def __init__(self, moves: Moves, move: Move) -> None:
        self.move = move
        self._moves = moves
        self._heard = time.monotonic()
        self._order = ""
        self._news = asyncio.Event()
        self._prepared: dict[str, Any] | None = None

    def hear(self, order: str) -> None:
        """One order of its source."""
        self._heard = time.monotonic()
        if order in (COMMIT, ABORT) and self._order != ABORT:
            self._order = order
            self._news.set()
        elif order == PREPARE:
            word = PROGRESS if self._prepared is None else PREPARED
            self._say(word, self._prepared or {"status": "none"}, SOON)

    def _say(self, word: str, body: dict[str, Any] | None = None, seconds: int = 0) -> None:
        self._moves.post.send(self.move.peer, word, self.move.id, body, seconds)

    async def run(self, prepared: Prepared, uuid: str, body: dict[str, Any], client: str) -> None:
        """All of it, to a guest that runs here or a machine that is gone.

        Args:
            prepared: the plan of the machine that waits.
            uuid: the guest's.
            body: the source's request.
            client: the distinguished name of the source's QEMU, where the stream has TLS.
        """
        moves, name = self._moves, prepared.plan.name
        self.move = replace(self.move, machine=name, uuid=uuid)
        moves.journal.keep_move(self.move)
        memory, cpus = machine_size(prepared.plan)
        owned = Owned(
            name=name,
            uuid=uuid,
            digest=digest_of(prepared.plan),
            wanted="running" if self.move.ran else "paused",
            phase="incoming",
            since=time.time(),
            memory=memory,
            cpus=cpus,
            profile=str(body["request"]["profile"])
            if isinstance(body["request"]["profile"], str)
            else "",
            platform=prepared.plan.platform,
            request=body["request"],
            moving=self.move.peer,
            move=self.move.id,
        )
        machine: Machine | None = None
        try:
            moves.machines.own(owned)
            lock = prepared.loaded.lock
            if lock is not None:
                moves.journal.keep_paper(name, LOCK, "", lock.document)
            plan = waiting_plan(prepared.plan, uuid)
            started = begin(
                prepared.with_plan(plan), named=True, detached=True, monitors=(MONITOR,)
            )
            machine = await attach(started)
            moves.machines.tell(name, "incoming", {"from": self.move.peer})
            await self._wait_for(machine, client)
            await self._decide(machine, owned)
        except BaseException as error:
            await self._give_up(machine, error)
            if not isinstance(error, LauncherError):
                raise
            return
        await keep_side(moves.machines, prepared)

    async def _wait_for(self, machine: Machine, client: str) -> None:
        """Until the guest is here, and is what was planned.

        Raises:
            LauncherError: it is not, or its source is not heard any more.
        """
        policy, news = self._moves.policy, asyncio.Event()
        refuse_other(await machine.verify(), machine.plan.verify)
        if policy.migration_tls:
            tls.check_folder(policy.migration_tls, "server", self._moves.host)
            await tls.arm(machine.monitor, policy.migration_tls, "server", client=client)
        side = await waiting_side(machine)
        events = {"capabilities": [{"capability": "events", "state": True}]}
        await machine.monitor.execute("migrate-set-capabilities", events)
        transport = Transport(Via("tcp", host=policy.migration_address))
        await transport.open_destination(machine)
        self._prepared = {
            "side": side,
            "address": policy.migration_address,
            "port": transport.via.port,
            "tls": bool(policy.migration_tls),
        }
        self._say(PREPARED, self._prepared, SOON)
        with Watched(machine, news) as watched:
            await self._follow(watched, news)
        while (await machine.monitor.execute("query-status"))["status"] == "inmigrate":
            self._check_source()
            await asyncio.sleep(0.002)  # from "completed" to the runstate is one bottom half
        report = await machine.verify()
        refuse_other(report, machine.plan.verify)
        shown = {"verdict": report.verdict, "counts": report.counts}
        self._say(PROVED, {**shown, "said": list(machine.said()[-16:])})

    async def _follow(self, watched: Watched, news: asyncio.Event) -> None:
        """Tell the source how far it is, until QEMU has all of it.

        Raises:
            LauncherError: QEMU failed, or the source gave up.
        """
        told, at, refused = "", 0.0, 0
        while watched.status != "completed":
            news.clear()
            self._check_source()
            if watched.ended or watched.status == "failed":
                with suppress(TimeoutError):
                    await watched.wait_end(2.0)
                words = watched.words()
                raise QEMUError(words[0] if words else "QEMU ended", evidence={"said": list(words)})
            now = time.monotonic()
            strangers = [word for word in watched.words() if tls.REFUSED in word]
            for word in strangers[refused:]:
                log(f"{self.move.machine}: not {self.move.peer}: {word}")
            refused = len(strangers)
            if watched.status != told or now - at >= _TELL:
                told, at = watched.status, now
                self._say(PROGRESS, {"status": told, "said": list(watched.words())}, SOON)
            with suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    await news.wait()

    def _check_source(self) -> None:
        """Raise when the source does not want it any more, or is silent.

        Raises:
            HostError: so it is.
        """
        if self._order == ABORT:
            raise HostError(f"{self.move.peer} gave up", code="aborted")
        silent = time.monotonic() - self._heard
        if silent > LEASE:
            words = f"{self.move.peer} was not heard for {silent:.0f} s"
            raise HostError(words, code="silent")

    async def _decide(self, machine: Machine, owned: Owned) -> None:
        """Wait for the word, and let the guest run.

        Raises:
            LauncherError: it did not come, or QEMU ended before it did.
        """
        while self._order != COMMIT:
            self._news.clear()
            self._check_source()
            if machine.process.poll() is not None:
                raise QEMUError("QEMU ended with the guest in it")
            with suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    await self._news.wait()
        if machine.process.poll() is not None:
            raise QEMUError("QEMU ended with the guest in it")
        moves = self._moves
        self.move = replace(self.move, phase=COMMITTED)
        moves.journal.keep_move(self.move)
        if self.move.ran:
            await machine.monitor.execute("cont")
        self.move = replace(self.move, result="ran")
        self._say(COMMITTED)
        moves.journal.keep_move(self.move)
        await tls.disarm(machine.monitor)
        arrived = replace(owned, phase="running", moving="", since=time.time())
        await moves.machines.let_go(machine, arrived)
        moves.machines.tell(owned.name, "arrived", {"from": self.move.peer})

    async def _give_up(self, machine: Machine | None, error: BaseException) -> None:
        """Kill the machine, and only then say so."""
        moves, move = self._moves, self.move
        if move.result == "ran":
            return  # it runs: whatever failed since then, it is not to be ended for it
        said = machine.said()[-16:] if machine is not None else []
        ran = move.phase == COMMITTED and not await _never_ran(machine, error)
        if machine is not None:
            machine.process.send_signal(9)
            with suppress(TimeoutError, LauncherError):
                await machine.process.wait(10.0)
            if machine.process.poll() is None:
                return  # nothing is said of what lives: the source is left to ask
            with suppress(LauncherError):
                await machine.close()
        result = LOST if ran else ""
        phase = COMMITTED if ran else ABORTED
        self.move = replace(move, phase=phase, result=result)
        moves.journal.keep_move(self.move)
        shown = error if isinstance(error, LauncherError) else LauncherError("the agent ended")
        self._say(LOST if ran else ABORTED, {"error": shown.as_json(), "said": said})
        moves.machines.gone(move.machine, "abandoned", {"from": move.peer, "why": shown.message})


async def _never_ran(machine: Machine | None, error: BaseException) -> bool:
    """Whether a QEMU that was told to run has refused to, and still says that it does not."""
    if machine is None or not isinstance(error, CommandError):
        return False
    with suppress(LauncherError):
        return not (await machine.monitor.execute("query-status"))["running"]
    return False


def refuse_other(report: Report, verify: str) -> None:
    """Under `strict`, let only what is as planned through.

    Raises:
        VerdictError: it is not.
    """
    if verify == "strict":
        refuse(report)
