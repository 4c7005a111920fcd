"""docs/asyncapi.yaml: as the agent's tables are, whole, with schemas that tell right from wrong."""

from __future__ import annotations

import json
import os

import jsonschema
import pytest
import yaml

from launcher.agent.asyncapi import command_schema, document, document_yaml
from launcher.agent.messages import answer, read_command
from launcher.agent.vocabulary import VERBS
from launcher.errors import HostError, InputError, VerdictError
from tests.support.asyncapi import Book
from tests.support.records import ROOT

PATH = os.path.join(ROOT, "docs", "asyncapi.yaml")


@pytest.fixture(scope="module")
def book() -> Book:
    return Book(PATH)


def test_the_file_is_what_the_tables_say():
    with open(PATH, encoding="utf-8") as file:
        written = file.read()
    again = "qemu-launcher schema --asyncapi > docs/asyncapi.yaml"
    assert written == document_yaml(), f"write it again: {again}"
    assert yaml.safe_load(written) == json.loads(json.dumps(document()))


def test_every_reference_leads_somewhere(book):
    found = list(book.references())
    assert len(found) > 200
    for reference in found:
        assert book.follow(reference) is not None, reference


def test_every_schema_is_one_and_every_message_is_used(book):
    whole = book.value
    for name, schema in whole["components"]["schemas"].items():
        jsonschema.Draft7Validator.check_schema(schema)
        assert schema, name
    used = {ref.rpartition("/")[2] for ref in book.references() if "/messages/" in ref}
    assert used == set(whole["components"]["messages"])
    for channel in whole["channels"].values():
        for name in channel["parameters"]:
            assert f"{{{name}}}" in channel["address"]
        assert channel["address"].count("{") == len(channel["parameters"])


def test_every_verb_is_an_operation_with_an_answer(book):
    for verb in VERBS:
        operation = book.value["operations"][verb]
        assert operation["action"] == "receive"
        assert book.address(verb) == f"qemu-launcher/v1/hosts/{{host}}/command/{verb}"
        assert operation["reply"]["messages"][0]["$ref"].endswith(f"/{verb}-answer")


@pytest.mark.parametrize(
    ("verb", "value"),
    [
        ("start", {"id": "1", "profile": "web", "settings": ["memory=1GiB"], "verify": "warn"}),
        ("start", {"id": "1", "profile": {"machine": "microvm"}}),
        ("start", {"id": "1"}),
        ("start", {"id": "1", "profile": "web", "verify": "off"}),
        ("start", {"id": "1", "profile": "../web"}),
        ("start", {"profile": "web"}),
        ("start", {"id": "A", "profile": "web"}),
        ("stop", {"id": "1", "machine": "web", "first": "quit"}),
        ("stop", {"id": "1", "machine": "web", "now": True}),
        ("qmp", {"id": "1", "machine": "web", "command": "x", "arguments": []}),
        ("query", {"id": "1"}),
        ("facts", {"id": "1", "machine": "web"}),
    ],
)
def test_the_schema_of_a_command_takes_what_the_agent_takes(book, verb, value):
    """Two readers of one table: they must not disagree."""
    try:
        read_command(verb, json.dumps(value).encode())
        taken = True
    except InputError:
        taken = False
    assert book.fits(command_schema(VERBS[verb]), value) is taken


@pytest.mark.parametrize(
    ("payload", "right"),
    [
        (answer("1", "accepted"), True),
        (answer(None, "refused", error=InputError("no")), True),
        (answer("1", "failed", error=HostError("no", evidence={"qemu_stderr": ["x"]})), True),
        (answer("1", "failed", {"verdict": "mismatch"}, VerdictError("no")), True),
        (answer("1", "done", {"name": "web", "changed": True, "by": "quit"}), True),
        (answer("1", "done", {"name": "web", "changed": True, "by": "magic"}), False),
        (answer("1", "done", {"name": "web"}), False),
        (answer("1", "failed"), False),
        (answer("1", "eaten"), False),
    ],
)
def test_the_schema_of_an_answer_tells_right_from_wrong(book, payload, right):
    schema = book.value["components"]["messages"]["stop-answer"]["payload"]
    assert book.fits(schema, json.loads(payload)) is right
