"""What a test pays for its machine: a boot of its own, or a snapshot that is restored."""

from __future__ import annotations

import time

from measures import Binaries, Rows, newest, row
from moves import guest_profile
from rounds import Floor, median, ratio

from launcher import launch
from launcher.cache import cache_folder

#: A boot takes seconds.
_MOST = 7
_UP = "guest# "


async def restores(binaries: Binaries, _floor: Floor, rounds: int) -> Rows:
    """From the start of a machine to its shell's prompt, and from a snapshot to the same."""
    binary = newest(binaries)
    profile = guest_profile(f"{cache_folder()}/guest")
    boots, back = [], []
    for _ in range(min(rounds, _MOST)):
        begun = time.perf_counter()
        async with launch(profile, qemu=binary) as machine:
            await machine.console.wait_for(_UP, 120)
            boots.append((time.perf_counter() - begun) * 1000)
            kept = await machine.snapshot()
            begun = time.perf_counter()
            await machine.restore(kept)
            back.append((time.perf_counter() - begun) * 1000)
            # It really goes on from there.
            await machine.console.send_line("echo o''n")
            await machine.console.wait_for("on", 30)
    note = f"{median(back):.0f} ms, boot {median(boots) / 1000:.2f} s"
    return [row("a restored machine / a fresh boot", 0.2, ratio(back, boots), note)]
