"""One loop in a thread of its own, and calls into it from any other thread."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any, TypeVar

    _T = TypeVar("_T")

#: Seconds that an interrupted call gets to undo what it had begun: longer than the ladder that
#: ends a QEMU without asking its guest.
_PATIENCE = 20.0


class Caller:
    """What the faces of machines call through."""

    def call(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine where the machine lives, and wait for what it returns or raises."""
        raise NotImplementedError

    def do(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Call a plain function in the loop, where what it touches is safe from other threads."""

        async def doing() -> _T:
            return function(*arguments)

        return self.call(doing())

    def not_at_end(self, key: object) -> None:
        """The machine `key` has been closed."""


class LoopThread(Caller):
    """A thread that runs an event loop; it starts with the first call.

    QEMU is spawned in it. That binds no machine to it: what ends QEMU with us is a pipe of the
    process (launcher/process/spawn.py), not of the thread.
    """

    def __init__(self, name: str = "qemu-launcher") -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._last: dict[object, Callable[[], Coroutine[Any, Any, object]]] = {}

    @property
    def running(self) -> bool:
        """Whether the thread has been started and not stopped."""
        return self._loop is not None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop, started if need be."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                # A daemon: interpreters wait for other threads before they call us to stop it.
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name=self._name, daemon=True
                )
                self._thread.start()
                atexit.register(self.stop)
            return self._loop

    def call(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine in the loop and wait for what it returns or raises.

        When the wait is interrupted (KeyboardInterrupt, a test's timeout), the coroutine is
        cancelled, gets some seconds to undo what it had begun, and the interruption goes on.

        Raises:
            RuntimeError: called from the loop itself, which would wait for ever.
        """
        loop = self.loop
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("launcher.sync was called from its own loop: use the asyncio face")
        ended = threading.Event()
        tasks: list[asyncio.Task[_T]] = []

        def begin() -> None:
            task = loop.create_task(work)
            tasks.append(task)
            task.add_done_callback(lambda _task: ended.set())

        loop.call_soon_threadsafe(begin)
        try:
            ended.wait()
        except BaseException:
            loop.call_soon_threadsafe(lambda: [task.cancel() for task in tasks])
            ended.wait(_PATIENCE)
            if tasks and tasks[0].done() and not tasks[0].cancelled():
                tasks[0].exception()  # seen: asyncio would report it
            raise
        return tasks[0].result()

    def at_end(self, key: object, action: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Have `action` done before the loop stops, unless `not_at_end(key)` comes first."""
        self._last[key] = action

    def not_at_end(self, key: object) -> None:
        """Forget what `at_end` was asked for."""
        self._last.pop(key, None)

    def stop(self) -> None:
        """End what still runs in the loop, then the loop and its thread. May be repeated."""
        with self._lock:
            loop, thread = self._loop, self._thread
            if loop is None or thread is None:
                return
        atexit.unregister(self.stop)
        ending = asyncio.run_coroutine_threadsafe(self._end(), loop)
        with suppress(Exception):  # whatever it is: the thread is to end
            ending.result(_PATIENCE)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_PATIENCE)
        with self._lock:
            self._loop = self._thread = None
        if not thread.is_alive():
            loop.close()

    async def _end(self) -> None:
        for action in list(self._last.values()):
            with suppress(Exception):  # the others are to be ended all the same
                await action()
        self._last.clear()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.get_running_loop().shutdown_asyncgens()

    def forget(self) -> None:
        """In a forked copy of the process: the thread is not there, and its machines not ours."""
        self.__init__(self._name)  # type: ignore[misc]


#: The thread of this process; all of `launcher.sync` lives in it.
THREAD = LoopThread()
os.register_at_fork(after_in_child=THREAD.forget)
