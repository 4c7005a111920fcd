"""A command line checked against what a recorded QEMU says of itself. Shares no code with the
launcher's own engine (launcher/qapi/check.py), so that a mistake there cannot hide here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

#: Option → (command whose arguments describe it, does the JSON value's tag go by another name).
_DESCRIBED_BY = {
    "object": "object-add",
    "netdev": "netdev_add",
    "blockdev": "blockdev-add",
}
#: Keys of -machine and -device that are not listed among the properties.
_UNLISTED = {
    "machine": {"type", "kernel-irqchip", "memory-encryption", "confidential-guest-support"},
    "device": {"driver", "id", "bus", "addr"},
    "chardev": {"id", "backend"},
    # QAPI describes these; `query-command-line-options` of some releases lists an older form.
    "accel": {"accel"},
}


def problems(replies: dict, argv: list[str], setup: list[tuple[str, dict]]) -> list[str]:
    """What the recorded binary would not understand in `argv` and in the QMP commands after it."""
    judge = _Judge(replies)
    found = []
    for option, text in _options(argv):
        found += [f"-{option} {text}: {words}" for words in judge.option(option, text)]
    for command, arguments in setup:
        found += [f"{command}: {words}" for words in judge.command(command, arguments)]
    return found


def _options(argv: list[str]) -> Iterator[tuple[str, str]]:
    words = iter(argv[1:])
    for word in words:
        option = word.lstrip("-")
        yield (option, "") if option in _FLAGS else (option, next(words))


_FLAGS = {"S", "nodefaults", "no-user-config", "no-reboot", "no-shutdown"}
_PLAIN = {"uuid", "display", "kernel", "initrd", "append", "dtb", "bios", "serial", "incoming"}


def parse_keyval(text: str, head: str) -> dict[str, str]:
    """`head,key=value,…` with `,,` for a comma, written again from QEMU's docs (qemu-option.c)."""
    parts, rest = [""], text
    while rest:
        if rest.startswith(",,"):
            parts[-1] += ","
            rest = rest[2:]
        elif rest[0] == ",":
            parts.append("")
            rest = rest[1:]
        else:
            parts[-1] += rest[0]
            rest = rest[1:]
    found = {}
    for number, part in enumerate(parts):
        key, equals, value = part.partition("=")
        if number == 0 and head and not equals:
            found[head] = part
        elif not equals:
            raise AssertionError(f"{part!r} in {text!r} is no key=value")
        else:
            found[key] = value
    return found


