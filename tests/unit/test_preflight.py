"""What two ends of a migration must agree on: pure, on plans for recorded binaries.

Whether QEMU agrees is in integration/test_preflight.py, where every one of these migrates.
"""

from __future__ import annotations

import json
import os
from functools import cache

import pytest

from launcher.data import folder
from launcher.errors import InputError, InputErrors, Place
from launcher.files import parse_yaml, read_yaml
from launcher.nodes import Mapping, from_python
from launcher.platforms import parse_version
from launcher.platforms.migration import read_rules
from launcher.platforms.rules import Knowledge, floor, holds, machine_release, matching, worth
from launcher.platforms.versions import ALWAYS, Range
from launcher.preflight import (
    Block,
    Cure,
    Finding,
    Side,
    breaks,
    counts,
    explain,
    findings_text,
    preflight,
    side_as_json,
    side_from_json,
    side_of_facts,
    side_of_json,
    side_of_lock,
    side_of_plan,
)
from launcher.preflight.options import as_words, entries_of_argv, flat, parse_keyval
from launcher.record import replace
from launcher.report import Judged, Report, plan_json
from tests.support.records import capabilities_of, catalogue, plan_of, profile_from

RULES = os.path.join(folder(), "migration.yaml")
MICROVM = {"machine": {"type": "microvm", "acpi": "off"}, "memory": "64MiB"}


@cache
def know() -> Knowledge:
    return Knowledge(catalogue(), read_rules(read_yaml(RULES)))


def plan(profile: dict, release: str, platform: str = "native", **named: object):
    tree = from_python({"name": "x", "accel": "tcg", **profile}, Place("p.yaml"))
    assert isinstance(tree, Mapping)
    return plan_of(profile_from(tree, platform=platform), release, **named)


def side(profile: dict, release: str = "10.0", platform: str = "native", **known: object) -> Side:
    made = plan(profile, release, platform)
    facts = known.pop("facts", None)
    return replace(side_of_plan(made, capabilities_of(release), facts=facts), **known)


def q35(release: str = "7.2", **more: object) -> dict:
    return {"machine": f"pc-q35-{release}", "memory": "64MiB", **more}


def compare(source: Side, destination: Side, via: str = "") -> dict[tuple[str, str], Finding]:
    return {(f.code, f.property): f for f in preflight(source, destination, know(), via)}


def broken(source: Side, destination: Side) -> set[tuple[str, str]]:
    return {(f.code, f.property) for f in breaks(preflight(source, destination, know()))}


def texts(finding: Finding) -> list[str]:
    return [cure.text for cure in finding.cures]


# -- settings -------------------------------------------------------------------------------------


def test_a_message_that_the_destination_does_not_know():
    found = compare(side(MICROVM, "10.0"), side(MICROVM, "7.2"))
    finding = found["setting", "send-switchover-start"]
    assert (finding.severity, finding.source, finding.destination) == ("breaks", "on", "off")
    assert finding.words == "MIG_CMD 0xb unknown (len 0x0)"
    assert texts(finding) == [
        "platform: debian-12 at both ends",
        "migration.properties.send-switchover-start: off at the source",
    ]
    assert finding.as_json()["cures"][0]["platform"] == "debian-12"
    # The other way round both forms are understood; and a platform mends it.
    assert broken(side(MICROVM, "7.2"), side(MICROVM, "10.0")) == set()
    assert broken(*(side(MICROVM, r, "debian-12") for r in ("10.0", "7.2"))) == set()


def test_a_versioned_machine_type_keeps_the_stream_as_it_was():
    for a, b in (("7.2", "11.1"), ("11.1", "7.2"), ("11.1", "5.2")):
        release = "5.2" if "5.2" in (a, b) else "7.2"
        ends = side(q35(release), a), side(q35(release), b)
        assert preflight(*ends, know(), still=True) == ()


@pytest.mark.parametrize(
    ("name", "source", "destination", "severity"),
    [
        ("multifd", "on", "off", "breaks"),
        ("multifd", "off", "on", "breaks"),
        ("postcopy-ram", "on", "off", "breaks"),
        ("postcopy-ram", "off", "on", "harmless"),
        ("x-ignore-shared", "off", "on", "breaks"),
        ("xbzrle", "on", "off", "harmless"),
        ("dirty-bitmaps", "on", "off", "risks"),
    ],
)
def test_a_capability_at_one_end(name, source, destination, severity):
    ends = [
        side({**q35(), "migration": {"capabilities": {name: state}}})
        for state in (source, destination)
    ]
    assert compare(*ends)["setting", name].severity == severity


def test_parameters_of_multifd_matter_with_multifd_only():
    def end(count: int, state: str) -> Side:
        settings = {"capabilities": {"multifd": state}, "parameters": {"multifd-channels": count}}
        return side(
            {**q35(), "uuid": "1" * 8 + "-1111" * 3 + "-" + "1" * 12, "migration": settings}
        )

    finding = compare(end(4, "on"), end(2, "on"))["setting", "multifd-channels"]
    assert texts(finding) == ["migration.parameters.multifd-channels: 4 at the destination"]
    assert (
        compare(end(4, "off"), end(2, "off"))["setting", "multifd-channels"].severity == "harmless"
    )


def test_what_the_user_set_is_not_mended_by_a_platform():
    forced = {**q35(), "migration": {"properties": {"send-switchover-start": "on"}}}
    finding = compare(side(forced), side(q35(), "7.2"))["setting", "send-switchover-start"]
    assert [cure.platform for cure in finding.cures] == [""]


def test_globals_among_raw_arguments_count():
    raw = {**MICROVM, "extra-args": ["-global", "migration.send-switchover-start=off"]}
    assert broken(side(raw, "10.0"), side(MICROVM, "7.2")) == set()


def test_one_platform_for_all_that_breaks():
    settings = {"migration": {"capabilities": {"multifd": "on"}}}
    ends = [side(MICROVM | settings, r) for r in ("10.0", "7.2")]
    named = {c.platform for f in breaks(preflight(*ends, know())) for c in f.cures if c.platform}
    assert named == {"debian-12"}
    # A distribution that an end has already is preferred.
    ends = [replace(end, platform="rhel-9.6") for end in ends]
    named = {c.platform for f in breaks(preflight(*ends, know())) for c in f.cures if c.platform}
    assert named == {"rhel-9.2"}


def test_a_platform_newer_than_a_kernel_is_not_named():
    facts = {"kernel": {"release": "5.14.0-284.el9"}, "features": {}}
    ends = [side(MICROVM, "10.0", facts=facts), side(MICROVM, "7.2", facts=facts)]
    finding = compare(*ends)["setting", "send-switchover-start"]
    assert finding.cures[0].platform == "debian-11"


# -- what the machine is --------------------------------------------------------------------------


def test_an_alias_means_another_machine_type_on_another_release():
    finding = compare(
        side({"machine": "q35", "memory": "64MiB"}, "7.2", asked="q35"),
        side({"machine": "q35", "memory": "64MiB"}, "10.0", asked="q35"),
    )["machine-type", "type"]
    assert "pc-q35-7.2 (q35)" in finding.message
    assert texts(finding) == ["machine.type: pc-q35-7.2 at the destination"]
    back = compare(
        side({"machine": "q35", "memory": "64MiB"}, "10.0"),
        side({"machine": "q35", "memory": "64MiB"}, "7.2"),
    )["machine-type", "type"]
    assert texts(back) == ["machine.type: pc-q35-7.2 at the source"]


def test_an_end_without_a_machine_is_compared_as_far_as_it_goes():
    assert compare(side(q35()), replace(side(q35()), machine="")) == {}


def test_a_machine_type_that_the_destination_lacks():
    source = side(q35("3.1"), "10.0")
    lacks = replace(side(q35(), "11.1"), machine="pc-q35-3.1")
    finding = compare(source, lacks)["machine-missing", "type"]
    assert texts(finding) == ["machine.type: pc-q35-10.0 at both ends"]
    strange = replace(lacks, machine="strange")
    assert (
        compare(replace(source, machine="strange"), strange)["machine-missing", "type"].cures == ()
    )


def test_an_end_that_cannot_be_planned():
    good = side(q35("10.0"), "10.0")
    bad = Side(
        "old", None, "pc-q35-10.0", (), {}, {}, {}, trouble="no such", trouble_code="machine"
    )
    bad = replace(bad, machines=frozenset(("pc-q35-5.2", "pc-q35-7.2")))
    finding = compare(good, bad)["machine-missing", "type"]
    assert texts(finding) == ["machine.type: pc-q35-7.2 at both ends"]
    assert compare(bad, good)["machine-missing", "type"].severity == "breaks"
    alone = replace(bad, machines=frozenset(("microvm",)))
    assert compare(good, alone)["machine-missing", "type"].cures == ()
    other = replace(bad, trouble_code="runability", machines=None)
    assert compare(good, other)["cannot-start", ""].cures == ()
    other = replace(other, trouble_hint="platform debian-12 would run here")
    assert texts(compare(good, other)["cannot-start", ""]) == ["platform debian-12 would run here"]


def test_cpus_memory_and_uuid():
    source = side(q35(smp=2, cpu="max", uuid="2" * 8 + "-2222" * 3 + "-" + "2" * 12))
    other = side(q35(memory="128MiB", cpu="qemu64", uuid="1" * 8 + "-1111" * 3 + "-" + "1" * 12))
    assert broken(source, other) == {("cpus-fewer", "cpus"), ("ram-size", "size")}
    assert compare(other, source)["cpus-more", "cpus"].severity == "risks"
    assert compare(source, other)["cpu-model", "model"].severity == "risks"
    assert "not set" in compare(side(q35()), source)["cpu-model", "model"].message
    # The UUID is compared with validate-uuid, and by each channel of multifd.
    for name, code in (("validate-uuid", "uuid"), ("multifd", "uuid-channels")):
        more = {(family, name): "on" for family in ("migration-capability",)}
        ends = [replace(s, settings={**s.settings, **more}) for s in (source, other)]
        assert (code, "uuid") in broken(*ends)
        same = [ends[0], replace(ends[1], entries=ends[0].entries)]
        assert (code, "uuid") not in broken(*same)


def test_a_uuid_that_each_start_draws():
    settings = {("migration-capability", "multifd"): "on"}
    end = side(q35())
    bare = tuple(entry for entry in end.entries if entry.family != "uuid")
    end = replace(end, entries=bare, settings=settings, draws_uuid=True)
    assert compare(end, end)["uuid-drawn", "uuid"].severity == "risks"


