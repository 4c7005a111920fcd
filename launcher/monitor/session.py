"""`Monitor`: the QMP session as the other rooms use it."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress

from qemu.qmp import ConnectError, ExecInterruptedError, QMPError, Runstate

from launcher.errors import CommandError, MonitorError
from launcher.monitor.client import Client
from launcher.monitor.events import Event, EventStream
from launcher.monitor.faults import broken, result_of, silence
from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Container, Iterable, Mapping
    from typing import Any

    from qemu.qmp.message import Message

_HISTORY = 1024
_CLOSE_TIMEOUT = 5.0
#: Seconds more for an end that was cancelled: it needs a few turns of the loop.
_LAST = 0.5


@record
class GivenFd:
    """A descriptor that QEMU has a copy of: its number there, and the set in which it is."""

    number: int
    fdset: int

    @property
    def path(self) -> str:
        """What QEMU opens to use it, in any way that the file itself allows.

        Not /dev/fdset/N: what 7.1 and later open by that name for a PNG stays in the set for ever.
        """
        return f"/dev/fd/{self.number}"


class Monitor:
    """A QMP session with one QEMU, made by `connect`; every await in it has a deadline.

    Attributes:
        greeting: the `QMP` member of the greeting (QAPI: QMP spec, "Server Greeting").
        answers: what each of `connect`'s requests returned, or its CommandError.
        events: the last 1024 events since the connection, oldest first.
    """

    def __init__(self) -> None:
        self.greeting: Mapping[str, Any] = {}
        self.answers: list[Any] = []
        self.events: deque[Event] = deque(maxlen=_HISTORY)
        self._client = Client(self._take_event, self._end_streams)
        self._count = 0
        self._streams: list[EventStream] = []
        self._callbacks: list[Callable[[Event], None]] = []
        self._cause: Exception | None = None
        self._collecting = asyncio.Lock()

    @classmethod
    async def connect(
        cls,
        sock: socket.socket,
        requests: Iterable[tuple[str, Mapping[str, Any] | None]] = (),
        *,
        timeout: float = 10.0,  # noqa: ASYNC109 (asyncio.timeout inside)
    ) -> Monitor:
        """Wait for the greeting and negotiate; `sock` is ours from here on, whatever happens.

        Args:
            sock: connected to QEMU's QMP.
            requests: (command, arguments) each, sent with the negotiation: a QEMU that is yet to
                be initialised answers both when it is. See `answers`.
            timeout: seconds for all of it.

        Raises:
            MonitorError: QEMU ended, was silent, or does not speak QMP.
        """
        monitor = cls()
        client = monitor._client
        asked = [(command, client.ask_first(command, given)) for command, given in requests]
        try:
            async with asyncio.timeout(timeout):
                await client.connect(sock)
                for command, number in asked:
                    monitor.answers.append(result_of(command, await client.answer(number)))
        except TimeoutError as error:
            await monitor.close()
            missing = "answer to qmp_capabilities" if client.greeting else "QMP greeting"
            raise silence(f"no {missing} within {timeout:g} s", "qmp_capabilities") from error
        except ConnectError as error:
            raise broken(error, "qmp_capabilities") from error
        except ExecInterruptedError as error:
            raise await monitor._lost(
                ", ".join(sorted({command for command, _ in asked}))
            ) from error
        except BaseException:
            await monitor.close()
            raise
        finally:
            if client.runstate is not Runstate.RUNNING:
                sock.close()
        assert client.greeting is not None
        monitor.greeting = client.greeting._asdict()["QMP"]  # type: ignore[assignment]
        return monitor

    @property
    def version(self) -> tuple[int, int, int]:
        """QEMU's release, from the greeting (QAPI: VersionTriple)."""
        qemu = self.greeting["version"]["qemu"]
        return (qemu["major"], qemu["minor"], qemu["micro"])

    @property
    def connected(self) -> bool:
        """Whether commands can be sent."""
        return self._client.runstate is Runstate.RUNNING

    @property
    def commands(self) -> int:
        """How many requests were sent, the negotiation included."""
        return self._client.commands

    @property
    def bytes_sent(self) -> int:
        """How many bytes they had: what QEMU's side of a conversation costs (3 us each)."""
        return self._client.bytes_sent

    @property
    def dropped(self) -> Mapping[str, int]:
        """Name of event → how many were over its budget and dropped unread."""
        return self._client.budget.dropped

    async def execute(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout: float = 10.0,  # noqa: ASYNC109 (asyncio.timeout inside)
        oob: bool = False,
    ) -> Any:
        """Execute a QMP command and return what it returns.

        Args:
            command: its QAPI name.
            arguments: by QAPI name, JSON values.
            timeout: seconds until it must have answered.
            oob: execute out of band (QMP spec, "Out-of-band execution").

        Raises:
            CommandError: QEMU answered with an error; the session goes on.
            MonitorError: no answer in time (the session goes on, a late answer is dropped), or the
                connection is gone.
            TypeError, ValueError: `arguments` cannot be said in JSON; nothing was sent.
        """
        try:
            async with asyncio.timeout(timeout):
                reply = await self._client.ask(command, arguments, oob)
        except TimeoutError as error:
            raise self._unanswered(command, timeout) from error
        except ExecInterruptedError as error:
            raise await self._lost(command) from error
        result = result_of(command, reply)
        if isinstance(result, CommandError):
            raise result
        return result

    async def execute_all(
        self,
        requests: Iterable[tuple[str, Mapping[str, Any] | None]],
        *,
        timeout: float = 10.0,  # noqa: ASYNC109 (asyncio.timeout inside)
    ) -> list[Any]:
        """Execute commands, all sent before the first answer is awaited.

        QEMU executes them one after another and in this order.

        Args:
            requests: (command, arguments) each.
            timeout: seconds until all must have answered.

        Returns:
            What each returned, or its CommandError, in the order of `requests`.

        Raises:
            MonitorError: as `execute`; what had been answered is lost with it.
        """
        asked = list(requests)
        asking = [asyncio.ensure_future(self._client.ask(c, a, False)) for c, a in asked]
        try:
            async with asyncio.timeout(timeout):
                replies = await asyncio.gather(*asking)
        except TimeoutError as error:
            # Those that were still waiting are what the deadline has cancelled.
            late = [c for (c, _), a in zip(asked, asking, strict=True) if a.cancelled()]
            raise self._unanswered(late[0] if late else "", timeout) from error
        except ExecInterruptedError as error:
            raise await self._lost(", ".join(sorted({c for c, _ in asked}))) from error
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        return [result_of(c, reply) for (c, _), reply in zip(asked, replies, strict=True)]

    async def send_fd(self, fd: int, name: str) -> None:
        """Give QEMU a copy of a descriptor, which it keeps as `name` (QAPI: getfd).

        Raises:
            CommandError, MonitorError: as `execute`.
        """
        await self._pass(fd, "getfd")
        await self.execute("getfd", {"fdname": name})

    async def add_fd(self, fd: int) -> GivenFd:
        """Give QEMU a copy of a descriptor, and learn its number there (QAPI: add-fd).

        Raises:
            CommandError, MonitorError: as `execute`.
        """
        await self._pass(fd, "add-fd")
        answer = await self.execute("add-fd")
        return GivenFd(answer["fd"], answer["fdset-id"])

    async def remove_fd(self, given: GivenFd) -> None:
        """Have QEMU close what `add_fd` gave it, as soon as nothing there uses it.

        Raises:
            CommandError, MonitorError: as `execute`.
        """
        await self.execute("remove-fd", {"fdset-id": given.fdset})

    async def _pass(self, fd: int, command: str) -> None:
        try:
            self._client.send_fd_scm(fd)
        except QMPError as error:
            raise await self._lost(command) from error
        except OSError as error:
            raise MonitorError(
                f"{command}: {error.strerror}", evidence={"command": command}
            ) from error

    async def quit(self) -> None:
        """Ask QEMU to end, and leave what it says from now on unread until `listen_on`.

        Its answer, its last events and the end of its monitor would each wake us while it ends, on
        the CPU on which it does; its end shows on its pidfd, and the rest can be read after it.

        Raises:
            MonitorError: the connection is gone.
        """
        try:
            self._client.quit()
        except ExecInterruptedError as error:
            raise await self._lost("quit") from error
        self._client.read(False)

    def listen_on(self) -> None:
        """Read what QEMU said since `quit`."""
        self._client.read(True)

    def overhear(self, listener: Callable[[str, Message], None] | None) -> None:
        """Have `listener` told each message from now on: ">" and what is sent, "<" and what came.

        For a transcript. Events over their budget are not among them, nor is what was said before.
        """
        self._client.overheard = listener

    def mark(self) -> int:
        """The number of the last event so far, for `wait_event(since=...)`."""
        return self._count

    async def wait_event(
        self,
        name: str | Container[str],
        match: Callable[[Event], bool] | None = None,
        *,
        timeout: float,  # noqa: ASYNC109 (asyncio.timeout inside)
        since: int = 0,
    ) -> Event:
        """The first event of that name, also when it came before the call.

        Args:
            name: QAPI name of an event, or several.
            match: which of them.
            timeout: seconds.
            since: only events after this one (`mark`); 0 looks at all since the connection.

        Raises:
            MonitorError: it did not come in time, or the connection is gone and it had not.
        """
        names = {name} if isinstance(name, str) else name
        for event in self.events:
            if event.number > since and event.name in names and (match is None or match(event)):
                return event
        shown = name if isinstance(name, str) else "event"
        try:
            async with asyncio.timeout(timeout):
                with self.listen(names) as stream:
                    async for event in stream:
                        if match is None or match(event):
                            return event
        except TimeoutError as error:
            raise silence(f"no {shown} within {timeout:g} s", shown) from error
        raise await self._lost(shown)

    def listen(self, names: Container[str] | None = None, *, size: int = 256) -> EventStream:
        """Events from now on, of these names or all; at most `size` wait for the reader."""
        stream = EventStream(names, size, self._forget)
        if self.connected:
            self._streams.append(stream)
        else:
            stream.end()
        return stream

    def on_event(self, callback: Callable[[Event], None]) -> Callable[[], None]:
        """Call `callback` for every event, from the loop; returns what ends that."""
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    async def close(self) -> None:
        """End the session: no task and no file descriptor stays. Never raises, may be repeated.

        (A cancellation passes through.)
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await self._collect()
        self._end_streams()

    def _take_event(self, message: Message) -> None:
        stamp: Any = message.get("timestamp")
        data: Any = message.get("data")
        seconds = 0.0
        with suppress(KeyError, TypeError):
            seconds = stamp["seconds"] + stamp["microseconds"] / 1e6
        self._count += 1
        event = Event(
            self._count, str(message["event"]), data if isinstance(data, dict) else {}, seconds
        )
        self.events.append(event)
        for stream in self._streams:
            stream.put(event)
        if self._callbacks:
            # Not from here: an error in a callback would end the session.
            loop = asyncio.get_running_loop()
            for callback in self._callbacks:
                loop.call_soon(callback, event)

    def _end_streams(self) -> None:
        for stream in self._streams:
            stream.end()

    def _forget(self, stream: EventStream) -> None:
        if stream in self._streams:
            self._streams.remove(stream)

    async def _collect(self) -> None:
        """Disconnect, and keep why the connection had already broken, if it had."""
        async with self._collecting:
            if self._client.runstate is Runstate.IDLE:
                return
            had_broken = self._client.runstate is Runstate.DISCONNECTING
            try:
                await self._disconnect()
            except Exception as error:  # noqa: BLE001 (one of eight types, none of them in its API)
                if had_broken:
                    self._cause = error

    async def _disconnect(self) -> None:
        """As the client's, and to its end when we are cancelled meanwhile.

        Half done, it leaves a future behind that nobody can reach, and asyncio tells of that with a
        traceback (qemu.qmp 0.0.6, `_wait_disconnect`).
        """
        ending = asyncio.ensure_future(self._client.disconnect())
        try:
            await asyncio.shield(ending)
        except asyncio.CancelledError:
            await asyncio.wait({ending}, timeout=_LAST)
            if not ending.cancel() and not ending.cancelled():
                ending.exception()  # it has been seen
            raise

    async def _lost(self, command: str) -> MonitorError:
        await self._collect()
        return broken(self._cause, command)

    def _unanswered(self, command: str, seconds: float) -> MonitorError:
        error = silence(f"{command}: no answer within {seconds:g} s", command)
        if self._client.stray_replies:
            error.evidence["stray_replies"] = self._client.stray_replies
        return error
