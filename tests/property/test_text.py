"""Texts that QEMU reads: what goes in comes out."""

from __future__ import annotations

import json
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.display import printable
from launcher.errors import Place
from launcher.files import parse_yaml
from launcher.nodes import from_python, plain_value
from launcher.qapi import (
    format_json,
    format_keyval,
    nearest,
    parse_integer,
    parse_json,
    parse_size,
)
from launcher.report.text import quote
from tests.property.strategies import any_text, hostile_text, json_values, keys, write_yaml
from tests.support.schema import parse_keyval

pytestmark = [pytest.mark.property, pytest.mark.hermetic]


@given(hostile_text, st.dictionaries(keys, any_text))
def test_keyval_text_round_trips(head, members):
    """Read back by a parser that was written from QEMU's documentation, not from the writer."""
    text = format_keyval(f"x{head.replace('=', '')}", members)
    assert parse_keyval(text, "head") == {"head": f"x{head.replace('=', '')}", **members}


@given(st.dictionaries(keys, st.dictionaries(keys, any_text, min_size=1), max_size=4))
def test_nested_keyval_is_dotted(members):
    flat = {f"{outer}.{key}": v for outer, inner in members.items() for key, v in inner.items()}
    text = format_keyval("", members)
    assert (parse_keyval(text, "") if text else {}) == flat


@given(json_values)
def test_json_round_trips(value):
    text = format_json(value)
    assert json.loads(text) == value
    assert parse_json(text) == value
    assert text == json.dumps(value, separators=(",", ":"), ensure_ascii=False)


@given(any_text)
def test_reading_json_fails_as_json_does(text):
    try:
        wanted = json.loads(text)
    except ValueError:
        wanted = None
    try:
        found = parse_json(text)
    except ValueError:
        found = None
    assert found == wanted or text[:1] in " \t\r\n" or wanted != wanted


SHIFTS = {"": 0, "b": 0, "k": 10, "K": 10, "M": 20, "G": 30, "T": 40, "P": 50, "E": 60}


@given(st.integers(0, 1 << 62), st.sampled_from(sorted(SHIFTS)), st.booleans())
def test_sizes_round_trip(number, suffix, binary):
    text = f"{number}{suffix}" + ("iB" if binary and suffix not in ("", "b") else "")
    assert parse_size(text) == number << SHIFTS[suffix]


@given(st.integers(0, 9999), st.integers(0, 9999), st.sampled_from("kMGT"))
def test_fractions_are_exact_or_refused(whole, part, suffix):
    text = f"{whole}.{part}{suffix}"
    wanted = Fraction(f"{whole}.{part}") * (1 << SHIFTS[suffix])
    assert parse_size(text) == (int(wanted) if wanted.denominator == 1 else None)


@given(st.integers(-(1 << 63), 1 << 63))
def test_integers_round_trip(number):
    assert parse_integer(str(number)) == number
    assert parse_integer(hex(number)) == number


@given(any_text)
def test_numbers_are_numbers_or_nothing(text):
    for parse in (parse_size, parse_integer):
        assert isinstance(parse(text), (int, type(None)))


@given(hostile_text, st.lists(hostile_text))
def test_nearest_gives_known_names(name, known):
    assert set(nearest(name, known)) <= set(known)


@given(any_text)
def test_nothing_unprintable_is_shown(text):
    assert printable(text).isprintable()


@given(any_text)
def test_the_shell_reads_a_quoted_word_back(text):
    import shlex

    assert shlex.split(quote(text)) == [text]


@given(
    st.recursive(
        st.one_of(hostile_text, st.booleans(), st.integers(0, 1 << 60), st.none()),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(hostile_text, inner, max_size=3)
        ),
        max_leaves=8,
    )
)
def test_yaml_and_python_make_the_same_tree(value):
    """A profile from a program and one from a file mean the same."""
    tree = parse_yaml(f"v: {write_yaml(value)}\n", "f")
    assert plain_value(tree.items["v"]) == plain_value(from_python(value, Place("f"))) == value
