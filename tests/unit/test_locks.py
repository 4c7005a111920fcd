"""Lock files without a QEMU: what is kept, what is compared, what a plan makes of them."""

from __future__ import annotations

import json
import os

import jsonschema
import pytest
import yaml

from launcher.errors import HostError, InputError, InputErrors, Place
from launcher.files import parse_yaml
from launcher.locks.compare import changes, compare_values, differences, flat
from launcher.locks.emit import emit
from launcher.locks.given import Home, given, texts
from launcher.locks.model import (
    Lock,
    lock_text,
    machine_section,
    omission_row,
    plan_rows,
    python_value,
    read_lock,
    sealed,
    shown_settings,
    value_rows,
)
from launcher.locks.replay import judge_lock, keep_lock
from launcher.locks.shape import lock_schema
from launcher.nodes import Mapping, from_python
from launcher.plan import HostFacts, Origin, make_plan
from launcher.plan.locked import as_pinned, with_lock
from launcher.platforms import locked_pin, own_value, parse_version
from launcher.prepare import choose_platform
from launcher.record import replace
from launcher.report import Observation, judge
from launcher.verify.hmp import parse_ram_blocks
from tests.support.goldens import FOLDER
from tests.support.records import (
    BINARY,
    KVM_TRAP,
    ROOT,
    UUID,
    capabilities_of,
    catalogue,
    host,
    plan_of,
    profile_from,
)

pytestmark = pytest.mark.hermetic

HOME = Home("/profiles", "/home/me/.cache/qemu-launcher")

PROFILE = """\
name: web
platform: debian-12
machine: pc-q35-5.2
accel: tcg
cpu: max
memory: 64MiB
objects:
  io0: {qom-type: iothread}
"""


def profile_of(text: str, settings: tuple[str, ...] = (), platform: str = ""):
    return profile_from(parse_yaml(text, "web.yaml"), settings, platform)


def observed(plan):
    """Everything that can be read back is what was written."""
    return {(v.family, v.id, v.property): Observation("read", v.written) for v in plan.values}


def document_of(text: str, release: str, observations=None, **parts):
    """The document that locking would write on a recorded release."""
    profile = profile_of(text)
    plan = plan_of(profile, release)
    report = judge(plan, observations or observed(plan), ())
    platform = {"name": plan.platform, "digest": "sha256:0"}
    qemu = {"tool": plan.tool, "binary": "qemu", "version": plan.version, "build": plan.build}
    return {
        "profile": {"name": profile.name, "file": "web.yaml", "digest": "sha256:0"},
        "platform": platform,
        "qemu": {**qemu, "answers": "sha256:0"},
        **({"machine": machine_section(plan, plan.machine, "max")} if plan.machine else {}),
        "values": value_rows(report, HOME, "/run/web"),
        "omitted": [omission_row(one, "behaves" in one.reason) for one in plan.omitted],
        "given": texts(given(profile, HOME)),
        **parts,
    }


def lock_of(text: str, release: str, **more) -> Lock:
    return written(document_of(text, release, **more))


def written(document) -> Lock:
    """The lock of a document, through its text."""
    return read_lock(parse_yaml(lock_text(sealed(document)), "locks/web.lock.yaml"))


def plan_under(lock: Lock, text: str, release: str, platform: str = "", **facts):
    profile = with_lock(profile_of(text, (), platform), lock.locked())
    floor = choose_platform(catalogue(), profile.platform)
    able = capabilities_of(release, profile.tool)

    def made():
        return make_plan(
            *(profile, floor, catalogue(), able, host(profile, floor, **facts)),
            binary=BINARY,
            uuid=UUID,
            locked=lock.locked(),
        )

    return keep_lock(lock, profile, able.version, catalogue(), made)


def value(plan, key: str, name: str):
    return next(v for v in plan.values if (v.id, v.property) == (key, name))


# -- the file -------------------------------------------------------------------------------------


def test_a_lock_is_what_was_written():
    document = sealed(document_of(PROFILE, "10.0", host={"kvm": False, "tun-uso": None}))
    assert written(document_of(PROFILE, "10.0", host={"kvm": False, "tun-uso": None})).document == (
        document
    )


