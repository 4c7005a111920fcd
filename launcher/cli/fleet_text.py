"""What `fleet` shows of hosts, machines, answers and errors: text that cannot steer a terminal."""

from __future__ import annotations

from launcher.display import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from launcher.errors import LauncherError
    from launcher.fleet.chores import Moved
    from launcher.fleet.picture import Host

HOST_HEAD = ("host", "status", "machines", "memory", "agent")
MACHINE_HEAD = ("host", "machine", "actual", "verdict", "platform", "profile", "pid", "since")
WRONG_HEAD = ("host", "machine", "property", "planned", "observed", "verdict")
#: Text → colour, as a terminal and as rich have it.
MARKS = {
    **dict.fromkeys(("online", "running", "match"), "\x1b[32m"),
    **dict.fromkeys(("lost", "ended", "mismatch"), "\x1b[31m"),
    **dict.fromkeys(("offline", "paused", "starting"), "\x1b[33m"),
}


def word(value: Any) -> str:
    """A value that an agent published, for a cell."""
    return "-" if value is None or value == "" else printable(str(value))


def host_row(host: Host) -> tuple[str, ...]:
    """One line of the table of hosts."""
    return (
        *(host.name, host.status, _of(host.used, host.limits, "machines", str)),
        *(_of(host.used, host.limits, "memory", _size), word(host.version)),
    )


def _of(used: Mapping[str, int], limits: Mapping[str, int], name: str, text: Any) -> str:
    if name not in used:
        return "-"
    return (
        f"{text(used[name])} of {text(limits[name])}" if name in limits else str(text(used[name]))
    )


def _size(number: int) -> str:
    from launcher.cli.host_summary import size

    return size(number)


def machine_row(host: str, name: str, state: Mapping[str, Any]) -> tuple[str, ...]:
    """One line of the table of machines."""
    told = (state.get(key) for key in ("actual", "verdict", "platform", "profile", "pid"))
    return (host, name, *(word(one) for one in told), _time(state.get("since")))


def _time(since: Any) -> str:
    import time

    if not isinstance(since, (int, float)) or not 0 <= since < 1e11:
        return "-"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(since))


def counted(counts: Any) -> str:
    """Verdicts and how many: `12 match, 3 unobservable`."""
    found = counts.items() if isinstance(counts, dict) else ()
    return ", ".join(f"{word(number)} {word(name)}" for name, number in found if number)


def wrong_values(report: Any) -> list[dict[str, Any]]:
    """The values of a report, as JSON, that are not as planned."""
    values = report.get("values") if isinstance(report, dict) else None
    rows = [one for one in values or () if isinstance(one, dict)]
    return [one for one in rows if one.get("verdict") in ("mismatch", "absent")]


def wrong_row(host: str, machine: str, value: Mapping[str, Any]) -> tuple[str, ...]:
    """One line of the table of what is not as planned."""
    name = " ".join(word(value.get(key)) for key in ("type", "id", "property"))
    told = (word(value.get(key)) for key in ("planned", "observed", "verdict"))
    return (host, machine, name, *told)


def progress_text(result: Any) -> str:
    """How far a migration is, of what its agent tells of it; "" when it tells nothing."""
    if not isinstance(result, dict) or not isinstance(result.get("transferred"), int):
        return ""
    total, rate = result.get("total"), result.get("rate")
    of = f" of {_size(total)}" if isinstance(total, int) else ""
    speed = f", {_size(rate)}/s" if isinstance(rate, int) and rate else ""
    return f"{word(result.get('status'))}, {_size(result['transferred'])} sent{of}{speed}"


def reason_json(what: LauncherError | Sequence[Any]) -> dict[str, Any]:
    """Why a candidate did not take a machine."""
    if isinstance(what, Exception):
        return {"findings": [], "error": what.as_json()}
    return {"findings": list(what), "error": None}


def reasons(moved: Moved) -> Iterator[str]:
    """The same as lines, one for each candidate."""
    for to, what in moved.tried:
        if isinstance(what, Exception):
            yield f"{to}: {printable(str(what))}"
        else:
            yield f"{to}: {'; '.join(_findings(what))}"


def _findings(found: Iterable[Any]) -> Iterator[str]:
    for one in found:
        yield word(one.get("message"))
