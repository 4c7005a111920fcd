"""The destination's end, seen from the source: what its agent tells of it."""

from __future__ import annotations

import asyncio

from launcher.agent.moves.model import ABORTED, KEEP, PROGRESS, PROVED, REFUSED
from launcher.agent.moves.post import SOON, peer_error, said_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from types import TracebackType
    from typing import Any, Self

    from launcher.agent.moves.model import Move
    from launcher.agent.moves.post import Post, Said
    from launcher.errors import LauncherError
    from launcher.migrate.transport import Transport

#: Seconds between two signs of life to the destination, which gives up without them.
_KEEP = 2.0


class Remote:
    """A `Watch` (see `launcher.migrate.carry`) of a QEMU on another host.

    Args:
        post: messages.
        move: the migration.
        news: set whenever something was told.

    Attributes:
        proof: what the destination said of its copy once it had all of it; None before.
        answered: when it last said something, in seconds of the loop's clock.
    """

    def __init__(self, post: Post, move: Move, news: asyncio.Event) -> None:
        self.info: dict[str, Any] = {}
        self.proof: dict[str, Any] | None = None
        self.error: LauncherError | None = None
        self.answered = asyncio.get_running_loop().time()
        self._post, self._move, self._news = post, move, news
        self._over = asyncio.Event()
        self._words: tuple[str, ...] = ()
        self._tasks: list[asyncio.Task[None]] = []
        self._listening: AbstractContextManager[asyncio.Queue[Said]] | None = None

    @property
    def status(self) -> str:
        """MigrationStatus, as the destination's QEMU said it."""
        return str(self.info.get("status", "none"))

    @property
    def ended(self) -> bool:
        """Whether the destination has given up: its copy is dead."""
        return self._over.is_set()

    def words(self) -> tuple[str, ...]:
        """Why, in the destination's words."""
        return self._words

    async def open(self, transport: Transport) -> None:
        """Nothing: it listens since it was prepared."""

    async def wait_end(self, seconds: float) -> None:
        """Wait until the destination has given up.

        Raises:
            TimeoutError: it has not.
        """
        async with asyncio.timeout(seconds):
            await self._over.wait()

    def __enter__(self) -> Self:
        self._listening = self._post.listen(self._move.peer, self._move.id)
        box = self._listening.__enter__()
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._hear(box)), loop.create_task(self._keep())]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        if self._listening is not None:
            self._listening.__exit__(None, None, None)
            self._listening = None

    async def _keep(self) -> None:
        while True:
            self._post.send(self._move.peer, KEEP, self._move.id, None, SOON)
            await asyncio.sleep(_KEEP)

    async def _hear(self, box: asyncio.Queue[Said]) -> None:
        while True:
            word, body = await box.get()
            self.answered = asyncio.get_running_loop().time()
            said = said_of(body)
            if said is not None:
                self._words = said
            if word == PROGRESS and isinstance(body.get("status"), str):
                self.info = {"status": body["status"]}
            elif word == PROVED:
                self.info, self.proof = {"status": "completed"}, body
            elif word in (ABORTED, REFUSED):
                self.error = peer_error(self._move.peer, body.get("error"))
                self._words = (*self._words, self.error.message)
                self._over.set()
            self._news.set()
