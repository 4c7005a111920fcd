"""`Guest`: commands and files in the guest, whichever way they go."""

from __future__ import annotations

from launcher.errors import LauncherError
from launcher.guest.ran import FILE_LIMIT, LIMIT, GuestError, Ran

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from typing import Any, TypeVar

    from launcher.console import Console
    from launcher.guest.agent import Agent
    from launcher.guest.port import Port
    from launcher.guest.shell import Shell

    _T = TypeVar("_T")

#: Seconds that a way gets beyond its deadline to say why it was missed.
_OWN_WORDS = 3.0
#: In the order in which they are taken.
WAYS = ("agent", "shell")


class Guest:
    """Commands and files in a guest; `machine.guest`.

    Over qemu-guest-agent where the profile has `guest-agent: true`, else over the shell that
    stands at the first serial console; never over one because the other failed. Over the shell all
    that is typed and answered shows on the console, too.

    Attributes:
        via: what is used: `agent` or `shell`.
    """

    def __init__(
        self, ways: Mapping[str, Agent | Shell], wait: Callable[[float], Awaitable[int]]
    ) -> None:
        self.via = next((name for name in WAYS if name in ways), "")
        self._ways = ways
        self._wait = wait

    def over(self, via: str) -> Guest:
        """The same over `agent` or `shell`.

        Raises:
            LookupError: the machine does not have that.
        """
        if via not in self._ways:
            raise LookupError(_MISSING.get(via, f"there is no {via!r}: agent or shell"))
        return Guest({via: self._ways[via]}, self._wait)

    @property
    def _way(self) -> Agent | Shell:
        if not self.via:
            raise LookupError(f"{_MISSING['agent']}, or `serial: console` for its shell")
        return self._ways[self.via]

    async def ping(self, timeout: float = 10.0) -> None:  # noqa: ASYNC109
        """Return when the guest has answered.

        Args:
            timeout: seconds.

        Raises:
            GuestError: it has not.
        """
        await self._in_time("ping", self._way.ping(timeout), timeout)

    async def run(
        self,
        command: str | Sequence[str],
        *,
        timeout: float = 60.0,  # noqa: ASYNC109 (asyncio.timeout inside)
        limit: int = LIMIT,
        input: bytes | str = b"",  # noqa: A002 (subprocess calls it so)
    ) -> Ran:
        """Run a command in the guest and wait for its end: `await machine.guest.run("uname -r")`.

        Args:
            command: a text for a shell, or the words of a program.
            timeout: seconds. A command that takes longer goes on in the guest, over the agent; at
                the console it is interrupted.
            limit: bytes of stdout and of stderr that are kept, 16 MiB at most over the agent.
            input: what it reads; nothing by default.

        Raises:
            GuestError: it did not end in time, or the way to the guest failed. That it ended with
                a status other than 0 is no error: see `Ran.check`.
        """
        given = input.encode() if isinstance(input, str) else input
        return await self._in_time("run", self._way.run(command, timeout, limit, given), timeout)

    async def read(self, path: str, *, timeout: float = 60.0, limit: int = FILE_LIMIT) -> bytes:  # noqa: ASYNC109
        """What a file of the guest's holds.

        Args:
            path: in the guest.
            timeout: seconds.
            limit: bytes that it may have.

        Raises:
            GuestError: it cannot be read, or has more.
        """
        return await self._in_time(path, self._way.read(path, timeout, limit), timeout)

    async def write(self, path: str, data: bytes | str, *, timeout: float = 60.0) -> None:  # noqa: ASYNC109
        """Make a file in the guest, or replace what is in it.

        Raises:
            GuestError: it cannot be written.
        """
        raw = data.encode() if isinstance(data, str) else data
        await self._in_time(path, self._way.write(path, raw, timeout), timeout)

    async def execute(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout: float = 10.0,  # noqa: ASYNC109
    ) -> Any:
        """Execute a command of the agent's: `await machine.guest.execute("guest-get-osinfo")`.

        Args:
            command: its name (QAPI: qga/qapi-schema.json).
            arguments: by QAPI name.
            timeout: seconds.

        Raises:
            GuestError: the agent refused it, or did not answer.
            LookupError: the machine has no agent.
        """
        from launcher.guest.agent import Agent

        way = self._way if self.via == Agent.name else None
        if way is None:
            raise LookupError(_MISSING["agent"])
        assert isinstance(way, Agent)
        return await way.port.ask(command, dict(arguments or {}), seconds=timeout)

    async def shutdown(self, timeout: float = 60.0) -> int:  # noqa: ASYNC109
        """Tell the guest to power down, and wait until QEMU has ended.

        Returns:
            QEMU's exit status.

        Raises:
            GuestError: it still runs.
        """
        await self._way.shutdown(timeout)
        try:
            return await self._wait(timeout)
        except TimeoutError:
            raise GuestError(
                f"the guest did not power down within {timeout:g} s", code="guest-command"
            ) from None

    async def _in_time(self, what: str, work: Awaitable[_T], seconds: float) -> _T:
        import asyncio

        try:
            async with asyncio.timeout(seconds + _OWN_WORDS):
                return await work
        except TimeoutError:
            raise GuestError(
                f"{what}: not done in the guest within {seconds:g} s", code=f"guest-{self.via}"
            ) from None
        except LauncherError as error:
            error.evidence.setdefault("via", self.via)
            raise


def reach(
    port: Port | None, console: Console | None, wait: Callable[[float], Awaitable[int]]
) -> Guest:
    """The guest of a machine that has these.

    Args:
        port: of its agent.
        console: the serial console at which a shell may stand.
        wait: waits so many seconds for the end of QEMU; returns its exit status.
    """
    ways: dict[str, Agent | Shell] = {}
    if port is not None:
        from launcher.guest.agent import Agent

        ways["agent"] = Agent(port)
    if console is not None:
        from launcher.guest.shell import Shell
        from launcher.guest.terminal import Terminal

        ways["shell"] = Shell(Terminal(console))
    return Guest(ways, wait)


_MISSING = {
    "agent": "the machine has no port for an agent; add `guest-agent: true`",
    "shell": "the machine has no console; add `serial: console`",
}
