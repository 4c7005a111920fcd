"""The JSON Schema of QMP commands with defaults filled in. Pure.

Draft 7. Unlike the schema of profiles it is strict: QMP's own types, nothing that only YAML means.
Every definition is the `arguments` of one command; the whole is one QMP command.
"""

from __future__ import annotations

from launcher.qapi.jsonschema import Writer
from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from launcher.capabilities import Capabilities

    Json = dict[str, Any]

#: The commands that are described, as far as a binary has them.
COMMANDS = (
    "object-add",
    "netdev_add",
    "chardev-add",
    "blockdev-add",
    "block-export-add",
    "migrate-set-parameters",
    "migrate-set-capabilities",
)


@record
class Default:
    """A default of one member of one command.

    `case` is the branch of the union, empty where there is none. `when` are conditions on other
    members: name → the values that it may have, None for not being given. `value` None has only
    words: it depends on the machine.
    """

    command: str
    case: str
    member: str
    value: Any
    when: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    words: str = ""


def command_schema(capabilities: Capabilities, title: str, defaults: Iterable[Default]) -> Json:
    """The JSON Schema of the commands that add things and set migration's values.

    Args:
        capabilities: of the binary that is described; older ones lack some commands.
        title: what the schema calls itself.
        defaults: only those whose member the binary knows have an effect.
    """
    writer = _Commands(capabilities, list(defaults))
    found = {name: writer.command(name) for name in COMMANDS if name in writer.schema}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": title,
        "type": "object",
        "properties": {
            "execute": {"enum": [*found]},
            "arguments": {"type": "object"},
            "id": {},
        },
        "required": ["execute", "arguments"],
        "additionalProperties": False,
        "allOf": [
            {
                "if": {"properties": {"execute": {"const": name}}},
                "then": {"properties": {"arguments": {"$ref": f"#/definitions/{name}"}}},
            }
            for name in found
        ],
        "definitions": {**found, **dict(sorted(writer.definitions.items()))},
    }


class _Commands(Writer):
    """Commands as JSON Schema, with their defaults."""

    def __init__(self, capabilities: Capabilities, defaults: list[Default]) -> None:
        super().__init__(capabilities.schema, "qapi-", strict=True)
        self.capabilities = capabilities
        self.defaults = defaults

    def command(self, name: str) -> Json:
        """The arguments of a command."""
        root = self.schema[name]["arg-type"]
        if name == "chardev-add":
            return self._chardev_add(root)
        if name == "migrate-set-capabilities":
            return self._capabilities(root)
        if self.schema[root].get("tag"):
            return self._union(name, root)
        if name == "object-add":
            return self._older_object_add(root)
        return self._filled(self.record(root), name, "")

    def _union(self, command: str, root: str) -> Json:
        tag = self.schema[root]["tag"]
        branches = {case: self.record(root, case) for case in self._cases(root, tag)}
        return self._chosen(command, tag, branches)

    def _cases(self, root: str, tag: str) -> tuple[str, ...]:
        return self.schema.values(self.schema.members(root)[tag]["type"])

    def _chosen(self, command: str, tag: str, branches: dict[str, Json]) -> Json:
        """What the tag says decides which branch holds; each is a definition of its own."""
        for case, body in branches.items():
            self.definitions[f"{command}.{case}"] = self._filled(body, command, case)
        return {
            "type": "object",
            "properties": {tag: {"enum": [*branches]}},
            "required": [tag],
            "allOf": [
                {
                    "if": {"properties": {tag: {"const": case}}, "required": [tag]},
                    "then": {"$ref": f"#/definitions/{command}.{case}"},
                }
                for case in branches
            ],
        }

    def _chardev_add(self, root: str) -> Json:
        """The backend's own members are below `data`."""
        written = self.record(root)
        union = self.schema.members(root)["backend"]["type"]
        tag = self.schema[union]["tag"]
        branches = {}
        for case, wrapper in self.schema.branches(union).items():
            data = self.record(self.schema.members(wrapper)["data"]["type"])
            body = self._filled(data, "chardev-add", case)
            branches[case] = {
                "type": "object",
                "properties": {tag: {"const": case}, "data": body},
                "required": [tag, "data"],
                "additionalProperties": False,
            }
        written["properties"]["backend"] = self._chosen("chardev-add-backend", tag, branches)
        return written

    def _capabilities(self, root: str) -> Json:
        """One entry for each capability that is set; a default is that of its `state`."""
        written = self.record(root)
        listed = self.schema.members(root)["capabilities"]["type"]
        entry = self.record(self.schema[listed]["element-type"])
        entry["allOf"] = [
            {
                "if": {"properties": {"capability": {"const": default.member}}},
                "then": {"properties": {"state": {"default": default.value}}},
            }
            for default in self._of("migrate-set-capabilities", "")
        ]
        if not entry["allOf"]:
            del entry["allOf"]
        written["properties"]["capabilities"] = {"type": "array", "items": entry}
        return written

    def _older_object_add(self, root: str) -> Json:
        """Before QEMU 6.0 QAPI does not describe objects: QOM's list of properties does."""
        written = self.record(root)
        branches = {}
        for case in sorted(self.capabilities.replies["user-creatable"]):
            known = self.capabilities.properties(case)
            body: Json = {"type": "object"}
            if known is not None:
                body["properties"] = {
                    name: _by_qom_type(info["type"]) for name, info in known.items()
                }
                del body["properties"]["type"]
                body["additionalProperties"] = False
            props = self._filled(body, "object-add", case)
            branches[case] = {"properties": {"props": props}}
        chosen = self._chosen("object-add-props", "qom-type", branches)
        written["properties"]["qom-type"] = chosen["properties"]["qom-type"]
        written["allOf"] = chosen["allOf"]
        return written

    # -- defaults -----------------------------------------------------------------------------

    def _of(self, command: str, case: str) -> list[Default]:
        return [d for d in self.defaults if (d.command, d.case) == (command, case)]

    def _filled(self, body: Json, command: str, case: str) -> Json:
        """`body` with the defaults of its members; a conditional one under its condition."""
        members = body.get("properties", {})
        for default in self._of(command, case):
            if default.member not in members:
                continue
            said: Json = {} if default.value is None else {"default": default.value}
            if default.words:
                said["description"] = default.words
            if default.when:
                then = {"properties": {default.member: said}}
                body.setdefault("allOf", []).append({"if": _condition(default.when), "then": then})
                continue
            inner = members[default.member]
            # Beside `$ref` draft 7 reads nothing else.
            members[default.member] = {**({"allOf": [inner]} if "$ref" in inner else inner), **said}
        return body


def _condition(when: tuple[tuple[str, tuple[Any, ...]], ...]) -> Json:
    """All of the conditions, each on one other member."""
    return {"allOf": [{"anyOf": [_has(name, value) for value in values]} for name, values in when]}


def _has(name: str, value: Any) -> Json:
    if value is None:
        return {"not": {"required": [name]}}
    return {"properties": {name: {"const": value}}, "required": [name]}


def _by_qom_type(kind: str) -> Json:
    """A property as QOM names its type: `int`, `uint32`, `bool`, `string`, a link, an enum."""
    if kind == "bool":
        return {"type": "boolean"}
    if kind == "string" or kind.startswith("link<"):
        return {"type": "string"}
    if kind.removeprefix("u").startswith("int"):
        return {"type": "integer"}
    return {}
