"""Runs a probe in a child process of its own, for what it does to itself."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def in_child(probe: Callable[[], Any], timeout: float) -> Any:
    """The JSON value that `probe` returns in a forked child, whose namespaces it may change.

    Raises:
        OSError: the child could not be made, did not answer within `timeout` seconds, or died.
    """
    import json
    import select
    import signal

    reader, writer = os.pipe()
    pid = _fork()
    if pid == 0:
        _answer(probe, writer)
    os.close(writer)
    data, ended = b"", False
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    try:
        # One deadline for each piece: the child writes its answer at once, in the end.
        while poll.poll(int(timeout * 1000)):
            piece = os.read(reader, 65536)
            if not piece:
                ended = True
                break
            data += piece
    finally:
        os.close(reader)
        os.kill(pid, signal.SIGKILL)  # it has answered, or has had its time
        os.waitpid(pid, 0)
    if not ended:
        raise OSError(f"the probe's process did not answer within {timeout:g} s")
    if not data:
        raise OSError("the probe's process ended without an answer")
    return json.loads(data)


def _fork() -> int:
    import warnings

    with warnings.catch_warnings():
        # From Python 3.12 on, forking with threads warns. This child takes no lock that another
        # thread may hold, and should it hang all the same, the deadline ends it.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _answer(probe: Callable[[], Any], writer: int) -> None:
    """In the child: write the answer and end, running none of the parent's exit handlers."""
    import json

    try:
        os.write(writer, json.dumps(probe()).encode())
    finally:
        os._exit(0)
