"""A process with a QMP session, for as long as a block lasts."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Mapping

from launcher.monitor import Monitor
from launcher.process import Process, spawn

#: The descriptor that QMP is on in the child.
QMP_FD = 9


def spawn_with_qmp(
    argv: list[str],
    *,
    env: Mapping[str, str] | None = None,
    fds: Mapping[int, int] | None = None,
    tie: bool = True,
) -> tuple[Process, socket.socket]:
    """A process whose descriptor QMP_FD is a socket, and our end of it; it is left to the test."""
    ours, theirs = socket.socketpair()
    with theirs:
        inherited = {QMP_FD: theirs.fileno(), **(fds or {})}
        return spawn(argv, fds=inherited, env=dict(env or {}), tie=tie), ours


@contextlib.asynccontextmanager
async def watched(process: Process) -> AsyncIterator[Process]:
    """Watch a process; it is killed in the end."""
    try:
        await process.watch()
        yield process
    finally:
        process.kill()


@contextlib.asynccontextmanager
async def conversation(process: Process, sock: socket.socket) -> AsyncIterator[Monitor]:
    """A QMP session with a process; both end with the block."""
    async with watched(process):
        monitor = await Monitor.connect(sock, timeout=30)
        try:
            yield monitor
        finally:
            await monitor.close()
