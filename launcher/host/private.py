"""A directory that is this user's alone: its files and sockets, reached by its fd.

Working by fd, one check of owner and mode holds for all that follows, whatever happens to the
path in the meantime.
"""

from __future__ import annotations

import errno
import os
import stat

from launcher.errors import HostError

UNIX_PATH_BYTES = 107
"""The longest path that sockaddr_un holds with its closing NUL (unix(7))."""

FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_private(path: str, name: str | None = None, at: int | None = None) -> int:
    """An fd of a directory that is ours alone, made when it is missing.

    Args:
        path: for messages, and to open when `at` is not given.
        name: the last part of `path`, opened relative to `at`.
        at: fd of the directory above.

    Raises:
        HostError: it is a link, belongs to another user, or others may enter it.
    """
    where = path if name is None else name
    try:
        try:  # noqa: SIM105 (contextlib costs more to import than all of this)
            os.mkdir(where, 0o700, dir_fd=at)
        except FileExistsError:
            pass
        fd = os.open(where, FOLDER_FLAGS, dir_fd=at)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise HostError(f"{path} is not a directory; something else has its place") from error
        if error.errno == errno.ENOENT and at is not None:
            raise  # removed by its holder in between: the caller tries again
        raise HostError(f"{path} cannot be made or opened: {error.strerror}") from error
    found = os.fstat(fd)
    if found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) & 0o077 == 0:
        return fd
    os.close(fd)
    if found.st_uid != os.geteuid():
        raise HostError(
            f"{path} belongs to uid {found.st_uid}: sockets in it would not be ours alone",
            hint="set XDG_RUNTIME_DIR to a directory of your own",
        )
    mode = stat.S_IMODE(found.st_mode)
    raise HostError(f"{path} has mode {mode:04o}: others may enter it", hint=f"chmod 700 {path}")


def read_file(folder: int, name: str) -> bytes:
    """All of the file `name` in the directory fd `folder`.

    Raises:
        OSError: it is not there, is a link, or cannot be read.
    """
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    with open(fd, "rb") as file:
        return file.read()


def write_atomically(folder: int, name: str, data: bytes, path: str) -> None:
    """Replace the file `name` in the directory fd `folder`: all of `data`, or the old file.

    Not synced: what is in a runtime directory means nothing after a reboot (records name their
    boot), and where it is a disk's a sync costs a millisecond before QEMU is started.

    Raises:
        HostError: it cannot be written; `path` is the directory's name for the message.
    """
    partial = f".{name}.tmp"
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(partial, flags, 0o600, dir_fd=folder)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(fd, rest) :]
        finally:
            os.close(fd)
        os.rename(partial, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError as error:
        remove_file(folder, partial)
        raise HostError(f"{path}/{name} cannot be written: {error.strerror}") from error


def bind_listener(folder: int, path: str, name: str, *, reachable: bool = True) -> int:
    """The fd of a listening unix socket, mode 0600 from its first moment, for QEMU to take over.

    Bound by us because a QEMU given the path steals it from one that has it; here the second
    gets EADDRINUSE. QEMU removes the path when it quits.

    Args:
        folder: fd of the directory.
        path: its name.
        name: the socket's name in it.
        reachable: others connect by its path, which must fit into sockaddr_un; otherwise a path
            that is too long is got around, and only `connect_path` leads to the socket.

    Raises:
        HostError: the path is too long for others, in use, or the directory is not writable.
    """
    # Not socket, whose import takes 5 ms before QEMU is started: this is what it wraps.
    from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_STREAM, socket

    full = os.path.join(path, name)
    fits = len(os.fsencode(full)) <= UNIX_PATH_BYTES
    if reachable and not fits:
        raise HostError(
            f"the path of socket {name} has {len(os.fsencode(full))} bytes, "
            f"{UNIX_PATH_BYTES} are possible: {full}",
            hint="use a shorter machine name, or set XDG_RUNTIME_DIR to a shorter directory",
            code="path",
        )
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
    try:
        # The mode of the file follows that of the socket: no umask to change, no moment between.
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(full if fits else connect_path(folder, name))
        listener.listen(1)
    except OSError as error:
        listener.close()
        what = "is in use" if error.errno == errno.EADDRINUSE else str(error.strerror)
        raise HostError(f"socket {full} cannot be bound: {what}", code="path") from error
    return listener.detach()


def connect_path(folder: int, name: str) -> str:
    """A path to `name` in the directory fd `folder` that fits into sockaddr_un always.

    Good in this process, and as long as the fd is open.
    """
    return f"/proc/self/fd/{folder}/{name}"


def remove_file(folder: int, name: str) -> None:
    """Unlink one file, when it is there."""
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return


def empty_folder(folder: int) -> None:
    """Remove all that is in a directory, following nothing."""
    for name in os.listdir(folder):
        try:
            inner = os.open(name, FOLDER_FLAGS, dir_fd=folder)
        except OSError:  # not a directory
            remove_file(folder, name)
            continue
        try:
            empty_folder(inner)
        finally:
            os.close(inner)
        os.rmdir(name, dir_fd=folder)
