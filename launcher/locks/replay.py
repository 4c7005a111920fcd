"""Whether a profile, a plan and what QEMU says keep a lock. Pure.

A lock is kept or refused as a whole. Before QEMU is started: the profile must say what it said,
and the plan for this binary must hold every locked value, or the binary must behave so by itself.
After it: what is read back must be what was read back then.
"""

from __future__ import annotations

from launcher.errors import HostError, InputError, InputErrors
from launcher.locks.compare import changes, value_name
from launcher.nodes import Mapping
from launcher.platforms import own_value, parse_qemu_version
from launcher.record import record, replace
from launcher.report import as_text, same
from launcher.report.text import shorten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from launcher.errors import LauncherError, Place
    from launcher.locks.compare import Change
    from launcher.locks.model import Lock
    from launcher.nodes import Node
    from launcher.plan import Plan
    from launcher.plan.locked import LockedValue
    from launcher.platforms import Catalogue, Version
    from launcher.profiles import Profile
    from launcher.report import Judged, Report

#: How many reasons one message holds; all of them are in its evidence.
_SHOWN = 3


def check_profile(lock: Lock, profile: Profile, now: Mapping) -> None:
    """Refuse a profile that is not the one that was locked.

    Args:
        lock: what was locked.
        profile: what is to be run.
        now: its tree (`given`).

    Raises:
        InputErrors: each difference with its place, the profile's where there is one.
    """
    name = lock.document["profile"]["name"]
    if name != profile.name:
        raise InputError(
            f"is the lock of {name!r}, and this profile is {profile.name!r}",
            place=lock.place("profile", "name"),
            hint=f"lock this one: `qemu-launcher lock {profile.file}`",
            code="lock",
        )
    file = lock.file.rpartition("/")[2]
    hint = f"if it is meant, lock it again: `qemu-launcher lock {profile.file}`"
    found: dict[Place, InputError] = {}
    for change in changes(lock.given, now):
        place = _where(change)
        # One word of the profile may stand for several values: `memory` is an object, too.
        found.setdefault(
            place, InputError(_said(change, file), place=place, hint=hint, code="lock")
        )
    if found:
        raise InputErrors(found.values())


def _said(change: Change, file: str) -> str:
    if change.locked is None:
        return f"{change.path} is not in {file}"
    line = change.locked_place.line
    if change.now is None:
        return f"{change.path} is in {file}:{line}, and not in the profile any more"
    return f"{change.path} is {change.now}, and {file}:{line} has {change.locked}"


def _where(change: Change) -> Place:
    """Where the profile says it; what it says no more stands in the lock file only."""
    return change.locked_place if change.now is None else change.place


# -- before QEMU is started -----------------------------------------------------------------------


@record
class Broken:
    """One locked value that cannot be kept on a binary.

    `possible` is what the binary would do instead, None where it can do nothing of the kind;
    `key` is (family, type, property), None for what is no value.
    """

    name: str
    planned: Any
    possible: Any
    reason: str
    place: Place
    key: tuple[str, str, str] | None = None

    def __str__(self) -> str:
        possible = "nothing" if self.possible is None else shorten(self.possible)
        words = f"{self.name}: locked {shorten(self.planned)}, possible {possible}"
        return f"{words} ({self.reason})" if self.reason else words

    def as_json(self) -> dict[str, Any]:
        """For the evidence of the error."""
        return {
            "property": self.name,
            "planned": self.planned,
            "possible": self.possible,
            "reason": self.reason,
            "line": self.place.line,
        }


def keep_lock(
    lock: Lock, profile: Profile, version: str, catalogue: Catalogue, make: Callable[[], Plan]
) -> Plan:
    """The plan that `make` makes under a lock, when it keeps all of it.

    Args:
        lock: what was locked.
        profile: that is planned.
        version: of the binary.
        catalogue: says what the binary does by itself.
        make: makes the plan.

    Raises:
        HostError: says of each value that cannot be kept what was locked, and why.
    """
    try:
        plan = make()
    except (InputError, HostError) as error:
        broken = _refused(lock, profile, error)
    else:
        broken = list(_broken(lock, plan))
        if not broken:
            return plan
    release = parse_qemu_version(version)
    raise _refusal(lock, version, [_with_possible(one, catalogue, release) for one in broken])


def _with_possible(one: Broken, catalogue: Catalogue, version: Version) -> Broken:
    """With what the binary does by itself, where the data knows."""
    if one.possible is not None or one.key is None:
        return one
    return replace(one, possible=own_value(catalogue, one.key, version))


def _broken(lock: Lock, plan: Plan) -> Iterator[Broken]:
    values = {(v.family, v.id, v.property): v for v in plan.values}
    omitted = {(o.family, o.id, o.property): o for o in plan.omitted}
    for key, locked in lock.values().items():
        value = values.get(key)
        if value is not None:
            if not alike(value.value, locked.value):
                yield _unkept(locked, value.value, value.note)
            continue
        # What the plan omits for the lock's sake the binary does by itself.
        left = omitted.get(key)
        if left is not None and left.origin.kind == "lock":
            continue
        reason = left.reason if left is not None else f"QEMU {plan.version} was not asked for it"
        yield _unkept(locked, None, reason)


