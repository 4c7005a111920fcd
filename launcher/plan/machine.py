"""What the machine itself is: `-machine`, `-cpu`, `-smp`, `-m`, and what boots."""

from __future__ import annotations

from launcher.nodes import Mapping, Scalar, plain_value
from launcher.plan.model import Option, origin_of
from launcher.qapi import parse_integer, parse_size, said
from launcher.qapi.check import size_hint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from launcher.plan.decide import Decider

_MIB = 1 << 20
#: The size of RAM is a multiple of this, in bytes.
_RAM_STEP = 8192


def decide_machine(decider: Decider) -> None:
    """`-machine`, `-cpu`, `-smp`, `-m`, and what boots."""
    _machine(decider)
    _cpu(decider)
    _smp(decider)
    _memory(decider)
    _boot(decider)


def _machine(decider: Decider) -> None:
    machine = decider.machine
    assert machine is not None
    node = decider.profile.machine
    listed = decider.capabilities.properties(f"{machine.name}-machine")
    members: dict[str, Any] = {}
    for name, item in node.items.items():
        if name == "type":
            continue
        place = node.key_place(name)
        info = None if listed is None else listed.get(name)
        if info is not None:
            members[name] = decider.speaker.typed(info, item, f"machine.{name}")
        elif listed is None or name in _MACHINE_EXTRAS or "." in name:
            members[name] = plain_value(item)
        else:
            decider.speaker.unknown_word("machine", machine.name, name, place, frozenset(listed))
            continue
        decider.value("machine", machine.name, "machine", name, members[name], origin_of(place))
    decider.options.append(
        Option("-machine", "keyval", machine.name, members, "machine", node.place)
    )


#: Accepted by -machine and not a property of the machine (FACTS: not readable either).
_MACHINE_EXTRAS = ("kernel-irqchip", "memory-encryption", "confidential-guest-support")


def _cpu(decider: Decider) -> None:
    node = decider.profile.cpu
    if node is None:
        return
    model = node.get("model")
    if not isinstance(model, Scalar):
        decider.fail(node.place, "cpu needs 'model'", "write `cpu: max`", "missing")
        return
    members = {k: plain_value(n) for k, n in node.items.items() if k != "model"}
    _machine_value(decider, "cpu", "model", model.text, node)
    for key, value in members.items():
        _machine_value(decider, "cpu", key, value, node)
    decider.options.append(Option("-cpu", "keyval", model.text, members, "cpu", node.place))


def _machine_value(decider: Decider, option: str, key: str, value: Any, node: Mapping) -> None:
    """A value of an option that sets the machine's own: `-smp cpus=2` is `machine.smp.cpus`."""
    # With the short form the place is the option's own: `smp: 2` has no key `cpus`.
    place = node.key_place(key)
    decider.value("machine", option, "machine", f"{option}.{key}", value, origin_of(place))


def _smp(decider: Decider) -> None:
    node = decider.profile.smp
    decider.smp = 1
    if node is None:
        return
    members: dict[str, Any] = {}
    for key, item in node.items.items():
        number = parse_integer(item.text) if isinstance(item, Scalar) else None
        if number is None or not 0 < number <= 65535:
            words = f"smp.{key} must be a count above zero, not {said(item)}"
            decider.fail(item.place, words, "write `smp: 2`, or `smp: {cpus: 2}`")
            continue
        members[key] = number
        _machine_value(decider, "smp", key, number, node)
    decider.speaker.known_parameters("smp-opts", node, "smp")
    decider.smp = int(members.get("cpus", 1))
    decider.options.append(Option("-smp", "keyval", "", members, "smp", node.place))


def _memory(decider: Decider) -> None:
    node = decider.profile.memory
    if node is None:
        return
    members: dict[str, Any] = {}
    numbers: dict[str, int] = {}
    for key in ("size", "slots", "maxmem"):
        item = node.get(key)
        if item is None:
            continue
        text = item.text if isinstance(item, Scalar) else ""
        number = parse_integer(text) if key == "slots" else parse_size(text)
        if number is None or number < 0:
            wanted = "a count" if key == "slots" else "a size"
            words = f"memory.{key} must be {wanted}, not {said(item)}"
            decider.fail(item.place, words, size_hint(text))
            continue
        numbers[key] = number
        # -m counts MiB unless told otherwise.
        exact = number % _MIB
        members[key] = (
            number
            if key == "slots"
            else f"{number if exact else number // _MIB}" + ("B" if exact else "M")
        )
    _memory_values(decider, numbers, node)
    decider.options.append(Option("-m", "keyval", "", members, "memory", node.place))


def _memory_values(decider: Decider, numbers: dict[str, int], node: Mapping) -> None:
    """What the machine is to say of its RAM (QAPI: MemorySizeConfiguration)."""
    size, slots, most = (numbers.get(key, 0) for key in ("size", "slots", "maxmem"))
    told = (
        # QEMU rounds up (hw/core/machine.c, machine_set_mem).
        ("size", "size", -(-size // _RAM_STEP) * _RAM_STEP),
        # Left out of its answer where they add nothing (machine_get_mem).
        ("max-size", "maxmem", most if most > size else 0),
        ("slots", "slots", slots),
    )
    for name, key, number in told:
        if number:
            origin = origin_of(node.key_place(key))
            decider.value("machine", "memory", "machine", f"memory.{name}", number, origin)


_BOOT_OPTIONS = {
    "kernel": "-kernel",
    "initrd": "-initrd",
    "append": "-append",
    "dtb": "-dtb",
    "firmware": "-bios",
}


def _boot(decider: Decider) -> None:
    boot = decider.profile.boot
    for key, option in _BOOT_OPTIONS.items():
        node = boot.get(key)
        if node is not None:
            place, path = node.place, f"boot.{key}"
            decider.options.append(Option(option, "word", node.text, {}, path, place))
    members: dict[str, Any] = {k: plain_value(boot[k]) for k in ("order", "menu") if k in boot}
    if members:
        place = boot[next(iter(members))].place
        decider.options.append(Option("-boot", "keyval", "", members, "boot", place))
