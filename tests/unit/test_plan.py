"""Deciding values: what stands in a plan, where it came from, and why something does not."""

from __future__ import annotations

import pytest

import launcher.plan
from launcher.capabilities import Capabilities
from launcher.errors import HostError, InputErrors
from launcher.files import parse_yaml
from launcher.plan import HostFacts, Plan, make_plan, needed_features, needed_types
from launcher.platforms import FAMILIES, build_catalogue, find_platform, platform_from_file
from launcher.record import replace
from launcher.report import as_text
from tests.support.records import (
    BINARY,
    KVM_TRAP,
    UUID,
    capabilities_of,
    catalogue,
    host,
    plan_of,
    profile_from,
    replies_of,
)

pytestmark = pytest.mark.hermetic

BASE = "platform: native\nmachine: pc-q35-5.2\naccel: tcg\n"


def profile_of(text: str):
    return profile_from(parse_yaml(text, "f.yaml"))


def planned(text: str, release: str = "10.0", **facts) -> Plan:
    return plan_of(profile_of(text), release, **facts)


def values(plan: Plan, family: str) -> dict[str, str]:
    return {v.property: as_text(v.value) for v in plan.values if v.family == family}


def options(plan: Plan, name: str) -> list:
    return [o for o in plan.options if o.name == name]


def refused(text: str, release: str = "10.0", **facts) -> list[str]:
    with pytest.raises(InputErrors) as caught:
        planned(text, release, **facts)
    return [m.message for m in caught.value.mistakes]


def made(text: str, release: str = "10.0", *, replies=None, platform=None, data=None, facts=None):
    """A plan from parts that a test has changed."""
    profile = profile_of(text)
    data = data or catalogue()
    platform = platform or find_platform(data, profile.platform.text)
    capabilities = Capabilities(replies) if replies else capabilities_of(release)
    facts = facts or host(profile, platform)
    named = {"binary": BINARY, "uuid": UUID}
    return make_plan(profile, platform, data, capabilities, facts, **named)


def test_names_of_the_room_are_loaded_on_first_use():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        launcher.plan.nothing  # noqa: B018 (asking is the test)
    for name in launcher.plan.__all__:
        assert getattr(launcher.plan, name) is not None


# -- precedence -----------------------------------------------------------------------------------

IOTHREAD = (
    "platform: debian-12\nmachine: pc-q35-5.2\naccel: tcg\nobjects: {io0: {qom-type: iothread"
)


def test_the_platform_is_spelled_out_and_the_profile_wins():
    plan = planned(f"{IOTHREAD}, poll-max-ns: 7}}}}\n")
    found = {v.property: (v.value, v.origin.kind) for v in plan.values if v.id == "io0"}
    assert found["poll-max-ns"] == (7, "profile")
    assert found["poll-grow"][1] == "platform"


def test_the_command_line_is_an_origin_of_its_own():
    profile = profile_from(parse_yaml(IOTHREAD + "}}\n", "f.yaml"), ("objects.io0.poll-grow=3",))
    plan = plan_of(profile, "10.0")
    origin = next(v.origin for v in plan.values if v.property == "poll-grow")
    assert (origin.kind, str(origin)) == ("command line", "command line")


def test_native_pins_nothing():
    plan = planned(f"{BASE}objects: {{io0: {{qom-type: iothread}}}}\n")
    assert {v.origin.kind for v in plan.values} == {"machine type"}


def test_machine_type_compat_properties_are_expected_where_nothing_is_stronger():
    plan = planned("platform: native\nmachine: pc-q35-7.2\naccel: tcg\n")
    origins = {v.property: str(v.origin) for v in plan.values}
    assert origins["send-switchover-start"] == "machine type pc-q35-7.2"
    plan = planned("platform: debian-12\nmachine: pc-q35-7.2\naccel: tcg\n")
    origins = {v.property: str(v.origin) for v in plan.values}
    assert origins["send-switchover-start"] == "platform debian-12"


