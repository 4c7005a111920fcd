"""What a lock file says is read back as it was written, by us and by any other reader of YAML."""

from __future__ import annotations

import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from launcher.files import parse_yaml
from launcher.locks.emit import emit
from launcher.locks.model import digest, python_value

pytestmark = [pytest.mark.hermetic, pytest.mark.property]

#: What our reader allows in a scalar: no control characters but these, no surrogates.
_CHARACTERS = st.characters(exclude_categories=("Cs", "Cc"), include_characters="\n\t\x85")
_TRAPS = st.sampled_from(
    (
        *("on", "off", "yes", "No", "y", "TRUE", "null", "Null", "~", "", " ", "-", "?", ":"),
        *("0x10", "9.10", "010", "1_000", "1:30", "12e3", ".inf", "-.INF", ".nan", "2026-11-23"),
        *("52:54:00:12:34:56", "a: b", "a #b", "#a", "&a", "*a", "!a", "|", ">", "@a", "`a", "%a"),
        *("'", '"', "\\", "a\nb", " a", "a ", "{a}", "[a]", "a,b", "---", "...", "<<", "=", "a:"),
        *("\u2028", "\ufeff", "\u202e", "18446744073709551615", "e5", "inf", "nan", "None"),
    )
)
_TEXTS = st.text(_CHARACTERS, max_size=30) | _TRAPS
_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXTS
)
_VALUES = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXTS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(_TEXTS, _VALUES, min_size=1, max_size=5))
def test_our_reader_gets_back_what_was_written(document):
    text = emit(document, flow=list(document)[:1])
    assert python_value(parse_yaml(text, "web.lock.yaml")) == document
    # Types, too: True is not 1.
    assert digest(python_value(parse_yaml(text, "web.lock.yaml"))) == digest(document)


def _same(one: object, other: object) -> bool:
    if isinstance(one, dict):
        return isinstance(other, dict) and all(
            a == b and _same(x, y)
            for (a, x), (b, y) in zip(one.items(), other.items(), strict=True)
        )
    if isinstance(one, list):
        return isinstance(other, list) and all(map(_same, one, other))
    if isinstance(one, float):
        # YAML 1.1 wants a dot in every float: `1e+22` is a text to it.
        return math.isclose(one, float(other))  # type: ignore[arg-type]
    return type(one) is type(other) and one == other


@given(st.dictionaries(_TEXTS, _VALUES, min_size=1, max_size=5))
def test_other_readers_get_back_what_was_written(document):
    """PyYAML with all its rules of YAML 1.1: nothing is taken for a boolean, a date or a number."""
    assert _same(document, yaml.safe_load(emit(document)))


@given(_VALUES)
def test_one_value_is_one_line(value):
    assert len(emit({"list": [value, value]}, flow=["list"]).splitlines()) == 3


def test_what_yaml_has_no_word_for_is_refused():
    with pytest.raises(TypeError, match="cannot hold a set"):
        emit({"a": {1}})
