"""A migration rehearsed on one host: both ends started, the guest moved, and proved to go on.

Composes; what a face shows is in `Rehearsal`, as far as it has come.
"""

from __future__ import annotations

import re
from contextlib import suppress

from launcher.begin import begin
from launcher.errors import InputError, LauncherError
from launcher.helpers import make_beside, take_beside
from launcher.incoming import incoming
from launcher.migrate import Limits, MigrationError, follow, parse_via
from launcher.migrate.counter import TICK, pattern_of
from launcher.migrate.encrypted import check_names, endpoint_settings, turn_round
from launcher.prepare import Request, load, prepare
from launcher.record import record, replace
from launcher.start import start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from launcher.machine import Machine
    from launcher.migrate import Counter, Migration, Progress
    from launcher.prepare import Prepared
    from launcher.report import Report

#: Seconds for a guest to come up, when it was not said what shows that it has.
_UP_SECONDS = 60.0
#: So many numbers are awaited at the destination, and each for so many seconds.
_NUMBERS = 2
_NUMBER_SECONDS = 10.0


@record
class Rehearsing:
    """What is asked of a rehearsal.

    Attributes:
        source, destination: QEMU binaries, by name or path; "" is the profile's own.
        source_settings, destination_settings: `path=value` texts for one end alone, for what two
            machines on one host cannot share: the name of a tap, a forwarded port.
        via: the transport.
        legs: how often the guest moves; 2 is there and back.
        up: a regular expression that the console shows when the guest is up; "" waits for the
            counter, and goes on without.
        up_seconds: how long that may take.
        counter: a regular expression whose group is the guest's own counter.
        force: migrate although the preflight says that it would break.
    """

    profile: str
    platform: str = ""
    source: str = ""
    destination: str = ""
    settings: tuple[str, ...] = ()
    source_settings: tuple[str, ...] = ()
    destination_settings: tuple[str, ...] = ()
    via: str = "unix"
    legs: int = 1
    up: str = ""
    up_seconds: float = _UP_SECONDS
    counter: str = TICK
    force: bool = False
    limits: Limits = Limits()


class Leg:
    """One migration of a rehearsal.

    Attributes:
        source_report: what was read back at the source before its guest ran there, or when it had
            arrived there.
        counter: None when it did not come so far.
    """

    def __init__(self, source_report: Report | None, migration: Migration) -> None:
        self.source_report = source_report
        self.migration = migration
        self.counter: Counter | None = None