def test_cpus_that_there_may_be():
    def end(smp: object, machine: str = "7.2") -> Side:
        return side(q35(machine, smp=smp), "10.0")

    finding = compare(end(1), end(2))["property", "maxcpus"]
    assert (finding.severity, texts(finding)) == ("breaks", ["smp: {cpus: 1} at the destination"])
    threads = {"cpus": 2, "sockets": 2, "cores": 1, "threads": 2, "maxcpus": 4}
    finding = compare(end(threads), end(2))["property", "maxcpus"]
    assert texts(finding) == [
        "smp: {cpus: 2, sockets: 2, cores: 1, threads: 2, maxcpus: 4} at the destination"
    ]
    del threads["maxcpus"]
    assert broken(end(threads), end({"cpus": 2, "maxcpus": 4})) == set()
    # A topology would not fit to another number of CPUs alone.
    fewer = compare(end(threads), end(1))["cpus-fewer", "cpus"]
    assert texts(fewer) == ["smp: {cpus: 2, sockets: 2, cores: 1, threads: 2} at the destination"]
    small = [side({**MICROVM, "smp": n}) for n in (1, 2)]
    assert compare(*small)["property", "maxcpus"].severity == "risks"
    bare = replace(end(1), entries=tuple(e for e in end(1).entries if e.family != "smp"))
    assert texts(compare(bare, end(2))["property", "maxcpus"]) == [
        "smp: {cpus: 1} at the destination"
    ]


def test_topology_and_cpu_features():
    found = compare(
        side(q35(smp={"cpus": 2, "sockets": 2})), side(q35(smp={"cpus": 2, "cores": 2}))
    )
    assert found["property", "sockets"].severity == "risks"
    models = [side(q35(cpu={"model": "qemu64", **more})) for more in ({}, {"avx": "on"})]
    assert compare(*models)["property", "avx"].severity == "risks"


def test_a_cpu_without_a_local_apic():
    with_, without = side(q35()), side(q35(cpu={"model": "qemu64", "apic": "off"}))
    assert texts(compare(with_, without)["property", "apic"]) == ["cpu.apic: on at the destination"]
    assert ("property", "apic") in broken(without, with_)
    # Only the controller of q35 misses it when it comes.
    small = [side({**MICROVM, "cpu": {"model": "qemu64", "apic": a}}) for a in ("off", "on")]
    assert compare(*small)["property", "apic"].severity == "risks"
    assert broken(*small[::-1]) == {("property", "apic")}
    # However it is spelled.
    words = entries_of_argv(["-cpu", "qemu64,-apic,+pmu,level=2,f"])
    assert [(e.type, e.members) for e in words] == [
        ("qemu64", {"apic": "off", "pmu": "on", "level": "2", "f": "on"})
    ]
    assert ("property", "apic") in broken(with_, side(q35(cpu="qemu64,-apic")))


def test_max_and_host_follow_release_and_host():
    def end(release: str, *flags: str) -> Side:
        facts = {"cpu": {"flags": " ".join(flags)}} if flags else None
        return replace(side(q35(cpu="max"), release, facts=facts), accel="kvm")

    assert compare(end("7.2"), end("10.0"))["cpu-follows", "model"].severity == "risks"
    finding = compare(end("10.0", "avx", "sse"), end("10.0", "sse"))["cpu-follows", "model"]
    assert "lacks avx" in finding.message
    assert compare(end("10.0", "sse"), end("10.0", "sse")) == {}
    many = compare(end("10.0", *"abcdefgh", "z"), end("10.0", "z"))["cpu-follows", "model"]
    assert "lacks a, b, c, d, e, f and 2 more" in many.message


@pytest.mark.parametrize(
    ("cpu", "ends", "breaks_"),
    [
        ("max", ("10.0", "5.2"), True),
        ("Haswell", ("7.2", "5.2"), True),
        ({"model": "qemu64", "avx": "on"}, ("7.2", "5.2"), True),
        ({"model": "max", "avx": "off"}, ("10.0", "5.2"), False),
        ("max", ("10.0", "7.2"), False),
        ("max", ("5.2", "10.0"), False),
        ("Nehalem", ("10.0", "5.2"), False),
    ],
)
def test_instructions_that_programs_chose(cpu, ends, breaks_):
    sides = [side({"machine": "pc-q35-5.2", "memory": "64MiB", "cpu": cpu}, end) for end in ends]
    found = compare(*sides)
    assert (("cpu-programs", "avx") in found) is breaks_
    if breaks_:
        assert texts(found["cpu-programs", "avx"]) == ["cpu.avx: off at both ends"]
    unknown = compare(*(replace(one, version=None) for one in sides))
    assert ("cpu-programs", "avx") not in unknown


def test_what_max_is_under_tcg():
    found = compare(side(q35(cpu="max"), "10.0"), side(q35(cpu="max"), "7.2"))
    assert "lacks cmpccxadd, fsrc" in found["cpu-follows", "model"].message


def test_another_accelerator():
    end = side(q35())
    kvm = replace(end, accel="kvm")
    assert compare(end, kvm)["property", "accel"].severity == "risks"
    finding = compare(kvm, end)["property", "accel"]
    assert (finding.severity, texts(finding)) == ("breaks", ["accel: kvm at the destination"])


def test_machine_properties():
    def end(**more: object) -> Side:
        return side({"machine": {"type": "pc-q35-7.2", **more}, "memory": "64MiB"})

    assert compare(end(), end(pit="off"))["property", "pit"].severity == "breaks"
    assert compare(end(pit="off"), end())["property", "pit"].severity == "risks"
    assert compare(end(graphics="off"), end()) == {}
    assert (
        compare(end(**{"mem-merge": "off"}), end())["property", "mem-merge"].severity == "harmless"
    )
    finding = compare(end(), end(smm="off"))["property", "smm"]
    assert finding.severity == "risks"
    assert "by default" in finding.message
    assert texts(finding) == ["machine.smm: off at the source"]
    both = compare(end(smm="on"), end(smm="off"))["property", "smm"]
    assert "to the stream" in both.message
    assert texts(both) == ["machine.smm: on at the destination"]


def test_slots_for_memory():
    more = {"memory": {"size": "64MiB", "slots": 2, "maxmem": "1GiB"}}
    found = compare(side(q35(**more)), side(q35()))
    assert found["property", "slots"].severity == "breaks"
    assert found["property", "maxmem"].severity == "risks"


def test_devices_follow_the_release_on_machines_without_versions():
    pcie = {"machine": {"type": "microvm", "pcie": "on", "acpi": "on"}, "memory": "64MiB"}
    ends = [side(pcie | {"devices": {"r": RNG}}, release) for release in ("5.2", "7.2")]
    finding = compare(*ends)["property", "vectors"]
    assert (finding.severity, finding.source, finding.destination) == ("breaks", "0", "2")
    assert texts(finding) == ["devices.r.vectors: 0 at the destination"]
    back = compare(*reversed(ends))["property", "queue_reset"]
    assert texts(back) == ["devices.r.queue_reset: off at the source"]


def test_machines_without_versions():
    isapc = {"machine": "isapc", "memory": "64MiB"}
    finding = compare(side(isapc, "10.0"), side(isapc, "7.2"))["property", "type"]
    assert (finding.severity, finding.cures) == ("breaks", ())
    assert "nothing cures it" in findings_text([finding])
    gpu = MICROVM | {"devices": {"g": {"driver": "virtio-gpu-device"}}}
    found = compare(side(gpu, "7.2"), side(gpu, "10.0"))
    assert found["property", "x-scanout-vmstate-version"].severity == "breaks"


# -- RAM ------------------------------------------------------------------------------------------


def backed(kind: str, key: str, machine: str = "pc-q35-7.2", **more: object) -> dict:
    backend = {"qom-type": f"memory-backend-{kind}", "size": 64 << 20, **more}
    return {
        "machine": {"type": machine, "memory-backend": key},
        "extra-args": ["-m", "64"],
        "objects": {key: backend},
    }


def plain(machine: str = "pc-q35-7.2") -> dict:
    return {"machine": machine, "extra-args": ["-m", "64"]}


CANONICAL = "x-use-canonical-path-for-ramblock-id"


@pytest.mark.parametrize(
    ("source", "destination", "cures"),
    [
        (
            backed("ram", "mem0", "pc-q35-3.1"),
            backed("memfd", "mem0", "pc-q35-3.1"),
            [
                "platform: debian-12 at both ends",
                f"objects.mem0.{CANONICAL}: off at the destination",
                f"objects.mem0.{CANONICAL}: on at the source",
            ],
        ),
        (
            backed("memfd", "mem0", "pc-q35-3.1"),
            backed("ram", "mem0", "pc-q35-3.1"),
            [
                "platform: debian-12 at both ends",
                f"objects.mem0.{CANONICAL}: on at the destination",
                f"objects.mem0.{CANONICAL}: off at the source",
            ],
        ),
        (
            backed("ram", "mem0", **{CANONICAL: True}),
            backed("memfd", "mem0"),
            [
                f"objects.mem0.{CANONICAL}: on at the destination",
                f"objects.mem0.{CANONICAL}: off at the source",
            ],
        ),
        (
            plain("pc-q35-3.1"),
            backed("memfd", "pc.ram", "pc-q35-3.1"),
            [
                "platform: debian-12 at both ends",
                f"objects.pc.ram.{CANONICAL}: off at the destination",
            ],
        ),
        (
            plain(),
            backed("memfd", "mem0"),
            ["call the memory backend 'mem0' of the destination 'pc.ram'"],
        ),
        (
            plain("pc-q35-3.1"),
            backed("memfd", "mem0", "pc-q35-3.1"),
            [
                "call the memory backend 'mem0' of the destination 'pc.ram', and "
                f"objects.pc.ram.{CANONICAL}: off at the destination"
            ],
        ),
        (
            backed("memfd", "mem0"),
            plain(),
            ["machine.memory-backend: mem0 at the destination"],
        ),
    ],
)
def test_names_of_ram_blocks(source, destination, cures):
    release = "7.2" if "3.1" in str(source) else "10.0"
    found = preflight(side(source, release), side(destination), know())
    finding = next(f for f in found if f.code == "ram-name")
    assert texts(finding) == cures
    assert finding.severity == "breaks"


def test_a_path_that_only_the_source_writes():
    source = side(backed("memfd", "pc.ram", "pc-q35-3.1"), "7.2")
    finding = compare(source, side(plain("pc-q35-3.1"), "10.0"))["ram-name", CANONICAL]
    assert texts(finding) == [
        "platform: debian-12 at both ends",
        f"objects.pc.ram.{CANONICAL}: off at the source",
    ]


