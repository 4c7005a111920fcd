"""`platform meet`: the platform on which a machine runs, and migrates, among a set of hosts."""

from __future__ import annotations

from launcher.cli.options import add_format
from launcher.cli.show import out, out_json
from launcher.errors import InputError, Place

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence
    from typing import Any

    from launcher.platforms.meet import Meeting


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `platform meet`."""
    parser.add_argument(
        "hosts",
        nargs="*",
        metavar="FACTS",
        help="what `qemu-launcher host --format json` wrote, a file for each host",
    )
    add_result(parser)
    add_format(parser)
    parser.set_defaults(run=meet)


def add_result(parser: argparse.ArgumentParser) -> None:
    """Where the platform goes, and its name."""
    parser.add_argument("-o", "--output", default="", metavar="FILE", help="the platform file")
    parser.add_argument(
        "--name",
        default="meet",
        metavar="N",
        type=_name,
        help="the platform's name; by default meet",
    )


def _name(text: str) -> str:
    """A name that needs no quotes in a profile and in a report."""
    if not text or not all(c.isascii() and (c.isalnum() or c in "._-") for c in text):
        raise InputError(
            f"--name {text!r}: a platform's name has letters, digits, '.', '_' and '-'",
            code="usage",
        )
    return text


def meet(options: argparse.Namespace) -> int:
    """Write the platform; without `-o` it is what is shown."""
    return show(meeting(options.hosts, options.name), options)


def show(found: Meeting, options: argparse.Namespace) -> int:
    """Write a meeting as `--output` and `--format` say."""
    from launcher.platforms.meet_text import advice, meeting_json, meeting_yaml

    text = meeting_yaml(found)
    if options.output:
        from launcher.output import write_output

        write_output(options.output, text, "the platform")
    if options.format == "json":
        out_json(meeting_json(found))
        return 0
    if not options.output:
        out(text.rstrip("\n"))
        return 0
    from launcher.report import table

    rows = [
        ("QEMU", str(found.qemu.version), found.qemu.reason),
        ("Linux", str(found.linux.version), found.linux.reason),
        *((f"{one.types[0]}.{one.property}", one.value, one.why) for one in found.values),
    ]
    out(table(rows, ("value", "common", "limited by"), {}))
    out("")
    out(table(list(advice(found)), ("not pinned", "mind"), {}))
    return 0


def meeting(files: Sequence[str], name: str) -> Meeting:
    """What the hosts have in common whose facts are in `files`.

    Raises:
        InputError: something is wrong with the files; all that is wrong is told at once.
    """
    from launcher.data import load_catalogue, load_cpus
    from launcher.errors import InputErrors
    from launcher.files import read_text
    from launcher.platforms.hosts import read_hosts
    from launcher.platforms.meet import meet as decide

    mistakes: list[InputError] = []

    def values() -> Iterator[tuple[str, Any]]:
        """One at a time: a host is a tenth of its file, and a thousand files are many objects."""
        for file in files:
            try:
                yield file, _json(read_text(file), file)
            except InputError as error:
                mistakes.append(error)

    catalogue = load_catalogue()
    try:
        hosts = read_hosts(values(), catalogue, _place)
    except InputErrors as error:
        raise InputErrors([*mistakes, *error.mistakes]) from None
    except InputError:
        if not mistakes:
            raise
    if mistakes:
        raise InputErrors(mistakes)
    return decide(name, hosts, catalogue, load_cpus(hosts[0].arch))


def _json(text: str, file: str) -> Any:
    """The JSON value of a file.

    Raises:
        InputError: it is not JSON.
    """
    from launcher.qapi import parse_json

    hint = "name the files that `qemu-launcher host --format json` wrote"
    try:
        # The bare scanner takes no blanks before the value.
        return parse_json(text.lstrip())
    except RecursionError:
        words = "is nested too deeply"
        raise InputError(words, place=Place(file, 1, 1), hint=hint, code="facts") from None
    except ValueError:
        import json

        try:
            json.loads(text)
        except ValueError as error:
            line, column = getattr(error, "lineno", 1), getattr(error, "colno", 1)
            words = f"is not JSON: {getattr(error, 'msg', error)}"
            place = Place(file, line, column)
            raise InputError(words, place=place, hint=hint, code="facts") from None
        raise


def _place(file: str, path: Sequence[str | int]) -> Place:
    """Where a value of a JSON file stands; JSON is YAML, and our reader of YAML keeps places."""
    from launcher import nodes
    from launcher.files import read_yaml

    try:
        node: nodes.Node = read_yaml(file)
    except InputError as error:
        return error.place if error.code == "yaml" and error.place else Place(file, 1, 1)
    for key in path:
        if isinstance(node, nodes.Mapping) and key in node.items:
            node = node.items[str(key)]
        elif isinstance(node, nodes.Sequence) and isinstance(key, int) and key < len(node.items):
            node = node.items[key]
    return node.place
