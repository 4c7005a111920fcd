"""What QEMU is told of a planned part while it runs."""

from __future__ import annotations

from typing import Any

import pytest

from launcher.errors import InputError
from launcher.files import parse_yaml
from launcher.plug.words import removal, step_of
from tests.support.records import capabilities_of, plan_of, profile_from

pytestmark = pytest.mark.hermetic

HEAD = "platform: native\nmachine: q35\naccel: tcg\n"


def told(section: str, entry: str, release: str = "11.1") -> tuple[str, dict[str, Any]]:
    plan = plan_of(
        profile_from(parse_yaml(f"{HEAD}{section}: {{x: {entry}}}\n", "p.yaml")), release
    )
    option = next(o for o in plan.options if o.path == f"{section}.x")
    step = step_of(option, capabilities_of(release).schema)
    return step.command, step.arguments


def chardev(entry: str, release: str = "11.1") -> dict[str, Any]:
    command, arguments = told("chardevs", entry, release)
    assert command == "chardev-add"
    assert arguments["id"] == "x"
    return arguments["backend"]


def test_an_object_has_its_members_apart_until_5_2():
    entry = "{qom-type: iothread, poll-max-ns: 7}"
    flat = {"qom-type": "iothread", "id": "x", "poll-max-ns": 7}
    nested = {"qom-type": "iothread", "id": "x", "props": {"poll-max-ns": 7}}
    assert told("objects", entry, "11.1") == ("object-add", flat)
    assert told("objects", entry, "5.2") == ("object-add", nested)
    bare = {"qom-type": "iothread", "id": "x"}
    assert told("objects", "{qom-type: iothread}", "5.2") == ("object-add", bare)


@pytest.mark.parametrize("release", ["5.2", "11.1"])
def test_other_parts_have_the_words_of_the_command_line(release):
    node = {"driver": "null-co", "node-name": "x", "size": 512}
    assert told("blockdevs", "{driver: null-co, size: 512}", release) == ("blockdev-add", node)
    device = {"driver": "virtio-rng-pci", "id": "x", "bus": "rp1"}
    entry = "{driver: virtio-rng-pci, bus: rp1}"
    assert told("devices", entry, release) == ("device_add", device)
    assert removal("blockdevs", "x") == ("blockdev-del", {"node-name": "x"})
    assert removal("netdevs", "x") == ("netdev_del", {"id": "x"})


@pytest.mark.parametrize("release", ["5.2", "11.1"])
@pytest.mark.parametrize(
    ("entry", "kind", "data"),
    [
        (
            "{backend: 'null', logfile: /l, logappend: on}",
            "null",
            {"logfile": "/l", "logappend": True},
        ),
        ("{backend: file, path: /f, append: on}", "file", {"out": "/f", "append": True}),
        ("{backend: serial, path: /dev/ttyS0}", "serial", {"device": "/dev/ttyS0"}),
        ("{backend: spiceport, name: a}", "spiceport", {"fqdn": "a"}),
        (
            "{backend: socket, path: /s, delay: off}",
            "socket",
            {"addr": {"type": "unix", "data": {"path": "/s"}}, "server": False, "nodelay": True},
        ),
        (
            "{backend: socket, port: 7, to: 9, server: on, telnet: on}",
            "socket",
            {
                "addr": {"type": "inet", "data": {"host": "", "port": "7", "to": 9}},
                "server": True,
                "telnet": True,
            },
        ),
        (
            "{backend: socket, fd: 5, server: off}",
            "socket",
            {"addr": {"type": "fd", "data": {"str": "5"}}, "server": False},
        ),
        (
            "{backend: udp, port: 7, logfile: /l}",
            "udp",
            {
                "remote": {"type": "inet", "data": {"host": "localhost", "port": "7"}},
                "logfile": "/l",
            },
        ),
        (
            "{backend: udp, host: h, port: 7, localport: 8, ipv4: on}",
            "udp",
            {
                "remote": {"type": "inet", "data": {"host": "h", "port": "7", "ipv4": True}},
                "local": {"type": "inet", "data": {"host": "", "port": "8"}},
            },
        ),
    ],
)
def test_a_chardev_is_nested(entry, kind, data, release):
    assert chardev(entry, release) == {"type": kind, "data": data}


def test_a_file_that_is_read_as_well():
    file = {"out": "/f", "in": "/i"}
    assert chardev("{backend: file, path: /f, input-path: /i}") == {"type": "file", "data": file}


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("{backend: socket, path: /s, server: on, wait: on}", "would stand still"),
        ("{backend: pty, mux: on}", "multiplexed"),
    ],
)
def test_what_only_a_start_can_have(entry, words):
    with pytest.raises(InputError, match=words):
        chardev(entry)
