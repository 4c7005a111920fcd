"""Whether a profile, its platform's data, the binary or the host moved since it was locked."""

from __future__ import annotations

from launcher.errors import HostError, InputError
from launcher.lock_files import home_of, load_lock, lock_path, replayed
from launcher.locking.contents import (
    chosen,
    host_section,
    omitted_rows,
    platform_section,
    qemu_section,
)
from launcher.locks.compare import Moved, changes, compare_values, differ
from launcher.locks.given import given
from launcher.locks.model import plan_rows
from launcher.prepare import Request, load, prepare
from launcher.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.locks.given import Home
    from launcher.locks.model import Lock
    from launcher.prepare import Prepared


async def moved(
    profile: str,
    *,
    platform: str = "",
    qemu: str = "",
    settings: tuple[str, ...] = (),
    file: str = "",
) -> list[Moved]:
    """What moved since a profile was locked: the profile, the platform data, the binary, the host.

    Args:
        profile: the path of the profile.
        platform: as it would be run.
        qemu: the binary, by name or path.
        settings: `path=value` texts, as with `--set`.
        file: the lock file; by default the one beside the profile.

    Raises:
        InputError: there is no lock file, or something given is wrong.
        LaunchError: the binary does not behave as QEMU.
    """
    path = file or lock_path(profile)
    locked = load_lock(path)
    home = home_of(path)
    asked, given_settings = replayed(locked, platform, settings)
    loaded = load(Request(profile, asked, qemu, given_settings))
    now = given(loaded.profile, home)
    found = [
        Moved("profile", change.path, change.locked, change.now)
        for change in changes(locked.given, now)
    ]
    was = locked.document
    found += differ("platform", was["platform"], platform_section(loaded))
    try:
        prepared = await prepare(loaded)
    except (InputError, HostError) as error:
        return [*found, Moved("plan", "", "possible", error.message)]
    found += _moved_plan(locked, prepared, home)
    return found


def _moved_plan(locked: Lock, prepared: Prepared, home: Home) -> list[Moved]:
    was, plan, loaded = locked.document, prepared.plan, prepared.loaded
    found = [*differ("qemu", was["qemu"], qemu_section(prepared))]
    found += differ("host", was.get("host", {}), host_section(loaded))
    found += differ("machine", was.get("machine", {}), chosen(loaded, plan))
    rows = [row for row in was["values"] if not row["origin"].startswith("qemu default")]
    found += compare_values(rows, plan_rows(plan, home), ("value", "origin"))
    omitted = omitted_rows(prepared)
    found += (
        replace(one, what="omitted")
        for one in compare_values(was.get("omitted", ()), omitted, ("value",))
    )
    return found
