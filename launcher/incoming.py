"""A machine that waits for a guest: of the same profile, with `-incoming defer`. Composes.

    destination = await incoming(prepared, uuid=source.plan.uuid, folder="web-2")
    await source.migrate(destination)

Its disks may be those of the running source: QEMU opens the images of a machine that waits without
taking their locks, and takes them when the guest has arrived (block.c, BDRV_O_INACTIVE).
"""

from __future__ import annotations

from launcher.begin import begin
from launcher.plan import Option
from launcher.record import replace
from launcher.start import attach

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.machine import Machine
    from launcher.plan import Plan
    from launcher.prepare import Prepared


def waiting_plan(plan: Plan, uuid: str = "") -> Plan:
    """The plan of a machine that waits for the guest `uuid`, for whom it is to stay the same."""
    options = [replace(o, head=uuid) if uuid and o.name == "-uuid" else o for o in plan.options]
    if "-incoming" not in plan.unplanned:
        # Only when it has been told its capabilities may it open a port, and in peace.
        options.append(Option("-incoming", "word", "defer", {}, "launcher"))
    return replace(plan, options=tuple(options), uuid=uuid or plan.uuid)


async def incoming(prepared: Prepared, *, uuid: str = "", folder: str = "") -> Machine:
    """Start a machine that waits for a guest. It is set up, and not verified yet.

    Args:
        prepared: as for a start.
        uuid: of the guest that is to arrive.
        folder: a name of its own for its runtime directory, see `begin`.

    Raises:
        HostError: a resource cannot be had; LaunchError: QEMU did not start.
    """
    plan = waiting_plan(prepared.plan, uuid)
    return await attach(begin(prepared.with_plan(plan), folder=folder))
