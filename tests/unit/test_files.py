"""Strict YAML: what is read, and what the parser is asked. Mistakes are golden files."""

from __future__ import annotations

import os

import pytest

from launcher.errors import InputError, Place
from launcher.files import MAX_NODES, parse_yaml, read_text, read_yaml
from launcher.nodes import Mapping, Scalar, plain_value

pytestmark = pytest.mark.hermetic


def parse(text: str) -> Mapping:
    return parse_yaml(text, "f.yaml")


@pytest.mark.parametrize("text", ["on", "no", "0x10", "9.10", "1:30", "0755", "1e3", "2026-13-45"])
def test_scalars_stay_text(text):
    node = parse(f"a: {text}\n").items["a"]
    assert isinstance(node, Scalar)
    assert (node.text, node.plain) == (text, True)


@pytest.mark.parametrize("text", ['"on"', "'on'", "|\n  on", ">\n  on", "! on", "!!str on"])
def test_quoted_scalars_are_not_plain(text):
    node = parse(f"a: {text}\n").items["a"]
    assert isinstance(node, Scalar)
    assert (node.text.strip(), node.plain) == ("on", False)


def test_places_count_from_one():
    tree = parse("a: 1\nb:\n  - x\n  - {c: y}\n")
    assert tree.key_place("b") == Place("f.yaml", 2, 1)
    assert tree.items["b"].place == Place("f.yaml", 3, 3)
    assert tree.items["b"].items[1].items["c"].place == Place("f.yaml", 4, 9)


def test_aliases_within_bounds():
    tree = parse("a: &x {k: [1, 2]}\nb: *x\n")
    assert tree.items["b"] is tree.items["a"]


def test_aliases_count_what_they_stand_for():
    half = MAX_NODES // 2
    text = f"a: &x [{', '.join(['1'] * half)}]\nb: *x\n"
    with pytest.raises(InputError, match="more than"):
        parse(text)


def test_empty_files_and_byte_order_marks(tmp_path):
    path = tmp_path / "f.yaml"
    path.write_bytes(b"\xef\xbb\xbfname: caf\xc3\xa9\n")
    assert plain_value(read_yaml(str(path))) == {"name": "café"}
    path.write_bytes(b"")
    assert read_yaml(str(path)).items == {}


def test_the_limit_is_exact(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"x" * 100)
    assert len(read_text(str(path), limit=100)) == 100
    with pytest.raises(InputError, match="larger"):
        read_text(str(path), limit=99)


def test_no_descriptor_is_left_open(tmp_path):
    before = os.listdir("/proc/self/fd")
    (tmp_path / "bad").write_bytes(b"\xff")
    for path in (tmp_path, tmp_path / "bad", tmp_path / "missing"):
        with pytest.raises(InputError):
            read_text(str(path))
    assert os.listdir("/proc/self/fd") == before


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    def refused(*_arguments):
        raise OSError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(InputError, match="may not be read by this user"):
        read_text(str(tmp_path / "f"))


def test_a_file_that_breaks_while_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "f"
    path.write_text("x")

    def broken(*_arguments):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "read", broken)
    with pytest.raises(InputError, match="could not be read: Input/output error"):
        read_text(str(path))


@pytest.mark.parametrize("text", ["a: \x07\n", 'a: "\x7f"\n', "a: \ufffe\n"])
def test_characters_that_yaml_forbids(text):
    with pytest.raises(InputError) as caught:
        parse(text)
    assert caught.value.place is not None


def test_works_without_the_c_parser(monkeypatch):
    import yaml

    monkeypatch.delattr(yaml, "CSafeLoader")
    assert plain_value(parse("a: [1, {b: on}]\n")) == {"a": [1, {"b": True}]}
    for text in ("a: [\n", "a: \x07\n", "a: " + "[" * 1500, "\tb: 1\n"):
        with pytest.raises(InputError):
            parse(text)
