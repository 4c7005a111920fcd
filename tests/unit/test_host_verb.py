"""`host`: what it prints, against its own JSON Schema, and the overview."""

from __future__ import annotations

import json
import os

import jsonschema
import pytest

from launcher.cli.host import host
from launcher.cli.host_summary import host_summary, size
from launcher.cli.parser import parse
from launcher.host.facts import FACTS, FEATURES, FORMAT, gather
from tests.support.records import ROOT


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def schema():
    with open(
        os.path.join(ROOT, "launcher", "host", "facts.schema.json"), encoding="utf-8"
    ) as file:
        found = json.load(file)
    jsonschema.Draft202012Validator.check_schema(found)
    return found


def said(capsys, *words):
    assert host(parse("host", words)) == 0
    return capsys.readouterr().out


def test_what_is_printed_is_what_the_schema_says(schema, capsys):
    assert set(schema["properties"]) == {"format", "features", *FACTS}
    found = json.loads(said(capsys, "--format", "json", "--name", "web"))
    jsonschema.validate(found, schema)
    assert (found["format"], found["name"]) == (FORMAT, "web")
    assert set(found) == set(schema["properties"])
    assert set(found["features"]) == set(FEATURES)
    for wrong in ({"kvm": {"ok": 1}}, {"format": "host-facts-0"}, {"extra": 1}, {"qemu": [{}]}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**found, **wrong}, schema)


def test_a_part_is_of_the_same_form(schema, capsys):
    found = json.loads(said(capsys, "io_uring", "cpu", "--format", "json"))
    jsonschema.validate(found, schema)
    assert set(found) == {"format", "io_uring", "cpu", "features"}


def test_nothing_secret_is_told(capsys, monkeypatch):
    """Neither the environment nor whose account it is, and no id of the machine or the boot."""
    monkeypatch.setenv("QEMU_TEST_TOKEN", "hunter2-hunter2")
    text = said(capsys, "--format", "json")
    assert "hunter2" not in text
    for path in ("/etc/machine-id", "/proc/sys/kernel/random/boot_id"):
        if os.path.exists(path):
            with open(path) as file:
                ident = file.read().strip()
            assert not ident or ident not in text


def test_an_overview_fits_on_a_screen(capsys):
    lines = said(capsys).split("\n\n")[0].splitlines()
    heads = [line.split("  ")[0] for line in lines if not line.startswith(" ")]
    assert heads == ["host", "system", "CPUs", "memory", "huge pages", "limits", "QEMU"]
    assert f"Linux {os.uname().release}" in lines[1]


def test_a_fact_by_name_is_shown_in_full(capsys):
    assert "cpu.flags" in said(capsys, "cpu")
    assert "kernel.series" in said(capsys, "kernel")


def test_an_overview_of_a_host_that_tells_nothing():
    """What is unknown is said so, and never as if it were not there."""
    told = gather(["name", "arch", "kernel", "cpus", "ulimits"])
    why = {"unknown": "Permission denied"}
    names = ("distribution", "cpu", "numa", "memory", "hugepages", "hugetlbfs", "cgroup", "qemu")
    text = host_summary({**told, **dict.fromkeys(names, why)})
    assert text.count("Permission denied") == 6  # numa and hugetlbfs are left out
    limits = {"version": 2, "path": "/", "memory-max": 1 << 30, "pids-max": why, "cpu-max": 1.5}
    more = {
        "distribution": {"id": "debian", "version": "12", "name": "Debian"},
        "cpu": {"vendor": "GenuineIntel", "model": "", "flags": []},
        "numa": [{}, {}],
        "memory": {"total": 3 << 29, "available": 1 << 20, "swap": 1000},
        "hugepages": {},
        "hugetlbfs": [{"path": "/dev/huge\x1b", "page-size": 2 << 20, "writable": True}],
        "cgroup": limits,
        "ulimits": {n: [None, None] for n in ("open-files", "processes", "locked-memory")},
        "qemu": [{"path": "/q", "version": why, "build": ""}],
    }
    text = host_summary({**told, **more})
    assert "1.5 GiB, 1 MiB available, 1000 bytes of swap" in text
    assert "memory 1 GiB, CPUs 1.5, tasks unknown" in text
    assert "open files unlimited" in text
    assert "mounted at /dev/huge\\x1b" in text
    assert "2 NUMA nodes" in text
    assert "/q  unknown (Permission denied)" in text
    assert "none found on PATH" in host_summary({**told, **more, "qemu": []})


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1 KiB"), (5 << 39, "2.5 TiB")],
)
def test_sizes_for_people(number, text):
    assert size(number) == text
