"""The machines that are an agent's: start one, find them again, see them end.

A machine is started as `run --detach` starts it, so it outlives the agent, and `ps`, `stop` and
`qmp` of the command line know it. Whose it is stands in the journal, under name and UUID, before
there is a process: what runs under a name that is not there is somebody else's and left alone.
"""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor

from launcher import rejoin
from launcher.agent.journal import Owned
from launcher.agent.policy import PolicyError, check_binary, check_plan, check_request
from launcher.bus.topics import check_id
from launcher.errors import HostError, InputError, LauncherError
from launcher.host.runtime import claim, list_machines
from launcher.host.state import start_time
from launcher.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager
    from typing import Any

    from launcher.agent.journal import Journal
    from launcher.agent.policy import Policy
    from launcher.host.runtime import Machine
    from launcher.prepare import Prepared
    from launcher.process import Process
    from launcher.report import Report


class Machines:
    """What runs here and is ours.

    Args:
        journal: where it stands whose a machine is.
        policy: what may be started.
        profiles: the folder of the profiles that have names; "" for none.
        tell: called with a name whenever something about that machine changed.

    Attributes:
        owned: by name.
        reports: the last report of each.
    """

    def __init__(
        self, journal: Journal, policy: Policy, profiles: str, tell: Callable[[str, str], None]
    ) -> None:
        self.journal = journal
        self.policy = policy
        self.profiles = profiles
        self.owned: dict[str, Owned] = journal.machines()
        self.reports: dict[str, Report] = {}
        self._tell = tell
        self._ends: dict[str, int] = {}
        self._stopping: set[str] = set()
        self._children: dict[str, Process] = {}
        # Planning holds the interpreter for tens of milliseconds, and may start a throw-away QEMU.
        self._planner = ThreadPoolExecutor(1, "plan")

    # -- looking ------------------------------------------------------------------------------

    def find(self, name: str) -> Machine:
        """The running machine of that name, which is ours.

        Raises:
            InputError: none runs, or it is not ours.
        """
        machine = rejoin.find(check_id(name, "a machine's name"))
        owned = self.owned.get(name)
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
        try:
            pid, actual = self.find(name).pid, owned.wanted
        except LauncherError:
            pid, actual = None, "ended"
        if pid is not None and owned.phase == "starting":
            actual = "starting"
        return {
            "name": name,
            "uuid": owned.uuid,
            "wanted": owned.wanted,
            "actual": actual,
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

    # -- planning -----------------------------------------------------------------------------

    async def prepare(self, arguments: Mapping[str, Any]) -> Prepared:
        """The plan of a request, as far as policy allows it.

        Raises:
            PolicyError: policy does not.
            LauncherError: as `launcher.prepare.prepare`.
        """
        check_request(self.policy, arguments)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._planner, self._prepare, arguments)

    def _prepare(self, arguments: Mapping[str, Any]) -> Prepared:
        from launcher.prepare import Request, load, prepare_now

        profile = arguments["profile"]
        path = self._path_of(profile) if isinstance(profile, str) else profile
        settings = tuple(arguments.get("settings", ()))
        name = arguments.get("name") or (profile if isinstance(profile, str) else "")
        if name:
            # Commands for one machine wait for each other under the name that their words tell.
            settings = (*settings, f"name={name}")
        lock = ""
        if arguments.get("locked"):
            if not isinstance(path, str):
                raise InputError("`locked` is for a profile of the host", code="locked")
            from launcher.lock_files import lock_path

            lock = lock_path(path)
        platform, qemu = arguments.get("platform", ""), arguments.get("qemu", "")
        loaded = load(Request(path, platform, qemu, settings, lock=lock))
        check_binary(self.policy, loaded.binary, os.path.realpath)
        prepared = prepare_now(loaded)
        check_plan(self.policy, prepared.plan, os.path.realpath)
        return prepared

    def _path_of(self, name: str) -> str:
        path = os.path.join(self.profiles, f"{name}.yaml")
        if not self.profiles or not os.path.isfile(path):
            raise InputError(f"this host has no profile {name}", code="absent")
        return path

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

    # -- starting -----------------------------------------------------------------------------

    async def start(self, prepared: Prepared, owned: Owned, verify: str | None) -> Report:
        """Start a machine as `run --detach` does; from its first moment it is in the journal.

        Raises:
            LauncherError: as `launcher.start.start`; then nothing of it runs.
        """
        from launcher.begin import begin
        from launcher.start import start

        self._own(owned)
        try:
            started = begin(prepared, named=True, detached=True)
        except BaseException:
            self._disown(owned.name)
            raise
        kept = False
        try:
            machine = await start(started, verify=verify)
            assert machine.report is not None
            await machine.monitor.close()
            started.resources.release(keep_directory=True)
            self._own(replace(owned, phase="running", since=time.time()))
            kept = True
        finally:
            if not kept:
                started.abandon()
                self._disown(owned.name)
        self.reports[owned.name] = machine.report
        self._children[owned.name] = started.process
        self._watch(owned.name, started.process.pid)
        self._tell(owned.name, "started")
        return machine.report

    async def end(self, name: str, first: str) -> str:
        """End a machine of ours; the rung that worked.

        Raises:
            LauncherError: as `launcher.rejoin.stop`.
        """
        machine = self.find(name)
        self._stopping.add(name)
        try:
            by = await rejoin.stop(machine, first)
        finally:
            self._stopping.discard(name)
        self.gone(name, "stopped")
        return by

    def gone(self, name: str, how: str) -> None:
        """A machine of ours has ended, or is ours no more: forget it, and tell."""
        if name in self.owned:
            self._unwatch(name)
            self._disown(name)
            self._tell(name, how)

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
        self._own(
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
        self._tell(name, "adopted")

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
        if owned.phase == "starting":
            await rejoin.stop(machine, rejoin.FORCE)
            self.gone(owned.name, "abandoned")
            return
        assert machine.pid is not None
        self._watch(owned.name, machine.pid)
        self._tell(owned.name, "adopted")
        try:
            await self.verify(owned.name)
        except LauncherError:
            self._tell(owned.name, "silent")

    async def verify(self, name: str) -> Report:
        """Read a machine of ours back again.

        Raises:
            LauncherError: as `launcher.rejoin.verify`.
        """
        report = await rejoin.verify(self.find(name))
        self.reports[name] = report
        self._tell(name, "verified" if report.verdict == "match" else "mismatch")
        return report

    async def execute(self, name: str, command: str, arguments: dict[str, Any]) -> Any:
        """One QMP command to a machine of ours.

        Raises:
            LauncherError: it did not take it.
        """
        monitor = await rejoin.connect(self.find(name))
        try:
            return await monitor.execute(command, arguments or None)
        finally:
            await monitor.close()

    def set_wanted(self, name: str, wanted: str) -> None:
        """Note whether the guest is to run."""
        self._own(replace(self.owned[name], wanted=wanted))
        self._tell(name, wanted)

    # -- records and ends ---------------------------------------------------------------------

    def _own(self, owned: Owned) -> None:
        self.journal.keep(owned)
        self.owned[owned.name] = owned

    def _disown(self, name: str) -> None:
        self.journal.forget(name)
        self.owned.pop(name, None)
        self.reports.pop(name, None)

    def _watch(self, name: str, pid: int) -> None:
        """See the end of a process, which may be no child of ours, through its pidfd."""
        before = start_time(pid)
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            fd = -1
        if fd < 0 or before is None or start_time(pid) != before:
            asyncio.get_running_loop().call_soon(self._ended, name)
            return
        self._ends[name] = fd
        asyncio.get_running_loop().add_reader(fd, self._ended, name)

    def _unwatch(self, name: str) -> None:
        fd = self._ends.pop(name, None)
        if fd is not None:
            asyncio.get_running_loop().remove_reader(fd)
            os.close(fd)
        child = self._children.pop(name, None)
        if child is not None:
            child.poll()  # reaped: a machine that we started is our child until we are restarted

    def _ended(self, name: str) -> None:
        """A machine ended without us: its guest powered down, or QEMU was killed or crashed."""
        if name in self._stopping:
            self._unwatch(name)  # who stops it tells, and removes what it leaves
            return
        child = self._children.get(name)
        code = child.poll() if child is not None else None
        self.gone(name, "ended" if code in (0, None) else "crashed")
        self._clean(name)

    @staticmethod
    def _clean(name: str) -> None:
        """Remove what a dead machine of ours left; never what lives or is held."""
        with _quiet():
            claim(name).remove()

    def close(self) -> None:
        """Let go of everything; the machines go on."""
        for name in list(self._ends):
            self._unwatch(name)
        self._planner.shutdown(cancel_futures=True)


def _quiet() -> AbstractContextManager[Any]:
    from contextlib import suppress

    return suppress(HostError, InputError, OSError)
