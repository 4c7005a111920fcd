"""A machine as a service: what systemd, or whoever keeps one process running, is told about it."""

from __future__ import annotations

from launcher.notify import notifier
from launcher.process import Deadlines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.errors import LauncherError
    from launcher.machine import Machine
    from launcher.plan import Plan
    from launcher.report import Report


class Service:
    """Tells a service manager, where there is one, how one machine is.

    Args:
        plan: of the machine.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._manager = notifier()

    def starts(self) -> None:
        """QEMU was spawned."""
        self._manager.tell(STATUS=f"{self._plan.name} starts")

    def runs(self, report: Report) -> None:
        """It was read back, and the guest runs: what waits for this machine may go on."""
        good = "as planned" if report.verdict == "match" else "and not all of it as planned"
        self._manager.tell(READY=1, STATUS=f"{self._plan.name} runs, {good}")

    def stops(self, why: str, *, kindly: bool) -> None:
        """It is being ended; the manager is to wait as long as the whole ladder may take.

        Each rung has its deadline: the guest's own from the profile, then QEMU's.
        """
        ladder = Deadlines()
        seconds = ladder.quit + ladder.term + ladder.kill
        if kindly:
            seconds += self._plan.powerdown_seconds
        self._manager.tell(
            STOPPING=1,
            STATUS=f"{self._plan.name} stops: {why}",
            EXTEND_TIMEOUT_USEC=int(seconds * 1e6),
        )

    def failed(self, error: LauncherError) -> None:
        """It could not be started, or did not end well."""
        self._manager.tell(STATUS=error.message)

    async def beat(self, machine: Machine) -> None:
        """Signs of life, for as long as QEMU's main loop answers its monitor; until cancelled."""
        await self._manager.pulse(
            lambda seconds: machine.monitor.execute("query-version", timeout=seconds)
        )
