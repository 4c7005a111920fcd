"""The fixed part of a profile, in the terms of QAPI's introspection (SchemaInfo).

`doc` becomes the description in the shipped JSON Schema; a member with `default` is optional.
`map` (keys are ids) and `node` (checked later, against the binary) are our own meta-types.
"""

from __future__ import annotations

import re

from launcher.qapi import Schema

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: The rule for every id and for the name, everywhere: what QEMU accepts for `-object` and
#: `-device` alike (7.2 takes device ids that 11.1 aborts on), bounded.
ID = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,62}\Z")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")
ID_RULE = "letters, digits, '.', '_' and '-', 63 at most, starting with a letter"
NAME_RULE = "letters, digits, '.', '_' and '-', 63 at most, first a letter or digit"

#: The name of the root type.
PROFILE = "Profile"

_KEYS: tuple[tuple[str, str, str], ...] = (
    ("name", "str", "Name of the machine; by default the file's name."),
    ("uuid", "str", "UUID of the machine; by default a new one at each start."),
    ("extends", "StrOrList", "Profiles that this one builds on; maps merge, lists replace."),
    ("vars", "Vars", "Declared variables and their defaults, used as ${name}."),
    ("platform", "str", "Floor whose non-device defaults are pinned: debian-12, qemu-8.2, native."),
    ("tool", "Tool", "Which of QEMU's programs runs this profile."),
    ("qemu", "str", "QEMU binary, by name or path; --qemu wins."),
    ("machine", "StrOrMap", "Machine type, or a map of -machine properties with `type`."),
    ("accel", "Accels", "Accelerators; the first that really runs a guest is used."),
    ("cpu", "StrOrMap", "CPU model, or a map of -cpu properties with `model`."),
    ("smp", "IntOrMap", "Number of CPUs, or a map of -smp properties."),
    ("memory", "MemoryOrSize", "RAM: short for a memory-backend-memfd with the id `ram`."),
    ("boot", "Boot", "Direct kernel boot, firmware and boot order."),
    ("objects", "Nodes", "User-creatable objects by id (QAPI: object-add)."),
    ("netdevs", "Nodes", "Network backends by id (QAPI: netdev_add)."),
    ("chardevs", "Nodes", "Character device backends by id, keys as in -chardev."),
    ("blockdevs", "Nodes", "Block nodes by node-name (QAPI: blockdev-add)."),
    ("devices", "Nodes", "Devices by id (QAPI: device_add); file order decides PCI slots."),
    ("audiodevs", "Nodes", "Audio backends by id (QAPI: Audiodev)."),
    ("tpmdevs", "Nodes", "TPM backends by id, keys as in -tpmdev."),
    ("tpm", "StrOrMap", "Short for a TPM that swtpm emulates: the folder of its state."),
    ("exports", "Nodes", "Block exports by id (QAPI: block-export-add), storage daemon only."),
    ("nbd-server", "Node", "NBD server (QAPI: nbd-server-start), storage daemon only."),
    ("numa", "NodeList", "NUMA nodes, distances and CPUs (QAPI: set-numa-node)."),
    ("disk", "ShortList", "Short for a block node and a virtio disk."),
    ("cdrom", "ShortList", "Short for a read-only block node and a CD drive."),
    ("net", "ShortList", "Short for a netdev and a virtio NIC."),
    ("serial", "ShortList", "Serial ports: `console` is the launcher's own, or a chardev."),
    ("guest-agent", "bool", "Short for the virtio-serial port of qemu-guest-agent, read by us."),
    ("display", "str", "Value of -display; by default none."),
    ("rtc", "Node", "Real-time clock, keys as in -rtc."),
    ("action", "Action", "What QEMU does when the guest reboots, shuts down or panics."),
    ("run-with", "Node", "Process settings, keys as in -run-with (user, chroot)."),
    ("sandbox", "bool", "seccomp sandbox around QEMU; on by default where the binary has it."),
    ("migration", "Migration", "Capabilities, parameters and properties of migration."),
    ("stop", "Stop", "How the machine is stopped."),
    ("extra-args", "StrList", "Raw arguments; not planned, not verified, and the report says so."),
    ("verify", "Verify", "strict: a mismatch ends QEMU; warn: it is reported."),
)
_BOOT: tuple[tuple[str, str, str], ...] = (
    ("kernel", "str", "Kernel image, relative to this file."),
    ("initrd", "str", "Initial RAM disk."),
    ("append", "str", "Kernel command line."),
    ("dtb", "str", "Device tree blob."),
    ("firmware", "str", "Firmware image for -bios; by default the machine's own."),
    ("order", "str", "Drive letters in boot order, as in -boot order=."),
    ("menu", "bool", "Show the firmware's boot menu."),
)
_ACTIONS: tuple[tuple[str, str, str], ...] = (
    ("reboot", "str", "reset or shutdown."),
    ("shutdown", "str", "poweroff or pause."),
    ("panic", "str", "pause, shutdown, exit-failure or none."),
    ("watchdog", "str", "reset, shutdown, poweroff, pause, debug, none or inject-nmi."),
)
_MIGRATION: tuple[tuple[str, str, str], ...] = (
    ("capabilities", "Values", "QAPI: migrate-set-capabilities."),
    ("parameters", "Values", "QAPI: migrate-set-parameters."),
    ("properties", "Values", "Properties of the migration object, set by -global."),
)
_STOP: tuple[tuple[str, str, str], ...] = (
    ("powerdown-seconds", "int", "How long the guest may take to power down; 0 does not ask it."),
)


