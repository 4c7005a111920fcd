"""One end of a migration while it lasts: asked again and again, and listened to."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from launcher.display import printable
from launcher.errors import CommandError, MonitorError
from launcher.process import describe_exit, meaningful_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any, Self

    from launcher.migrate.model import End
    from launcher.migrate.transport import Transport
    from launcher.monitor import Event

#: Seconds between two questions; an event is answered by the next one at once.
_INTERVAL = 0.25
#: Seconds that a question waits for its answer: longer than any deadline of the one who watches.
_PATIENCE = 3600.0


class Watched:
    """What one end says of the migration.

    Only one question is on its way at a time: an end that does not answer is not asked more.

    Args:
        machine: the end: a machine of ours, or one that was found again.
        news: set whenever something changed.

    Attributes:
        info: the last answer of query-migrate (QAPI: MigrationInfo).
        answered: when it came, in seconds of the loop's clock.
    """

    def __init__(self, machine: End, news: asyncio.Event) -> None:
        self.machine = machine
        self.info: dict[str, Any] = {}
        self.answered = asyncio.get_running_loop().time()
        self._news = news
        self._ask = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._deaf: Callable[[], None] | None = None

    def __enter__(self) -> Self:
        self._deaf = self.machine.monitor.on_event(self._heard)
        self._task = asyncio.ensure_future(self._poll())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._task.cancel()
        if self._deaf is not None:
            self._deaf()

    @property
    def status(self) -> str:
        """MigrationStatus; `none` before there is one."""
        return str(self.info.get("status", "none"))

    @property
    def ended(self) -> bool:
        """Whether the process has ended."""
        return self.machine.process.poll() is not None

    def words(self) -> tuple[str, ...]:
        """Why it failed, in QEMU's own words: of query-migrate, of stderr, and how it ended."""
        found: list[str] = []
        if desc := self.info.get("error-desc"):
            found.append(str(desc))
        machine = self.machine
        found += [one.message for one in meaningful_lines(machine.said(), machine.argv)]
        code = machine.process.returncode
        if code is not None and code < 0:
            found.append(describe_exit(code))
        return tuple(dict.fromkeys(printable(one) for one in found))

    async def open(self, transport: Transport) -> None:
        """Let this end, which is the destination, listen or load.

        Raises:
            CommandError: QEMU refuses; MonitorError: it does not answer.
        """
        await transport.open_destination(self.machine)

    async def wait_end(self, seconds: float) -> None:
        """Wait until the process has ended.

        Raises:
            TimeoutError: it has not.
        """
        await self.machine.process.wait(seconds)

    def _heard(self, event: Event) -> None:
        if event.name == "MIGRATION":
            self._ask.set()

    async def _poll(self) -> None:
        monitor = self.machine.monitor
        ended = asyncio.ensure_future(self.machine.process.wait(None))
        ended.add_done_callback(lambda _task: self._news.set())
        try:
            while True:
                self._ask.clear()
                self.info = await monitor.execute("query-migrate", timeout=_PATIENCE)
                self.answered = asyncio.get_running_loop().time()
                self._news.set()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_INTERVAL):
                        await self._ask.wait()
        except (MonitorError, CommandError):
            # Its end shows on its process; a broken monitor of one that lives, as silence.
            await asyncio.shield(ended)
        finally:
            ended.cancel()
            with suppress(asyncio.CancelledError):
                await ended