def test_machine_type_compat_properties_of_objects():
    sev = "objects: {sev0: {qom-type: sev-guest, cbitpos: 47, reduced-phys-bits: 1}}\n"
    plan = planned(f"platform: native\nmachine: pc-q35-7.2\naccel: tcg\n{sev}")
    found = next(v for v in plan.values if v.property == "legacy-vm-type")
    assert (found.id, as_text(found.value), str(found.origin)) == (
        *("sev0", "on"),
        "machine type pc-q35-7.2",
    )


def test_a_machine_types_migration_parameter_is_a_parameter():
    plan = planned("platform: native\nmachine: pc-q35-7.2\naccel: tcg\n", "11.1")
    assert "zero-page-detection" in values(plan, "migration-parameter")


def test_origin_of_a_file_without_lines():
    from launcher.plan import Origin

    assert str(Origin("profile")) == "profile"
    assert str(Origin("platform", "debian-12")) == "platform debian-12"


# -- what the binary or the host cannot -----------------------------------------------------------


def without(replies: dict, kind: str, name: str) -> dict:
    """`replies` of a build that lacks one property of an object."""
    root = {e["name"]: e for e in replies["query-qmp-schema"]}
    schema = []
    for entity in replies["query-qmp-schema"]:
        if any(m.get("name") == name for m in entity.get("members", ())):
            members = [m for m in entity["members"] if m.get("name") != name]
            entity = {**entity, "members": members}
        schema.append(entity)
    assert root
    listed = dict(replies["qom-list-properties"])
    listed[kind] = [p for p in listed[kind] if p["name"] != name]
    return {**replies, "query-qmp-schema": schema, "qom-list-properties": listed}


def test_a_build_that_lacks_what_its_release_has():
    """The binary has the last word: omitted when it behaves so anyway, else refused."""
    replies = without(replies_of("10.0"), "memory-backend-memfd", "hugetlb")
    text = "platform: debian-12\nmachine: microvm\naccel: tcg\nmemory: 64M\n"
    plan = made(text, replies=replies)
    reason = next(o.reason for o in plan.omitted if o.property == "hugetlb")
    assert "this build of QEMU 10.0.2 has no hugetlb and behaves as 'off'" in reason
    site = platform_from_file(
        catalogue(),
        parse_yaml(
            "name: acme\nextends: debian-12\n"
            'object: {memory-backend-memfd: {hugetlb: {value: "on"}}}\n',
            "site.yaml",
        ),
    )
    with pytest.raises(HostError, match="has no hugetlb; the platform asks"):
        made(text, replies=replies, platform=site)


def test_reasons_are_told_up_to_three():
    text = "platform: debian-13\nmachine: microvm\naccel: tcg\n"
    with pytest.raises(HostError) as caught:
        planned(text, "5.2")
    assert caught.value.code == "runability"
    assert len(caught.value.evidence["reasons"]) > 3
    assert "more" in caught.value.message
    assert "would run here" in caught.value.hint


def test_a_host_that_was_not_asked_is_a_note():
    text = (
        "platform: debian-12\nmachine: pc-q35-5.2\naccel: tcg\n"
        "netdevs: {n: {type: tap, ifname: t0}}\ndevices: {d: {driver: e1000, netdev: n}}\n"
    )
    facts = HostFacts("6.1", "x86_64", (True, ""), {})
    plan = made(text, facts=facts)
    assert "tap vnet_hdr: tun-vnet-hdr was not asked of this host" in plan.notes


def test_an_old_binary_is_refused():
    replies = {**replies_of("5.2")}
    replies["query-version"] = {"qemu": {"major": 4, "minor": 2, "micro": 1}, "package": ""}
    with pytest.raises(HostError, match="is older than"):
        made(BASE, replies=replies)


def test_a_machine_type_newer_than_the_platform_is_a_note():
    plan = planned("platform: debian-12\nmachine: pc-q35-10.0\naccel: tcg\n")
    assert any("cannot migrate there" in note for note in plan.notes)
    plan = planned("platform: debian-12\nmachine: pc-q35-7.2\naccel: tcg\n")
    assert plan.notes == ()


def test_a_distributions_own_numbering_is_no_release():
    replies = {**replies_of("10.0")}
    replies["query-machines"] = [{"name": "pc-q35-9.x"}]
    plan = made("platform: debian-12\nmachine: pc-q35-9.x\naccel: tcg\n", replies=replies)
    assert plan.notes == ()


