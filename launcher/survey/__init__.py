"""A QEMU binary surveyed: everything that can be read of it, as one record. Process, QMP.

    kits.py       what each type needs so that one of it can be made without the host
    ask.py        throw-away QEMUs, and what becomes of one that dies of a question
    read.py       values of objects, backends, block nodes, migration, with QEMU's own words for
                  what cannot be made
    tree.py       the QOM tree of a machine, by names that do not depend on the order of creation
    whole.py      the order of it all
    layout.py     a record as text: sorted, one value a line
    shelf.py      the records that come with the launcher

Every question that may end a QEMU is put to one that nobody needs. Two surveys of one binary give
the same bytes: what depends on the host or on the moment is marked `{"host": why}` instead.
"""

from __future__ import annotations
