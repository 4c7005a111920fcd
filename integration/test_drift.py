"""The recorded releases against the binaries, and drift against an independent reading of them.

The reading here asks with bare QMP, in its own way, and compares in its own way.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import cache
from itertools import pairwise
from typing import Any

import pytest

from integration.conftest import RELEASES, Installed, installed
from integration.rawqmp import RawQMP
from launcher.survey.shelf import recorded

pytestmark = pytest.mark.integration

PAIRS = list(pairwise(RELEASES))
QUIET = ("-nodefaults", "-no-user-config", "-display", "none", "-accel", "tcg", "-S")


def launcher(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "launcher", *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)


@cache
def drift(old: str, new: str, *words: str) -> dict[str, Any]:
    done = launcher("drift", old, new, "--format", "json", *words)
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)


def found(pair: tuple[str, str], family: str, *words: str) -> dict[tuple[str, str, str], Any]:
    """(type, property, facet) → (change, old, new) of one family between two binaries."""
    names = (installed(release).binary for release in pair)
    return {
        (c["type"], c["property"], c["facet"]): (c["change"], c["old"], c["new"])
        for c in drift(*names, *words)["changes"]
        if c["family"] == family
    }


# -- records --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_fresh_record_is_the_recorded_one_byte_for_byte(qemu: Installed, tmp_path) -> None:
    for name, binary in (("qemu", qemu.binary), ("qsd", qemu.storage_daemon)):
        path = str(tmp_path / name)
        done = launcher("record", binary, "-o", path)
        assert done.returncode == 0, done.stderr
        with open(path) as fresh, open(recorded()[f"{name}-{qemu.release}"]) as kept:
            assert fresh.read() == kept.read(), name


def test_binaries_and_their_records_drift_alike(newer_qemu: Installed) -> None:
    name = f"qemu-{newer_qemu.release}"
    same = drift(name, newer_qemu.binary, "--machine", "microvm")
    assert same["changes"] == []
    assert same["counts"]["same"] > 10_000


def test_a_platform_takes_the_drift_of_what_it_pins_away() -> None:
    old, new = installed("7.2").binary, installed("10.0").binary
    words = ("--machine", "microvm", "--platform", "qemu-7.2")
    values = {
        (c["family"], c["type"], c["property"])
        for c in drift(old, new, *words)["changes"]
        if c["facet"] == "value"
        and c["change"] == "changed"
        and c["family"] not in ("qom", "machine")
    }
    assert {family for family, _, _ in values} <= {"blockdev"}
    shown = next(
        c
        for c in drift(old, new, *words)["changes"]
        if (c["family"], c["property"]) == ("migration-parameter", "zero-page-detection")
    )
    assert shown["new"] == "legacy"
    # What 11.1 cannot have is left over, and only that.
    old, new = installed("10.0").binary, installed("11.1").binary
    left = [
        (c["type"], c["property"])
        for c in drift(old, new, "--platform", "qemu-10.0")["changes"]
        if (c["family"], c["facet"], c["change"]) == ("object", "value", "changed")
    ]
    assert left == [("iothread", "poll-grow"), ("iothread", "poll-shrink")]


# -- an independent reading -----------------------------------------------------------------------

#: qom-type → what it needs; all of them exist in several releases and need nothing of the host.
OBJECTS: dict[str, dict[str, Any]] = {
    "iothread": {},
    "memory-backend-ram": {"size": 1 << 20},
    "memory-backend-memfd": {"size": 1 << 20},
    "rng-random": {},
    "rng-builtin": {},
    "sev-guest": {"cbitpos": 47, "reduced-phys-bits": 1},
    "secret": {"data": "survey"},
    "authz-list": {},
    "main-loop": {},
    "tls-creds-anon": {"endpoint": "server"},
}
#: Values that differ from run to run.
OWN = {"thread-id"}


class Reading:
    """One binary, read with bare QMP."""

    def __init__(self, release: str) -> None:
        qemu = installed(release)
        done = subprocess.run([qemu.binary, "-help"], capture_output=True, text=True, check=True)
        self.options = set(re.findall(r"^-([\w-]+)", done.stdout, re.MULTILINE))
        with RawQMP([qemu.binary, *QUIET, "-machine", "none"]) as qmp:
            self.commands = {entry["name"] for entry in qmp.execute("query-commands")}
            self.schema = {e["name"]: e for e in qmp.execute("query-qmp-schema")}
            self.parameters = qmp.execute("query-migrate-parameters")
            listed = qmp.execute("query-migrate-capabilities")
            self.capabilities = {entry["capability"] for entry in listed}
            listed = qmp.execute("device-list-properties", typename="migration")
            self.migration = {p["name"]: p.get("default-value") for p in listed}
            self.machines = {m["name"] for m in qmp.execute("query-machines")}
            user = qmp.execute("qom-list-types", implements="user-creatable", abstract=False)
            self.types = {entry["name"] for entry in user}
            self.objects = {t: self._object(qmp, t) for t in OBJECTS if t in self.types}
        words = ("-machine", "microvm", "-smp", "2", "-m", "128")
        with RawQMP([qemu.binary, *QUIET, *words]) as qmp:
            self.machine = self._values(qmp, "/machine")

    def _object(self, qmp: RawQMP, qom_type: str) -> dict[str, Any]:
        arguments = {"qom-type": qom_type, "id": f"my-{qom_type}"}
        root = self.schema[self.schema["object-add"]["arg-type"]]
        if any(member["name"] == "props" for member in root["members"]):
            arguments["props"] = OBJECTS[qom_type]
        else:
            arguments |= OBJECTS[qom_type]
        qmp.execute("object-add", **arguments)
        return self._values(qmp, f"/objects/my-{qom_type}")

    @staticmethod
    def _values(qmp: RawQMP, path: str) -> dict[str, Any]:
        values = {}
        for entry in qmp.execute("qom-list", path=path):
            name = entry["name"]
            if entry["type"].startswith("child<") or name == "type":
                continue
            answer = qmp.ask("qom-get", {"path": path, "property": name})
            values[name] = answer.get("return", "unreadable")
        return values

    def branches(self, family: str) -> dict[str, set[str]]:
        """Kind of a backend → its own members of the first level."""
        command = {"netdev": "netdev_add", "blockdev": "blockdev-add", "chardev": "chardev-add"}
        root = self.schema[self.schema[command[family]]["arg-type"]]
        if family == "chardev":
            root = self.schema[next(m["type"] for m in root["members"] if m["name"] == "backend")]
        found = {}
        for variant in root["variants"]:
            members = self.schema[variant["type"]]["members"]
            if [m["name"] for m in members] == ["data"]:
                members = self.schema[members[0]["type"]]["members"]
            found[variant["case"]] = {m["name"] for m in members}
        return found


@cache
def read(release: str) -> Reading:
    return Reading(release)


def words(before: set[Any], after: set[Any]) -> dict[Any, str]:
    """What came and what went."""
    return dict.fromkeys(after - before, "appeared") | dict.fromkeys(before - after, "gone")


def drifted(pair: tuple[str, str], family: str) -> dict[tuple[str, str], str]:
    """(type, property) → appeared or gone, as drift has it."""
    return {
        key[:2]: change for key, (change, _, _) in found(pair, family).items() if key[2] == "word"
    }


@pytest.mark.parametrize("pair", PAIRS)
def test_values_of_objects_are_those_of_an_independent_reading(pair) -> None:
    old, new = (read(release) for release in pair)
    values, came = {}, {}
    for kind in old.objects.keys() & new.objects.keys():
        before, after = old.objects[kind], new.objects[kind]
        for name in before.keys() & after.keys() - OWN:
            if before[name] != after[name]:
                values[kind, name] = (before[name], after[name])
        came |= {(kind, n): c for n, c in words(set(before), set(after)).items()}
    changes = found(pair, "object")
    assert values == {
        key[:2]: (was, now)
        for key, (change, was, now) in changes.items()
        if key[2] == "value" and change == "changed" and key[0] in OBJECTS
    }
    assert came == {
        key: change
        for key, change in drifted(pair, "object").items()
        if key[0] in old.objects and key[0] in new.objects and "." not in key[1]
    }
    types = {key[0]: c for key, c in drifted(pair, "object").items() if key[1] == "*"}
    assert types == words(old.types, new.types)


@pytest.mark.parametrize("pair", PAIRS)
def test_migration_is_that_of_an_independent_reading(pair) -> None:
    old, new = (read(release) for release in pair)
    capabilities = {key[1]: c for key, c in drifted(pair, "migration-capability").items()}
    assert capabilities == words(old.capabilities, new.capabilities)
    shown = {key[1]: c for key, c in drifted(pair, "migration-parameter").items()}
    for name, change in words(set(old.parameters), set(new.parameters)).items():
        # Some are shown only once they are set; drift knows their words from the schema.
        facets = {k[2]: c[0] for k, c in found(pair, "migration-parameter").items() if k[1] == name}
        assert shown.get(name) == change or facets.get("value") == change, name
    common = old.parameters.keys() & new.parameters.keys()
    assert {n for n in common if old.parameters[n] != new.parameters[n]} == {
        key[1]
        for key, (change, _, _) in found(pair, "migration-parameter").items()
        if key[2] == "value" and change == "changed"
    }
    properties = {key[1]: c for key, c in drifted(pair, "migration-property").items()}
    assert properties == words(set(old.migration), set(new.migration))
    both = old.migration.keys() & new.migration.keys()
    stated = {n for n in both if None not in (old.migration[n], new.migration[n])}
    assert {n for n in stated if old.migration[n] != new.migration[n]} == {
        key[1]
        for key, (change, _, _) in found(pair, "migration-property").items()
        if key[2] == "default"
    }


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("family", ["netdev", "chardev", "blockdev"])
def test_words_of_backends_are_those_of_an_independent_reading(pair, family) -> None:
    old, new = (read(release).branches(family) for release in pair)
    expected = {(kind, "*"): change for kind, change in words(set(old), set(new)).items()}
    for kind in old.keys() | new.keys():
        inner = words(old.get(kind, set()), new.get(kind, set()))
        expected |= {(kind, name): change for name, change in inner.items()}
    schema = {
        key: change
        for key, change in drifted(pair, family).items()
        if "." not in key[1] and key[0] != "*"
    }
    # Besides words of the schema drift has what is read of instances: those must be no words.
    assert expected.items() <= schema.items()
    for kind, name in set(schema) - set(expected):
        assert name not in old.get(kind, set()) | new.get(kind, set())


@pytest.mark.parametrize("pair", PAIRS)
def test_commands_options_and_machine_types_are_those_of_an_independent_reading(pair) -> None:
    old, new = (read(release) for release in pair)
    for family, before, after in (
        ("qmp-command", old.commands, new.commands),
        ("machine", old.machines, new.machines),
    ):
        whole = {key[0]: c for key, c in drifted(pair, family).items() if key[1] == "*"}
        assert whole == words(before, after), family
    options = {key[0]: c for key, c in drifted(pair, "command-line").items() if key[1] == "*"}
    assert words(old.options, new.options).items() <= options.items()
    # The rest are groups of -readconfig, which the help does not list.
    assert not {o for o in options if o in old.options | new.options} - set(
        words(old.options, new.options)
    )


@pytest.mark.parametrize("pair", PAIRS)
def test_values_of_a_machine_are_those_of_an_independent_reading(pair) -> None:
    old, new = (read(release).machine for release in pair)
    changes = {
        key[1]: (was, now)
        for key, (change, was, now) in found(pair, "machine", "--machine", "microvm").items()
        if key[0] == "microvm" and key[2] == "value" and change == "changed"
    }
    plain = {n for n in old.keys() & new.keys() if not isinstance(old[n], dict) and n != "rtc-time"}
    expected = {n: (old[n], new[n]) for n in plain if old[n] != new[n]}
    # Paths of devices are given by their types, because their numbers shift.
    moved = {n for n, (was, now) in expected.items() if "/unattached/" in f"{was}{now}"}
    assert {n: v for n, v in expected.items() if n not in moved} == {
        n: v for n, v in changes.items() if n not in moved and "." not in n
    }
