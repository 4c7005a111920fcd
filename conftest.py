"""What holds for every test of the project: golden files, and no skipping in CI."""

from __future__ import annotations

import os
import sys

import pytest

ROOT = os.path.dirname(os.path.abspath(__file__))
# Tests share code as `tests.support…`; --import-mode=importlib puts no folder on the path.
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that writes golden files."""
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write the golden files instead of comparing them (refused when CI is set)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Name the mark, and refuse to write golden files in CI."""
    config.addinivalue_line(
        "markers", "hermetic: may start no process, open no socket and see none of the user's files"
    )
    if config.getoption("--update-golden") and os.environ.get("CI"):
        raise pytest.UsageError("--update-golden is refused when CI is set: look at the difference")


def _in_integration(path: object) -> bool:
    return str(path).startswith(os.path.join(ROOT, "integration") + os.sep)


def _forbid_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """In CI a skipped integration test is a failed one: there the real QEMU must be."""
    if not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    report.outcome = "failed"
    report.longrepr = f"an integration test may not be skipped in CI. {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """Look at each test."""
    report = yield
    if os.environ.get("CI") and _in_integration(item.path):
        _forbid_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector):
    """Look at each module: one may be skipped whole."""
    report = yield
    if os.environ.get("CI") and _in_integration(collector.path):
        _forbid_skip(report)
    return report