def test_each_value_stands_on_a_line_of_its_own():
    text = lock_text(sealed(document_of(PROFILE, "7.2")))
    rows = [line for line in text.splitlines() if line.startswith("  - {family: ")]
    document = yaml.safe_load(text)
    assert len(rows) == len(document["values"]) + len(document["omitted"])
    poll = next(row for row in rows if "poll-grow" in row)
    assert poll == (
        "  - {family: object, type: iothread, id: io0, property: poll-grow, value: 0, "
        "origin: platform debian-12, observed: 0}"
    )


@pytest.mark.parametrize("release", ["5.2", "7.2", "10.0", "11.1"])
def test_the_schema_knows_what_is_written(release):
    schema = lock_schema()
    jsonschema.Draft7Validator.check_schema(schema)
    document = sealed(document_of(PROFILE, release, request={"settings": {"smp": "2"}}))
    jsonschema.validate(document, schema)
    for wrong in ({"format": "1"}, {"values": {}}, {"more": 1}, {"qemu": {}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**document, **wrong}, schema)


def test_the_shipped_schema_is_the_shape():
    with open(os.path.join(ROOT, "profiles", "lock.schema.json"), encoding="utf-8") as file:
        assert json.load(file) == lock_schema(), (
            "run `qemu-launcher schema --lock > profiles/lock.schema.json`"
        )


def test_the_golden_lock_is_valid():
    with open(os.path.join(FOLDER, "locks", "web.lock.yaml"), encoding="utf-8") as file:
        text = file.read()
    document = yaml.safe_load(text)
    jsonschema.validate(document, lock_schema())
    assert python_value(parse_yaml(text, "web.lock.yaml")) == document
    assert emit(document, ("values", "omitted")) in text
    assert "not-to-be-told" not in text


def test_places_are_those_of_the_file():
    lock = lock_of(PROFILE, "7.2")
    lines = lock_text(lock.document).splitlines()
    place = lock.place("qemu", "version")
    assert place.file == "locks/web.lock.yaml"
    assert lines[place.line - 1][place.column - 1 :].startswith("version:")
    assert lock.place("qemu", "none") == lock.place("qemu")
    assert lock.place("format", "none") == lock.place("format")
    assert lock.place("none") == Place("locks/web.lock.yaml", 3, 1)


# -- what is kept of the profile ------------------------------------------------------------------


def test_paths_are_seen_from_the_lock_file():
    assert HOME.path("disk.raw", "/profiles/web.yaml") == os.path.relpath("disk.raw", "/profiles")
    assert HOME.path("/profiles/disk.raw", "/profiles/web.yaml") == "disk.raw"
    assert HOME.path("/images/disk.raw", "/profiles/web.yaml") == "/images/disk.raw"
    assert HOME.path("/profiles/../images/d.raw", "/profiles/web.yaml") == "../images/d.raw"
    assert HOME.path("${runtime}/con0", "/profiles/web.yaml") == "${runtime}/con0"
    assert HOME.path("", "/profiles/web.yaml") == ""
    cached = "/home/me/.cache/qemu-launcher/guest/vmlinuz"
    assert HOME.path(cached, "/profiles/web.yaml") == "${cache}/guest/vmlinuz"
    assert Home("/profiles", "").path(cached, "/profiles/web.yaml") == cached
    assert HOME.named("debian-12", "--platform") == "debian-12"
    assert HOME.named("/profiles/site.yaml", "/profiles/web.yaml") == "site.yaml"


def test_a_profile_is_kept_expanded_and_without_secrets():
    text = """\
name: web
uuid: 0FB1C2D3-0000-4000-8000-000000000001
platform: ./site.yaml
machine: q35
accel: [{accel: tcg, thread: multi}]
vars: {password: hunter2}
disk: {file: disk.raw, format: raw}
objects:
  key0: {qom-type: secret, data: "${password}"}
  key1: {qom-type: secret, file: key.txt}
  ram0: {size: 1MiB, qom-type: memory-backend-ram, host-nodes: [0]}
blockdevs:
  net: {driver: https, url: "https://example.org/x", cookie: "session=hunter2"}
boot: {kernel: vmlinuz, append: quiet}
migration: {capabilities: {multifd: on}}
extra-args: ["-object", "secret,id=s,data=hunter2", "-L", "/home/me/.cache/qemu-launcher/x"]
serial: console
"""
    tree = parse_yaml(text, "/profiles/web.yaml")
    kept = texts(given(profile_from(tree), HOME))
    assert "hunter2" not in json.dumps(kept)
    assert kept["platform"] == "site.yaml"
    assert kept["uuid"] == "0fb1c2d3-0000-4000-8000-000000000001"
    assert kept["accel"] == [{"accel": "tcg", "thread": "multi"}]
    assert kept["objects"]["key0"] == {"qom-type": "secret", "data": "(hidden)"}
    assert kept["objects"]["key1"] == {"qom-type": "secret", "file": "key.txt"}
    assert list(kept["objects"]["ram0"]) == ["host-nodes", "qom-type", "size"]
    assert kept["blockdevs"]["net"]["cookie"] == "(hidden)"
    assert kept["boot"] == {"append": "quiet", "kernel": "vmlinuz"}
    assert kept["extra-args"] == ["-object", "(hidden)", "-L", "${cache}/x"]
    assert kept["migration"] == {"capabilities": {"multifd": "on"}}
    assert "numa" not in kept
    assert "disk.raw" in json.dumps(kept["blockdevs"])
    assert "/profiles" not in json.dumps(kept)


