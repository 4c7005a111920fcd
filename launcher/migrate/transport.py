"""What the stream travels through: a unix socket, TCP, a file, or a pair of descriptors.

`channels` or `uri`, `file:` or a descriptor of the file: whichever the binary's own schema knows.
Never `exec:`, which runs a shell (and with `-sandbox` ends a QEMU 7.2).
"""

from __future__ import annotations

import os

from launcher.errors import InputError, MonitorError
from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from launcher.capabilities import Capabilities
    from launcher.host.runtime import MachineDirectory
    from launcher.migrate.model import End

KINDS = ("unix", "tcp", "file", "fd")
#: The name under which QEMU keeps a descriptor that it was given (QAPI: getfd).
_FD = "migration"
#: sockaddr_un holds 108 bytes, the last of them zero.
_LONGEST_PATH = 107


@record
class Via:
    """The transport that was asked for.

    Attributes:
        kind: one of KINDS.
        path: of `unix` and `file`; "" lets the launcher choose one.
        host, port: of `tcp`; port 0 lets the destination choose.
    """

    kind: str
    path: str = ""
    host: str = "127.0.0.1"
    port: int = 0

    def __str__(self) -> str:
        if self.kind == "tcp":
            return _uri(self)
        return f"{self.kind}:{self.path}" if self.path else self.kind


def parse_via(text: str) -> Via:
    """`unix`, `unix:PATH`, `tcp`, `tcp:HOST:PORT`, `file`, `file:PATH` or `fd`.

    Raises:
        InputError: it is none of them.
    """
    kind, colon, rest = text.partition(":")
    if kind not in KINDS or (colon and not rest) or (kind == "fd" and rest):
        raise InputError(
            f"{text!r} is no transport of a migration",
            hint="unix, unix:PATH, tcp, tcp:HOST:PORT, file, file:PATH or fd",
            code="usage",
        )
    if kind == "tcp" and rest:
        host, _, port = rest.rpartition(":")
        if not host or not port.isdecimal() or int(port) > 65535:
            raise InputError(f"{text!r} is not tcp:HOST:PORT", code="usage")
        return Via("tcp", host=host.removeprefix("[").removesuffix("]"), port=int(port))
    path = os.path.abspath(rest) if rest else ""
    if kind == "unix" and len(os.fsencode(path)) > _LONGEST_PATH:
        raise InputError(f"{path} is too long for a unix socket", code="usage")
    return Via(kind, path)


def _addresses(capabilities: Capabilities, command: str) -> dict[str, str] | None:
    """The transports that `channels` of a command can name, None: it has only `uri`."""
    schema = capabilities.schema
    kind = schema.argument_type(command)
    members = schema.members(kind) if kind is not None else {}
    if "channels" not in members:
        return None
    channel = schema[members["channels"]["type"]]["element-type"]
    return schema.branches(schema.members(channel)["addr"]["type"])


def knows_file(capabilities: Capabilities) -> bool:
    """Whether this binary opens a migration's file itself (`file:`, since QEMU 8.2)."""
    return "file" in (_addresses(capabilities, "migrate") or {})


def arguments(capabilities: Capabilities, command: str, via: Via) -> dict[str, Any]:
    """What `migrate` and `migrate-incoming` are told, in the form that this binary knows."""
    if _addresses(capabilities, command) is None:
        return {"uri": _uri(via)}
    addresses: dict[str, dict[str, Any]] = {
        "unix": {"transport": "socket", "type": "unix", "path": via.path},
        "tcp": {"transport": "socket", "type": "inet", "host": via.host, "port": str(via.port)},
        "fd": {"transport": "socket", "type": "fd", "str": _FD},
        "file": {"transport": "file", "filename": via.path, "offset": 0},
    }
    return {"channels": [{"channel-type": "main", "addr": addresses[via.kind]}]}


def _uri(via: Via) -> str:
    if via.kind == "fd":
        return f"fd:{_FD}"
    host = f"[{via.host}]" if ":" in via.host else via.host
    return f"tcp:{host}:{via.port}" if via.kind == "tcp" else f"{via.kind}:{via.path}"


class Transport:
    """A stream's two ends; what it needed of the host is undone by `close`.

    Attributes:
        via: with the path or port that was chosen in the end.
        live: both ends at once; else the source fills a file, and then the destination reads it.
    """

    def __init__(self, via: Via) -> None:
        self.via = via
        self.live = via.kind != "file"
        self._directory: MachineDirectory | None = None
        self._fds: list[int] = []
        self._files: list[str] = []

    async def open_destination(self, destination: End) -> None:
        """Let the destination listen, or load what is in the file.

        Raises:
            CommandError: QEMU refuses; MonitorError: it does not answer.
        """
        await self._choose(destination)
        await self._tell(destination, "migrate-incoming", os.O_RDONLY)
        if self.via.kind == "tcp" and not self.via.port:
            self.via = Via("tcp", host=self.via.host, port=await _port(destination))

    async def open_source(self, source: End) -> None:
        """Let the source begin to send.

        Raises:
            CommandError: QEMU refuses; MonitorError: it does not answer.
        """
        await self._choose(source)
        await self._tell(source, "migrate", os.O_RDWR | os.O_CREAT | os.O_TRUNC)

    async def _choose(self, machine: End) -> None:
        """Make what the transport needs of the host, once."""
        if self.via.kind == "fd" and not self._fds:
            import socket

            self._fds = [end.detach() for end in socket.socketpair()]
        if self.via.path or self.via.kind not in ("unix", "file"):
            return
        if self.via.kind == "file":
            import tempfile

            # Not the runtime directory: that one is memory, and too small for a guest's.
            handle, path = tempfile.mkstemp(prefix="qemu-launcher-", suffix=".migration")
            os.close(handle)
        else:
            folder = machine.folder
            if not folder:
                from launcher.host.runtime import claim

                plan = machine.plan
                self._directory = claim(f"{plan.name[:40]}-{plan.uuid[:8]}-stream")
                folder = self._directory.path
            path = os.path.join(folder, "migration")
        self._files.append(path)
        self.via = Via(self.via.kind, path)

    async def _tell(self, machine: End, command: str, flags: int) -> None:
        capabilities, via = machine.capabilities, self.via
        if via.kind == "file" and not knows_file(capabilities):
            fd = _open(via.path, flags)
            try:
                await machine.monitor.send_fd(fd, _FD)
            finally:
                os.close(fd)
            via = Via("fd")
        elif via.kind == "fd":
            # Ours is closed at once, so that the end of one QEMU shows at the other.
            fd = self._fds.pop()
            try:
                await machine.monitor.send_fd(fd, _FD)
            finally:
                os.close(fd)
        await machine.monitor.execute(command, arguments(capabilities, command, via))

    def discard(self) -> None:
        """Remove a file that holds a part of a guest, or one that went on elsewhere."""
        if self.via.kind == "file" and os.path.isfile(self.via.path):
            os.unlink(self.via.path)

    def close(self) -> None:
        """Undo what was made; a file that the caller named stays."""
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()
        for path in self._files:
            try:
                os.unlink(path)
            except FileNotFoundError:
                continue
        self._files.clear()
        if self._directory is not None:
            self._directory.remove()
            self._directory = None


def _open(path: str, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise InputError(f"{path} does not open: {error.strerror}", code="file") from error


async def _port(destination: End) -> int:
    """The port on which the destination listens (QAPI: MigrationInfo socket-address, since 4.0)."""
    info = await destination.monitor.execute("query-migrate")
    for address in info.get("socket-address") or ():
        if address.get("type") == "inet":
            return int(address["port"])
    raise MonitorError("the destination does not tell on which port it listens")
