"""Merging, variables, short forms and paths. What is refused are golden files."""

from __future__ import annotations

import pytest

from launcher.errors import InputError, InputErrors
from launcher.files import parse_yaml
from launcher.nodes import Mapping, plain_value
from launcher.prepare import parse_setting
from launcher.profiles import parse_profile
from launcher.profiles.merge import beside, merge, override

pytestmark = pytest.mark.hermetic

BASE = "platform: native\nmachine: q35\n"


def tree(text: str, name: str = "dir/f.yaml") -> Mapping:
    return parse_yaml(text, name)


def parse(text: str, *settings: str, files: dict[str, str] | None = None, platform: str = ""):
    def read(path: str) -> Mapping:
        return tree((files or {})[path], path)

    made = [parse_setting(setting) for setting in settings]
    return parse_profile(tree(text), read, made, platform, "/cache")


def mistakes(text: str, *settings: str) -> list[str]:
    with pytest.raises(InputErrors) as caught:
        parse(text, *settings)
    return [m.message for m in caught.value.mistakes]


# -- merging --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "over", "merged"),
    [
        ("a: 1", "b: 2", {"a": 1, "b": 2}),
        ("a: 1", "a: 2", {"a": 2}),
        ("a: {x: 1, y: 2}", "a: {y: 3}", {"a": {"x": 1, "y": 3}}),
        ("a: [1, 2]", "a: [3]", {"a": [3]}),
        ("a: {x: 1}", "a: 5", {"a": 5}),
        ("a: {x: 1, y: 2}", "a: {x: null}", {"a": {"y": 2}}),
        ("a: 1", "b: null", {"a": 1}),
        ("vars: {x: 1}", "vars: {x: null, y: null}", {"vars": {"x": None, "y": None}}),
    ],
)
def test_merge(base, over, merged):
    assert plain_value(merge(tree(base), tree(over))) == merged


@pytest.mark.parametrize(
    ("base", "over", "merged"),
    [
        (
            "machine: microvm",
            "machine: {acpi: 'off'}",
            {"machine": {"type": "microvm", "acpi": "off"}},
        ),
        ("smp: 2", "smp: {threads: 2}", {"smp": {"cpus": "2", "threads": "2"}}),
        ("machine: {type: microvm, acpi: 'off'}", "machine: q35", {"machine": "q35"}),
        ("name: a", "name: {x: b}", {"name": {"x": "b"}}),
        ("disk: a.raw", "disk: {size: 1}", {"disk": {"size": "1"}}),
        ("x-a: {cpu: max}", "x-a: {cpu: {model: host}}", {"x-a": {"cpu": {"model": "host"}}}),
        ("machine: q35", "cpu: {model: max}", {"machine": "q35", "cpu": {"model": "max"}}),
        ("machine: [q35]", "machine: {type: q35}", {"machine": {"type": "q35"}}),
    ],
)
def test_merge_of_short_forms(base, over, merged):
    found = plain_value(merge(tree(base), tree(over)))
    assert {key: _texts(node) for key, node in found.items()} == merged


def _texts(node):
    if isinstance(node, dict):
        return {key: _texts(item) for key, item in node.items()}
    return str(node)


def test_merge_keeps_places():
    found = merge(tree("a: {x: 1}", "base.yaml"), tree("a: {y: 2}", "over.yaml"))
    assert found.items["a"].key_place("x").file == "base.yaml"
    assert found.items["a"].key_place("y").file == "over.yaml"


def test_bases_in_order_and_relative_to_their_file():
    files = {
        "dir/one.yaml": "extends: sub/deep.yaml\nname: one\ncpu: one\n",
        "dir/sub/deep.yaml": "name: deep\ncpu: deep\nsmp: 3\ndisk: d.raw\n",
        "dir/two.yaml": "name: two\n",
    }
    found = parse(f"extends: [one.yaml, two.yaml]\n{BASE}", files=files)
    assert found.name == "two"
    assert plain_value(found.cpu) == {"model": "one"}
    assert plain_value(found.smp) == {"cpus": 3}
    assert plain_value(found.blockdevs["disk0"])["file"]["filename"] == "dir/sub/d.raw"


