"""The guest of a running machine, as programs without asyncio see it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from launcher import guest
    from launcher.sync.thread import Caller

#: As `launcher.guest.ran` has them, which is imported when a guest is used.
_LIMIT, _FILE_LIMIT = 1 << 20, 64 << 20


class Guest:
    """Commands and files in a guest; see `launcher.guest.Guest`."""

    def __init__(self, inner: guest.Guest, thread: Caller) -> None:
        self._inner = inner
        self._thread = thread

    @property
    def via(self) -> str:
        """What is used: `agent` or `shell`."""
        return self._inner.via

    def over(self, via: str) -> Guest:
        """The same over `agent` or `shell`.

        Raises:
            LookupError: the machine does not have that.
        """
        return Guest(self._inner.over(via), self._thread)

    def ping(self, timeout: float = 10.0) -> None:
        """Return when the guest has answered; as `launcher.guest.Guest.ping`."""
        self._thread.call(self._inner.ping(timeout))

    def run(
        self,
        command: str | Sequence[str],
        *,
        timeout: float = 60.0,
        limit: int = _LIMIT,
        input: bytes | str = b"",  # noqa: A002 (as subprocess)
    ) -> guest.Ran:
        """Run a command in the guest: `machine.guest.run("uname -r").stdout`.

        Takes, gives and raises what `launcher.guest.Guest.run` does.
        """
        return self._thread.call(
            self._inner.run(command, timeout=timeout, limit=limit, input=input)
        )

    def read(self, path: str, *, timeout: float = 60.0, limit: int = _FILE_LIMIT) -> bytes:
        """What a file of the guest's holds; as `launcher.guest.Guest.read`."""
        return self._thread.call(self._inner.read(path, timeout=timeout, limit=limit))

    def write(self, path: str, data: bytes | str, *, timeout: float = 60.0) -> None:
        """Make a file in the guest; as `launcher.guest.Guest.write`."""
        self._thread.call(self._inner.write(path, data, timeout=timeout))

    def execute(
        self, command: str, arguments: Mapping[str, Any] | None = None, *, timeout: float = 10.0
    ) -> Any:
        """Execute a command of the agent's; as `launcher.guest.Guest.execute`."""
        return self._thread.call(self._inner.execute(command, arguments, timeout=timeout))

    def shutdown(self, timeout: float = 60.0) -> int:
        """Tell the guest to power down, and wait for the end; QEMU's exit status."""
        return self._thread.call(self._inner.shutdown(timeout))