def test_names_of_ram_blocks_that_are_the_same():
    for kinds in (("ram", "memfd"), ("memfd", "file")):
        more = {"mem-path": "/tmp"}
        ends = [
            side(backed(kind, "mem0", **(more if kind == "file" else {})), "10.0") for kind in kinds
        ]
        assert broken(*ends) == set()


def test_numa_and_dimms_have_blocks_of_their_own():
    numa = {
        "machine": "pc-q35-7.2",
        "objects": {
            "a": {"qom-type": "memory-backend-ram", "size": 64 << 20},
            "b": {"qom-type": "memory-backend-ram", "size": 64 << 20},
        },
        "memory": {"size": "128MiB"},
        "numa": [{"type": "node", "memdev": "a"}, {"type": "node", "memdev": "b"}],
    }
    assert compare(side(numa), side(numa)) == {}
    only = {**numa, "numa": [{"type": "node", "memdev": "a"}], "memory": {"size": "64MiB"}}
    only["objects"] = {"a": numa["objects"]["a"]}
    finding = compare(side(numa), side(only))["ram-name", "memory-backend"]
    assert (finding.source, finding.destination, finding.cures) == ("b", None, ())
    dimm = {
        **q35(memory={"size": "64MiB", "slots": 1, "maxmem": "1GiB"}),
        "objects": {"d": {"qom-type": "memory-backend-ram", "size": 64 << 20}},
        "devices": {"dimm": {"driver": "pc-dimm", "memdev": "d"}},
    }
    gone = {**dimm, "devices": {}, "objects": {}}
    assert ("ram-name", "memory-backend") in broken(side(dimm), side(gone))
    lost = side(dimm)
    lost = replace(lost, entries=tuple(e for e in lost.entries if e.family != "object"))
    assert ("ram-name", "memory-backend") in broken(side(dimm), lost)


def test_blocks_as_qemu_tells_them():
    end = side(q35())

    def told(**blocks: Block) -> Side:
        return replace(end, ram={name.replace("_", "."): block for name, block in blocks.items()})

    ram, rom = Block(64 << 20, 64 << 20), Block(0x20000, 0x200000)
    assert broken(told(ram=ram), told(ram=ram, vga=rom)) == set()
    assert broken(told(ram=ram, acpi=rom), told(ram=ram, acpi=Block(0x30000, 0x200000))) == set()
    finding = compare(
        told(ram=ram, pc_bios=Block(0x10000, 0x10000)),
        told(ram=ram, pc_bios=Block(0x20000, 0x20000)),
    )["ram-size", "firmware"]
    assert "0x10000" in finding.message
    assert texts(finding) == ["boot.firmware: one file for both ends"]
    larger = told(ram=ram, acpi=Block(0x300000, 0x400000)), told(ram=ram, acpi=rom)
    assert broken(*larger) == {("ram-size", "size")}
    rom_lost = compare(told(ram=ram, pc_rom=rom), told(ram=ram))["ram-name", "memory-backend"]
    assert rom_lost.cures == ()
    # The planned blocks say what to rename.
    other = replace(side({**backed("memfd", "mem0")}), ram={"mem0": ram})
    assert texts(compare(told(ram=ram), other)["ram-name", "id"]) == [
        "call the memory backend 'mem0' of the destination 'ram'"
    ]
    sizes = compare(told(**{"0000:00:01.0/x": rom}), told(**{"0000:00:01.0/x": Block(1, 1)}))
    assert sizes["ram-size", "size"].cures == ()
    one = side(devices(b=BALLOON))
    roms = [replace(one, ram={"0000:00:01.0/x.rom": Block(n, n)}) for n in (1, 2)]
    assert texts(compare(*roms)["ram-size", "romfile"]) == [
        "devices.b.romsize: 2 at the source",
        "devices.b.romfile: one file for both ends",
        'devices.b.romfile: "" at both ends',
    ]


def test_a_missing_device_is_said_once():
    source = side({**q35(), "devices": {"b": {"driver": "virtio-balloon-pci"}}})
    rom = {"0000:00:01.0/virtio-balloon-pci.rom": Block(1, 1)}
    ends = replace(source, ram=rom), replace(side(q35()), ram={})
    assert broken(*ends) == {("device-missing", "")}


def test_shared_memory_that_is_left_out_of_the_stream():
    shared = {**backed("memfd", "mem0"), "migration": {"capabilities": {"x-ignore-shared": "on"}}}
    for a, b, breaks_ in (("7.2", "10.0", True), ("10.0", "7.2", True), ("10.0", "11.1", False)):
        assert (("property", "share") in broken(side(shared, a), side(shared, b))) is breaks_


# -- devices --------------------------------------------------------------------------------------


def devices(**members: dict) -> dict:
    return {**q35(), "devices": members}


BALLOON, RNG = {"driver": "virtio-balloon-pci"}, {"driver": "virtio-rng-pci"}


def test_places_and_not_ids_tell_devices():
    both = side(devices(b=BALLOON, r=RNG))
    assert broken(both, side(devices(r=RNG, b=BALLOON))) == {("device-type", "addr")}
    assert {f.code for f in preflight(both, side(devices(x=BALLOON, y=RNG)), know())} == {
        "device-id"
    }
    assert (
        broken(both, side(devices(b={**BALLOON, "addr": "01"}, r={**RNG, "addr": "02.0"}))) == set()
    )
    moved = compare(both, side(devices(b=BALLOON, r={**RNG, "addr": "05"})))
    assert texts(moved["device-missing", "addr"]) == ["devices.r.addr: 02 at the destination"]
    assert moved["device-extra", ""].severity == "risks"
    assert compare(both, side(devices(b=BALLOON, r={**RNG, "addr": "zz"})))


def test_devices_that_are_missing_or_more():
    both, one = side(devices(b=BALLOON, r=RNG)), side(devices(b=BALLOON))
    finding = compare(both, one)["device-missing", ""]
    assert finding.source == "0000:00:02.0"
    assert texts(finding) == ["add virtio-rng-pci r at the destination"]
    assert compare(one, both)["device-extra", ""].severity == "risks"
    other = compare(one, side(devices(r=RNG)))["device-type", "driver"]
    assert texts(other) == [
        "put virtio-balloon-pci b in the place of virtio-rng-pci r, or give it after all others, at"
        " the destination"
    ]
    less = compare(both, side(devices(r=RNG)))["device-type", "driver"]
    assert texts(less) == ["add virtio-balloon-pci b before virtio-rng-pci r at the destination"]
    # Another device of the same id, and one that is too much.
    changed = compare(one, side(devices(b=RNG)))["device-type", "driver"]
    assert texts(changed) == ["devices.b.driver: virtio-balloon-pci at the destination"]
    more = compare(one, side(devices(x=RNG, b=BALLOON)))["device-type", "driver"]
    assert texts(more) == [
        "leave out virtio-rng-pci x, or give it after all others, at the destination"
    ]
    quiet = compare(side(devices(d={"driver": "isa-debug-exit"})), side(q35()))
    assert quiet["device-stateless", ""].severity == "risks"


def test_another_device_that_loads_the_state():
    def sound(driver: str) -> Side:
        return side(devices(h={"driver": "intel-hda"}, c={"driver": driver}))

    assert broken(sound("hda-duplex"), sound("hda-output")) == {("device-type", "driver")}
    found = compare(sound("hda-output"), sound("hda-duplex"))
    assert found["device-alike", "driver"].severity == "risks"


def test_where_a_memory_module_is():
    def dimm(**more: object) -> Side:
        module = {"driver": "pc-dimm", "memdev": "m", **more}
        backend = {"qom-type": "memory-backend-ram", "size": 1 << 20}
        memory = {"size": "64MiB", "slots": 2, "maxmem": "1GiB"}
        return side(devices(d=module) | {"objects": {"m": backend}, "memory": memory})

    assert broken(dimm(addr=1 << 32), dimm(addr=1 << 33)) == {("property", "addr")}
    assert compare(dimm(slot=0), dimm(slot=1))["property", "slot"].severity == "risks"


@pytest.mark.parametrize(
    ("release", "kind", "found"),
    [
        ("10.0", "ext4", ("postcopy-file", "breaks")),
        ("7.2", "ext4", ("postcopy-file", "risks")),
        ("10.0", "tmpfs", None),
        ("10.0", None, ("postcopy-file-unknown", "risks")),
    ],
)
def test_files_that_postcopy_cannot_ask_for(release, kind, found):
    backend = {"qom-type": "memory-backend-file", "size": 64 << 20, "mem-path": "/m"}
    profile = {
        "machine": {"type": "pc-q35-7.2", "memory-backend": "ram"},
        "extra-args": ["-m", "64"],
        "objects": {"ram": backend},
    }
    postcopy = {"migration": {"capabilities": {"postcopy-ram": "on"}}}
    here = side(profile | postcopy, "7.2")
    there = side(profile | postcopy, release, file_systems={"/m": kind} if kind else None)
    told = [f for f in preflight(here, there, know()) if f.code.startswith("postcopy-file")]
    assert [(f.code, f.severity) for f in told] == ([found] if found else [])
    if kind and told:
        assert "on ext4" in told[0].message
    assert preflight(side(profile, "7.2"), side(profile, "7.2"), know(), still=True) == ()


FORMS = (
    "virtio-balloon-pci",
    "virtio-balloon-pci-transitional",
    "virtio-balloon-pci-non-transitional",
)


@pytest.mark.parametrize(
    ("bridge", "more", "same"),
    [
        (None, {}, 1),
        (None, {"disable-legacy": "off"}, 1),
        (None, {"disable-legacy": "on"}, 2),
        ("pcie-root-port", {}, 2),
        ("pcie-root-port", {"disable-legacy": "off"}, 1),
        ("pcie-pci-bridge", {}, 1),
    ],
)
def test_two_spellings_of_one_virtio_device(bridge, more, same):
    def one(driver: str, **members: str) -> Side:
        behind = {"bus": "p", "addr": "01.0"} if bridge else {}
        port = {"p": {"driver": bridge}} if bridge else {}
        return side(devices(**port, d={"driver": driver, **behind, **members}))

    either = one(FORMS[0], **more)
    for number in (1, 2):
        other = one(FORMS[number])
        wanted = set() if number == same else {("device-type", "addr"), ("device-type", "driver")}
        assert broken(either, other) <= wanted
        assert broken(other, either) <= wanted
        assert bool(broken(either, other)) is bool(broken(other, either)) is (number != same)
    assert preflight(either, one(FORMS[same]), know()) == ()


