"""The machines that are an agent's: start one, find them again, see them end.

A machine is started as `run --detach` starts it, so it outlives the agent, and `ps`, `stop` and
`qmp` of the command line know it. Whose it is stands in the journal, under name and UUID, before
there is a process: what runs under a name that is not there is somebody else's and left alone.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from launcher import rejoin
from launcher.agent.ends import Ends
from launcher.agent.journal import Owned
from launcher.agent.links import MONITOR, Links
from launcher.agent.planning import Planner
from launcher.agent.policy import PolicyError
from launcher.bus.topics import check_id
from launcher.errors import HostError, InputError, LauncherError
from launcher.host.runtime import claim, list_machines
from launcher.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from launcher.agent.journal import Journal
    from launcher.agent.policy import Policy
    from launcher.host.runtime import Machine
    from launcher.machine import Machine as Running
    from launcher.monitor import Event
    from launcher.prepare import Prepared
    from launcher.process import Process
    from launcher.report import Report

    class Tell(Protocol):
        """Told whenever something about a machine changed."""

        def __call__(self, name: str, how: str, data: Any = None) -> None:
            """Name of the machine, a word for what changed, and what else is to be told."""
            ...


#: The kind of paper (see `journal`) that the lock of a machine is.
LOCK = "lock"


class Machines:
    """What runs here and is ours.

    Args:
        journal: where it stands whose a machine is.
        policy: what may be started.
        profiles: the folder of the profiles that have names; "" for none.
        tell: called with a name whenever something about that machine changed.
        hear: called with a name and an event of its QEMU.

    Attributes:
        owned: by name.
        reports: the last report of each.
    """

    def __init__(
        self,
        journal: Journal,
        policy: Policy,
        profiles: str,
        tell: Tell,
        hear: Callable[[str, dict[str, Any]], None],
    ) -> None:
        self.journal = journal
        self.policy = policy
        self.planner = Planner(policy, profiles)
        self.owned: dict[str, Owned] = journal.machines()
        self.reports: dict[str, Report] = {}
        self.tell = tell
        self.hear = hear
        self._ends = Ends(self._ended)
        self._links = Links(self._heard)
        self._stopping: set[str] = set()

    # -- looking ------------------------------------------------------------------------------

    def find(self, name: str) -> Machine:
        """The running machine of that name, which is ours.

        Raises:
            InputError: none runs, or it is not ours.
        """
        owned = self.owned.get(check_id(name, "a machine's name"))
        if owned is not None and owned.phase == "incoming":
            words = f"{name} is on its way here from {owned.moving}"
            raise InputError(words, hint="send it again when it has come", code="moving")
        machine = rejoin.find(name)
        if owned is None or machine.state is None or machine.state.uuid != owned.uuid:
            raise InputError(
                f"{name} is not a machine of this agent",
                hint="`adopt` takes over a detached machine of this host's user",
                code="foreign",
            )
        return machine

    def state(self, name: str) -> dict[str, Any]:
        """What is published of one machine."""
        owned, report = self.owned[name], self.reports.get(name)
        # By its pidfd, where there is one: a look at the records of fifty takes 10 ms.
        pid, actual = self._ends.living(name), owned.wanted
        if pid is None:
            try:
                pid = self.find(name).pid
            except LauncherError:
                actual = "ended"
        if owned.phase != "running":
            actual = owned.phase
        elif pid is not None and owned.moving:
            actual = "migrating"
        return {
            "name": name,
            "uuid": owned.uuid,
            "wanted": owned.wanted,
            "actual": actual,
            "moving": owned.moving or None,
            "pid": pid,
            "profile": owned.profile or None,
            "platform": owned.platform or None,
            "digest": owned.digest,
            "verdict": report.verdict if report else None,
            "counts": report.counts if report else None,
            "memory": owned.memory,
            "cpus": owned.cpus,
            "since": round(owned.since, 3),
        }

    def used(self) -> dict[str, int]:
        """How much of the host is given to machines of ours."""
        return {
            "machines": len(self.owned),
            "cpus": sum(one.cpus for one in self.owned.values()),
            "memory": sum(one.memory for one in self.owned.values()),
        }

    # -- starting -----------------------------------------------------------------------------

    def check_room(self, name: str, memory: int, cpus: int) -> None:
        """Refuse one machine more than policy has room for.

        Raises:
            PolicyError: there is none.
        """
        others = [one for one in self.owned.values() if one.name != name]
        if len(others) >= self.policy.machines:
            raise PolicyError(f"{len(others)} machines run, and no more are allowed", code="room")
        taken = sum(one.memory for one in others)
        if taken + memory > self.policy.total_memory:
            words = f"{name} wants {memory} bytes, {taken} of {self.policy.total_memory} are given"
            raise PolicyError(words, code="room")

    async def start(self, prepared: Prepared, owned: Owned, verify: str | None) -> Report:
        """Start a machine as `run --detach` does; from its first moment it is in the journal.

        Raises:
            LauncherError: as `launcher.start.start`; then nothing of it runs.
        """
        from launcher.begin import begin
        from launcher.start import start

        self.own(owned)
        try:
            started = begin(prepared, named=True, detached=True, monitors=(MONITOR,))
        except BaseException:
            self.disown(owned.name)
            raise
        kept = False
        try:
            machine = await start(started, verify=verify)
            await self.let_go(machine, replace(owned, phase="running", since=time.time()))
            kept = True
        finally:
            if not kept:
                started.abandon()
                self.disown(owned.name)
        self.tell(owned.name, "started")
        assert machine.report is not None
        return machine.report

    async def let_go(self, machine: Running, owned: Owned) -> None:
        """From a machine that this process holds to one that outlives it, and is watched."""
        await machine.monitor.close()
        machine.resources.release(keep_directory=True)
        self.own(owned)
        if machine.report is not None:
            self.reports[owned.name] = machine.report
        self._watch(owned.name, machine.process.pid, machine.process)

    async def end(self, name: str, first: str) -> str:
        """End a machine of ours; the rung that worked.

        Raises:
            LauncherError: as `launcher.rejoin.stop`.
        """
        by = await self.end_quietly(name, first)
        self.gone(name, "stopped")
        return by

    async def end_quietly(self, name: str, first: str) -> str:
        """As `end`; who calls it tells why, with `gone`."""
        machine = self.find(name)
        self._stopping.add(name)
        try:
            return await rejoin.stop(machine, first)
        finally:
            self._stopping.discard(name)

    def gone(self, name: str, how: str, data: Any = None) -> None:
        """A machine of ours has ended, or is ours no more: forget it, and tell."""
        if name in self.owned:
            self._unwatch(name)
            self.disown(name)
            self.tell(name, how, data)

    def adopt(self, name: str) -> None:
        """Take over a detached machine that is nobody's.

        Raises:
            InputError: it does not run, is not detached, or is not described by a plan.
        """
        from launcher.agent.policy import machine_size
        from launcher.plan.kept import restore_plan

        machine = rejoin.find(check_id(name, "a machine's name"))
        state = rejoin.state_of(machine)
        plan = restore_plan(state.plan)
        if machine.holder is not None or not rejoin.is_detached(state) or plan is None:
            raise InputError(f"{name} is not a detached machine that can be adopted", code="held")
        assert machine.pid is not None
        memory, cpus = machine_size(plan)
        self.own(
            Owned(
                name=name,
                uuid=state.uuid,
                digest="",
                wanted="running",
                phase="running",
                since=time.time(),
                memory=memory,
                cpus=cpus,
                profile=state.profile,
                platform=state.platform,
            )
        )
        self._watch(name, machine.pid)
        self.tell(name, "adopted")

    # -- coming back --------------------------------------------------------------------------

    async def rejoin(self) -> None:
        """Find the machines of an agent that is no more; verify them; tell which ones died.

        One that was not let run yet is ended: nobody has proved it, and the command that began it
        is in the journal and begins again.
        """
        running = {machine.name: machine for machine in list_machines() if machine.alive}
        await asyncio.gather(
            *(self._rejoin(owned, running.get(name)) for name, owned in list(self.owned.items()))
        )

    async def _rejoin(self, owned: Owned, machine: Machine | None) -> None:
        if machine is None or machine.state is None or machine.state.uuid != owned.uuid:
            self.gone(owned.name, "abandoned" if owned.phase == "starting" else "died")
            self._clean(owned.name)  # refused where another machine has that name now
            return
        if owned.phase in ("starting", "incoming"):
            await rejoin.stop(machine, rejoin.FORCE)
            self.gone(owned.name, "abandoned")
            return
        assert machine.pid is not None
        self._watch(owned.name, machine.pid)
        self.tell(owned.name, "adopted")
        try:
            await self.verify(owned.name)
        except LauncherError:
            self.tell(owned.name, "silent")

    async def verify(self, name: str) -> Report:
        """Read a machine of ours back again.

        Raises:
            LauncherError: as `launcher.rejoin.verify`.
        """
        report = await rejoin.verify(self.find(name))
        self.reports[name] = report
        self.tell(name, "verified" if report.verdict == "match" else "mismatch")
        return report

    async def execute(self, name: str, command: str, arguments: dict[str, Any]) -> Any:
        """One QMP command to a machine of ours.

        Raises:
            LauncherError: it did not take it.
        """
        machine = self.find(name)
        monitor = self._links.monitor(name)
        if monitor is not None:
            return await monitor.execute(command, arguments or None)
        monitor = await rejoin.connect(machine)
        try:
            return await monitor.execute(command, arguments or None)
        finally:
            await monitor.close()

    def set_wanted(self, name: str, wanted: str) -> None:
        """Note whether the guest is to run."""
        self.own(replace(self.owned[name], wanted=wanted))
        self.tell(name, wanted)

    def keep_lock(self, name: str, document: Any) -> None:
        """Keep the lock of a machine of ours, which is published as long as it is ours."""
        self.journal.keep_paper(name, LOCK, "", document)
        self.tell(name, "locked")

    # -- records and ends ---------------------------------------------------------------------

    def own(self, owned: Owned) -> None:
        """Write down that a machine is ours, or what changed of it."""
        self.journal.keep(owned)
        self.owned[owned.name] = owned

    def disown(self, name: str) -> None:
        """Cross out a machine, with all that is kept of it."""
        self.journal.forget(name)
        self.owned.pop(name, None)
        self.reports.pop(name, None)

    def _watch(self, name: str, pid: int, child: Process | None = None) -> None:
        """See its end, and hear its events."""
        self._ends.watch(name, pid, child)
        with suppress(LauncherError):  # it has ended already, which is told
            self._links.open(self.find(name))

    def _unwatch(self, name: str) -> None:
        self._ends.unwatch(name)
        self._links.close(name)

    def _heard(self, name: str, event: Event, dropped: int) -> None:
        """QEMU told something of a machine; see `links.TOLD`."""
        data = {"event": event.name, "data": event.data, "seconds": event.seconds}
        self.hear(name, {**data, "dropped": dropped})

    def _ended(self, name: str) -> None:
        """A machine ended without us: its guest powered down, or QEMU was killed or crashed."""
        if name in self._stopping:
            self._unwatch(name)  # who stops it tells, and removes what it leaves
            return
        code = self._ends.code(name)
        self.gone(name, "ended" if code in (0, None) else "crashed")
        self._clean(name)

    @staticmethod
    def _clean(name: str) -> None:
        """Remove what a dead machine of ours left; never what lives or is held."""
        with suppress(HostError, InputError, OSError):
            claim(name).remove()

    async def close(self) -> None:
        """Let go of everything; the machines go on."""
        self._ends.close()
        await self._links.close_all()
        self.planner.close()
