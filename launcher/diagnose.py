"""Why did QEMU not start, and which line of the profile is it about?

Only after a start has failed; QEMU's own words are on stderr and nowhere else.

QEMU names the option in its errors, except for objects given as JSON (system/vl.c keeps no
location for them, 6.0 to 11.1). Adding the objects one by one over QMP finds the one that draws
the same words.
"""

from __future__ import annotations

from launcher.command import option_at
from launcher.display import printable
from launcher.errors import CommandError, LaunchError, QEMUError
from launcher.plan import Descriptor
from launcher.probe import ask_throwaway
from launcher.process import describe_exit, meaningful_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from launcher.begin import Started
    from launcher.host.resources import Resources
    from launcher.monitor import Monitor
    from launcher.plan import Option, Plan
    from launcher.process import Process


def said(process: Process, held: Resources) -> list[str]:
    """What QEMU said on stderr so far: to us, or into its log when it is to outlive us."""
    if held.directory is None or process.stderr.lines:
        return process.stderr.lines
    from launcher.rejoin import log_lines

    return log_lines(held.directory.path)


async def died(started: Started, cause: QEMUError) -> QEMUError:
    """The error of a QEMU that ended, or broke its monitor, during a launch.

    QEMU's own words are on stderr and nowhere else; the option they name leads back to the
    profile's line.
    """
    process = started.process
    try:
        code = await process.wait(1.0)
    except TimeoutError:
        # It lives: then the monitor's own error is the better story.
        return cause
    for helper in started.helpers:
        if (trouble := helper.trouble()) is not None:
            return LaunchError(trouble.message, place=trouble.place, evidence=trouble.evidence)
    lines = said(process, started.resources)
    found = meaningful_lines(lines, started.argv)
    plan = started.prepared.plan
    option: Option | None = None
    words = "it said nothing"
    hint = ""
    if found:
        first = found[0]
        words = printable(first.message)
        if first.index > 0:
            option = option_at(plan, first.index)
        else:
            option = _mentioned(plan, first.line) or await object_at_fault(plan, first.message)
        said_beside = (helper.words() for helper in started.helpers)
        hint = " ".join([*(printable(line) for line in first.hints), *filter(None, said_beside)])
    where = f"{option.path}: " if option is not None and option.path else ""
    ended = "" if code == 1 else f" ({describe_exit(code)})"
    return LaunchError(
        f"QEMU {plan.version} did not start{ended}: {where}{words}",
        place=option.place if option is not None else None,
        hint=hint,
        evidence={
            "qemu_stderr": lines,
            "returncode": code,
            "option": option.path if option else None,
            "argv": started.argv,
        },
    )


def _mentioned(plan: Plan, line: str) -> Option | None:
    """The option whose value a message repeats, when it does not name the option itself."""
    for option in plan.options:
        texts = [option.head, *(str(v) for v in option.members.values())]
        if option.place is not None and any(len(t) > 3 and t in line for t in texts):
            return option
    return None


async def object_at_fault(plan: Plan, message: str) -> Option | None:
    """The object whose creation fails with `message`, or None."""
    # The storage daemon's options have two dashes.
    objects = [o for o in plan.options if o.name.endswith("-object") and o.form == "json"]
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
