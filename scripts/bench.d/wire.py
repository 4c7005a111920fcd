"""MQTT 5 over a plain socket, as little of it as a round trip takes: what a broker itself costs."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import time
from contextlib import suppress

_CONNECT, _PUBLISH, _PUBACK, _SUBSCRIBE = 0x10, 0x32, 0x40, 0x82
_RESPONSE_TOPIC = 0x08


class Broker:
    """A mosquitto on loopback with the settings of packaging/agent; a context.

    Args:
        tools: the folder that scripts/broker printed.
        folder: for its files.
    """

    def __init__(self, tools: str, folder: str) -> None:
        self._program = os.path.join(tools, "mosquitto")
        self._config = os.path.join(folder, "mosquitto.conf")
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port = sock.getsockname()[1]
        with open(self._config, "w", encoding="utf-8") as file:
            file.write(
                f"listener {self.port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n"
                f"persistence true\npersistence_location {folder}/\nautosave_interval 10\n"
                "max_queued_messages 100000\nlog_type error\n"
                + ("user root\n" if os.geteuid() == 0 else "")
            )

    def __enter__(self) -> Broker:
        self._process = subprocess.Popen([self._program, "-c", self._config])
        end = time.monotonic() + 20
        while True:
            with suppress(OSError):
                Wire(self.port, "ready").close()
                return self
            if time.monotonic() > end:
                raise TimeoutError("mosquitto does not answer")
            time.sleep(0.01)

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(20)


class Wire:
    """One connection. QoS 1 both ways; each message that comes is confirmed at once."""

    def __init__(self, port: int, name: str) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._bytes = b""
        self._number = 0
        head = _text(b"MQTT") + bytes([5, 2]) + struct.pack("!H", 60)
        # Receive maximum: as many as may come.
        properties = bytes([0x21]) + struct.pack("!H", 65535)
        self._send(_CONNECT, head + _sized(properties) + _text(name.encode()))
        self._packet()

    def close(self) -> None:
        """Go without a word."""
        self._sock.close()

    def subscribe(self, topic: str) -> None:
        """Take what is published there."""
        self._send(_SUBSCRIBE, self._next() + b"\0" + _text(topic.encode()) + b"\1")
        while self._packet()[0] & 0xF0 != 0x90:
            pass

    def publish(self, topic: str, payload: bytes, reply: str = "") -> None:
        """Send one message; its confirmation is not waited for."""
        properties = bytes([_RESPONSE_TOPIC]) + _text(reply.encode()) if reply else b""
        self._send(_PUBLISH, _text(topic.encode()) + self._next() + _sized(properties) + payload)

    def take(self) -> tuple[bytes, bytes]:
        """Topic and payload of the next message."""
        return self.take_with_reply()[:2]

    def take_with_reply(self) -> tuple[bytes, bytes, bytes]:
        """The same, and the topic on which it is to be answered."""
        while True:
            kind, body = self._packet()
            if kind & 0xF0 == 0x30:
                break
        (length,) = struct.unpack_from("!H", body)
        topic, at = body[2 : 2 + length], 2 + length
        if kind & 0x06:
            self._send(_PUBACK, body[at : at + 2])
            at += 2
        size, at = _read_size(body, at)
        properties = body[at : at + size]
        reply = b""
        if properties[:1] == bytes([_RESPONSE_TOPIC]):
            (length,) = struct.unpack_from("!H", properties, 1)
            reply = properties[3 : 3 + length]
        return topic, body[at + size :], reply

    def _next(self) -> bytes:
        self._number = self._number % 65535 + 1
        return struct.pack("!H", self._number)

    def _send(self, kind: int, body: bytes) -> None:
        self._sock.sendall(bytes([kind]) + _sized(body))

    def _packet(self) -> tuple[int, bytes]:
        while True:
            found = _cut(self._bytes)
            if found is not None:
                kind, body, self._bytes = found
                return kind, body
            data = self._sock.recv(1 << 20)
            if not data:
                raise ConnectionError("the broker went away")
            self._bytes += data


def _text(text: bytes) -> bytes:
    return struct.pack("!H", len(text)) + text


def _sized(body: bytes) -> bytes:
    size, left = bytearray(), len(body)
    while True:
        left, low = divmod(left, 128)
        size.append(low | (0x80 if left else 0))
        if not left:
            return bytes(size) + body


def _read_size(data: bytes, at: int) -> tuple[int, int]:
    size, shift = 0, 0
    while True:
        byte = data[at]
        at += 1
        size |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return size, at


def _cut(data: bytes) -> tuple[int, bytes, bytes] | None:
    """The first packet of what came: its kind, its body, and what is behind it."""
    try:
        size, at = _read_size(data, 1)
    except IndexError:
        return None
    if len(data) < at + size:
        return None
    return data[0], data[at : at + size], data[at + size :]
