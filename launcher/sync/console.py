"""Consoles and events, as programs without asyncio see them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Iterator

    from launcher import console, monitor
    from launcher.sync.thread import Caller


class Console:
    """A serial console; see `launcher.console.Console`."""

    def __init__(self, inner: console.Console, thread: Caller) -> None:
        self._inner = inner
        self._thread = thread

    @property
    def text(self) -> str:
        """What the guest wrote and is still kept."""
        return self._thread.do(lambda: self._inner.text)

    @property
    def dropped(self) -> int:
        """Characters that no longer are in memory."""
        return self._inner.dropped

    @property
    def closed(self) -> bool:
        """Whether the machine closed it, or we did."""
        return self._inner.closed

    def read(self) -> str:
        """What came since the last `read` or `expect`, without waiting."""
        return self._thread.do(self._inner.read)

    def forget(self) -> None:
        """Drop what is kept: from now on only what the guest writes from now on counts."""
        self._thread.do(self._inner.forget)

    def listen(self, callback: Callable[[bytes], None]) -> Callable[[], None]:
        """Call `callback` with every piece of output from now on, in the launcher's thread.

        Returns:
            What ends that.
        """
        return self._thread.do(self._inner.listen, callback)

    def wait_for(self, pattern: str, timeout: float = 60.0) -> str:
        """Wait until the console shows `pattern`, a regular expression; returns what matched.

        Output that came before the call counts, as far as it is still kept.

        Raises:
            LauncherError: it did not come in time, or the machine ended.
        """
        return self._thread.call(self._inner.wait_for(pattern, timeout))

    def expect(self, pattern: str, timeout: float = 60.0) -> re.Match[str]:
        """Wait for `pattern`, a regular expression, in what was not read or expected yet.

        Raises:
            LauncherError: as `wait_for`.
        """
        return self._thread.call(self._inner.expect(pattern, timeout))

    def send_line(self, line: str) -> None:
        """Type `line` and press return."""
        self._thread.call(self._inner.send_line(line))

    def write(self, data: bytes | str) -> None:
        """Type `data` at the guest's console."""
        self._thread.call(self._inner.write(data))

    def wait_closed(self, timeout: float | None) -> None:
        """Wait until all that the guest wrote has been read, or for `timeout` seconds."""
        self._thread.call(self._inner.wait_closed(timeout))

    def close(self) -> None:
        """Stop reading; waiting `wait_for`s end. May be repeated."""
        self._thread.do(self._inner.close)


class Events:
    """A machine's events; see `launcher.monitor.Events`. Iterating waits for the next one."""

    def __init__(self, inner: monitor.Events, thread: Caller) -> None:
        self._inner = inner
        self._thread = thread

    def __call__(self, *names: str, since: int | None = None) -> Events:
        """Only these names (QAPI), and only those after `since`, a `mark`."""
        return Events(self._inner(*names, since=since), self._thread)

    def mark(self) -> int:
        """The number of the last event so far."""
        return self._inner.mark()

    @property
    def history(self) -> list[monitor.Event]:
        """What came so far, oldest first."""
        return self._thread.do(lambda: self._inner.history)

    @property
    def dropped(self) -> dict[str, int]:
        """Name → how many were over their budget and were not looked at."""
        return self._thread.do(lambda: self._inner.dropped)

    def __iter__(self) -> Iterator[monitor.Event]:
        events = self._thread.do(self._inner.__aiter__)

        async def following() -> monitor.Event | None:
            return await anext(events, None)

        async def closing() -> None:
            await events.aclose()

        try:
            while (event := self._thread.call(following())) is not None:
                yield event
        finally:
            self._thread.call(closing())