class Rehearsal:
    """A rehearsal, as far as it has come.

    Args:
        asked: what is asked.
        on_progress: called with what a migration says of itself.
        on_step: called with a sentence at each step.

    Attributes:
        legs: the migrations so far, the last may have failed.
        machine: where the guest is.
    """

    def __init__(
        self,
        asked: Rehearsing,
        on_progress: Callable[[Progress], None] | None = None,
        on_step: Callable[[str], None] | None = None,
    ) -> None:
        self.asked = asked
        self.legs: list[Leg] = []
        self.machine: Machine | None = None
        self._on_progress = on_progress
        self._on_step = on_step or (lambda _text: None)
        self._started = 0
        self._states: list[tuple[str, str]] = []
        try:
            pattern_of(asked.counter)
            re.compile(asked.up)
        except (re.error, ValueError) as error:
            raise InputError(f"not a regular expression for it: {error}", code="usage") from None

    async def run(self) -> None:
        """Do all of it, and end both machines.

        Raises:
            LauncherError: the profile cannot be had at one end, an end did not start, the guest
                did not come up, or (MigrationError) did not move. `legs` has what is known.
        """
        first, arrivals = await self._prepare_all()
        arrivals[1] = self._with_states(first, arrivals[1])
        try:
            self._on_step(f"starting the source, QEMU {first.plan.version}")
            self.machine = await start(begin(first, folder=self._folder(first)))
            try:
                await self._wait_up(self.machine)
                for number in range(self.asked.legs):
                    await self._move(arrivals[(number + 1) % 2])
            finally:
                await self.machine.close()
        finally:
            self._settle_states()

    async def _prepare_all(self) -> tuple[Prepared, list[Prepared]]:
        """The plan of the first source, and one for a guest's arrival on each of the binaries.

        They differ with TLS: who takes a guest is the server, and who sends it the client.
        """
        via, legs = parse_via(self.asked.via), self.asked.legs
        first, there = await self._prepare(0), await self._prepare(1)
        check_names(first.plan, there.plan, via)
        back = first
        if legs > 1:
            check_names(there.plan, first.plan, via)
            back = await self._as("server", first, 0)
        there = await self._as("server", there, 1)
        return await self._as("client", first, 0), [back, there]

    async def _as(self, role: str, prepared: Prepared, end: int) -> Prepared:
        """A plan with its half of TLS, and with both where the guest goes on from there."""
        more = endpoint_settings(prepared, role, both=role == "server" and self.asked.legs > 1)
        return await self._prepare(end, more) if more else prepared

    async def _prepare(self, end: int, more: tuple[str, ...] = ()) -> Prepared:
        asked = self.asked
        own = (asked.source_settings, asked.destination_settings)[end]
        binary = (asked.source, asked.destination)[end]
        settings = (*asked.settings, *own, *more)
        return await prepare(load(Request(asked.profile, asked.platform, binary, settings)))

    def _with_states(self, first: Prepared, there: Prepared) -> Prepared:
        """The other end with folders of its own for what a helper keeps (the state of a TPM).

        What is in it goes over with the guest, and two swtpms cannot have one folder. Where the
        profile has the same for both, the other end's is beside it.
        """
        helpers = list(there.plan.helpers)
        ours = {helper.chardev: helper.folder for helper in first.plan.helpers}
        for number, helper in enumerate(helpers):
            folder = helper.folder
            if folder == ours.get(helper.chardev) and "${runtime}" not in folder:
                beside = make_beside(folder)
                self._states.append((folder, beside))
                helpers[number] = replace(helper, folder=beside)
        return there.with_plan(replace(there.plan, helpers=tuple(helpers)))

    def _settle_states(self) -> None:
        """Where the guest ended at the other end, what its helpers kept there is the newest."""
        helpers = self.machine.plan.helpers if self.machine is not None else ()
        last = {helper.folder for helper in helpers}
        for folder, beside in self._states:
            take_beside(folder, beside, keep=beside in last)

    def _folder(self, prepared: Prepared) -> str:
        """A name for a runtime directory: both ends have the machine's name, and one UUID."""
        self._started += 1
        plan = self.machine.plan if self.machine is not None else prepared.plan
        return f"{plan.name[:40]}-{plan.uuid[:8]}-{self._started}"

    async def _wait_up(self, machine: Machine) -> None:
        """Wait until the guest is up.

        Raises:
            LauncherError: it did not show what was said to show it.
        """
        if not machine.consoles:
            return
        seconds = self.asked.up_seconds
        self._on_step(f"waiting up to {seconds:g} s for the guest to come up")
        try:
            pattern = self.asked.up or pattern_of(self.asked.counter).pattern
            await machine.console.wait_for(pattern, seconds)
        except LauncherError:
            if self.asked.up or machine.process.poll() is not None:
                raise
            self._on_step(f"its console showed no counter in {seconds:g} s; going on without")

    async def _move(self, prepared: Prepared) -> None:
        source = self.machine
        assert source is not None
        reported = source.report
        folder = self._folder(prepared)
        self._on_step(f"starting the destination, QEMU {prepared.plan.version}")
        destination = await incoming(prepared, uuid=source.plan.uuid, folder=folder)
        try:
            await turn_round(source)
            migration = await source.migrate(
                destination,
                via=self.asked.via,
                force=self.asked.force,
                on_progress=self._on_progress,
                limits=self.asked.limits,
            )
        except MigrationError as error:
            if error.migration is not None:
                self.legs.append(Leg(reported, error.migration))
            raise
        except BaseException:
            await destination.close()
            raise
        self.machine = destination
        leg = Leg(reported, migration)
        self.legs.append(leg)
        leg.counter = await self._follow(source, destination)

    async def _follow(self, source: Machine, destination: Machine) -> Counter:
        """The guest's own proof, once it has had the time to give it."""
        if not destination.consoles:
            return follow("", "")
        before = source.console.text
        counter = self.asked.counter
        if follow(before, "", counter).verdict != "absent":
            self._on_step("following the guest's counter")
            several = f"(?s)(?:{pattern_of(counter).pattern}.*?){{{_NUMBERS}}}"
            with suppress(LauncherError):  # then the counter says that it stopped
                await destination.console.wait_for(several, _NUMBERS * _NUMBER_SECONDS)
        return follow(before, destination.console.text, counter)


def leg_json(leg: Leg) -> dict[str, Any]:
    """The JSON shape of one migration."""
    from launcher.report import report_json

    migration = leg.migration
    progress = migration.progress
    destination = migration.after or migration.before
    counter = leg.counter
    return {
        "result": migration.result,
        "via": migration.via,
        "source": report_json(leg.source_report) if leg.source_report else None,
        "destination": report_json(destination) if destination else None,
        "before": migration.before.verdict if migration.before else None,
        "preflight": [finding.as_json() for finding in migration.findings],
        "timings": dict(migration.timings or {}),
        "ram": {
            "transferred": progress.transferred,
            "remaining": progress.remaining,
            "total": progress.total,
            "dirty_rate": progress.dirty_rate,
            "rate": progress.rate,
            "downtime": progress.downtime,
        }
        if progress
        else None,
        "guest": migration.guest or None,
        "counter": {
            "verdict": counter.verdict,
            "first": counter.first,
            "moved": counter.moved,
            "last": counter.last,
            "faults": list(counter.faults),
        }
        if counter
        else None,
        "said": {
            "source": list(migration.source_said),
            "destination": list(migration.destination_said),
        },
    }
