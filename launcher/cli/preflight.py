"""`preflight`: whether a machine could move from one end to another. Moves nothing."""

from __future__ import annotations

from launcher.cli.options import add_format
from launcher.cli.show import out, out_json
from launcher.errors import InputError, LauncherError, Place

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping
    from typing import Any

    from launcher.preflight import Finding, Side
    from launcher.prepare import Prepared

#: Bytes of a document; a plan's JSON has a few hundred for each value.
_MOST = 8 << 20
VIA = ("unix", "tcp", "file", "fd", "exec")


def arguments(parser: argparse.ArgumentParser, _verb: str) -> None:
    """The options of `preflight`."""
    parser.add_argument(
        "ends",
        nargs="+",
        metavar="END",
        help="source and destination, each a profile, a lock file, or the JSON of plan, verify "
        "or host; one profile stands for both ends",
    )
    for word, what in (("from", "source"), ("to", "destination")):
        parser.add_argument(
            f"--{word}", default="", metavar="BIN", help=f"the QEMU binary of the {what}'s profile"
        )
        parser.add_argument(
            f"--{word}-platform", default="", metavar="P", help=f"the platform of the {what} alone"
        )
        parser.add_argument(
            f"--{word}-host",
            default="",
            metavar="FACTS",
            help=f"what `host --format json` wrote on the {what}'s host; by default this one",
        )
    parser.add_argument("--platform", default="", metavar="P", help="the platform of both ends")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        help="set a key of the profiles of both ends; may be repeated",
    )
    parser.add_argument("--via", default="", choices=("", *VIA), help="how the stream will travel")
    parser.add_argument(
        "--observe",
        action="store_true",
        help="start each profile paused, one after the other, and ask QEMU itself",
    )
    add_format(parser)
    parser.set_defaults(run=preflight)


def preflight(options: argparse.Namespace) -> int:
    """Compare the two ends; exit with 1 when the migration would break."""
    from launcher.data import load_rules
    from launcher.preflight import breaks, counts
    from launcher.preflight import preflight as compare

    if len(options.ends) > 2:
        raise InputError(
            f"there are two ends, and {len(options.ends)} were given",
            hint="name the source and the destination",
            code="usage",
        )
    sides = _sides(options)
    findings = compare(*sides, load_rules(), options.via)
    if options.format == "json":
        out_json(
            {
                "source": _head(sides[0]),
                "destination": _head(sides[1]),
                "via": options.via or None,
                "verdict": _verdict(findings),
                "counts": counts(findings),
                "findings": [one.as_json() for one in findings],
            }
        )
    else:
        _show(sides, findings)
    return 1 if breaks(findings) else 0


def _head(side: Side) -> dict[str, Any]:
    return {
        "name": side.name,
        "version": str(side.version) if side.version else None,
        "machine": side.machine or None,
        "platform": side.platform or None,
    }


def _verdict(findings: tuple[Finding, ...]) -> str:
    """The worst that was found; `clear` without any that matters."""
    worst = findings[0].severity if findings else "harmless"
    return "clear" if worst == "harmless" else worst


def _show(sides: tuple[Side, Side], findings: tuple[Finding, ...]) -> None:
    from launcher.display import printable
    from launcher.preflight import counts, findings_text

    ends = [printable(_called(side)) for side in sides]
    out(f"{ends[0]} -> {ends[1]}")
    if findings:
        out(findings_text(findings))
    counted = counts(findings)
    out(", ".join(f"{number} {name}" for name, number in counted.items()))


def _called(side: Side) -> str:
    return ", ".join(word for word in (side.name, side.machine, side.platform) if word)


# -- what the ends are ----------------------------------------------------------------------------


