"""What one launch holds: the machine's directory, sockets and fds, each undone exactly once."""

from __future__ import annotations

import os
import stat

from launcher.errors import HostError
from launcher.host import runtime
from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    import socket
    from collections.abc import Callable, Iterable
    from types import TracebackType

_ACCESS = {
    "read": os.O_RDONLY,
    "write": os.O_RDWR,
    # A log is made by us, and must not be written through a link that somebody left there.
    "append": os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW,
}


@record
class FdSource:
    """What the host makes a descriptor of, which QEMU inherits as the one called `name`.

    Attributes:
        kind: `socketpair` (our end is in `Resources.sockets`), `helper` (the other end is in
            `Resources.others`, for a program that serves it), `listener` (a unix socket `name`
            in the machine's directory), `file`, or `secret` (bytes in a sealed memfd: read it
            as /dev/fd/N, it never reaches argv, environment or disk).
        path: of a file.
        access: to a file: `read`, `write` (and read), or `append` (made when missing).
        reachable: others connect to the listener by its path.
        data: of a secret.
    """

    kind: str
    name: str
    path: str = ""
    access: str = "read"
    reachable: bool = True
    data: bytes = b""

    def __repr__(self) -> str:
        # Without the data: reprs end in logs and tracebacks.
        return f"FdSource(kind={self.kind!r}, name={self.name!r}, path={self.path!r})"


class Resources:
    """Acquired by `acquire`; ends with `release` or with the `with` block.

    Attributes:
        fds: by the names of the sources, QEMU's ends: for `pass_fds`, and for `fd=@name@` in argv.
        others: by the names of the sources, the helpers' ends; ours only until `hand_over`.
        directory: the machine's directory, when a name was claimed.
    """

    def __init__(self) -> None:
        self.fds: dict[str, int] = {}
        self.others: dict[str, int] = {}
        self._ends: dict[str, _socket.socket] = {}
        self._sockets: dict[str, socket.socket] = {}
        self.directory: runtime.MachineDirectory | None = None
        self._steps: list[tuple[bool, Callable[[], None]]] = []

    @property
    def sockets(self) -> dict[str, socket.socket]:
        """By the names of the sources, our ends of the socketpairs."""
        if self._ends:
            # Only now: the import takes 5 ms, and QEMU should be starting by then.
            import socket

            for name, end in self._ends.items():
                self._sockets[name] = ours = socket.socket(fileno=end.detach())
                self.keep(ours.close)
            self._ends.clear()
        return self._sockets

    def hand_over(self) -> None:
        """Close our copies of QEMU's ends once it has been started.

        Without that, the end of QEMU would not show on the sockets.
        """
        self._undo(only_handed=True)

    def release(self, *, keep_directory: bool = False) -> None:
        """Undo everything, last first; what was undone before is not undone again.

        Args:
            keep_directory: let go of the name only: the machine outlives this launcher.

        Raises:
            HostError: something could not be undone; all the rest has been.
        """
        if keep_directory and self.directory is not None:
            self.directory.release()
        self._undo(only_handed=False)

    def hold_end(self, name: str, end: _socket.socket) -> None:
        """Our end of a socketpair, for `sockets`."""
        self._ends[name] = end

    def keep(self, step: Callable[[], None], *, handed: bool = False) -> None:
        """Remember how to undo something; `handed` is for what QEMU has its own copy of."""
        self._steps.append((handed, step))

    def _undo(self, *, only_handed: bool) -> None:
        failed: OSError | None = None
        for entry in reversed(self._steps[:]):
            handed, step = entry
            if only_handed and not handed:
                continue
            self._steps.remove(entry)  # before it is tried: never twice, whatever happens
            try:
                step()
            except OSError as error:
                failed = failed or error
        if failed is not None:
            raise HostError(f"not everything could be cleaned up: {failed}") from failed

    def __enter__(self) -> Resources:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def acquire(sources: Iterable[FdSource], name: str | None = None) -> Resources:
    """Everything a launch wants of the host, or nothing: what was acquired is undone on failure.

    Args:
        sources: in any order, each with a name of its own.
        name: the machine's name, claimed for this process first; needed for listeners.

    Raises:
        InputError: not a name for a machine.
        HostError: the name is held, a file does not open, a socket cannot be bound.
        ValueError: a source that no plan may name (unknown kind, a name twice).
    """
    held = Resources()
    try:
        if name is not None:
            held.directory = runtime.claim(name)
            held.keep(held.directory.remove)
        for source in sources:
            _check(source, held.fds)
            held.fds[source.name] = _ACQUIRE[source.kind](held, source)
    except OSError as error:
        held.release()
        raise HostError(f"the host does not give what the launch needs: {error}") from error
    except BaseException:
        held.release()
        raise
    return held


def _check(source: FdSource, taken: Iterable[str]) -> None:
    if source.name in taken:
        raise ValueError(f"two sources are called {source.name!r}")
    if source.kind not in _ACQUIRE or source.access not in _ACCESS:
        raise ValueError(f"{source!r}: there is no such kind or access")


def _keep(held: Resources, fd: int) -> int:
    held.keep(lambda: os.close(fd), handed=True)
    return fd


def _socketpair(held: Resources, source: FdSource) -> int:
    from _socket import socketpair

    ours, theirs = socketpair()
    held.keep(ours.close)
    held.keep(theirs.close, handed=True)
    held.hold_end(source.name, ours)
    return theirs.fileno()


def _helper(held: Resources, source: FdSource) -> int:
    from _socket import socketpair

    other, theirs = socketpair()
    for end in (other, theirs):
        held.keep(end.close, handed=True)
    held.others[source.name] = other.fileno()
    return theirs.fileno()


def _listener(held: Resources, source: FdSource) -> int:
    if held.directory is None:
        raise ValueError(f"{source!r}: a listener lives in a machine's directory; name one")
    return _keep(held, held.directory.bind_listener(source.name, reachable=source.reachable))


def _file(held: Resources, source: FdSource) -> int:
    # Without O_NONBLOCK a FIFO in a disk's place would hang the launch for ever.
    flags = _ACCESS[source.access] | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    try:
        fd = _keep(held, os.open(source.path, flags, 0o600))
    except OSError as error:
        raise HostError(
            f"{source.path} does not open ({source.access}): {error.strerror}"
        ) from error
    mode = os.fstat(fd).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise HostError(f"{source.path} is neither a regular file nor a block device")
    os.set_blocking(fd, True)
    return fd


def _secret(held: Resources, source: FdSource) -> int:
    import fcntl

    try:
        fd = _keep(held, os.memfd_create("secret", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
        rest = memoryview(source.data)
        while rest:
            rest = rest[os.write(fd, rest) :]
        seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
        os.lseek(fd, 0, os.SEEK_SET)
    except OSError as error:
        raise HostError(f"secret {source.name} needs a memfd: {error.strerror}") from error
    return fd


_ACQUIRE: dict[str, Callable[[Resources, FdSource], int]] = {
    "socketpair": _socketpair,
    "helper": _helper,
    "listener": _listener,
    "file": _file,
    "secret": _secret,
}
