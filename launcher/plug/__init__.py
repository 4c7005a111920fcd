"""Giving a machine parts while it runs, and taking them away: planned, read back and judged.

The plan is that of a machine which had been started with them (`launcher.plan`); what it has more
than the machine's own is told to QEMU over QMP (`words`), backends before those that use them, and
read back as at start.
"""

from launcher.plug.adding import plug
from launcher.plug.removing import unplug

__all__ = ["plug", "unplug"]
