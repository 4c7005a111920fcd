"""Plain command lines, without argparse: its import costs as much as the interpreter's own start.

`read_words` knows only what is beyond doubt: options that are spelled out, with their values, and
words that stand together. For all else (help, mistakes, sub-verbs, `--`) it says that it does not
know, and argparse, which is told the same by the same functions, has the word.
"""

from __future__ import annotations

from launcher.cli.verbs import VERBS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_ACTIONS = (None, "store_true", "append")


class Unknown(Exception):
    """Only argparse can tell."""


class Options:
    """What argparse calls a Namespace."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.__dict__.update(values)


class _Plain:
    """The part of an ArgumentParser that the verbs use to say what they take."""

    def __init__(self) -> None:
        self.options: dict[str, dict[str, Any]] = {}
        self.positionals: list[tuple[str, dict[str, Any]]] = []
        self.values: dict[str, Any] = {}

    def add_argument(self, name: str, *more: str, **how: Any) -> None:
        """As argparse has it."""
        if more or how.get("action") not in _ACTIONS or how.get("required"):
            raise Unknown
        if not name.startswith("-"):
            self.positionals.append((name, how))
            return
        self.options[name] = how
        usual = False if how.get("action") == "store_true" else how.get("default")
        self.values[_dest(name)] = usual

    def set_defaults(self, **values: Any) -> None:
        """As argparse has it."""
        self.values.update(values)

    def __getattr__(self, name: str) -> Any:
        raise Unknown


def read_words(verb: str, words: Sequence[str]) -> Any:
    """The options of `verb`, as argparse would give them; None when only it can tell."""
    plain = _Plain()
    try:
        __import__(f"launcher.cli.{VERBS[verb][0]}", fromlist=["arguments"]).arguments(plain, verb)
        _read(plain, words)
    except (Unknown, ValueError):
        return None
    return Options(plain.values)


def _read(plain: _Plain, words: Sequence[str]) -> None:
    loose: list[str] = []
    apart = False  # an option stood between two loose words
    rest = list(reversed(words))
    while rest:
        word = rest.pop()
        if not word:
            raise Unknown
        if not word.startswith("-"):
            if apart and loose:
                raise Unknown
            loose.append(word)
            continue
        apart = bool(loose)
        _option(plain, word, rest)
    _positionals(plain, loose)


def _option(plain: _Plain, word: str, rest: list[str]) -> None:
    name, equals, text = word.partition("=")
    how = plain.options.get(name)
    if how is None:
        raise Unknown
    if how.get("action") == "store_true":
        if equals:
            raise Unknown
        plain.values[_dest(name)] = True
        return
    if not equals:
        text = rest.pop() if rest else "-"
    if not text or (not equals and text.startswith("-")):
        raise Unknown
    value = _value(text, how)
    if how.get("action") == "append":
        value = [*(plain.values[_dest(name)] or ()), value]
    plain.values[_dest(name)] = value


def _positionals(plain: _Plain, loose: list[str]) -> None:
    for name, how in plain.positionals:
        count = how.get("nargs")
        usual = count == "*" and "default" not in how
        if not usual and (not loose or count not in (None, "+")):
            raise Unknown
        if count is None:
            plain.values[name] = _value(loose.pop(0), how)
        else:
            plain.values[name] = [_value(text, how) for text in loose]
            loose = []
    if loose:
        raise Unknown


def _value(text: str, how: dict[str, Any]) -> Any:
    value = how["type"](text) if "type" in how else text
    if "choices" in how and value not in how["choices"]:
        raise Unknown
    return value


def _dest(name: str) -> str:
    return name.lstrip("-").replace("-", "_")