def test_settings_that_tell_a_secret_are_hidden():
    shown = shown_settings(
        ("smp=2", "password=hunter2", "a='hunter2'", "url=https://hunter2@x", "n=1", "m=21"),
        ["hunter2", "1"],
    )
    assert shown == {
        "smp": "2",
        "password": "(hidden)",
        "a": "(hidden)",
        "url": "(hidden)",
        "n": "(hidden)",
        "m": "21",
    }


def test_values_have_no_folder_of_this_host():
    text = """\
platform: debian-12
machine: pc-q35-7.2
objects:
  dump: {qom-type: memory-backend-file, mem-path: dump.bin, size: 1MiB, host-nodes: [0]}
chardevs:
  con0: {backend: socket, path: "${runtime}/con0", server: on, wait: off}
"""
    tree = parse_yaml(text, "/profiles/web.yaml")
    plan = plan_of(profile_from(tree), "10.0")
    seen = observed(plan)
    seen["object", "dump", "mem-path"] = Observation("read", "/profiles/dump.bin")
    report = judge(plan, seen, ())
    rows = {(r["id"], r["property"]): r for r in value_rows(report, HOME, "/run/web")}
    assert rows["dump", "mem-path"]["value"] == "dump.bin"
    assert rows["dump", "mem-path"]["observed"] == "dump.bin"
    assert rows["dump", "host-nodes"]["value"] == [0]
    assert rows["con0", "path"]["value"] == "${runtime}/con0"
    assert "observed" not in rows["con0", "path"]
    assert rows["con0", "path"]["unobservable"]
    odd = replace(
        plan,
        values=(replace(plan.values[0], value={"a": ["/run/web/x"]}, origin=Origin("launcher")),),
    )
    row = value_rows(judge(odd, {}, ()), HOME, "/run/web")[0]
    assert row["value"] == {"a": ["/run/web/x"]}
    assert plan_rows(plan, HOME)[0].keys() == {
        *("family", "type", "id", "property", "value", "origin"),
    }
    nameless = replace(
        value(plan, "dump", "mem-path"), origin=Origin("launcher"), written="/run/web/x"
    )
    seen["object", "dump", "mem-path"] = Observation("read", "/run/web/x")
    row = value_rows(judge(replace(plan, values=(nameless,)), seen, ()), HOME, "/run/web")[0]
    assert row["observed"] == "${runtime}/x"


# -- comparing ------------------------------------------------------------------------------------


def _changes(one: object, two: object) -> list[tuple[str, object, object]]:
    place = Place("x")
    return [
        (c.path, c.locked, c.now) for c in changes(from_python(one, place), from_python(two, place))
    ]


def test_changes_are_told_by_path_and_whole_entries_once():
    assert _changes({"a": {"b": "1"}}, {"a": {"b": "1"}}) == []
    assert _changes({"a": {"b": "1"}}, {"a": {"b": "2"}}) == [("a.b", "1", "2")]
    assert _changes({}, {"a": {"b": ["1", {"c": "2"}]}}) == [("a", None, "{b: [1, {c: 2}]}")]
    assert _changes({"a": "1"}, {}) == [("a", "1", None)]
    assert _changes({"a": "1"}, {"a": {"b": "1"}}) == [("a", "1", "{b: 1}")]
    assert _changes({"a": ["1", "2"]}, {"a": ["1"]}) == [("a.1", "2", None)]
    assert _changes({"a": ["1"]}, {"a": ["3", "2"]}) == [("a.0", "1", "3"), ("a.1", None, "2")]


