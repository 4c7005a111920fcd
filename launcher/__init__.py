"""Start QEMU with versioned defaults for everything that is not a device, and prove them.

    async with launcher.launch("profiles/web.yaml", platform="debian-12") as machine:
        machine.report            # verified before the guest ran
        await machine.qmp("query-status")

The public names are loaded on first use: importing the package costs nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.errors import LauncherError
    from launcher.locking.start import lock
    from launcher.machine import Machine
    from launcher.saved import restore, save
    from launcher.start import launch

__version__ = "0.1.0"
__all__ = ["LauncherError", "Machine", "__version__", "launch", "lock", "restore", "save"]

_PUBLIC = {
    "launch": "launcher.start",
    "lock": "launcher.locking.start",
    "restore": "launcher.saved",
    "save": "launcher.saved",
    "Machine": "launcher.machine",
    "LauncherError": "launcher.errors",
}


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_PUBLIC[name]), name)
