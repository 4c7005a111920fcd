"""The order of a migration, and its undoing. Composes what is below a machine.

Exactly one copy of the guest runs, whatever happens:

- The destination is started with `-S`: it does not run when the stream has been loaded. It is told
  to (`cont`) only when it has loaded everything and the source has stopped for good: when the
  source says `completed`, or has ended.
- Until then the destination is killed and reaped first when something goes wrong, and then the
  source goes on. It can do so even from `postmigrate`: its RAM and devices are whole, and `cont`
  takes its disks back (qmp_cont, blk/bdrv_activate_all).
- Once the destination has been told to run, the source is never continued.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from launcher.errors import HostError, InputError, LauncherError, MonitorError
from launcher.migrate.carry import Cancelled, Carrying
from launcher.migrate.encrypted import check_names
from launcher.migrate.model import Limits, Migration, MigrationError
from launcher.migrate.transport import Transport, Via, knows_file, parse_via
from launcher.preflight import breaks, explain, preflight

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from launcher.machine import Machine
    from launcher.migrate.model import Progress
    from launcher.monitor import Monitor
    from launcher.preflight import Finding
    from launcher.report import Report

#: Seconds for one short command to an end that is expected to answer.
_SHORT = 5.0
#: Seconds for an end that has failed to say why, and end.
_LAST_WORDS = 2.0
#: What query-migrate calls an outgoing migration that has ended (QAPI: MigrationStatus).
_OVER = ("none", "completed", "failed", "cancelled")
#: Runstates from which `cont` lets a source's guest go on (QAPI: RunState).
_CONTINUABLE = ("paused", "postmigrate", "finish-migrate", "prelaunch")


async def migrate(
    source: Machine,
    destination: Machine,
    *,
    via: str | Via = "unix",
    force: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    limits: Limits | None = None,
) -> Migration:
    """Move the guest of `source` to `destination`, and end `source`.

    When it returns, the guest runs at the destination as it ran at the source (a paused one stays
    paused). When it raises, the guest is where it was and the destination is gone; cancelling is
    no exception to that.

    Args:
        source: a machine of this launcher.
        destination: one that waits with `-incoming defer`.
        via: the transport, see `parse_via`.
        force: migrate although the preflight says that it would break.
        on_progress: called a few times a second.
        limits: deadlines.

    Raises:
        MigrationError: refused, failed, or cancelled by somebody else; `.migration` tells.
        InputError: the destination does not wait, or the transport cannot be.
    """
    chosen = parse_via(via) if isinstance(via, str) else via
    move = Move(source, destination, chosen, limits or Limits(), on_progress)
    try:
        try:
            await move.agree(force)
            await move.stream.carry()
            move.lap("carried")
            await move.prove()
        finally:
            move.stream.stop_watching()
        await surely(move.commit())
    except asyncio.CancelledError:
        if not move.committed:
            await surely(move.undo())
        raise
    except LauncherError as error:
        if not move.committed:
            await surely(move.undo())
        raise move.failure(error) from error
    except BaseException:
        if not move.committed:
            await surely(move.undo())
        raise
    return move.outcome("completed")


async def surely(work: Coroutine[Any, Any, Any]) -> None:
    """Do `work` to its end, and only then be cancelled."""
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            cancelled = True
    task.result()
    if cancelled:
        raise asyncio.CancelledError


async def let_go(monitor: Monitor, begun: bool, ran: bool, seconds: float) -> None:
    """Wait until a source has let go of a migration that was given up; its guest runs as it did.

    Args:
        monitor: the source's.
        begun: it was told to send.
        ran: its guest ran.
        seconds: how long that may take.

    Raises:
        TimeoutError: it took longer.
        CommandError: QEMU will not go on (the destination holds its disks).
        MonitorError: it does not answer.
    """
    async with asyncio.timeout(seconds):
        while begun:
            info = await monitor.execute("query-migrate", timeout=_SHORT)
            if info.get("status", "none") in _OVER:
                break
            await asyncio.sleep(0.02)  # there is no event for the end of a cancellation
        while True:
            status = await monitor.execute("query-status", timeout=_SHORT)
            if status["running"] or not ran:
                break
            if status["status"] in _CONTINUABLE:
                await monitor.execute("cont", timeout=_SHORT)
            await asyncio.sleep(0.02)


class Refused(LauncherError):
    """A check before the first byte says that it would not work."""


class Move:
    """One migration, step by step: agree, carry, prove, commit; or undo.

    Attributes:
        committed: the destination was told to run, or may as well have been.
    """

    def __init__(
        self,
        source: Machine,
        destination: Machine,
        via: Via,
        limits: Limits,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self.source = source
        self.destination = destination
        self.limits = limits
        self.committed = False
        self.before: Report | None = None
        self.after: Report | None = None
        self.findings: tuple[Finding, ...] = ()
        self.said: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
        self.timings: dict[str, float] = {}
        self.stream = Carrying(source, destination, Transport(via), limits, on_progress)
        self._ran = False
        self._guest = "source"
        self._loop = asyncio.get_running_loop()
        self._began = self._mark = self._loop.time()

    def lap(self, name: str) -> None:
        """Note how long a part took."""
        now = self._loop.time()
        self.timings[name] = round((now - self._mark) * 1000, 1)
        self._mark = now

    # -- before the first byte ------------------------------------------------------------------

    async def agree(self, force: bool) -> None:
        """Both ends are ready, the destination is as planned, and nothing speaks against it.

        Raises:
            Refused: something does.
            InputError: an end is not in the state for it.
        """
        status = await self.source.monitor.execute("query-status")
        self._ran = bool(status["running"])
        waiting = await self.destination.monitor.execute("query-status")
        if waiting["status"] != "inmigrate":
            raise InputError(
                f"the destination does not wait for a guest: it is {waiting['status']}",
                hint="start it with `-incoming defer`",
                code="destination",
            )
        try:
            check_names(self.source.plan, self.destination.plan, self.stream.transport.via)
        except HostError as error:
            raise Refused(error.message, hint=error.hint) from error
        self.before = await self.destination.verify()
        self._refuse_mismatch(self.before, "before the stream was loaded", force)
        self.lap("verified")
        self.findings = await self._compare()
        self.lap("preflight")
        wrong = breaks(self.findings)
        if wrong and not force:
            raise Refused(f"it would fail: {wrong[0].message}", hint=_cure(wrong[0]))
        # Not from the plan: that is what the profile says, and this how the launcher watches.
        events = {"capabilities": [{"capability": "events", "state": True}]}
        for end in (self.source, self.destination):
            await end.monitor.execute("migrate-set-capabilities", events)

    def _via(self) -> str:
        """The transport as QEMU sees it: an end that cannot open files is given a descriptor."""
        kind = self.stream.transport.via.kind
        ends = (self.source, self.destination)
        files = all(knows_file(end.prepared.capabilities) for end in ends)
        return "fd" if kind == "file" and not files else kind

    def _refuse_mismatch(self, report: Report, when: str, force: bool) -> None:
        plan = self.destination.plan
        if report.verdict != "match" and plan.verify == "strict" and not force:
            wrong = len(report.wrong) + len(report.complaints)
            raise Refused(
                f"the destination is not as planned {when}: {wrong} "
                f"{'value differs' if wrong == 1 else 'values differ'}"
            )

    # -- the end --------------------------------------------------------------------------------

    async def prove(self) -> None:
        """The destination is as planned now that the guest is in it, which does not run yet.

        Raises:
            Refused: it is not.
        """
        monitor = self.destination.monitor
        while (await monitor.execute("query-status"))["status"] == "inmigrate":
            await self._still_there()  # from "completed" to the runstate is one bottom half
        self.after = await self.destination.verify()
        self._refuse_mismatch(self.after, "with the guest in it", False)
        self.lap("proved")

    async def _still_there(self) -> None:
        if self._loop.time() - self._mark > self.limits.stall:
            raise MigrationError("the destination has loaded the guest and still waits")
        await asyncio.sleep(0.001)

    async def commit(self) -> None:
        """Let the destination run, and end the source. From here on there is no way back."""
        self.committed = True
        self._guest = ""
        if self._ran:
            await self.destination.monitor.execute("cont")
            resumed = await self.destination.monitor.wait_event("RESUME", timeout=_SHORT)
            stopped = [e for e in self.source.monitor.events if e.name == "STOP"]
            if stopped:
                gap = resumed.seconds - stopped[-1].seconds
                self.timings["blackout"] = round(gap * 1000, 1)
            self._guest = "destination"
        self.lap("resumed")
        self.timings["total"] = round((self._loop.time() - self._began) * 1000, 1)
        self.stream.transport.close()
        with suppress(LauncherError):
            await self.source.stop()
        for console in self.source.consoles.values():
            await console.wait_closed(_LAST_WORDS)
        await self.source.close()
        self.lap("source_ended")

    async def undo(self) -> None:
        """End the destination, then let the source's guest go on. Never raises for an end's fault.

        In this order: a destination that is dead cannot run the guest.
        """
        stream = self.stream
        # Before our own doing makes both ends complain.
        self.said = (stream.here.words(), stream.there.words())
        monitor = self.source.monitor
        if stream.begun:
            with suppress(LauncherError):
                await monitor.execute("migrate_cancel", timeout=_SHORT)
        process = self.destination.process
        with suppress(TimeoutError, LauncherError):
            process.send_signal(9)
            await process.wait(self.limits.undo)
        dead = process.poll() is not None
        with suppress(LauncherError):
            await self.destination.close()
        with suppress(OSError, LauncherError):
            if stream.begun:
                stream.transport.discard()
            stream.transport.close()
        self._guest = ""
        if dead and self.source.process.poll() is None:
            with suppress(LauncherError, TimeoutError):
                await self._settle()
        if not self._guest and not monitor.connected:
            # A process that is killed hangs up before it has ended.
            with suppress(TimeoutError):
                await self.source.process.wait(_SHORT)

    async def _settle(self) -> None:
        """Wait until the source has let go of the migration; its guest runs as it did."""
        await let_go(self.source.monitor, self.stream.begun, self._ran, self.limits.undo)
        self._guest = "source"

    def outcome(self, result: str) -> Migration:
        """What came of it."""
        return Migration(
            result=result,
            via=str(self.stream.transport.via),
            findings=self.findings,
            before=self.before,
            after=self.after,
            timings=dict(self.timings),
            progress=self.stream.progress,
            guest=self._guest,
            source_said=self.said[0],
            destination_said=self.said[1],
        )

    def failure(self, error: LauncherError) -> MigrationError:
        """The error for the caller: what happened, and where the guest is."""
        result = {Refused: "refused", Cancelled: "cancelled"}.get(type(error), "failed")
        if isinstance(error, MonitorError) and self.source.process.poll() is not None:
            error.message = f"the source ended: {error.message}"
        where = {
            "source": "the guest runs at the source as before"
            if self._ran
            else "the source is paused as before",
            "destination": "the guest runs at the destination",
        }.get(self._guest) or self._lost()
        words = [*self.said[1], *self.said[0]]
        known = explain(self.findings, "\n".join(words)) if result == "failed" else ()
        why = f" ({known[0].message})" if known else ""
        return MigrationError(
            f"{self.source.plan.name} was not migrated: {error.message}{why}; {where}",
            migration=self.outcome(result),
            hint=error.hint or (_cure(known[0]) if known else ""),
            evidence={"qemu_stderr": words, **error.evidence},
        )

    async def _compare(self) -> tuple[Finding, ...]:
        """What the preflight finds, of both ends as they are now."""
        from launcher.data import load_rules
        from launcher.ends import end_of

        ends = (await end_of(self.source), await end_of(self.destination))
        return preflight(*ends, load_rules(), self._via(), still=not self._ran)

    def _lost(self) -> str:
        """Where the guest is when it was not seen to run."""
        if self.committed:
            # It may have run there and written to its disks.
            return "the destination was told to run the guest, so the source is left paused"
        if self.source.process.poll() is not None:
            return "the source has ended, and the guest with it"
        return "the source was not seen to go on; it may not answer"


def _cure(finding: Finding) -> str:
    return " or ".join(one.text for one in finding.cures) or "nothing cures it"
