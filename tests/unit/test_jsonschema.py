"""The JSON Schema of profiles: shipped as generated, and true of real profiles."""

from __future__ import annotations

import os
from functools import cache

import jsonschema
import pytest
import yaml

from launcher.cli.show import json_text
from launcher.profiles import PROFILE, SHAPE
from launcher.qapi.jsonschema import profile_schema
from tests.support.records import RELEASES, ROOT, capabilities_of

PROFILES = os.path.join(ROOT, "profiles")
SAMPLES = sorted(name for name in os.listdir(PROFILES) if name.endswith(".yaml"))
MINIMAL = {"platform": "debian-12", "machine": "q35"}


@cache
def checker(release: str | None = None, tool: str = "qemu-system"):
    capabilities = capabilities_of(release, tool) if release else None
    schema = profile_schema(SHAPE, PROFILE, capabilities)
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema)


def sample(name: str) -> dict:
    with open(os.path.join(PROFILES, name), encoding="utf-8") as file:
        return yaml.safe_load(file)


def wrong(validator, profile: dict) -> list[str]:
    """Where the schema finds mistakes, at the deepest key that it names."""
    return sorted({".".join(map(str, e.absolute_path)) for e in validator.iter_errors(profile)})


def test_the_shipped_file_is_what_the_generator_writes():
    with open(os.path.join(PROFILES, "profile.schema.json"), encoding="utf-8") as file:
        shipped = file.read()
    assert shipped == json_text(profile_schema(SHAPE, PROFILE), pretty=True) + "\n", (
        "run `qemu-launcher schema > profiles/profile.schema.json`"
    )


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_name_the_schema_and_fit_it(name):
    with open(os.path.join(PROFILES, name), encoding="utf-8") as file:
        assert file.readline() == "# yaml-language-server: $schema=./profile.schema.json\n"
    assert wrong(checker(), sample(name)) == []


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("name", [n for n in SAMPLES if n != "confidential-sev.yaml"])
def test_samples_fit_what_each_release_knows(name, release):
    profile = sample(name)
    tool = profile.get("tool", "qemu-system")
    assert wrong(checker(release, tool), profile) == []


@pytest.mark.parametrize(
    "profile",
    [
        {**MINIMAL, "memory": "4G"},
        {**MINIMAL, "memory": "${size}", "smp": "${cpus}"},
        {**MINIMAL, "memory": {"size": "1GiB", "type": "memory-backend-ram"}},
        {**MINIMAL, "machine": {"type": "q35", "acpi": False}},
        {**MINIMAL, "accel": ["kvm", {"accel": "tcg", "thread": "multi"}]},
        {**MINIMAL, "x-note": {"anything": [1]}},
        {**MINIMAL, "boot": {"menu": True, "kernel": "vmlinuz"}},
        {**MINIMAL, "boot": {"menu": "on"}},
        {**MINIMAL, "name": 17, "vars": {"a": 1, "b": None}},
        {"extends": "base.yaml", "objects": {"io0": None}, "net": None},
        {"extends": ["a.yaml", "b.yaml"]},
        {"platform": "native", "tool": "qemu-storage-daemon"},
    ],
)
def test_what_the_launcher_takes_is_taken(profile):
    assert wrong(checker(), profile) == []


@pytest.mark.parametrize(
    ("profile", "at"),
    [
        ({"machine": "q35"}, ""),
        ({"platform": "debian-12"}, ""),
        ({**MINIMAL, "memry": "1G"}, ""),
        ({**MINIMAL, "memory": "4GB"}, "memory"),
        ({**MINIMAL, "verify": "lax"}, "verify"),
        ({**MINIMAL, "boot": {"kernal": "x"}}, "boot"),
        ({**MINIMAL, "boot": {"menu": "yes"}}, "boot"),
        ({**MINIMAL, "smp": "two"}, "smp"),
        ({**MINIMAL, "extra-args": "-s"}, "extra-args"),
        ({**MINIMAL, "stop": {"powerdown-seconds": []}}, "stop"),
    ],
)
def test_mistakes_are_seen(profile, at):
    assert wrong(checker(), profile) == [at]


@pytest.mark.parametrize(
    ("part", "at"),
    [
        ({"netdevs": {"n": {"type": "uzer"}}}, "netdevs"),
        ({"netdevs": {"n": {"type": "user", "hostfwdd": "x"}}}, "netdevs"),
        ({"netdevs": {"9n": {"type": "user"}}}, "netdevs"),
        ({"blockdevs": {"d": {"driver": "file"}}}, "blockdevs"),
        ({"blockdevs": {"d": {"driver": "raw", "file": {"driver": "fyle"}}}}, "blockdevs"),
        ({"devices": {"d": {"driver": "virtio-blc-pci"}}}, "devices"),
        ({"devices": {"d": {}}}, "devices"),
        ({"objects": {"o": {"qom-type": "iothred"}}}, "objects"),
        ({"chardevs": {"c": {"backend": "sockett"}}}, "chardevs"),
        ({"migration": {"capabilities": {"multifdd": True}}}, "migration"),
        ({"migration": {"parameters": {"multifd-channels": "many"}}}, "migration"),
        ({"machine": "pc-q35-1.0"}, "machine"),
    ],
)
def test_with_a_binary_its_own_options_are_known(part, at):
    validator = checker("10.0")
    assert wrong(validator, {**MINIMAL, **part}) == [at]
    assert wrong(checker(), {**MINIMAL, **part}) == []


def test_ids_are_the_keys_and_not_members():
    profile = {**MINIMAL, "netdevs": {"n": {"type": "user", "id": "n"}}}
    assert wrong(checker("10.0"), profile) == ["netdevs"]


def test_a_block_node_inside_of_another_may_have_a_name():
    inner = {"driver": "null-co", "node-name": "below"}
    profile = {**MINIMAL, "blockdevs": {"d": {"driver": "raw", "file": inner}}}
    assert wrong(checker("10.0"), profile) == []
    profile["blockdevs"]["d"]["node-name"] = "d"
    assert wrong(checker("10.0"), profile) == ["blockdevs"]


def test_recursive_types_end():
    chain = {"driver": "null-co"}
    for _ in range(5):
        chain = {"driver": "raw", "file": chain}
    assert wrong(checker("7.2"), {**MINIMAL, "blockdevs": {"d": chain}}) == []


def test_a_release_before_described_objects_knows_their_types():
    validator = checker("5.2")
    assert wrong(validator, {**MINIMAL, "objects": {"o": {"qom-type": "iothread"}}}) == []
    assert wrong(validator, {**MINIMAL, "objects": {"o": {"qom-type": "iothred"}}}) == ["objects"]
