"""Reports for other programs: JUnit XML for test runners, one self-contained HTML page."""

from __future__ import annotations

from launcher.report.text import name_of, shorten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.report.model import Report


def _escape(text: str) -> str:
    clean = "".join(c if c in "\n\t" or c >= " " else "\ufffd" for c in text)
    for raw, safe in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        clean = clean.replace(raw, safe)
    return clean


def junit_properties(report: Report) -> dict[str, str]:
    """The report's head as properties of a test suite."""
    plan = report.plan
    return {
        "qemu.version": plan.version,
        "qemu.build": plan.build,
        "qemu.binary": plan.binary,
        "platform": plan.platform,
        "machine": plan.machine,
        "accel": plan.accel,
        "verdict": report.verdict,
        **{f"counts.{name}": str(count) for name, count in report.counts.items()},
    }


def report_junit(report: Report) -> str:
    """The report as JUnit XML: a test case for each value, properties for the rest."""
    counts = report.counts
    failures = counts["mismatch"] + counts["absent"]
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<testsuite name="{_escape(report.plan.name)}" tests="{len(report.judged)}" '
        f'failures="{failures}" skipped="{counts["unobservable"]}">',
        "  <properties>",
    ]
    for name, text in junit_properties(report).items():
        lines.append(f'    <property name="{_escape(name)}" value="{_escape(text)}"/>')
    lines.append("  </properties>")
    for one in report.judged:
        case = f'  <testcase classname="{_escape(one.value.family)}" name="'
        case += f'{_escape(name_of(one.value))}"'
        if one.verdict == "match":
            lines.append(f"{case}/>")
            continue
        tag = "skipped" if one.verdict == "unobservable" else "failure"
        words = f"planned {shorten(one.value.written)}, observed {shorten(one.observed)}"
        message = one.reason if tag == "skipped" else f"{one.verdict}: {words}"
        lines.append(f'{case}><{tag} message="{_escape(message)}"/></testcase>')
    return "\n".join([*lines, "</testsuite>", ""])


_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem;
color:#1c2733;background:#fff}h1{font-size:1.3rem}table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #d9e0e7;vertical-align:top}
th{background:#f2f5f8;position:sticky;top:0}td.v{font-family:ui-monospace,monospace}
.match .verdict{color:#16703a}.mismatch .verdict,.absent .verdict{color:#b3261e;font-weight:600}
.unobservable .verdict{color:#8a6100}.mismatch,.absent{background:#fdf1f0}
@media (prefers-color-scheme:dark){body{color:#dfe6ee;background:#141a21}
th{background:#1e2730}th,td{border-color:#2d3945}.mismatch,.absent{background:#3a1d1b}
.match .verdict{color:#6fd08c}.unobservable .verdict{color:#e0b050}
.mismatch .verdict,.absent .verdict{color:#ff9d94}}
"""


def report_html(report: Report) -> str:
    """The report as one page that needs nothing else."""
    plan = report.plan
    rows = []
    for one in report.judged:
        observed = shorten(one.observed) if one.verdict in ("match", "mismatch") else "-"
        cells = (
            ("", name_of(one.value)),
            ("v", shorten(one.value.written)),
            ("v", observed),
            ("", str(one.value.origin)),
            ("verdict", one.verdict),
            ("", one.reason),
        )
        body = "".join(f'<td class="{c}">{_escape(t)}</td>' for c, t in cells)
        rows.append(f'<tr class="{one.verdict}">{body}</tr>')
    counts = ", ".join(f"{count} {name}" for name, count in report.counts.items())
    title = f"{plan.name}: {report.verdict}"
    head = "".join(
        f"<th>{h}</th>" for h in ("property", "planned", "observed", "origin", "verdict", "reason")
    )
    facts = f"{plan.machine} · {plan.accel} · QEMU {plan.version} {plan.build}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{_escape(title)}'
        f"</title><style>{_STYLE}</style></head><body><h1>{_escape(title)}</h1>"
        f"<p>{_escape(facts)} · platform {_escape(plan.platform)}</p><p>{_escape(counts)}</p>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        "</body></html>\n"
    )
