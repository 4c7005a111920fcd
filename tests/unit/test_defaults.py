"""Versioned defaults as data and as JSON Schema: the same values that a plan pins."""

from __future__ import annotations

import os
from functools import cache

import jsonschema
import pytest

from launcher.command import fill
from launcher.errors import HostError, Place
from launcher.nodes import from_python
from launcher.plan.defaults import defaults_on, schema_with_defaults
from launcher.platforms import FAMILIES, find_platform, platform_from_file, resolve
from launcher.platforms.defaults import SPOTS, typed_default, versioned_default
from tests.support.records import (
    RELEASES,
    ROOT,
    capabilities_of,
    catalogue,
    host,
    plan_of,
    profile_from,
)

PLATFORMS = sorted({*catalogue().names, *(f"qemu-{release}" for release in RELEASES), "qemu-8.1"})
DAEMON = "qemu-storage-daemon"
BINARIES = [(r, t) for r in RELEASES for t in ("qemu-system", DAEMON)]

#: One entry of each type that any platform pins, with what the type must be given.
ENTRIES = {
    "objects": {
        "iothread": {},
        "memory-backend-file": {"size": 4096, "mem-path": "/dev/shm"},
        "memory-backend-memfd": {"size": 4096},
        "memory-backend-ram": {"size": 4096},
        "memory-backend-shm": {"size": 4096},
        "rng-random": {},
        "sev-guest": {"cbitpos": 47, "reduced-phys-bits": 1},
        "sev-snp-guest": {"cbitpos": 47, "reduced-phys-bits": 1},
    },
    "chardevs": {"qemu-vdagent": {}, "vc": {}},
    "netdevs": {},  # a tap for each device
    "devices": {
        "virtio-net-device": {},
        "virtio-net-pci": {},
        "virtio-net-pci-non-transitional": {},
        "virtio-net-pci-transitional": {},
    },
}
FAMILY = {"objects": "object", "chardevs": "chardev", "netdevs": "netdev", "devices": "device"}
TAG = {"objects": "qom-type", "chardevs": "backend", "netdevs": "type", "devices": "driver"}


@cache
def pins_of(platform: str):
    return resolve(catalogue(), find_platform(catalogue(), platform))


@cache
def here(platform: str, release: str, tool: str = "qemu-system"):
    found = defaults_on(pins_of(platform).values(), catalogue(), capabilities_of(release, tool))
    return {(h.pin.family, h.pin.type, h.pin.property): h for h in found}


@cache
def schema_of(platform: str, release: str, tool: str = "qemu-system") -> dict:
    found = here(platform, release, tool).values()
    return schema_with_defaults(found, capabilities_of(release, tool), platform)


@cache
def validator(platform: str, release: str, tool: str = "qemu-system"):
    schema = schema_of(platform, release, tool)
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema)


def fits(command: str, arguments: dict, *of: str) -> bool:
    return validator(*of).is_valid({"execute": command, "arguments": arguments})


# -- the table ------------------------------------------------------------------------------------


@pytest.mark.parametrize("platform", PLATFORMS)
def test_every_pinned_value_has_its_row(platform):
    for key, pin in pins_of(platform).items():
        row = versioned_default(catalogue(), pin)
        assert (row["family"], row["member"]) == (key[0], key[2])
        assert row["case"] == (None if key[0] == "migration-parameter" else key[1])
        assert row["known"]["from"] == (str(pin.knows.from_) if pin.knows.from_ else None)
        assert row["reference"]
        assert row["default"] in [version["default"] for version in row["versions"]]


def test_a_row_tells_its_history_and_its_limits():
    row = versioned_default(catalogue(), pins_of("debian-12")["object", "iothread", "poll-grow"])
    assert row["command"] == "object-add"
    assert (row["type"], row["discriminator"], row["case"]) == (
        "ObjectOptions",
        "qom-type",
        "iothread",
    )
    assert row["versions"] == [{"since": None, "default": 0}, {"since": "11.1", "default": 2}]
    assert [(e["default"], e["write"], e["known"]) for e in row["limits"]] == [
        (0, 2, {"from": "11.1", "until": None})
    ]
    weight = versioned_default(
        catalogue(), pins_of("qemu-11.1")["object", "iothread", "poll-weight"]
    )
    assert weight["versions"] == [{"since": "11.1", "default": 3}]
    assert weight["since"] == "11.1"
    shrink = versioned_default(
        catalogue(), pins_of("debian-12")["object", "iothread", "poll-shrink"]
    )
    assert [e["write"] for e in shrink["limits"]] == [None]