def test_the_order_of_entries_counts():
    one, two = {"devices": {"a": "1", "b": "2"}}, {"devices": {"b": "2", "a": "1"}}
    assert _changes(one, two) == [("devices (order)", "a, b", "b, a")]
    # Inside of an entry and at the top it means nothing.
    assert _changes({"d": {"a": one["devices"]}}, {"d": {"a": two["devices"]}}) == []
    assert _changes({"a": "1", "b": "2"}, {"b": "2", "a": "1"}) == []


def test_leaves_by_path():
    assert dict(flat({"a": {"b": 1, "c": {}}, "d": [1]})) == {"a.b": 1, "a.c": {}, "d": [1]}
    assert dict(flat({})) == {}


def test_two_locks_are_compared_value_by_value():
    migration = {"cpu": "max-x86_64-cpu", "ram-blocks": {"ram": {"used": 1, "total": 2}}}
    one = lock_of(PROFILE, "7.2", migration=migration)
    assert differences(one, one) == []
    two = lock_of(PROFILE.replace("64MiB", "128MiB"), "10.0", host={"kvm": True})
    found = {(m.what, m.name): (m.locked, m.now) for m in differences(one, two)}
    assert found["qemu", "version"] == ("7.2.22", "10.0.2")
    assert found["host", "kvm"] == (None, True)
    assert found["given", "memory.size"] == ("64MiB", "128MiB")
    assert found["value", "object memory-backend-memfd ram size"] == (64 << 20, 128 << 20)
    assert found["observed", "object memory-backend-memfd ram size"] == (64 << 20, 128 << 20)
    name = "migration-parameter migration zero-page-detection"
    assert found["value", name] == (None, "legacy")
    assert found["omitted", name] == ("legacy", None)
    assert found["migration", "ram-blocks.ram.used"] == (1, None)
    first = differences(one, two)[0]
    assert first.as_json() == {
        "what": "qemu",
        "name": "version",
        "locked": "7.2.22",
        "now": "10.0.2",
    }


def test_rows_are_compared_in_the_fields_that_are_asked_for():
    row = {"family": "object", "type": "iothread", "id": "io0", "property": "poll-grow"}
    one, two = {**row, "value": 0, "origin": "profile"}, {**row, "value": 0, "origin": "lock"}
    assert list(compare_values([one], [two], ("value",))) == []
    (moved,) = compare_values([one], [two], ("value", "origin"))
    assert (moved.what, moved.name) == ("origin", "object iothread io0 poll-grow")
    (gone,) = compare_values([one], [], ("value", "origin"))
    assert (gone.locked, gone.now) == (0, None)


# -- under a lock ---------------------------------------------------------------------------------


def test_locked_values_win_over_the_platform():
    rows = document_of(PROFILE, "7.2")
    for row in rows["values"]:
        if row["property"] == "poll-max-ns":
            row["value"] = row["observed"] = 4096
    lock = written(rows)
    plan = plan_under(lock, PROFILE, "10.0")
    polled = value(plan, "io0", "poll-max-ns")
    assert polled.written == 4096
    assert str(polled.origin) == f"lock web.lock.yaml:{polled.origin.place.line}"
    assert {v.origin.kind for v in plan.values} == {"lock"}
    assert {o.origin.kind for o in plan.omitted} == {"lock"}


def test_a_locked_value_is_spelled_for_the_binary():
    lock = lock_of(PROFILE.replace("iothread", "iothread, poll-shrink: 4"), "7.2")
    grown = value(
        plan_under(lock, PROFILE.replace("iothread", "iothread, poll-shrink: 4"), "11.1"),
        "io0",
        "poll-grow",
    )
    assert (grown.value, grown.written) == (0, 2)
    assert grown.note


def test_what_cannot_be_kept_is_refused_with_what_is_possible():
    lock = lock_of(PROFILE, "7.2")
    with pytest.raises(HostError) as caught:
        plan_under(lock, PROFILE, "11.1")
    error = caught.value
    assert (error.code, error.exit_status) == ("lock", 4)
    (told,) = error.evidence["values"]
    assert told["property"] == "object iothread io0 poll-shrink"
    assert (told["planned"], told["possible"]) == (0, "2")
    assert error.place.line == told["line"]
    assert "poll-shrink: locked 0, possible 2" in error.message


