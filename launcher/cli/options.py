"""The options that several verbs have. Imports no parser: see `words`."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from launcher.platforms import Catalogue, Platform


def add_format(parser: argparse.ArgumentParser, choices: Iterable[str] = ("text", "json")) -> None:
    """`--format`."""
    names = tuple(choices)
    parser.add_argument(
        "--format", choices=names, default="text", help=f"{' or '.join(names)}; by default text"
    )


def add_request(parser: argparse.ArgumentParser) -> None:
    """What decides a plan besides the profile: `--platform`, `--qemu`, `--set`."""
    parser.add_argument(
        "--platform",
        default="",
        metavar="P",
        help="a platform's name or file; wins over the profile's own",
    )
    add_qemu(parser)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        help="set a key of the profile or one of its variables; may be repeated",
    )


def add_locked(parser: argparse.ArgumentParser) -> None:
    """`--locked` and `--lock`."""
    parser.add_argument(
        "--locked",
        action="store_true",
        help="keep all of the lock file beside the profile, or refuse",
    )
    parser.add_argument(
        "--lock", default="", metavar="FILE", help="the same, with a lock file elsewhere"
    )


def add_qemu(parser: argparse.ArgumentParser) -> None:
    """`--qemu`."""
    parser.add_argument("--qemu", default="", metavar="BIN", help="the QEMU binary, name or path")


def seconds(text: str) -> float:
    """A number of seconds, for `type=`: argparse words the mistake."""
    number = float(text)
    if not 0 < number < 1e9:
        raise ValueError
    return number


def platform_named(catalogue: Catalogue, name: str) -> Platform:
    """A platform by name or by path, as a profile would name it."""
    from launcher.errors import InputError, Place
    from launcher.nodes import Scalar
    from launcher.prepare import choose_platform

    here = Place("--platform")
    try:
        return choose_platform(catalogue, Scalar(name, here))
    except InputError as error:
        if error.place == here:
            error.place = None
        raise