def test_no_machine_types_at_all():
    replies = {**replies_of("10.0"), "query-machines": []}
    with pytest.raises(InputErrors, match="no machine type"):
        made(BASE, replies=replies)


# -- a row for unversioned machine types ----------------------------------------------------------


def test_a_row_for_unversioned_machine_types_only():
    files = {
        "qemu/7.2.yaml": """
object:
  iothread:
    poll-max-ns: {was: "1", now: "2", affects: performance, machine: unversioned, why: w, ref: r}
""",
        "names.yaml": 'p: {qemu: "7.2", linux: "6.1", ref: r}\n',
        "observers.yaml": "".join(
            f'{family}: {{"*": {{"*": [{{unobservable: r}}]}}}}\n' for family in FAMILIES
        ),
        "syntax.yaml": "",
        "hazards.yaml": "hazards: []\n",
    }
    data = build_catalogue({name: parse_yaml(text, name) for name, text in files.items()})
    objects = "objects: {io0: {qom-type: iothread}}\n"
    for machine, pinned in (("microvm", ["poll-max-ns"]), ("pc-q35-7.2", [])):
        text = f"platform: qemu-7.2\nmachine: {machine}\naccel: tcg\n{objects}"
        plan = made(text, data=data)
        assert [v.property for v in plan.values if v.id == "io0"] == pinned


# -- accelerators ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accel", "kvm", "chosen"),
    [
        ("", (True, ""), "kvm"),
        ("", KVM_TRAP, "tcg"),
        ("accel: [kvm, tcg]\n", KVM_TRAP, "tcg"),
        ("accel: [hvf, tcg]\n", (True, ""), "tcg"),
        ("accel: [tcg, kvm]\n", (True, ""), "tcg"),
        ("accel: kvm\n", (None, "was not asked"), "kvm"),
    ],
)
def test_the_first_that_really_runs(accel, kvm, chosen):
    plan = planned(f"platform: native\nmachine: q35\n{accel}", kvm=kvm)
    assert plan.accel == chosen
    assert options(plan, "-accel")[0].head == chosen


def test_why_an_accelerator_was_passed_over():
    plan = planned("platform: native\nmachine: q35\n", kvm=KVM_TRAP)
    assert plan.accel_reason == f"kvm: {KVM_TRAP[1]}"


def test_a_host_that_was_not_asked_about_its_features_gets_no_verdict():
    assert planned("platform: native\nmachine: q35\n", kvm=(None, "not asked")).accel == "kvm"


@pytest.mark.parametrize(("value", "flags"), [("on", ["-singlestep"]), ("off", [])])
def test_an_option_that_became_a_property(value, flags):
    text = f"platform: native\nmachine: q35\naccel: {{accel: tcg, one-insn-per-tb: {value}}}\n"
    old = planned(text, "7.2")
    assert [o.name for o in old.options if o.name == "-singlestep"] == flags
    assert options(old, "-accel")[0].members == {}
    assert values(old, "accel") == {"one-insn-per-tb": value}
    new = planned(text, "10.0")
    assert options(new, "-accel")[0].members == {"one-insn-per-tb": value == "on"}


def test_a_platform_may_pin_an_accelerator():
    site = platform_from_file(
        catalogue(),
        parse_yaml('name: acme\naccel: {tcg: {tb-size: {value: "64"}}}\n', "site.yaml"),
    )
    plan = made("platform: native\nmachine: q35\naccel: tcg\n", platform=site)
    assert values(plan, "accel") == {"tb-size": "64"}


# -- migration ------------------------------------------------------------------------------------


def test_platform_pins_of_capabilities_and_parameters():
    site = platform_from_file(
        catalogue(),
        parse_yaml(
            "name: acme\n"
            'migration-capability: {migration: {xbzrle: {value: "on"}}}\n'
            'migration-parameter: {migration: {downtime-limit: {value: "200"}}}\n',
            "site.yaml",
        ),
    )
    plan = made("platform: native\nmachine: q35\naccel: tcg\n", platform=site)
    assert [s.command for s in plan.setup] == ["migrate-set-capabilities", "migrate-set-parameters"]
    assert values(plan, "migration-capability") == {"xbzrle": "on"}
    assert values(plan, "migration-parameter")["downtime-limit"] == "200"


