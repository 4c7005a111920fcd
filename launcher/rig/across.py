"""A machine for asynchronous tests, whatever loop they run in.

The machine lives in the launcher's thread. Each coroutine of it becomes one that the test's own
loop can await; cancelling that cancels the other.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from typing import Any

from launcher.console import Console
from launcher.faults import Faults
from launcher.guest import Guest
from launcher.machine import Machine
from launcher.monitor import Events, Monitor
from launcher.sync.thread import THREAD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine

    from launcher.rig.guard import Guard

#: What lives in the launcher's thread and may only be touched there.
_LIVE = (Console, Events, Faults, Guest, Machine, Monitor)


class Across:
    """Stands for an object of the asyncio face; has its attributes and methods."""

    def __init__(self, inner: Any, guard: Guard) -> None:
        self._inner = inner
        self._guard = guard

    def __repr__(self) -> str:
        return f"<Across {self._inner!r}>"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if isinstance(inspect.getattr_static(type(self._inner), name, None), property):
            return self._shown(self._guard.call(_get(self._inner, name)))
        value = getattr(self._inner, name)
        if inspect.iscoroutinefunction(value):
            return self._awaitable(value)
        if inspect.ismethod(value):
            return self._plain(value)
        return self._shown(value)

    def __call__(self, *args: Any, **named: Any) -> Any:
        """What a call of the object gives: of events, those of some names."""
        return self._shown(self._inner(*args, **named))

    async def __aiter__(self) -> AsyncGenerator[Any, None]:
        events = self._inner.__aiter__()
        try:
            while (event := await self._there(anext(events, None))) is not None:
                yield event
        finally:
            await self._there(events.aclose())

    def _shown(self, value: Any) -> Any:
        if isinstance(value, _LIVE):
            return Across(value, self._guard)
        if isinstance(value, dict) and any(isinstance(v, _LIVE) for v in value.values()):
            return {name: self._shown(v) for name, v in value.items()}
        return value

    def _awaitable(self, method: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
        @functools.wraps(method)
        async def call(*args: Any, **named: Any) -> Any:
            words = [_inner_of(a) for a in args]
            return await self._there(method(*words, **{n: _inner_of(v) for n, v in named.items()}))

        return call

    def _plain(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(*args: Any, **named: Any) -> Any:
            return self._shown(self._guard.do(functools.partial(method, *args, **named)))

        return call

    async def _there(self, work: Any) -> Any:
        async def doing() -> Any:  # what `anext` gives is awaitable and no coroutine
            return await work

        guarded = self._guard.guarded(doing())
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(guarded, THREAD.loop))


async def _get(inner: Any, name: str) -> Any:
    return getattr(inner, name)


def _inner_of(value: Any) -> Any:
    return value._inner if isinstance(value, Across) else value
