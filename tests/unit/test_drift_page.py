"""The page of the matrix: one file, the same bytes, and nothing that QEMU said becomes markup."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from launcher.drift.page import packed, page

pytestmark = pytest.mark.hermetic

HOSTILE = (
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "<img src=x onerror=alert(1)>",
    "{{data}}{{script}}{{style}}{{policy}}",
    "\u2028\u2029\u202e\x00\x1b[31m\ud800",
    "__proto__",
    "\"'&<>`${1}\\",
)
SILENT = {"state": "absent", "value": None}
ROW = {
    "kind": "row",
    "file": "qemu/11.1.yaml",
    "line": 16,
    "release": "11.1",
    "was": "0",
    "now": "2",
    "affects": "performance",
    "why": "It is halved.",
    "ref": "QEMU commit 9fea80",
}


def head(name: str) -> dict[str, str]:
    return {"name": name, "version": "7.2.22", "build": f"Debian {name}", "tool": "qemu-system"}


def here(value: object) -> dict[str, object]:
    return {"state": "here", "value": value}


def row(name: str, cells: list, steps: list, facet: str = "value") -> dict[str, object]:
    names = {"family": "object", "type": "iothread", "property": name, "facet": facet}
    return {**names, "cells": cells, "steps": steps}


def matrix(*rows: dict[str, object], names: tuple[str, ...] = ("qemu-7.2", "qemu-11.1")) -> dict:
    counts = dict.fromkeys(("same", "changed", "appeared", "gone"), 1)
    counts |= dict.fromkeys(("covered", "waived", "uncovered"), 1)
    pairs = [{"old": a, "new": b, "counts": counts} for a, b in pairwise(names)]
    releases = [head(name) for name in names]
    return {"format": 1, "releases": releases, "pairs": pairs, "rows": list(rows)}


def changed(change: str, cover: str, by: dict | None) -> dict[str, object]:
    return {"change": change, "cover": cover, "by": by}


SAMPLE = matrix(
    row("poll-shrink", [here(0), here(2)], [changed("changed", "covered", ROW)]),
    row("poll-grow", [here(0), here(2)], [changed("changed", "covered", dict(ROW))]),
    row("other", [SILENT, here(True)], [changed("appeared", "uncovered", None)]),
    row("last", [here({"b": [1], "a": None}), SILENT], [changed("gone", "waived", ROW)]),
    row("same", [here(1), here(1)], [None]),
    row("unseen", [{"state": "unseen", "value": None}, here(1)], [None]),
)


class Reader(HTMLParser):
    """What a browser would find: elements with their attributes, and the text in each."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[int, str] = {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        self.elements.append((f"/{tag}", {}))

    def handle_data(self, data):
        at = len(self.elements) - 1
        self.inside[at] = self.inside.get(at, "") + data

    def all(self, tag: str) -> list[tuple[dict[str, str | None], str]]:
        return [
            (attributes, self.inside.get(n, ""))
            for n, (name, attributes) in enumerate(self.elements)
            if name == tag
        ]


def data_of(text: str) -> dict:
    """The matrix as page.js finds it."""
    (block,) = [body for attributes, body in Reader(text).all("script") if "id" in attributes]
    return json.loads(block)


def unpacked(data: dict) -> list[tuple]:
    """The rows as they were: the inverse of `packed`."""
    found = []
    for *words, cells, steps in data["rows"]:
        cells = cells if isinstance(cells, list) else [cells] * len(data["releases"])
        steps = steps or [0] * (len(cells) - 1)
        states = [
            here(data["values"][c])
            if c >= 0
            else {"state": {-1: "absent", -2: "unseen"}[c], "value": None}
            for c in cells
        ]
        said = [
            s
            and changed(
                ("changed", "appeared", "gone")[s[0]],
                ("uncovered", "covered", "waived")[s[1]],
                data["causes"][s[2]] if s[2] >= 0 else None,
            )
            for s in steps
        ]
        names = dict(
            zip(
                ("family", "type", "property", "facet"),
                (data["words"][w] for w in words),
                strict=True,
            )
        )
        found.append({**names, "cells": states, "steps": [s or None for s in said]})
    return found


def test_everything_of_the_matrix_is_in_the_page():
    data = data_of(page(SAMPLE))
    assert unpacked(data) == SAMPLE["rows"]
    assert data["releases"] == SAMPLE["releases"]
    assert data["counts"] == [one["counts"] for one in SAMPLE["pairs"]]
    assert data["pair"] is None


def test_each_value_and_cause_is_there_once():
    data = packed(SAMPLE, None)
    assert data["causes"] == [ROW]
    assert [type(v) for v in data["values"] if v in (0, 1)] == [int, bool, int]
    assert len({json.dumps(v, sort_keys=True) for v in data["values"]}) == len(data["values"])


@pytest.mark.parametrize(
    ("names", "pair", "columns"),
    [
        (("a", "b", "c"), ("a", "c"), [0, 2]),
        (("a", "b", "c"), ("c", "b"), [1, 2]),
        (("a", "a"), ("a", "a"), [0, 1]),
    ],
)
def test_the_chosen_pair_is_named_by_its_columns(names, pair, columns):
    assert packed(matrix(names=names), pair)["pair"] == columns


def test_a_release_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="qemu-9"):
        page(SAMPLE, ("qemu-7.2", "qemu-9"))


def test_the_same_matrix_gives_the_same_bytes():
    shuffled = json.loads(json.dumps(SAMPLE))
    assert page(shuffled) == page(SAMPLE)
    page(SAMPLE).encode()  # without lone halves of pairs, which no file could hold


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(text):
    cause = {**ROW, "why": text, "ref": text, "file": text}
    cells = [here(text), here({text: [text]})]
    hostile = {**row(text, cells, [changed("changed", "waived", cause)], text), "type": text}
    written = page({**matrix({**hostile, "family": text}), "releases": [head(text), head("b")]})
    plain = Reader(page(SAMPLE))
    found = Reader(written)
    assert found.elements == plain.elements
    assert found.all("script")[1] == plain.all("script")[1]
    data = data_of(written)
    assert unpacked(data) == [{**hostile, "family": text}]
    assert data["releases"][0]["name"] == text


def test_only_its_own_style_and_script_may_run():
    reader = Reader(page(SAMPLE))
    (policy,) = [
        attributes["content"]
        for attributes, _ in reader.all("meta")
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    rules = dict(rule.strip().split(" ", 1) for rule in (policy or "").split(";"))

    def hashed(body: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()}'"

    ((_, style),) = reader.all("style")
    (_, (_, script)) = reader.all("script")
    assert rules == {
        "default-src": "'none'",
        "style-src": hashed(style),
        "script-src": hashed(script),
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def test_nothing_is_fetched():
    text = page(SAMPLE)
    for tag, attributes in Reader(text).elements:
        assert not attributes.keys() & {"src", "srcset", "action", "style", "data"}, tag
        assert attributes.get("href", "data:,") == "data:,"
        assert not [name for name in attributes if name.startswith("on")]
    # One address: what a commit's link begins with, which is followed when it is clicked.
    assert re.findall(r"https?://[^\"\s]+", text) == [
        "https://gitlab.com/qemu-project/qemu/-/commit/"
    ]
    assert not re.search(r"@import|url\(|@font-face", text)
    for word in ("fetch(", "XMLHttpRequest", "import(", "sendBeacon", "WebSocket", "EventSource"):
        assert word not in text


def test_the_script_makes_no_markup_of_text():
    ((_, _), (_, script)) = Reader(page(SAMPLE)).all("script")
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert word not in script
    assert not re.search(r"new Function|DOMParser|createContextualFragment", script)