def test_a_lock_of_a_newer_binary_holds_its_word_on_an_older_one():
    """What 10.0 wrote and 7.2 does by itself is kept; nothing is lost."""
    lock = lock_of(PROFILE, "10.0")
    plan = plan_under(lock, PROFILE, "7.2")
    left = {o.property for o in plan.omitted if o.origin.kind == "lock"}
    assert "send-switchover-start" in left
    keys = {(v.family, v.id, v.property) for v in (*plan.values, *plan.omitted)}
    assert set(lock.values()) <= keys


def test_mistakes_are_told_by_what_was_locked():
    text = PROFILE.replace("iothread}", "iothread, thread-pool-max: 4}") + (
        "devices: {rng0: {driver: virtio-rng-pci}}\nrtc: {base: utc}\n"
        "migration: {parameters: {direct-io: on}, capabilities: {mapped-ram: on}}\n"
    )
    lock = lock_of(text, "10.0")
    with pytest.raises(HostError) as caught:
        plan_under(lock, text, "5.2")
    told = {one["property"]: one for one in caught.value.evidence["values"]}
    assert set(told) == {
        "object iothread io0 thread-pool-max",
        "migration-parameter migration direct-io",
        "migration-capability migration mapped-ram",
    }
    assert told["object iothread io0 thread-pool-max"]["planned"] == 4
    assert all(one["reason"] and one["possible"] is None for one in told.values())
    assert caught.value.place.file == "locks/web.lock.yaml"


def test_a_mistake_outside_of_the_values_is_told_as_well():
    text = PROFILE.replace("cpu: max\n", "") + "numa: [{type: node, nodeid: 0, initiator: 0}]\n"
    lock = lock_of(text, "10.0")
    profile = profile_of(text)

    def refused():
        raise InputErrors([InputError("smp-opts has no 'x'", place=Place("web.yaml", 3, 1))])

    with pytest.raises(HostError, match="profile: locked web, possible nothing"):
        keep_lock(lock, profile, "5.2.0", catalogue(), refused)


def test_more_than_three_reasons_are_counted():
    lock = lock_of(PROFILE, "7.2")

    def nothing():
        return replace(plan_of(profile_of(PROFILE), "7.2"), values=(), omitted=())

    with pytest.raises(HostError, match=r"and [0-9]+ more") as caught:
        keep_lock(lock, profile_of(PROFILE), "7.2.22", catalogue(), nothing)
    assert "was not asked for it" in caught.value.message
    assert len(caught.value.evidence["reasons"]) == len(lock.values())


def test_another_value_is_told_beside_the_locked_one():
    lock = lock_of(PROFILE, "7.2")

    def other():
        plan = plan_of(profile_of(PROFILE), "7.2")
        values = tuple(
            replace(v, value=9, note="for a test") if v.property == "poll-grow" else v
            for v in plan.values
        )
        return replace(
            plan,
            values=values,
            omitted=tuple(
                replace(o, origin=Origin("lock", "web.lock.yaml", Place("x", 1, 1)))
                for o in plan.omitted
            ),
        )

    with pytest.raises(HostError, match=r"poll-grow: locked 0, possible 9 .for a test.") as caught:
        keep_lock(lock, profile_of(PROFILE), "7.2.22", catalogue(), other)
    assert len(caught.value.evidence["values"]) == 1


def test_what_a_platform_only_wished_for_is_not_locked():
    """11.1 cannot have poll-shrink 0: it was omitted there, and the machine ran without."""
    lock = lock_of(PROFILE, "11.1")
    assert ("object", "io0", "poll-shrink") not in lock.values()
    plan = plan_under(lock, PROFILE, "10.0")
    assert value(plan, "io0", "poll-shrink").origin.kind == "platform"


def test_the_machine_type_and_the_accelerator_are_those_of_the_lock():
    text = PROFILE.replace("pc-q35-5.2", "q35").replace(
        "accel: tcg", "accel: [kvm, {accel: tcg, thread: multi}]"
    )
    profile = profile_of(text)
    facts = host(profile, choose_platform(catalogue(), profile.platform), kvm=KVM_TRAP)
    plan = plan_of(profile, "7.2", facts=facts)
    document = document_of(text, "7.2")
    lock = written({**document, "machine": machine_section(plan, "q35", "")})
    again = plan_under(lock, text, "10.0")
    assert (again.machine, again.accel) == ("pc-q35-7.2", "tcg")
    with pytest.raises(HostError, match=r"machine type: locked pc-q35-7.2, possible pc-q35-2.4 to"):
        plan_under(lock, text, "5.2")
    # An accelerator that the profile does not name, and one without a name.
    odd = replace(profile, accels=(Mapping({}, Place("x"), {}),))
    assert with_lock(odd, lock.locked()).accels[0].items["accel"].text == "tcg"


