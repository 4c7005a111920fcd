"""A machine's events, those that came and those that will, as one thing to iterate over."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from launcher.monitor.events import Event
    from launcher.monitor.session import Monitor


class Events:
    """The events of a monitor, of some names or all, from a mark on.

        async for event in machine.events("STOP", "RESUME"):
            ...

    An iteration begins with what came before it, as far as it is kept (the last 1024), and ends
    with the connection.
    """

    def __init__(self, monitor: Monitor, names: tuple[str, ...] = (), since: int = 0) -> None:
        self._monitor = monitor
        self._names = names
        self._since = since

    def __call__(self, *names: str, since: int | None = None) -> Events:
        """Only these names (QAPI), and only those after `since`, a `mark`."""
        return Events(self._monitor, names or self._names, self._since if since is None else since)

    def mark(self) -> int:
        """The number of the last event so far."""
        return self._monitor.mark()

    @property
    def history(self) -> list[Event]:
        """What came so far, oldest first."""
        return [e for e in self._monitor.events if e.number > self._since and self._wants(e)]

    @property
    def dropped(self) -> dict[str, int]:
        """Name → how many were over their budget and were not looked at."""
        return dict(self._monitor.dropped)

    def _wants(self, event: Event) -> bool:
        return not self._names or event.name in self._names

    async def __aiter__(self) -> AsyncGenerator[Event, None]:
        # Listened to before the past is read: an event in between comes twice, and not never.
        with self._monitor.listen(self._names or None, size=1024) as stream:
            last = self._since
            for event in self.history:
                last = event.number
                yield event
            async for event in stream:
                if event.number > last:
                    yield event
