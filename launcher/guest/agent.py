"""Commands and files over qemu-guest-agent."""

from __future__ import annotations

import asyncio
import base64
import shlex

from launcher.guest.ran import FILE_LIMIT, LIMIT, GuestError, Ran
from launcher.guest.wire import ANSWER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from launcher.guest.port import Port

#: Seconds that one question may take once the agent has answered the first, within the deadline
#: of the whole.
_QUESTION = 30.0
#: What a file is read and written by; in base64 well below a bounded answer.
_CHUNK = 256 << 10
#: How long a command is left alone before it is asked for again: from, to, in seconds.
_FIRST_LOOK, _LAST_LOOK = 0.01, 1.0
#: The agent keeps 16 MiB of each stream (qga/commands.c, GUEST_EXEC_MAX_OUTPUT) and tells them
#: once, in base64: whatever is wanted of them has to be taken whole.
_ENDED = ANSWER + (2 * 16 << 20) * 4 // 3


class Agent:
    """Commands and files in a guest that runs qemu-guest-agent."""

    name = "agent"

    def __init__(self, port: Port) -> None:
        self.port = port

    async def ping(self, seconds: float) -> None:
        """As `Guest.ping`."""
        await self.port.ask("guest-ping", seconds=seconds)

    async def run(
        self, command: str | Sequence[str], seconds: float, limit: int = LIMIT, given: bytes = b""
    ) -> Ran:
        """As `Guest.run`: a text by the guest's /bin/sh, words as they are."""
        words = ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)
        shown = command if isinstance(command, str) else shlex.join(command)
        arguments: dict[str, Any] = {"path": words[0], "arg": words[1:], "capture-output": True}
        if given:
            arguments["input-data"] = base64.b64encode(given).decode()
        asked = asyncio.get_running_loop().time()
        started = await self.port.ask("guest-exec", arguments, seconds=seconds)
        pid = self._member("guest-exec", started, "pid", int)
        try:
            async with asyncio.timeout_at(asked + seconds):
                ended = await self._ended(pid)
        except TimeoutError:
            raise GuestError(
                f"{shown[:200]!r} did not end within {seconds:g} s; it is process {pid} of the "
                "guest, and still runs there",
                evidence={"pid": pid},
                code="guest-command",
            ) from None
        output, more = self._stream(ended, "out", limit)
        errors, still_more = self._stream(ended, "err", limit)
        return Ran(shown, self._status(ended), output, errors, more or still_more, self.name)

    async def _ended(self, pid: int) -> dict[str, Any]:
        """What is known of a process when it has ended; asked for at growing intervals."""
        pause = _FIRST_LOOK
        while True:
            state = await self.port.ask(
                "guest-exec-status", {"pid": pid}, seconds=_QUESTION, limit=_ENDED
            )
            if self._member("guest-exec-status", state, "exited", bool):
                found: dict[str, Any] = state
                return found
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _LAST_LOOK)

    def _status(self, ended: dict[str, Any]) -> int:
        name, base = ("signal", 128) if "signal" in ended else ("exitcode", 0)
        return base + int(self._member("guest-exec-status", ended, name, int))

    def _stream(self, ended: dict[str, Any], name: str, limit: int) -> tuple[bytes, bool]:
        data = self._data("guest-exec-status", ended.get(f"{name}-data", ""))
        return data[:limit], bool(ended.get(f"{name}-truncated")) or len(data) > limit

    async def read(self, path: str, seconds: float, limit: int = FILE_LIMIT) -> bytes:
        """As `Guest.read`."""
        async with asyncio.timeout(seconds):
            handle = await self._open(path, "r", seconds)
            try:
                return await self._read(handle, path, limit)
            finally:
                await self._close(handle)

    async def _read(self, handle: int, path: str, limit: int) -> bytes:
        found = bytearray()
        command, wanted = "guest-file-read", {"handle": handle, "count": _CHUNK}
        while True:
            answer = await self.port.ask(command, wanted, seconds=_QUESTION)
            data = self._data(command, self._member(command, answer, "buf-b64", str))
            found += data
            if len(found) > limit:
                raise GuestError(
                    f"{path} has more than {limit} bytes",
                    hint="raise `limit`",
                    code="guest-command",
                )
            if answer.get("eof") or not data:
                return bytes(found)

    async def write(self, path: str, data: bytes, seconds: float) -> None:
        """As `Guest.write`."""
        async with asyncio.timeout(seconds):
            handle = await self._open(path, "w", seconds)
            try:
                while data:
                    data = data[await self._write(handle, data[:_CHUNK]) :]
                await self.port.ask("guest-file-flush", {"handle": handle}, seconds=_QUESTION)
            finally:
                await self._close(handle)

    async def _write(self, handle: int, piece: bytes) -> int:
        wanted = {"handle": handle, "buf-b64": base64.b64encode(piece).decode()}
        answer = await self.port.ask("guest-file-write", wanted, seconds=_QUESTION)
        count: int = self._member("guest-file-write", answer, "count", int)
        if not 0 < count <= len(piece):
            raise self.port.nonsense("guest-file-write")
        return count

    async def _open(self, path: str, mode: str, seconds: float) -> int:
        wanted = {"path": path, "mode": mode}
        handle = await self.port.ask("guest-file-open", wanted, seconds=seconds)
        if not isinstance(handle, int):
            raise self.port.nonsense("guest-file-open")
        return handle

    async def _close(self, handle: int) -> None:
        try:
            await self.port.ask("guest-file-close", {"handle": handle}, seconds=_QUESTION)
        except GuestError:
            return  # an agent that was started again has closed it

    async def shutdown(self, seconds: float) -> None:
        """As `Guest.shutdown`, without waiting for the end; the agent does not answer this one."""
        wanted = {"mode": "powerdown"}
        await self.port.ask("guest-shutdown", wanted, seconds=seconds, answered=False)

    def _member(self, command: str, answer: Any, name: str, kind: type[Any]) -> Any:
        """A member of an answer, of the type that it must have."""
        found = answer.get(name) if isinstance(answer, dict) else None
        if not isinstance(found, kind):
            raise self.port.nonsense(command)
        return found

    def _data(self, command: str, text: Any) -> bytes:
        try:
            return base64.b64decode(text, validate=True)
        except (ValueError, TypeError):
            raise self.port.nonsense(command) from None
