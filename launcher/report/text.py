"""Plans and reports as text for a terminal: aligned columns, nothing that a log would garble."""

from __future__ import annotations

from launcher.display import printable
from launcher.report.model import as_text
from launcher.report.shapes import observer_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from launcher.plan import Plan, Value
    from launcher.report.model import Judged, Report

_WIDEST = 44
_MARKS = {
    "match": "\x1b[32m",
    "mismatch": "\x1b[31m",
    "absent": "\x1b[31m",
    "unobservable": "\x1b[33m",
}
_END = "\x1b[0m"


def shorten(value: Any) -> str:
    """A value for a table cell."""
    if isinstance(value, (dict, list)):
        from launcher.qapi import format_json

        text = format_json(value)
    else:
        text = as_text(value)
    text = printable(text)
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"


def table(rows: Iterable[Sequence[str]], head: Sequence[str], color: dict[str, str]) -> str:
    """Columns aligned by spaces; the last is not padded. `color` maps a cell's text to a mark."""
    cells = [list(head), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = []
    for row in cells:
        padded = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)]
        marks = [
            f"{color[cell]}{pad}{_END}" if cell in color else pad
            for cell, pad in zip(row, [*padded, row[-1]], strict=True)
        ]
        lines.append("  ".join(marks).rstrip())
    return "\n".join(lines)


def name_of(value: Value) -> str:
    """`iothread io0 poll-grow`, `migration send-switchover-start`, `machine acpi`."""
    if value.id in (value.type, "machine"):
        return f"{value.family.partition('-')[0]} {value.property}"
    return f"{value.type} {value.id} {value.property}"


def _head(plan: Plan) -> str:
    machine = f"{plan.machine}, {plan.accel}, " if plan.machine else ""
    build = f" ({plan.build})" if plan.build else ""
    return f"{plan.name}: {machine}QEMU {plan.version}{build}, platform {plan.platform}"


def report_text(report: Report, *, color: bool = False) -> str:
    """The verification report as a table, with what is wrong repeated below it."""
    plan = report.plan
    rows = [_judged_row(one) for one in report.judged]
    head = ("property", "planned", "observed", "origin", "verdict")
    parts = [_head(plan)]
    if plan.accel_reason:
        parts.append(f"accel {plan.accel}: {plan.accel_reason}")
    if rows:
        parts.append(table(rows, head, _MARKS if color else {}))
    if plan.platform == "native":
        parts.append("platform native: nothing was pinned")
    if report.speed is not None and report.speed[0] is False:
        parts.append(f"not at native speed: {report.speed[1]}")
    parts += [f"complaint: {printable(line)}" for line in report.complaints]
    if plan.unplanned:
        parts.append(f"not planned, not verified: {printable(' '.join(plan.unplanned))}")
    counts = ", ".join(f"{count} {name}" for name, count in report.counts.items())
    parts.append(f"verdict: {report.verdict} ({counts})")
    return "\n".join(parts)


def _judged_row(one: Judged) -> tuple[str, ...]:
    value = one.value
    observed = shorten(one.observed) if one.verdict in ("match", "mismatch") else "-"
    return (
        printable(name_of(value)),
        shorten(value.written),
        observed,
        str(value.origin),
        one.verdict,
    )


def wrong_text(report: Report) -> str:
    """Only what stops a strict launch, planned and observed side by side."""
    lines = [
        f"{name_of(one.value)}: planned {shorten(one.value.written)} "
        f"({one.value.origin}), observed "
        f"{shorten(one.observed) if one.verdict == 'mismatch' else 'nothing'}"
        + (f" ({printable(one.reason)})" if one.reason else "")
        for one in report.wrong
    ]
    return "\n".join([*lines, *(printable(line) for line in report.complaints)])


def plan_text(
    plan: Plan,
    argv: Sequence[str],
    helpers: Sequence[Sequence[str]] = (),
    *,
    explain: bool = False,
) -> str:
    """The plan: its command line, one option a line; with `explain` each value and its origin."""
    parts = [_head(plan)]
    if plan.accel_reason:
        parts.append(f"accel {plan.accel}: {plan.accel_reason}")
    for helper, words in zip(plan.helpers, helpers, strict=False):
        parts.append(f"beside it, in {printable(helper.folder)}: {argv_text(words)}")
    parts.append(argv_text(argv))
    for step in plan.setup:
        from launcher.qapi import format_json

        parts.append(f"then {step.command} {printable(format_json(step.arguments))}")
    if explain:
        rows = [
            (
                printable(name_of(v)),
                shorten(v.value),
                str(v.origin),
                observer_name(v),
                v.note or (_why(v) if v.observer.read is None else ""),
            )
            for v in plan.values
        ]
        parts.append(table(rows, ("property", "value", "origin", "read back by", "note"), {}))
        parts += [
            f"omitted: {o.type} {o.property}={o.value} ({o.origin}): {o.reason}"
            for o in plan.omitted
        ]
    parts += [f"note: {note}" for note in plan.notes]
    return "\n".join(parts)


def _why(value: Value) -> str:
    return value.observer.unobservable


#: What no shell reads in a way of its own (shlex.quote's rule, without its regular expression).
_SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-")


def quote(word: str) -> str:
    """`word` for a shell."""
    if word and _SAFE.issuperset(word):
        return word
    return "'" + word.replace("'", "'\"'\"'") + "'"


def argv_text(argv: Sequence[str]) -> str:
    """The command line for a shell, one option a line, each word quoted where it must be."""
    lines = [quote(argv[0])]
    for word in argv[1:]:
        if (
            word.startswith("-")
            or not lines[-1].lstrip().startswith("-")
            or " " in lines[-1].strip()
        ):
            lines.append(f"  {quote(word)}")
        else:
            lines[-1] += f" {quote(word)}"
    return " \\\n".join(lines)