def test_an_option_rom_tells_two_spellings_apart():
    def nic(suffix: str, **members: object) -> Side:
        driver = f"virtio-net-pci{suffix}"
        card = {"driver": driver, "netdev": "n", **members}
        return side({**devices(d=card), "netdevs": {"n": {"type": "user"}}})

    assert ("device-type", "driver") in broken(nic(""), nic("-transitional"))
    bare = nic("", rombar=0), nic("-transitional", rombar=0)
    assert broken(*bare) == broken(*bare[::-1]) == set()
    assert broken(nic("", romfile=""), nic("-transitional", romfile="")) == set()
    # An option ROM that is at the destination only is not missed.
    assert broken(bare[0], nic("-transitional")) == set()


def test_forms_of_one_spelling():
    on, off = ({**BALLOON, "disable-legacy": state} for state in ("on", "off"))
    assert broken(side(devices(d=on)), side(devices(d=off))) == {("property", "disable-legacy")}
    assert preflight(side(devices(d=BALLOON)), side(devices(d=off)), know()) == ()
    old = {**BALLOON, "disable-modern": "on"}
    assert ("device-type", "driver") in broken(
        side(devices(d=old)), side(devices(d={"driver": FORMS[1]}))
    )


def test_two_of_one_kind_that_changed_places():
    found = preflight(
        side(devices(a=BALLOON, b=BALLOON)), side(devices(b=BALLOON, a=BALLOON)), know()
    )
    assert {f.code for f in found} == {"device-swapped"}
    nameless = replace(
        side(q35()), entries=tuple(entries_of_argv(["-device", "virtio-balloon-pci"]))
    )
    named = replace(
        nameless, entries=tuple(entries_of_argv(["-device", "virtio-balloon-pci,id=b"]))
    )
    assert compare(nameless, named) == {}


def test_buses_are_told_by_the_place_of_their_device():
    def end(*ports: str, bus: str, rng: dict = RNG) -> Side:
        made = {name: {"driver": "pcie-root-port", "chassis": 1} for name in ports}
        return side(devices(**made, r={**rng, "bus": bus}))

    assert breaks(preflight(end("p1", bus="p1"), end("zz", bus="zz"), know())) == ()
    moved = compare(end("p1", "p2", bus="p1"), end("p1", "p2", bus="p2"))["device-missing", ""]
    assert texts(moved) == ["plug virtio-rng-pci r where the source has it"]
    assert breaks(preflight(end(bus="pcie.0"), side(devices(r=RNG)), know())) == ()


@pytest.mark.parametrize(
    ("source", "destination"),
    [
        ({"k": {"driver": "usb-kbd"}, "t": {"driver": "usb-tablet"}},
         {"t": {"driver": "usb-tablet"}, "k": {"driver": "usb-kbd"}}),
        ({"k": {"driver": "usb-kbd", "port": "1"}}, {"k": {"driver": "usb-kbd", "port": "2"}}),
        ({"d": {"driver": "scsi-hd", "scsi-id": 1}}, {"d": {"driver": "scsi-hd", "scsi-id": 3}}),
        ({"p": {"driver": "virtconsole", "nr": 1}}, {"p": {"driver": "virtconsole", "nr": 2}}),
    ],
)  # fmt: skip
def test_other_kinds_of_places(source, destination):
    controllers = {"x": {"driver": "qemu-xhci"}, "s": {"driver": "virtio-scsi-pci"}}

    def end(members: dict) -> Side:
        entries = entries_of_argv(
            word
            for key, body in {**controllers, **members}.items()
            for word in ("-device", ",".join([body["driver"], f"id={key}",
                         *(f"{k}={v}" for k, v in body.items() if k != "driver")]))
        )  # fmt: skip
        return replace(side(q35()), entries=tuple(entries))

    assert breaks(preflight(end(source), end(destination), know()))
    assert breaks(preflight(end(source), end(source), know())) == ()


def test_mmio_places_follow_the_order():
    drivers = ("virtio-balloon-device", "virtio-keyboard-device")
    ends = [
        side(MICROVM | {"devices": {d[7]: {"driver": d} for d in order}})
        for order in (drivers, drivers[::-1])
    ]
    assert {f.code for f in breaks(preflight(*ends, know()))} == {"device-type"}
    finding = compare(*ends)["device-type", "driver"]
    assert texts(finding) == ["give the devices of both ends in the same order"]


def test_properties_of_devices():
    def end(**more: object) -> Side:
        return side(devices(b={**BALLOON, **more}))

    assert compare(end(vectors=4), end(vectors=3))["property", "vectors"].severity == "breaks"
    # It has no option ROM that could be missed.
    assert compare(end(rombar=1), end(rombar=0)) == {}
    assert compare(end(romfile="x"), end(romfile="y"))["property", "romfile"].severity == "risks"
    assert compare(end(**{"deflate-on-oom": "on"}), end())["property", "deflate-on-oom"].cures
    # What the binary says of its defaults counts; what it leaves to the device is not known.
    assert compare(end(multifunction="on"), end())["property", "multifunction"].severity == "breaks"
    assert compare(end(multifunction="off"), end()) == {}
    unknown = side(devices(v={"driver": "virtio-9p-pci", "vectors": 4}))
    bare = replace(side(devices(v={"driver": "virtio-9p-pci"})), defaults=None)
    finding = compare(unknown, bare)["property", "vectors"]
    assert finding.severity == "risks"
    assert "by default" in finding.message
    port = [
        side(devices(p={"driver": "pcie-root-port", "chassis": 1, **more}))
        for more in ({}, {"hotplug": "on"}, {"hotplug": "off"}, {"slot": 3})
    ]
    assert compare(port[0], port[1]) == {}
    assert compare(port[0], port[2])["property", "hotplug"].severity == "breaks"
    assert compare(port[0], port[3])["property", "slot"].severity == "breaks"
    disk = {"d": {"driver": "null-co", "size": 4096}}
    nodes = [
        side({**q35(), "blockdevs": {k: disk["d"]},
              "devices": {"v": {"driver": "virtio-blk-pci", "drive": k}}})
        for k in ("here", "there")
    ]  # fmt: skip
    assert compare(*nodes) == {}
    with_bitmaps = [
        replace(n, settings={("migration-capability", "dirty-bitmaps"): "on"}) for n in nodes
    ]
    assert compare(*with_bitmaps)["nodes", "node-name"].severity == "risks"
    assert compare(with_bitmaps[0], with_bitmaps[0]) == {}


def test_a_machine_type_that_nobody_knows_has_an_order_all_the_same():
    end = replace(side(devices(b=BALLOON, r=RNG)), machine="strange", machines=None, ram_id="")
    assert preflight(end, end, know()) == ()
    moved = replace(end, entries=tuple(reversed(end.entries)))
    assert breaks(preflight(end, moved, know()))


# -- network --------------------------------------------------------------------------------------


def users(*ids: str) -> dict:
    return {**q35("5.2"), "extra-args": [w for i in ids for w in ("-netdev", f"user,id={i}")]}


def test_user_networks_are_in_the_stream():
    one, two = users("a"), users("a", "b")
    assert ("slirp", "type") in broken(side(one, "7.2"), side(users(), "10.0"))
    assert broken(side(users(), "7.2"), side(one, "10.0")) == set()
    finding = compare(side(two, "10.0"), side(two, "7.2"))["slirp-second", "type"]
    assert finding.cures == ()
    assert broken(side(two, "7.2"), side(two, "10.0")) == set()
    assert broken(side(two, "7.2"), side(one, "7.2")) == set()


TAP = {"type": "tap", "ifname": "t0", "script": "no", "downscript": "no"}
ALL = dict.fromkeys(("tun-vnet-hdr", "tun-ufo", "tun-uso", "tun-tunnel"), True)


def tap(machine: str = "10.0", release: str = "10.0", netdev: dict | None = None, **lacks) -> Side:
    features = {**ALL, **{f"tun-{name.replace('_', '-')}": state for name, state in lacks.items()}}
    device = {"driver": "virtio-net-pci", "netdev": "n"}
    profile = q35(machine) | {
        "netdevs": {"n": {**TAP, **(netdev or {})}}, "devices": {"nic": device}
    }  # fmt: skip
    return side(profile, release, facts={"features": features})


def test_offloads_that_the_destination_kernel_lacks():
    finding = compare(tap(), tap(uso=False))["tap-feature", "host_uso"]
    assert finding.words == "Features 0x… unsupported. Allowed features: 0x…"
    assert texts(finding) == [
        "platform: debian-12-backports at both ends",
        "devices.nic: {host_uso: off, guest_uso4: off, guest_uso6: off} at both ends",
    ]
    assert broken(tap(uso=False), tap()) == set()
    # A platform with an older floor takes it away at both ends.
    off = [
        replace(end, entries=tuple(
            replace(e, members={**e.members, **dict.fromkeys(
                ("host_uso", "guest_uso4", "guest_uso6"), "off")}) if e.family == "device" else e
            for e in end.entries))
        for end in (tap(), tap(uso=False))
    ]  # fmt: skip
    assert compare(*off) == {}
    # Before 8.2 machine types QEMU does not ask for it.
    assert broken(tap("7.2"), tap("7.2", uso=False)) == set()
    assert broken(tap(), tap(tunnel=False)) == set()
    found = broken(tap("11.1", "11.1"), tap("11.1", "11.1", tunnel=False, uso=False))
    assert found == {("tap-feature", "host_tunnel"), ("tap-feature", "host_uso")}
    assert texts(compare(tap(), tap(ufo=False))["tap-ufo", "vnet_hdr"]) == [
        "netdevs.n.vnet_hdr: off at both ends"
    ]
    assert compare(tap(), tap(uso=None))["tap-unknown", "host_uso"].severity == "risks"
    assert compare(tap(ufo=None), tap(ufo=None))["tap-unknown", "vnet_hdr"].severity == "risks"


def test_headers_of_packets():
    off = {"vnet_hdr": False}
    assert texts(compare(tap(), tap(vnet_hdr=False))["tap-header", "vnet_hdr"]) == [
        "netdevs.n.vnet_hdr: off at both ends"
    ]
    assert broken(tap(netdev=off), tap(netdev=off, ufo=False)) == set()
    assert compare(tap(vnet_hdr=None), tap(netdev=off))["tap-unknown", "vnet_hdr"]
    assert broken(tap(netdev={"vnet_hdr": True}), tap(netdev={"vnet_hdr": True})) == set()
    early = compare(tap(), tap(netdev={"vnet_hdr": True}, vnet_hdr=False, ufo=False))
    assert [f.code for f in early.values() if f.severity == "breaks"] == ["tap-start"]
    assert texts(early["tap-start", "vnet_hdr"]) == ["netdevs.n.vnet_hdr: off at both ends"]
    user = side({**q35("10.0"), "netdevs": {"n": {"type": "user"}},
                 "devices": {"nic": {"driver": "virtio-net-pci", "netdev": "n"}}})  # fmt: skip
    assert texts(compare(tap(), user)["tap-header", "vnet_hdr"]) == [
        "netdevs.n.vnet_hdr: off at the source"
    ]
    none = replace(user, entries=tuple(e for e in user.entries if e.family != "netdev"))
    assert ("tap-header", "vnet_hdr") in broken(tap(), none)
    assert broken(none, tap()) == set()


