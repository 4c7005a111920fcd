"""The stream: from the first byte until the destination has loaded all of it."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, suppress

from launcher.errors import LauncherError
from launcher.migrate.model import MigrationError, progress_of
from launcher.migrate.watch import Watched

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any, Protocol, Self

    from launcher.migrate.model import End, Limits, Progress
    from launcher.migrate.transport import Transport

#: Seconds for an end that has failed to say why, and end.
_LAST_WORDS = 2.0
#: What a source says that was told to cancel (QAPI: MigrationStatus).
_CANCELLED = ("cancelled", "cancelling")
_BY_OTHERS = "it was cancelled at the source"
#: Seconds between two notes about progress.
_TELL = 0.2


if TYPE_CHECKING:

    class Watch(Protocol):
        """What is known of a destination while it lasts: `Watched`, or word from another host."""

        info: dict[str, Any]
        answered: float

        @property
        def status(self) -> str:
            """MigrationStatus; `none` before there is one."""
            ...

        @property
        def ended(self) -> bool:
            """Whether it is gone."""
            ...

        def words(self) -> tuple[str, ...]:
            """Why it failed."""
            ...

        async def open(self, transport: Transport) -> None:
            """Have it listen, or load."""
            ...

        async def wait_end(self, seconds: float) -> None:
            """Wait until it is gone; TimeoutError."""
            ...

        def __enter__(self) -> Self: ...
        def __exit__(
            self,
            kind: type[BaseException] | None,
            error: BaseException | None,
            trace: TracebackType | None,
        ) -> None: ...


class Cancelled(LauncherError):
    """Somebody else told the source to cancel."""


class Carrying:
    """A stream on its way.

    Args:
        source: the end that runs the guest.
        destination: the end that takes it; of another host, what makes a `Watch` of it, given the
            event that is set at each news.
        transport: what it travels through.
        limits: how long it may take.
        on_progress: called a few times a second.

    Attributes:
        here, there: the source and the destination.
        begun: the source was told to send.
        progress: the last that the source said.
    """

    def __init__(
        self,
        source: End,
        destination: End | Callable[[asyncio.Event], Watch],
        transport: Transport,
        limits: Limits,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self.begun = False
        self.progress: Progress | None = None
        self.transport = transport
        self._limits = limits
        self._on_progress = on_progress
        self._news = asyncio.Event()
        self._watching = ExitStack()
        self.here = Watched(source, self._news)
        self.there: Watch = (
            destination(self._news) if callable(destination) else Watched(destination, self._news)
        )
        self._released = False
        self._alone = ""
        self._over = False
        self._loop = asyncio.get_running_loop()
        self._began = self._told = self._moved_at = self._loop.time()
        self._moved: tuple[object, ...] = ()

    async def carry(self) -> None:
        """Send everything, until the destination has loaded it and the source has stopped.

        Raises:
            MigrationError: an end failed, died, or nothing moves any more.
            Cancelled: the source was told to cancel.
            CommandError: an end refuses to begin; MonitorError: it does not answer.
        """
        self._watching.enter_context(self.here)
        self._watching.enter_context(self.there)
        self._began = self._moved_at = self._loop.time()
        if self.transport.live:
            await self.there.open(self.transport)
            await self._send()
        else:
            await self._send()
            await self._until(lambda: self.here.status == "completed")
            await self.there.open(self.transport)
        await self._until(self._is_carried)

    async def write(self) -> None:
        """Send everything to a file, until the source has stopped.

        Raises:
            As `carry`.
        """
        self._alone = "the guest could not be written"
        self._watching.enter_context(self.here)
        await self._send()
        await self._until(lambda: self.here.status == "completed")

    async def read(self) -> None:
        """Load everything from a file.

        Raises:
            As `carry`.
        """
        self._alone = "the guest could not be loaded"
        self._watching.enter_context(self.there)
        await self.there.open(self.transport)
        await self._until(lambda: self.there.status == "completed")

    def stop_watching(self) -> None:
        """Ask neither end any more."""
        self._watching.close()

    async def _send(self) -> None:
        self.begun = True
        await self.transport.open_source(self.here.machine)
        # What was answered before it began is of another migration: of the one in which it came.
        self.here.info = {}

    def _is_carried(self) -> bool:
        if self.there.status != "completed":
            return False
        # A source that is dead runs no guest either, and the destination has all of it.
        return self.here.status == "completed" or self.here.ended

    async def _until(self, done: Callable[[], bool]) -> None:
        """Wait for `done`, as long as both ends give hope for it."""
        while not done():
            self._news.clear()
            await self._look()
            with suppress(TimeoutError):
                async with asyncio.timeout(_TELL):
                    await self._news.wait()
        self._note_progress(self._loop.time())

    def _note_progress(self, now: float) -> None:
        if not self.here.info or self._over:
            return
        self.progress = progress_of(self.here.info, now - self._began)
        self._over = self.progress.status == "completed"
        if self._on_progress is not None and (self._over or now - self._told >= _TELL):
            self._told = now
            self._on_progress(self.progress)

    async def _look(self) -> None:
        """Tell the progress; raise when there is no hope left."""
        here, there, now = self.here, self.there, self._loop.time()
        self._note_progress(now)
        if self._alone and (here.ended or "failed" in (here.status, there.status)):
            raise await self._failed(self._alone, (there, here))
        if here.ended and (there.ended or there.status == "failed" or not self.transport.live):
            raise await self._failed("the source ended", (here, there))
        if there.ended or there.status == "failed":
            error = await self._failed("the destination could not load the guest", (there, here))
            raise Cancelled(_BY_OTHERS) if await self._was_cancelled() else error
        if here.status == "failed":
            raise await self._failed("the source could not send the guest", (there, here))
        if here.status in _CANCELLED:
            raise Cancelled(_BY_OTHERS)
        if here.status == "pre-switchover" and not self._released:
            self._released = True
            state = {"state": "pre-switchover"}
            await here.machine.monitor.execute("migrate-continue", state)
        self._check_stall(now)

    def _check_stall(self, now: float) -> None:
        """Give up what hangs.

        Raises:
            MigrationError: nothing moves any more, or it takes too long altogether.
        """
        here, there, limits = self.here, self.there, self._limits
        sent = self.progress.transferred if self.progress is not None else 0
        state = (sent, here.status, there.status, here.ended)
        if state != self._moved:
            self._moved, self._moved_at = state, now
        still = now - self._moved_at
        # While it loads a file, a destination tells nothing.
        loading = not self.transport.live and here.status != "active"
        if still > limits.stall and not loading:
            for name, end in (("destination", there), ("source", here)):
                silent = now - end.answered
                if silent > still / 2:
                    words = f"the {name}'s monitor stopped answering {silent:.0f} s ago"
                    raise MigrationError(words)
            raise MigrationError(
                f"it hangs: nothing moved for {still:.0f} s (the source is {here.status}, "
                f"the destination {there.status})"
            )
        if now - self._began > limits.whole:
            raise MigrationError(
                f"it was not done within {limits.whole:g} s",
                hint="a guest that writes faster than max-bandwidth carries is never done; "
                "raise migration.parameters.max-bandwidth or downtime-limit",
            )

    async def _was_cancelled(self) -> bool:
        """Whether the source was told to: then the destination may fail before we are told why."""
        with suppress(LauncherError):
            monitor = self.here.machine.monitor
            told = await monitor.execute("query-migrate", timeout=_LAST_WORDS)
            return told.get("status") in _CANCELLED
        return False

    async def _failed(self, words: str, ends: tuple[Watch, Watch]) -> MigrationError:
        """The error, once the destination has had the time to say why."""
        if self.transport.live or self.there.status == "failed":
            with suppress(TimeoutError):
                await self.there.wait_end(_LAST_WORDS)
        causes = [*ends[0].words(), *ends[1].words()]
        return MigrationError(f"{words}: {causes[0]}" if causes else words)
