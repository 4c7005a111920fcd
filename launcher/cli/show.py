"""What the user sees: results on stdout, errors on stderr with the line they are about."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from launcher.errors import LauncherError, Place
    from launcher.report import Report

#: How much of QEMU's stderr, or of the guest's console, stands below an error.
_EVIDENCE_LINES = 20
#: A source line longer than this is shown around the place only.
_WIDEST = 160


def out(text: str) -> None:
    """One result, on stdout.

    Raises:
        BrokenPipeError: nobody reads it.
        HostError: it cannot be written (a full disk).
    """
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        forget_stdout()
        from launcher.errors import HostError

        words = f"the output cannot be written: {error.strerror}"
        raise HostError(words, code="output") from None


def forget_stdout() -> None:
    """Let the interpreter's own flush at exit find nothing to complain about."""
    _forget(1)


def _forget(fd: int) -> None:
    import os

    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, fd)
    finally:
        os.close(null)


def note(text: str) -> None:
    """A word to the user that is no result, on stderr; where that is full, to nobody.

    Raises:
        BrokenPipeError: nobody reads it.
    """
    try:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
    except BrokenPipeError:
        raise
    except OSError:
        _forget(2)


def out_json(value: Any) -> None:
    """JSON on stdout: for reading on a terminal, on one line for a program."""
    out(json_text(value, pretty=sys.stdout.isatty()))


def json_text(value: Any, *, pretty: bool) -> str:
    """`value` as JSON."""
    if not pretty:
        from launcher.qapi import format_json

        return format_json(value)
    import json

    return json.dumps(value, indent=2, ensure_ascii=False)


def colors(stream: Any) -> bool:
    """Whether `stream` wants colors: a terminal, and no NO_COLOR."""
    import os

    return bool(stream.isatty()) and not os.environ.get("NO_COLOR")


def show_report(report: Report, *, to_stdout: bool) -> None:
    """The verification report as a table."""
    from launcher.report import report_text

    stream, show = (sys.stdout, out) if to_stdout else (sys.stderr, note)
    show(report_text(report, color=colors(stream)))


def show_error(error: LauncherError) -> None:
    """An error on stderr; of several mistakes one after the other."""
    for one in getattr(error, "mistakes", None) or (error,):
        note("\n".join(error_lines(one)))


def error_lines(error: LauncherError) -> Iterable[str]:
    """`file:line:column: error: …`, the source line with a caret, evidence, and the hint."""
    from launcher.display import printable

    where = f"{error.place}: " if error.place is not None else ""
    yield printable(f"{where}error: {error.message}")
    if error.place is not None and error.place.line:
        yield from source_lines(error.place)
    for key in ("qemu_stderr", "console"):
        lines = [line for line in error.evidence.get(key) or () if line.strip()]
        left = len(lines) - _EVIDENCE_LINES
        if left > 0:
            yield f"  … {left} lines more"
        yield from (f"  {printable(line)}" for line in lines[-_EVIDENCE_LINES:])
    report = getattr(error, "report", None)
    if report is not None:
        from launcher.report import wrong_text

        yield from (f"  {line}" for line in wrong_text(report).splitlines())
    if error.hint:
        yield printable(f"hint: {error.hint}")


def source_lines(place: Place) -> Iterable[str]:
    """The line of the file and a caret below the column; nothing when it cannot be read."""
    from launcher.display import printable

    text = _line(place)
    if text is None or place.column > len(text) + 1:
        return
    start, column = 0, max(place.column, 1) - 1
    if len(text) > _WIDEST:
        start = max(0, column - _WIDEST // 2)
        text = text[start : start + _WIDEST]
    before, after = (text[: column - start], text[column - start :])
    shown = printable(before.replace("\t", " "))
    yield f"  {shown}{printable(after)}"
    if place.column:
        yield f"  {' ' * len(shown)}^"


def _line(place: Place) -> str | None:
    from launcher.errors import InputError
    from launcher.files import read_text

    try:
        return read_text(place.file).split("\n")[place.line - 1].rstrip("\r")
    except (InputError, IndexError):
        return None