def _sides(options: argparse.Namespace) -> tuple[Side, Side]:
    names = [*options.ends, *options.ends][:2] if len(options.ends) == 1 else options.ends
    documents = [_document(name) for name in names]
    if len(options.ends) == 1 and documents[0] is not None:
        raise InputError(
            f"{names[0]} is one end, and there is no other",
            hint="name a second one; a profile alone stands for both ends, with --from and --to",
            code="usage",
        )
    troubles: list[LauncherError] = []
    ends = [
        _profile_end(options, name, word, troubles)
        if document is None
        else _file_end(name, document)
        for name, document, word in zip(names, documents, ("from", "to"), strict=True)
    ]
    if len(troubles) == 2 and all(one.exit_status == 2 for one in troubles):
        # What neither binary takes is a mistake in the profile.
        raise troubles[0]
    hosts = [bool(e.machine) or bool(e.trouble) for e in ends]
    if hosts[0] != hosts[1]:
        raise InputError(
            f"{names[hosts.index(False)]} tells of a host, and the other end is a machine",
            hint="give a host's facts with --from-host or --to-host",
            code="preflight",
        )
    return ends[0], ends[1]


def _document(name: str) -> Mapping[str, Any] | None:
    """What a JSON file holds; None for YAML.

    Raises:
        InputError: the file cannot be read, or is not what its first character promises.
    """
    from launcher.files import read_text

    text = read_text(name, limit=_MOST)
    if not text.lstrip().startswith("{"):
        return None
    import json

    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        place = Place(name, error.lineno, error.colno)
        raise InputError(f"is not JSON: {error.msg}", place=place, code="preflight") from None
    assert isinstance(found, dict)
    return found


def _file_end(name: str, document: Mapping[str, Any]) -> Side:
    from launcher.ends import end_of_document

    return end_of_document(document, name)


def _profile_end(
    options: argparse.Namespace, name: str, word: str, troubles: list[LauncherError]
) -> Side:
    """A YAML file's end: a lock file's, or a profile's on the binary that was named for it."""
    from launcher.ends import end_of_lock, is_lock

    if is_lock(name):
        return end_of_lock(name)
    from launcher.ends import planned_end, troubled_end
    from launcher.prepare import Request, load, prepare_now

    platform = getattr(options, f"{word}_platform") or options.platform
    loaded = load(Request(name, platform, getattr(options, word), tuple(options.set)))
    if loaded.profile.tool != "qemu-system":
        words = f"a profile of {loaded.profile.tool} has no guest that could migrate"
        raise InputError(words, place=Place(name), code="preflight")
    facts = _facts(getattr(options, f"{word}_host"))
    try:
        prepared = prepare_now(loaded, ask_host=facts is None)
    except LauncherError as error:
        if error.exit_status not in (2, 4) or error.code == "binary":
            raise
        troubles.append(error)
        return troubled_end(loaded, error)
    if not options.observe:
        return planned_end(prepared, facts)
    return _observed(prepared, facts)


def _facts(file: str) -> Mapping[str, Any] | None:
    """The facts of another host; None: this one is asked."""
    if not file:
        return None
    from launcher.ends import judged

    document = _document(file)
    if document is None:
        words = "holds no host's facts"
        hint = "give what `qemu-launcher host --format json` wrote there"
        raise InputError(words, place=Place(file), hint=hint, code="preflight")
    return judged(document)


def _observed(prepared: Prepared, facts: Mapping[str, Any] | None) -> Side:
    """Start the machine paused, ask it, end it."""
    from launcher.cli.loop import import_loop

    import_loop()
    import asyncio

    return asyncio.run(_observed_end(prepared, facts))


async def _observed_end(prepared: Prepared, facts: Mapping[str, Any] | None = None) -> Side:
    """One end, started for this, paused, and ended again; its guest runs no instruction."""
    from launcher.begin import begin
    from launcher.ends import end_of, unnamed
    from launcher.start import attach

    machine = await attach(begin(prepared))
    try:
        await machine.verify()
        return unnamed(prepared, await end_of(machine, facts))
    finally:
        await machine.close()
