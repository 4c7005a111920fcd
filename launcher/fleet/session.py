"""The session with a broker: connected, looked, and connected again for as long as it is wanted."""

from __future__ import annotations

import asyncio
import random

from launcher.bus.broker import (
    MAXIMUM_PACKET,
    MqttError,
    SubscribeError,
    acknowledge,
    make_client,
    subscribe,
)
from launcher.bus.link import connected
from launcher.bus.refusal import BrokerError, refusal
from launcher.fleet.looking import Looker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from launcher.bus.broker import Broker, Client, Message
    from launcher.fleet.looking import View
    from launcher.fleet.picture import Picture

#: An answer has 1 MiB at most, and its topic and properties come on top.
_PACKET = MAXIMUM_PACKET + (64 << 10)
#: Seconds between attempts to reach a broker that went away.
_BACKOFF = (0.1, 5.0)


class Session:
    """One desk's session.

    Args:
        broker: where it is and who we are to it.
        reply: our own topic.
        view: what to look at.
        picture: where it ends up.
        take: called with each message; it is acknowledged after that.
        turned: called when a connection is there and all was looked at, and when it has ended.

    Attributes:
        client: while there is a connection.
        looker: of the last one.
        unheard: why answers do not reach us, when the broker refuses our own topic.
    """

    def __init__(
        self,
        broker: Broker,
        reply: str,
        view: View,
        picture: Picture,
        take: Callable[[Message], None],
        turned: Callable[[], None],
    ) -> None:
        self.broker = broker
        self.client: Client | None = None
        self.looker: Looker | None = None
        self.unheard: BrokerError | None = None
        self._reply = reply
        self._view = view
        self._picture = picture
        self._take = take
        self._turned = turned
        self._ready = asyncio.Event()
        self._ending = False
        self._task: asyncio.Task[None] | None = None

    async def begin(self, seconds: float) -> None:
        """Connect, and see all that is retained.

        Raises:
            BrokerError: the broker is not there, lets us not in, or is too slow.
            InputError: no broker's address.
        """
        self._task = task = asyncio.create_task(self._serve())
        ready = asyncio.create_task(self._ready.wait())
        try:
            done, _ = await asyncio.wait(
                {ready, task}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
        except BaseException:
            await self.end()
            raise
        finally:
            ready.cancel()
        if task in done:
            await task  # raises why
        if not done:
            await self.end()
            words = f"{self.broker.url}: not everything came within {seconds:g} s"
            hint = "does it let us read all of it, and is it slow?"
            raise BrokerError(words, hint)

    async def end(self) -> None:
        """Leave the broker."""
        self._ending = True
        task = self._task
        # More than once: a group of tasks that fails while it is cancelled forgets the latter.
        while task is not None and not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=1)

    async def _serve(self) -> None:
        """Be connected until cancelled; the first connection must come about.

        Raises:
            BrokerError: it did not.
        """
        wait = _BACKOFF[0]
        name = f"qemu-launcher-fleet-{self._reply.rpartition('/')[2]}"
        while not self._ending:
            client = make_client(self.broker, name, session=0, packet=_PACKET)
            try:
                async with connected(client):
                    await self._serve_one(client)
            except (MqttError, BaseExceptionGroup) as error:
                reason = _first(error)
                if not isinstance(reason, MqttError):
                    raise reason from None
                if not self._ready.is_set():
                    raise refusal(self.broker, reason, name) from None
            # Not all desks at the same moment, when it was the broker that went.
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311
            wait = min(wait * 2, _BACKOFF[1])

    async def _serve_one(self, client: Client) -> None:
        """One connection, until it ends.

        Raises:
            ExceptionGroup: of MqttError, it did.
        """
        self.looker = looker = Looker(client, self._view, self._picture, self._reply)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._take_all(client, looker))
                try:
                    await subscribe(client, self._reply)
                    self.unheard = None
                except SubscribeError as error:
                    # Who only looks needs no answers.
                    self.unheard = refusal(self.broker, error)
                await looker.look()
                self.client = client
                self._ready.set()
                self._turned()
                await looker.follow()
        finally:
            self.client = None
            self._turned()

    async def _take_all(self, client: Client, looker: Looker) -> None:
        async for message in client.messages:
            looker.messages += 1
            try:
                self._take(message)
            finally:
                acknowledge(client, message)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
