"""What each type needs to be made without the host, and which values say nothing about QEMU.

`@folder@` stands for a temporary folder, `@chardev@` for a character device of its own, `@disk@`
and `@qcow2@` for a node on an image of its own. Words are QEMU's.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SIZE = 2 << 20

#: qom-type → what `object-add` needs besides.
OBJECTS: dict[str, dict[str, Any]] = {
    "acpi-generic-initiator": {"pci-dev": "none", "node": 0},
    "acpi-generic-port": {"pci-bus": "none", "node": 0},
    "authz-list-file": {"filename": "@folder@/acl"},
    "authz-pam": {"service": "qemu"},
    "authz-simple": {"identity": "survey"},
    "can-host-socketcan": {"if": "survey0", "canbus": "none"},
    "colo-compare": {"primary_in": "a", "secondary_in": "b", "outdev": "c", "iothread": "d"},
    "cryptodev-vhost-user": {"chardev": "@chardev@"},
    "dbus-vmstate": {"addr": "unix:path=@folder@/none"},
    "filter-buffer": {"netdev": "survey", "interval": 1000},
    "filter-dump": {"netdev": "survey", "file": "@folder@/dump"},
    "filter-mirror": {"netdev": "survey", "outdev": "@chardev@"},
    "filter-redirector": {"netdev": "survey", "outdev": "@chardev@"},
    "filter-replay": {"netdev": "survey"},
    "filter-rewriter": {"netdev": "survey"},
    "igvm-cfg": {"file": "@folder@/none"},
    "input-barrier": {"name": "survey"},
    "input-linux": {"evdev": "@folder@/none"},
    "memory-backend-epc": {"size": SIZE},
    "memory-backend-file": {"size": SIZE, "mem-path": "@folder@/ram"},
    "memory-backend-memfd": {"size": SIZE},
    "memory-backend-ram": {"size": SIZE},
    "memory-backend-shm": {"size": SIZE},
    "monitor-hmp": {"chardev": "@chardev@"},
    "monitor-qmp": {"chardev": "@chardev@"},
    "pr-manager-helper": {"path": "@folder@/none"},
    "qtest": {"chardev": "@chardev@"},
    "rng-egd": {"chardev": "@chardev@"},
    "secret": {"data": "survey"},
    "secret_keyring": {"serial": 1},
    "sev-guest": {"cbitpos": 47, "reduced-phys-bits": 1},
    "sev-snp-guest": {"cbitpos": 47, "reduced-phys-bits": 1},
    "tls-creds-anon": {"endpoint": "server"},
    "tls-creds-psk": {"endpoint": "client", "dir": "@folder@", "username": "survey"},
    "tls-creds-x509": {"endpoint": "server", "dir": "@folder@"},
    "x-remote-object": {"fd": "none", "devid": "none"},
}

#: Objects that are not made: what they do depends on the host alone.
HOST_OBJECTS = {
    "secret_keyring": "reads a key of the kernel's keyring",
    "can-host-socketcan": "opens a CAN interface of the host",
    "cryptodev-backend-lkcf": "runs in the host's kernel",
    "input-barrier": "connects to a server",
    "iommufd": "opens /dev/iommu, from 11.1 on at once",
}

_NULL = {"driver": "null-co", "size": SIZE}

#: Backend → the `data` of `chardev-add`.
CHARDEVS: dict[str, dict[str, Any]] = {
    "file": {"out": "@folder@/chardev-file"},
    "hub": {"chardevs": ["@chardev@"]},
    "memory": {"size": 4096},
    "msmouse": {},
    "mux": {"chardev": "@chardev@"},
    "null": {},
    "qemu-vdagent": {},
    "ringbuf": {"size": 4096},
    "socket": {
        "addr": {"type": "unix", "data": {"path": "@folder@/chardev-socket"}},
        "server": True,
        "wait": False,
    },
    "testdev": {},
    "vc": {},
    "wctablet": {},
}

#: Type → the arguments of `netdev_add`.
NETDEVS: dict[str, dict[str, Any]] = {
    "dgram": {
        "remote": {"type": "unix", "path": "@folder@/dgram-there"},
        "local": {"type": "unix", "path": "@folder@/dgram-here"},
    },
    "hubport": {"hubid": 0},
    "stream": {"addr": {"type": "unix", "path": "@folder@/stream"}, "server": True},
    "user": {},
}

#: Driver → the arguments of `blockdev-add`. Each has its own node below it.
BLOCKDEVS: dict[str, dict[str, Any]] = {
    "blkdebug": {"image": _NULL},
    "blkverify": {"test": _NULL, "raw": _NULL},
    "compress": {"file": {"driver": "qcow2", "file": "@qcow2@"}},
    "copy-before-write": {"file": _NULL, "target": _NULL},
    "copy-on-read": {"file": _NULL},
    "file": {"filename": "@folder@/disk"},
    "null-aio": {"size": SIZE},
    "null-co": {"size": SIZE},
    "preallocate": {"file": "@disk@"},
    "qcow2": {"file": "@qcow2@"},
    "quorum": {"vote-threshold": 1, "children": [_NULL, _NULL]},
    "raw": {"file": _NULL},
    "throttle": {"file": _NULL, "throttle-group": "throttle-group"},
}

#: Driver → what `-audiodev` needs besides. All others open a device or a server of the host.
AUDIODEVS: dict[str, str] = {"none": "", "wav": "path=@folder@/wav"}

#: Why there is no instance of the other backends.
HOST_BACKEND = "needs something of the host"

#: (family, type or *, property) whose value comes from the host, the moment or chance.
HOST_VALUES: dict[tuple[str, str, str], str] = {
    ("object", "*", "thread-id"): "a thread of this run",
    ("object", "thread-context", "cpu-affinity"): "the CPUs that this process may use",
    ("object", "thread-context", "node-affinity"): "the CPUs that this process may use",
    ("accel", "tcg", "tb-size"): "an eighth of the host's memory, at most 1 GiB",
    ("blockdev", "*", "image.actual-size"): "blocks of the host's file system",
    ("blockdev", "file", "image.limits.request-alignment"): "of the host's file system",
}

#: The typical devices of a machine with PCI, and of one with virtio-mmio alone.
PCI_DEVICES = (
    *("-device", "virtio-net-pci,id=net,netdev=net0", "-netdev", "user,id=net0"),
    *("-blockdev", "null-co,node-name=disk0,size=1048576"),
    *("-device", "virtio-blk-pci,id=blk,drive=disk0"),
    *("-device", "virtio-scsi-pci,id=scsi", "-device", "virtio-rng-pci,id=rng"),
    *("-device", "virtio-balloon-pci,id=balloon", "-device", "virtio-serial-pci,id=serial"),
    *("-device", "qemu-xhci,id=xhci", "-device", "VGA,id=vga", "-device", "e1000,id=e1000"),
    *("-blockdev", "null-co,node-name=disk1,size=1048576"),
    *("-device", "nvme,id=nvme,drive=disk1,serial=survey"),
    *("-chardev", "null,id=com1", "-device", "isa-serial,id=com,chardev=com1"),
)
MMIO_DEVICES = (
    *("-device", "virtio-net-device,id=net,netdev=net0", "-netdev", "user,id=net0"),
    *("-blockdev", "null-co,node-name=disk0,size=1048576"),
    *("-device", "virtio-blk-device,id=blk,drive=disk0"),
    *("-device", "virtio-scsi-device,id=scsi", "-device", "virtio-rng-device,id=rng"),
    *("-device", "virtio-balloon-device,id=balloon", "-device", "virtio-serial-device,id=serial"),
)
#: CPUs and memory of a surveyed machine: two, so that what follows the number of CPUs shows.
SMP = 2
MACHINE = ("-smp", str(SMP), "-m", "128")


def devices_of(machine: str) -> tuple[str, ...]:
    """The words of the typical device set of a machine type."""
    if machine == "none":
        return ()
    if machine == "isapc":
        return ("-m", "128")  # one CPU, no PCI, no virtio
    if machine == "microvm":
        return (*MACHINE, *MMIO_DEVICES)
    return (*MACHINE, *PCI_DEVICES) if machine.startswith(("pc", "q35")) else MACHINE


def host_value(family: str, type_: str, word: str) -> str:
    """Why a value is the host's and not QEMU's; empty when it is QEMU's."""
    return HOST_VALUES.get((family, type_, word)) or HOST_VALUES.get((family, "*", word)) or ""
