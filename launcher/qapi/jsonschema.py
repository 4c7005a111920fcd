"""The JSON Schema of profiles, for editors: our fixed part, and what one binary knows. Pure.

Draft 7, which editors' YAML support reads. A value may always be a variable (`${name}`), and YAML
may have read a plain text as a number or a boolean: the schema allows both, as our reader does.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from launcher.capabilities import Capabilities
    from launcher.qapi.schema import Schema

    Json = dict[str, Any]

_VARIABLE: Json = {"type": "string", "pattern": r"\$\{"}
_SIZE: Json = {
    "type": "string",
    "pattern": r"^(0[xX][0-9a-fA-F]+|\d+(\.\d+)?[bBkKmMgGtTpPeE]?(iB)?)$",
}
_SWITCH: Json = {"enum": [True, False, "on", "off", "true", "false"]}
_TEXT: Json = {"type": ["string", "number", "boolean"]}
_MAP: Json = {"type": "object"}
#: The rule for ids, everywhere (launcher.profiles.parse.ID).
_ID: Json = {"pattern": "^[A-Za-z][A-Za-z0-9._-]{0,62}$"}

_BUILTINS: dict[str, Json] = {
    "string": _TEXT,
    "boolean": {"anyOf": [_SWITCH, _VARIABLE]},
    "int": {"anyOf": [{"type": "integer"}, _SIZE, _VARIABLE]},
    "size": {"anyOf": [{"type": "integer", "minimum": 0}, _SIZE, _VARIABLE]},
    "number": {"anyOf": [{"type": "number"}, _VARIABLE]},
    "null": {"type": "null"},
    "value": {},
}

#: What QMP itself takes; sizes are integers there, too.
_STRICT: dict[str, Json] = {
    "string": {"type": "string"},
    "boolean": {"type": "boolean"},
    "int": {"type": "integer"},
    "number": {"type": "number"},
    "null": {"type": "null"},
}

#: Section of a profile → QMP command whose argument type describes an entry, and its id there.
_SECTIONS = {
    "objects": ("object-add", "id"),
    "netdevs": ("netdev_add", "id"),
    "blockdevs": ("blockdev-add", "node-name"),
    "exports": ("block-export-add", "id"),
}


def profile_schema(shape: Schema, root: str, capabilities: Capabilities | None = None) -> Json:
    """The JSON Schema of profiles.

    Args:
        shape: the description of the fixed part of a profile.
        root: its root type.
        capabilities: of a binary whose objects, netdevs, blockdevs, … are described, too. Its
            own words are: a property that it calls by an older name is not known by today's.
    """
    writer = Writer(shape, "")
    whole = writer.entity(root)
    properties = whole["properties"]
    if capabilities is not None:
        binary = Writer(capabilities.schema, "qapi-")
        properties |= _sections(binary, capabilities, properties)
        writer.definitions |= binary.definitions
    # `key: null` deletes what the profile that this one extends says of it.
    whole["properties"] = {key: _or_null(written) for key, written in properties.items()}
    needs = [["extends"], ["platform", "machine"], ["platform", "tool"]]
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "qemu-launcher profile",
        **whole,
        # What a profile leaves out may stand in the one that it extends.
        "anyOf": [{"required": names} for names in needs],
        "definitions": dict(sorted(writer.definitions.items())),
    }


def _or_null(written: Json) -> Json:
    described = {key: text for key, text in written.items() if key == "description"}
    inner = {key: part for key, part in written.items() if key != "description"}
    return {**described, "anyOf": [inner, {"type": "null"}]}


class Writer:
    """Entities of one QAPI schema as JSON Schema; `definitions` grows with what they refer to.

    Args:
        schema: whose entities are written.
        prefix: of the names of their definitions.
        strict: as QMP takes them, without what YAML and variables add.
    """

    def __init__(self, schema: Schema, prefix: str, *, strict: bool = False) -> None:
        self.schema = schema
        self.prefix = prefix
        self.builtins = _STRICT if strict else _BUILTINS
        self.variables = bool(prefix) and not strict
        self.strict = strict
        self.definitions: dict[str, Json] = {}

    def refer(self, name: str) -> Json:
        """A type where it is used: by reference, unless it is a builtin."""
        entity = self.schema[name]
        if entity["meta-type"] == "builtin":
            return self.builtins.get(entity["json-type"], {})
        key = f"{self.prefix}{name}"
        if key not in self.definitions:
            self.definitions[key] = {}  # before it is written: types refer to themselves
            self.definitions[key] = self.entity(name)
        return {"$ref": f"#/definitions/{key}"}

    def entity(self, name: str) -> Json:
        """A type, written out."""
        entity = self.schema[name]
        kind = entity["meta-type"]
        if kind == "enum":
            return self.choice(self.schema.values(name))
        if kind == "array":
            items = {"type": "array", "items": self.refer(entity["element-type"])}
            return {"anyOf": [items, _VARIABLE]} if self.variables else items
        if kind == "alternate":
            return {"anyOf": [self.refer(member["type"]) for member in entity["members"]]}
        if kind == "map":
            # `id: null` deletes an entry of the profile that this one extends.
            inner = {"anyOf": [self.refer(entity["value-type"]), {"type": "null"}]}
            return {"type": "object", "additionalProperties": inner}
        if kind == "node":
            return {}
        if entity.get("tag"):
            return self.union(name, entity["tag"])
        return self.record(name)

    def choice(self, values: tuple[str, ...]) -> Json:
        """One of several words; YAML may have read `on` as true."""
        if self.strict:
            return {"enum": [*values]}
        switches = [flag for word, flag in (("on", True), ("off", False)) if word in values]
        return {"anyOf": [{"enum": [*values, *switches]}, _VARIABLE]}

    def record(self, name: str, case: str = "", without: str = "") -> Json:
        """An object type; with `case`, of a union the members of that branch, too."""
        members = self.schema.all_members(name, case)
        properties = {key: self.member(member) for key, member in members.items() if key != without}
        written: Json = {"type": "object", "properties": properties}
        opening = self.schema[name].get("open")
        if opening:
            written["patternProperties"] = {f"^{opening}": {}}
        written["additionalProperties"] = False
        required = [k for k in properties if "default" not in members[k]]
        if required:
            written["required"] = required
        return written

    def member(self, member: Json) -> Json:
        """One member, with its words for the user where it has some."""
        inner = self.refer(member["type"])
        if "doc" not in member:
            return inner
        # Beside `$ref` draft 7 reads nothing else.
        return {"description": member["doc"], **({"allOf": [inner]} if "$ref" in inner else inner)}

    def union(self, name: str, tag: str, without: str = "") -> Json:
        """A union: which members there are depends on the tag; unknown tags are told first."""
        tag_type = self.schema.members(name)[tag]["type"]
        cases = self.schema.values(tag_type)
        return {
            "type": "object",
            "properties": {tag: self.choice(cases)},
            "required": [tag],
            "allOf": [
                {
                    "if": {"properties": {tag: {"const": case}}, "required": [tag]},
                    "then": self._branch(name, case, without),
                }
                for case in cases
            ],
        }

    def _branch(self, name: str, case: str, without: str) -> Json:
        # Elsewhere the same union may well have its id: a block node inside of another.
        key = f"{self.prefix}{name}-{case}" + (f"-without-{without}" if without else "")
        self.definitions[key] = self.record(name, case, without)
        return {"$ref": f"#/definitions/{key}"}


def _sections(writer: Writer, capabilities: Capabilities, fixed: Json) -> Json:
    """The sections of a profile that a binary's own schema describes."""
    schema = capabilities.schema
    found: Json = {}
    for section, (command, identity) in _SECTIONS.items():
        root = schema.argument_type(command)
        if root is not None and schema[root].get("tag"):
            found[section] = writer.union(root, schema[root]["tag"], identity)
    creatable = capabilities.replies.get("user-creatable")
    if "objects" not in found and creatable:
        # Before QEMU 6.0 object-add is not described; the types at least are known.
        found["objects"] = _tagged(writer, "qom-type", creatable)
    devices = capabilities.replies.get("devices")
    if devices:
        found["devices"] = _tagged(writer, "driver", devices)
    backend = schema.members(schema["chardev-add"]["arg-type"])["backend"]["type"]
    found["chardevs"] = _tagged(writer, "backend", sorted(schema.branches(backend)))
    entries = {section: _entries(written) for section, written in found.items()}
    entries["nbd-server"] = writer.refer(schema["nbd-server-start"]["arg-type"])
    if "migrate-set-capabilities" in schema:
        entries["migration"] = _migration(writer, schema)
    machines = sorted({*capabilities.machines, *_aliases(capabilities)})
    if machines:
        entries["machine"] = _machine(writer, machines)
    return {
        key: {"description": fixed[key]["description"], "allOf": [written]}
        for key, written in entries.items()
    }


