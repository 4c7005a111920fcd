"""Options, section by section: one small function each, in the order of the command line."""

from __future__ import annotations

from launcher.nodes import Mapping, Scalar, plain_value
from launcher.plan.decide import HIDDEN
from launcher.plan.model import Descriptor, InheritedFd, Option, Setup, origin_of
from launcher.plan.words import TAGS
from launcher.platforms import has_option, rename_for
from launcher.qapi import parse_boolean
from launcher.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from launcher.plan.decide import Decider


def decide_process(decider: Decider, uuid: str) -> None:
    """What every system emulator is started with, and who it is."""
    profile = decider.profile
    add = decider.options.append
    add(Option("-no-user-config", "flag", "", {}, "launcher"))
    add(Option("-nodefaults", "flag", "", {}, "launcher"))
    # The guest's name is also shown to the guest by some firmware; `guest=` keeps commas apart.
    add(Option("-name", "keyval", "", {"guest": profile.name}, "name"))
    add(Option("-uuid", "word", profile.uuid or uuid, {}, "uuid"))
    add(Option("-S", "flag", "", {}, "launcher"))
    add(Option("-display", "word", profile.display, {}, "display"))
    if profile.rtc is not None:
        decider.speaker.known_parameters("rtc", profile.rtc, "rtc")
        add(Option("-rtc", "keyval", "", plain_value(profile.rtc), "rtc", profile.rtc.place))
    _sandbox(decider)
    _run_with(decider)
    _action(decider)


def _sandbox(decider: Decider) -> None:
    """`-sandbox` with everything denied that this profile does not itself need."""
    profile = decider.profile
    if not profile.sandbox:
        return
    if decider.capabilities.option_parameters("sandbox") is None:
        decider.notes.append("this QEMU was built without seccomp: it runs without a sandbox")
        return
    # QEMU runs a tap's scripts itself unless told not to, and drops its uid after the sandbox.
    scripts = any(
        _kind(node, "type") == "tap"
        and not all(_kind(node, name) == "no" for name in ("script", "downscript"))
        and "fd" not in node.items
        for node in profile.netdevs.values()
    )
    members = {
        "obsolete": "deny",
        "elevateprivileges": "deny" if profile.run_with is None else "allow",
        "spawn": "allow" if scripts else "deny",
        "resourcecontrol": "deny",
    }
    decider.options.append(Option("-sandbox", "keyval", "on", members, "sandbox"))


def _run_with(decider: Decider) -> None:
    """`-run-with`, or the options it replaced on binaries without it."""
    node = decider.profile.run_with
    if node is None:
        return
    known = decider.capabilities.option_parameters("run-with") or frozenset()
    members = {}
    for key, item in node.items.items():
        rename = rename_for(decider.catalogue, "command-line", "run-with", key, decider.version)
        text = item.text if isinstance(item, Scalar) else ""
        if rename is not None:
            path, option = f"run-with.{key}", f"-{rename.old}"
            if rename.old != "async-teardown":
                decider.options.append(Option(option, "word", text, {}, path, item.place))
            elif parse_boolean(text):
                decider.options.append(Option(option, "flag", "", {}, path, item.place))
        elif key in known:
            members[key] = plain_value(item)
        else:
            decider.speaker.unknown_word(
                "command-line", "run-with", key, node.key_place(key), known
            )
    if members:
        decider.options.append(Option("-run-with", "keyval", "", members, "run-with", node.place))


def _action(decider: Decider) -> None:
    """`-action`, since QEMU 6.0; before it only two of its values had an option of their own."""
    older = {("reboot", "shutdown"): "-no-reboot", ("shutdown", "pause"): "-no-shutdown"}
    usual = {"reboot": "reset", "shutdown": "poweroff", "panic": "shutdown"}
    action = decider.profile.action
    if not action:
        return
    if has_option(decider.catalogue, "action", decider.version):
        place = next(iter(action.values())).place
        given = Mapping(dict(action), place, {})
        members = decider.speaker.arguments("set-action", given, "action")
        decider.options.append(Option("-action", "keyval", "", members, "action", place))
        return
    for key, node in action.items():
        option = older.get((key, node.text))
        if option is not None:
            decider.options.append(Option(option, "flag", "", {}, f"action.{key}", node.place))
        elif usual.get(key) != node.text:
            decider.fail(
                node.place,
                f"QEMU {decider.version} cannot express action.{key}: {node.text}",
                "it knows reboot: shutdown and shutdown: pause; -action exists since QEMU 6.0",
            )


# -- entries --------------------------------------------------------------------------------------


def decide_sections(decider: Decider) -> None:
    """Everything that has an id, in the order in which references need it."""
    _objects(decider)
    _numa(decider)
    _chardevs(decider)
    _simple(decider, "tpmdev", decider.profile.tpmdevs, "-tpmdev")
    _simple(decider, "audiodev", decider.profile.audiodevs, "-audiodev")
    _blockdevs(decider)
    _simple(decider, "netdev", decider.profile.netdevs, "-netdev")
    _devices(decider)
    for serial in decider.profile.serials:
        word = f"chardev:{serial.chardev}"
        decider.options.append(Option("-serial", "word", word, {}, "serial", serial.place))
    _exports(decider)