def test_plans_of_unknown_hosts_say_nothing_of_their_kernels():
    ends = [replace(tap(), features={}) for _ in range(2)]
    assert preflight(*ends, know()) == ()


def test_a_machine_of_unknown_release_offers_nothing_that_is_known():
    ends = [replace(tap(uso=u), version=None, machine="microvm") for u in (True, False)]
    assert ("tap-feature", "host_uso") not in broken(*ends)


def test_queues():
    finding = compare(tap(netdev={"queues": 2}), tap(netdev={"queues": 1}))["queues", "queues"]
    assert texts(finding) == ["netdevs.n.queues: 2 at the destination"]


# -- obstacles ------------------------------------------------------------------------------------


def test_option_roms():
    def end(**more: object) -> Side:
        return side(devices(n={"driver": "e1000", **more}))

    assert compare(end(rombar=1), end(rombar=0))["ram-name", "rombar"].severity == "breaks"
    assert compare(end(rombar=0), end(rombar=1)) == {}
    assert compare(end(), end(romfile="x"))["property", "romfile"].severity == "risks"
    gone = compare(end(), end(romfile=""))["ram-name", "romfile"]
    assert texts(gone)[0] == "leave out romfile of n at the destination"
    assert gone.severity == "breaks"


def test_what_cannot_be_migrated_at_all():
    agent = {"chardevs": {"v": {"backend": "qemu-vdagent"}}}
    for machine, release, blocked in (
        ("7.2", "7.2", True), ("10.0", "11.1", True), ("11.1", "11.1", False),
    ):  # fmt: skip
        end = side(q35(machine) | agent, release)
        assert bool(breaks(preflight(end, end, know()))) is blocked
    nvme = [side(devices(n={"driver": "nvme", "serial": "s"}), r) for r in ("10.0", "11.1")]
    assert ("blocked", "") in broken(nvme[0], nvme[1])
    assert ("blocked", "") not in broken(nvme[1], nvme[1])
    assert texts(compare(*nvme)["blocked", ""]) == ["leave out nvme n at both ends"]
    # A destination that has one takes no guest; other blockers are the source's affair.
    there = compare(side(q35()), nvme[0])["blocked", ""]
    assert texts(there) == ["leave out nvme n at the destination"]
    assert texts(compare(nvme[0], side(q35()))["blocked", ""]) == ["leave out nvme n at the source"]
    assert broken(side(q35()), side(q35() | agent)) == set()


# -- what two releases do -------------------------------------------------------------------------


def at(profile: dict, binary: str, release: str = "10.0") -> Side:
    """An end as of a recorded release, whose binary is another update of it."""
    return replace(side(profile, release), name=f"QEMU {binary}", version=parse_version(binary))


QUEUED = {"objects": {"o": {"qom-type": "rng-builtin"}}, **devices(r={**RNG, "rng": "o"})}


@pytest.mark.parametrize(
    ("update", "destination", "breaking"),
    [
        ("10.0.2", "11.1", False),
        ("10.0.12", "11.1", False),
        ("10.0.13", "11.1", True),
        ("10.0.14", "11.1", True),
        ("10.0.13", "10.0", False),
        ("10.0.13", "7.2", False),
        ("10.1", "11.1", False),
    ],
)
def test_a_stable_update_whose_queues_are_too_large(update, destination, breaking):
    profile = q35("7.2") | QUEUED
    found = preflight(at(profile, update), side(profile, destination), know())
    assert [f.code for f in breaks(found)] == (["releases"] if breaking else [])
    for one in breaks(found):
        assert (one.source, one.destination) == (f"QEMU {update}", "QEMU 11.1.3")
        assert ["reset the guest there" in text for text in texts(one)] == [True]
        assert explain([one], "qemu-system-x86_64: VQ 0 vring.num 1024 exceeds allocated max 8")
    assert broken(at(q35("7.2"), update), side(q35("7.2"), destination)) == set()
    assert broken(side(profile, destination), at(profile, update)) == set()


@pytest.mark.parametrize(
    ("driver", "name"), [("virtio-blk-pci", "queue-size"), ("virtio-scsi-pci", "virtqueue_size")]
)
def test_queues_that_can_be_made_as_large(driver, name):
    plain, large = (devices(d={"driver": driver, **m}) for m in ({}, {name: 1024}))
    source = at(plain, "10.0.13")
    found = compare(source, side(plain, "11.1"))["releases", ""]
    assert texts(found) == [f"devices.d.{name}: 1024 at the destination"]
    assert broken(source, side(large, "11.1")) == set()
    # A report does not tell places, so there devices are known by their ids.
    assert broken(source, replace(side(large, "11.1"), partial=True)) == set()
    nothing = replace(side(q35(), "11.1"), partial=True)
    assert broken(source, nothing) == {("releases", "")}


def test_queues_that_virtio_mmio_offered():
    rng = {"objects": QUEUED["objects"], **devices(r={"driver": "virtio-rng-device", "rng": "o"})}
    wide = {"extra-args": ["-global", "virtio-mmio.x-override-queue-size=1024"]}
    bare = {"memory": "64MiB", "objects": rng["objects"], "devices": rng["devices"]}
    with_acpi, without = (
        {"machine": {"type": "microvm", "acpi": acpi}, **bare} for acpi in ("on", "off")
    )
    found = compare(side(with_acpi, "10.0"), side(with_acpi, "11.1"))["releases", ""]
    assert found.severity == "breaks"
    assert "-global, virtio-mmio.x-override-queue-size=1024" in texts(found)[0]
    # Nobody says acpi: it is on.
    silent = {"machine": "microvm", **bare}
    assert ("releases", "") in broken(side(silent, "10.0"), side(silent, "11.1"))
    assert broken(side(with_acpi, "10.0"), side(with_acpi | wide, "11.1")) == set()
    assert broken(side(with_acpi, "11.1"), side(with_acpi, "10.0")) == set()
    assert broken(side(with_acpi, "11.1"), side(with_acpi, "11.1")) == set()
    # A guest that came from an older release needs it again at the next destination.
    assert broken(side(with_acpi | wide, "11.1"), side(with_acpi, "11.1")) == {("releases", "")}
    # A guest that is not told of its devices may not use them.
    found = compare(side(without, "10.0"), side(without, "11.1"))["releases", ""]
    assert found.severity == "risks"
    # Machine types with versions hold it still.
    compat = {("virtio-mmio", "x-override-queue-size"): "1024"}
    kept = replace(side(with_acpi, "11.1"), compat=compat)
    assert broken(side(with_acpi, "10.0"), kept) == set()


def test_queues_that_follow_the_number_of_cpus():
    def disk(cpus: int, release: str = "7.2", **members: object) -> Side:
        card = {"driver": "virtio-blk-pci", **members}
        return side({**q35(release), "smp": cpus, "devices": {"v": card}}, "10.0")

    assert ("property", "num-queues") in broken(disk(2), disk(4))
    assert broken(disk(4), disk(4, **{"num-queues": 4})) == set()
    assert ("property", "num-queues") in broken(disk(4), disk(4, **{"num-queues": 2}))
    # Older machine types have one, whatever the CPUs.
    assert broken(disk(2, "5.1"), disk(4, "5.1")) == {("property", "maxcpus")}
    plain = side({**q35(), "devices": {"v": {"driver": "virtio-blk-pci"}}}, "10.0")
    assert broken(plain, disk(1)) == set()


def test_queues_that_shrink():
    def disk(release: str, size: object = None) -> Side:
        members = {} if size is None else {"queue-size": size}
        return side(devices(v={"driver": "virtio-blk-pci", **members}), release)

    found = compare(disk("10.0", 1024), disk("11.1"))["property", "queue-size"]
    assert (found.severity, found.destination) == ("breaks", "256")
    assert texts(found) == ["devices.v.queue-size: 1024 at the destination"]
    assert broken(disk("11.1", 128), disk("11.1")) == set()
    assert broken(disk("11.1", 1024), disk("10.0")) == set()
    # What is no number is not compared.
    odd = entries_of_argv(["-device", "virtio-blk-pci,id=v,queue-size=some"])
    odd_disk = replace(disk("11.1"), entries=tuple(odd))
    assert ("property", "queue-size") not in broken(odd_disk, disk("11.1"))


@pytest.mark.parametrize(
    ("source", "destination", "code"),
    [
        ("3", "3", ""),
        ("3", "5", ""),
        ("3", None, "icount"),
        (None, "3", ""),
        ("auto", "3", "icount-auto"),
        ("3", "auto", ""),
    ],
)
def test_clocks_that_count(source, destination, code):
    ends = [
        side(q35(**({} if shift is None else {"extra-args": ["-icount", f"shift={shift}"]})))
        for shift in (source, destination)
    ]
    found = breaks(preflight(*ends, know()))
    assert [f.code for f in found] == ([code] if code else [])
    for one in found:
        assert texts(one) == [f"-icount shift={source} at the destination"]
    assert broken(ends[0], replace(ends[1], partial=True)) == set()


def test_pages_that_tcg_does_not_see():
    old, new = side(q35(), "7.2"), side(q35(), "11.1")
    found = compare(old, new)["releases", ""]
    assert (found.severity, found.family, found.type) == ("risks", "accel", "tcg")
    assert texts(found)[0].startswith("stop the guest before the migration")
    assert ("releases", "") in compare(old, old)
    assert preflight(old, new, know(), still=True) == ()
    for source in (new, replace(old, accel="kvm"), replace(old, accel=""), side(q35(), "10.0")):
        assert ("releases", "") not in compare(source, replace(new, accel=source.accel))


def test_what_qemu_says_itself():
    end = side(q35())
    stuck = replace(end, blockers=("because",))
    assert compare(stuck, end)["blocker", ""].severity == "breaks"
    assert compare(end, stuck)["blocker-there", ""].severity == "harmless"


