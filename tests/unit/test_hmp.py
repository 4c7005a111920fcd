"""Reading the human monitor's text. The samples are QEMU's own."""

from __future__ import annotations

import pytest

from launcher.verify.hmp import parse_migrate, parse_network, parse_qtree

pytestmark = pytest.mark.hermetic


def test_migrate():
    text = (
        "globals:\r\nstore-global-state: on\r\nsend-switchover-start: off\r\n\r\ncapabilities: \r\n"
    )
    assert parse_migrate(text)[""] == {
        "store-global-state": "on",
        "send-switchover-start": "off",
        "capabilities": "",
    }


def test_network():
    text = (
        "hub 0\r\n"
        " \\ hub0port0: net0: index=0,type=user,net=10.0.2.0,restrict=off\r\n"
        "nic0: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:12:34:56\r\n"
        " \\ lan: index=0,type=tap,ifname=tap0,script=no,downscript=no\r\n"
    )
    found = parse_network(text)
    assert found["lan"] == {
        "index": "0",
        "type": "tap",
        "ifname": "tap0",
        "script": "no",
        "downscript": "no",
    }
    assert found["nic0"]["model"] == "virtio-net-pci"


QTREE = """\
bus: main-system-bus
  type System
  dev: hpet, id ""
    timers = 3 (0x3)
  dev: q35-pcihost, id ""
    bus: pcie.0
      type PCIE
      dev: virtio-net-pci, id "nic0"
        disable-legacy = "off"
        addr = 02.0
        romfile = "efi-virtio.rom"
        bus: virtio-bus
          type virtio-pci-bus
          dev: virtio-net-device, id ""
            mrg_rxbuf = true
            mac = "52:54:00:12:34:56"
            tx = ""
            x-txtimer = 150000 (150 us)
            speed = -1 (0xffffffffffffffff)
            romfile = "not this one"
      dev: e1000, id "nic1"
        mac = "52:54:00:00:00:02"
        mitigation = false
"""


def test_qtree():
    found = parse_qtree(QTREE)
    assert found["nic0"] == {
        "disable-legacy": "off",
        "addr": "02.0",
        "romfile": "efi-virtio.rom",
        "mrg_rxbuf": True,
        "mac": "52:54:00:12:34:56",
        "tx": "",
        "x-txtimer": 150000,
        "speed": -1,
    }
    assert found["nic1"] == {"mac": "52:54:00:00:00:02", "mitigation": False}
    assert "timers" not in found.get("", {})


@pytest.mark.parametrize("parse", [parse_migrate, parse_network, parse_qtree])
@pytest.mark.parametrize("text", ["", "\r\n", "x", "x = ", ": ", "dev: ", ' = \n  dev: a, id "b'])
def test_nothing_and_nonsense(parse, text):
    assert isinstance(parse(text), dict)