def _refused(lock: Lock, profile: Profile, error: LauncherError) -> list[Broken]:
    """What cannot be kept of a plan that could not be made."""
    values = lock.values()
    # "it has pc-q35-2.4 to pc-q35-5.2": what a plan says of a machine type that is not there.
    has = error.hint.removeprefix("it has ") if error.hint.startswith("it has ") else None
    mistakes = getattr(error, "mistakes", None)
    if mistakes is None:
        said = error.evidence.get("reasons") or [error.message]
        return [_by_reason(str(reason), lock, values, has) for reason in said]
    written = dict(_places(profile))
    by_line = {value.place: value for value in values.values()}
    found = []
    for mistake in mistakes:
        locked = values.get(written.get(mistake.place, ("", "", ""))) or by_line.get(mistake.place)
        if locked is None:
            found.append(_by_reason(mistake.message, lock, values, has))
        else:
            found.append(_unkept(locked, None, mistake.message))
    return found


def _by_reason(
    reason: str, lock: Lock, values: dict[tuple[str, str, str], LockedValue], has: str | None
) -> Broken:
    """A reason of the plan begins with what it is about.

    `object iothread poll-grow: …` for a binary, `memory-backend-memfd seal=on needs …` for a host.
    """
    for value in values.values():
        head = f"{value.type} {value.property}"
        if reason.startswith(f"{value.family} {head}: "):
            return _unkept(value, None, reason.partition(": ")[2])
        if reason.startswith(f"{head}="):
            return _unkept(value, None, reason)
    machine = lock.document.get("machine", {})
    for name, key in (("machine type", "type"), ("accel", "accel")):
        if name in reason:
            return Broken(name, machine.get(key), has, reason, lock.place("machine", key))
    return Broken("profile", lock.document["profile"]["name"], None, reason, lock.place("given"))


def _refusal(lock: Lock, version: str, broken: list[Broken]) -> HostError:
    file = lock.file.rpartition("/")[2]
    shown = "; ".join(str(one) for one in broken[:_SHOWN])
    more = len(broken) - _SHOWN
    was = lock.document["qemu"]["version"]
    return HostError(
        f"QEMU {version} cannot keep {file}: {shown}" + (f"; and {more} more" if more > 0 else ""),
        place=broken[0].place,
        hint=f"it was locked on QEMU {was}; run it there, or lock it again on this one",
        evidence={"reasons": [str(one) for one in broken], "values": [b.as_json() for b in broken]},
        code="lock",
    )


def _unkept(locked: LockedValue, possible: Any, reason: str) -> Broken:
    name = value_name(locked.family, locked.type, locked.id, locked.property)
    key = (locked.family, locked.type, locked.property)
    return Broken(name, locked.value, possible, reason, locked.place, key)


#: Section of a profile → the family of its values.
_FAMILIES = {
    "objects": "object",
    "netdevs": "netdev",
    "chardevs": "chardev",
    "blockdevs": "blockdev",
    "devices": "device",
    "audiodevs": "audiodev",
    "tpmdevs": "tpmdev",
    "exports": "export",
}


def _places(profile: Profile) -> Iterator[tuple[Place, tuple[str, str, str]]]:
    """Where the profile says each value: mistakes are told at the key or at the value."""
    for section, family in _FAMILIES.items():
        for key, entry in getattr(profile, section).items():
            yield from _below(entry, family, key, "")
    yield from _below(profile.machine, "machine", "machine", "")
    for part in ("capabilities", "parameters", "properties"):
        family = f"migration-{part[:-1]}".replace("capabilitie", "capability").replace(
            "propertie", "property"
        )
        for name, node in getattr(profile, f"migration_{part}").items():
            yield node.place, (family, "migration", name)


def _below(
    node: Node, family: str, key: str, path: str
) -> Iterator[tuple[Place, tuple[str, str, str]]]:
    if isinstance(node, Mapping):
        for name, item in node.items.items():
            below = f"{path}.{name}".lstrip(".")
            yield node.key_place(name), (family, key, below)
            yield from _below(item, family, key, below)
    else:
        yield node.place, (family, key, path)


# -- after it -------------------------------------------------------------------------------------


def judge_lock(lock: Lock, report: Report) -> Report:
    """`report` with a mismatch for each value that is not what was observed when it was locked."""
    values = lock.values()
    return replace(report, judged=tuple(_judged(one, values, lock) for one in report.judged))


def _judged(one: Judged, values: dict[tuple[str, str, str], LockedValue], lock: Lock) -> Judged:
    value = one.value
    locked = values.get((value.family, value.id, value.property))
    if locked is None or one.verdict != "match" or not locked.was_read:
        return one
    if alike(locked.observed, one.observed):
        return one
    qemu = lock.document["qemu"]["version"]
    told_alike = alike(locked.written, value.written) and locked.spelled == value.spelled
    if told_alike and not value.observer.reads_as:
        words = f"QEMU {qemu} had {as_text(locked.observed)} when it was locked"
        return replace(one, verdict="mismatch", reason=words)
    # The platform data gives both binaries what they need for the same effect.
    words = f"QEMU {qemu} keeps the same as {as_text(locked.observed)}"
    return replace(one, reason=one.reason or words)


def alike(one: Any, other: Any) -> bool:
    """Whether two values mean the same, whichever QEMU spelled them."""
    return same(one, other) or same(other, one)
