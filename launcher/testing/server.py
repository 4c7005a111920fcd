"""The other end of the monitor's socket: QMP as the recorded QEMU speaks it."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress

from launcher.errors import LauncherError
from launcher.testing.answers import Answers, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from typing import Any


class Server:
    """Serves one client.

    Args:
        sock: its end.
        answers: what is answered.
        version: QAPI: VersionInfo, for the greeting.
        on_end: called when the machine was told to end.
    """

    def __init__(
        self,
        sock: socket.socket,
        answers: Answers,
        version: dict[str, Any],
        on_end: Callable[[], None],
    ) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._answers = answers
        self._on_end = on_end
        self._out: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._tasks = [asyncio.ensure_future(self._read()), asyncio.ensure_future(self._write())]
        self._out.put_nowait({"QMP": {"version": version, "capabilities": ["oob"]}})

    def tell(self, name: str, data: dict[str, Any]) -> None:
        """Send an event."""
        now = time.time()
        stamp = {"seconds": int(now), "microseconds": int(now % 1 * 1e6)}
        # In QEMU's order: what counts events looks at their bytes.
        self._out.put_nowait({"timestamp": stamp, "event": name, "data": data})

    async def _read(self) -> None:
        decoder, text = json.JSONDecoder(), ""
        loop = asyncio.get_running_loop()
        with suppress(OSError):
            while data := await loop.sock_recv(self._socket, 65536):
                text = (text + data.decode()).lstrip()
                while text:
                    try:  # QEMU takes commands that no newline ends
                        request, end = decoder.raw_decode(text)
                    except ValueError:
                        break
                    text = text[end:].lstrip()
                    self._serve(request)

    def _serve(self, request: dict[str, Any]) -> None:
        command = str(request.get("execute", request.get("exec-oob")))
        reply = {"id": request["id"]} if "id" in request else {}
        if command == "qmp_capabilities":
            self._out.put_nowait({"return": {}, **reply})
            return
        try:
            value, events = self._answers.answer(command, request.get("arguments") or {})
        except Refused as error:
            self._out.put_nowait({"error": {"class": error.kind, "desc": error.desc}, **reply})
            return
        except LauncherError as error:
            kind = error.evidence.get("class", "GenericError")
            self._out.put_nowait({"error": {"class": kind, "desc": error.message}, **reply})
            return
        self._out.put_nowait({"return": value, **reply})
        for name, data in events:
            self.tell(name, data)
        if self._answers.ended:
            self._out.put_nowait(None)

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        with suppress(OSError):
            while (message := await self._out.get()) is not None:
                await loop.sock_sendall(self._socket, json.dumps(message).encode() + b"\r\n")
        self._on_end()

    async def close(self) -> None:
        """Close this end. May be repeated."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._socket.close()
