"""References between the parts of a profile: every name that is used exists, and is used right."""

from __future__ import annotations

from launcher.errors import InputError
from launcher.nodes import Mapping, Scalar
from launcher.qapi import nearest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from launcher.profiles.profile import Profile

#: Device property → (section that it names, what to call it).
_DEVICE_REFERENCES = {
    "netdev": ("netdevs", "netdev"),
    "drive": ("blockdevs", "block node"),
    "chardev": ("chardevs", "chardev"),
    "iothread": ("objects", "object"),
    "memdev": ("objects", "object"),
    "audiodev": ("audiodevs", "audiodev"),
    "tpmdev": ("tpmdevs", "TPM backend"),
    "rng": ("objects", "object"),
    "cryptodev": ("objects", "object"),
}
#: The same for other sections; a block node's `file` or `backing` may also be a nested node.
_OTHER_REFERENCES = {
    "netdevs": {"chardev": ("chardevs", "chardev")},
    "tpmdevs": {"chardev": ("chardevs", "chardev")},
    "blockdevs": {
        "file": ("blockdevs", "block node"),
        "backing": ("blockdevs", "block node"),
        "throttle-group": ("objects", "object"),
    },
    "exports": {"node-name": ("blockdevs", "block node"), "iothread": ("objects", "object")},
}


def check_references(profile: Profile, mistakes: list[InputError]) -> None:
    """Note each reference to something that the profile does not have, and each unused netdev."""
    for section, table in (("devices", _DEVICE_REFERENCES), *_OTHER_REFERENCES.items()):
        for key, node in getattr(profile, section).items():
            _check_entry(profile, node, f"{section}.{key}", table, mistakes)
    machine = profile.machine.get("memory-backend")
    if isinstance(machine, Scalar):
        _check_name(profile, machine, "machine.memory-backend", ("objects", "object"), mistakes)
    _check_netdevs(profile, mistakes)
    _check_vocabulary(profile, mistakes)


def _check_entry(
    profile: Profile,
    node: Mapping,
    path: str,
    table: dict[str, tuple[str, str]],
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
    target: tuple[str, str],
    mistakes: list[InputError],
) -> None:
    section, what = target
    known = getattr(profile, section)
    # Raw arguments may define what the profile does not.
    if node.text in known or profile.extra_args:
        return
    near = nearest(node.text, known)
    hint = f"did you mean {near[0]}?" if near else f"add it under {section}"
    mistakes.append(
        InputError(
            f"{path} names the {what} {node.text!r}, which the profile does not have",
            place=node.place,
            hint=hint,
            code="reference",
        )
    )


def _check_netdevs(profile: Profile, mistakes: list[InputError]) -> None:
    used = set(_named(profile.devices.values(), "netdev"))
    used |= set(_named(profile.netdevs.values(), "netdev"))
    for key, node in profile.netdevs.items():
        if key not in used and not profile.extra_args:
            mistakes.append(
                InputError(
                    f"netdevs.{key} is used by no device",
                    place=node.place,
                    hint=f"add a device with `netdev: {key}`, or remove it",
                    code="unused",
                )
            )


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


def _check_vocabulary(profile: Profile, mistakes: list[InputError]) -> None:
    """Every entry says what it is, in text."""
    for section, tag in TAGS.items():
        for key, node in getattr(profile, section).items():
            kind = node.get(tag)
            if not isinstance(kind, Scalar) or kind.is_null or not kind.text:
                mistakes.append(
                    InputError(f"{section}.{key} needs {tag!r}", place=node.place, code="missing")
                )
