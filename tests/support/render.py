"""A plan, its command line and its errors as golden text."""

from __future__ import annotations

from launcher.command import render_argv, render_helper
from launcher.display import printable
from launcher.errors import InputErrors, LauncherError
from launcher.plan import Plan
from launcher.qapi import format_json
from launcher.report import as_text
from launcher.report.shapes import observer_name
from tests.support.records import RUNTIME


def argv_of(plan: Plan) -> list[str]:
    """The command line with every descriptor masked as `@name@`."""
    descriptors = {name: f"@{name}@" for name in ("qmp", *(want.name for want in plan.wants))}
    return render_argv(plan, descriptors, RUNTIME)


def argv_golden(argv: list[str]) -> str:
    """One option a line."""
    lines = [argv[0]]
    for word in argv[1:]:
        if word.startswith("-") or lines[-1].count(" ") or not lines[-1].startswith("-"):
            lines.append(word)
        else:
            lines[-1] += f" {word}"
    return "\n".join(lines) + "\n"


def plan_golden(plan: Plan) -> str:
    """Everything that was decided: head, setup, values with origin and observer, omissions."""
    lines = [
        f"machine: {plan.machine or '-'}",
        f"accel: {plan.accel or '-'}" + (f" ({plan.accel_reason})" if plan.accel_reason else ""),
        f"platform: {plan.platform}",
        f"qemu: {plan.version}",
    ]
    lines += [f"then: {s.command} {format_json(s.arguments)}" for s in plan.setup]
    lines += [f"wants: {want.kind} {want.name}" for want in plan.wants]
    lines += [
        f"beside: {' '.join(render_helper(h, 3, RUNTIME))} in {h.folder}" for h in plan.helpers
    ]
    lines += [f"unplanned: {word}" for word in plan.unplanned]
    for value in plan.values:
        line = f"{value.family} {value.type} {value.id}: {value.property}={_text(value.value)}"
        if value.spelled != value.property or value.written != value.value:
            line += f", written {value.spelled}={_text(value.written)}"
        line += f" <- {value.origin}, read by {observer_name(value)}"
        lines.append(line + (f" ({value.note})" if value.note else ""))
    lines += [
        f"omitted: {o.family} {o.type} {o.id}: {o.property}={_text(o.value)} "
        f"<- {o.origin}: {o.reason}"
        for o in plan.omitted
    ]
    lines += [f"note: {note}" for note in plan.notes]
    return "\n".join(lines) + "\n"


def _text(value: object) -> str:
    return format_json(value) if isinstance(value, (dict, list)) else as_text(value)


def error_golden(error: LauncherError) -> str:
    """`place: message` and its hint, for each mistake."""
    mistakes = error.mistakes if isinstance(error, InputErrors) else [error]
    lines = []
    for one in mistakes:
        lines.append(printable(f"{one.place}: {one.message}" if one.place else one.message))
        if one.hint:
            lines.append(f"  hint: {one.hint}")
    return "\n".join(lines) + "\n"
