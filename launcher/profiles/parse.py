"""A mapping to a `Profile`: merge, fill, check, expand, resolve references, in that order."""

from __future__ import annotations

import os
import re

from launcher.errors import InputError, InputErrors, Place
from launcher.nodes import Mapping, Scalar, Sequence
from launcher.profiles.merge import beside, extend, override, substitute
from launcher.profiles.profile import Profile, Serial, Tpm
from launcher.profiles.references import TAGS, check_references
from launcher.profiles.shape import ID, ID_RULE, NAME, NAME_RULE, PROFILE, SHAPE
from launcher.profiles.shorts import Expander
from launcher.qapi import Checker, said

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from launcher.nodes import Node
    from launcher.profiles.merge import Read

_SECTIONS = (
    *("objects", "netdevs", "chardevs", "blockdevs", "devices"),
    *("audiodevs", "tpmdevs", "exports"),
)

#: Keys whose text is a path, by section; relative ones are seen from the file that holds them.
PATHS = {
    "objects": {"mem-path", "file", "filename", "dir"},
    "chardevs": {"path", "logfile", "input-path"},
    "blockdevs": {"filename"},
    "devices": {"romfile"},
    "netdevs": set(),
}
BOOT_PATHS = {"kernel", "initrd", "dtb", "firmware"}

#: What a machine is that only the storage daemon's profiles leave out.
_NOT_FOR_DAEMON = (
    *("machine", "accel", "cpu", "smp", "memory", "boot", "devices", "audiodevs", "tpmdevs"),
    "tpm",
    *("netdevs", "disk", "cdrom", "net", "serial", "guest-agent", "numa", "migration", "display"),
    *("rtc", "action", "run-with", "sandbox"),
)
#: A day: nobody waits longer for a guest to power down.
_LONGEST = 86_400

_ONLY_FOR_DAEMON = ("exports", "nbd-server")


def parse_profile(
    root: Mapping,
    read: Read,
    settings: Iterable[tuple[str, Node]] = (),
    platform: str = "",
    cache: str = "",
) -> Profile:
    """The profile that `root` describes.

    Args:
        root: the tree of the profile's file.
        read: reads another profile's tree, for `extends`.
        settings: (dotted path, value) pairs of `--set`.
        platform: of `--platform`; wins over the profile's own.
        cache: the folder that `${cache}` stands for.

    Raises:
        InputErrors: every mistake that was found, in file order.
    """
    mistakes: list[InputError] = []
    file = root.place.file
    tree = override(extend(root, read), settings)
    if platform:
        tree = override(tree, [("platform", Scalar(platform, Place("--platform")))])
    tree = substitute(tree, mistakes, cache)
    _forbid_line_breaks(tree, mistakes)
    checker = Checker(SHAPE)
    values = checker.check(PROFILE, tree, "")
    _add_news(mistakes, checker.mistakes)
    # Built even when mistakes were noted, so that all of them are told at once.
    found: list[InputError] = []
    profile = _build(tree, values or {}, file, found)
    _add_news(mistakes, found)
    if mistakes:
        raise InputErrors(mistakes)
    return profile


def _add_news(mistakes: list[InputError], found: list[InputError]) -> None:
    """Add what a later stage found, but for places that an earlier one has complained about.

    `memory: ${size}` with a misspelt variable is one mistake, and no mistake about sizes.
    """
    told = {mistake.place for mistake in mistakes}
    mistakes += [mistake for mistake in found if mistake.place not in told]


def _build(tree: Mapping, values: dict[str, Any], file: str, mistakes: list[InputError]) -> Profile:
    tool = values.get("tool", "qemu-system")
    _check_tool(tree, tool, mistakes)
    shorts = Expander(tree, mistakes)
    shorts.expand()
    sections: dict[str, dict[str, Mapping]] = {}
    for section in _SECTIONS:
        written = tree.get(section)
        known = entries(written, section, mistakes) if isinstance(written, Mapping) else {}
        known.update(shorts.sections.get(section, {}))
        paths = PATHS.get(section)
        if paths:
            known = {key: absolute(node, paths) for key, node in known.items()}
        sections[section] = known
    migration = tree.get("migration")
    parts = migration.items if isinstance(migration, Mapping) else {}
    serials = tuple(Serial(*serial) for serial in shorts.serials)
    profile = Profile(
        name=_name(tree, values, file, mistakes),
        file=file,
        platform=_platform(tree, mistakes),
        tool=tool,
        machine=_machine(tree, tool, shorts, mistakes),
        accels=_accels(tree, mistakes),
        cpu=_short_map(tree.get("cpu"), "model"),
        smp=_short_map(tree.get("smp"), "cpus"),
        memory=shorts.memory,
        boot=_boot(tree),
        objects=sections["objects"],
        netdevs=sections["netdevs"],
        chardevs=sections["chardevs"],
        blockdevs=sections["blockdevs"],
        devices=sections["devices"],
        audiodevs=sections["audiodevs"],
        tpmdevs=sections["tpmdevs"],
        exports=sections["exports"],
        nbd_server=_mapping_or_none(tree, "nbd-server", mistakes),
        numa=_mappings(tree.get("numa"), "numa", mistakes),
        serials=serials,
        agent=shorts.agent,
        migration_capabilities=_scalars(parts.get("capabilities")),
        migration_parameters=_scalars(parts.get("parameters")),
        migration_properties=_scalars(parts.get("properties")),
        action=_scalar_map(tree.get("action")),
        run_with=_mapping_or_none(tree, "run-with", mistakes),
        rtc=_mapping_or_none(tree, "rtc", mistakes),
        display=values.get("display") or "none",
        qemu=values.get("qemu"),
        uuid=_uuid(tree, mistakes),
        extra_args=tuple(values.get("extra-args") or ()),
        verify=values.get("verify") or "strict",
        sandbox=values.get("sandbox") is not False,
        powerdown_seconds=_powerdown_seconds(tree, values, mistakes),
        expansions=tuple(shorts.notes),
        tpm=_tpm(shorts),
    )
    check_references(profile, mistakes)
    return profile


