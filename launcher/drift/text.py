"""One comparison as a table for a terminal: by family, what changed first, what covers it."""

from __future__ import annotations

from launcher.drift.waivers import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any

    #: `launcher.report.table`: rows, headings, colors.
    Table = Callable[[Iterable[Sequence[str]], Sequence[str], dict[str, str]], str]

_ORDER = {"uncovered": 0, "covered": 1, "waived": 2}
_SIGNS = {"changed": "~", "appeared": "+", "gone": "-"}
_WIDEST = 44


def drift_text(found: dict[str, Any], table: Table, *, every: bool = False) -> str:
    """The text form of `drift_json`'s result.

    Args:
        found: as `drift_json` makes it.
        table: `launcher.report.table`.
        every: show also what is waived, and every word that came.
    """
    parts = [_head(found)]
    whole = {_type(c) for c in found["changes"] if c["property"] == "*" and c["facet"] == "word"}
    shown = [c for c in found["changes"] if every or _matters(c, whole)]
    for family in sorted({change["family"] for change in shown}, key=_family_order(shown)):
        rows = [_row(change) for change in _sorted(shown, family)]
        parts.append(f"{family}\n{table(rows, ('', 'what', 'old', 'new', 'covered by'), {})}")
    left = len(found["changes"]) - len(shown)
    if left:
        parts.append(f"{left} more that need nothing; --all shows them")
    parts += _unseen(found)
    return "\n\n".join([*parts, _counts(found["counts"])])


def _type(change: dict[str, Any]) -> tuple[str, str]:
    """What a change is a part of; compat properties are parts of their machine type."""
    family = "machine" if change["family"].startswith("compat") else change["family"]
    return family, change["type"]


def _matters(change: dict[str, Any], whole: set[tuple[str, str]]) -> bool:
    """Values that changed, words that went, and everything that nothing covers.

    Parts of what came or went as a whole say nothing more.
    """
    if change["cover"] == "uncovered":
        return True
    if change["property"] != "*" and _type(change) in whole:
        return False
    return bool(change["cover"] == "covered" and change["change"] != "appeared")


def _head(found: dict[str, Any]) -> str:
    sides = [f"{one['name']} ({one['version']})" for one in (found["old"], found["new"])]
    line = " -> ".join(sides)
    if found["machine"]:
        line += f", machine type {found['machine']}"
    if found["platform"]:
        line += f", both with what {found['platform']} pins"
    return line


def _family_order(changes: list[dict[str, Any]]) -> Callable[[str], tuple[int, str]]:
    """Families with something uncovered first."""
    bad = {change["family"] for change in changes if change["cover"] == "uncovered"}
    return lambda family: (family not in bad, family)


def _sorted(changes: Iterable[dict[str, Any]], family: str) -> list[dict[str, Any]]:
    own = (change for change in changes if change["family"] == family)
    kinds = list(_SIGNS)
    return sorted(
        own,
        key=lambda c: (
            *(_ORDER[c["cover"]], kinds.index(c["change"])),
            *(c["type"], c["property"], c["facet"]),
        ),
    )


def _row(change: dict[str, Any]) -> tuple[str, ...]:
    what = change["type"] if change["property"] == "*" else f"{change['type']}.{change['property']}"
    if change["facet"] not in ("word", "value"):
        what += f" ({change['facet']})"
    return (
        _SIGNS[change["change"]],
        _short(what),
        _value(change, "old"),
        _value(change, "new"),
        _by(change),
    )


def _value(change: dict[str, Any], side: str) -> str:
    """The value of one side; a word that is simply there has none to show."""
    value = change[side]
    if change["facet"] == "word" or change["facet"].startswith(("takes ", "feature ")):
        value = "" if value is True else value
    return _short(plain(value))


def _short(text: str) -> str:
    from launcher.display import printable

    text = printable(text)
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"


def _by(change: dict[str, Any]) -> str:
    by = change["by"]
    if by is None:
        return "UNCOVERED"
    where = f"{by['file']}:{by['line']}" if by["line"] else by["file"]
    return f"{where} ({by['kind']})"


def _unseen(found: dict[str, Any]) -> Iterator[str]:
    sides: dict[str, list[str]] = {}
    for one in found["unseen"]:
        what = one["family"] if one["type"] == "*" else f"{one['family']} {one['type']}"
        sides.setdefault(f"  {what}: {one['reason']}", []).append(found[one["side"]]["version"])
    if sides:
        lines = (f"{line} ({', '.join(versions)})" for line, versions in sides.items())
        yield "not compared:\n" + "\n".join(lines)


def _counts(counts: dict[str, int]) -> str:
    kinds = ", ".join(f"{counts[name]} {name}" for name in ("same", "changed", "appeared", "gone"))
    covers = ", ".join(f"{counts[name]} {name}" for name in ("covered", "waived", "uncovered"))
    return f"{kinds}; {covers}"
