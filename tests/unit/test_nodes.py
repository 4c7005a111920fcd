"""The tree that every input file becomes."""

from __future__ import annotations

import pytest

from launcher.errors import Place
from launcher.nodes import Mapping, Scalar, Sequence, from_python, plain_value

pytestmark = pytest.mark.hermetic

HERE = Place("f", 1, 1)


@pytest.mark.parametrize("text", ["", "~", "null", "Null", "NULL"])
def test_null_is_plain(text):
    assert Scalar(text, HERE).is_null
    assert not Scalar(text, HERE, plain=False).is_null


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", True),
        ("true", True),
        ("off", False),
        ("false", False),
        ("~", None),
        ("12", 12),
        ("-3", -3),
        ("0", 0),
        ("0x10", "0x10"),
        ("0755", "0755"),
        ("1_000", "1_000"),
        ("-", "-"),
        ("٣", "٣"),
        ("10.10", "10.10"),
        ("yes", "yes"),
        ("1" * 30, "1" * 30),
    ],
)
def test_plain_scalars_read_as_keyval_would(text, value):
    assert plain_value(Scalar(text, HERE)) == value
    assert plain_value(Scalar(text, HERE, plain=False)) == text


def test_key_places():
    node = Mapping({"a": Scalar("1", HERE)}, HERE, {"a": Place("f", 2, 1)})
    assert node.key_place("a") == Place("f", 2, 1)
    assert node.key_place("b") == HERE
    assert node.get("b") is None


def test_python_values_and_back():
    value = {"a": [1, 2.5, True, False, None, "on", {"b": ["x"]}], "c": {}}
    assert plain_value(from_python(value, HERE)) == {
        "a": [1, "2.5", True, False, None, "on", {"b": ["x"]}],
        "c": {},
    }
    assert isinstance(from_python(("a",), HERE), Sequence)


def test_text_of_a_program_stays_text():
    node = from_python({"smp": "2"}, HERE)
    assert isinstance(node, Mapping)
    assert node.items["smp"] == Scalar("2", HERE, plain=False)


def test_what_yaml_could_not_have_written():
    with pytest.raises(TypeError, match="bytes"):
        from_python({"a": b"x"}, HERE)
