"""What one binary can do, read from its recorded replies."""

from __future__ import annotations

import pytest

from launcher.capabilities import Capabilities
from tests.support.records import RELEASES, capabilities_of, replies_of

pytestmark = pytest.mark.hermetic


@pytest.mark.parametrize("release", RELEASES)
def test_head_of_each_record(release):
    found = capabilities_of(release)
    assert found.version.startswith(f"{release}.")
    assert found.build.startswith("Debian")
    assert found.tool == "qemu-system"
    assert capabilities_of(release, "qemu-storage-daemon").tool == "qemu-storage-daemon"
    assert found.types is found.types


def test_has_command():
    assert capabilities_of("11.1").has_command("query-status")
    assert not capabilities_of("5.2").has_command("set-action")
    assert not capabilities_of("5.2").has_command("str")


def test_properties_of_devices_and_objects():
    found = capabilities_of("10.0")
    assert "mac" in found.properties("e1000")
    assert found.properties("iothread")["poll-max-ns"]["type"] == "int"
    assert found.properties("no-such-type") is None
    assert found.properties("e1000") is found.properties("e1000")


def test_a_type_that_killed_its_qemu_is_unknown():
    """Asking 7.2 about microvm-machine ends it; the record says so by an empty list."""
    assert replies_of("7.2")["qom-list-properties"]["microvm-machine"] == []
    assert capabilities_of("7.2").properties("microvm-machine") is None


def test_unrecorded_types_exist_and_were_not_asked():
    found = capabilities_of("10.0")
    wanted = ["e1000", "iothread", "no-such-type", "vmware-svga", "microvm-machine"]
    assert found.unrecorded(wanted) == ["vmware-svga"]


def test_option_parameters():
    found = capabilities_of("10.0")
    assert "base" in found.option_parameters("rtc")
    assert found.option_parameters("numa") is None  # listed, without parameters
    assert found.option_parameters("no-such-option") is None


def test_machines_and_their_aliases():
    found = capabilities_of("10.0")
    assert found.machine("q35").name == "pc-q35-10.0"
    assert found.machine("pc-q35-7.2").alias is None
    assert found.machine("pc-q35-7.2") is found.machine("pc-q35-7.2")
    assert found.machine("raspberry") is None
    assert set(found.machines) >= {"microvm", "none", "pc-q35-7.2"}


def test_versioned_machine_types():
    found = capabilities_of("10.0")
    assert found.machine("pc-q35-7.2").versioned
    assert not found.machine("microvm").versioned
    assert not found.machine("none").versioned


def test_compat_properties_of_what_is_no_device():
    compat = capabilities_of("10.0").machine("pc-q35-7.2").compat
    assert compat["sev-guest", "legacy-vm-type"] == "on"
    assert compat["migration", "send-switchover-start"] == "off"
    assert capabilities_of("5.2").machine("pc-q35-5.2").compat == {}


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("pc-q35-1.0", ["pc-q35-2.4", "pc-q35-10.0"]),
        ("mikrovm", ["microvm"]),
        ("raspberry", []),
        ("pc-i440fx-99", ["pc-i440fx-2.4", "pc-i440fx-10.0"]),
    ],
)
def test_nearest_machines(name, near):
    assert capabilities_of("10.0").nearest_machines(name) == near


def test_numbering_that_is_none():
    replies = {**replies_of("10.0"), "query-machines": [{"name": "x-a.b"}, {"name": "x-1.2"}]}
    assert Capabilities(replies).nearest_machines("x-9") == ["x-a.b", "x-1.2"]


def test_a_record_without_tool_is_a_system_emulator():
    assert Capabilities({}).tool == "qemu-system"