def test_one_base_twice_is_no_circle():
    files = {
        "dir/a.yaml": "extends: c.yaml\n",
        "dir/b.yaml": "extends: c.yaml\n",
        "dir/c.yaml": "cpu: max\n",
    }
    assert parse(f"extends: [a.yaml, b.yaml]\n{BASE}", files=files).cpu is not None


# -- --set ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "setting", "found"),
    [
        ("a: 1", "a=2", {"a": 2}),
        ("a: 1", "b.c=2", {"a": 1, "b": {"c": 2}}),
        ("a: {x: 1}", "a.x=null", {"a": {}}),
        ("a: {x.y: {z: 1}}", "a.x.y.z=2", {"a": {"x.y": {"z": 2}}}),
        ("machine: q35", "machine.acpi=off", {"machine": {"type": "q35", "acpi": False}}),
        ("memory: 1G", "memory.share=on", {"memory": {"size": "1G", "share": True}}),
        ("smp: 2", "smp.cores=2", {"smp": {"cpus": 2, "cores": 2}}),
        ("vars: {disk: a}", "disk=b", {"vars": {"disk": "b"}}),
        ("vars: {name: a}\nname: x", "name=b", {"vars": {"name": "a"}, "name": "b"}),
        ("vars: 5", "disk=b", {"vars": 5, "disk": "b"}),
        ("a: 1", "a=[1, {b: on}]", {"a": [1, {"b": True}]}),
        ("a: 1", "a='on'", {"a": "on"}),
        ("a: 1", 'a="2"', {"a": "2"}),
        ("a: 1", "a==b=c", {"a": "=b=c"}),
        ("a: 1", "a='", {"a": "'"}),
    ],
)
def test_override(text, setting, found):
    assert plain_value(override(tree(text), [parse_setting(setting)])) == found


def test_override_does_not_reach_through_lists():
    with pytest.raises(InputError, match="is not a map"):
        override(tree("machine: [q35]"), [parse_setting("machine.acpi=off")])


def test_the_command_line_wins():
    found = parse(BASE, "platform=debian-12", platform="debian-11")
    assert (found.platform.text, found.platform.place.file) == ("debian-11", "--platform")


# -- variables ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "text", "name"),
    [
        ("a: x", "${a}", "x"),
        ("a: x", "n${a}${a}", "nxx"),
        ("a: null", "${a:-y}", "y"),
        ("a: x", "${a:-y}", "x"),
        ("a: null", "n${a:-}", "n"),
        ("a: x, b: '${a}-${a}'", "${b}", "x-x"),
    ],
)
def test_substitute(variables, text, name):
    assert parse(f"vars: {{{variables}}}\nname: '{text}'\n{BASE}").name == name


def test_literals_and_the_runtime_directory():
    append = "$${a} ${runtime} ${cache} $x"
    found = parse(f"boot: {{kernel: k, append: '{append}'}}\n{BASE}")
    assert found.boot["append"].text == "${a} ${runtime} /cache $x"


def test_a_path_is_relative_to_where_its_value_is_given():
    files = {"dir/sub/base.yaml": "vars: {disk: own.raw}\ndisk: ${disk}\n"}
    text = f"extends: sub/base.yaml\n{BASE}"

    def filename(*settings: str) -> str:
        found = parse(text, *settings, files=files)
        return plain_value(found.blockdevs["disk0"])["file"]["filename"]

    assert filename() == "dir/sub/own.raw"
    assert filename("disk=mine.raw") == "mine.raw"
    assert filename("disk=/abs.raw") == "/abs.raw"


def test_substituted_text_keeps_its_quotes():
    assert mistakes(f"vars: {{n: 2}}\nsmp: '${{n}}'\n{BASE}") == [
        "smp must be an integer, not text"
    ]
    assert plain_value(parse(f"vars: {{n: 2}}\nsmp: ${{n}}\n{BASE}").smp) == {"cpus": 2}


