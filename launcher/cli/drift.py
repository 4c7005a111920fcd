"""`drift`: what differs between two QEMU binaries. `record`: what one answers, as a file."""

from __future__ import annotations

import os

from launcher.cli.options import add_format
from launcher.cli.show import out, out_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from launcher.drift import Surveyed


def arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """The options of `drift` and `record`."""
    if verb == "record":
        parser.add_argument("qemu", metavar="QEMU", help="a QEMU binary, name or path")
        parser.add_argument("-o", "--output", metavar="FILE", help="where to; by default stdout")
        parser.add_argument(
            "--machine",
            action="append",
            metavar="TYPE",
            help="a machine type to start as well; may be repeated, none for none; by default "
            "those that the releases share",
        )
        parser.set_defaults(run=record)
        return
    for name in ("old", "new"):
        parser.add_argument(
            name,
            nargs="?",
            metavar=name.upper(),
            help="a QEMU binary, a file of `record`, or a recorded release such as qemu-7.2",
        )
    parser.add_argument("--machine", default="", metavar="TYPE", help="compare a machine as well")
    parser.add_argument(
        "--platform", default="", metavar="P", help="give both what a platform pins first"
    )
    parser.add_argument("--all", action="store_true", help="show also what needs nothing")
    add_format(parser, ("text", "json", "html"))
    parser.set_defaults(run=drift)


def record(options: argparse.Namespace) -> int:
    """Write everything that can be read of one binary."""
    from launcher.data import load_catalogue
    from launcher.output import write_output
    from launcher.prepare import hazardous_types
    from launcher.probe import find_binary
    from launcher.survey.layout import layout
    from launcher.survey.whole import STARTED, survey

    machines = STARTED if options.machine is None else [m for m in options.machine if m != "none"]
    binary = find_binary(options.qemu)
    hazards = hazardous_types(load_catalogue())
    found = survey(binary, hazards, machines, where_known=options.machine is None)
    text = layout(found)
    if options.output is None:
        out(text.rstrip("\n"))
        return 0
    write_output(options.output, text, "the record")
    return 0


def drift(options: argparse.Namespace) -> int:
    """Compare two binaries; 1 when something that changed is neither covered nor waived."""
    from launcher.data import load_catalogue
    from launcher.drift import compare, drift_json
    from launcher.errors import InputError
    from launcher.survey.shelf import load_waivers

    if options.new is None:
        if options.format == "html" and options.old is None:
            return _page(options, None)
        hint = "two binaries or recorded releases; only --format html shows all releases without"
        raise InputError("drift needs OLD and NEW", hint=hint, code="usage")
    catalogue, waivers = load_catalogue(), load_waivers()
    old, new = _sides(options)
    found = drift_json(compare(old, new), catalogue, waivers, options.platform)
    if options.format == "html":
        _page(options, (old, new))
    elif options.format == "json":
        out_json(found)
    else:
        from launcher.drift.text import drift_text
        from launcher.report import table

        out(drift_text(found, table, every=options.all))
    return int(found["counts"]["uncovered"] > 0)


def _sides(options: argparse.Namespace) -> tuple[Surveyed, Surveyed]:
    """Both binaries read; two that must be started are asked at the same time."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(2) as pool:
        sides = [pool.submit(_side, options, name) for name in (options.old, options.new)]
        return sides[0].result(), sides[1].result()


def _side(options: argparse.Namespace, name: str) -> Surveyed:
    """One side: a recorded release, a file, or a binary that is asked now."""
    from launcher.drift import read_record
    from launcher.errors import InputError
    from launcher.survey.layout import record_name
    from launcher.survey.shelf import load_record, recorded

    shelf = recorded()
    path = shelf.get(name) or (name if name.endswith(".json") and os.path.exists(name) else "")
    if not path:
        found = _ask(options, name, list(shelf))
        return read_record(found, record_name(found), options.machine)
    if options.platform:
        hint = "name two binaries; `scripts/qemu-matrix` brings them"
        words = f"{name} is a record: nothing can be pinned in it"
        raise InputError(words, hint=hint, code="record")
    found = load_record(path)
    if options.machine and options.machine not in found["machines"]:
        known = ", ".join(found["machines"]) or "none"
        words = f"the machine type {options.machine} is not in the record {name}"
        raise InputError(words, hint=f"recorded: {known}; or name a binary", code="machine")
    return read_record(found, record_name(found), options.machine)


def _ask(options: argparse.Namespace, name: str, shelf: list[str]) -> dict[str, Any]:
    from launcher.data import load_catalogue
    from launcher.errors import InputError
    from launcher.prepare import hazardous_types
    from launcher.probe import find_binary
    from launcher.survey.whole import survey

    try:
        binary = find_binary(name)
    except InputError as error:
        if os.sep not in name:
            error.hint = f"recorded releases: {', '.join(shelf)}; or name a binary"
        raise
    catalogue = load_catalogue()
    platform = None
    if options.platform:
        from launcher.errors import Place
        from launcher.nodes import Scalar
        from launcher.prepare import choose_platform

        platform = choose_platform(catalogue, Scalar(options.platform, Place("--platform")))
    machines = [options.machine] if options.machine else []
    pinning = (catalogue, platform) if platform is not None else None
    return survey(binary, hazardous_types(catalogue), machines, pinning)


def _page(options: argparse.Namespace, pair: tuple[Surveyed, Surveyed] | None) -> int:
    """The matrix of all recorded releases, and of the two that were named, as one page."""
    from launcher.data import load_catalogue
    from launcher.drift import matrix, read_record
    from launcher.drift.page import page
    from launcher.survey.shelf import load_record, load_waivers, recorded

    kind = "qsd" if pair is not None and "daemon" in pair[0].head.tool else "qemu"
    sides = {one.head.name: one for one in pair or ()}
    surveys = [
        sides.get(name) or read_record(load_record(path), name)
        for name, path in recorded().items()
        if name.startswith(f"{kind}-")
    ]
    if pair is not None and any(one not in surveys for one in pair):
        surveys = list(pair)
    shown = matrix(surveys, load_catalogue(), load_waivers())
    out(page(shown, (pair[0].head.name, pair[1].head.name) if pair is not None else None))
    return 0
