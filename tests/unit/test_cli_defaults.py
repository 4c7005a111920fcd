"""`platform defaults` as a user types it, without a binary."""

from __future__ import annotations

import json

import pytest
import yaml

from launcher.cli import main
from launcher.platforms import find_platform, resolve
from tests.support.records import catalogue

pytestmark = pytest.mark.hermetic


def test_every_form_holds_every_row(capsys):
    pins = resolve(catalogue(), find_platform(catalogue(), "debian-12"))
    assert main(["platform", "defaults", "debian-12", "--format", "json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert (table["platform"], table["qemu"], table["binary"]) == ("debian-12", "7.2", None)
    assert [(r["family"], r["member"]) for r in table["defaults"]] == [(k[0], k[2]) for k in pins]
    assert main(["platform", "defaults", "debian-12", "--format", "yaml"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == table
    assert main(["platform", "defaults", "debian-12"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"debian-12: QEMU 7.2, Linux 6.1; {len(pins)} defaults"
    assert len(lines) == len(pins) + 2
    assert any(line.split()[:4] == ["object-add", "iothread", "poll-grow", "0"] for line in lines)


def test_a_platform_that_pins_nothing(capsys):
    assert main(["platform", "defaults", "native"]) == 0
    assert capsys.readouterr().out == "native: no floor; 0 defaults\n"


def test_a_schema_needs_a_binary(capsys):
    assert main(["platform", "defaults", "debian-12", "--schema"]) == 2
    told = capsys.readouterr().err
    assert "none was named" in told
    assert "--schema --qemu qemu-system-x86_64" in told
