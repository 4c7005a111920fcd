"""What a rehearsed migration costs beyond the migration itself."""

from __future__ import annotations

import json
import sys
from functools import partial

from measures import Binaries, Home, Rows, cli, newest, row
from rounds import Floor, in_turns, median, process, ratio

from launcher.cache import cache_folder

#: A rehearsal takes three seconds, most of them for the guest to boot.
_MOST = 7


async def moves(binaries: Binaries, _floor: Floor, rounds: int) -> Rows:
    """Whole processes: `migrate` on the newest release, and the script in handwritten.py."""
    binary = newest(binaries)
    guest, script = f"{cache_folder()}/guest", f"{sys.path[0]}/handwritten.py"
    with Home() as home:
        profile = home.profile(json.dumps(guest_profile(guest)))
        words = ["migrate", profile, "--from", binary, "--to", binary]
        ours = partial(process, cli(*words), home.env)
        theirs = partial(process, [sys.executable, script, binary, binary, guest])
        ours()  # what the binary answers is kept from here on
        walls = {"ours": lambda: ours()[0], "theirs": lambda: theirs()[0]}
        wall = in_turns(min(rounds, _MOST), walls)
    note = f"{median(wall['ours']) / 1000:.2f} s, by hand {median(wall['theirs']) / 1000:.2f} s"
    goal = "migrate, whole process / handwritten raw QMP"
    return [row(goal, None, ratio(wall["ours"], wall["theirs"]), note)]


def guest_profile(guest: str) -> dict[str, object]:
    """The demo guest on microvm, under TCG, counting on its console."""
    machine = {"type": "microvm", "acpi": "off", "pit": "on", "pic": "on", "rtc": "on"}
    return {
        "name": "moved",
        "platform": "native",
        "machine": {**machine, "isa-serial": "on"},
        "accel": "tcg",
        "cpu": "qemu64",
        "memory": "128MiB",
        "boot": {
            "kernel": f"{guest}/vmlinuz",
            "initrd": f"{guest}/initrd.img",
            "append": "console=ttyS0 quiet loglevel=3 tick=0.1",
        },
        "serial": "console",
    }
