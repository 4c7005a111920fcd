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
    parser.add_argument(
        "--name", default="", metavar="N", help="call this host N instead of by its node name"
    )
    parser.add_argument(
        "--qemu",
        action="append",
        default=[],
        metavar="BIN",
        help="a QEMU binary that is not on PATH; may be repeated",
    )
    add_format(parser)
    parser.set_defaults(run=host)


def host(options: argparse.Namespace) -> int:
    """Gather facts and show them; facts that nobody asked for are not gathered."""
    from launcher.host.facts import FORMAT, gather
    from launcher.probe import find_binary

    binaries = [find_binary(name) for name in options.qemu]
    if not options.facts:
        found = gather(name=options.name, binaries=binaries)
    else:
        facts, features = _sorted_out(options.facts)
        found = gather(facts, features or None, name=options.name, binaries=binaries)
    if options.format == "json":
        out_json({"format": FORMAT, **found})
        return 0
    judged = found.pop("features", {})
    if options.facts:
        _show(found)
    else:
        from launcher.cli.host_summary import host_summary

        out(host_summary(found))
    if found and judged:
        out("")
    _show_features(judged)
    return 0


def _show(found: dict[str, Any]) -> None:
    from launcher.report import table

    rows = [row for name, value in found.items() for row in _rows(name, value)]
    if rows:
        out(table(rows, ("fact", "value"), {}))


def _show_features(judged: dict[str, Any]) -> None:
    if not judged:
        return
    from launcher.display import printable
    from launcher.report import table

    words = {True: "yes", False: "no", None: "unknown"}
    rows = [(name, words[one["present"]], printable(one["reason"])) for name, one in judged.items()]
    out(table(rows, ("feature", "here", "reason"), {}))


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
