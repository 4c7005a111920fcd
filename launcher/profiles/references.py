"""References between the parts of a profile: every name that is used exists, and is used right."""

from __future__ import annotations

from launcher.errors import InputError
from launcher.nodes import Mapping, Scalar
from launcher.qapi import nearest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from launcher.profiles.profile import Profile

#: Device property → (section that it names, what to call it, how its kind begins).
DEVICE_REFERENCES = {
    "netdev": ("netdevs", "netdev", ""),
    "drive": ("blockdevs", "block node", ""),
    "chardev": ("chardevs", "chardev", ""),
    "iothread": ("objects", "iothread", "iothread"),
    "memdev": ("objects", "memory backend", "memory-backend-"),
    "audiodev": ("audiodevs", "audiodev", ""),
    "tpmdev": ("tpmdevs", "TPM backend", ""),
    "rng": ("objects", "random number backend", "rng-"),
    "cryptodev": ("objects", "cryptodev backend", "cryptodev-"),
}
#: The same for other sections; a block node's `file` or `backing` may also be a nested node.
OTHER_REFERENCES = {
    "objects": {"netdev": ("netdevs", "netdev", ""), "chardev": ("chardevs", "chardev", "")},
    "netdevs": {
        "chardev": ("chardevs", "chardev", ""),
        "netdev": ("netdevs", "netdev", ""),
    },
    "tpmdevs": {"chardev": ("chardevs", "chardev", "")},
    "blockdevs": {
        "file": ("blockdevs", "block node", ""),
        "backing": ("blockdevs", "block node", ""),
        "throttle-group": ("objects", "throttle group", "throttle-group"),
    },
    "exports": {
        "node-name": ("blockdevs", "block node", ""),
        "iothread": ("objects", "iothread", "iothread"),
    },
}
_MEMORY = ("objects", "memory backend", "memory-backend-")


def check_references(profile: Profile, mistakes: list[InputError]) -> None:
    """Note each reference to something that the profile does not have, and each unused netdev."""
    for section, table in (("devices", DEVICE_REFERENCES), *OTHER_REFERENCES.items()):
        for key, node in getattr(profile, section).items():
            _check_entry(profile, node, f"{section}.{key}", table, mistakes)
    machine = profile.machine.get("memory-backend")
    if isinstance(machine, Scalar):
        _check_name(profile, machine, "machine.memory-backend", _MEMORY, mistakes)
    for number, node in enumerate(profile.numa):
        _check_entry(profile, node, f"numa.{number}", {"memdev": _MEMORY}, mistakes)
    _check_boot(profile, mistakes)
    _check_netdevs(profile, mistakes)
    _check_exports(profile, mistakes)
    _check_vocabulary(profile, mistakes)


def _check_boot(profile: Profile, mistakes: list[InputError]) -> None:
    """QEMU refuses these without a kernel, and its words do not say where."""
    for key in ("initrd", "append"):
        node = profile.boot.get(key)
        if node is not None and "kernel" not in profile.boot and not profile.extra_args:
            hint = "add boot.kernel, or remove it"
            words = f"boot.{key} needs boot.kernel"
            mistakes.append(InputError(words, place=node.place, hint=hint, code="missing"))


def _check_entry(
    profile: Profile,
    node: Mapping,
    path: str,
    table: dict[str, tuple[str, str, str]],
    mistakes: list[InputError],
) -> None:
    for key, item in node.items.items():
        if isinstance(item, Mapping):
            _check_entry(profile, item, f"{path}.{key}", table, mistakes)
        elif isinstance(item, Scalar) and key in table and not item.is_null:
            _check_name(profile, item, f"{path}.{key}", table[key], mistakes)


def _check_name(
    profile: Profile,
    node: Scalar,
    path: str,
    target: tuple[str, str, str],
    mistakes: list[InputError],
) -> None:
    section, what, start = target
    known = getattr(profile, section)
    # Raw arguments may define what the profile does not.
    if profile.extra_args and node.text not in known:
        return
    kinds = {key: entry.get(TAGS[section]) for key, entry in known.items()}
    fits = [
        key
        for key, kind in kinds.items()
        if not isinstance(kind, Scalar) or kind.text.startswith(start)
    ]
    if node.text in fits:
        return
    words = f"{path} names the {what} {node.text!r}, which the profile does not have"
    near = nearest(node.text, fits)
    hint = f"did you mean {near[0]}?" if near else f"add it under {section}"
    kind = kinds.get(node.text)
    if isinstance(kind, Scalar):
        words = f"{path} names {node.text!r}, which is a {kind.text}"
        hint = f"it takes {start}{'…' if start.endswith('-') else ''}"
    mistakes.append(InputError(words, place=node.place, hint=hint, code="reference"))


def _check_netdevs(profile: Profile, mistakes: list[InputError]) -> None:
    by_device: dict[str, str] = {}
    for key, node in profile.devices.items():
        for name in _named([node], "netdev"):
            if name in by_device:
                words = f"netdevs.{name} is used by devices.{by_device[name]} already"
                hint = "give each device a netdev of its own"
                mistakes.append(InputError(words, place=node.place, hint=hint, code="reference"))
            by_device.setdefault(name, key)
    used = by_device.keys() | set(_named(profile.netdevs.values(), "netdev"))
    for key, node in profile.netdevs.items():
        # The ports of a hub are used by each other.
        hub = node.get("hubid") is not None
        if key not in used and not hub and not profile.extra_args:
            mistakes.append(
                InputError(
                    f"netdevs.{key} is used by no device",
                    place=node.place,
                    hint=f"add a device with `netdev: {key}`, or remove it",
                    code="unused",
                )
            )


def _check_exports(profile: Profile, mistakes: list[InputError]) -> None:
    """NBD exports need the server, which QEMU would miss only after the daemon has started."""
    if profile.nbd_server is not None or profile.extra_args:
        return
    for key, node in profile.exports.items():
        kind = node.get("type")
        if isinstance(kind, Scalar) and kind.text == "nbd":
            words = f"exports.{key} is served over NBD, and the profile has no nbd-server"
            hint = 'add `nbd-server: {addr: {type: unix, data: {path: "${runtime}/nbd"}}}`'
            mistakes.append(InputError(words, place=kind.place, hint=hint, code="missing"))


def _named(nodes: Iterable[Mapping], key: str) -> Iterator[str]:
    for node in nodes:
        item = node.get(key)
        if isinstance(item, Scalar):
            yield item.text


#: The key in each section that says which kind it is.
TAGS = {
    "objects": "qom-type",
    "netdevs": "type",
    "chardevs": "backend",
    "blockdevs": "driver",
    "devices": "driver",
    "audiodevs": "driver",
    "tpmdevs": "type",
    "exports": "type",
}
_EXAMPLES = {
    "objects": "iothread",
    "netdevs": "user",
    "chardevs": "socket",
    "blockdevs": "qcow2",
    "devices": "virtio-rng-pci",
    "audiodevs": "none",
    "tpmdevs": "emulator",
    "exports": "nbd",
}


def _check_vocabulary(profile: Profile, mistakes: list[InputError]) -> None:
    """Every entry says what it is, in text."""
    for section, tag in TAGS.items():
        for key, node in getattr(profile, section).items():
            kind = node.get(tag)
            if not isinstance(kind, Scalar) or kind.is_null or not kind.text:
                hint = f"for instance `{tag}: {_EXAMPLES[section]}`"
                words = f"{section}.{key} needs {tag!r}"
                mistakes.append(InputError(words, place=node.place, hint=hint, code="missing"))
