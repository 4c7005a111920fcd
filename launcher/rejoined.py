"""A machine that runs already, held by one QMP session: an end of a migration like any other.

    async with rejoined(find("web")) as machine:
        await machine.qmp("query-status")

It is known by what is on record about it; the binary on disk may be another by now, so what it can
do is asked of the process itself.
"""

from __future__ import annotations

from contextlib import asynccontextmanager

from launcher import rejoin
from launcher.errors import HostError
from launcher.host.ending import Ending
from launcher.plan.kept import restore_plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from typing import Any

    from launcher.capabilities import Capabilities
    from launcher.host.runtime import Machine
    from launcher.monitor import Monitor
    from launcher.plan import Plan

#: How a process ended that is no child of ours is not told.
_UNKNOWN_STATUS = 255


class Rejoined:
    """A running machine and a session with it; `launcher.migrate` takes it as an end.

    Attributes:
        plan: what was planned, without the command line (see `launcher.plan.kept`).
        consoles: none; who wants one connects to it.
    """

    def __init__(
        self, machine: Machine, plan: Plan, monitor: Monitor, capabilities: Capabilities
    ) -> None:
        self.plan = plan
        self.monitor = monitor
        self.capabilities = capabilities
        self.folder = machine.path
        self.process = FoundProcess(machine)
        self.consoles: dict[str, Any] = {}
        self.argv = _argv_of(self.process.pid)

    def said(self) -> list[str]:
        """What QEMU said on stderr so far."""
        return rejoin.log_lines(self.folder)

    async def qmp(
        self, command: str, arguments: Mapping[str, Any] | None = None, **more: Any
    ) -> Any:
        """Execute a QMP command; `_` of a keyword is written for `-`.

        Raises:
            CommandError: QEMU answered with an error; MonitorError: it did not answer.
        """
        merged = {**(arguments or {}), **{k.replace("_", "-"): v for k, v in more.items()}}
        return await self.monitor.execute(command, merged or None)


class FoundProcess:
    """The process of a machine that is no child of ours, as far as its end matters."""

    def __init__(self, machine: Machine) -> None:
        state = rejoin.state_of(machine)
        assert machine.pid is not None
        self.pid = machine.pid
        self.returncode: int | None = None
        self.ending = Ending(machine.pid, state.start_time if state.pid is not None else None)

    def poll(self) -> int | None:
        """None while it runs."""
        if self.returncode is None and self.ending.reached():
            self.returncode = _UNKNOWN_STATUS
        return self.returncode

    async def wait(self, timeout: float | None) -> int:  # noqa: ASYNC109 (within has it)
        """Wait until it has ended.

        Raises:
            TimeoutError: it still runs.
        """
        if not await self.ending.within(timeout):
            raise TimeoutError
        self.poll()
        return _UNKNOWN_STATUS

    def close(self) -> None:
        """Let go of it."""
        self.poll()
        self.ending.close()


@asynccontextmanager
async def rejoined(machine: Machine) -> AsyncIterator[Rejoined]:
    """A session with a running machine, for as long as the block.

    Args:
        machine: from `launcher.rejoin.find`.

    Raises:
        HostError: what was planned for it is not on record.
        MonitorError: it does not answer.
    """
    from launcher.capabilities import Capabilities

    plan = restore_plan(rejoin.state_of(machine).plan)
    if plan is None:
        raise HostError(
            f"what was planned for {machine.name} is not on record",
            hint="it was started by another release of the launcher",
        )
    monitor = await rejoin.connect(machine)
    try:
        schema = await monitor.execute("query-qmp-schema")
        version = await monitor.execute("query-version")
        known = Capabilities({"query-qmp-schema": schema, "query-version": version})
        found = Rejoined(machine, plan, monitor, known)
        try:
            yield found
        finally:
            found.process.close()
    finally:
        await monitor.close()


def _argv_of(pid: int) -> list[str]:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().split(b"\0")[:-1]
    except OSError:
        return []
    return [word.decode("utf-8", "surrogateescape") for word in words]