def test_a_default_that_was_handed_over_is_null():
    row = versioned_default(
        catalogue(), pins_of("debian-12")["device", "virtio-net-pci", "host_uso"]
    )
    assert row["versions"] == [{"since": None, "default": False}, {"since": "6.2", "default": None}]
    assert row["when"] == {"netdev": ["tap"]}
    assert row["command"] is None


def test_words_beside_each_other_are_words():
    assert typed_default("on", ("off", None)) is True
    assert typed_default("on", ("auto",)) == "on"
    assert typed_default("1", ("${smp}",)) == 1
    assert set(SPOTS) == set(FAMILIES)


# -- one source of truth --------------------------------------------------------------------------


def everything(platform: str, release: str) -> dict:
    """A profile with one entry of each pinned type that the binary has."""
    known = capabilities_of(release)
    profile: dict = {"name": "all", "platform": platform, "machine": "q35", "accel": "tcg"}
    for section, types in ENTRIES.items():
        profile[section] = {
            kind: {TAG[section]: kind, **given}
            for kind, given in types.items()
            if _has(known, section, kind)
        }
    for name, device in profile["devices"].items():
        device["netdev"] = f"tap-{name}"
        profile["netdevs"][device["netdev"]] = {"type": "tap"}
    return profile


def _has(known, section: str, kind: str) -> bool:
    if section == "objects":
        return kind in known.replies["user-creatable"]
    if section == "chardevs":
        schema = known.schema
        backend = schema.members(schema.argument_type("chardev-add"))["backend"]["type"]
        return kind in schema.branches(backend)
    return section != "devices" or kind in known.replies["devices"]


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_defaults_are_what_a_plan_pins(platform, release):
    """On every platform and recorded binary, for each type that is pinned anywhere."""
    tree = from_python(everything(platform, release), Place("all"))
    profile = profile_from(tree)
    expected = here(platform, release)
    impossible = {h.reason for h in expected.values() if h.status == "impossible"}
    facts = host(profile, find_platform(catalogue(), platform))
    if impossible:
        with pytest.raises(HostError) as caught:
            plan_of(profile, release, facts=facts)
        reasons = caught.value.evidence["reasons"]
        assert {reason.partition(": ")[2] for reason in reasons} == impossible
        return
    plan = plan_of(profile, release, facts=facts)
    origin = f"platform {platform}"
    planned = {
        (v.family, v.type, v.property): (v.spelled, v.written)
        for v in plan.values
        if str(v.origin) == origin
    }
    # One CPU: the number that a plan puts in for the template.
    assert planned == {
        key: (h.member, 1 if h.default == "${smp}" else h.default)
        for key, h in expected.items()
        if h.status == "written"
    }
    omitted = {(o.family, o.type, o.property): o.reason for o in plan.omitted}
    assert omitted == {k: h.reason for k, h in expected.items() if h.status == "omitted"}


@pytest.mark.parametrize(("release", "tool"), BINARIES)
def test_the_table_types_values_as_the_binaries_do(release, tool):
    for platform in PLATFORMS:
        for pin_key, found in here(platform, release, tool).items():
            if found.status == "written" and not found.reason:
                row = versioned_default(catalogue(), pins_of(platform)[pin_key])
                assert (row["default"], type(row["default"])) == (
                    found.default,
                    type(found.default),
                )


# -- the schema -----------------------------------------------------------------------------------


def defaults_in(schema: dict) -> dict:
    """(command, case, member) → the default that stands in the schema."""
    found = {}
    for name, body in schema["definitions"].items():
        command, _, case = name.partition(".")
        parts = [body, *(entry["then"] for entry in body.get("allOf", ()) if "then" in entry)]
        props = body.get("properties", {}).get(
            "data" if command == "chardev-add-backend" else "props"
        )
        if command.startswith(("chardev-add-", "object-add-")) and props:
            parts.append(props)
            command = command.rpartition("-")[0]
        for part in parts:
            for member, said in part.get("properties", {}).items():
                if "default" in said:
                    found[command, case, member] = said["default"]
    return found


@pytest.mark.parametrize(("release", "tool"), BINARIES)
@pytest.mark.parametrize("platform", ["debian-11", "debian-12", "qemu-11.1"])
def test_the_schema_holds_each_written_default(platform, release, tool):
    validator(platform, release, tool)
    commands = schema_of(platform, release, tool)["properties"]["execute"]["enum"]
    expected = {}
    for h in here(platform, release, tool).values():
        spot = SPOTS[h.pin.family]
        if h.status == "written" and spot.command in commands and h.default != "${smp}":
            case = h.pin.type if spot.discriminator else ""
            expected[spot.command, case, h.member] = h.default
    assert defaults_in(schema_of(platform, release, tool)) == expected
    assert ("object-add", "iothread", "poll-grow") in expected or release == "5.2"