def test_disks_are_one_file_at_both_ends():
    """What is not known at an end is nothing to complain of."""
    here = side(q35(disk={"file": "/d.raw", "format": "raw"}), images={"disk0": "inode 1"})
    for images in ({"disk0": "inode 1"}, {}, None):
        assert not breaks(preflight(here, replace(here, images=images), know()))
        assert not breaks(preflight(replace(here, images=None), replace(here), know()))
    other = compare(here, replace(here, images={"disk0": "inode 2"}))["image", "filename"]
    assert (other.severity, other.type, other.id) == ("breaks", "raw", "disk0")
    assert (other.source, other.destination) == ("inode 1", "inode 2")
    assert "another file" in other.message
    absent = compare(here, replace(here, images={"disk0": "absent"}))["image-absent", "filename"]
    assert absent.severity == "breaks"
    assert "is not at the destination" in absent.message
    unnamed = replace(here, images={"x": "inode 1"})
    assert compare(unnamed, replace(here, images={"x": "absent"}))["image-absent", "filename"]


def test_the_state_of_a_tpm_goes_into_a_swtpm_of_its_version_and_a_folder_of_its_own():
    new, old = side(q35(tpm="/tpm")), side(q35(tpm={"state": "/tpm", "version": "1.2"}))
    assert (new.tpms, old.tpms) == ({"tpm0": "2.0"}, {"tpm0": "1.2"})
    tis = side(q35(tpm={"state": "/tpm", "model": "tpm-tis"}))
    for here, there, version in ((tis, old, "2.0"), (old, tis, "1.2")):
        found = compare(here, there)["tpm-version", "version"]
        assert (found.severity, found.source, found.id) == ("breaks", version, "tpm0")
        assert texts(found) == [f"tpm.version: {version} at the destination"]
    for known in ({}, None):
        assert not breaks(preflight(tis, replace(old, tpms=known), know()))
        assert not breaks(preflight(replace(tis, tpms=known), old, know()))
    held = {"tpm0": "/tpm"}
    assert not breaks(preflight(replace(new, held=held), new, know()))
    found = compare(new, replace(new, held=held))["tpm-state", "state"]
    assert (found.severity, found.destination) == ("breaks", "/tpm")
    assert "another folder" in texts(found)[0]


def test_transports():
    ends = side(q35(), "7.2"), side(q35(), "10.0")
    found = preflight(*ends, know(), via="file")
    assert [f.family for f in breaks(found)] == ["transport"]
    assert [f.family for f in breaks(preflight(ends[1], ends[0], know(), via="file"))] == [
        "transport"
    ]
    assert preflight(ends[1], ends[1], know(), via="file") == ()
    assert preflight(*ends, know(), via="unix", still=True) == ()


# -- where ends come from -------------------------------------------------------------------------


def test_what_was_observed_wins_over_the_plan():
    made = plan(q35(), "10.0", "debian-12")
    judged = tuple(
        Judged(v, "mismatch" if v.property in ("share", "send-switchover-start") else "match",
               "off" if v.property == "share" else True, "")
        for v in made.values
    )  # fmt: skip
    seen = side_of_plan(made, report=Report(made, judged, ()))
    assert seen.find("object", "ram").members["share"] == "off"
    assert seen.settings["migration-property", "send-switchover-start"] == "on"
    assert seen.machines is None
    assert seen.owner("object", "ram", "share") == "platform debian-12"


def test_ends_from_json():
    made = plan(q35(smp=2, migration={"capabilities": {"multifd": "on"}}), "10.0")
    from launcher.command import render_standalone

    document = plan_json(made, render_standalone(made, "/run/x"))
    told = side_of_json(document, "a.json")
    assert compare(told, side_of_plan(made)) == {}
    assert told.one("smp").members["cpus"] == "2"
    report = {k: v for k, v in document.items() if k != "argv"}
    report["values"] = [
        {**{k: v for k, v in row.items() if k != "value"}, "planned": row["value"],
         "observed": row["value"], "verdict": verdict}
        for row, verdict in zip(
            report["values"], ["match", *["unobservable"] * len(report["values"])], strict=False
        )
    ] + [
        {"family": "machine", "type": "cpu", "id": "machine", "property": "cpu.model",
         "planned": "max", "observed": "max", "verdict": "match"},
        {"family": "device", "type": "virtio-balloon-pci", "id": "b", "property": "vectors",
         "planned": 2, "observed": 2, "verdict": "match"},
        {"family": "device", "type": "x", "id": "c", "property": "y", "value": 1,
         "written": {"property": "y", "value": 2}},
    ]  # fmt: skip
    partial = side_of_json(report, "b.json")
    assert (partial.partial, partial.one("cpu").type) == (True, "max")
    assert partial.find("device", "c").members == {"y": "2"}
    other = replace(partial, entries=tuple(
        replace(e, members={"vectors": "3"}) if e.id == "b" else e for e in partial.entries
    ))  # fmt: skip
    assert broken(partial, other) == {("property", "vectors")}
    assert compare(partial, told).keys() == {("cpu-model", "model")}
    for wrong in ({}, {"qemu": {}, "values": 1}, {"qemu": {}, "values": []}):
        with pytest.raises(InputError, match="neither a plan nor a report"):
            side_of_json(wrong, "c.json")


LOCK = """
qemu: {version: "10.0.2"}
platform: {name: native}
machine: {type: pc-q35-10.0, asked: q35, accel: tcg}
host: {tun-uso: true, note: text}
values: []
given: {}
"""


def lock(**parts: object) -> dict:
    row = {"family": "migration-capability", "type": "migration", "id": "migration",
           "property": "multifd", "value": True, "origin": "profile", "observed": True}  # fmt: skip
    values = [
        row,
        {"family": "machine", "type": "cpu", "id": "machine", "property": "cpu.model",
         "value": "max", "origin": "profile"},
        {"family": "object", "type": "memory-backend-memfd", "id": "ram", "property": "share",
         "value": False, "origin": "platform x"},
    ]  # fmt: skip
    return {
        "qemu": {"version": "10.0.2"},
        "platform": {"name": "native"},
        "machine": {"type": "pc-q35-10.0", "asked": "q35", "accel": "tcg"},
        "host": {"tun-uso": True, "note": "text"},
        "values": values,
        "given": {
            "machine": {"type": "q35", "memory-backend": "ram"},
            "cpu": {"model": "max"},
            "memory": {"size": "64MiB", "slots": "?"},
            "objects": {"ram": {"qom-type": "memory-backend-memfd", "size": "67108864"}},
            "devices": {"b": {"driver": "virtio-balloon-pci"}},
            "boot": {"order": "c"},
            "serial": ["console"],
            "extra-args": ["-device", "virtio-rng-pci"],
        },
        "migration": {
            "capabilities": {"multifd": True, "xbzrle": False},
            "parameters": {"multifd-channels": 2},
            "properties": {"send-switchover-start": "on"},
            "compat": {"x-preempt-pre-7-2": "false"},
            "ram-blocks": {"ram": {"used": 64 << 20, "total": 64 << 20}},
        },
        **parts,
    }


def test_ends_from_lock_files():
    end = side_of_lock(lock(), "a.lock.yaml")
    assert [e.type for e in end.of("device")] == [
        "virtio-balloon-pci",
        "isa-serial",
        "virtio-rng-pci",
    ]
    assert end.find("object", "ram").members["share"] == "off"
    assert end.features == {"tun-uso": True}
    assert end.name.startswith("a.lock.yaml (QEMU ")
    assert end.ram == {"ram": Block(64 << 20, 64 << 20)}
    assert preflight(end, end, know()) == ()
    old = {"migration": {"properties": {}}, "qemu": {"version": "7.2.22"}}
    found = broken(end, side_of_lock(lock(**old), "b.lock.yaml"))
    assert ("setting", "send-switchover-start") in found
    bare = side_of_lock({**lock(), "migration": {}, "given": {}, "machine": {}}, "c.lock.yaml")
    assert (bare.ram, bare.entries, bare.machine) == (None, (), "")


def test_two_hosts():
    facts = {"features": dict.fromkeys((*ALL, "kvm"), True), "cpu": {"flags": ["avx", "sse"]},
             "kernel": {"release": "6.12.1"}}  # fmt: skip
    less = {
        "features": dict.fromkeys((*ALL, "kvm"), False),
        "cpu": {"flags": ["sse"]},
        "kernel": "6.1",
    }
    ends = side_of_facts(facts, "a"), side_of_facts(less, "b")
    found = compare(*ends)
    assert set(found) == {
        ("host-offer", "host_uso"), ("host-offer", "host_tunnel"), ("host-offer", "vnet_hdr"),
        ("host-lacks", "kvm"), ("host-cpu", "flags"),
    }  # fmt: skip
    assert found["host-offer", "host_uso"].cures[0].platform == "debian-12-backports"
    assert all(f.severity == "risks" for f in found.values())
    assert compare(*reversed(ends)) == {}
    many = replace(ends[0], cpu_flags=frozenset(f"f{n}" for n in range(20)))
    assert "and 12 more" in compare(many, ends[1])["host-cpu", "flags"].message


def test_command_lines_are_read():
    words = [
        "-S", "-m", "size=1G,slots=2", "-smp", "sockets=2,cores=2", "-smp", "4", "-device",
        '{"driver":"virtio-net-pci","id":"n","mq":true,"list":[1,{"a":2}]}', "-device", "{broken",
        "-device", "{",
        "-object", "secret,id=s,data=a,,b", "-serial", "none", "-serial", "stdio", "-uuid", "u",
        "-name", "x", "-kernel", "k", "-m", "64", "-m", "64B", "-m", "much", "-netdev",
    ]  # fmt: skip
    found = entries_of_argv(words)
    assert [e.members for e in found if e.family == "memory"] == [
        {"size": str(1 << 30), "slots": "2"},
        {"size": str(64 << 20)},
        {"size": "64"},
        {"size": "much"},
    ]
    assert [e.members["cpus"] for e in found if e.family == "smp"] == ["4", "4"]
    device = next(e for e in found if e.id == "n")
    assert device.members == {"mq": "on", "list.0": "1", "list.1.a": "2"}
    assert next(e for e in found if e.family == "object").members == {"data": "a,b"}
    assert sum(e.type == "isa-serial" for e in found) == 1
    assert parse_keyval("a,,b=1,flag", "") == {"a,b": "1", "flag": "on"}
    assert parse_keyval("a,", "head") == {"head": "a"}
    assert (as_words(None), as_words("no"), as_words("yes")) == ("", "off", "on")
    assert flat({"a": {"b": False}}) == {"a.b": "off"}


# -- findings -------------------------------------------------------------------------------------


def test_findings_are_counted_sorted_and_told_once():
    found = preflight(side(MICROVM, "10.0"), side(MICROVM, "7.2"), know())
    assert counts(found)["breaks"] == 1
    assert findings_text(found).count("breaks:") == 1
    assert "  or: " in findings_text(found)
    bare = Finding("x", "risks", "", "", "", "", None, None, "differs")
    assert findings_text([bare]) == "risks: differs"
    assert Cure("both", "x").as_json() == {"end": "both", "text": "x"}


