"""What was worked out once and may be looked up: the cache folder, and values kept in it. Disk.

A cache that cannot be read or written costs time, never the launch. Values are kept with the C
pickler because nothing else loads records at its speed (the standard modules that wrap it cost
more to import than the load); so a kept file counts only when it belongs to this user and nobody
else may write it.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeVar

    _T = TypeVar("_T")

#: Raised when what is kept changes its form.
_FORMAT = 1


def cache_folder() -> str:
    """Where things are kept: `$XDG_CACHE_HOME/qemu-launcher`, by default under `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not base.startswith("/"):  # the XDG specification: relative paths are to be ignored
        base = os.path.join(_home(), ".cache")
    return os.path.join(base, "qemu-launcher")


def _home() -> str:
    """This user's home: `$HOME`, else what the user database says, else the root.

    `expanduser` alone gives whatever HOME holds, and `~` itself to a user without an entry.
    """
    home = os.environ.get("HOME", "")
    if home.startswith("/"):
        return home
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return "/"


def identity(path: str) -> str:
    """A file as it is now, in a word: it changes when the file is replaced or written."""
    try:
        found = os.stat(path)
    except OSError:
        return "-"
    return f"{found.st_ino:x}.{found.st_size:x}.{found.st_mtime_ns:x}"


def short_name(text: str) -> str:
    """A file's name for a long text (FNV-1a, 64 bit); whoever reads the file checks the text.

    hashlib and zlib would cost more to load than this does to compute.
    """
    value = 0xCBF29CE484222325
    for byte in os.fsencode(text):
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def read_own(path: str) -> bytes | None:
    """What a file holds that belongs to this user and that nobody else may write, or None."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            return None
        # In one piece: files of the cache are replaced, never written in place.
        return os.read(fd, status.st_size)
    except OSError:
        return None
    finally:
        os.close(fd)


def write_own(path: str, data: bytes) -> None:
    """Replace a file of the cache, whole or not at all; that it cannot be written is no error."""
    partial = f"{path}.{os.getpid()}.tmp"
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(fd, "wb") as file:
                file.write(data)
            os.replace(partial, path)
        except OSError:
            os.unlink(partial)
    except OSError:
        return


def unpickled(data: bytes | None) -> object:
    """The value of a file that `read_own` has read; None when it is damaged."""
    if data is None:
        return None
    from _pickle import loads

    try:
        return loads(data)
    except Exception:  # noqa: BLE001 (whatever a damaged file makes the pickler raise)
        return None


def pickled(value: object) -> bytes:
    """The bytes for `unpickled`."""
    from _pickle import dumps

    return dumps(value, 4)


def kept(kind: str, name: str, sources: Iterable[str], build: Callable[[], _T]) -> _T:
    """The value that `build` makes of `sources`, from the cache while no source has changed.

    Args:
        kind: a folder of the cache.
        name: of the value in it.
        sources: the paths that `build` reads; the code that reads them belongs to them.
        build: called when nothing is kept, or a source has changed.
    """
    key = ";".join([str(_FORMAT), *(f"{p}:{identity(p)}" for p in sources)])
    path = os.path.join(cache_folder(), kind, f"{name}.pickle")
    found = unpickled(read_own(path))
    if isinstance(found, tuple) and len(found) == 2 and found[0] == key:
        value: _T = found[1]
        return value
    value = build()
    write_own(path, pickled((key, value)))
    return value
