"""What differs between two QEMU binaries, and which platform data covers it. Pure.

shapes.py     words of a QAPI schema as entries
entries.py    a record (`launcher.survey`) → entries: family, type, property → facets
compare.py    two sets of entries → what changed, appeared, is gone, and what stayed
waivers.py    reading waivers.yaml: changes that need no row, each class with its reason
cover.py      a change → the row, addition, removal, rename or waiver that covers it
report.py     the JSON shapes: one pair, and the matrix of all releases
text.py       one pair as a table
"""

from __future__ import annotations

from launcher.drift.compare import Change, Comparison, compare
from launcher.drift.cover import By, Cover
from launcher.drift.entries import Head, Surveyed, read_record
from launcher.drift.report import drift_json, matrix
from launcher.drift.waivers import Waiver, read_waivers

__all__ = [
    "By",
    "Change",
    "Comparison",
    "Cover",
    "Head",
    "Surveyed",
    "Waiver",
    "compare",
    "drift_json",
    "matrix",
    "read_record",
    "read_waivers",
]
