"""What goes wrong between a sender and an agent, on purpose, and a sender who will not give up."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from integration.mqtt import ROOT
from integration.namespaces import Network
from launcher.bus.link import Link as Session
from launcher.bus.link import connected


class Relay:
    """A TCP relay in front of a broker, whose connections can be reset at any byte.

    Args:
        upstream: the broker's unix socket.
        listening: where the relay takes connections.

    Attributes:
        resets: connections that were reset.
        taken: connections that were made; `news` is set at each.
    """

    def __init__(self, upstream: str, listening: socket.socket) -> None:
        self._upstream, self._listening = upstream, listening
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = listening.getsockname()[1]
        self.resets = self.taken = 0
        self.news = asyncio.Event()

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_server(self._relay, sock=self._listening)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.reset()

    def reset(self) -> None:
        """Reset all connections: what was under way, half a packet too, is gone."""
        self.resets += len(self._writers)
        for writer in self._writers:
            # Else the kernel would still send what it has, and end in order.
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self.taken += 1
        self.news.set()
        other = None
        try:
            there, other = await asyncio.open_unix_connection(self._upstream)
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pumps = [_pump(reader, other), _pump(there, writer)]
            tasks = [asyncio.ensure_future(one) for one in pumps]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        except OSError:
            pass  # the broker is away
        finally:
            self._writers.discard(writer)
            for one in (writer, other):
                if one is not None:
                    one.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


class Link:
    """A host's link to the broker, which goes without a word and comes back.

    In turns the cable is pulled, which the host's kernel sees, and packets are lost further away,
    which nobody sees.

    Attributes:
        cuts: for how many seconds each one was.
    """

    def __init__(self, network: Network, host: int = 0) -> None:
        self._network, self._host = network, host
        self.cuts: list[float] = []
        self._back: asyncio.Task[None] | None = None

    async def cut(self, seconds: float) -> None:
        """Cut it, and go on; it comes back by itself."""
        await self.whole()
        pulled = len(self.cuts) % 2 == 1
        self.cuts.append(seconds)
        await self._turn(pulled, True)
        self._back = asyncio.ensure_future(self._come_back(seconds, pulled))

    async def whole(self) -> None:
        """Wait until it is back."""
        if self._back is not None:
            await self._back

    async def _come_back(self, seconds: float, pulled: bool) -> None:
        await asyncio.sleep(seconds)  # for so long it is away, and that is the point
        await self._turn(pulled, False)

    async def _turn(self, pulled: bool, away: bool) -> None:
        if pulled:
            await asyncio.to_thread(self._network.plug, self._host, not away)
        else:
            await asyncio.to_thread(self._network.lose, self._host, away)


class Sender:
    """Sends each command at least twice, and again until it has a final answer.

    Args:
        port: on loopback, of the broker or a relay in front of it.
        host: whom it sends to.

    Attributes:
        finals: by command id, every final answer as it came; the same one may come again.
        first: by command id, what was answered first.
    """

    def __init__(self, port: int, host: str) -> None:
        self._port, self._host = port, host
        self._reply = f"{ROOT}/reply/chaos/{host}"
        self.finals: dict[str, list[bytes]] = {}
        self.first: dict[str, str] = {}
        self.sent = 0
        self._client: Session | None = None
        self._news = asyncio.Event()

    async def __aenter__(self) -> Sender:
        self._task = asyncio.ensure_future(self._listen())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _listen(self) -> None:
        session = Properties(PacketTypes.CONNECT)
        session.SessionExpiryInterval = 3600
        while True:
            try:
                made = Session(
                    "127.0.0.1",
                    self._port,
                    identifier=f"chaos-{self._host}",
                    protocol=aiomqtt.ProtocolVersion.V5,
                    clean_start=False,
                    properties=session,
                    socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
                )
                async with connected(made) as client:
                    await client.subscribe(self._reply, qos=1)
                    self._client = client
                    async for message in client.messages:
                        self._take(message.payload)
            except aiomqtt.MqttError:
                self._client = None
                await asyncio.sleep(0.05)

    def _take(self, payload: bytes) -> None:
        answer = json.loads(payload)
        self.first.setdefault(answer["id"], answer["status"])
        if answer["status"] in ("done", "failed", "refused"):
            self.finals.setdefault(answer["id"], []).append(payload)
            self._news.set()

    async def send(self, number: str, verb: str, arguments: dict[str, object]) -> None:
        """Once; whether it arrives is not known."""
        made = Properties(PacketTypes.PUBLISH)
        made.ResponseTopic = self._reply
        payload = json.dumps({"id": number, **arguments})
        topic = f"{ROOT}/hosts/{self._host}/command/{verb}"
        if self._client is None:
            return
        # Without a confirmation for a second the connection is gone, and only nobody said so.
        with contextlib.suppress(aiomqtt.MqttError, TimeoutError):
            async with asyncio.timeout(1):
                self.sent += 1
                await self._client.publish(topic, payload, qos=1, properties=made)

    async def finish(self, commands: dict[str, tuple[str, dict[str, object]]]) -> None:
        """Send what has no final answer again, until everything has one."""
        while missing := [number for number in commands if number not in self.finals]:
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._news.wait()
                continue
            for number in missing:
                await self.send(number, *commands[number])
