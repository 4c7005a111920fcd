"""What is added to a machine that runs, in the shape of a profile; and who uses what of one."""

from __future__ import annotations

import re

from launcher.errors import InputError, InputErrors
from launcher.nodes import Mapping, Scalar, Sequence
from launcher.profiles.parse import PATHS, absolute, entries
from launcher.profiles.references import DEVICE_REFERENCES, OTHER_REFERENCES, check_references
from launcher.profiles.shorts import Expander
from launcher.qapi import said, suggest
from launcher.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from launcher.nodes import Node
    from launcher.profiles.profile import Profile

    #: (section, id)
    Entry = tuple[str, str]

#: What QEMU can be given while it runs, in the order in which one part may name another.
SECTIONS = ("objects", "chardevs", "blockdevs", "netdevs", "devices")
_SHORTS = {"disk": "blockdevs", "net": "netdevs"}
#: On these machines a PCI device is plugged into a port of its own (docs/pcie.txt).
_PCIE = "q35"
_PORT = "pcie-root-port"
#: Keys that name an object wherever they stand (QAPI); so do those that end in `-secret`.
_OBJECTS = ("tls-creds", "tls-authz", "keyid", "prealloc-context", "iothread")


def with_addition(profile: Profile, added: Mapping) -> Profile:
    """`profile` with more entries, checked as those that it has.

    Args:
        profile: what runs.
        added: sections of a profile, `disk` and `net`.

    Raises:
        InputErrors: every mistake that was found.
    """
    mistakes: list[InputError] = []
    for key in added.items:
        if key not in (*SECTIONS, *_SHORTS):
            words, hint = f"{key!r} cannot be plugged", suggest(key, (*SECTIONS, *_SHORTS))
            mistakes.append(InputError(words, place=added.key_place(key), hint=hint))
    given = {section: _given(added, section, mistakes) for section in SECTIONS}
    shorts = _shorts(profile, added, given, mistakes)
    merged = {}
    for section in SECTIONS:
        known = getattr(profile, section)
        for key, node in given[section].items():
            if key in known:
                words = f"{section}.{key} exists already"
                hint = "give it another id, or unplug the other one first"
                mistakes.append(InputError(words, place=node.place, hint=hint, code="id"))
        new = {**given[section], **shorts[section]}
        paths = PATHS[section]
        merged[section] = {**known, **{k: absolute(n, paths) for k, n in new.items()}}
    whole = replace(profile, **merged)
    found: list[InputError] = []
    check_references(whole, found)
    # A backend may be there before the device that will use it.
    mistakes += [mistake for mistake in found if mistake.code != "unused"]
    if mistakes:
        raise InputErrors(mistakes)
    return whole


def without(profile: Profile, gone: set[Entry]) -> Profile:
    """`profile` without some entries."""
    left = {}
    for section in SECTIONS:
        known = getattr(profile, section)
        left[section] = {key: node for key, node in known.items() if (section, key) not in gone}
    return replace(profile, **left)


def _given(added: Mapping, section: str, mistakes: list[InputError]) -> dict[str, Mapping]:
    node = added.get(section)
    if node is None:
        return {}
    if isinstance(node, Mapping):
        return entries(node, section, mistakes)
    words = f"{section} must be a mapping from ids to entries, not {said(node)}"
    mistakes.append(InputError(words, place=node.place, code="type"))
    return {}


def _shorts(
    profile: Profile,
    added: Mapping,
    given: dict[str, dict[str, Mapping]],
    mistakes: list[InputError],
) -> dict[str, dict[str, Mapping]]:
    """What the short forms become; they are numbered behind those that are there."""
    here = added.place
    root: dict[str, Node] = {"machine": profile.machine}
    for section in SECTIONS:
        root[section] = Mapping({**getattr(profile, section), **given[section]}, here, {})
    first = {}
    for key, section in _SHORTS.items():
        node = added.get(key)
        if node is not None:
            root[key] = node
        first[key] = _free_number(key, (*getattr(profile, section), *given[section]))
    shorts = Expander(Mapping(root, here, {}), mistakes, first)
    shorts.expand()
    if _PCIE in shorts.machine:
        _choose_ports(profile, given["devices"], shorts.sections["devices"])
    return shorts.sections


def _free_number(name: str, taken: tuple[str, ...]) -> int:
    numbers = [int(m[1]) for key in taken if (m := re.fullmatch(rf"{name}(\d{{1,9}})", key))]
    return max(numbers, default=-1) + 1


def _choose_ports(profile: Profile, given: dict[str, Mapping], made: dict[str, Mapping]) -> None:
    """Give each device of a short form a free root port, as long as there are any."""
    free = free_ports(profile)
    taken = {_text(node, "bus") for node in (*given.values(), *made.values())}
    ports = iter([port for port in free if port not in taken])
    for key, node in made.items():
        if "bus" not in node.items and (port := next(ports, None)) is not None:
            made[key] = Mapping(
                {**node.items, "bus": Scalar(port, node.place)}, node.place, node.keys
            )


def free_ports(profile: Profile) -> list[str]:
    """The root ports of a profile into which a device can be plugged."""
    taken = {_text(node, "bus") for node in profile.devices.values()}
    return [
        key
        for key, node in profile.devices.items()
        if _text(node, "driver") == _PORT and key not in taken
    ]


def _text(node: Mapping, key: str) -> str:
    found = node.get(key)
    return found.text if isinstance(found, Scalar) else ""


# -- who uses what --------------------------------------------------------------------------------


def uses(profile: Profile) -> dict[Entry, set[Entry]]:
    """Each entry that is named by others, with those that name it; `machine` is one of them."""
    found: dict[Entry, set[Entry]] = {}
    sections = {"devices": DEVICE_REFERENCES, **OTHER_REFERENCES}
    for section, table in sections.items():
        for key, node in getattr(profile, section).items():
            for name, text in _names(node):
                other = "objects" if name in _OBJECTS or name.endswith("-secret") else ""
                if name in table or other:
                    named = (table[name][0] if name in table else other, text)
                    found.setdefault(named, set()).add((section, key))
    for key, node in profile.devices.items():
        bus = _text(node, "bus").partition(".")[0]
        if bus in profile.devices:
            found.setdefault(("devices", bus), set()).add(("devices", key))
    machine = _text(profile.machine, "memory-backend")
    backends = [machine, *(_text(node, "memdev") for node in profile.numa)]
    for name in backends:
        found.setdefault(("objects", name), set()).add(("machine", ""))
    ours = [(serial.chardev, "serial") for serial in profile.serials]
    if profile.agent:
        ours.append((profile.agent, "guest-agent"))
    for chardev, user in ours:
        found.setdefault(("chardevs", chardev), set()).add((user, ""))
    return found


def _names(node: Node) -> Iterator[tuple[str, str]]:
    """The (key, text) pairs of a node, at any depth."""
    if isinstance(node, Sequence):
        for item in node.items:
            yield from _names(item)
    elif isinstance(node, Mapping):
        for key, item in node.items.items():
            if isinstance(item, Scalar):
                yield key, item.text
            else:
                yield from _names(item)
