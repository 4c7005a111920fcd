"""asyncio and the QMP client, while QEMU starts: what takes longest of a cold start."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType


def import_loop() -> None:
    """Import asyncio and qemu.qmp without TLS, which no monitor and no console speaks.

    The ssl module is 12 of 80 ms of these imports. asyncio does without it where it is missing, and
    qemu.qmp wants the name of one class; whoever imports ssl later gets all of it. Only for a
    process of our own: a program that uses the launcher may have other plans with its asyncio.
    """
    if "asyncio" in sys.modules or "ssl" in sys.modules:
        return
    missing: dict[str, ModuleType | None] = sys.modules  # type: ignore[assignment]
    missing["ssl"] = None
    try:
        import asyncio  # noqa: F401

        stand_in = type(sys)("ssl")
        vars(stand_in)["SSLContext"] = object
        missing["ssl"] = stand_in
        import launcher.monitor  # noqa: F401
    finally:
        del missing["ssl"]
