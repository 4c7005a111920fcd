"""The JSON shapes of plans and reports; fields may be added, not renamed."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from launcher.plan import Plan, Value
    from launcher.report.model import Judged, Report


def head_json(plan: Plan) -> dict[str, Any]:
    """What plans and reports begin with."""
    return {
        "name": plan.name,
        "qemu": {"binary": plan.binary, "version": plan.version, "build": plan.build},
        "platform": plan.platform,
        "machine": plan.machine,
        "accel": plan.accel,
        "accel_reason": plan.accel_reason or None,
    }


def plan_json(plan: Plan, argv: list[str], helpers: Sequence[list[str]] = ()) -> dict[str, Any]:
    """The shape of `plan --format json`; `helpers` are the command lines of what runs beside."""
    return {
        **head_json(plan),
        "argv": argv,
        "setup": [{"command": s.command, "arguments": s.arguments} for s in plan.setup],
        "values": [_value_json(value) for value in plan.values],
        "omitted": [
            {
                "family": o.family,
                "type": o.type,
                "id": o.id,
                "property": o.property,
                "value": o.value,
                "origin": str(o.origin),
                "reason": o.reason,
            }
            for o in plan.omitted
        ],
        "unplanned": list(plan.unplanned),
        "notes": list(plan.notes),
        "helpers": [
            {"path": h.path, "chardev": h.chardev, "folder": h.folder, "argv": words}
            for h, words in zip(plan.helpers, helpers, strict=False)
        ],
    }


def observer_name(value: Value) -> str:
    """How a value is read back, in a word; `unobservable` when it is not."""
    return value.observer.read or "unobservable"


def _value_json(value: Value) -> dict[str, Any]:
    found = {
        "family": value.family,
        "type": value.type,
        "id": value.id,
        "property": value.property,
        "value": value.value,
        "origin": str(value.origin),
        "observer": observer_name(value),
    }
    if value.written != value.value or value.spelled != value.property:
        found["written"] = {"property": value.spelled, "value": value.written}
    if value.note:
        found["note"] = value.note
    return found


def report_json(report: Report) -> dict[str, Any]:
    """The shape of `verify --format json` and of the report of `run`."""
    return {
        **head_json(report.plan),
        "verdict": report.verdict,
        "counts": report.counts,
        "values": [judged_json(one) for one in report.judged],
        "complaints": list(report.complaints),
        "speed": None
        if report.speed is None
        else {"native": report.speed[0], "reason": report.speed[1]},
        "unplanned": list(report.plan.unplanned),
        "omitted": plan_json(report.plan, [])["omitted"],
        "stats": {"commands": report.commands, "request_bytes": report.request_bytes},
    }


def judged_json(one: Judged) -> dict[str, Any]:
    """One row of a report."""
    value = one.value
    return {
        "family": value.family,
        "type": value.type,
        "id": value.id,
        "property": value.property,
        "planned": value.written,
        "observed": one.observed,
        "origin": str(value.origin),
        "observer": observer_name(value),
        "verdict": one.verdict,
        "reason": one.reason or None,
    }
