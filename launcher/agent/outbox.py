"""What is yet to be told to the broker; outlives its connections.

Two kinds: states, of which only the last of each topic counts, and messages in order. A message
that the broker did not confirm before a connection ended is sent again on the next.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque

from launcher.bus.broker import (
    RECEIVE_MAXIMUM,
    Client,
    PublishError,
    publish,
    publish_properties,
)
from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

#: Events that wait for a broker that is away; the oldest go, and are counted.
_EVENTS = 2000


@record
class Letter:
    """One message.

    Attributes:
        expiry: seconds after which nobody needs it any more; 0 for never.
        told: called once the broker has confirmed it.
    """

    topic: str
    payload: bytes
    correlation: bytes | None = None
    retain: bool = False
    event: bool = False
    expiry: int = 0
    told: Callable[[], None] | None = None


class Outbox:
    """Letters and states that wait.

    Args:
        refused: called with what a broker throws away.

    Attributes:
        dropped: how many events were never sent.
    """

    def __init__(self, refused: Callable[[PublishError], None]) -> None:
        self._refused = refused
        self.dropped = 0
        self._letters: deque[Letter] = deque()
        self._states: OrderedDict[str, bytes] = OrderedDict()
        self._until: dict[int, float] = {}
        self._under_way: OrderedDict[int, Letter] = OrderedDict()
        self._more = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    def put(self, letter: Letter) -> None:
        """Send a letter as soon as may be."""
        if letter.event and len(self._letters) >= _EVENTS:
            self.dropped += 1
            return
        if letter.expiry:
            self._until[id(letter)] = asyncio.get_running_loop().time() + letter.expiry
        self._letters.append(letter)
        self._note()

    def put_state(self, topic: str, payload: bytes) -> None:
        """Publish what a retained topic holds from now on; empty empties it."""
        self._states.pop(topic, None)
        self._states[topic] = payload
        self._note()

    def _next(self) -> Letter | None:
        # A state first: who has the answer to `start` finds the machine's state published.
        if self._states:
            topic, payload = self._states.popitem(last=False)
            return Letter(topic, payload, retain=True)
        while self._letters:
            letter = self._letters.popleft()
            until = self._until.pop(id(letter), None)
            if until is None or until > asyncio.get_running_loop().time():
                return letter
        return None

    async def send(self, client: Client) -> None:
        """Send what there is and what comes, until the connection ends.

        Raises:
            MqttError: it did.
        """
        slots = asyncio.Semaphore(RECEIVE_MAXIMUM)
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    await slots.acquire()
                    letter = self._next()
                    while letter is None:
                        self._more.clear()
                        await self._more.wait()
                        letter = self._next()
                    self._under_way[id(letter)] = letter
                    # Each task begins by handing its letter to the socket: they keep their order.
                    group.create_task(self._deliver(client, letter, slots))
        finally:
            self._take_back()

    async def _deliver(self, client: Client, letter: Letter, slots: asyncio.Semaphore) -> None:
        properties = publish_properties(letter.correlation, expiry=letter.expiry)
        try:
            await publish(
                client, letter.topic, letter.payload, retain=letter.retain, properties=properties
            )
        except PublishError as error:
            # Sent again it would be refused again, before everything else.
            self._refused(error)
        del self._under_way[id(letter)]
        slots.release()
        if letter.told is not None:
            letter.told()
        self._note()

    def _take_back(self) -> None:
        """What was under way when the connection ended goes first on the next."""
        for letter in reversed(self._under_way.values()):
            if not letter.retain:
                self._letters.appendleft(letter)
            elif letter.topic not in self._states:
                self._states[letter.topic] = letter.payload
        self._under_way.clear()

    def _note(self) -> None:
        """Whether there is something to send, and whether all of it is sent."""
        if self._letters or self._states:
            self._more.set()
            self._empty.clear()
        elif not self._under_way:
            self._empty.set()

    async def wait_empty(self) -> None:
        """Wait until the broker has confirmed everything."""
        await self._empty.wait()
