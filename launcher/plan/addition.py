"""What a machine is given while it runs, and what is taken from it, as parts of its plan."""

from __future__ import annotations

from launcher.errors import HostError, InputError
from launcher.plan.words import TAGS
from launcher.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from launcher.plan.model import Option, Plan


#: The path of options that no profile asks for, such as the -incoming of a machine that waits.
_OWN = "launcher"


def grown(before: Plan, after: Plan) -> Plan:
    """`after` with what a start of its own had given the plan `before`."""
    own = tuple(o for o in before.options if o.path == _OWN and o not in after.options)
    return replace(after, options=after.options + own)


def difference(before: Plan, after: Plan) -> Plan:
    """What the plan `after` has more than `before`, as a plan of its own.

    Args:
        before: of the machine that runs.
        after: of the same with more, for the same binary.

    Raises:
        HostError: the binary is another one by now.
        InputError: something else would have to be another one, too.
    """
    if (before.version, before.build) != (after.version, after.build):
        raise HostError(
            f"{before.binary} is QEMU {after.version} ({after.build}) by now, and "
            f"{before.name} runs on QEMU {before.version} ({before.build})",
            hint="start the machine again",
            code="binary",
        )
    # Not by their places: a comment that was added to the profile's file moves them.
    had = [replace(option, place=None) for option in before.options]
    has = [replace(option, place=None) for option in after.options]
    for option, bare in zip(before.options, had, strict=True):
        if bare not in has and option.path != _OWN:
            raise _not_while_it_runs(option)
    old = {(v.family, v.id, v.property): v for v in before.values}
    left = {(o.family, o.id, o.property) for o in before.omitted}
    new = tuple(v for v in after.values if (v.family, v.id, v.property) not in old)
    return replace(
        after,
        options=tuple(o for o, bare in zip(after.options, has, strict=True) if bare not in had),
        setup=(),
        values=new,
        omitted=tuple(o for o in after.omitted if (o.family, o.id, o.property) not in left),
        wants=tuple(w for w in after.wants if w not in before.wants),
    )


def _not_while_it_runs(option: Option) -> InputError:
    if option.path == "sandbox":
        return InputError(
            "the sandbox in which QEMU runs does not let it start a tap's scripts",
            hint='give script: "no" and downscript: "no"',
            code="plug",
        )
    return InputError(
        f"{option.path} is not what the machine was started with",
        place=option.place,
        hint="was the profile changed since? Start the machine again",
        code="plug",
    )


def reduced(plan: Plan, gone: set[tuple[str, str]]) -> Plan:
    """`plan` without some entries, each (section, id)."""
    paths = {f"{section}.{key}" for section, key in gone}
    keys = {(section.removesuffix("s"), key) for section, key in gone}
    return replace(
        plan,
        options=tuple(o for o in plan.options if o.path not in paths),
        values=tuple(v for v in plan.values if (v.family, v.id) not in keys),
        omitted=tuple(o for o in plan.omitted if (o.family, o.id) not in keys),
        wants=tuple(w for w in plan.wants if w.name not in {f"secret-{key}" for _, key in gone}),
    )


def parts(plan: Plan) -> set[str]:
    """The parts of a plan that can come and go while it runs, as `devices.nic1`."""
    families = ("object", "chardev", "blockdev", "netdev", "device")
    return {
        option.path
        for option in plan.options
        if option.path.partition(".")[0].removesuffix("s") in families
    }


def members(option: Option) -> tuple[str, str, dict[str, Any]]:
    """The kind, the id and the other members of an entry's option, whatever its form."""
    tag, id_member = TAGS[option.path.partition(".")[0].removesuffix("s")]
    whole = {tag: option.head, **option.members} if option.form != "json" else option.members
    rest = {name: item for name, item in whole.items() if name not in (tag, id_member)}
    return str(whole[tag]), str(whole[id_member]), rest
