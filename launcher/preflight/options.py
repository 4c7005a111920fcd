"""Command lines as entries: what a plan, a report or a lock file says of one end, in one form."""

from __future__ import annotations

from launcher.qapi import parse_json, parse_size
from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from launcher.plan import Plan

#: The key that an option's first word stands for, and the one that holds an entry's id.
TAGS = {
    "object": ("qom-type", "id"),
    "device": ("driver", "id"),
    "netdev": ("type", "id"),
    "chardev": ("backend", "id"),
    "blockdev": ("driver", "node-name"),
    "machine": ("type", ""),
    "cpu": ("model", ""),
    "smp": ("cpus", ""),
    "m": ("size", ""),
    "accel": ("accel", ""),
    "numa": ("type", ""),
    "drive": ("if", "id"),
}
#: Options that are entries of one kind, under the family's name.
_SINGLE = {"machine": "machine", "cpu": "cpu", "smp": "smp", "m": "memory", "accel": "accel"}
_BOOT = {"kernel": "kernel", "initrd": "initrd", "append": "append", "bios": "firmware"}
_FLAGS = frozenset(("S", "nodefaults", "no-user-config", "no-reboot", "no-shutdown", "nographic"))


@record
class Entry:
    """One thing of a machine: an object, a device, the machine itself; its members as text."""

    family: str
    type: str
    id: str
    members: dict[str, str]


def as_words(value: Any) -> str:
    """A value in QEMU's keyval spelling; two spellings of one value become the same."""
    if value is True or value in ("true", "yes"):
        return "on"
    if value is False or value in ("false", "no"):
        return "off"
    return "" if value is None else str(value)


def flat(members: dict[str, Any], head: str = "") -> dict[str, str]:
    """Nested members by dotted names."""
    found: dict[str, str] = {}
    for key, value in members.items():
        name = f"{head}{key}"
        if isinstance(value, dict):
            found |= flat(value, f"{name}.")
        elif isinstance(value, (list, tuple)):
            found |= flat({str(n): item for n, item in enumerate(value)}, f"{name}.")
        else:
            found[name] = as_words(value)
    return found


def parse_keyval(text: str, head: str) -> dict[str, str]:
    """`word,key=value,flag`, a doubled comma being one; `head` is the key of the first word."""
    found: dict[str, str] = {}
    for number, part in enumerate(text.replace(",,", "\0").split(",")):
        key, equals, value = part.replace("\0", ",").partition("=")
        if equals:
            found[key] = as_words(value)
        elif number == 0 and head:
            found[head] = key
        elif key:
            found[key] = "on"
    return found


def cpu_features(members: dict[str, str]) -> tuple[str, dict[str, str]]:
    """A CPU's model and its features, which may also stand with the model: `qemu64,+pmu,-apic`."""
    model, *words = members.get("model", "").split(",")
    found = {}
    for text in (*words, *(f"{key}={value}" for key, value in members.items() if key != "model")):
        name, _, value = text.partition("=")
        if name.startswith(("+", "-")):
            name, value = name[1:], "on" if name.startswith("+") else "off"
        found[name] = as_words(value or "on")
    return model, found


def entries_of_plan(plan: Plan) -> list[Entry]:
    """The entries of a plan, what `extra-args` added included."""
    found: list[Entry] = []
    for option in plan.options:
        name = option.name.lstrip("-")
        if option.form == "word":
            found += _entries(name, option.head)
        elif option.form in ("json", "keyval"):
            tag = TAGS.get(name, ("", ""))[0]
            head = {tag: option.head} if option.head and tag else {}
            found += _of_members(name, {**head, **flat(option.members)})
    return [*found, *entries_of_argv(plan.unplanned)]


def entries_of_argv(words: Iterable[str]) -> list[Entry]:
    """The entries of a command line, without its first word."""
    found: list[Entry] = []
    rest = iter(words)
    for word in rest:
        name = word.lstrip("-")
        if name not in _FLAGS:
            found += _entries(name, next(rest, ""))
    return found


def _entries(name: str, text: str) -> Iterator[Entry]:
    """What one option with its argument stands for."""
    if name in _BOOT:
        yield Entry("boot", "boot", "boot", {_BOOT[name]: text})
    elif name == "serial" and text != "none":
        yield Entry("device", "isa-serial", "", {"chardev": text})
    elif name == "icount":
        yield Entry("icount", "icount", "icount", parse_keyval(text, "shift"))
    elif name == "uuid":
        yield Entry("uuid", "uuid", "uuid", {"uuid": text})
    elif name == "global":
        head, _, value = text.partition("=")
        kind, _, key = head.partition(".")
        yield Entry("global", kind, kind, {key: as_words(value)})
    elif name in TAGS:
        try:
            members = flat(parse_json(text)) if text.startswith("{") else None
        except (ValueError, SystemError):  # CPython's scanner raises the latter for `{` alone
            members = None
        yield from _of_members(name, members or parse_keyval(text, TAGS[name][0]))


def _of_members(name: str, members: dict[str, str]) -> Iterator[Entry]:
    if name not in TAGS:
        return
    tag, id_key = TAGS[name]
    rest = {key: value for key, value in members.items() if key not in (tag, id_key)}
    if name in ("smp", "m"):
        rest = _counted(name, members)
    if name == "cpu":
        model, rest = cpu_features(members)
        members = {tag: model}
    family = _SINGLE.get(name, name)
    key = members.get(id_key, "") if id_key else family
    yield Entry(family, members.get(tag, "") if name not in ("smp", "m") else family, key, rest)


def _counted(name: str, members: dict[str, str]) -> dict[str, str]:
    """`-smp` with its `cpus`, `-m` with its size in bytes (a bare number counts MiB)."""
    if name == "smp":
        if "cpus" in members:
            return members
        product = 1
        for level in ("sockets", "dies", "clusters", "modules", "cores", "threads"):
            product *= int(members.get(level, "1")) if members.get(level, "1").isdigit() else 1
        return {"cpus": str(product), **members}
    sizes = {}
    for key, text in members.items():
        scaled = f"{text}M" if key != "slots" and text.isdigit() else text
        number = parse_size(scaled.removesuffix("B") if text.endswith("B") else scaled)
        sizes[key] = text if number is None else str(number)
    return sizes
