"""Events: a budget for each name before they are parsed, and bounded places to wait in.

A guest decides how many events QEMU sends: writing in a loop to the port of `-device pvpanic`
makes 78 000 to 230 000 GUEST_CRASHLOADED a second. A client that parses them all answers nothing
else. So an event beyond its name's budget is dropped by a look at its bytes, and counted.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque

from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping
    from types import TracebackType
    from typing import Any, Self

# QEMU writes the members of an event in this order and with these spaces (monitor/qmp.c,
# qobject/qjson.c); what is spelled otherwise is parsed, not dropped. A reply never begins so.
EVENT_PREFIX = b'{"timestamp": {'
_NAME_KEY = b'"event": "'

# What the launcher acts on, and what a guest cannot make in a loop without its host's disk or
# migration taking part: a budget that only a fault can exceed.
IMPORTANT = frozenset(
    b"SHUTDOWN STOP RESUME SUSPEND WAKEUP POWERDOWN BLOCK_IO_ERROR BLOCK_JOB_COMPLETED "
    b"BLOCK_JOB_ERROR JOB_STATUS_CHANGE MIGRATION MIGRATION_PASS DEVICE_DELETED".split()
)
_BURST, _RATE = 64.0, 32.0
_IMPORTANT_BURST, _IMPORTANT_RATE = 4096.0, 1024.0
# QEMU has some 60 events. More names than this are a fault, and share one budget.
_MOST_NAMES = 256
_OTHER = b"(other)"


class EventBudget:
    """A token bucket for each name of event: a burst, then so many a second.

    Attributes:
        dropped: name → how many were dropped.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.dropped: dict[str, int] = {}
        self._clock = clock
        self._buckets: dict[bytes, list[float]] = {}  # name → [tokens, time of the last look]

    def admits(self, line: bytes) -> bool:
        """Whether to parse this line; `line` begins with EVENT_PREFIX."""
        # The first one: QEMU escapes quotes in data that a guest can influence, so the key
        # cannot be forged there.
        start = line.find(_NAME_KEY)
        if start < 0:
            return True
        start += len(_NAME_KEY)
        name = line[start : line.find(b'"', start)]
        bucket = self._buckets.get(name)
        if bucket is None:
            name, bucket = self._new_bucket(name)
        now = self._clock()
        important = name in IMPORTANT
        burst = _IMPORTANT_BURST if important else _BURST
        rate = _IMPORTANT_RATE if important else _RATE
        tokens = min(burst, bucket[0] + (now - bucket[1]) * rate)
        bucket[1] = now
        if tokens >= 1.0:
            bucket[0] = tokens - 1.0
            return True
        bucket[0] = tokens
        text = name.decode("ascii", "backslashreplace")
        self.dropped[text] = self.dropped.get(text, 0) + 1
        return False

    def _new_bucket(self, name: bytes) -> tuple[bytes, list[float]]:
        if len(self._buckets) >= _MOST_NAMES:
            name = _OTHER
        burst = _IMPORTANT_BURST if name in IMPORTANT else _BURST
        return name, self._buckets.setdefault(name, [burst, self._clock()])


class EventFilter:
    """Takes over-budget events out of a byte stream; every other byte passes, in order."""

    LONGEST = 64 * 1024  # a longer event is let through rather than held

    def __init__(self, budget: EventBudget) -> None:
        self._budget = budget
        self._held = b""  # the beginning of a line that may turn out to be an event
        self._inside = False  # the beginning of the current line has been passed on

    def feed(self, data: bytes) -> bytes:
        """The next bytes in; those that pass out."""
        if self._inside and b"\n" not in data:
            return data
        passed: list[bytes] = []
        *lines, last = (self._held + data).split(b"\n")
        admits = self._budget.admits
        for line in lines:
            if self._inside or not line.startswith(EVENT_PREFIX) or admits(line):
                passed.append(line + b"\n")
            self._inside = False
        self._held = b""
        if EVENT_PREFIX.startswith(last[: len(EVENT_PREFIX)]) and len(last) < self.LONGEST:
            self._held = last
        else:
            passed.append(last)
            self._inside = True
        return b"".join(passed)

    def rest(self) -> bytes:
        """What was held back when the stream ended."""
        held, self._held = self._held, b""
        return held


@record
class Event:
    """An event as it arrived.

    `number` counts from 1 in the order of arrival, which is the only order there is: `seconds`
    is the host's wall clock at the time (QMP `timestamp`) and may go backwards.
    """

    number: int
    name: str
    data: Mapping[str, Any]
    seconds: float


class EventStream:
    """Events as they come, for one reader: an async iterator that ends with the connection.

    Holds at most `size` events; when the reader is slower, the oldest are dropped and counted in
    `dropped`. Use it as a context manager, or call `close`.
    """

    def __init__(
        self, names: Container[str] | None, size: int, on_close: Callable[[EventStream], None]
    ) -> None:
        self.dropped = 0
        self._names = names
        self._size = size
        self._on_close = on_close
        self._queue: deque[Event] = deque()
        self._wake = asyncio.Event()
        self._ended = False

    def put(self, event: Event) -> None:
        """Offer an event to the reader."""
        if self._names is not None and event.name not in self._names:
            return
        if len(self._queue) >= self._size:
            self._queue.popleft()
            self.dropped += 1
        self._queue.append(event)
        self._wake.set()

    def end(self) -> None:
        """Let the reader finish what is there, and then stop."""
        self._ended = True
        self._wake.set()

    def close(self) -> None:
        """Stop listening."""
        self.end()
        self._on_close(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while not self._queue:
            if self._ended:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        return self._queue.popleft()