def test_a_default_that_depends_on_the_machine_is_told_in_words():
    body = schema_of("debian-12", "10.0")["definitions"]["object-add.memory-backend-ram"]
    told = body["properties"]["prealloc-threads"]
    assert told["description"] == "by default the number of the machine's CPUs"
    assert "default" not in told


def test_a_default_with_a_condition_stands_below_it():
    body = schema_of("debian-12", "10.0")["definitions"]["netdev_add.tap"]
    found = {tuple(e["then"]["properties"]): e["if"] for e in body["allOf"]}
    condition = jsonschema.Draft7Validator(found["vnet_hdr",])
    assert condition.is_valid({"type": "tap", "id": "n"})
    assert not condition.is_valid({"type": "tap", "id": "n", "fd": "3"})


def test_a_sites_own_rows_are_in_it():
    tree = from_python(
        {
            "name": "ours",
            "extends": "debian-12",
            "migration-capability": {"migration": {"multifd": {"value": "on"}}},
            "migration-property": {"migration": {"send-configuration": {"value": "on"}}},
            "chardev": {
                "socket": {
                    "reconnect-ms": {"value": "2000", "when": {"server": ["off"]}},
                    "nodelay": {"value": "on"},
                },
                "null": {"nodelay": {"value": "on"}},  # an option of -chardev, for others
            },
            "accel": {"tcg": {"tb-size": {"value": "64"}}},
            "blockdev": {"file": {"locking": {"value": "on"}}},
            "export": {"nbd": {"writable": {"value": "off"}}},
        },
        Place("ours"),
    )
    pins = resolve(catalogue(), platform_from_file(catalogue(), tree))
    known = capabilities_of("7.2")
    found = defaults_on(pins.values(), catalogue(), known)
    told = {(h.pin.type, h.member): h.default for h in found if h.pin.axis == "site"}
    assert told["socket", "reconnect"] == 2
    assert told["tcg", "tb-size"] == 64
    assert told["migration", "send-configuration"] is True
    schema = schema_with_defaults(found, known, "ours")
    definitions = schema["definitions"]
    entry = definitions["migrate-set-capabilities"]["properties"]["capabilities"]["items"]
    assert entry["allOf"][0]["then"]["properties"]["state"] == {"default": True}
    data = definitions["chardev-add-backend.socket"]["properties"]["data"]
    assert data["properties"]["nodelay"]["default"] is True
    null = definitions["chardev-add-backend.null"]["properties"]["data"]
    assert "nodelay" not in null["properties"]
    condition = jsonschema.Draft7Validator(data["allOf"][0]["if"])
    assert condition.is_valid({"server": False})
    assert not condition.is_valid({"server": True})
    assert data["allOf"][0]["then"]["properties"]["reconnect"]["default"] == 2
    assert definitions["blockdev-add.file"]["properties"]["locking"]["default"] == "on"
    assert definitions["block-export-add.nbd"]["properties"]["writable"]["default"] is False


@pytest.mark.parametrize(
    ("row", "release", "status"),
    [
        ({"chardev": {"socket": {"reconnect-ms": {"value": "1500"}}}}, "7.2", "impossible"),
        ({"object": {"iothread": {"poll-wait": {"value": "1"}}}}, "7.2", "impossible"),
        ({"object": {"iothraed": {"poll-grow": {"value": "1"}}}}, "7.2", "absent"),
        ({"tpmdev": {"emulator": {"chardev": {"value": "c"}}}}, "7.2", "written"),
        ({"migration-capability": {"migration": {"multifd": {"value": "on"}}}}, "5.2", "written"),
    ],
)
def test_what_a_binary_cannot_have_is_told(row, release, status):
    tree = from_python({"name": "ours", **row}, Place("ours"))
    pins = resolve(catalogue(), platform_from_file(catalogue(), tree))
    (found,) = defaults_on(pins.values(), catalogue(), capabilities_of(release))
    assert found.status == status
    assert bool(found.reason) is (status != "written")


def test_a_build_without_a_member_does_not_pin_it():
    """The release has it, this build's own description has not: as a plan treats it."""
    tree = from_python(
        {
            "name": "ours",
            "extends": "debian-12",
            "object": {"iothread": {"poll-max-ns": {"value": "32768"}}},
        },
        Place("ours"),
    )
    pins = resolve(catalogue(), platform_from_file(catalogue(), tree))
    known = capabilities_of("7.2")
    replies = {
        **known.replies,
        "query-qmp-schema": [dict(e) for e in known.schema.entities.values()],
    }
    for entity in replies["query-qmp-schema"]:
        if any(m["name"] == "poll-max-ns" for m in entity.get("members", ()) if "name" in m):
            entity["members"] = [m for m in entity["members"] if m["name"] != "poll-max-ns"]
    from launcher.capabilities import Capabilities

    found = defaults_on(
        [pins["object", "iothread", "poll-max-ns"]], catalogue(), Capabilities(replies)
    )
    assert found[0].status == "omitted"
    assert "this build of QEMU 7.2.22 has no poll-max-ns" in found[0].reason