def test_beside(monkeypatch):
    place = tree("a: b").items["a"].place
    monkeypatch.setenv("HOME", "/home/u")
    assert beside(place, "x") == "dir/x"
    assert beside(place, "/x") == "/x"
    assert beside(place, "~/x") == "/home/u/x"
    assert beside(tree("a: b", "--set a").items["a"].place, "x") == "x"
    assert beside(tree("a: b", "<profile>").items["a"].place, "x") == "x"


# -- short forms ----------------------------------------------------------------------------------


def test_memory_becomes_an_object():
    found = parse(f"{BASE}memory: {{size: 1G, slots: 2, maxmem: 2G, share: on}}\n")
    assert plain_value(found.objects["ram"]) == {
        "qom-type": "memory-backend-memfd",
        "size": 1 << 30,
        "share": True,
    }
    assert plain_value(found.machine) == {"type": "q35", "memory-backend": "ram"}
    assert ("memory", "objects.ram") in [(e[0], e[2]) for e in found.expansions]


@pytest.mark.parametrize(
    "text",
    [
        "objects: {m: {qom-type: memory-backend-ram, size: 1G}}\n"
        "machine: {type: q35, memory-backend: m}\n",
        "objects: {m: {qom-type: memory-backend-ram, size: 1G}}\nmachine: q35\n"
        "numa: [{type: node, memdev: m}]\n",
    ],
)
def test_memory_beside_own_backends_is_a_size_only(text):
    found = parse(f"platform: native\nmemory: 1G\n{text}")
    assert set(found.objects) == {"m"}
    assert plain_value(found.memory) == {"size": "1G"}


def test_disks():
    text = "disk: [a.qcow2, {file: b.img, id: data, read-only: on, serial: S}]\n"
    found = parse(BASE + text)
    assert plain_value(found.blockdevs["disk0"]) == {
        "driver": "qcow2",
        "file": {"driver": "file", "filename": "dir/a.qcow2"},
    }
    assert plain_value(found.blockdevs["data"])["read-only"] is True
    assert plain_value(found.devices["data-dev"]) == {
        "driver": "virtio-blk-pci",
        "drive": "data",
        "serial": "S",
    }


@pytest.mark.parametrize(
    ("machine", "driver"),
    [
        ("q35", "virtio-blk-pci"),
        ("microvm", "virtio-blk-device"),
        ("s390-ccw-virtio", "virtio-blk-ccw"),
        ("{acpi: off, type: microvm}", "virtio-blk-device"),
    ],
)
def test_virtio_over_the_machines_own_transport(machine, driver):
    found = parse(f"platform: native\nmachine: {machine}\ndisk: a.raw\n")
    assert plain_value(found.devices["disk0-dev"])["driver"] == driver


@pytest.mark.parametrize(
    ("machine", "buses"), [("q35", ["ide.0", "ide.1"]), ("pc-q35-7.2", ["ide.0", "ide.1"])]
)
def test_cd_drives_on_ahci_have_a_bus_each(machine, buses):
    found = parse(f"platform: native\nmachine: {machine}\ncdrom: [a.iso, b.iso]\n")
    assert [plain_value(d)["bus"] for d in found.devices.values()] == buses
    assert all(plain_value(b)["read-only"] for b in found.blockdevs.values())


def test_cd_drives_elsewhere():
    found = parse("platform: native\nmachine: pc\ncdrom: {file: a.bin, format: raw, bus: ide.1}\n")
    assert plain_value(found.devices["cd0-dev"]) == {
        "driver": "ide-cd",
        "drive": "cd0",
        "bus": "ide.1",
    }
    found = parse("platform: native\nmachine: pc\ncdrom: a.iso\n")
    assert "bus" not in found.devices["cd0-dev"].items
    found = parse("platform: native\nmachine: q35\ncdrom: {file: a.iso, bus: ide.4}\n")
    assert plain_value(found.devices["cd0-dev"])["bus"] == "ide.4"


