"""The Python API without asyncio.

    from launcher import sync

    with sync.launch("profiles/web.yaml", platform="debian-12") as machine:
        machine.report            # verified before the guest ran
        machine.qmp("query-status")
        machine.console.wait_for("login:")

The same names, arguments and errors as `launcher.launch`, `launcher.lock` and `launcher.Machine`.
All machines of a process live in one thread with a loop of its own, in which consoles and events
are read whatever the program does meanwhile. So it may be used from several threads, and where
a loop already runs (a notebook). Ctrl-C ends what is being waited for and is passed on; whatever
still runs when the interpreter ends is stopped.
"""

from __future__ import annotations

from launcher.errors import LauncherError
from launcher.sync.console import Console
from launcher.sync.machine import Machine
from launcher.sync.start import incoming, launch, lock

__all__ = ["Console", "LauncherError", "Machine", "incoming", "launch", "lock"]
