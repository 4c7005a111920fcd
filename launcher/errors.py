"""The tree of errors. Each keeps its evidence, says where, and has a hint.

    LauncherError                    exit status
    ├── VerdictError                 1  a verdict or a check failed
    ├── InputError                   2  the profile, a platform file or the call is wrong
    │   └── InputErrors              2  several of them, all that were found at once
    ├── QEMUError                    3  QEMU failed
    │   ├── LaunchError              3  it died or refused before it was usable
    │   ├── MonitorError             3  QMP broke, or did not answer within its deadline
    │   └── CommandError             3  QMP answered with an error
    └── HostError                    4  this host (or this binary) cannot run what was planned

Errors are reported once, at the face that talks to the user; no room logs and raises.
"""

from __future__ import annotations

from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any


@record
class Place:
    """A position in a file that the user wrote; line and column count from 1, 0 is unknown."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        if not self.line:
            return self.file
        return f"{self.file}:{self.line}:{self.column}"


class LauncherError(Exception):
    """The root: anything the launcher says to a user.

    Args:
        message: what is wrong, one sentence, without the place.
        place: where it was written, when it was.
        hint: what to do about it.
        evidence: what was seen (QEMU's stderr, a QMP reply), for the JSON form and for tests.
    """

    code = "error"
    exit_status = 1

    def __init__(
        self,
        message: str,
        *,
        place: Place | None = None,
        hint: str = "",
        evidence: dict[str, Any] | None = None,
        code: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.place = place
        self.hint = hint
        self.evidence = evidence or {}
        if code:
            self.code = code

    def as_json(self) -> dict[str, Any]:
        """The error object of every JSON face (`error` in DESIGN's shapes)."""
        place = self.place
        return {
            "code": self.code,
            "message": self.message,
            "file": place.file if place else None,
            "line": (place.line or None) if place else None,
            "column": (place.column or None) if place else None,
            "hint": self.hint or None,
            "qemu_stderr": self.evidence.get("qemu_stderr"),
        }


class VerdictError(LauncherError):
    """Values were read back and are not what was planned; `report` holds all of them."""

    code = "mismatch"
    exit_status = 1

    def __init__(self, message: str, *, report: Any = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.report = report


class InputError(LauncherError):
    """What the user gave cannot be right; nothing was started."""

    code = "input"
    exit_status = 2


class InputErrors(InputError):
    """All mistakes that were found at once, in the order they stand in the file."""

    def __init__(self, mistakes: Iterable[InputError]) -> None:
        found = sorted(mistakes, key=_position)
        super().__init__(
            found[0].message if len(found) == 1 else f"{len(found)} mistakes",
            place=found[0].place,
            hint=found[0].hint,
            code=found[0].code,
        )
        self.mistakes: Sequence[InputError] = tuple(found)

    def __str__(self) -> str:
        """Each mistake with its place: what a traceback in somebody's own program shows."""
        lines = [f"{m.place}: {m.message}" if m.place else m.message for m in self.mistakes]
        return lines[0] if len(lines) == 1 else "\n  ".join([f"{self.message}:", *lines])

    def as_json(self) -> dict[str, Any]:
        """The first mistake, and every mistake under `mistakes`."""
        return {**super().as_json(), "mistakes": [m.as_json() for m in self.mistakes]}


def _position(mistake: InputError) -> tuple[str, int, int]:
    place = mistake.place
    return (place.file, place.line, place.column) if place else ("", 0, 0)


class QEMUError(LauncherError):
    """QEMU was started and something about it failed."""

    code = "qemu"
    exit_status = 3


class LaunchError(QEMUError):
    """QEMU refused its command line, or ended before it was usable.

    `evidence` has `qemu_stderr` (list of lines), `returncode`, and `argv`.
    """

    code = "launch"


class MonitorError(QEMUError):
    """The QMP session broke or a deadline passed; `evidence` names the command."""

    code = "monitor"


class CommandError(QEMUError):
    """QMP answered a command with an error; `evidence` has `command`, `class` and `desc`."""

    code = "command"


class HostError(LauncherError):
    """What was planned needs something that this host or this binary does not have."""

    code = "host"
    exit_status = 4
