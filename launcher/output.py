"""Files that a user named for a result: written whole or not at all. Disk."""

from __future__ import annotations

import os
import stat

from launcher.errors import HostError


def write_output(path: str, text: str | bytes, what: str) -> None:
    """Write `text` to the file that the user named.

    A file is replaced only when all of it has been written, so that a full disk leaves the old
    one. A link stays, and leads to the new file. What is no file (/dev/stdout, a pipe) is written
    to: to put a file into its place would take it away from the host.

    Args:
        path: of the file.
        text: all that it is to hold.
        what: names the file in an error: `the report`.

    Raises:
        HostError: it cannot be written.
    """
    data = text if isinstance(text, bytes) else text.encode("utf-8", "backslashreplace")
    try:
        if _is_file_or_free(path):
            _replace(os.path.realpath(path), data)
        else:
            with open(path, "wb") as file:
                file.write(data)
    except OSError as error:
        words = f"{what} {path} cannot be written: {error.strerror}"
        raise HostError(words, code="output") from None


def _is_file_or_free(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        return True


def _replace(path: str, data: bytes) -> None:
    beside = f"{path}.{os.getpid()}.new"
    try:
        with open(beside, "xb") as file:
            file.write(data)
            if os.path.exists(path):
                os.fchmod(file.fileno(), stat.S_IMODE(os.stat(path).st_mode))
        os.replace(beside, path)
    except FileExistsError:
        raise  # of another process with our number: not ours to remove
    except BaseException:
        if os.path.exists(beside):
            os.unlink(beside)
        raise