def test_a_parameter_that_this_build_lacks():
    replies = {**replies_of("10.0")}
    schema = []
    for entity in replies["query-qmp-schema"]:
        members = [m for m in entity.get("members", ()) if m.get("name") != "downtime-limit"]
        schema.append({**entity, "members": members} if "members" in entity else entity)
    replies["query-qmp-schema"] = schema
    site = platform_from_file(
        catalogue(),
        parse_yaml(
            'name: acme\nmigration-parameter: {migration: {downtime-limit: {value: "200"}}}\n',
            "site.yaml",
        ),
    )
    text = "platform: native\nmachine: microvm\naccel: tcg\n"
    with pytest.raises(HostError, match="has no downtime-limit"):
        made(text, replies=replies, platform=site)


def test_a_platform_may_pin_a_chardev():
    site = platform_from_file(
        catalogue(),
        parse_yaml(
            'name: acme\nchardev: {socket: {telnet: {value: "off"}, wait: {value: "off"}}}\n',
            "s.yaml",
        ),
    )
    text = f"{BASE}chardevs: {{c: {{backend: socket, path: x, wait: on}}}}\n"
    assert entry(made(text, platform=site), "c") == {
        "id": "c",
        "path": "x",
        "wait": True,
        "telnet": False,
    }


def test_a_binary_without_migration_commands():
    replies = {**replies_of("10.0")}
    gone = ("migrate-set-capabilities", "migrate-set-parameters")
    schema = [e for e in replies["query-qmp-schema"] if e["name"] not in gone]
    replies["query-qmp-schema"] = schema
    text = f"{BASE}migration: {{capabilities: {{multifd: on}}}}\n"
    with pytest.raises(InputErrors, match="no migration capability 'multifd'"):
        made(text, replies=replies)


@pytest.mark.parametrize("value", ["[1]", "{a: b}"])
def test_a_migration_property_is_one_value(value):
    text = f"{BASE}migration: {{properties: {{store-global-state: {value}}}}}\n"
    assert len(refused(text)) == 1


# -- options --------------------------------------------------------------------------------------


def test_a_build_without_seccomp():
    replies = {**replies_of("10.0")}
    listed = replies["query-command-line-options"]
    replies["query-command-line-options"] = [o for o in listed if o["option"] != "sandbox"]
    plan = made(BASE, replies=replies)
    assert options(plan, "-sandbox") == []
    assert "without a sandbox" in plan.notes[0]


@pytest.mark.parametrize(
    ("release", "words"),
    [
        ("7.2", ["-async-teardown"]),
        ("10.0", ["-run-with"]),
    ],
)
def test_async_teardown_was_a_flag(release, words):
    plan = planned(f"{BASE}run-with: {{async-teardown: on}}\n", release)
    found = [o for o in plan.options if o.name in ("-async-teardown", "-run-with")]
    assert [o.name for o in found] == words
    off = planned(f"{BASE}run-with: {{async-teardown: off}}\n", "7.2")
    assert options(off, "-async-teardown") == []


@pytest.mark.parametrize(
    ("action", "flags"),
    [
        ("{reboot: shutdown}", ["-no-reboot"]),
        ("{shutdown: pause}", ["-no-shutdown"]),
        ("{reboot: reset, shutdown: poweroff, panic: shutdown}", []),
        ("{}", []),
    ],
)
def test_actions_before_there_were_actions(action, flags):
    plan = planned(f"{BASE}action: {action}\n", "5.2")
    found = [o.name for o in plan.options if o.name.startswith(("-no-re", "-no-sh", "-action"))]
    assert found == flags


@pytest.mark.parametrize(
    ("memory", "members"),
    [
        ("1G", {"size": "1024M"}),
        ("1000001", {"size": "1000001B"}),
        ("{size: 1G, slots: 0x2, maxmem: 3G}", {"size": "1024M", "slots": 2, "maxmem": "3072M"}),
    ],
)
def test_memory(memory, members):
    assert options(planned(f"{BASE}memory: {memory}\n"), "-m")[0].members == members


