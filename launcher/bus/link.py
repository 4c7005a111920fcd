"""One connection to a broker: what aiomqtt leaves to chance about its socket.

It asks the loop to watch a socket a turn later than paho asked it to. The socket may be closed by
then, and its number nobody's (a traceback in the log for each broker that ends under load) or
another file's. It waits ten seconds for the answer of a broker that has hung up. And paho says only
to its log why a broker hung up, which over TLS 1.3 is where a refused certificate is told.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import sys
from contextlib import asynccontextmanager

import aiomqtt
from aiomqtt.exceptions import MqttCodeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import Any

    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode

#: Seconds for a broker to say what it has against our certificate.
_LISTEN = 1.0


class _Reason(logging.Handler):
    """Keeps the last error of a socket of which paho told its log; all else goes nowhere."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.error: OSError | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Take what is said."""
        for one in record.args if isinstance(record.args, tuple) else ():
            if isinstance(one, OSError):
                self.error = one


class _Confirmation(asyncio.Event):
    """Waits for a PUBACK and keeps its reason code, which aiomqtt throws away."""

    code: ReasonCode | None = None


class Link(aiomqtt.Client):
    """A client for one connection, to be entered with `connected`; arguments as aiomqtt's.

    Attributes:
        hung_up: set once there was a socket, and is none.
        granted: what the broker can do, as it says when it lets us in (properties of CONNACK).
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._reason = _Reason()
        logger = logging.Logger("launcher.bus")  # not of the tree: nobody else hears it
        logger.addHandler(self._reason)
        super().__init__(*arguments, logger=logger, **options)
        self.hung_up = asyncio.Event()
        self.granted: Any = None
        self._given_up = False

    @property
    def reason(self) -> OSError | None:
        """What became of the socket, where that is known."""
        return self._reason.error

    # -- paho's calls, from the loop's thread or from the one that connects ---------------------

    def _on_socket_open(self, client: Any, userdata: Any, sock: Any) -> None:
        def begin() -> None:
            if self._given_up:
                client._sock_close()
            elif client.socket() is sock:
                self._loop.add_reader(sock.fileno(), self._readable)
                self._misc_task = self._loop.create_task(self._misc_loop())

        self._loop.call_soon_threadsafe(begin)

    def _on_socket_register_write(self, client: Any, userdata: Any, sock: Any) -> None:
        def begin() -> None:
            if client.socket() is sock:
                self._loop.add_writer(sock.fileno(), self._writable)

        self._loop.call_soon_threadsafe(begin)

    def _on_socket_close(self, client: Any, userdata: Any, sock: Any) -> None:
        super()._on_socket_close(client, userdata, sock)
        self._loop.call_soon_threadsafe(self.hung_up.set)

    def _on_connect(self, *told: Any) -> None:
        self.granted = told[4] if len(told) > 4 else None
        super()._on_connect(*told)

    def _on_disconnect(self, *told: Any) -> None:
        super()._on_disconnect(*told)
        self._note()

    def _readable(self) -> None:
        inner = self._client
        try:
            inner.loop_read()
            # What TLS has decoded already makes no socket readable.
            while (pending := getattr(inner.socket(), "pending", None)) and pending() > 0:
                inner.loop_read()
        except Exception as error:  # noqa: BLE001 (as aiomqtt: whatever it is, it ends there)
            self._break(error)

    def _writable(self) -> None:
        try:
            self._client.loop_write()
        except Exception as error:  # noqa: BLE001
            self._break(error)

    def _break(self, error: Exception) -> None:
        if not self._disconnected.done():
            self._disconnected.set_exception(error)
            self._note()

    def _note(self) -> None:
        """Look at how it ended; else asyncio says in the log that nobody did."""
        if self._disconnected.done() and not self._disconnected.cancelled():
            self._disconnected.exception()

    async def deliver(
        self,
        topic: str,
        payload: bytes,
        retain: bool = False,
        properties: Properties | None = None,
    ) -> ReasonCode | None:
        """Publish with QoS 1.

        Returns:
            What the broker says to it (PUBACK); with a failure it has thrown the message away.

        Raises:
            MqttError: the connection ended, or the broker does not answer.
        """
        info = self._client.publish(topic, payload, 1, retain, properties)
        if info.rc:
            ended = self._disconnected.exception() if self._disconnected.done() else None
            raise MqttCodeError(info.rc, "Could not publish message") from ended
        confirmation = _Confirmation()
        with self._pending_call(info.mid, confirmation, self._pending_publishes):
            await self._wait_for(confirmation.wait(), timeout=None)
        return confirmation.code

    def _on_publish(self, client: Any, userdata: Any, mid: int, code: Any, more: Any) -> None:
        waiting = self._pending_publishes.get(mid)
        if isinstance(waiting, _Confirmation):
            waiting.code = code
        super()._on_publish(client, userdata, mid, code, more)

    # -- for `connected` ------------------------------------------------------------------------

    @property
    def answered(self) -> bool:
        """Whether the broker has let us in, or has said why not."""
        return self._connected.done()

    @property
    def encrypted(self) -> bool:
        """Whether it speaks TLS."""
        return bool(self._client._ssl)

    def listen(self) -> OSError | None:
        """Connect once more, say nothing, and see what the broker has against it; blocks."""
        try:
            sock: Any = self._client._create_socket()
            with sock:
                sock.settimeout(_LISTEN)
                sock.recv(1)
        except TimeoutError:
            return None  # nothing: it waits for what we say
        except OSError as error:
            return error
        return None

    def drop(self) -> None:
        """Close the socket, also one that is opened later by the thread that connects."""
        self._given_up = True
        self._client._sock_close()


@asynccontextmanager
async def connected(client: Link) -> AsyncIterator[Link]:
    """`async with client`, for a broker that may hang up before it has answered.

    Raises:
        MqttError: there is no connection; `bus.refusal` puts it into words.
    """
    entering = asyncio.ensure_future(client.__aenter__())
    ending = asyncio.ensure_future(client.hung_up.wait())
    try:
        await asyncio.wait({entering, ending}, return_when=asyncio.FIRST_COMPLETED)
        if not entering.done() and not client.answered:
            raise aiomqtt.MqttError("the broker hung up") from await _why(client)
        await entering
        if client.hung_up.is_set():  # right after it let us in, of which aiomqtt knows no more
            raise aiomqtt.MqttError("the broker hung up") from client.reason
        try:
            yield client
        finally:
            await _leave(client)
    finally:
        for task in (entering, ending):
            task.cancel()
        client.drop()


async def _why(client: Link) -> OSError | None:
    """Why a broker hung up before it answered.

    Over TLS 1.3 it looks at our certificate after we have begun to speak, and then the end of the
    connection may overtake its reason. Who only listens is told.
    """
    if isinstance(client.reason, ssl.SSLError) or not client.encrypted:
        return client.reason
    return await asyncio.to_thread(client.listen) or client.reason


async def _leave(client: Link) -> None:
    try:
        await client.__aexit__(*sys.exc_info())
    except OSError as error:
        raise aiomqtt.MqttError(str(error)) from error