class _Judge:
    def __init__(self, replies: dict) -> None:
        self.replies = replies
        self.types = {entity["name"]: entity for entity in replies["query-qmp-schema"]}
        self.listed = {
            o["option"]: {p["name"] for p in o["parameters"]}
            for o in replies["query-command-line-options"]
        }

    # -- options ------------------------------------------------------------------------------

    def option(self, option: str, text: str) -> list[str]:
        if option in _FLAGS or option in _PLAIN:
            return []
        if option == "global":
            return self._global(text)
        if text.startswith("{"):
            return self._json(option, json.loads(text))
        head = {"chardev": "backend", "object": "qom-type", "netdev": "type", "machine": "type"}
        members = parse_keyval(text, head.get(option, "driver" if option == "device" else "head"))
        return self._keyval(option, members)

    def _json(self, option: str, value: dict) -> list[str]:
        if option == "device":
            return self._properties("device-list-properties", value["driver"], value)
        if option == "audiodev":
            entity = self.types.get("query-audiodevs")
            if entity is None:
                return []  # introspection does not reach Audiodev before 8.0
            return self._value(self.types[entity["ret-type"]]["element-type"], value, "")
        command = self.types[_DESCRIBED_BY[option]]
        if option == "object" and "tag" not in self.types[command["arg-type"]]:
            return [f"QEMU {self.replies['query-version']['qemu']} takes no JSON here"]
        return self._value(command["arg-type"], value, "")

    def _keyval(self, option: str, members: dict[str, str]) -> list[str]:
        if option == "device":
            return self._properties("device-list-properties", members["driver"], members)
        if option == "object":
            return self._properties("qom-list-properties", members["qom-type"], members)
        if option == "machine":
            kind = f"{members['type']}-machine"
            return self._names(option, members, self._property_names("qom-list-properties", kind))
        if option == "accel":
            kind = f"{members['head']}-accel"
            members = {k: v for k, v in members.items() if k != "head"}
            return self._names(option, members, self._property_names("qom-list-properties", kind))
        if option == "netdev":
            return self._netdev(members)
        if option in ("cpu", "numa", "name", "audiodev", "tpmdev", "qmp", "monitor"):
            return []  # described by nothing that a binary lists
        names = {"smp": "smp-opts", "m": "memory", "boot": "boot-opts"}
        known = self.listed.get(names.get(option, option))
        given = {k: v for k, v in members.items() if k not in ("head", "fd") or option != "sandbox"}
        given.pop("head", None)
        return self._names(option, given, known) if known else []

    def _netdev(self, members: dict[str, str]) -> list[str]:
        root = self.types[self.types["netdev_add"]["arg-type"]]
        case = next((v for v in root["variants"] if v["case"] == members["type"]), None)
        if case is None:
            return [f"has no type {members['type']}"]
        known = {m["name"] for m in (*root["members"], *self.types[case["type"]]["members"])}
        return [f"{key} is unknown" for key in members if key.partition(".")[0] not in known]

    def _names(self, option: str, members: dict, known: set[str] | None) -> list[str]:
        if known is None:
            return []
        allowed = known | _UNLISTED.get(option, set())
        return [f"{name} is unknown" for name in members if name not in allowed]

    def _global(self, text: str) -> list[str]:
        matched = re.fullmatch(r"migration\.([a-z0-9-]+)=(.+)", text)
        if matched is None:
            return ["only migration.* has an effect in -global"]
        known = self._property_names("device-list-properties", "migration")
        return [] if known is None or matched[1] in known else [f"{matched[1]} is unknown"]

    def _property_names(self, command: str, kind: str) -> set[str] | None:
        # Empty: asking about it ended that QEMU (microvm-machine before 8.0), so nothing is known.
        return {p["name"] for p in self.replies[command].get(kind, ())} or None

    def _properties(self, command: str, kind: str, members: dict) -> list[str]:
        listed = self.replies[command].get(kind)
        if listed is None:
            return [f"{kind} is not recorded: add it to DEVICES in launcher/survey/whole.py"]
        types = {p["name"]: p["type"] for p in listed}
        found = []
        for name, value in members.items():
            if name in ("driver", "id", "bus", "qom-type"):
                continue
            # A member of a list, or of a structure: `limits.iops-total` of a throttle group.
            if name not in types and name.partition(".")[0] not in types:
                found.append(f"{name} is unknown")
            elif not isinstance(value, str) and not _fits(types.get(name, ""), value):
                found.append(f"{name}={value!r} is no {types.get(name)}")
        return found

    # -- QAPI ---------------------------------------------------------------------------------

    def command(self, name: str, arguments: dict) -> list[str]:
        entity = self.types.get(name)
        if entity is None:
            return ["is no command of this QEMU"]
        return self._value(entity["arg-type"], arguments, "")

    def _value(self, type_name: str, value: object, path: str) -> list[str]:
        entity = self.types[type_name]
        kind = entity["meta-type"]
        if kind == "builtin":
            json_type = entity["json-type"]
            return [] if _is(json_type, value) else [f"{path or 'it'}={value!r} is no {json_type}"]
        if kind == "enum":
            known = entity.get("values") or [m["name"] for m in entity["members"]]
            return [] if value in known else [f"{path}={value!r} is not in the enumeration"]
        if kind == "array":
            if not isinstance(value, list):
                return [f"{path} is no list"]
            element = entity["element-type"]
            return [w for n, v in enumerate(value) for w in self._value(element, v, f"{path}.{n}")]
        if kind == "alternate":
            tried = [self._value(m["type"], value, path) for m in entity["members"]]
            return [] if [] in tried else [f"{path}={value!r} fits no alternative"]
        return self._object(entity, value, path)

    def _object(self, entity: dict, value: object, path: str) -> list[str]:
        if not isinstance(value, dict):
            return [f"{path or 'it'} is no object"]
        members = {m["name"]: m for m in entity["members"]}
        if "tag" in entity:
            case = value.get(entity["tag"])
            branch = next((v["type"] for v in entity["variants"] if v["case"] == case), None)
            if branch is not None:
                more = self.types[branch]
                if "tag" in more:  # a union inside a union shares the object
                    shared = {k: v for k, v in value.items() if k not in members}
                    return self._object(more, shared, path)
                members.update({m["name"]: m for m in more["members"]})
        found = [f"{path}.{key} is unknown".lstrip(".") for key in value if key not in members]
        for name, member in members.items():
            if name in value:
                found += self._value(member["type"], value[name], f"{path}.{name}".lstrip("."))
            elif "default" not in member:
                found.append(f"{path}.{name} is missing".lstrip("."))
        return found


def _is(json_type: str, value: object) -> bool:
    if json_type == "value":
        return True
    if json_type == "boolean":
        return isinstance(value, bool)
    if json_type in ("int", "number"):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return value is None if json_type == "null" else isinstance(value, str)


def _fits(qom_type: str, value: object) -> bool:
    """JSON given to a QOM property: QEMU's visitor is strict about booleans and integers."""
    if isinstance(value, bool):
        return qom_type == "bool"
    if isinstance(value, int):
        return "int" in qom_type or qom_type in ("size", "number")
    return isinstance(value, list)