def _dash(decider: Decider, option: str) -> str:
    """The storage daemon spells its options with two dashes."""
    return f"-{option}" if decider.profile.tool == "qemu-storage-daemon" else option


def _add(
    decider: Decider,
    option: str,
    kind: str,
    key: str,
    members: dict[str, Any],
    node: Mapping,
    path: str,
) -> None:
    """One entry as an option in the form that the binary takes."""
    tag, id_member = TAGS[path.partition(".")[0].removesuffix("s")]
    form = decider.form(option.lstrip("-"))
    if form == "json":
        whole = {tag: kind, id_member: key, **members}
        made = Option(_dash(decider, option), "json", "", whole, path, node.place)
    else:
        made = Option(
            _dash(decider, option), "keyval", kind, {id_member: key, **members}, path, node.place
        )
    decider.options.append(made)


def _kind(node: Mapping, tag: str) -> str:
    found = node.get(tag)
    return found.text if isinstance(found, Scalar) else ""


def _simple(decider: Decider, family: str, entries: dict[str, Mapping], option: str) -> None:
    tag = TAGS[family][0]
    for key, node in entries.items():
        path = f"{family}s.{key}"
        members = decider.entry(family, key, node, path)
        if members is not None:
            _add(decider, option, _kind(node, tag), key, members, node, path)


def _objects(decider: Decider) -> None:
    for key, node in decider.profile.objects.items():
        path = f"objects.{key}"
        members = decider.entry("object", key, node, path)
        if members is None:
            continue
        kind = _kind(node, "qom-type")
        if kind == "secret" and "data" in members:
            _hide(decider, key, members)
        _add(decider, "-object", kind, key, members, node, path)


def _hide(decider: Decider, key: str, members: dict[str, Any]) -> None:
    """A secret's content goes through a descriptor: argv is readable by everyone on the host."""
    name = f"secret-{key}"
    decider.wants.append(InheritedFd("secret", name, str(members.pop("data"))))
    members["file"] = Descriptor(name)
    decider.values[:] = [
        replace(v, value=HIDDEN, written=HIDDEN)
        if (v.family, v.id, v.property) == ("object", key, "data")
        else v
        for v in decider.values
    ]


def _numa(decider: Decider) -> None:
    for number, node in enumerate(decider.profile.numa):
        path = f"numa.{number}"
        members = decider.speaker.arguments("set-numa-node", node, path)
        kind = members.pop("type", "")
        if "mem" in members:
            # Without a suffix QEMU counts this one in MiB (hw/core/numa.c, parse_numa_node).
            members["mem"] = f"{members['mem']}B"
        decider.options.append(Option("-numa", "keyval", kind, members, path, node.place))


def _chardevs(decider: Decider) -> None:
    ours = {serial.chardev for serial in decider.profile.serials if serial.ours}
    ours.add(decider.profile.agent)
    for key, node in decider.profile.chardevs.items():
        path = f"chardevs.{key}"
        members = decider.entry("chardev", key, node, path)
        if members is None:
            continue
        if key in ours:
            members["fd"] = Descriptor(key)
            decider.wants.append(InheritedFd("socketpair", key))
        elif decider.profile.tpm is not None and key == decider.profile.tpm.chardev:
            members["fd"] = Descriptor(key)
            decider.wants.append(InheritedFd("helper", key))
        _add(decider, "-chardev", _kind(node, "backend"), key, members, node, path)


def _blockdevs(decider: Decider) -> None:
    for key, node in decider.profile.blockdevs.items():
        path = f"blockdevs.{key}"
        members = decider.entry("blockdev", key, node, path)
        if members is not None:
            _add(decider, "-blockdev", _kind(node, "driver"), key, members, node, path)


def _devices(decider: Decider) -> None:
    for key, node in decider.profile.devices.items():
        path = f"devices.{key}"
        backend = decider.profile.netdevs.get(_kind(node, "netdev"))
        netdev = _kind(backend, "type") if backend is not None else None
        members = decider.entry("device", key, node, path, netdev)
        if members is not None:
            _add(decider, "-device", _kind(node, "driver"), key, members, node, path)


def _exports(decider: Decider) -> None:
    """The storage daemon's exports, over QMP: its options take JSON only from 6.0 on."""
    server = decider.profile.nbd_server
    if server is not None:
        arguments = decider.speaker.arguments("nbd-server-start", server, "nbd-server")
        place = server.place
        decider.setup.append(Setup("nbd-server-start", arguments, "nbd-server", place))
    for key, node in decider.profile.exports.items():
        members = decider.entry("export", key, node, f"exports.{key}")
        if members is not None:
            kind = _kind(node, "type")
            decider.value("export", kind, key, "type", kind, origin_of(node.key_place("type")))
            arguments = {"type": kind, "id": key, **members}
            path = f"exports.{key}"
            decider.setup.append(Setup("block-export-add", arguments, path, node.place))
