"""The report: planned and observed side by side, judged, and written down. Pure."""

from launcher.report.model import (
    VERDICTS,
    Judged,
    Observation,
    Report,
    as_text,
    find_complaints,
    judge,
    same,
)
from launcher.report.shapes import head_json, judged_json, plan_json, report_json
from launcher.report.text import argv_text, plan_text, report_text, table, wrong_text

__all__ = [
    "VERDICTS",
    "Judged",
    "Observation",
    "Report",
    "argv_text",
    "as_text",
    "find_complaints",
    "head_json",
    "judge",
    "judged_json",
    "plan_json",
    "plan_text",
    "report_json",
    "report_text",
    "same",
    "table",
    "wrong_text",
]