def test_explaining_what_qemu_said():
    found = preflight(side(MICROVM, "10.0"), side(MICROVM, "7.2"), know())
    said = "qemu-system-x86_64: MIG_CMD 0xb unknown (len 0x0)\nload of migration failed"
    assert [f.property for f in explain(found, said)] == ["send-switchover-start"]
    assert explain(found, "something else") == ()
    wordless = Finding("x", "breaks", "", "", "", "", None, None, "m", words="…")
    assert explain([wordless], "anything") == ()


# -- the data -------------------------------------------------------------------------------------


def test_the_shipped_rules_hold_together():
    rules = know().rules
    for (family, kind), table in rules.properties.items():
        for name, listed in table.items():
            for rule in listed:
                assert rule.ref, (family, kind, name)
                assert rule.then, (family, kind, name)
                assert rule.severity != "breaks" or rule.words or rule.cures, (family, kind, name)
    for family, kind in rules.properties:
        if family.startswith("migration-"):
            assert kind == "migration"
    assert all(fact.ref and fact.then for facts in rules.facts.values() for fact in facts)
    assert all(r.ref and r.then for listed in rules.between.values() for r in listed)


def test_every_setting_that_affects_migration_has_a_rule():
    """A change of migration's own settings without a rule would be called harmless or unknown."""
    for family, kind, name in {**catalogue().qemu, **catalogue().linux}:
        if family.startswith("migration-"):
            assert name in know().rules.properties[family, kind]


def test_mistakes_in_rules_are_told_with_their_places():
    text = """
properties:
  migration-property:
    migration:
      a b: [{severity: awful, then: x, ref: y, cure: {nowhere: "1"}}, plain]
      c: [{severity: risks, then: x, ref: y, device: [{having: {a: b}}, plain]}]
  strange: {}
harmless: {machine: {"*": {x: }}}
defaults: {machine: {"*": {x: [{qemu: {from: "9.0"}}]}}}
blocked: {device: {nvme: [{qemu: {until: "1.0"}}, plain], other: plain}, more: plain}
between: {accel: {tcg: [{then: x, ref: y, guest: sleeps, odd: 1}, {then: z}, plain]}}
stateless: {}
alike: {a: b c}
tcg: [plain, {features: [x], since: nine, models: [m], code: c}]
facts: {a: [{severity: risks, then: x, ref: y}, plain]}
offers: {f: {code: x, since: nine}}
machines: {pc: {ram: r, slot: x}}
seats: {}
roms: {}
instances: {user: {numbered: plain}}
transports: {}
more: {}
"""
    with pytest.raises(InputErrors) as caught:
        read_rules(parse_yaml(text, "m.yaml"))
    told = [m.message for m in caught.value.mistakes]
    for words in (
        "unknown key 'more'", "severity cannot be 'awful'", "there is no end 'nowhere'",
        "unknown key 'strange'", "an entry of a b must be a mapping",
        "the key 'words' is missing", "'nine' is not a release", "other must be a list",
        "the key 'type' is missing",
        "guest cannot be 'sleeps'", "unknown key 'odd'", "blocked more must be a mapping",
        "stateless must be a list", "numbered must be a mapping",
    ):  # fmt: skip
        assert any(words in one for one in told), (words, told)
    with pytest.raises(InputErrors):
        read_rules(parse_yaml("properties: plain\nblocked: plain\nfacts: plain", "m.yaml"))


def test_releases_decide_what_nobody_sets():
    version = parse_version("10.0")
    key = ("migration-property", "migration", "send-switchover-start")
    assert worth(catalogue(), key, "microvm", version) == "on"
    assert worth(catalogue(), key, "pc-q35-7.2", version) == "off"
    assert worth(catalogue(), key, "", parse_version("7.2")) == "off"
    assert worth(catalogue(), key, "microvm", None) is None
    assert worth(catalogue(), ("a", "b", "c"), "", version) is None
    assert machine_release("pc-q35-rhel9.2.0") is None
    assert str(floor("pc-q35-7.2", version)) == "7.2"
    assert holds(ALWAYS, None)
    assert not holds(Range(version), None)
    tables = [("x", "a*"), ("x", "ab"), ("x", "*"), ("y", "ab")]
    assert matching(tables, "x", "ab") == ["ab", "a*", "*"]


# -- an end on its way to another host ------------------------------------------------------------


def test_an_end_comes_back_from_json_as_it_was():
    whole = q35("7.2", net="user", disk={"file": "/d.raw", "format": "raw"})
    facts = {"kernel": "6.1.0", "cpu": {"flags": "sse avx"}, "features": {"tun-uso": None}}
    known = {
        "ram": {"pc.ram": Block(1, 2)},
        "blockers": ("no",),
        "told": {("migration-capability", "multifd"): "on"},
        "file_systems": {"/ram": "ext4"},
        "images": {"disk0": "inode 1"},
        "held": {"tpm0": "/tpm"},
        "sizes": {"qboot.rom": 65536, "/x.rom": None},
    }
    for one in (
        side(whole, "11.1", facts=facts, **known),
        side(MICROVM),
        side(q35(), ram=None, version=None, machines=None, settings={}),
    ):
        assert side_from_json(json.loads(json.dumps(side_as_json(one))), "h2") == one


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"form": 0}, "another form"),
        ({"entries": [["device"]]}, "cannot be read"),
        ({"colour": "red"}, "cannot be read"),
        ({"version": ["7.2", "x"]}, "cannot be read"),
        ({"features": []}, "cannot be read"),
        ({"file_systems": ["x"]}, "cannot be read"),
        ({"images": ["x"]}, "cannot be read"),
        ({"tpms": ["x"]}, "cannot be read"),
    ],
)
def test_an_end_of_another_form_is_refused(change, words):
    with pytest.raises(InputError, match=words):
        side_from_json({**side_as_json(side(MICROVM)), **change}, "h2")
    with pytest.raises(InputError, match="another form"):
        side_from_json([], "h2")


@pytest.mark.parametrize("name", ["images", "sizes", "tpms", "held"])
def test_an_end_that_was_kept_without_what_is_told_today(name):
    kept = side_as_json(side(MICROVM))
    del kept[name]
    assert side_from_json(kept, "h2") == replace(side(MICROVM), **{name: None})


# -- what random machines found -------------------------------------------------------------------


def test_a_cure_names_the_end_that_can_have_it():
    pcie = {"machine": {"type": "microvm", "acpi": "on", "pcie": "on"}, "memory": "64MiB"}
    balloon = {**pcie, "devices": {"b": BALLOON}}
    # The older release has no such property, and what a device works out cannot be written down.
    new_to_old = compare(side(balloon, "10.0"), side(balloon, "7.2"))["property", "vectors"]
    assert texts(new_to_old)[-1] == "devices.b.vectors: 0 at the source"
    old_to_new = compare(side(balloon, "7.2"), side(balloon, "10.0"))["property", "vectors"]
    assert texts(old_to_new)[-1] == "devices.b.vectors: 0 at the destination"
    given = {**pcie, "devices": {"b": {**BALLOON, "vectors": 2}}}
    one = compare(side(balloon, "10.0"), side(given, "10.0"))["property", "vectors"]
    assert texts(one) == ["devices.b.vectors: 2 at the source"]
    gpu = {**MICROVM, "devices": {"g": {"driver": "virtio-gpu-device"}}}
    name = "x-scanout-vmstate-version"
    back = compare(side(gpu, "10.0"), side(gpu, "7.2"))["property", name]
    assert texts(back) == [f"devices.g.{name}: 1 at the source"]
    unknown = replace(side(gpu, "7.2"), version=None)
    assert compare(side(gpu, "10.0"), unknown)["property", name].severity == "risks"
    # Two properties of two values that somebody wrote.
    ends = [side({**pcie, "devices": {"b": {**BALLOON, "vectors": n}}}, "10.0") for n in (2, 3)]
    assert texts(compare(*ends)["property", "vectors"]) == [
        "devices.b.vectors: 2 at the destination"
    ]


def test_the_short_form_of_memory_is_cured_as_it_is_written():
    more = {("migration-capability", "x-ignore-shared"): "on"}
    ends = [replace(side(q35("7.2"), "7.2"), settings=more) for _ in range(2)]
    finding = compare(*ends)["property", "share"]
    assert texts(finding)[-1] == (
        "memory.share: off (where objects.ram is written out, objects.ram.share: off) at both ends"
    )


def test_slots_come_with_a_limit():
    slots = {"memory": {"size": "64MiB", "slots": 2, "maxmem": "1GiB"}}
    finding = compare(side(q35() | slots), side(q35()))["property", "slots"]
    assert texts(finding) == ["memory.slots: 2 and memory.maxmem: 1073741824 at the destination"]


def test_values_that_follow_from_the_accelerator_or_from_nobody():
    def end(accel: str = "tcg", **more: object) -> Side:
        made = side({**MICROVM, "machine": {**MICROVM["machine"], **more}})
        return replace(made, accel=accel)

    assert ("property", "rtc") in broken(end(), end(rtc="off"))
    assert ("property", "rtc") not in broken(end("kvm"), replace(end(rtc="off"), accel="kvm"))
    assert compare(end(rtc="auto"), end(rtc="on")) == {}
    ends = [side(devices(b={**BALLOON, "disable-legacy": w})) for w in ("auto", "off")]
    assert compare(*ends) == {}
    # What nothing is known of stays as it is written.
    ends = [side(q35() | {"machine": {"type": "pc-q35-7.2", "smm": w}}) for w in ("auto", "on")]
    assert compare(*ends)["property", "smm"].source == "auto"


def test_features_of_virtio():
    def end(driver: str = "virtio-net-pci", **more: object) -> Side:
        return side(devices(n={"driver": driver, **more}))

    for name in ("event_idx", "status"):
        assert ("property", name) in broken(end(), end(**{name: "off"}))
        assert compare(end(**{name: "off"}), end())["property", name].severity == "harmless"
    assert compare(end(), end(csum="off"))["property", "csum"].severity == "risks"
    # What makes the device's I/O region larger, if it has one.
    larger = compare(end(), end(speed=1000))["property", "speed"]
    assert larger.severity == "breaks"
    assert texts(larger) == ["leave out devices.n.speed at the destination"]
    modern = "virtio-net-pci-non-transitional"
    assert compare(end(modern), end(modern, speed=1000))["property", "speed"].severity == "harmless"
    assert ("property", "host_mtu") in broken(end(host_mtu=1500), end())
    assert compare(end(host_mtu=0), end())["property", "host_mtu"].severity == "harmless"