# -- real values fit, wrong ones do not -----------------------------------------------------------

SAMPLES = sorted(
    name
    for name in os.listdir(os.path.join(ROOT, "profiles"))
    if name.endswith(".yaml") and name != "confidential-sev.yaml"
)
ADDING = {"-object": "object-add", "-netdev": "netdev_add", "-blockdev": "blockdev-add"}


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("name", SAMPLES)
def test_what_is_planned_fits(name, release):
    profile = profile_from(
        os.path.join(ROOT, "profiles", name),
        ("disk=/tmp/disk.qcow2",) if "disk" in name or "legacy" in name else (),
    )
    plan = plan_of(profile, release)
    of = ("debian-12", release, plan.tool)
    schema = validator(*of).schema
    asked = 0
    for option in plan.options:
        command = ADDING.get("-" + option.name.lstrip("-"))
        if command not in schema["definitions"]:
            continue
        members = fill(option.members, {}, "/run")
        if option.form == "keyval":
            tag = "qom-type" if command == "object-add" else "type"
            identity = members.pop("id")
            members = {
                tag: option.head,
                "id": identity,
                **({"props": members} if command == "object-add" else members),
            }
        errors = validator(*of).iter_errors({"execute": command, "arguments": members})
        assert [e.message for e in errors] == []
        asked += 1
    for step in plan.setup:
        if step.command in schema["definitions"]:
            arguments = fill(step.arguments, {}, "/run")
            assert fits(step.command, arguments, *of), step
            asked += 1
    assert asked


IOTHREAD = {"qom-type": "iothread", "id": "io0"}


@pytest.mark.parametrize(
    ("command", "arguments", "right"),
    [
        ("object-add", {**IOTHREAD, "poll-grow": 2}, True),
        ("object-add", {**IOTHREAD, "poll-grow": "2"}, False),
        ("object-add", {**IOTHREAD, "poll-gorw": 2}, False),
        ("object-add", {"qom-type": "iothred", "id": "io0"}, False),
        ("object-add", {"qom-type": "iothread"}, False),
        ("netdev_add", {"type": "tap", "id": "n", "vhost": False}, True),
        ("netdev_add", {"type": "tap", "id": "n", "vhost": "off"}, False),
        ("chardev-add", {"id": "c", "backend": {"type": "null", "data": {}}}, True),
        ("chardev-add", {"id": "c", "backend": {"type": "null"}}, False),
        ("chardev-add", {"id": "c", "backend": {"type": "nul", "data": {}}}, False),
        ("blockdev-add", {"driver": "null-co", "node-name": "d", "size": 512}, True),
        ("blockdev-add", {"driver": "raw", "file": {"driver": "null-co", "size": "1K"}}, False),
        ("migrate-set-parameters", {"zero-page-detection": "legacy"}, True),
        ("migrate-set-parameters", {"zero-page-detection": "lagacy"}, False),
        (
            "migrate-set-capabilities",
            {"capabilities": [{"capability": "xbzrle", "state": True}]},
            True,
        ),
        (
            "migrate-set-capabilities",
            {"capabilities": [{"capability": "xbzrle", "state": "on"}]},
            False,
        ),
        ("device_add", {"driver": "e1000"}, False),
    ],
)
def test_right_and_wrong_commands(command, arguments, right):
    assert fits(command, arguments, "debian-12", "10.0") is right


@pytest.mark.parametrize(
    ("props", "right"),
    [
        ({"poll-max-ns": 0}, True),
        ({"poll-max-ns": "0"}, False),
        ({"poll-weight": 3}, False),
    ],
)
def test_objects_before_qapi_described_them(props, right):
    arguments = {**IOTHREAD, "props": props}
    assert fits("object-add", arguments, "debian-12", "5.2") is right
    backend = {"qom-type": "memory-backend-memfd", "id": "m", "props": {"share": props}}
    assert not fits("object-add", backend, "debian-12", "5.2")


def test_the_storage_daemon_has_fewer_commands():
    listed = schema_of("debian-12", "7.2", DAEMON)["properties"]["execute"]["enum"]
    assert "object-add" in listed
    assert "netdev_add" not in listed
    statuses = {h.pin.family: h.status for h in here("debian-12", "7.2", DAEMON).values()}
    assert statuses["netdev"] == statuses["migration-parameter"] == "absent"
