"""A planned option as the QMP command that does the same to a QEMU that runs. Decides nothing.

-object, -netdev, -blockdev and -device have the words of object-add, netdev_add, blockdev-add and
device_add. -chardev has words of its own: chardev-add nests them (QAPI: ChardevBackend).
"""

from __future__ import annotations

from launcher.errors import InputError, InputErrors, Place
from launcher.nodes import from_python
from launcher.plan.addition import members
from launcher.qapi import Checker
from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from launcher.plan import Option
    from launcher.qapi import Schema

#: Section → how one of its entries comes and goes, and what its id is called then.
COMMANDS = {
    "objects": ("object-add", "object-del", "id"),
    "chardevs": ("chardev-add", "chardev-remove", "id"),
    "blockdevs": ("blockdev-add", "blockdev-del", "node-name"),
    "netdevs": ("netdev_add", "netdev_del", "id"),
    "devices": ("device_add", "device_del", "id"),
}


@record
class Step:
    """One entry on its way in, and out again.

    Attributes:
        section, id: which.
        command, arguments: what adds it.
        option: what it was planned as.
    """

    section: str
    id: str
    command: str
    arguments: dict[str, Any]
    option: Option


def removal(section: str, key: str) -> tuple[str, dict[str, Any]]:
    """The command that takes an entry away, and its arguments."""
    _, command, id_member = COMMANDS[section]
    return command, {id_member: key}


def step_of(option: Option, schema: Schema) -> Step:
    """The command that adds what an option describes.

    Args:
        option: of a plan.
        schema: the binary's.

    Raises:
        InputErrors: QMP cannot do what the command line can.
    """
    section = option.path.partition(".")[0]
    command, _, id_member = COMMANDS[section]
    kind, key, rest = members(option)
    if section == "chardevs":
        return Step(section, key, command, _chardev(option, kind, key, rest, schema), option)
    tag = {"objects": "qom-type", "netdevs": "type"}.get(section, "driver")
    root = schema.argument_type(command)
    if section == "objects" and root is not None and "props" in schema.members(root):
        # Until 5.2 what makes the object stands apart from what it gets (QAPI: object-add).
        rest = {"props": rest} if rest else {}
    return Step(section, key, command, {tag: kind, id_member: key, **rest}, option)


# -- character devices ----------------------------------------------------------------------------

#: Members that every backend has (QAPI: ChardevCommon).
_COMMON = ("logfile", "logappend")
_INET = ("host", "port", "to", "ipv4", "ipv6", "keep-alive", "mptcp")
#: -chardev's words for QAPI's, by backend; the others have the same.
_RENAMED = {
    "file": {"path": "out", "input-path": "in"},
    "pipe": {"path": "device"},
    "serial": {"path": "device"},
    "parallel": {"path": "device"},
    "spicevmc": {"name": "type"},
    "spiceport": {"name": "fqdn"},
}


def _chardev(
    option: Option, kind: str, key: str, words: dict[str, Any], schema: Schema
) -> dict[str, Any]:
    place = option.place or Place("")
    if words.pop("mux", False):
        raise _cannot(option, "a multiplexed chardev can only be had at start")
    data = _SHAPES.get(kind, _flat)(option, kind, words)
    wanted = {"id": key, "backend": {"type": kind, "data": data}}
    checker = Checker(schema)
    root = schema.argument_type("chardev-add")
    assert root is not None
    checked = checker.check(root, from_python(wanted, place), option.path, f"chardev {kind}")
    if checker.mistakes:
        raise InputErrors(checker.mistakes)
    return dict(checked)


def _flat(_option: Option, kind: str, words: dict[str, Any]) -> dict[str, Any]:
    renamed = _RENAMED.get(kind, {})
    return {renamed.get(name, name): item for name, item in words.items()}


def _socket(option: Option, _kind: str, words: dict[str, Any]) -> dict[str, Any]:
    server = words.setdefault("server", False)
    if server and words.get("wait"):  # QMP's default is not to
        raise _cannot(option, "QEMU would stand still until somebody connects", "wait: off")
    address = _address(words)
    if "delay" in words:
        words["nodelay"] = not words.pop("delay")
    return {"addr": address, **words}


def _udp(_option: Option, _kind: str, words: dict[str, Any]) -> dict[str, Any]:
    local = {
        name: str(words.pop(f"local{short}", usual))
        for name, short, usual in (("host", "addr", ""), ("port", "port", "0"))
        if {"localaddr", "localport"} & words.keys() or f"local{short}" in words
    }
    remote = _address({"host": "localhost", **words})
    rest = {name: item for name, item in words.items() if name in _COMMON}
    both = {"remote": remote}
    if local:
        both["local"] = {"type": "inet", "data": {"host": "", "port": "0", **local}}
    return {**both, **rest}


def _address(words: dict[str, Any]) -> dict[str, Any]:
    """Takes an address out of `words` (QAPI: SocketAddressLegacy)."""
    names: tuple[str, ...]
    if "path" in words:
        names, kind = ("path", "abstract", "tight"), "unix"
    elif "fd" in words:
        return {"type": "fd", "data": {"str": str(words.pop("fd"))}}
    else:
        names, kind = _INET, "inet"
        words.setdefault("host", "")
    data = {name: words.pop(name) for name in names if name in words}
    return {"type": kind, "data": data}


_SHAPES: dict[str, Callable[[Option, str, dict[str, Any]], dict[str, Any]]] = {
    "socket": _socket,
    "udp": _udp,
}


def _cannot(option: Option, words: str, write: str = "") -> InputError:
    hint = f"write `{write}`" if write else "write it into the profile"
    return InputError(f"{option.path}: {words}", place=option.place, hint=hint, code="plug")
