"""A meeting as the platform file that it is, and as JSON."""

from __future__ import annotations

from launcher.platforms.catalogue import FAMILIES
from launcher.platforms.meet import said
from launcher.qapi import format_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from launcher.platforms.cpus import Choice
    from launcher.platforms.meet import Floor, Meeting, Value

#: Hosts that are named before the rest is counted.
_NAMED = 8


def meeting_yaml(meeting: Meeting) -> str:
    """The platform file, with the host that limits each value in a comment or under `why`."""
    hosts = list(meeting.hosts[:_NAMED])
    left = len(meeting.hosts) - len(hosts)
    names = ", ".join(hosts) + (f" and {left} more" if left else "")
    lines = [
        "# The platform on which a machine runs, and migrates, among all of these hosts:",
        f"# {names}",
        "",
        f"name: {format_json(meeting.name)}",
        f'qemu: "{meeting.qemu.version}"  # {meeting.qemu.reason}',
        f'linux: "{meeting.linux.version}"  # {meeting.linux.reason}',
        *_rows(meeting),
        "",
        "# What a platform cannot pin, and a profile has to mind:",
        *(f"#   {name}: {text}" for name, text in advice(meeting)),
    ]
    return "\n".join(lines) + "\n"


def _rows(meeting: Meeting) -> Iterator[str]:
    for family in FAMILIES:
        groups: dict[str, list[Value]] = {}
        for value in meeting.values:
            if value.family == family:
                groups.setdefault(" ".join(value.types), []).append(value)
        if groups:
            yield ""
            yield f"{family}:"
        for types, values in sorted(groups.items()):
            yield f"  {types}:"
            for one in values:
                yield f"    {one.property}:"
                yield f"      value: {format_json(one.value)}"
                yield "      affects: migration"
                yield f"      why: {format_json(one.why)}"


def advice(meeting: Meeting) -> Iterator[tuple[str, str]]:
    """(what, what to do about it and who is the reason), for what no platform pins."""
    nowhere = [
        common.feature
        for common in meeting.features
        if len(common.limited_by) == len(meeting.hosts) and common.feature != "kvm"
    ]
    for common in meeting.features:
        if common.advice and common.feature not in nowhere:
            yield common.feature, f"{common.advice} ({common.reason})"
        elif common.feature == "kvm":
            yield "kvm", "runs guests on every host"
    if nowhere:
        yield "on no host", ", ".join(nowhere)
    cpu = meeting.cpu
    if cpu.model.name:
        yield "cpu", f"{cpu.model.name} is the best model that all have{_limit(cpu.model)}"
    else:
        yield "cpu", f"no model is known to fit all{_limit(cpu.model)}"
    yield "cpu level", f"{cpu.level.name or 'none'}{_limit(cpu.level)}"


def _limit(choice: Choice) -> str:
    """Why there is no better one, in parentheses."""
    if not choice.reason:
        return ""
    who = f"{said(choice.limited_by)}: " if choice.limited_by else ""
    return f" ({who}{choice.reason})"


def meeting_json(meeting: Meeting) -> dict[str, Any]:
    """The whole of it for programs; every list is sorted by name."""
    cpu = meeting.cpu
    return {
        "name": meeting.name,
        "hosts": list(meeting.hosts),
        "arch": meeting.arch,
        "qemu": _floor_json(meeting.qemu),
        "linux": _floor_json(meeting.linux),
        "features": {
            one.feature: {
                "everywhere": one.everywhere,
                "limited_by": list(one.limited_by),
                "unknown_on": list(one.unknown_on),
                "reason": one.reason,
                "advice": one.advice or None,
            }
            for one in meeting.features
        },
        "cpu": {
            "vendors": list(cpu.vendors),
            "flags": None if cpu.flags is None else sorted(cpu.flags),
            "level": _choice_json(cpu.level),
            "model": _choice_json(cpu.model),
        },
        "values": [
            {
                "family": one.family,
                "type": type_,
                "property": one.property,
                "value": one.value,
                "why": one.why,
            }
            for one in meeting.values
            for type_ in one.types
        ],
    }


def _floor_json(floor: Floor) -> dict[str, Any]:
    return {
        "floor": str(floor.version),
        "limited_by": list(floor.limited_by),
        "reason": floor.reason,
    }


def _choice_json(choice: Choice) -> dict[str, Any]:
    return {
        "name": choice.name,
        "limited_by": list(choice.limited_by),
        "reason": choice.reason or None,
    }
