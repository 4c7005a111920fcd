"""Expectations to observations: what to ask, and how the answers are read. Monitor, /proc, /sys.

QEMU reads its monitor one byte at a time (75 us and 3.1 us per request byte, measured on 7.2 and
11.1), so the fewest and shortest requests win: one `qom-list-get` for all objects and devices
where the binary has it, else one command per kind of object, and single reads for the rest only.
"""

from launcher.verify.observe import OVERLAY, observe, overlay_name

__all__ = ["OVERLAY", "observe", "overlay_name"]
