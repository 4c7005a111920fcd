"""The machines of a test run: started, shared, recorded and ended."""

from __future__ import annotations

import os
import re
import threading

from launcher.begin import begin
from launcher.prepare import Request, load, prepare
from launcher.record import record
from launcher.rig import leaks
from launcher.rig.across import Across
from launcher.rig.artifacts import Record
from launcher.rig.guard import FAULTS, Guard
from launcher.rig.slots import Slots, needs
from launcher.start import start
from launcher.sync import Machine as SyncMachine
from launcher.sync.thread import THREAD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from launcher.machine import Machine
    from launcher.prepare import Prepared
    from launcher.rig.guard import GuestFault
    from launcher.snapshot import Snapshot


@record
class Wanted:
    """What a test asks for: the arguments of the mark `machine`.

    Attributes:
        up: a regular expression that a shared machine's console shows when it has booted.
        up_seconds: how long that may take.
        allow: the faults that are no failure (`FAULTS`).
    """

    profile: str | Mapping[str, Any]
    platform: str = ""
    qemu: str = ""
    settings: tuple[str, ...] = ()
    verify: str | None = None
    lock: str = ""
    up: str = ""
    up_seconds: float = 120.0
    allow: tuple[str, ...] = ()


class Running:
    """One machine of a rig."""

    def __init__(self, machine: Machine, guard: Guard, kept: Record, slot: int) -> None:
        self.machine = machine
        self.guard = guard
        self.record = kept
        self.slot = slot
        self.snapshot: Snapshot | None = None
        self.fresh = True

    def face(self, *, asynchronous: bool) -> Any:
        """The machine as a test sees it."""
        if asynchronous:
            return Across(self.machine, self.guard)
        return SyncMachine(self.machine, self.guard)


class Rig:
    """All machines of this process's tests.

    Args:
        folder: where the records of machines are.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._slots = Slots()
        self._shared: dict[tuple[object, ...], Running] = {}
        self._lock = threading.Lock()
        self._count = 0

    def start(self, wanted: Wanted, where: str) -> Running:
        """Start a machine, proved as `launch` does it; waits until the host has room for it.

        Args:
            wanted: what.
            where: the folder of its record, below the rig's.

        Raises:
            LauncherError: as `launch`.
        """
        unknown = set(wanted.allow) - set(FAULTS)
        if unknown:
            raise ValueError(f"allow: {', '.join(sorted(unknown))}; there are {', '.join(FAULTS)}")
        request = Request(
            wanted.profile, wanted.platform, wanted.qemu, wanted.settings, lock=wanted.lock
        )
        prepared = THREAD.call(_prepared(request))
        slot = self._slots.take(*needs(prepared.plan))
        kept = Record(self._folder(where, prepared.plan.name))
        made: list[Running] = []
        try:
            THREAD.call(self._started(prepared, wanted, kept, slot, made))
        except BaseException:
            for running in made:
                self.end(running)
            self._slots.give(slot)
            kept.close()
            raise
        return made[0]

    def _folder(self, where: str, name: str) -> str:
        with self._lock:
            self._count += 1
            return os.path.join(self.folder, file_name(where), f"{self._count}-{file_name(name)}")

    async def _started(
        self, prepared: Prepared, wanted: Wanted, kept: Record, slot: int, made: list[Running]
    ) -> None:
        plan = prepared.plan
        folder = ""
        if "${runtime}" in str([(o.head, o.members) for o in plan.options]) + str(plan.setup):
            # Of its own also when the profile gives a UUID: the same test may run in two workers.
            folder = f"{plan.name[:30]}-{os.getpid()}-{self._count}"
        guards: list[Guard] = []

        def attached(machine: Machine) -> None:
            kept.attach(machine)
            guards.append(Guard(machine, frozenset(wanted.allow)))

        try:
            machine = await start(
                begin(prepared, folder=folder), verify=wanted.verify, attached=attached
            )
        except BaseException:
            for guard in guards:
                guard.close()
            raise
        THREAD.at_end(machine, machine.close)
        made.append(Running(machine, guards[0], kept, slot))

    def share(self, key: tuple[object, ...], wanted: Wanted, where: str) -> Running:
        """The machine of `key`, as it was when it had booted; started when there is none.

        Raises:
            LauncherError: it did not start, did not come up, or could not be restored.
        """
        running = self._shared.get(key)
        if running is not None and not _usable(running):
            self.end_shared(key)
            running = None
        if running is None:
            running = self.start(wanted, where)
            try:
                THREAD.call(running.guard.guarded(_boot(running, wanted)))
            except BaseException:
                self.end(running)
                running.record.close()
                raise
            self._shared[key] = running
        if not running.fresh:
            assert running.snapshot is not None
            THREAD.call(running.guard.guarded(running.machine.restore(running.snapshot)))
        running.fresh = False
        running.machine.monitor.events.clear()
        return running

    def end_shared(self, *first: object) -> None:
        """End the shared machines whose key begins so."""
        for key in [k for k in self._shared if k[: len(first)] == first or k == first[0]]:
            running = self._shared.pop(key)
            self.end(running)
            running.record.discard()

    def end(self, running: Running) -> GuestFault | None:
        """End a machine; returns a fault that its test was not told of."""
        try:
            THREAD.do(running.guard.close)
            THREAD.call(running.machine.close())
        finally:
            THREAD.not_at_end(running.machine)
            self._slots.give(running.slot)
            running.record.close()
        return running.guard.unreported()

    def leaked(self, before: set[int]) -> dict[int, str]:
        """QEMUs of this process that were not there `before` and are not shared: pid → name.

        They are ended.
        """
        shared = {running.machine.process.pid for running in self._shared.values()}
        found = leaks.machines_left(shared | before)
        for pid in found:
            leaks.end(pid)
        return found


def file_name(text: str) -> str:
    """A test's id as the name of a folder."""
    return re.sub(r"[^A-Za-z0-9._\[\]-]+", "_", text).strip("._")[-150:] or "_"


async def _prepared(request: Request) -> Prepared:
    return await prepare(load(request))


async def _boot(running: Running, wanted: Wanted) -> None:
    machine = running.machine
    if wanted.up:
        await machine.console.wait_for(wanted.up, wanted.up_seconds)
    running.snapshot = await machine.snapshot()


def _usable(running: Running) -> bool:
    alive = running.machine.process.poll() is None and running.machine.monitor.connected
    # A snapshot is of the machine as it was: what a test plugged and left costs a boot.
    return alive and running.guard.fault is None and not running.machine.changes
