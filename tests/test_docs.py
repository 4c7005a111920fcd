"""The documents: links lead somewhere, examples parse, verbs exist, every key is described."""

from __future__ import annotations

import json
import os
import re
import shlex

import pytest

from launcher.cli.parser import parse
from launcher.cli.verbs import VERBS
from launcher.errors import InputError, Place
from launcher.files import parse_yaml
from launcher.nodes import Mapping, Scalar
from launcher.platforms import platform_from_file
from launcher.profiles import SHAPE, parse_profile
from tests.support.records import CACHE, ROOT, catalogue, plan_of

pytestmark = pytest.mark.hermetic

_BLOCK = re.compile(r"^```(\S*) *(.*?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
#: What a fragment of a profile leaves out.
_NEEDED = {"platform": "debian-12", "machine": "pc-q35-7.2"}


def documents() -> list[str]:
    found = [name for name in os.listdir(ROOT) if name.endswith(".md")]
    for folder in ("docs", "launcher", "tests"):
        for path, _, names in os.walk(os.path.join(ROOT, folder)):
            found += [
                os.path.relpath(os.path.join(path, n), ROOT) for n in names if n.endswith(".md")
            ]
    return sorted(found)


def text_of(document: str) -> str:
    with open(os.path.join(ROOT, document), encoding="utf-8") as file:
        return file.read()


def blocks(language: str, kind: str | None = None) -> list[tuple[str, str, str]]:
    """(document, words after the language, text) of each code block."""
    return [
        (document, info, body)
        for document in documents()
        for name, info, body in _BLOCK.findall(text_of(document))
        if name == language and (kind is None or info.split()[:1] == [kind])
    ]


def names_of(cases: list[tuple[str, str, str]]) -> list[str]:
    return [f"{document}-{number}" for number, (document, _, _) in enumerate(cases)]


def cases(language: str, kind: str | None = None) -> pytest.MarkDecorator:
    found = blocks(language, kind)
    assert found, f"no {language} {kind} block in any document"
    return pytest.mark.parametrize(("document", "info", "body"), found, ids=names_of(found))


# -- text -----------------------------------------------------------------------------------------


def anchors(document: str) -> set[str]:
    """The anchors that GitHub makes of headings."""
    outside = _BLOCK.sub("", text_of(document))
    heads = re.findall(r"^#+ (.*)$", outside, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("document", documents())
def test_every_link_leads_somewhere(document):
    for target in _LINK.findall(_BLOCK.sub("", text_of(document))):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        beside = os.path.join(os.path.dirname(document), path)
        there = os.path.normpath(beside) if path else document
        assert os.path.exists(os.path.join(ROOT, there)), f"{document}: {target}"
        if anchor:
            assert anchor in anchors(there), f"{document}: {target}"


@pytest.mark.parametrize("document", documents())
def test_no_document_shows_the_machine_it_was_written_on(document):
    found = re.findall(r"(?:/root|/home|/work)/\S*", text_of(document))
    assert not found


def test_every_decision_is_listed_and_fits_on_a_page():
    listed = text_of("docs/decisions/README.md")
    for name in sorted(os.listdir(os.path.join(ROOT, "docs", "decisions"))):
        if name == "README.md":
            continue
        assert re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", name)
        assert f"]({name})" in listed
        assert len(text_of(f"docs/decisions/{name}").split()) <= 500


# -- profiles and platforms ------------------------------------------------------------------------


def members(name: str) -> set[str]:
    return set(SHAPE.members(name))


@pytest.mark.parametrize("shape", ["Profile", "Boot", "Action", "Migration", "Stop"])
def test_every_key_of_a_profile_is_described(shape):
    rows = re.findall(r"^\| `([^`]+)` \|", text_of("docs/profile.md"), re.MULTILINE)
    assert members(shape) <= set(rows)


def test_every_key_that_is_described_exists():
    known = set().union(*(members(s) for s in ("Profile", "Boot", "Action", "Migration", "Stop")))
    head = text_of("docs/profile.md").partition("## Building on other profiles")[0]
    assert set(re.findall(r"^\| `([^`: ]+)` \|", head, re.MULTILINE)) <= known


def read(path: str) -> Mapping:
    """A profile that another one extends: the block that carries its name."""
    for _document, info, body in blocks("yaml", "profile"):
        if info.split()[1:] == [os.path.basename(path)]:
            return parse_yaml(body, path)
    raise InputError("there is no such block", place=Place(path))


def check_profile(body: str, document: str, needed: dict[str, str]) -> None:
    """Every word of it is one that QEMU 11.1 knows."""
    tree = parse_yaml(body, f"{document}.yaml")
    missing = {k: Scalar(v, tree.place) for k, v in needed.items() if k not in tree.items}
    whole = Mapping({**missing, **tree.items}, tree.place, tree.keys)
    plan_of(parse_profile(whole, read, (), "", CACHE), "11.1")


@cases("yaml", "profile")
def test_a_profile_in_the_documents_can_be_planned(document, info, body):
    check_profile(body, document, {})


@cases("yaml", "part")
def test_a_part_of_a_profile_in_the_documents_can_be_planned(document, info, body):
    check_profile(body, document, _NEEDED)


@cases("yaml", "platform")
def test_a_platform_in_the_documents_is_one(document, info, body):
    assert platform_from_file(catalogue(), parse_yaml(body, info.split()[1])).overrides


@cases("json")
def test_json_in_the_documents_is_json(document, info, body):
    json.loads(body)


# -- commands --------------------------------------------------------------------------------------


def commands() -> list[tuple[str, list[str]]]:
    """(document, words after `qemu-launcher`) of every example."""
    found = []
    for document, _info, body in blocks("console"):
        for line in body.splitlines():
            words = _words(line[2:]) if line.startswith("$ ") else []
            if words[:1] == ["qemu-launcher"]:
                found.append((document, words[1:]))
    return found


def _words(line: str) -> list[str]:
    """The first command of a line, without what the shell does with its output."""
    words = shlex.split(line, comments=True)
    ends = [n for n, w in enumerate(words) if w == "|" or re.match(r"\d?>", w)]
    return words[: min(ends, default=len(words))]


@pytest.mark.parametrize(
    ("document", "words"), commands(), ids=[" ".join(w)[:60] for _, w in commands()]
)
def test_an_example_is_a_command_that_exists(document, words):
    assert words[0] in VERBS
    parse(words[0], words[1:])


def test_every_verb_is_shown_somewhere():
    texts = "".join(text_of(d) for d in ("README.md", "docs/platform.md", "docs/profile.md"))
    missing = [verb for verb in VERBS if f"qemu-launcher {verb}" not in texts]
    assert not missing


def test_no_document_names_a_verb_that_does_not_exist():
    for document in documents():
        for verb in re.findall(r"`qemu-launcher ([a-z]+)", text_of(document)):
            assert verb in VERBS, f"{document}: qemu-launcher {verb}"


def test_every_script_that_is_named_exists():
    for document in documents():
        for script in re.findall(r"(?:\./|`)(scripts/[a-z-]+|\.ci/[a-z]+)", text_of(document)):
            assert os.access(os.path.join(ROOT, script), os.X_OK), f"{document}: {script}"
