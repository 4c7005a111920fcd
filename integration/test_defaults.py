"""`platform defaults` of real binaries: the schema says of a command what QEMU says of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import jsonschema
import pytest
import yaml

from integration.conftest import ROOT, Installed
from integration.rawqmp import RawQMP

pytestmark = pytest.mark.integration

IOTHREAD = {"qom-type": "iothread", "id": "io0"}
TRIALS = [
    ("object-add", {**IOTHREAD, "poll-max-ns": 5}),
    ("object-add", {**IOTHREAD, "poll-max-ns": "5"}),
    ("object-add", {**IOTHREAD, "poll-weight": 3}),
    ("object-add", {"qom-type": "iothred", "id": "io0"}),
    ("object-add", {"qom-type": "iothread"}),
    ("blockdev-add", {"driver": "null-co", "node-name": "d", "size": 512}),
    ("blockdev-add", {"driver": "null-co", "node-name": "d", "size": "512"}),
    ("blockdev-add", {"driver": "null-co", "node-name": "d", "active": True}),
    ("chardev-add", {"id": "c", "backend": {"type": "null", "data": {}}}),
    ("chardev-add", {"id": "c", "backend": {"type": "null"}}),
]


def platform_defaults(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "launcher", "platform", "defaults", "debian-12", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def spoken(release: str, arguments: dict) -> dict:
    """5.2 has an object's properties below `props`."""
    if release != "5.2" or "qom-type" not in arguments:
        return arguments
    known = {k: v for k, v in arguments.items() if k in ("qom-type", "id")}
    return {**known, "props": {k: v for k, v in arguments.items() if k not in known}}


@pytest.mark.parametrize("program", ["qemu-system-x86_64", "qemu-storage-daemon"])
def test_the_schema_judges_as_qemu_does(qemu: Installed, program):
    binary = os.path.join(os.path.dirname(qemu.binary), program)
    schema = json.loads(platform_defaults("--schema", "--qemu", binary))
    jsonschema.Draft7Validator.check_schema(schema)
    validator = jsonschema.Draft7Validator(schema)
    daemon = program == "qemu-storage-daemon"
    machine = [] if daemon else ["-machine", "none", "-nodefaults", "-display", "none"]
    judged = []
    for command, arguments in TRIALS:
        if (daemon, qemu.release, command) == (True, "5.2", "object-add"):
            continue  # its schema lists the command, and it does not know it
        given = spoken(qemu.release, arguments)
        with RawQMP([binary, *machine], daemon=daemon) as qmp:
            taken = "return" in qmp.ask(command, given)
        assert validator.is_valid({"execute": command, "arguments": given}) is taken, given
        judged.append(taken)
    assert {True, False} <= set(judged)


def test_the_table_tells_what_becomes_of_each_row(qemu: Installed):
    told = json.loads(platform_defaults("--format", "json", "--qemu", qemu.binary))
    rows = {(r["family"], r["case"], r["member"]): r["here"] for r in told["defaults"]}
    grow, shrink = (rows["object", "iothread", f"poll-{word}"] for word in ("grow", "shrink"))
    newest = qemu.release == "11.1"
    assert grow["default"] == (2 if newest else 0)
    assert shrink["status"] == ("omitted" if newest else "written")
    assert bool(shrink["reason"]) is newest
    assert yaml.safe_load(platform_defaults("--format", "yaml", "--qemu", qemu.binary)) == told
    assert "poll-shrink" in platform_defaults("--qemu", qemu.binary)
