"""Which option did QEMU mean? Asked of a throw-away QEMU, and only after a start has failed.

QEMU names the option in its errors, except for objects given as JSON (system/vl.c keeps no
location for them, 6.0 to 11.1). Adding the objects one by one over QMP finds the one that draws
the same words.
"""

from __future__ import annotations

from launcher.errors import CommandError, QEMUError
from launcher.plan import Descriptor
from launcher.probe import ask_throwaway

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from launcher.monitor import Monitor
    from launcher.plan import Option, Plan


async def object_at_fault(plan: Plan, message: str) -> Option | None:
    """The object whose creation fails with `message`, or None."""
    objects = [o for o in plan.options if o.name == "-object" and o.form == "json"]
    if not objects:
        return None
    contents = {want.name: want.content for want in plan.wants}

    async def add_all(monitor: Monitor, options: list[Option], _tool: str) -> Option | None:
        for option in options:
            try:
                await monitor.execute("object-add", _arguments(option, contents))
            except CommandError as error:
                if error.evidence["desc"] in message or message in error.evidence["desc"]:
                    return option
        return None

    try:
        found: Option | None = await ask_throwaway(plan.binary, add_all, objects)
    except QEMUError:
        return None
    return found


def _arguments(option: Option, contents: dict[str, str]) -> dict[str, Any]:
    """The object's members; a secret's content instead of the descriptor that held it."""
    members = dict(option.members)
    for name, value in option.members.items():
        if isinstance(value, Descriptor):
            del members[name]
            members["data"] = contents.get(value.name, "")
    return members
