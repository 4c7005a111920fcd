"""The engine: nodes against a schema."""

from __future__ import annotations

import pytest

from launcher.errors import Place
from launcher.files import parse_yaml
from launcher.nodes import Scalar
from launcher.qapi import Checker, Schema, said, suggest
from launcher.qapi.check import size_hint

pytestmark = pytest.mark.hermetic


def members(**types):
    return [{"name": name.replace("_", "-"), "type": kind} for name, kind in types.items()]


def optional(**types):
    return [{**member, "default": None} for member in members(**types)]


SCHEMA = Schema(
    [
        {"name": "size", "meta-type": "builtin", "json-type": "size"},
        {"name": "odd", "meta-type": "builtin", "json-type": "odd"},
        {"name": "Colour", "meta-type": "enum", "members": [{"name": "red"}, {"name": "on"}]},
        {"name": "Old", "meta-type": "enum", "values": ["a", "b"]},
        {"name": "Many", "meta-type": "enum", "values": [f"value{n}" for n in range(20)]},
        {"name": "Ints", "meta-type": "array", "element-type": "int"},
        {"name": "ColourOrInt", "meta-type": "alternate", "members": members(a="Colour", b="int")},
        {"name": "Ref", "meta-type": "alternate", "members": members(a="Shape", b="str")},
        {"name": "Wide", "meta-type": "alternate", "members": members(a="Ref", b="Ints")},
        {"name": "ById", "meta-type": "map", "value-type": "Colour"},
        {"name": "Raw", "meta-type": "node"},
        {"name": "AnyOf", "meta-type": "alternate", "members": members(a="odd", b="Many")},
        {
            "name": "Shape",
            "meta-type": "object",
            "tag": "kind",
            "members": [*members(kind="Old"), *optional(inner="Ref", colour="Colour")],
            "variants": [{"case": "a", "type": "A"}],
        },
        {"name": "A", "meta-type": "object", "members": optional(width="int", list="Ints")},
        {"name": "Open", "meta-type": "object", "members": optional(a="int"), "open": "x-"},
        {"name": "Tagged", "meta-type": "object", "tag": "t", "members": members(t="Many")},
        {"name": "do-it", "meta-type": "command", "arg-type": "A"},
    ]
)


def check(kind: str, text: str, owner: str = ""):
    node = parse_yaml(f"v: {text}\n", "f").items["v"]
    checker = Checker(SCHEMA)
    value = checker.check(kind, node, "v", owner)
    return value, [f"{m.message} ({m.hint})" if m.hint else m.message for m in checker.mistakes]


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("str", "on", "on"),
        ("str", '""', ""),
        ("int", "0x10", 16),
        ("int", "4K", 4096),
        ("size", '"4K"', 4096),
        ("number", "3", 3),
        ("number", "2.5", 2.5),
        ("bool", "off", False),
        ("null", "~", None),
        ("any", "{a: [1, on]}", {"a": [1, True]}),
        ("Colour", "true", "on"),
        ("Colour", '"red"', "red"),
        ("Old", "b", "b"),
        ("Ints", "[1, 2]", [1, 2]),
        ("ColourOrInt", "5", 5),
        ("ColourOrInt", "red", "red"),
        ("ById", "{a: red}", {"a": "red"}),
        ("Ref", "name", "name"),
        ("Shape", "{kind: a, width: 2, list: [3]}", {"kind": "a", "width": 2, "list": [3]}),
        ("Shape", "{kind: b, inner: {kind: b}}", {"kind": "b", "inner": {"kind": "b"}}),
        ("Wide", "[1]", [1]),
        ("Open", "{x-mine: {a: b}, a: 1}", {"a": 1}),
    ],
)
def test_values(kind, text, value):
    assert check(kind, text) == (value, [])