def _check_tool(tree: Mapping, tool: str, mistakes: list[InputError]) -> None:
    wrong = _NOT_FOR_DAEMON if tool == "qemu-storage-daemon" else _ONLY_FOR_DAEMON
    for key in wrong:
        if key in tree.items:
            hint = "remove it" if tool != "qemu-system" else "write `tool: qemu-storage-daemon`"
            mistakes.append(
                InputError(f"{tool} has no {key!r}", place=tree.key_place(key), hint=hint)
            )


def _forbid_line_breaks(node: Node, mistakes: list[InputError], key: str = "") -> None:
    """No scalar that could reach argv, a file or a log holds a line break (peers' CVEs)."""
    if isinstance(node, Mapping):
        for name, item in node.items.items():
            if not name.startswith("x-") or key:
                if "\n" in name:
                    place = node.key_place(name)
                    mistakes.append(InputError("a key holds a line break", place=place))
                _forbid_line_breaks(item, mistakes, name)
    elif isinstance(node, Sequence):
        for item in node.items:
            _forbid_line_breaks(item, mistakes, key)
    elif "\n" in node.text or "\r" in node.text or "\0" in node.text:
        hint = "write it on one line"
        mistakes.append(InputError(f"{key} holds a line break", place=node.place, hint=hint))


def _name(tree: Mapping, values: dict[str, Any], file: str, mistakes: list[InputError]) -> str:
    name = values.get("name")
    if name is None:
        base = os.path.basename(file)
        name = base.partition(".")[0] if not file.startswith("<") else "machine"
        name = name or "machine"
    if not NAME.match(name):
        node = tree.get("name")
        mistakes.append(
            InputError(
                f"{name!r} cannot be a name",
                place=node.place if node else tree.place,
                hint=NAME_RULE,
            )
        )
    return str(name)


def _platform(tree: Mapping, mistakes: list[InputError]) -> Scalar:
    node = tree.get("platform")
    if isinstance(node, Scalar):
        return node
    if node is None:
        mistakes.append(
            InputError(
                "the profile needs 'platform'",
                place=tree.place,
                hint="`platform: debian-12` pins that floor's defaults; `native` pins nothing",
                code="missing",
            )
        )
    return Scalar("native", tree.place)


def _machine(tree: Mapping, tool: str, shorts: Expander, mistakes: list[InputError]) -> Mapping:
    node = tree.get("machine")
    if node is None:
        if tool == "qemu-system":
            words = "the profile needs 'machine'"
            mistakes.append(InputError(words, place=tree.place, hint=_MACHINE, code="missing"))
        return Mapping({}, tree.place, {})
    found = _short_map(node, "type")
    assert found is not None
    kind = found.get("type")
    if not isinstance(kind, Scalar) or kind.is_null:
        words = "machine needs 'type'"
        mistakes.append(InputError(words, place=node.place, hint=_MACHINE, code="missing"))
    if "ram" in shorts.sections["objects"] and "memory-backend" not in found.items:
        place = shorts.sections["objects"]["ram"].place
        items = {**found.items, "memory-backend": Scalar("ram", place)}
        found = Mapping(items, found.place, {**found.keys, "memory-backend": place})
    return found


_MACHINE = "write `machine: q35`, or a versioned type such as pc-q35-7.2"


def _accels(tree: Mapping, mistakes: list[InputError]) -> tuple[Mapping, ...]:
    node = tree.get("accel")
    if node is None:
        return ()
    items = node.items if isinstance(node, Sequence) else (node,)
    found = tuple(m for m in (_short_map(item, "accel") for item in items) if m is not None)
    for one in found:
        name = one.get("accel")
        if not isinstance(name, Scalar) or name.is_null:
            words, hint = "accel needs a name", "write `accel: tcg`, or `{accel: tcg, …}`"
            mistakes.append(InputError(words, place=one.place, hint=hint, code="missing"))
    if not found:
        hint = "leave it out to have kvm where it works, else tcg"
        mistakes.append(InputError("accel is an empty list", place=node.place, hint=hint))
    return found


