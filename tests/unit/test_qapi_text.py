"""Scalars and option text, as QEMU reads and writes them."""

from __future__ import annotations

import json

import pytest

from launcher.qapi import (
    format_json,
    format_keyval,
    nearest,
    parse_boolean,
    parse_integer,
    parse_json,
    parse_size,
    snake,
)

pytestmark = pytest.mark.hermetic


@pytest.mark.parametrize(
    ("text", "value"),
    [("on", True), ("true", True), ("off", False), ("false", False), ("yes", None), ("1", None)],
)
def test_booleans(text, value):
    assert parse_boolean(text) is value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("12", 12),
        ("-12", -12),
        ("0x1F", 31),
        ("-0x10", -16),
        ("0755", None),
        ("00", None),
        ("1_000", None),
        ("0x", None),
        ("0xg", None),
        ("0x1_0", None),
        ("1.0", None),
        ("", None),
        ("-", None),
        ("+1", None),
        (" 1", None),
        ("٣", None),
        ("9" * 21, None),
    ],
)
def test_integers(text, value):
    assert parse_integer(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("1024", 1024),
        ("0x400", 1024),
        ("4G", 4 << 30),
        ("4GiB", 4 << 30),
        ("4g", 4 << 30),
        ("1k", 1024),
        ("7b", 7),
        ("1.5G", 3 << 29),
        ("0.5k", 512),
        ("1P", 1 << 50),
        ("1E", 1 << 60),
        ("4GB", None),
        ("4iB", None),
        ("4biB", None),
        ("-1", None),
        ("-1G", None),
        ("1.3k", None),
        ("1.G", None),
        (".5G", None),
        ("010M", None),
        ("1.x5G", None),
        ("G", None),
        ("", None),
        ("1 G", None),
        ("1X", None),
        ("٣G", None),
        ("1.٣G", None),
        ("1" * 21 + "G", None),
    ],
)
def test_sizes(text, value):
    assert parse_size(text) == value


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        {"a": [1, -2.5, True, False, None, "x"], "b": {"c": []}},
        'quote " back \\ slash \x01 ж 😀',
        ["a", ["b", []], {}],
        ("a", 1),
        "",
    ],
)
def test_json_is_json(value):
    text = format_json(value)
    assert json.loads(text) == json.loads(json.dumps(value))
    assert text == json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def test_json_has_no_word_for_everything():
    with pytest.raises(TypeError, match="bytes"):
        format_json({"a": b"x"})


@pytest.mark.parametrize(
    ("head", "members", "text"),
    [
        ("tap", {"id": "a", "vhost": True, "queues": 2}, "tap,id=a,vhost=on,queues=2"),
        ("", {"guest": "a,b=c"}, "guest=a,,b=c"),
        ("a,b", {}, "a,,b"),
        (
            "raw",
            {"file": {"driver": "file", "x": {"y": False}}},
            "raw,file.driver=file,file.x.y=off",
        ),
        ("node", {"cpus": [0, 1]}, "node,cpus=0,cpus=1"),
        ("user", {"hostfwd": [{"str": "a,b"}, {"str": "c"}]}, "user,hostfwd=a,,b,hostfwd=c"),
        ("x", {"l": [{"a": 1}, [2]]}, "x,l.0.a=1,l.1=2"),
    ],
)
def test_keyval(head, members, text):
    assert format_keyval(head, members) == text


@pytest.mark.parametrize(
    "text", ["1", '"a"', "[1, {}]", '{"a": [null, true, 1.5]}  \n', '"\\u00e9"', "-1"]
)
def test_json_is_read_as_json_reads_it(text):
    assert parse_json(text) == json.loads(text)


@pytest.mark.parametrize("text", ["", "x", "1 2", '{"a": 1} {}', "[1", '{"a"', '"a'])
def test_what_is_no_json(text):
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)


def test_nearest():
    assert nearest("iothread", ["iothread", "io"]) == ["iothread"]
    assert nearest("io_thread", ["iothread", "rng"]) == ["iothread"]
    assert nearest("IOTHREAD", ["iothread"]) == ["iothread"]
    assert nearest("frobnicate", ["iothread"]) == []
    assert nearest("a", []) == []


def test_snake():
    assert snake("x-colo.delay-ms") == "x_colo_delay_ms"