def test_forms_that_follow_from_nobody():
    legacy = side(devices(b={**BALLOON, "disable-legacy": "on"})), side(devices(b=BALLOON))
    finding = compare(*legacy)["property", "disable-legacy"]
    assert texts(finding) == ["devices.b.disable-legacy: on at the destination"]
    old = {**BALLOON, "disable-modern": "on"}
    assert ("property", "disable-modern") in compare(side(devices(b=old)), side(devices(b=BALLOON)))


def test_ports_of_a_controller():
    bus = {"s": {"driver": "virtio-serial-pci"}}
    console = {"driver": "virtconsole", "bus": "s.0"}
    port = {"driver": "virtserialport", "bus": "s.0"}
    bare = side(devices(**bus))
    # Port 0 is in the map whether there is a console or not.
    assert broken(bare, side(devices(**bus, c=console))) == set()
    assert broken(bare, side(devices(**bus, c=console, d=console))) == {("port-extra", "")}
    assert broken(bare, side(devices(**bus, p=port))) == {("port-extra", "")}
    assert broken(side(devices(**bus, c=console)), bare) == {("device-missing", "")}
    assert broken(side(q35()), side(devices(**bus, p=port))) == set()
    first = side(devices(**bus, p={**port, "nr": 1}))
    assert broken(first, side(devices(**bus, p=port))) == set()


def test_vectors_that_follow_from_the_number_of_queues():
    def end(**more: object) -> Side:
        return side(devices(s={"driver": "virtio-scsi-pci", **more}))

    assert compare(end(vectors=4), end()) == {}
    assert broken(end(), end(vectors=0)) == {("property", "vectors")}
    assert texts(compare(end(), end(vectors=0))["property", "vectors"]) == [
        "devices.s.vectors: 4 at the destination"
    ]
    # What follows from a difference that is told is not told again.
    assert broken(end(num_queues=4), end(num_queues=2)) == {("property", "num_queues")}
    # A number that is spelt in another way is not counted with.
    odd = [
        replace(end(), entries=tuple(entries_of_argv(["-device", f"virtio-scsi-pci,id=s,{more}"])))
        for more in ("num_queues=0x1", "num_queues=0x1,vectors=0")
    ]
    assert texts(compare(*odd)["property", "vectors"]) == ["devices.s.vectors: 0 at the source"]


def test_without_a_local_apic_there_is_no_msi():
    def end(apic: str, release: str = "10.0", **members: dict) -> Side:
        cpu = {"model": "qemu64", "apic": apic}
        profile = {"machine": "pc-i440fx-5.2", "memory": "64MiB", "cpu": cpu, "devices": members}
        return side(profile, release)

    def breaking(**members: dict) -> set[tuple[str, str]]:
        return broken(end("off", **members), end("on", **members))

    sound, raid = {"driver": "intel-hda"}, {"driver": "megasas"}
    assert breaking(h=sound) == breaking(m=raid) == {("property", "apic")}
    assert breaking(m={**raid, "msi": "off"}) == {("property", "apic")}
    assert breaking(m={**raid, "msi": "off", "msix": "off"}) == set()
    assert breaking(h={**sound, "msi": "off"}) == set()
    assert breaking(r=RNG) == breaking(e={"driver": "usb-ehci"}) == set()
    assert breaking(s={"driver": "virtio-serial-pci"}) == {("property", "apic")}
    assert breaking(s={"driver": "virtio-serial-pci", "vectors": 0}) == set()
    # A USB controller without MSI-X loads nowhere since 7.2.
    xhci = {"driver": "nec-usb-xhci"}
    assert breaking(x=xhci) == {("releases", "")}
    assert broken(*[end("off", x=xhci)] * 2) == {("releases", "")}
    assert broken(*[end("off", "5.2", x=xhci)] * 2) == set()
    assert broken(end("off", "5.2", x=xhci), end("on", "5.2", x=xhci)) == {("releases", "")}


def test_one_of_two_video_devices_takes_the_state_of_the_other():
    svga, vga = {"driver": "vmware-svga"}, {"driver": "VGA"}
    after, before = devices(v=vga, s=svga), devices(s=svga, v=vga)
    for release in ("5.2", "10.0"):
        ends = [side({**p, "machine": "pc-q35-5.2"}, release) for p in (after, before)]
        assert broken(ends[0], ends[0]) == {("releases", "")}
        assert broken(ends[1], ends[1]) == set()
    # Of a destination whose device is elsewhere nothing is said.
    assert ("releases", "") not in broken(side(before), side(devices(v=vga)))


def test_places_on_a_microvm_follow_from_its_second_io_apic():
    def end(release: str = "7.2", kind: str = "virtio-gpu-device", **more: str) -> Side:
        machine = {"type": "microvm", "acpi": "on", **more}
        return side({"machine": machine, "memory": "64MiB", "devices": {"d": {"driver": kind}}},
                    release)  # fmt: skip

    for kind in ("virtio-gpu-device", "virtio-balloon-device"):
        for source in (end("5.2", kind), end(kind=kind, ioapic2="off"), end(kind=kind, acpi="off")):
            assert ("releases", "") in broken(source, end(kind=kind)), (kind, source)
            assert ("releases", "") not in broken(source, end(kind=kind, ioapic2="off"))
        assert ("releases", "") not in broken(end(kind=kind), end(kind=kind))
    assert ("releases", "") in broken(end(), end(ioapic2="off"))
    assert ("releases", "") in broken(end(), end("5.2"))


def test_what_the_releases_do_to_a_value():
    gpus = [{"g": {"driver": "virtio-gpu-pci", "max_outputs": n}} for n in (2, 1)]
    outputs = [side(q35("5.2", devices=gpu), "10.0") for gpu in gpus]
    old = side(q35("5.2", devices=gpus[0]), "7.2")
    assert ("releases", "") in broken(outputs[0], old)
    assert ("releases", "") not in broken(outputs[1], replace(outputs[1], version=old.version))
    disk = q35("7.2") | {"blockdevs": {"d": {"driver": "null-co", "size": 1 << 20}},
                         "devices": {"v": {"driver": "virtio-blk-pci", "drive": "d"}}}  # fmt: skip
    block = {("migration-capability", "block"): "on"}
    assert ("releases", "") in broken(*[replace(side(disk, "7.2"), settings=block)] * 2)
    acpi = {"machine": {"type": "microvm", "acpi": "on", "ioapic2": "off"}, "memory": "64MiB"}
    file = {"boot": {"firmware": "/usr/share/qemu/bios-microvm.bin"}}
    assert ("releases", "") in broken(side(acpi, "7.2"), side(acpi, "10.0"))
    assert broken(side(acpi | file, "7.2"), side(acpi | file, "10.0")) == set()


def test_pages_that_have_their_place_in_a_file():
    mapped = {("migration-capability", "mapped-ram"): "on"}
    ends = [replace(side(q35("10.0")), settings=mapped)] * 2
    for via, there in (("unix", True), ("tcp", True), ("file", False), ("", False)):
        finding = compare(*ends, via).get(("setting", "uri")) or compare(*ends, via).get(
            ("property", "uri")
        )
        assert (finding is not None) is there
        if finding is not None:
            assert texts(finding) == ["--via file at both ends"]


# -- cures in the words of their end --------------------------------------------------------------


def test_a_cure_names_a_device_as_its_end_does():
    def end(key: str, **more: object) -> Side:
        return side(devices(**{key: {**BALLOON, **more}}))

    def cures(here: Side, there: Side) -> list[str]:
        return texts(compare(here, there)["property", "vectors"])

    assert cures(end("a", vectors=2), end("b")) == ["devices.b.vectors: 2 at the destination"]
    # The older release has no such property.
    pcie = {"machine": {"type": "microvm", "acpi": "on", "pcie": "on"}, "memory": "64MiB"}
    for key in ("a", "b"):
        new, old = ({**pcie, "devices": {one: BALLOON}} for one in ("a", key))
        found = cures(side(new, "10.0"), side(old, "7.2"))
        assert found[-1] == "devices.a.vectors: 0 at the source"
    nic = {"driver": "virtio-net-pci", "netdev": "n"}
    ends = [
        side(devices(**{key: {**nic, "romfile": file}}) | {"netdevs": {"n": {"type": "user"}}})
        for key, file in (("a", "/x"), ("b", "/y"))
    ]
    sized = [replace(ends[0], sizes={"/x": 9}), replace(ends[1], sizes={"/y": 99999})]
    both = compare(*sized)["ram-size", "romfile"].cures
    assert "devices.a.romfile: one file for both ends" in [cure.text for cure in both]
    swapped = compare(sized[1], sized[0])["ram-size", "romfile"].cures
    assert any(c.text.endswith("(a is b at the source)") for c in swapped), swapped
    # Of what is only told by values no place is known.
    partial = [replace(end(key, vectors=n), partial=True) for key, n in (("a", 2), ("a", 3))]
    assert texts(compare(*partial)["property", "vectors"])


def test_a_cpu_without_a_model_gets_one_with_its_property():
    plain, bare = side(q35()), side(q35(cpu={"model": "qemu64", "apic": "off"}))
    [text] = {t for f in preflight(bare, plain, know()) for t in texts(f) if "apic" in t}
    assert text == "cpu: {model: qemu64, apic: off} at the destination"
    named = side(q35(cpu={"model": "qemu64"}))
    [text] = {t for f in preflight(bare, named, know()) for t in texts(f) if "apic" in t}
    assert text == "cpu.apic: off at the destination"


def test_a_rom_that_is_taken_away_is_told_beside_other_findings():
    def end(**more: object) -> Side:
        return side(devices(n={"driver": "e1000e", **more}))

    ends = end(), end(romfile="", multifunction="on")
    assert broken(*ends) >= {("ram-name", "romfile"), ("property", "multifunction")}
    # That of a device that is missing is said with the device.
    assert broken(end(), side(q35())) == {("device-missing", "")}
    other = side(devices(n={"driver": "rtl8139"}))
    assert ("ram-name", "romfile") not in broken(end(), other)


def test_what_random_machines_found_in_their_properties():
    i440fx = {"machine": {"type": "pc-i440fx-7.2"}, "memory": "64MiB"}
    off = {**i440fx, "machine": {**i440fx["machine"], "sata": "off"}}
    assert broken(side(i440fx), side(off)) == set()
    screens = [side(devices(d={"driver": "bochs-display", "vgamem": n})) for n in ("8M", "16M")]
    assert broken(*screens) == {("property", "vgamem")}
    scsi = [side(devices(s={"driver": "virtio-scsi-pci", "hotplug": w})) for w in ("on", "off")]
    assert compare(*scsi)["property", "hotplug"].words.startswith("Features 0x")
    assert broken(scsi[1], scsi[0]) == set()
