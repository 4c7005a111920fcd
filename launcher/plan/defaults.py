"""A platform's defaults on one binary: its words, its types, and its QMP commands' JSON Schema.

What `make_plan` pins for an entry is what stands here for its kind; a test compares the two for
every platform and recorded binary.
"""

from __future__ import annotations

from launcher.nodes import Scalar, plain_value
from launcher.plan.typed import typed
from launcher.plan.words import Speaker
from launcher.platforms import (
    Impossible,
    Omitted,
    Written,
    parse_qemu_version,
    rename_for,
    spell,
)
from launcher.platforms.defaults import SPOTS, TEMPLATES
from launcher.qapi import Checker
from launcher.qapi.commands import Default, command_schema
from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from launcher.capabilities import Capabilities
    from launcher.platforms import Catalogue, Pin
    from launcher.platforms.spell import Spelling

#: Tools that have some families only.
_FAMILIES = {"qemu-storage-daemon": ("object", "chardev", "blockdev", "export")}


@record
class Here:
    """What one pin is on one binary.

    `status`: `written`, `omitted`, `impossible`, or `absent` when the binary has no such type.
    `member` and `default` are in the binary's words; a template (`${smp}`) stays one.
    """

    pin: Pin
    status: str
    member: str
    default: Any
    reason: str
    when: tuple[tuple[str, tuple[Any, ...]], ...] = ()


def defaults_on(
    pins: Iterable[Pin], catalogue: Catalogue, capabilities: Capabilities
) -> list[Here]:
    """Each pin as a plan writes it on this binary."""
    version = parse_qemu_version(capabilities.version)
    speaker = Speaker(catalogue, capabilities, version)
    return [_here(pin, speaker) for pin in pins]


def _here(pin: Pin, speaker: Speaker) -> Here:
    family = pin.family
    kinds = _kinds(family, speaker)
    if kinds is not None and pin.type not in kinds:
        tool = speaker.capabilities.tool if speaker.capabilities.tool in _FAMILIES else "QEMU"
        return _nothing(pin, "absent", f"{tool} {speaker.version} has no {family} {pin.type}")
    spelled = _spell(pin, speaker)
    if isinstance(spelled, Omitted):
        return _nothing(pin, "omitted", spelled.reason)
    if isinstance(spelled, Impossible):
        return _nothing(pin, "impossible", spelled.reason)
    rename = rename_for(speaker.catalogue, family, pin.type, pin.property, speaker.version)
    if rename is None:
        return _written(pin, pin.property, spelled.value, spelled.because, speaker)
    older = rename.old_value(spelled.value)
    if older is None:
        words = f"QEMU {speaker.version} cannot express {pin.property}={spelled.value}"
        return _nothing(pin, "impossible", f"{words}: it knows only {rename.old}")
    words = f"{pin.property} is called {rename.old} before QEMU {rename.from_}"
    return _written(pin, rename.old, older, words, speaker)


def _written(pin: Pin, name: str, text: str, reason: str, speaker: Speaker) -> Here:
    when = tuple(
        (other, tuple(None if v is None else _typed(pin, other, v, speaker) for v in values))
        for other, values in pin.row.when
    )
    return Here(pin, "written", name, _typed(pin, name, text, speaker), reason, when)


def _kinds(family: str, speaker: Speaker) -> frozenset[str] | None:
    """The types of a family that the binary has; None when it cannot list them."""
    if family not in _FAMILIES.get(speaker.capabilities.tool, (family,)):
        return frozenset()
    return None if family.startswith("migration") else speaker.kinds(family)


def _nothing(pin: Pin, status: str, reason: str) -> Here:
    return Here(pin, status, pin.property, None, reason)


def _spell(pin: Pin, speaker: Speaker) -> Spelling:
    spelled = spell(pin, speaker.version)
    known = speaker.known_words(pin.family, pin.type)
    rename = rename_for(speaker.catalogue, pin.family, pin.type, pin.property, speaker.version)
    name = pin.property if rename is None else rename.old
    if not isinstance(spelled, Written):
        return spelled
    if known is None or name in known:
        # The number of CPUs is not known here.
        return Written(pin.value) if pin.value in TEMPLATES else spelled
    reason = f"this build of QEMU {speaker.version} has no {name}"
    if pin.value == pin.oldest_was or pin.row.otherwise == "omit":
        return Omitted(f"{reason} and behaves as {pin.value!r}")
    return Impossible(f"{reason}; the platform asks for {pin.value!r}")


def _typed(pin: Pin, name: str, text: str, speaker: Speaker) -> Any:
    """The value as this binary's QAPI schema types it, else its QOM properties, else its look."""
    node = Scalar(text, pin.row.place)
    if text in TEMPLATES:
        return text
    schema = speaker.capabilities.schema
    member = _members(pin, speaker).get(name)
    if member is not None:
        return Checker(schema).check(member["type"], node, name)
    if pin.family == "migration-capability":
        return plain_value(node)
    kind = f"{pin.type}-accel" if pin.family == "accel" else pin.type
    info = (speaker.capabilities.properties(kind) or {}).get(name)
    return plain_value(node) if info is None else typed(info, node, name, [])


def _members(pin: Pin, speaker: Speaker) -> dict[str, dict[str, Any]]:
    """The members that QAPI describes for the pin's type; empty where it describes none."""
    schema = speaker.capabilities.schema
    command = SPOTS[pin.family].command
    root = schema.argument_type(command) if command else None
    if root is None or command == "migrate-set-capabilities":
        return {}
    if command == "chardev-add":
        wrapper = schema.branches(schema.members(root)["backend"]["type"]).get(pin.type)
        return schema.members(schema.members(wrapper)["data"]["type"]) if wrapper else {}
    return schema.all_members(root, pin.type)


def schema_with_defaults(
    found: Iterable[Here], capabilities: Capabilities, platform: str
) -> dict[str, Any]:
    """The JSON Schema of the binary's QMP commands, with a platform's defaults filled in."""
    title = f"QMP commands of QEMU {capabilities.version}, with the defaults of {platform}"
    return command_schema(
        capabilities, title, [_default(here) for here in found if here.status == "written"]
    )


def _default(here: Here) -> Default:
    pin = here.pin
    spot = SPOTS[pin.family]
    template = TEMPLATES.get(str(here.default))
    words = f"by default {template}" if template else here.reason
    value = None if template else here.default
    case = pin.type if spot.discriminator else ""
    return Default(spot.command or "", case, here.member, value, here.when, words)
