"""The QMP session: commands with deadlines, events with budgets. The only importer of qemu.qmp.

    session.py   `Monitor`, what the other rooms use
    client.py    the QMP client of QEMU's own authors, with our hooks
    events.py    which events get in, and where they wait
    history.py   events that came and that will come, as one thing
    faults.py    what an end or a silence means

Which commands are dangerous on which release is platform data; this room sends what it is told.
"""

from __future__ import annotations

from launcher.monitor.events import Event, EventStream
from launcher.monitor.history import Events
from launcher.monitor.session import GivenFd, Monitor

__all__ = ["Event", "EventStream", "Events", "GivenFd", "Monitor"]
