"""How many machines run at a time: who waits for whom."""

from __future__ import annotations

import threading

from launcher.rig.slots import UNIT, Slots


def taking(slots):
    """A machine's slots, taken in a thread of its own; and what it got."""
    got = []
    thread = threading.Thread(target=lambda: got.append(slots.take(UNIT, 1)), daemon=True)
    thread.start()
    return thread, got


def test_who_holds_some_does_not_wait_for_who_waits(tmp_path):
    """The second machine of one, while another waits for the first: neither waits for ever."""
    path = str(tmp_path / "slots")
    one, other = Slots(path, ram=1, cpus=1), Slots(path, ram=1, cpus=1)
    first = one.take(UNIT, 1)
    waiting, got = taking(other)
    waiting.join(0.2)  # it has its turn by now, and waits for what `one` holds
    assert got == []
    second, more = taking(one)
    second.join(10)
    assert len(more) == 1
    one.give(more[0])
    one.give(first)
    waiting.join(10)
    assert len(got) == 1
    other.give(got[0])
    third = one.take(UNIT, 1)
    one.give(third)
