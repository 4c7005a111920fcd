"""What a machine is given while it runs: entries, their references, and the plan's difference."""

from __future__ import annotations

import pytest

from launcher.errors import HostError, InputError, InputErrors, Place
from launcher.files import parse_yaml
from launcher.incoming import waiting_plan
from launcher.nodes import from_python
from launcher.plan import Plan
from launcher.plan.addition import difference, grown, members, parts, reduced
from launcher.profiles import Profile
from launcher.profiles.addition import free_ports, uses, with_addition, without
from launcher.record import replace
from tests.support.records import plan_of, profile_from

pytestmark = pytest.mark.hermetic

BASE = """
platform: debian-12
machine: {type: pc-q35-7.2}
memory: 1GiB
accel: tcg
disk: {file: a.qcow2}
net: user
serial: console
objects:
  io0: {qom-type: iothread}
  ram1: {qom-type: memory-backend-ram, size: 512MiB}
chardevs:
  c0: {backend: "null"}
devices:
  rp1: {driver: pcie-root-port}
  rp2: {driver: pcie-root-port}
  nic: {driver: virtio-rng-pci, bus: rp2}
  ser: {driver: pci-serial, chardev: c0}
"""


def profile(text: str = BASE) -> Profile:
    return profile_from(parse_yaml(text, "p.yaml"))


def added(**given: object) -> Profile:
    return with_addition(profile(), from_python(given, Place("<plug>")))


def mistakes(**given: object) -> list[str]:
    with pytest.raises(InputErrors) as caught:
        added(**given)
    return [mistake.message for mistake in caught.value.mistakes]


def test_short_forms_go_on_where_the_profile_ended_and_take_free_ports():
    whole = added(disk=["b.qcow2", {"file": "c.raw", "bus": "other"}], net="user")
    assert list(whole.blockdevs) == ["disk0", "disk1", "disk2"]
    assert list(whole.netdevs) == ["net0", "net1"]
    bus = {
        key: node.items["bus"].text for key, node in whole.devices.items() if "bus" in node.items
    }
    assert bus == {"nic": "rp2", "disk1-dev": "rp1", "disk2-dev": "other"}
    # The second has none: there was one free port.
    assert "bus" not in whole.devices["net1-dev"].items


def test_only_machines_with_root_ports_have_them_chosen():
    text = BASE.replace("pc-q35-7.2", "pc-i440fx-7.2").replace("pcie-root-port", "pci-bridge")
    whole = with_addition(profile(text), from_python({"net": "user"}, Place("<plug>")))
    assert "bus" not in whole.devices["net1-dev"].items
    assert free_ports(whole) == []


def test_a_port_that_is_given_is_not_chosen_again():
    device = {"driver": "virtio-rng-pci", "bus": "rp1"}
    whole = added(devices={"r": device}, net={"type": "user", "id": "lan"})
    assert "bus" not in whole.devices["lan-dev"].items


def test_a_backend_may_come_before_its_device():
    whole = added(netdevs={"n1": {"type": "user"}}, objects={"io1": {"qom-type": "iothread"}})
    assert {"n1"} <= whole.netdevs.keys()
    assert {"io0", "io1"} <= whole.objects.keys()


def test_paths_are_seen_from_where_the_program_runs():
    whole = added(blockdevs={"b": {"driver": "file", "filename": "~/x"}})
    assert whole.blockdevs["b"].items["filename"].text.startswith("/")


def test_every_mistake_is_told():
    assert mistakes(serial="console", devicse={}) == [
        "'serial' cannot be plugged",
        "'devicse' cannot be plugged",
    ]
    assert mistakes(devices=[1]) == ["devices must be a mapping from ids to entries, not a list"]
    assert mistakes(devices={"rp1": {"driver": "x"}}) == ["devices.rp1 exists already"]
    assert mistakes(disk={"id": "disk0", "file": "b.raw"}) == [
        "disk makes blockdevs.disk0, which exists already"
    ]
    assert mistakes(devices={"d": {"driver": "virtio-blk-pci", "drive": "d9"}}) == [
        "devices.d.drive names the block node 'd9', which the profile does not have"
    ]


