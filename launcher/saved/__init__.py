"""A guest's state in a file, with its lock beside it, and a machine that goes on from there.

    await launcher.save(machine, "web.state")         # web.state, and web.state.lock.yaml
    machine = await launcher.restore("web.state", qemu="qemu-system-x86_64")

    saving.py     state and lock of a machine, of this process or of another
    again.py      what a running machine was planned from, and whether that is still so
    restoring.py  a machine under the lock, the state in it

Composes. The lock says what the machine was, so that a later QEMU can be the same, or says exactly
what it cannot be.
"""

from __future__ import annotations

from launcher.saved.restoring import arrive, prepare_restore, restore
from launcher.saved.saving import lock_of_state, save, save_running

__all__ = ["arrive", "lock_of_state", "prepare_restore", "restore", "save", "save_running"]