def _object(name: str, members: tuple[tuple[str, str, str], ...], **more: Any) -> dict[str, Any]:
    listed = [{"name": n, "type": t, "default": None, "doc": d} for n, t, d in members]
    return {"name": name, "meta-type": "object", "members": listed, **more}


def _either(name: str, *types: str) -> dict[str, Any]:
    return {"name": name, "meta-type": "alternate", "members": [{"type": t} for t in types]}


def _list(name: str, element: str) -> dict[str, Any]:
    return {"name": name, "meta-type": "array", "element-type": element}


def _map(name: str, value: str) -> dict[str, Any]:
    return {"name": name, "meta-type": "map", "value-type": value}


def _enum(name: str, *values: str) -> dict[str, Any]:
    return {"name": name, "meta-type": "enum", "members": [{"name": v} for v in values]}


#: `x-…` keys are free at the top level, for notes of the user's own.
SHAPE = Schema(
    [
        _object(PROFILE, _KEYS, open="x-"),
        _object("Boot", _BOOT),
        _object("Action", _ACTIONS),
        _object("Migration", _MIGRATION),
        _object("Stop", _STOP),
        _enum("Tool", "qemu-system", "qemu-storage-daemon"),
        _enum("Verify", "strict", "warn"),
        {"name": "size", "meta-type": "builtin", "json-type": "size"},
        {"name": "Node", "meta-type": "node"},
        {"name": "NodeMap", "meta-type": "map", "value-type": "Node"},
        _map("Nodes", "Node"),
        _map("Vars", "ScalarOrNull"),
        _map("Values", "Node"),
        _list("NodeList", "Node"),
        _list("StrList", "str"),
        _either("ScalarOrNull", "str", "null"),
        _either("StrOrList", "str", "StrList"),
        _either("StrOrMap", "str", "NodeMap"),
        _either("IntOrMap", "int", "NodeMap"),
        _either("MemoryOrSize", "size", "NodeMap"),
        _either("Accels", "StrOrMap", "AccelList"),
        _list("AccelList", "StrOrMap"),
        _either("ShortList", "StrOrMap", "ShortMaps"),
        _list("ShortMaps", "StrOrMap"),
    ]
)
