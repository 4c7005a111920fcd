"""The agent's port: one question at a time, each with a deadline, and in step whatever happened.

Between questions nothing is read: an agent that floods then fills a socket and waits.
"""

from __future__ import annotations

import asyncio
import secrets

from launcher.display import printable
from launcher.errors import CommandError, MonitorError
from launcher.guest.ran import GuestError
from launcher.guest.wire import ANSWER, Answers, question

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any

    from launcher.monitor import Event, Monitor

_PIECE = 65536
#: Seconds after which an unanswered sync is sent again: what QEMU had passed to an agent that
#: ended before it read it is lost.
_AGAIN = 2.0
#: Events after which the guest may be one that has not been spoken to: a snapshot was loaded, or it
#: boots. That its port closed with it, QEMU may tell a second later.
_ELSEWHERE = ("RESUME", "RESET")
_ENDED = "the agent in the guest ended or was started again meanwhile"


class Port:
    """The host's end of the port."""

    def __init__(self, sock: socket.socket, chardev: str, monitor: Monitor) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._chardev = chardev
        self._monitor = monitor
        self._answers = Answers()
        self._in_step = False
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()
        # VSERPORT_CHANGE (QAPI: char.json) says when the guest opens or closes the port; its `id`
        # is the device's, which the short form names after the chardev.
        monitor.on_event(self._hear)

    def _hear(self, event: Event) -> None:
        if event.name in _ELSEWHERE:
            self._in_step = False
        if event.name == "VSERPORT_CHANGE" and self._chardev in str(event.data.get("id")):
            self._in_step = False
            self._changed.set()

    async def ask(
        self,
        command: str,
        arguments: dict[str, Any] | None = None,
        *,
        seconds: float,
        limit: int = ANSWER,
        answered: bool = True,
    ) -> Any:
        """What a command of the agent's returns (QAPI: qga/qapi-schema.json).

        Args:
            command: its name.
            arguments: by QAPI name.
            seconds: until it must have answered, waiting for others' questions included.
            limit: bytes of the answer.
            answered: False for commands that answer only when they fail.

        Raises:
            GuestError: the agent refused it, did not answer in time, said nonsense, or ended.
        """
        text = question(command, arguments)
        try:
            async with asyncio.timeout(seconds), self._turn:
                await self._come_in_step()
                self._answers.begin(limit=limit)
                self._changed.clear()
                await self._send(text)
                if not answered:
                    return None
                return self._result(command, await self._answer(command))
        except TimeoutError:
            self._in_step = False
            raise await self._silent(command, seconds) from None
        except BaseException as error:
            # A question that was given up may still be answered; a refusal is an answer.
            refused = isinstance(error, GuestError) and error.code == "guest-command"
            self._in_step = self._in_step and refused
            raise

    async def _come_in_step(self) -> None:
        """Send something unique, and drop what comes before its echo (guest-sync-delimited)."""
        while not self._in_step:
            number = secrets.randbits(31)
            self._answers.begin(sentinel=True)
            self._changed.clear()
            await self._send(question("guest-sync-delimited", {"id": number}, sentinel=True))
            try:
                async with asyncio.timeout(_AGAIN):
                    while (await self._message()).get("return") != number:
                        pass
                self._in_step = True
            except TimeoutError:
                continue
            except _ChangedError:
                continue

    async def _answer(self, command: str) -> dict[str, Any]:
        """The answer to a question that has been sent.

        That the port was closed or opened may be old news (QEMU tells it at most once a second, and
        again after a snapshot was loaded), or there is a new agent that knows nothing of the
        question. So QEMU is asked what is true now, and an agent something else behind the
        question: whichever answer comes first tells.
        """
        probe: int | None = None
        while True:
            try:
                message = await self._message()
            except _ChangedError:
                self._changed.clear()
                if await self._is_open() is False:
                    raise GuestError(f"{command}: {_ENDED}", code="guest-agent") from None
                probe = secrets.randbits(31)
                await self._send(question("guest-sync", {"id": probe}))
                continue
            if probe is not None and message.get("return") == probe:
                raise GuestError(f"{command}: {_ENDED}", code="guest-agent")
            return message

    def _result(self, command: str, message: dict[str, Any]) -> Any:
        if "return" in message:
            return message["return"]
        error = message.get("error")
        said = error.get("desc") if isinstance(error, dict) else None
        if not isinstance(said, str):
            raise self.nonsense(command)
        raise GuestError(
            f"the guest's agent refused {command}: {printable(said)[:500]}",
            evidence={"command": command, "desc": said[:500]},
            code="guest-command",
        )

    def nonsense(self, command: str) -> GuestError:
        """The error for an answer that is none; from now on the agent is out of step."""
        self._in_step = False
        return GuestError(f"the guest's agent answered nonsense to {command}", code="guest-agent")

    async def _message(self) -> dict[str, Any]:
        """The next message.

        Raises:
            GuestError: it was too long, or QEMU ended.
            _ChangedError: the guest closed or opened the port.
        """
        loop = asyncio.get_running_loop()
        while True:
            data = await self._piece(loop)
            if not data:
                raise GuestError("QEMU closed the agent's port", code="guest-agent")
            found = self._answers.feed(data)
            if found:
                return found[0]
            if self._answers.oversized:
                raise GuestError(
                    "the guest's agent answered more than is allowed; it was dropped",
                    hint="raise `limit`, or have the guest write to a file and read that",
                    code="guest-agent",
                )
            await asyncio.sleep(0)  # a flood is no reason to keep others from their turn

    async def _piece(self, loop: asyncio.AbstractEventLoop) -> bytes:
        reading = asyncio.ensure_future(loop.sock_recv(self._socket, _PIECE))
        changed = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait({reading, changed}, return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                return reading.result()
            raise _ChangedError
        except OSError:
            return b""
        finally:
            for task in (reading, changed):
                task.cancel()
            await asyncio.wait({reading, changed})

    async def _send(self, data: bytes) -> None:
        try:
            await asyncio.get_running_loop().sock_sendall(self._socket, data)
        except OSError as error:
            words = f"QEMU closed the agent's port: {error.strerror}"
            raise GuestError(words, code="guest-agent") from None

    async def _silent(self, command: str, seconds: float) -> GuestError:
        """The error for no answer, with what QEMU knows of the port."""
        is_open = await self._is_open()
        words, hint = "", "is the machine paused? is the agent busy, or stuck?"
        if is_open is False:
            words = "; no agent has opened its port in the guest"
            hint = (
                "start qemu-guest-agent there, wait until it runs, or use the serial console: "
                'machine.guest.over("shell")'
            )
        return GuestError(
            f"{command}: the guest's agent did not answer within {seconds:g} s{words}",
            hint=hint,
            evidence={"command": command, "open": is_open, "garbage": self._answers.garbage},
            code="guest-agent",
        )

    async def _is_open(self) -> bool | None:
        try:
            for one in await self._monitor.execute("query-chardev", timeout=2.0):
                if one["label"] == self._chardev:
                    return bool(one["frontend-open"])
        except (CommandError, MonitorError):
            pass
        return None

    def close(self) -> None:
        """Close our end. May be repeated."""
        self._socket.close()


class _ChangedError(Exception):
    """The guest opened or closed the port."""
