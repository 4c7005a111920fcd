"""Signals that end us while a machine is ours: noted first, then handled by the loop.

An exception out of a signal handler could strike anywhere, the making of the event loop and the
undoing of a launch included. So until the loop takes them, signals are only noted.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    import signal
    from collections.abc import Callable, Iterator
else:
    # What signal wraps: signals are noted before QEMU is spawned, and making enumerations of
    # their numbers would take 5 ms until then.
    import _signal as signal

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def _wanted() -> Iterator[int]:
    """All but what whoever started us had ignored: nohup lets us outlive our terminal."""
    for number in ENDING:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            yield number


def note_signals() -> list[int]:
    """From now on note the signals that come; the list grows."""
    noted: list[int] = []
    for number in _wanted():
        signal.signal(number, lambda came, _frame: noted.append(came))
    return noted


def take_signals(
    loop: asyncio.AbstractEventLoop, noted: list[int], act: Callable[[int], None]
) -> None:
    """Let the loop call `act` for each signal, and for those that were noted before."""
    if os.environ.get("QEMU_LAUNCHER_DEBUG") != "1":
        # What tasks have to say that are cancelled half-way is no news to who pressed Ctrl-C.
        loop.set_exception_handler(lambda _loop, _context: None)
    for number in _wanted():
        loop.add_signal_handler(number, act, number)
    for came in noted:
        act(came)


def ignore_signals(loop: asyncio.AbstractEventLoop) -> None:
    """For the last moments, in which there is nothing left to end."""
    for number in ENDING:
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)
