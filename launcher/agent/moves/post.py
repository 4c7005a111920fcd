"""What agents say to each other: `hosts/TO/peer/FROM/WORD`, where a broker can hold FROM to it."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager, suppress

from launcher.agent.moves.model import REFUSED
from launcher.agent.outbox import Letter
from launcher.bus import topics
from launcher.errors import LauncherError
from launcher.qapi import format_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from typing import Any

    from launcher.agent.outbox import Outbox

#: Seconds after which a broker need not deliver what is said no more; decisions have no such end.
SOON = 30
#: Messages about one migration that wait to be read.
_WAITING = 256
#: Seconds between two attempts to be heard.
_AGAIN = 2.0


class PeerError(LauncherError):
    """The other host says no, in its own words and with its own code."""

    exit_status = 4


def peer_error(peer: str, told: Any) -> PeerError:
    """The error that another host sent."""
    told = told if isinstance(told, dict) else {}
    message, hint, code = (told.get(key) for key in ("message", "hint", "code"))
    error = PeerError(
        f"{peer}: {message if isinstance(message, str) else 'no reason was given'}",
        hint=hint if isinstance(hint, str) else "",
    )
    error.code = code if isinstance(code, str) else "peer"
    return error


def said_of(body: dict[str, Any]) -> tuple[str, ...] | None:
    """What QEMU at the other host said, as far as it was told; None when nothing is told of it."""
    said = body.get("said")
    return tuple(str(one) for one in said[:64]) if isinstance(said, list) else None


Said = tuple[str, "dict[str, Any]"]


class Post:
    """Messages to and from other hosts, by migration.

    Args:
        host: our own id.
        outbox: where they go.
    """

    def __init__(self, host: str, outbox: Outbox) -> None:
        self.host = host
        self._outbox = outbox
        self._boxes: dict[tuple[str, str], list[asyncio.Queue[Said]]] = {}

    def send(
        self,
        peer: str,
        word: str,
        number: str,
        body: dict[str, Any] | None = None,
        seconds: int = 0,
    ) -> None:
        """Say one thing about one migration.

        Args:
            peer: the host that is to hear it.
            word: one of `model.ORDERS` and `model.WORDS`.
            number: the migration's id.
            body: what else is said.
            seconds: after which it need not be delivered; 0 for what always must.
        """
        payload = format_json({"move": number, **(body or {})}).encode("utf-8", "backslashreplace")
        topic = topics.host_topic(peer, "peer", self.host, word)
        self._outbox.put(Letter(topic, payload, expiry=seconds))

    def take(self, peer: str, word: str, body: dict[str, Any]) -> None:
        """Hand on what a destination says to who waits for it here; nobody may."""
        for box in self._boxes.get((peer, str(body.get("move"))), ()):
            with suppress(asyncio.QueueFull):
                box.put_nowait((word, body))

    @contextmanager
    def listen(self, peer: str, number: str) -> Iterator[asyncio.Queue[Said]]:
        """What is said about a migration from now on."""
        box: asyncio.Queue[Said] = asyncio.Queue(_WAITING)
        boxes = self._boxes.setdefault((peer, number), [])
        boxes.append(box)
        try:
            yield box
        finally:
            boxes.remove(box)
            if not boxes:
                del self._boxes[peer, number]

    async def ask(
        self,
        peer: str,
        order: str,
        number: str,
        body: dict[str, Any],
        wanted: Collection[str],
        seconds: float,
    ) -> Said | None:
        """Say something again and again until one of `wanted` is answered; None: not in time.

        Raises:
            PeerError: the other host refuses.
        """
        with self.listen(peer, number) as box, suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    self.send(peer, order, number, body, SOON)
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_AGAIN):
                            return await _one_of(box, {*wanted, REFUSED}, peer)
        return None


async def _one_of(box: asyncio.Queue[Said], wanted: Collection[str], peer: str) -> Said:
    while True:
        word, body = await box.get()
        if word == REFUSED:
            raise peer_error(peer, body.get("error"))
        if word in wanted:
            return word, body
