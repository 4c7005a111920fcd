"""The ends of machines, seen as they come: a pidfd for each, which may be no child of ours."""

from __future__ import annotations

import asyncio
import os
import select

from launcher.host.state import start_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from launcher.process import Process


class Ends:
    """Watches processes by the names of their machines.

    Args:
        tell: called with a name when its process has ended.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._fds: dict[str, int] = {}
        self._pids: dict[str, int] = {}
        self._children: dict[str, Process] = {}

    def watch(self, name: str, pid: int, child: Process | None = None) -> None:
        """See the end of a process.

        Args:
            name: of its machine.
            pid: of the process.
            child: the process, when we started it: it is to be reaped then.
        """
        if child is not None:
            self._children[name] = child
        before = start_time(pid)
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            fd = -1
        if fd < 0 or before is None or start_time(pid) != before:
            if fd >= 0:
                os.close(fd)
            asyncio.get_running_loop().call_soon(self._tell, name)
            return
        self._fds[name], self._pids[name] = fd, pid
        asyncio.get_running_loop().add_reader(fd, self._tell, name)

    def unwatch(self, name: str) -> None:
        """Look no more."""
        self._pids.pop(name, None)
        fd = self._fds.pop(name, None)
        if fd is not None:
            asyncio.get_running_loop().remove_reader(fd)
            os.close(fd)
        child = self._children.pop(name, None)
        if child is not None:
            child.poll()  # reaped: a machine that we started is our child until we are restarted

    def living(self, name: str) -> int | None:
        """The pid of a watched process that runs at this moment; the kernel is asked."""
        fd = self._fds.get(name)
        if fd is None:
            return None
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return None if poll.poll(0) else self._pids[name]

    def code(self, name: str) -> int | None:
        """How a child ended; None when it runs, or is no child of ours."""
        child = self._children.get(name)
        return child.poll() if child is not None else None

    def close(self) -> None:
        """Look at nothing any more."""
        for name in list(self._fds):
            self.unwatch(name)
