"""Migration: properties by `-global`, capabilities and parameters over QMP while paused.

`-global` works for `migration.*` alone, because TYPE_MIGRATION inherits from TYPE_DEVICE; on
every other type that is not a device all releases warn and ignore it.
"""

from __future__ import annotations

from launcher.nodes import Scalar
from launcher.plan.model import Option, Origin, Setup, origin_of
from launcher.platforms import locked_pin, observer_for
from launcher.qapi import Checker, parse_boolean, said

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from launcher.nodes import Node
    from launcher.plan.decide import Decider

_TYPE = "migration"


def decide_migration(decider: Decider) -> None:
    """Add what the profile and the platform say of migration, and what the machine type does."""
    _capabilities(decider)
    _parameters(decider)
    _properties(decider)
    _machine_type(decider)
    _locked_machine_type(decider)


def _known(decider: Decider, family: str) -> frozenset[str]:
    """The names that this binary has in a family of migration's settings."""
    return decider.speaker.known_words(family, _TYPE) or frozenset()


def _capabilities(decider: Decider) -> None:
    family = "migration-capability"
    known = _known(decider, family)
    settings: dict[str, bool] = {}
    given = decider.profile.migration_capabilities
    for name, node in given.items():
        if name not in known:
            decider.speaker.unknown_word(family, _TYPE, name, node.place, known)
            continue
        state = parse_boolean(node.text) if isinstance(node, Scalar) else None
        if state is None:
            words = f"migration.capabilities.{name} must be on or off, not {said(node)}"
            decider.fail(node.place, words, f"write `{name}: on`", "type")
            continue
        settings[name] = state
        decider.value(family, _TYPE, _TYPE, name, state, origin_of(node.place))
    for pinned in decider.pins_for(family, _TYPE, _TYPE, _texts(given)):
        name = pinned.pin.property
        settings[name] = bool(parse_boolean(pinned.text))
        decider.value(family, _TYPE, _TYPE, name, settings[name], decider.origin(pinned.pin))
    if settings:
        listed = [{"capability": n, "state": s} for n, s in settings.items()]
        decider.setup.append(Setup("migrate-set-capabilities", {"capabilities": listed}))


def _parameters(decider: Decider) -> None:
    command = "migrate-set-parameters"
    family = "migration-parameter"
    known = _known(decider, family)
    schema = decider.capabilities.schema
    root = schema.argument_type(command)
    settings: dict[str, Any] = {}
    given = decider.profile.migration_parameters
    checker = Checker(schema)

    def typed(name: str, node: Node) -> Any:
        member = schema.members(root or "")[name]
        return checker.check(member["type"], node, f"migration.parameters.{name}")

    for name, node in given.items():
        if name not in known:
            decider.speaker.unknown_word(family, _TYPE, name, node.place, known)
            continue
        settings[name] = typed(name, node)
        decider.value(family, _TYPE, _TYPE, name, settings[name], origin_of(node.place))
    for pinned in decider.pins_for(family, _TYPE, _TYPE, _texts(given)):
        name = pinned.pin.property
        settings[name] = typed(name, Scalar(pinned.text, pinned.pin.row.place))
        decider.value(family, _TYPE, _TYPE, name, settings[name], decider.origin(pinned.pin))
    decider.speaker.mistakes += checker.mistakes
    if settings:
        decider.setup.append(Setup(command, settings))


def _properties(decider: Decider) -> None:
    family = "migration-property"
    known = decider.speaker.known_words(family, _TYPE)
    given = decider.profile.migration_properties
    for name, node in given.items():
        if known is not None and name not in known:
            decider.speaker.unknown_word(family, _TYPE, name, node.place, known)
            continue
        if not isinstance(node, Scalar):
            words = f"migration.properties.{name} must be one value, not {said(node)}"
            decider.fail(node.place, words, code="type")
            continue
        text = node.text
        text = {"true": "on", "false": "off"}.get(text, text)
        _global(decider, name, text, origin_of(node.place))
    for pinned in decider.pins_for(family, _TYPE, _TYPE, _texts(given)):
        _global(decider, pinned.pin.property, pinned.text, decider.origin(pinned.pin))


def _global(decider: Decider, name: str, text: str, origin: Origin) -> None:
    path = f"migration.properties.{name}"
    word = f"migration.{name}={text}"
    decider.options.append(Option("-global", "word", word, {}, path, origin.place))
    flag = parse_boolean(text)
    value = text if flag is None else flag
    decider.value("migration-property", _TYPE, _TYPE, name, value, origin)


def _machine_type(decider: Decider) -> None:
    """What the machine type's own compat properties set, where nothing stronger does.

    They are expectations like any other: QEMU 10.0 and 11.1 list one (sev-guest legacy-vm-type)
    that they do not apply.
    """
    machine = decider.machine
    assert machine is not None
    origin = Origin("machine type", machine.name)
    decided = {(v.family, v.id, v.property) for v in decider.values}
    parameters = _known(decider, "migration-parameter")
    for (kind, name), text in machine.compat.items():
        flag = parse_boolean(text)
        value = text if flag is None else flag
        if kind == _TYPE:
            family = "migration-parameter" if name in parameters else "migration-property"
            targets = [_TYPE]
        else:
            family = "object"
            targets = [
                key
                for key, node in decider.profile.objects.items()
                if isinstance(tag := node.get("qom-type"), Scalar) and tag.text == kind
            ]
        observer = observer_for(decider.catalogue, family, kind, name, decider.version)
        if observer.read is None:
            continue
        for key in targets:
            taken = any((f, key, name) in decided for f in _families(family))
            if not taken:
                decider.value(family, kind, key, name, value, origin)


def _locked_machine_type(decider: Decider) -> None:
    """What the machine type set where it was locked, on a binary that does not list it.

    Only 10.0 and later list compat properties of types that are not devices; the machine type of
    an older binary is as it was all the same, so these are expectations, too.
    """
    locked = decider.locked
    if locked is None:
        return
    from launcher.plan.locked import as_pinned

    decided = {(v.family, v.id, v.property) for v in decider.values}
    for value in locked.from_machine_type():
        if value.key in decided:
            continue
        name = (value.family, value.type, value.property)
        pin = locked_pin(decider.catalogue, name, as_pinned(value.value), value.place)
        if decider.settle(pin, value.id) is not None:
            decider.value(
                value.family,
                value.type,
                value.id,
                value.property,
                value.value,
                decider.origin(pin),
            )


def _families(family: str) -> tuple[str, ...]:
    """Migration's properties and parameters name the same settings twice."""
    if family.startswith("migration"):
        return ("migration-property", "migration-parameter")
    return (family,)


def _texts(given: dict[str, Node]) -> dict[str, str]:
    return {n: i.text if isinstance(i, Scalar) else "" for n, i in given.items()}