def test_a_node_is_left_as_it_was():
    value, mistakes = check("Raw", "abc")
    assert isinstance(value, Scalar)
    assert mistakes == []


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        ("null", "a", "v must be null"),
        ("odd", "a", "v has the unknown type odd"),
        ("number", "nan", "v must be a number, not 'nan'"),
        ("number", "inf", "v must be a number, not 'inf'"),
        ("number", "many", "v must be a number, not 'many'"),
        ("number", '"1"', "v must be a number, not text (remove the quotes)"),
        ("size", "4GB", "v must be a size, not '4GB' (write 4G, which is binary in QEMU)"),
        ("Many", "zzz", "v does not know 'zzz' (known are value0, value1, value2, value3, value4,"),
        ("Many", "value99", "v does not know 'value99' (did you mean value9,"),
        ("Old", "zzz", "v does not know 'zzz' (known are a, b)"),
        ("Old", "[a]", "v must be one of a, b, not a list"),
        ("Ints", "1", "v must be a list (write it as `[a, b]`)"),
        ("Ints", "[1, x]", "v.1 must be an integer, not 'x'"),
        ("ColourOrInt", "[1]", "v must be an integer or one of red, on, not a list"),
        ("Ref", "[1]", "v must be a mapping or text, not a list"),
        ("AnyOf", "[1]", "v must be a value or one of value0"),
        ("Wide", "[x]", "v.0 must be an integer, not 'x'"),
        ("ById", "a", "v must be a mapping from ids to values, not 'a'"),
        ("ById", "{a: blue}", "v.a does not know 'blue'"),
        ("Shape", "a", "v must be a mapping of keys to values, not 'a'"),
        ("Shape", "{}", "v needs 'kind' (it is one of a, b)"),
        ("Tagged", "{}", "v needs 't' (it is one of value0, value1"),
        ("Shape", "{kind: c}", "v.kind does not know 'c'"),
        ("A", "{widht: 1}", "v has no 'widht' (did you mean width?)"),
    ],
)
def test_mistakes(kind, text, words):
    _value, mistakes = check(kind, text)
    assert len(mistakes) == 1
    assert mistakes[0].startswith(words)


def test_a_nested_union_of_the_same_kind_is_told_by_its_own_case():
    _, mistakes = check("Shape", "{kind: b, inner: {kind: a, widht: 1}}", "shape b")
    assert mistakes == ["'widht' is not a property of shape a (did you mean width?)"]


def test_a_nested_object_is_told_by_its_path():
    schema = Schema(
        [
            {"name": "Outer", "meta-type": "object", "members": members(inner="Inner")},
            {"name": "Inner", "meta-type": "object", "members": optional(a="int")},
        ]
    )
    checker = Checker(schema)
    node = parse_yaml("inner: {b: 1}\n", "f")
    checker.check("Outer", node, "things.x", "thing x")
    words = [m.message for m in checker.mistakes]
    assert words == ["'b' is not a property of things.x.inner"]


def test_better_words_are_asked_for_with_the_owner():
    asked = []

    def unknown(owner: str, name: str) -> tuple[str, str]:
        asked.append((owner, name))
        return "words", "hint"

    checker = Checker(SCHEMA, unknown)
    checker.check("A", parse_yaml("new: 1\n", "f"), "v", "thing a")
    assert asked == [("thing a", "new")]
    assert (checker.mistakes[0].message, checker.mistakes[0].hint) == ("words", "hint")


def test_a_missing_member_of_the_whole_file():
    checker = Checker(SCHEMA)
    checker.check("Shape", parse_yaml("colour: red\n", "f"), "")
    assert checker.mistakes[0].code == "missing"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("1GB!", "write 1G, which is binary in QEMU"),
        ("4GB", "write 4G, which is binary in QEMU"),
        ("4 !", "write 4"),
        ("1G!", "write 1G"),
        ("big", ""),
        ("b", ""),
    ],
)
def test_size_hints(text, hint):
    assert size_hint(text) == hint


def test_suggestions():
    assert suggest("ab", ["abc", "x"]) == "did you mean abc?"
    assert suggest("zzz", {"b", "a"}) == "known are a, b"
    assert suggest("zzz", []) == ""
    assert suggest("zzz", [f"n{i}" for i in range(13)]) == ""


def test_said():
    here = Place("f")
    tree = parse_yaml("a: [1]\n", "f")
    assert said(tree) == "a mapping"
    assert said(tree.items["a"]) == "a list"
    assert said(Scalar("x", here)) == "'x'"


def test_schema_look_ups():
    assert "do-it" in SCHEMA
    assert SCHEMA.argument_type("do-it") == "A"
    assert SCHEMA.argument_type("no-such") is None
    assert list(SCHEMA.commands()) == ["do-it"]
    assert SCHEMA.values("Old") == SCHEMA.values("Old") == ("a", "b")
    assert set(SCHEMA.all_members("Shape", "a")) == {"kind", "inner", "colour", "width", "list"}


def test_a_schema_by_name_is_used_as_it_is():
    entities = {"E": {"name": "E", "meta-type": "enum", "values": ["x"]}}
    schema = Schema(entities)
    assert schema.entities is entities
    assert schema["str"]["json-type"] == "string"
