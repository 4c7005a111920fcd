"""`host`: what this host can do."""

from __future__ import annotations

from launcher.cli.options import add_format
from launcher.cli.show import out, out_json
from launcher.errors import InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from typing import Any


def arguments(parser: argparse.ArgumentParser, _verb: str) -> None:
    """The options of `host`."""
    parser.add_argument(
        "facts", nargs="*", metavar="FACT", help="facts or features by name; by default all"
    )
    add_format(parser)
    parser.set_defaults(run=host)


def host(options: argparse.Namespace) -> int:
    """Gather facts and show them; facts that nobody asked for are not gathered."""
    from launcher.host.facts import gather

    if not options.facts:
        found = gather()
    else:
        facts, features = _sorted_out(options.facts)
        found = gather(facts, features or None)
    if options.format == "json":
        out_json(found)
        return 0
    from launcher.display import printable
    from launcher.report import table

    judged = found.pop("features", {})
    rows = [row for name, value in found.items() for row in _rows(name, value)]
    words = {True: "yes", False: "no", None: "unknown"}
    features_table = [
        (name, words[one["present"]], printable(one["reason"])) for name, one in judged.items()
    ]
    if rows:
        out(table(rows, ("fact", "value"), {}))
    if rows and judged:
        out("")
    if judged:
        out(table(features_table, ("feature", "here", "reason"), {}))
    return 0


def _sorted_out(names: list[str]) -> tuple[list[str], list[str]]:
    """Facts and features; `kvm` and the like are both, and then both are shown.

    Raises:
        InputError: a name that is neither.
    """
    from launcher.host.facts import FACTS, FEATURES

    for name in names:
        if name not in FACTS and name not in FEATURES:
            from launcher.qapi import nearest

            near = nearest(name, (*FACTS, *FEATURES))
            known = ", ".join(sorted({*FACTS, *FEATURES}))
            raise InputError(
                f"there is no host fact or feature {name!r}",
                hint=f"did you mean {' or '.join(near)}?" if near else f"known are {known}",
                code="fact",
            )
    return [n for n in names if n in FACTS], [n for n in names if n in FEATURES]


def _rows(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """One row for each value, nested names joined by dots."""
    from launcher.display import printable
    from launcher.report import as_text

    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _rows(f"{name}.{key}", inner)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for number, inner in enumerate(value):
            yield from _rows(f"{name}.{number}", inner)
    elif isinstance(value, list):
        yield name, printable(" ".join(as_text(item) or "unlimited" for item in value))
    else:
        yield name, printable(as_text(value))
