"""Which accelerator runs the guest: the first of the profile's list that really does."""

from __future__ import annotations

from launcher.errors import HostError, InputErrors
from launcher.nodes import Mapping, Scalar, plain_value
from launcher.plan.model import Option, origin_of
from launcher.platforms import rename_for
from launcher.qapi import suggest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from launcher.errors import Place
    from launcher.nodes import Node
    from launcher.plan.decide import Decider

#: Every accelerator that some QEMU has (its accel/ folder); other names are mistakes.
_ACCELERATORS = ("hax", "hvf", "kvm", "mshv", "nitro", "nvmm", "qtest", "tcg", "whpx", "xen")

#: What a profile without `accel` asks for.
_USUAL = ("kvm", "tcg")


def decide_accel(decider: Decider) -> tuple[str, str]:
    """The accelerator's name and, in a sentence, why it was chosen. Adds `-accel`.

    Raises:
        InputErrors: the profile names something that is no accelerator of any QEMU.
        HostError: none of the profile's accelerators runs a guest here; names the broken rung.
    """
    profile = decider.profile
    place = profile.machine.place
    entries = profile.accels or tuple(
        Mapping({"accel": Scalar(name, place)}, place, {}) for name in _USUAL
    )
    passed_over: list[str] = []
    _check_names(decider, entries)
    for entry in entries:
        name = _name(entry)
        works, reason = _works(decider, name)
        if works:
            _add(decider, entry, name, given=bool(profile.accels))
            return name, "; ".join([*passed_over, reason] if reason else passed_over)
        passed_over.append(reason)
    if decider.speaker.mistakes:
        raise InputErrors(decider.speaker.mistakes)
    raise HostError(
        f"accel {', '.join(_name(e) for e in entries)} cannot run a guest here: "
        f"{'; '.join(passed_over)}",
        place=entries[0].place,
        hint="use `accel: [kvm, tcg]` to fall back to emulation",
        code="accel",
    )


def _check_names(decider: Decider, entries: tuple[Mapping, ...]) -> None:
    """A misspelt `kvm` must not silently become the next one of the list.

    Raises:
        InputErrors: with every mistake that was found so far, because nothing can be decided.
    """
    for entry in entries:
        name = _name(entry)
        if name not in _ACCELERATORS:
            hint = suggest(name, _ACCELERATORS)
            place = entry.items["accel"].place
            decider.fail(place, f"there is no accelerator {name!r}", hint, "accel")
    if any(_name(entry) not in _ACCELERATORS for entry in entries):
        raise InputErrors(decider.speaker.mistakes)


def _name(entry: Mapping) -> str:
    node = entry.get("accel")
    return node.text if isinstance(node, Scalar) else ""


def _works(decider: Decider, name: str) -> tuple[bool, str]:
    if f"{name}-accel" not in decider.capabilities.types:
        return False, f"this QEMU has no accelerator {name!r}"
    if name != "kvm":
        return True, ""
    verdict, reason = decider.host.kvm
    return verdict is not False, f"kvm: {reason}" if verdict is False else ""


def _add(decider: Decider, entry: Mapping, name: str, *, given: bool) -> None:
    texts = {n: i.text for n, i in entry.items.items() if isinstance(i, Scalar) and n != "accel"}
    members: dict[str, Any] = {}
    known = decider.speaker.known_words("accel", name)
    for key, node in entry.items.items():
        if key == "accel" or _own_option(decider, name, key, node):
            continue
        if known is not None and key not in known:
            decider.speaker.unknown_word("accel", name, key, entry.key_place(key), known)
            continue
        members[key] = plain_value(node)
        decider.value("accel", name, name, key, members[key], origin_of(entry.key_place(key)))
    for pinned in decider.pins_for("accel", name, name, texts):
        members[pinned.pin.property] = pinned.text
        origin = decider.origin(pinned.pin)
        decider.value("accel", name, name, pinned.pin.property, pinned.text, origin)
    place: Place | None = entry.place if given else None
    decider.options.append(Option("-accel", "keyval", name, members, "accel", place))
    _check_cpu(decider, name)


def _own_option(decider: Decider, name: str, key: str, node: Node) -> bool:
    """A property that an older QEMU has as an option of its own, such as `-singlestep`."""
    rename = rename_for(decider.catalogue, "accel", name, key, decider.version)
    if rename is None or not rename.old.startswith("-"):
        return False
    if plain_value(node) is True:
        place = node.place
        decider.options.append(Option(rename.old, "flag", "", {}, f"accel.{key}", place))
    decider.value("accel", name, name, key, plain_value(node), origin_of(node.place))
    return True


def _check_cpu(decider: Decider, name: str) -> None:
    """`cpu: host` has a meaning only where the guest's instructions run on the host's CPU."""
    cpu = decider.profile.cpu
    model = cpu.get("model") if cpu else None
    if name == "tcg" and isinstance(model, Scalar) and model.text == "host":
        reason = decider.host.kvm[1]
        decider.fail(
            model.place,
            f"cpu: host needs kvm, and tcg was chosen ({reason})",
            "use `cpu: max`, which each accelerator fills with all that it has",
            "accel",
        )
