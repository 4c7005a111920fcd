"""What a service manager is told: that a service is ready, what it does, that it ends and lives.

The protocol is sd_notify(3): datagrams of `NAME=VALUE` lines to the socket that the environment
names. systemd speaks it, and so do container engines and supervisors that took it over. Whoever
sets no NOTIFY_SOCKET is told nothing. QEMU does not inherit these variables.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from typing import Any

#: Seconds that a manager may take to have room for a word; after that it does without.
_PATIENCE = 1.0


class Notifier:
    """Where to tell it, and how often to tell that we live.

    Args:
        address: a socket's path, or `@` and its abstract name; "" tells nobody.
        interval: seconds within which a sign of life is expected; 0 for none.
    """

    def __init__(self, address: str = "", interval: float = 0.0) -> None:
        self.address = address
        self.interval = interval

    def tell(self, **values: str | int) -> None:
        """Send one datagram: `tell(READY=1, STATUS="runs")`; nobody there is no error."""
        if not self.address:
            return
        import socket
        from contextlib import suppress

        # A name or an error's words may hold a line's end, which would begin another variable.
        lines = [f"{name}={' '.join(str(value).split())}" for name, value in values.items()]
        place = f"\0{self.address[1:]}" if self.address.startswith("@") else self.address
        payload = "\n".join(lines).encode("utf-8", "backslashreplace")
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.settimeout(_PATIENCE)
            sock.sendto(payload, place)

    async def pulse(self, alive: Callable[[float], Awaitable[Any]]) -> None:
        """Tell that we live, twice in each interval, until cancelled.

        Args:
            alive: given the seconds that it may take; what it raises as LauncherError means no
                sign of life this time.
        """
        import asyncio

        from launcher.errors import LauncherError

        if not self.address or self.interval <= 0:
            return
        while True:
            try:
                await alive(self.interval / 2)
            except LauncherError:
                pass
            else:
                self.tell(WATCHDOG=1)
            await asyncio.sleep(self.interval / 2)


def notifier(environment: Mapping[str, str] = os.environ) -> Notifier:
    """Whom this process tells, from NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID."""
    address = environment.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return Notifier()
    micros, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    ours = micros.isdecimal() and pid in ("", str(os.getpid()))
    return Notifier(address, int(micros) / 1e6 if ours else 0.0)
