"""The QMP session: commands with deadlines, events with budgets. The only importer of qemu.qmp.

    session.py   `Monitor`, what the other rooms use
    client.py    the QMP client of QEMU's own authors, with our hooks
    events.py    which events get in, and where they wait

Which commands are dangerous on which release is platform data; this room sends what it is told.
"""

from __future__ import annotations

from launcher.monitor.events import Event, EventStream
from launcher.monitor.session import Monitor

__all__ = ["Event", "EventStream", "Monitor"]
