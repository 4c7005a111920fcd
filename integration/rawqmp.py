"""An independent QMP client: nothing of the launcher, so that it can contradict it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
from typing import Any


class RawQMP:
    """A QEMU started from a bare argv, and a blocking QMP session with it."""

    def __init__(self, argv: list[str], *, daemon: bool = False) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="rawqmp-")
        path = os.path.join(self.folder.name, "qmp")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(1)
        listener.settimeout(30)
        words = (
            ["--chardev", f"socket,id=raw,path={path}", "--monitor", "chardev=raw"]
            if daemon
            else ["-chardev", f"socket,id=raw,path={path}", "-qmp", "chardev:raw"]
        )
        self.stderr = open(os.path.join(self.folder.name, "stderr"), "w+")
        self.process = subprocess.Popen(
            [*argv, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self.stderr,
        )
        try:
            self.socket = self._accept(listener)
        except BaseException:
            self._abandon()
            raise
        finally:
            listener.close()
        self.file = self.socket.makefile("rb")
        try:
            greeting = self.file.readline()
            assert b"QMP" in greeting, f"QEMU ended: {self.said()}"
            self.execute("qmp_capabilities")
        except ConnectionError:  # it ended with words of ours unread
            self.process.wait(10)
            said = self.said()
            self.close()
            raise AssertionError(f"QEMU ended: {said}") from None
        except BaseException:
            self.close()
            raise

    def _accept(self, listener: socket.socket) -> socket.socket:
        listener.settimeout(0.2)
        for _ in range(150):
            try:
                sock, _address = listener.accept()
            except TimeoutError:
                if self.process.poll() is not None:
                    raise AssertionError(f"QEMU ended: {self.said()}") from None
            else:
                sock.settimeout(60)
                return sock
        raise AssertionError("QEMU did not connect its monitor")

    def said(self) -> str:
        """What QEMU wrote to stderr."""
        self.stderr.flush()
        self.stderr.seek(0)
        return self.stderr.read()

    def execute(self, command: str, **arguments: Any) -> Any:
        """The command's return value; an error is an AssertionError with QEMU's words."""
        answer = self.ask(command, arguments)
        assert "return" in answer, (command, arguments, answer)
        return answer["return"]

    def ask(self, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """The whole answer, events passed over."""
        request = {"execute": command, "arguments": arguments}
        self.socket.sendall(json.dumps(request).encode() + b"\n")
        while True:
            line = self.file.readline()
            assert line, f"QEMU went away: {self.said()}"
            message = json.loads(line)
            if "return" in message or "error" in message:
                return message

    def hmp(self, line: str) -> str:
        """The text of a human monitor command."""
        return str(self.execute("human-monitor-command", **{"command-line": line}))

    def close(self) -> None:
        """End QEMU."""
        self.socket.close()
        self.file.close()
        self._abandon()

    def _abandon(self) -> None:
        """End QEMU without a session."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        self.stderr.close()
        self.folder.cleanup()

    def __enter__(self) -> RawQMP:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
