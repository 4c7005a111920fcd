"""Plain command lines are read as argparse reads them, or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.cli.parser import parse
from launcher.cli.verbs import VERBS
from launcher.cli.words import read_words
from launcher.errors import InputError

PLAIN = [
    ("plan", "web.yaml --platform debian-12 --qemu=/bin/qemu --format json --explain"),
    ("plan", "--set a=1 --set b=2 web.yaml --no-host"),
    ("run", "web.yaml --until login: --timeout 2.5 --verify warn --stats --report r.xml"),
    ("run", "--detach web.yaml"),
    ("check", "a.yaml b.yaml --no-qemu"),
    ("qmp", "web query-status --format json"),
    ("qmp", "web human-monitor-command command-line=info"),
    ("verify", "web.yaml"),
    ("host", "--format json"),
    ("host", "--format json kvm"),
    ("console", "web"),
]
ODD = [
    ("qmp", "web"),
    ("plan", ""),
    ("plan", "--help"),
    ("plan", "a.yaml --explain b.yaml"),
    ("plan", "a.yaml --format"),
    ("plan", "a.yaml --format yaml"),
    ("plan", "a.yaml --qemu -x"),
    ("plan", "a.yaml --explain=yes"),
    ("plan", "-- a.yaml"),
    ("run", "a.yaml --timeout soon"),
    ("check", "a.yaml --no-qemu b.yaml"),
    ("stop", "web --now --force"),
    ("platform", "list"),
]
TOLD = (
    "a.yaml b.yaml --platform --platform=p --qemu --qemu= --set --set=x=1 x=1 --format json text "
    "--format=json --explain --no-host --until --timeout 3 0 -1 --verify warn --report r.xml "
    "--detach --stats --no-qemu --force --now -- - -x --help --expl name query-status"
)
WORDS = st.sampled_from([*TOLD.split(), "", "two words", "-1 x"])


@pytest.mark.parametrize(("verb", "words"), PLAIN)
def test_plain_words_need_no_argparse(verb: str, words: str) -> None:
    found = read_words(verb, words.split())
    assert vars(found) == vars(parse(verb, words.split()))


@pytest.mark.parametrize(("verb", "words"), ODD)
def test_what_is_not_plain_is_left_to_argparse(verb: str, words: str) -> None:
    assert read_words(verb, words.split()) is None


@pytest.mark.property
@settings(max_examples=500, deadline=None)
@given(st.sampled_from(sorted(VERBS)), st.lists(WORDS, max_size=7))
def test_words_are_read_as_argparse_reads_them(verb: str, words: list[str]) -> None:
    try:
        found = read_words(verb, words)
    except InputError:
        found = None
    if found is not None:
        assert vars(found) == vars(parse(verb, words))
