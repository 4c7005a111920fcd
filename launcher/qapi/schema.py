"""A QAPI schema as introspection gives it (`query-qmp-schema`), and look-ups in it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

#: What QAPI introspection calls its built-in types (docs/devel/qapi-code-gen, "Client JSON
#: Protocol introspection"), so that a description of our own needs not repeat them.
BUILTINS: dict[str, dict[str, Any]] = {
    name: {"name": name, "meta-type": "builtin", "json-type": json}
    for name, json in (
        ("str", "string"),
        ("int", "int"),
        ("number", "number"),
        ("bool", "boolean"),
        ("null", "null"),
        ("any", "value"),
    )
}


class Schema:
    """The entities of one schema by name.

    Args:
        entities: `SchemaInfo` objects, as a list or by name. Besides QAPI's own meta-types two
            more are known, which only our own descriptions use: `map` (keys are ids;
            `value-type`) and `node` (left as it was written, for a later stage).
    """

    def __init__(self, entities: Iterable[dict[str, Any]] | dict[str, dict[str, Any]]) -> None:
        if isinstance(entities, dict):
            # As it is: a mapping that decodes what is looked at must not be copied.
            self.entities = entities
            for name, builtin in BUILTINS.items():
                entities.setdefault(name, builtin)
        else:
            self.entities = {**BUILTINS, **{entity["name"]: entity for entity in entities}}
        self._merged: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
        self._members: dict[str, dict[str, dict[str, Any]]] = {}
        self._values: dict[str, tuple[str, ...]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self.entities

    def __getitem__(self, name: str) -> dict[str, Any]:
        return self.entities[name]

    def argument_type(self, command: str) -> str | None:
        """The name of the type of `command`'s arguments; None when there is no such command."""
        entity = self.entities.get(command)
        return None if entity is None else entity.get("arg-type")

    def members(self, type_name: str) -> dict[str, dict[str, Any]]:
        """The members of an object type that every branch of a union shares."""
        known = self._members.get(type_name)
        if known is None:
            listed = self.entities[type_name].get("members", ())
            known = self._members[type_name] = {m["name"]: m for m in listed}
        return known

    def branches(self, type_name: str) -> dict[str, str]:
        """Tag value to type name, for a union; empty for a plain object."""
        return {v["case"]: v["type"] for v in self.entities[type_name].get("variants", ())}

    def all_members(self, type_name: str, case: str = "") -> dict[str, dict[str, Any]]:
        """The members of an object type, with those of branch `case` when it is a union."""
        known = self._merged.get((type_name, case))
        if known is None:
            known = dict(self.members(type_name))
            branch = self.branches(type_name).get(case)
            if branch is not None:
                known.update(self.all_members(branch))
            self._merged[type_name, case] = known
        return known

    def values(self, type_name: str) -> tuple[str, ...]:
        """The values of an enumeration (`values` is deprecated since QEMU 6.2)."""
        known = self._values.get(type_name)
        if known is None:
            entity = self.entities[type_name]
            if "members" in entity:
                known = tuple(m["name"] for m in entity["members"])
            else:
                known = tuple(entity.get("values", ()))
            self._values[type_name] = known
        return known

    def commands(self) -> Iterator[str]:
        """The names of all commands."""
        return (n for n, e in self.entities.items() if e["meta-type"] == "command")