def test_who_uses_what():
    found = uses(profile(BASE + "numa:\n  - {type: node, nodeid: 0, memdev: ram1}\n"))
    assert found["devices", "rp2"] == {("devices", "nic")}
    assert found["netdevs", "net0"] == {("devices", "net0-dev")}
    assert found["blockdevs", "disk0"] == {("devices", "disk0-dev")}
    assert found["objects", "ram1"] == {("machine", "")}
    assert found["chardevs", "console"] == {("serial", "")}
    assert found["chardevs", "c0"] == {("devices", "ser")}
    nested = [{"driver": "quorum", "children": ["disk0"], "file": {"file": "disk0"}}]
    whole = added(blockdevs={"q": nested[0]})
    assert uses(whole)["blockdevs", "disk0"] == {("devices", "disk0-dev"), ("blockdevs", "q")}


def test_the_agents_port_is_the_launchers():
    found = uses(profile(BASE + "guest-agent: on\n"))
    users = next(
        who for (_, key), who in found.items() if key == profile(BASE + "guest-agent: on\n").agent
    )
    assert ("guest-agent", "") in users


def test_who_uses_an_object_without_a_device():
    whole = added(
        objects={
            "s": {"qom-type": "secret", "data": "x"},
            "t": {"qom-type": "secret", "data": "x", "keyid": "s"},
        },
        blockdevs={"e": {"driver": "luks", "key-secret": "t", "file": "disk0"}},
    )
    found = uses(whole)
    assert found["objects", "s"] == {("objects", "t")}
    assert found["objects", "t"] == {("blockdevs", "e")}


def test_without():
    left = without(profile(), {("devices", "net0-dev"), ("netdevs", "net0")})
    assert left.netdevs == {}
    assert "net0-dev" not in left.devices
    assert "disk0-dev" in left.devices


# -- plans ----------------------------------------------------------------------------------------

MORE = """
objects:
  io0: {qom-type: iothread}
  key0: {qom-type: secret, data: word}
"""
PLAIN = "platform: debian-12\nmachine: pc-q35-7.2\naccel: tcg\n"


def planned(text: str, release: str) -> Plan:
    return plan_of(profile(text), release)


def test_the_difference_is_what_was_added():
    before, after = planned(PLAIN, "7.2"), planned(PLAIN + MORE, "7.2")
    more = difference(before, after)
    assert [option.path for option in more.options] == ["objects.io0", "objects.key0"]
    assert {(v.family, v.id) for v in more.values} == {("object", "io0"), ("object", "key0")}
    assert [want.name for want in more.wants] == ["secret-key0"]
    assert parts(after) == {"objects.io0", "objects.key0"}
    assert parts(before) == set()
    assert reduced(after, {("objects", "io0"), ("objects", "key0")}) == before
    assert difference(after, after).options == ()
    waits = waiting_plan(before)
    assert difference(waits, after).options == more.options
    assert grown(waits, after).options == (*after.options, waits.options[-1])


def test_a_comment_in_the_profile_changes_nothing():
    before = planned(PLAIN + MORE, "7.2")
    more = difference(
        before, planned("# longer\n" + PLAIN + MORE + "  io1: {qom-type: iothread}\n", "7.2")
    )
    assert [option.path for option in more.options] == ["objects.io1"]


def test_nothing_else_may_change():
    before = planned(PLAIN, "7.2")
    with pytest.raises(HostError, match=r"is QEMU 9\.9"):
        difference(before, replace(before, version="9.9"))
    with pytest.raises(InputError, match=r"machine\S* is not what the machine was started with"):
        difference(before, planned(PLAIN.replace("7.2\n", "7.1\n"), "7.2"))
    tap = "netdevs: {n: {type: tap}}\ndevices: {d: {driver: e1000, netdev: n}}\n"
    with pytest.raises(InputError, match="does not let it start a tap's scripts"):
        difference(before, planned(PLAIN + tap, "7.2"))


@pytest.mark.parametrize("release", ["5.2", "11.1"])
def test_the_members_of_an_option_in_either_form(release):
    options = {
        o.path: o for o in planned(PLAIN.replace("pc-q35-7.2", "q35") + MORE, release).options
    }
    kind, key, rest = members(options["objects.io0"])
    assert (kind, key) == ("iothread", "io0")
    assert "poll-max-ns" in rest
    assert {"qom-type", "id"} & rest.keys() == set()
