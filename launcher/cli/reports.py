"""Verification reports: shown, and written to the file of `--report`."""

from __future__ import annotations

import os

from launcher.errors import InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from launcher.report import Report

_ENDINGS = (".json", ".xml", ".html")


def add_report(parser: argparse.ArgumentParser) -> None:
    """`--report` and `--verify`."""
    parser.add_argument(
        "--report",
        metavar="FILE",
        type=_report_file,
        help="write the report to FILE: .json, .xml (JUnit) or .html",
    )


def _report_file(path: str) -> str:
    """The path of a report whose form its ending tells."""
    if os.path.splitext(path)[1] not in _ENDINGS:
        known = ", ".join(_ENDINGS)
        raise InputError(
            f"--report {path}: the ending must be one of {known}",
            hint="the ending decides the form: JSON, JUnit XML or HTML",
            code="usage",
        )
    return path


def write_report(report: Report, path: str) -> None:
    """Write `report` in the form that the ending of `path` names.

    Raises:
        HostError: the file cannot be written.
    """
    from launcher.output import write_output

    write_output(path, _rendered(report, os.path.splitext(path)[1]), "the report")


def _rendered(report: Report, ending: str) -> str:
    if ending == ".json":
        from launcher.cli.show import json_text
        from launcher.report import report_json

        return json_text(report_json(report), pretty=True) + "\n"
    from launcher.report.markup import report_html, report_junit

    return report_junit(report) if ending == ".xml" else report_html(report)
