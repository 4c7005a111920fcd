"""The form of a lock file, in the terms of QAPI's introspection, and its JSON Schema. Pure.

One description for three readers: the checker of what was read, editors, and docs/lock.md.
"""

from __future__ import annotations

from launcher.qapi import Schema

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Raised when a launcher that knows the form before could misread a file of this one.
FORMAT = 1

#: The name of the root type.
LOCK = "Lock"

#: A member whose type ends in `?` may be missing.
_MEMBERS: dict[str, tuple[tuple[str, str, str], ...]] = {
    LOCK: (
        ("format", "int", "Form of this file."),
        ("digest", "str", "SHA-256 of everything below: a file that was edited is refused."),
        ("profile", "LockedProfile", "The profile, and a digest of what it resolves to."),
        ("request", "LockedRequest?", "What was given on the command line; replayed."),
        (
            "platform",
            "LockedPlatform",
            "The platform, and a digest of the pins that it gave.",
        ),
        ("qemu", "LockedQEMU", "The binary."),
        ("host", "Facts?", "Facts of the host that decided something."),
        ("machine", "LockedMachine?", "What an alias and a list of accelerators became."),
        ("values", "LockedValues", "Every value that was decided, one a line."),
        ("omitted", "Omissions?", "Values of the platform that were not written, and why."),
        (
            "migration",
            "LockedMigration?",
            "What decides a migration, as observed.",
        ),
        ("given", "node", "The profile with everything merged, filled in and expanded."),
    ),
    "LockedProfile": (
        ("name", "str", "Name of the machine."),
        ("file", "str", "The profile's file, relative to this one."),
        ("digest", "str", "SHA-256 of `given`."),
    ),
    "LockedRequest": (
        ("platform", "str?", "As --platform."),
        ("settings", "Texts?", "As --set, by path; a secret's is hidden and must be given again."),
    ),
    "LockedPlatform": (
        ("name", "str", "Name of the platform."),
        ("file", "str?", "A site's own platform file, relative to this one."),
        ("digest", "str", "SHA-256 of its pins for the types that the profile uses."),
    ),
    "LockedQEMU": (
        ("tool", "str", "qemu-system or qemu-storage-daemon."),
        ("binary", "str", "The binary's file name."),
        ("version", "str", "Release (QAPI: query-version)."),
        ("build", "str", "The packager's name for the build (QAPI: query-version, package)."),
        ("build-id", "str?", "GNU build id of the binary's file; scripts have none."),
        ("answers", "str", "SHA-256 of what the binary says it can do."),
    ),
    "LockedMachine": (
        ("type", "str", "Machine type, an alias resolved."),
        ("asked", "str", "Machine type as the profile has it."),
        ("accel", "str", "The accelerator that was chosen."),
        ("cpu", "str?", "CPU model as the profile has it."),
    ),
    "LockedValue": (
        ("family", "str", "object, device, machine, migration-property, …"),
        ("type", "str", "QOM type, driver or backend."),
        ("id", "str", "Id of the entry."),
        ("property", "str", "Name, in today's words."),
        ("value", "node", "What was decided, typed as QEMU's JSON is."),
        ("written", "node?", "What was written, where the binary needs another value for it."),
        ("spelled", "str?", "The binary's own name for the property, where it has another."),
        ("origin", "str", "Who decided it."),
        ("observed", "node?", "What QEMU answered."),
        ("unobservable", "str?", "Why QEMU cannot be asked."),
    ),
    "LockedOmission": (
        ("family", "str", "As above."),
        ("type", "str", "As above."),
        ("id", "str", "As above."),
        ("property", "str", "As above."),
        ("value", "node", "What the platform asks for."),
        ("origin", "str", "Who asks for it."),
        ("reason", "str", "Why nothing was written."),
        ("behaves", "bool", "Whether the binary behaves so by itself; then it is kept, too."),
    ),
    "LockedMigration": (
        ("cpu", "str?", "QOM type of the first CPU."),
        ("compat", "Nodes?", "What the machine type sets of migration (QAPI: compat-props)."),
        ("capabilities", "Nodes?", "QAPI: query-migrate-capabilities."),
        ("parameters", "Nodes?", "QAPI: query-migrate-parameters."),
        ("properties", "Nodes?", "HMP info migrate."),
        ("ram-blocks", "RAMBlocks?", "RAM blocks by name."),
    ),
    "RAMBlock": (
        ("used", "int", "Bytes that are used."),
        ("total", "int", "Bytes that it may grow to."),
    ),
}


def _object(name: str) -> dict[str, Any]:
    members = []
    for member, kind, doc in _MEMBERS[name]:
        optional = {"default": None} if kind.endswith("?") else {}
        members.append({"name": member, "type": kind.rstrip("?"), "doc": doc, **optional})
    return {"name": name, "meta-type": "object", "members": members}


def _of(name: str, kind: str, key: str, value: str) -> dict[str, Any]:
    return {"name": name, "meta-type": kind, key: value}


SHAPE = Schema(
    [
        *(_object(name) for name in _MEMBERS),
        {"name": "node", "meta-type": "node"},
        _of("LockedValues", "array", "element-type", "LockedValue"),
        _of("Omissions", "array", "element-type", "LockedOmission"),
        _of("Facts", "map", "value-type", "node"),
        _of("Texts", "map", "value-type", "str"),
        _of("Nodes", "map", "value-type", "node"),
        _of("RAMBlocks", "map", "value-type", "RAMBlock"),
    ]
)

_BUILTINS = {"string": "string", "int": "integer", "boolean": "boolean"}


def lock_schema() -> dict[str, Any]:
    """The JSON Schema of lock files (draft 7)."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "qemu-launcher lock",
        **_described(LOCK),
        "definitions": {name: _described(name) for name in sorted(_MEMBERS) if name != LOCK},
    }


def _described(name: str) -> dict[str, Any]:
    entity = SHAPE[name]
    kind = entity["meta-type"]
    if kind == "builtin":
        return {"type": _BUILTINS[entity["json-type"]]}
    if kind == "array":
        return {"type": "array", "items": _referred(entity["element-type"])}
    if kind == "map":
        return {"type": "object", "additionalProperties": _referred(entity["value-type"])}
    if kind == "node":
        return {}
    members = SHAPE.members(name)
    return {
        "type": "object",
        "properties": {
            key: {"description": member["doc"], **_within(member["type"])}
            for key, member in members.items()
        },
        "additionalProperties": False,
        "required": [key for key, member in members.items() if "default" not in member],
    }


def _referred(name: str) -> dict[str, Any]:
    return {"$ref": f"#/definitions/{name}"} if name in _MEMBERS else _described(name)


def _within(name: str) -> dict[str, Any]:
    """A type beside a description: there draft 7 reads nothing else than `$ref`."""
    inner = _referred(name)
    return {"allOf": [inner]} if "$ref" in inner else inner