def test_kvm_that_was_locked_must_work():
    text = PROFILE.replace("accel: tcg", "accel: [kvm, tcg]")
    lock = lock_of(text, "7.2")
    assert plan_under(lock, text, "10.0").accel == "kvm"
    with pytest.raises(HostError, match="accel: locked kvm, possible nothing"):
        plan_under(lock, text, "10.0", kvm=KVM_TRAP)


def test_a_storage_daemon_has_no_machine():
    text = (
        "tool: qemu-storage-daemon\nname: web\nplatform: debian-12\n"
        "objects: {io0: {qom-type: iothread}}\n"
    )
    lock = lock_of(text, "10.0")
    assert lock.locked().machine == ""
    assert plan_under(lock, text, "7.2").machine == ""


def test_what_the_machine_type_set_stays_expected():
    """5.2 does not list compat properties: what 10.0 said of its machine type is looked at."""
    text = PROFILE.replace("platform: debian-12", "platform: native")
    lock = lock_of(text, "10.0")
    typed = [v for v in lock.values().values() if v.origin.startswith("machine type")]
    assert typed
    plan = plan_under(lock, text, "5.2")
    known = {(v.family, v.id, v.property): v for v in (*plan.values, *plan.omitted)}
    for one in typed:
        assert known[one.key].origin.kind == "lock"
    assert not any(o.name == "-global" for o in plan.options)


def test_what_the_machine_type_set_is_looked_at_where_it_can_be_read():
    """A binary that does not list it and knows the word: it is an expectation, and not written."""
    document = document_of(PROFILE, "7.2")
    row = next(r for r in document["values"] if r["property"] == "poll-grow")
    row |= {"property": "aio-max-batch", "value": 3, "origin": "machine type pc-q35-5.2"}
    row["observed"] = 3
    plan = plan_under(written(document), PROFILE, "10.0")
    assert value(plan, "io0", "aio-max-batch").written == 3
    assert not any("aio-max-batch" in o.members for o in plan.options)
    # One that the machine type lists itself is told once.
    text = PROFILE.replace("platform: debian-12", "platform: native").replace(
        "objects:\n  io0: {qom-type: iothread}\n", ""
    )
    plan = plan_under(lock_of(text, "10.0"), text, "11.1")
    keys = [(v.family, v.id, v.property) for v in plan.values]
    assert len(keys) == len(set(keys))


def test_a_renamed_property_is_kept_by_both_names():
    text = PROFILE + (
        "chardevs: {con0: {backend: socket, host: localhost, port: '1', reconnect-ms: 2000}}\n"
    )
    document = document_of(text, "7.2")
    (row,) = (r for r in document["values"] if r["property"] == "reconnect-ms")
    assert (row["value"], row["written"], row["spelled"]) == (2000, 2, "reconnect")
    assert value(plan_under(written(document), text, "10.0"), "con0", "reconnect-ms")


def test_a_feature_that_the_host_lacks_is_refused():
    lock = lock_of(PROFILE, "10.0")
    assert lock.values()["object", "ram", "seal"].value is True
    lacks = (False, "the kernel seals no memory")
    with pytest.raises(HostError) as caught:
        plan_under(lock, PROFILE, "10.0", memfd_sealing=lacks)
    (told,) = caught.value.evidence["values"]
    assert told["planned"] is True
    assert "needs memfd-sealing" in told["reason"]


def test_pins_of_values_that_the_data_does_not_know():
    place = Place("web.lock.yaml", 9, 5)
    pin = locked_pin(catalogue(), ("object", "iothread", "no-such"), "5", place)
    assert (pin.value, pin.axis, pin.oldest_was, pin.row.place) == ("5", "lock", None, place)
    assert own_value(catalogue(), ("object", "iothread", "no-such"), parse_version("10.0")) is None
    key = ("object", "iothread", "poll-shrink")
    assert own_value(catalogue(), key, parse_version("11.1")) == "2"
    assert own_value(catalogue(), key, parse_version("7.2")) == "0"
    weight = ("object", "iothread", "poll-weight")
    assert own_value(catalogue(), weight, parse_version("7.2")) is None
    assert [as_pinned(v) for v in (True, False, 3, "legacy")] == ["on", "off", "3", "legacy"]


