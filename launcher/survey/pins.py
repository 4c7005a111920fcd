"""What a platform pins, as values that a survey gives to the instances that it makes. Pure."""

from __future__ import annotations

from launcher.platforms import Written, applies, parse_qemu_version, resolve, spell
from launcher.survey.kits import SMP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from launcher.capabilities import Capabilities
    from launcher.platforms import Catalogue, Platform

    Pinned = dict[tuple[str, str], dict[str, Any]]

_FAMILIES = frozenset(
    ("object", "chardev", "netdev", "blockdev", "audiodev", "migration-property")
) | {"migration-parameter"}


def pinned_values(
    catalogue: Catalogue, platform: Platform, capabilities: Capabilities, machine: str
) -> Pinned:
    """(family, type) → property → value in the words of this binary; typed as QMP wants it.

    What the binary cannot have is left out: the comparison shows what it does instead.

    Args:
        catalogue: the platform data.
        platform: whose pins.
        capabilities: of the binary that gets them.
        machine: the machine type it is started with; `none` has one CPU, all others two.
    """
    version = parse_qemu_version(capabilities.version)
    smp = 1 if machine == "none" else SMP
    found: Pinned = {}
    for (family, type_, name), pin in resolve(catalogue, platform).items():
        if family not in _FAMILIES or not applies(pin, {}):
            continue
        spelled = spell(pin, version, smp)
        if isinstance(spelled, Written):
            value = spelled.value
            if family != "migration-property":
                value = _typed(value, _kind(capabilities, family, type_, name))
            found.setdefault((family, type_), {})[name] = value
    return found


def _kind(capabilities: Capabilities, family: str, type_: str, name: str) -> str:
    """The QOM or JSON type of a property; text where nothing tells."""
    if family == "object":
        listed = capabilities.properties(type_) or {}
        return str(listed.get(name, {}).get("type", "str"))
    if family == "migration-parameter":
        schema = capabilities.schema
        root = schema.argument_type("migrate-set-parameters")
        member = schema.members(root).get(name) if root else None
        kind = schema[member["type"]] if member else {}
        return str(kind.get("json-type", "str"))
    return "str"


def _typed(text: str, kind: str) -> Any:
    """A value of the command line as JSON of its type."""
    if kind in ("bool", "boolean") and text in ("on", "off"):
        return text == "on"
    return int(text) if kind.startswith(("int", "uint", "size")) and text.isdigit() else text
