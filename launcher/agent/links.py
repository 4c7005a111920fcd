"""A second QMP session with each machine, for what QEMU tells of its own accord.

QEMU serves one client of a monitor at a time, and the first one is for the command line (`qmp`,
`stop`). So an agent's machines have another, `qmp-agent` in their runtime directory; one that was
adopted may lack it, and then nothing is heard of it but its end.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress

from launcher import rejoin
from launcher.errors import LauncherError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from launcher.host.runtime import Machine
    from launcher.monitor import Event, Monitor

#: The monitor's name.
MONITOR = "qmp-agent"
#: Events that are told to others (QAPI); the rest are QEMU's business with its launcher.
TOLD = frozenset(
    (
        *("SHUTDOWN", "RESET", "POWERDOWN", "SUSPEND", "SUSPEND_DISK", "WAKEUP", "STOP", "RESUME"),
        *("WATCHDOG", "GUEST_PANICKED", "GUEST_CRASHLOADED", "GUEST_PVSHUTDOWN"),
        *("BLOCK_IO_ERROR", "BLOCK_IMAGE_CORRUPTED", "BLOCK_JOB_ERROR", "MEMORY_FAILURE"),
        *("DEVICE_DELETED", "MEM_UNPLUG_ERROR", "DUMP_COMPLETED"),
    )
)
#: Of one machine: so many at once, and then so many a second. A guest makes them in a loop.
_BURST, _RATE = 32.0, 2.0


class Budget:
    """So many at once, then so many a second; what is beyond is counted.

    Attributes:
        dropped: since the last that was let through.
    """

    def __init__(
        self, burst: float, rate: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.dropped = 0
        self._burst, self._rate, self._clock = burst, rate, clock
        self._left, self._at = burst, clock()

    def admits(self) -> bool:
        """Whether one more is let through."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1.0:
            self.dropped += 1
            return False
        self._left -= 1.0
        return True


class Links:
    """Sessions by the names of machines.

    Args:
        tell: called with a name, an event, and how many were dropped before it.
    """

    def __init__(self, tell: Callable[[str, Event, int], None]) -> None:
        self._tell = tell
        self._monitors: dict[str, Monitor] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def open(self, machine: Machine) -> None:
        """Listen to a machine as soon as it answers."""
        if os.path.exists(os.path.join(machine.path, MONITOR)):
            work = self._listen(machine)
            self._tasks[machine.name] = asyncio.get_running_loop().create_task(work)

    def monitor(self, name: str) -> Monitor | None:
        """The session with a machine, while there is one."""
        found = self._monitors.get(name)
        return found if found is not None and found.connected else None

    def close(self, name: str) -> None:
        """Listen to a machine no more."""
        task = self._tasks.pop(name, None)
        if task is not None:
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
            task.cancel()

    async def close_all(self) -> None:
        """Listen to nobody any more; no session is left."""
        for name in list(self._tasks):
            self.close(name)
        # The end of the loop would cut them off, and asyncio tell of it with a traceback.
        await asyncio.gather(*self._closing, return_exceptions=True)

    async def _listen(self, machine: Machine) -> None:
        name, budget = machine.name, Budget(_BURST, _RATE)

        def heard(event: Event) -> None:
            if event.name in TOLD and budget.admits():
                dropped, budget.dropped = budget.dropped, 0
                self._tell(name, event, dropped)

        monitor = None
        try:
            with suppress(LauncherError):
                monitor = await rejoin.connect(machine, MONITOR)
                monitor.on_event(heard)
                self._monitors[name] = monitor
                with monitor.listen(()) as stream:
                    async for _ in stream:
                        pass  # it ends with the session
        finally:
            self._monitors.pop(name, None)
            if monitor is not None:
                await monitor.close()
