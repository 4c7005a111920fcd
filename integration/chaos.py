"""What goes wrong between a sender and an agent, on purpose, and a sender who will not give up."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from integration.mqtt import ROOT


class Cable:
    """A TCP relay in front of a broker, whose connections can be cut at any byte."""

    def __init__(self, port: int) -> None:
        self._upstream = port
        self._writers: set[asyncio.StreamWriter] = set()
        self.cuts = 0

    async def __aenter__(self) -> Cable:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """Reset all connections: what was under way, half a packet too, is gone."""
        self.cuts += len(self._writers)
        for writer in self._writers:
            writer.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        other = None
        try:
            there, other = await asyncio.open_connection("127.0.0.1", self._upstream)
            for one in (writer, other):
                sock = one.get_extra_info("socket")
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


class Sender:
    """Sends each command at least twice, and again until it has a final answer.

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
        self._client: aiomqtt.Client | None = None
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
                async with aiomqtt.Client(
                    "127.0.0.1",
                    self._port,
                    identifier=f"chaos-{self._host}",
                    protocol=aiomqtt.ProtocolVersion.V5,
                    clean_start=False,
                    properties=session,
                    socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
                ) as client:
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