def test_a_host_that_lacks_nothing_is_not_asked():
    assert host() == HostFacts("6.12.48+deb13-amd64", "x86_64", (True, ""), {})


# -- what QEMU says -------------------------------------------------------------------------------


def _judged(lock: Lock, text: str, release: str, **seen):
    plan = plan_under(lock, text, release)
    observations = observed(plan)
    for name, item in seen.items():
        key = next(k for k in observations if k[2] == name.replace("_", "-"))
        observations[key] = Observation("read", item)
    report = judge_lock(lock, judge(plan, observations, ()))
    return {j.value.property: j for j in report.judged}, report


def test_the_same_answer_is_a_match():
    lock = lock_of(PROFILE, "7.2")
    _, report = _judged(lock, PROFILE, "10.0")
    assert report.verdict == "match"


def test_another_answer_than_then_is_a_mismatch():
    document = document_of(PROFILE, "7.2")
    for row in document["values"]:
        if row["property"] == "poll-grow":
            row["observed"] = 7
    judged, report = _judged(written(document), PROFILE, "10.0")
    assert report.verdict == "mismatch"
    assert judged["poll-grow"].verdict == "mismatch"
    assert judged["poll-grow"].reason == "QEMU 7.2.22 had 7 when it was locked"


def test_the_same_link_is_spelled_in_two_ways():
    lock = lock_of(PROFILE, "7.2")
    judged, report = _judged(lock, PROFILE, "10.0", memory_backend="/objects/ram")
    assert report.verdict == "match"
    assert judged["memory-backend"].observed == "/objects/ram"


def test_other_words_for_the_same_thing_agree():
    text = PROFILE.replace("iothread}", "iothread, poll-shrink: 4}")
    lock = lock_of(text, "7.2")
    judged, report = _judged(lock, text, "11.1")
    assert report.verdict == "match"
    assert judged["poll-grow"].observed == 2
    assert judged["poll-grow"].reason


def test_what_qemu_keeps_in_another_way_agrees():
    document = document_of(PROFILE, "7.2")
    for row in document["values"]:
        if row["property"] == "poll-grow":
            row |= {"written": 5, "observed": 5}
    judged, report = _judged(written(document), PROFILE, "10.0")
    assert report.verdict == "match"
    assert judged["poll-grow"].reason == "QEMU 7.2.22 keeps the same as 5"


def test_what_was_not_read_then_or_is_not_now_is_no_match_and_no_mismatch():
    document = document_of(PROFILE, "7.2")
    for row in document["values"]:
        if row["property"] == "poll-grow":
            del row["observed"]
            row["unobservable"] = "for a test"
    lock = written(document)
    plan = plan_under(lock, PROFILE, "10.0")
    report = judge_lock(lock, judge(plan, {}, ()))
    assert {j.verdict for j in report.judged} == {"unobservable"}
    _, report = _judged(lock, PROFILE, "10.0")
    assert report.verdict == "match"


def test_a_value_that_the_lock_does_not_know_is_judged_as_ever():
    lock = lock_of(PROFILE, "11.1")
    judged, _ = _judged(lock, PROFILE, "10.0")
    assert judged["poll-shrink"].verdict == "match"


def test_ram_blocks_of_every_release():
    old = """\
              Block Name    PSize              Offset               Used              Total
                     ram    4 KiB  0x0000000000000000 0x0000000004000000 0x0000000004000000
    /rom@etc/acpi/tables    4 KiB  0x00000000040c0000 0x0000000000020000 0x0000000000200000
"""
    new = """\
              Block Name    PSize   Offset         Used          Total                HVA  RO
               big block    2 MiB  0x00000 0x0004000000 0x0004000000 0x00007fd7dffff000  rw
"""
    assert parse_ram_blocks(old) == {
        "ram": {"used": 64 << 20, "total": 64 << 20},
        "/rom@etc/acpi/tables": {"used": 0x20000, "total": 0x200000},
    }
    assert parse_ram_blocks(new) == {"big block": {"used": 64 << 20, "total": 64 << 20}}
    assert parse_ram_blocks("") == {}