def test_memory_members_of_the_wrong_type():
    found = refused(f"{BASE}memory: {{size: 1G, slots: [2]}}\n")
    assert len(found) == 1


def test_numa_memory_without_a_suffix_would_be_mib():
    plan = planned(f"{BASE}memory: 1G\nnuma: [{{type: node, nodeid: 0, mem: 512M}}]\n")
    assert options(plan, "-numa")[0].members == {"nodeid": 0, "mem": f"{512 << 20}B"}


def test_a_machine_whose_properties_are_unknown_takes_any():
    plan = planned("platform: native\nmachine: {type: microvm, foo: bar}\naccel: tcg\n", "7.2")
    assert options(plan, "-machine")[0].members == {"foo": "bar"}


def test_powerdown_is_pointless_without_acpi():
    assert planned(f"{BASE}stop: {{powerdown-seconds: 9}}\n").powerdown_seconds == 9
    text = "platform: native\nmachine: {type: microvm, acpi: off}\naccel: tcg\n"
    assert planned(text).powerdown_seconds == 0


@pytest.mark.parametrize(
    ("netdev", "spawn"),
    [
        ("{type: tap, ifname: t}", "allow"),
        ('{type: tap, ifname: t, script: "no", downscript: "no"}', "deny"),
        ('{type: tap, fd: "9"}', "deny"),
        ("{type: user}", "deny"),
    ],
)
def test_the_sandbox_lets_scripts_run_only_where_there_are_some(netdev, spawn):
    text = f"{BASE}netdevs: {{n: {netdev}}}\ndevices: {{d: {{driver: e1000, netdev: n}}}}\n"
    assert options(planned(text), "-sandbox")[0].members["spawn"] == spawn


# -- words ----------------------------------------------------------------------------------------


def entry(plan: Plan, name: str) -> dict:
    return next(o.members for o in plan.options if o.members.get("id") == name)


def test_renamed_words_are_spoken_as_the_binary_knows_them():
    text = f"{BASE}chardevs: {{c: {{backend: socket, host: h, port: 1, reconnect-ms: 3000}}}}\n"
    assert entry(planned(text, "7.2"), "c")["reconnect"] == 3
    assert entry(planned(text, "11.1"), "c")["reconnect-ms"] == 3000
    found = next(v for v in planned(text, "7.2").values if v.property == "reconnect-ms")
    assert (found.spelled, found.written) == ("reconnect", 3)
    assert "called reconnect before QEMU 9.2" in found.note


def test_a_renamed_word_of_the_wrong_type():
    text = f"{BASE}chardevs: {{c: {{backend: socket, host: h, port: 1, reconnect-ms: [1]}}}}\n"
    assert len(refused(text, "7.2")) == 1


def test_an_old_word_of_the_wrong_type():
    text = f"{BASE}chardevs: {{c: {{backend: socket, host: h, port: 1, reconnect: [1]}}}}\n"
    with pytest.raises(InputErrors) as caught:
        planned(text)
    assert caught.value.hint.endswith("`reconnect-ms`")


@pytest.mark.parametrize("release", ["5.2", "11.1"])
def test_a_pci_address_means_the_same_everywhere(release):
    text = f"{BASE}devices: {{d: {{driver: e1000, addr: 5}}}}\n"
    assert entry(planned(text, release), "d")["addr"] == "5"


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", "on"), ("off", "off"), ("auto", "auto"), ('"true"', "true")],
)
def test_yaml_booleans_for_qemus_enumerations(text, value):
    plan = planned(f"{BASE}devices: {{d: {{driver: virtio-rng-pci, disable-legacy: {text}}}}}\n")
    assert entry(plan, "d")["disable-legacy"] == value


def test_text_properties_keep_their_text():
    text = f"{BASE}disk: {{file: a.raw, serial: 'true'}}\nchardevs: {{c: {{backend: pty}}}}\n"
    assert entry(planned(text), "disk0-dev")["serial"] == "true"


