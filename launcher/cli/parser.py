"""Words to a namespace: one argparse parser for the one verb that was given."""

from __future__ import annotations

import argparse
import os

from launcher.cli.show import out
from launcher.cli.verbs import VERBS
from launcher.errors import InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn


class Help(argparse.RawDescriptionHelpFormatter):
    """Help as wide as the terminal.

    argparse would import shutil, and with it the compression modules, to learn that width.
    """

    def __init__(self, prog: str) -> None:
        try:
            columns = int(os.environ.get("COLUMNS", "")) or os.get_terminal_size().columns
        except (ValueError, OSError):
            columns = 80
        super().__init__(prog, max_help_position=30, width=max(columns, 40) - 2)


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are errors like all others."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", Help)
        super().__init__(allow_abbrev=False, **options)

    def print_help(self, file: Any = None) -> None:
        """Print the help, as every other result is printed."""
        out(self.format_help().rstrip())

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print.

        Raises:
            InputError: always.
        """
        raise InputError(message, hint=f"see `{self.prog} --help`", code="usage")


def parse(verb: str, words: Sequence[str]) -> argparse.Namespace:
    """The options of one verb; `run` is the function that does it.

    Raises:
        InputError: an unknown option, a missing argument, a wrong choice.
        SystemExit: `--help` was asked for and has been printed.
    """
    parser = Parser(prog=f"qemu-launcher {verb}", **_words(verb))
    _refuse_empty(parser, words)
    _module(verb).arguments(parser, verb)
    return parser.parse_args(words)


def _refuse_empty(parser: Parser, words: Sequence[str]) -> None:
    """No word may be empty: to `--qemu "$new"` without `new` the usual binary is a wrong answer.

    Raises:
        InputError: one is.
    """
    for before, word in zip(("", *words), words, strict=False):
        name, _, text = word.partition("=")
        if not word or (name.startswith("--") and name != word and not text):
            option = before if not word and before.startswith("-") else name
            raise InputError(
                f"{option or 'an argument'} is empty",
                hint=f"is a variable of the shell not set? See `{parser.prog} --help`",
                code="usage",
            )


def whole() -> argparse.ArgumentParser:
    """The parser of all verbs at once, for shell completion."""
    parser = Parser(prog="qemu-launcher")
    parser.add_argument("--version", action="store_true", help="print the version")
    verbs = parser.add_subparsers(metavar="VERB")
    for verb, (_name, what, _example) in VERBS.items():
        _module(verb).arguments(verbs.add_parser(verb, help=what, **_words(verb)), verb)
    return parser


def _words(verb: str) -> dict[str, Any]:
    _name, what, example = VERBS[verb]
    return {"description": f"{what[0].upper()}{what[1:]}.", "epilog": f"example:\n  {example}"}


def _module(verb: str) -> Any:
    return __import__(f"launcher.cli.{VERBS[verb][0]}", fromlist=["arguments"])
