"""The QMP client of qemu.qmp 0.0.6 with what a launcher needs on top.

- Over-budget events are taken out before they reach its reader (`EventFilter`).
- Its hooks print every message (json.dumps with an indent) even when nobody logs: off.
- Requests are short, because QEMU reads its monitor one byte at a time: about 3 us a byte.
- Disconnecting never waits for a peer that does not read.
- It logs nothing: whoever asked gets the cause in an error, once.
"""

from __future__ import annotations

import asyncio
import logging

from qemu.qmp import ExecInterruptedError, QMPClient, Runstate
from qemu.qmp.message import Message

from launcher.monitor.events import EventBudget, EventFilter

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable, Mapping
    from ssl import SSLContext
    from typing import Any, SupportsIndex

# libvirt's limit, too (qemu_monitor.c QEMU_MONITOR_MAX_RESPONSE); the largest real reply is
# query-qmp-schema with 248 kB.
REPLY_LIMIT = 10 * 1024 * 1024

_LOOK_AWAY = 0.002

# qemu.qmp has room for one, and when the session ends with an answer that nobody has fetched yet,
# it stumbles over its own QueueFull instead of telling those who wait.
_ANSWER_AND_END = 2

# Without a parent: no handler, no last resort that would print to stderr.
_SILENT = logging.Logger("launcher.monitor", logging.CRITICAL + 1)


class FilteredReader(asyncio.StreamReader):
    """A stream reader that never sees events beyond their budget."""

    def __init__(self, limit: int, budget: EventBudget) -> None:
        super().__init__(limit=limit, loop=asyncio.get_running_loop())
        self._filter = EventFilter(budget)

    def feed_data(self, data: Iterable[SupportsIndex]) -> None:
        """What the transport read."""
        passed = self._filter.feed(bytes(data))
        if passed:
            super().feed_data(passed)
        else:
            # A flood arrives an event at a time. Looking away for a moment makes one read of many,
            # and leaves QEMU the processor: with both cores busy, `stop` takes half as long (p99).
            self._transport.pause_reading()  # type: ignore[attr-defined]
            asyncio.get_running_loop().call_later(_LOOK_AWAY, self._look_again)

    def _look_again(self) -> None:
        if not self._paused:  # type: ignore[attr-defined]  # by its limit, which it ends itself
            self._transport.resume_reading()  # type: ignore[attr-defined]

    def feed_eof(self) -> None:
        """The transport has met the end of the file."""
        rest = self._filter.rest()
        if rest:
            super().feed_data(rest)
        super().feed_eof()