def test_nets():
    text = "net: [user, {type: tap, id: lan, ifname: t0, model: e1000, mac: '52:54:00:00:00:01'}]\n"
    found = parse(BASE + text)
    assert plain_value(found.netdevs["lan"]) == {"type": "tap", "ifname": "t0"}
    assert plain_value(found.devices["lan-dev"]) == {
        "driver": "e1000",
        "netdev": "lan",
        "mac": "52:54:00:00:00:01",
    }
    assert plain_value(found.devices["net0-dev"]) == {
        "driver": "virtio-net-pci",
        "netdev": "net0",
    }


def test_none_of_it():
    found = parse(f"{BASE}net: none\nserial: none\n")
    assert (found.netdevs, found.serials) == ({}, ())


def test_serials():
    found = parse(f"{BASE}serial: [{{backend: pty, id: tty}}, console, {{backend: 'null'}}]\n")
    assert [(s.chardev, s.ours) for s in found.serials] == [
        ("tty", False),
        ("console1", True),
        ("serial2", False),
    ]
    assert plain_value(found.chardevs["tty"]) == {"backend": "pty"}


@pytest.mark.parametrize(
    "text",
    ["disk: [[a]]", "cdrom: [[a]]", "net: [[a]]", "serial: [[a]]", "cdrom: {}", "disk: {file: ''}"],
)
def test_short_forms_of_the_wrong_type_are_told_once(text):
    assert len(mistakes(f"{BASE}{text}\n")) == 1


# -- the rest -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "name"),
    [("dir/web.server.yaml", "web"), ("<profile>", "machine"), ("dir/.yaml", "machine")],
)
def test_the_name_is_the_files(file, name):
    found = parse_profile(tree(BASE, file), lambda _: tree(""))
    assert found.name == name


def test_a_file_name_that_is_no_name():
    with pytest.raises(InputErrors, match="cannot be a name"):
        parse_profile(tree(BASE, "my web.yaml"), lambda _: tree(""))


def test_paths_are_seen_from_their_file():
    found = parse(
        f"{BASE}boot: {{kernel: k, initrd: /i}}\n"
        "objects: {r: {qom-type: rng-random, filename: dev}}\n"
        "chardevs: {c: {backend: socket, path: '${runtime}/s'}, d: {backend: file, path: ''}}\n"
        "blockdevs: {b: {driver: raw, file: {driver: file, filename: x}, l: [1]}}\n"
    )
    assert (found.boot["kernel"].text, found.boot["initrd"].text) == ("dir/k", "/i")
    assert plain_value(found.objects["r"])["filename"] == "dir/dev"
    assert plain_value(found.chardevs["c"])["path"] == "${runtime}/s"
    assert plain_value(found.chardevs["d"])["path"] == ""
    assert plain_value(found.blockdevs["b"])["file"]["filename"] == "dir/x"


def test_raw_arguments_may_define_what_the_profile_names():
    text = (
        f"{BASE}extra-args: ['-blockdev', 'x']\nnetdevs: {{n: {{type: user}}}}\n"
        "devices: {d: {driver: virtio-blk-pci, drive: elsewhere}}\nboot: {append: quiet}\n"
    )
    assert parse(text).extra_args == ("-blockdev", "x")


def test_free_keys_may_hold_anything():
    assert parse(f'{BASE}x-notes: {{"a\\nb": "c\\nd"}}\n').name == "f"


def test_defaults():
    found = parse(BASE)
    assert (found.display, found.verify, found.sandbox) == ("none", "strict", True)
    assert (found.powerdown_seconds, found.tool, found.uuid) == (30, "qemu-system", None)


def test_a_key_of_the_wrong_type_is_told_once():
    text = f"{BASE}boot: [a]\naction: x\nuuid: [1]\nstop: 5\nnuma: 5\nrtc: []\n"
    assert len(mistakes(text)) == 6


def test_a_reference_that_is_no_text_is_qemus_business():
    found = parse(
        f"{BASE}devices: {{d: {{driver: nvme, drive: [x]}}, e: {{driver: nvme, drive: ~}}}}\n"
    )
    assert set(found.devices) == {"d", "e"}