def _short_map(node: Node | None, key: str) -> Mapping | None:
    """A map as it is; a scalar as the one key that it is short for."""
    if node is None or isinstance(node, Mapping):
        return node
    return Mapping({key: node}, node.place, {key: node.place})


def _boot(tree: Mapping) -> dict[str, Scalar]:
    return {
        key: _absolute_scalar(node) if key in BOOT_PATHS else node
        for key, node in _scalar_map(tree.get("boot")).items()
    }


def _tpm(shorts: Expander) -> Tpm | None:
    if shorts.tpm is None:
        return None
    key, state, version = shorts.tpm
    return Tpm(key, _absolute_scalar(state), version)


def _scalar_map(node: Node | None) -> dict[str, Scalar]:
    items = node.items if isinstance(node, Mapping) else {}
    return {k: n for k, n in items.items() if isinstance(n, Scalar)}


def _scalars(node: Node | None) -> dict[str, Node]:
    return dict(node.items) if isinstance(node, Mapping) else {}


def _mapping_or_none(tree: Mapping, key: str, mistakes: list[InputError]) -> Mapping | None:
    node = tree.get(key)
    if node is None or isinstance(node, Mapping):
        return node
    words = f"{key} must be a mapping of keys to values, not {said(node)}"
    hint = f"write it as `{key}: {{key: value}}`"
    mistakes.append(InputError(words, place=node.place, hint=hint))
    return None


def _mappings(node: Node | None, path: str, mistakes: list[InputError]) -> tuple[Mapping, ...]:
    found = []
    for number, item in enumerate(node.items if isinstance(node, Sequence) else ()):
        if isinstance(item, Mapping):
            found.append(item)
        else:
            words = f"{path}.{number} must be a mapping of keys to values, not {said(item)}"
            mistakes.append(InputError(words, place=item.place))
    return tuple(found)


def entries(node: Mapping, section: str, mistakes: list[InputError]) -> dict[str, Mapping]:
    """The entries of a section by id; notes what cannot be an id, or is no mapping."""
    found = {}
    for key, item in node.items.items():
        place = node.key_place(key)
        if not ID.match(key):
            mistakes.append(
                InputError(
                    f"{key!r} cannot be an id in {section}",
                    place=place,
                    hint=ID_RULE,
                    code="id",
                )
            )
        if not isinstance(item, Mapping):
            words = f"{section}.{key} must be a mapping of keys to values, not {said(item)}"
            hint = f"write it as `{{{TAGS[section]}: …}}`"
            mistakes.append(InputError(words, place=item.place, hint=hint, code="type"))
        elif (own := "node-name" if section == "blockdevs" else "id") in item.items:
            hint = f"the key {key!r} is the id"
            mistakes.append(
                InputError(f"{section}.{key} has {own!r}", place=item.key_place(own), hint=hint)
            )
        else:
            found[key] = item
    return found


def _powerdown_seconds(tree: Mapping, values: dict[str, Any], mistakes: list[InputError]) -> int:
    seconds = (values.get("stop") or {}).get("powerdown-seconds")
    if seconds is None:
        return 30
    if not 0 <= seconds <= _LONGEST:
        words = f"stop.powerdown-seconds must be between 0 and {_LONGEST}, not {seconds}"
        stop = tree.get("stop")
        place = stop.key_place("powerdown-seconds") if isinstance(stop, Mapping) else tree.place
        mistakes.append(InputError(words, place=place, hint="0 does not ask the guest"))
    return int(seconds)


def _uuid(tree: Mapping, mistakes: list[InputError]) -> str | None:
    node = tree.get("uuid")
    if not isinstance(node, Scalar):
        return None
    if not re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", node.text):
        hint = "write it as 8-4-4-4-12 hexadecimal digits"
        mistakes.append(InputError(f"{node.text!r} is not a UUID", place=node.place, hint=hint))
    return node.text.lower()


def _absolute_scalar(node: Scalar) -> Scalar:
    if node.text.startswith("${"):
        return node
    path = beside(node.place, node.text)
    return node if path == node.text else Scalar(path, node.place, node.plain)


def absolute(node: Mapping, paths: set[str]) -> Mapping:
    """`node` with each relative path made one that the launcher's own folder reaches."""
    items: dict[str, Node] = {}
    for key, item in node.items.items():
        if isinstance(item, Mapping):
            items[key] = absolute(item, paths)
        elif isinstance(item, Scalar) and key in paths and item.text:
            items[key] = _absolute_scalar(item)
        else:
            items[key] = item
    return Mapping(items, node.place, node.keys)