class Client(QMPClient):
    """One QMP connection.

    Attributes:
        budget: which events get in, and how many did not.
        commands: requests sent, the negotiation included.
        bytes_sent: their bytes.
        stray_replies: replies whose id nobody waits for (late ones, or a confused peer).
    """

    def __init__(self, on_event: Callable[[Message], None], on_lost: Callable[[], None]) -> None:
        super().__init__(readbuflen=REPLY_LIMIT)
        self.logger = _SILENT
        self.budget = EventBudget()
        self.commands = 0
        self.bytes_sent = 0
        self.stray_replies = 0
        self.overheard: Callable[[str, Message], None] | None = None
        self._unsent = b""
        self._first: list[Message] = []
        self._on_event = on_event
        self._on_lost = on_lost

    async def ask(self, command: str, arguments: Mapping[str, Any] | None, oob: bool) -> Message:
        """Send a request and wait for its reply, for ever.

        Raises:
            TypeError, ValueError: `arguments` cannot be said in JSON; nothing was sent.
            ExecInterruptedError: the connection is gone; `disconnect` raises why.
        """
        message = self._request(command, arguments, "exec-oob" if oob else "execute")
        if self.runstate is not Runstate.RUNNING:
            raise ExecInterruptedError("Disconnected")
        return await self._reply(await self._issue(message))

    def ask_first(self, command: str, arguments: Mapping[str, Any] | None) -> str:
        """Have a request sent right behind the negotiation; to be called before `connect`.

        QEMU answers nothing before it is initialised, and then all at once.

        Returns:
            What `answer` wants after `connect`.

        Raises:
            TypeError, ValueError: `arguments` cannot be said in JSON.
        """
        message = self._request(command, arguments, "execute")
        self._first.append(message)
        return str(message["id"])

    async def answer(self, number: str) -> Message:
        """The reply to a request of `ask_first`, waited for without end.

        Raises:
            ExecInterruptedError: the connection is gone; `disconnect` raises why.
        """
        return await self._reply(number)

    def _request(self, command: str, arguments: Mapping[str, Any] | None, how: str) -> Message:
        body: dict[str, Any] = {how: command}
        if arguments:
            body["arguments"] = arguments
        body["id"] = self._get_exec_id()
        # Serialised here, once: left to the writer task, an argument that is not JSON would end
        # the connection.
        return Message(body)

    def quit(self) -> None:
        """Send `quit` now, past the queue of what is yet to be sent; for nobody to wait for.

        Raises:
            ExecInterruptedError: the connection is gone.
        """
        if self.runstate is not Runstate.RUNNING:
            raise ExecInterruptedError("Disconnected")
        self._do_send(Message({"execute": "quit", "id": self._get_exec_id()}))
        self._flush()

    def read(self, go_on: bool) -> None:
        """Go on reading what QEMU says, or leave it where it is for now."""
        if self._writer is None or self._writer.transport.is_closing():
            return
        transport = self._writer.transport
        assert isinstance(transport, asyncio.ReadTransport)
        if go_on:
            transport.resume_reading()
        else:
            transport.pause_reading()

    # The rest are qemu.qmp's own names: its hooks, and what they are built on.

    def _get_exec_id(self) -> str:
        self._execute_id += 1
        return str(self._execute_id)

    def _cb_inbound(self, msg: Message) -> Message:
        return msg

    def _cb_outbound(self, msg: Message) -> Message:
        return msg

    async def _do_connect(self, address: Any, ssl: SSLContext | None = None) -> None:
        sock: socket.socket = address
        loop = asyncio.get_running_loop()
        self._set_state(Runstate.CONNECTING)
        reader = FilteredReader(self.readbuflen, self.budget)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        transport, _ = await loop.create_connection(lambda: protocol, sock=sock)
        self._reader = reader
        self._writer = asyncio.StreamWriter(transport, protocol, reader, loop)

    async def _issue(self, msg: Message) -> str | None:
        msg_id = await super()._issue(msg)
        self._pending[msg_id] = asyncio.Queue(_ANSWER_AND_END)
        return msg_id

    async def _negotiate(self) -> None:
        for message in self._first:
            self._pending[str(message["id"])] = asyncio.Queue(_ANSWER_AND_END)
        await super()._negotiate()

    def _cleanup(self) -> None:
        for message in self._first:  # of a connection that failed, nobody waits for their answers
            self._pending.pop(str(message["id"]), None)
        super()._cleanup()

    async def _recv(self) -> Message:
        # A guest that already runs may get an event in before the answer to qmp_capabilities,
        # which qemu.qmp takes for a refusal.
        msg = await super()._recv()
        while self.runstate is Runstate.CONNECTING and "event" in msg:
            self._on_event(msg)
            msg = await super()._recv()
        return msg

    async def _do_recv(self) -> Message:
        line = await self._readline()
        if not line.endswith(b"\n"):
            raise EOFError("in the middle of a message")
        message = Message(line)
        if self.overheard is not None:
            self.overheard("<", message)
        return message

    def _do_send(self, msg: Message) -> None:
        # What is sent before the session runs is the negotiation.
        behind = [] if self.runstate is Runstate.RUNNING else self._first
        for one in (msg, *behind):
            data = bytes(one)
            self.commands += 1
            self.bytes_sent += len(data)
            self._unsent += data
            if self.overheard is not None:
                self.overheard(">", one)
        # What else waits in the queue is taken next, without a pause: one system call for all.
        # Each would wake QEMU, often on the CPU on which we run.
        if self.runstate is not Runstate.RUNNING or self._outgoing.empty():
            self._flush()

    def _flush(self) -> None:
        assert self._writer is not None
        data, self._unsent = self._unsent, b""
        self._writer.write(data)

    async def _on_message(self, msg: Message) -> None:
        if "event" not in msg and msg.get("id") not in self._pending:
            self.stray_replies += 1
        await super()._on_message(msg)

    async def _event_dispatch(self, msg: Message) -> None:
        self._on_event(msg)

    def _schedule_disconnect(self) -> None:
        super()._schedule_disconnect()
        self._on_lost()

    async def _bh_flush_writer(self) -> None:
        """Nothing: whoever still waits for a reply is about to be told that there is none."""

    async def _bh_close_stream(self, error_pathway: bool = False) -> None:
        # Closing politely would first send what is buffered, and a stopped QEMU reads nothing.
        if self._writer is not None:
            self._writer.transport.abort()
        await super()._bh_close_stream(error_pathway)
