"""Locking a profile, and what moved since. Composes the rooms, as `launcher.start` does.

    start.py      start it paused, read it back, write the file
    contents.py   what the file holds
    defaults.py   QEMU's own defaults, where they change between releases
    migration.py  what decides a migration
    moved.py      what moved since

What a lock file says, how it is written and what it decides is in `launcher.locks`.
"""