def test_values_that_have_no_schema_are_plain():
    """Before 8.0 no introspection reaches Audiodev."""
    text = f"{BASE}audiodevs: {{a: {{driver: none, timer-period: 100, in.voices: 2}}}}\n"
    assert entry(planned(text, "7.2"), "a")["timer-period"] == 100


def test_a_binary_that_lists_nothing_takes_any_kind():
    replies = {**replies_of("10.0")}
    gone = ("chardev-add", "query-tpm-types", "netdev_add", "set-action")
    replies["query-qmp-schema"] = [e for e in replies["query-qmp-schema"] if e["name"] not in gone]
    text = (
        f"{BASE}chardevs: {{c: {{backend: anything}}}}\ntpmdevs: {{t: {{type: any}}}}\n"
        "netdevs: {n: {type: any}}\ndevices: {d: {driver: e1000, netdev: n}}\n"
    )
    plan = made(text, replies=replies)
    assert entry(plan, "c") == {"id": "c"}
    with pytest.raises(InputErrors, match="no set-action"):
        made(f"{BASE}action: {{reboot: reset}}\n", replies=replies)


def test_a_type_that_was_not_recorded_takes_any_property():
    assert capabilities_of("10.0").unrecorded(["vmware-svga"]) == ["vmware-svga"]
    plan = planned(f"{BASE}devices: {{v: {{driver: vmware-svga, vgamem_mb: 16}}}}\n")
    assert entry(plan, "v")["vgamem_mb"] == 16


def test_nested_values_are_told_leaf_by_leaf():
    text = f"{BASE}blockdevs: {{d: {{driver: raw, file: {{driver: null-co, size: 1M}}}}}}\n"
    found = {v.property: v.value for v in planned(text).values if v.id == "d"}
    assert found == {"file.driver": "null-co", "file.size": 1 << 20}


def test_a_storage_daemon_that_has_no_export_command():
    replies = {**replies_of("5.2", "qemu-storage-daemon")}
    gone = "nbd-server-start"
    replies["query-qmp-schema"] = [e for e in replies["query-qmp-schema"] if e["name"] != gone]
    text = "platform: native\ntool: qemu-storage-daemon\nnbd-server: {addr: {type: unix}}\n"
    with pytest.raises(InputErrors, match="no nbd-server-start"):
        made(text, replies=replies)


# -- what a plan needs to be told -----------------------------------------------------------------


def test_needed_types():
    text = (
        f"{BASE}memory: 64M\ndevices: {{v: {{driver: vmware-svga}}, w: {{driver: x}}}}\n"
        "objects: {i: {qom-type: iothread}}\n"
    )
    replies = {**replies_of("10.0"), "device-list-properties": {}}
    found = needed_types(profile_of(text), Capabilities(replies))
    assert found == ["migration", "vmware-svga"]
    unknown = profile_of("platform: native\nmachine: raspberry\n")
    assert needed_types(unknown, Capabilities(replies)) == ["migration"]
    daemon = profile_of("platform: native\ntool: qemu-storage-daemon\n")
    assert needed_types(daemon, Capabilities(replies)) == []


@pytest.mark.parametrize(
    ("text", "features"),
    [
        (BASE, []),
        ("platform: native\nmachine: q35\n", ["kvm"]),
        ("platform: native\nmachine: q35\naccel: [tcg, kvm]\n", ["kvm"]),
        ("platform: native\ntool: qemu-storage-daemon\n", []),
        ("platform: debian-12\nmachine: q35\naccel: tcg\nmemory: 1G\n", ["memfd-sealing"]),
    ],
)
def test_needed_features(text, features):
    profile = profile_of(text)
    platform = find_platform(catalogue(), profile.platform.text)
    assert needed_features(profile, catalogue(), platform) == features


def test_a_plan_does_not_depend_on_the_order_of_independent_keys():
    one = planned("platform: native\nmachine: q35\naccel: tcg\nsmp: 2\nmemory: 1G\n")
    two = planned("memory: 1G\nsmp: 2\naccel: tcg\nmachine: q35\nplatform: native\n")

    def bare(plan: Plan):
        options = [replace(o, place=None) for o in plan.options]
        return options, [(v.property, v.value) for v in plan.values]

    assert bare(one) == bare(two)