def _entries(written: Json) -> Json:
    """A map from ids to such entries."""
    return {
        "type": "object",
        "propertyNames": _ID,
        "additionalProperties": {"anyOf": [written, {"type": "null"}]},
    }


def _tagged(writer: Writer, tag: str, kinds: Any) -> Json:
    """An entry of which only the kind is described."""
    return {"type": "object", "properties": {tag: writer.choice(tuple(kinds))}, "required": [tag]}


def _aliases(capabilities: Capabilities) -> set[str]:
    return {m.alias for m in capabilities.machines.values() if m.alias}


def _machine(writer: Writer, names: list[str]) -> Json:
    kind = writer.choice(tuple(names))
    keyed = {"type": "object", "properties": {"type": kind}}
    return {"anyOf": [kind, keyed]}


def _migration(writer: Writer, schema: Schema) -> Json:
    """Capabilities and parameters by the words of the binary."""
    listed = schema.members(schema.argument_type("migrate-set-capabilities") or "")
    entry = schema.members(schema[listed["capabilities"]["type"]]["element-type"])
    names = schema.values(entry["capability"]["type"])
    parameters = writer.record(schema.argument_type("migrate-set-parameters") or "")
    return {
        "type": "object",
        "properties": {
            "capabilities": {
                "type": "object",
                "properties": dict.fromkeys(names, _BUILTINS["boolean"]),
                "additionalProperties": False,
            },
            "parameters": parameters,
            "properties": _MAP,
        },
        "additionalProperties": False,
    }
