"""Words of a QAPI schema as flat entries: members by dotted path, as the command line has them."""

from __future__ import annotations

from launcher.qapi import Schema

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    Facets = dict[str, Any]


class Shapes:
    """One binary's schema.

    Args:
        schema: as `query-qmp-schema` answers.
        stops: types that have a family of their own: where another command takes one, it is named
            and not spelled out again.
    """

    def __init__(self, schema: Schema, stops: dict[str, str]) -> None:
        self.schema = schema
        self.stops = stops

    def members(self, name: str, prefix: str = "") -> dict[str, Facets]:
        """Every member of an object type below `prefix`, those of all branches together."""
        found: dict[str, Facets] = {}
        self._object(name, prefix, frozenset(), found)
        return found

    def inner(self, name: str, prefix: str) -> dict[str, Facets]:
        """What a type of any kind holds: the members of an object, or of an array's elements."""
        found: dict[str, Facets] = {}
        self._below(name, prefix, frozenset(), found)
        return found

    def _object(
        self, name: str, prefix: str, above: frozenset[str], found: dict[str, Facets]
    ) -> None:
        if name in above:
            return  # a type that holds itself: a block node's child, for instance
        above |= {name}
        for member in self.schema[name].get("members", ()):
            path = f"{prefix}.{member['name']}" if prefix else str(member["name"])
            _merge(found.setdefault(path, {}), self._facets(member))
            self._below(member["type"], path, above, found)
        for variant in self.schema[name].get("variants", ()):
            self._object(variant["type"], prefix, above, found)

    def _below(self, name: str, path: str, above: frozenset[str], found: dict[str, Facets]) -> None:
        entity = self.schema[name]
        if name in self.stops:
            return
        if entity["meta-type"] == "object":
            self._object(name, path, above, found)
        elif entity["meta-type"] == "array":
            self._below(entity["element-type"], path, above, found)
        elif entity["meta-type"] == "alternate":
            for one in entity["members"]:
                self._below(one["type"], path, above, found)

    def _facets(self, member: dict[str, Any]) -> Facets:
        facets: Facets = {"word": True, "type": self._kind(member["type"])}
        # `default: null` says that the member is optional; QAPI writes no other default.
        facets["optional"] = "default" in member
        if member.get("default") is not None:
            facets["default"] = member["default"]
        for feature in member.get("features", ()):
            facets[f"feature {feature}"] = True
        for word in self._words(member["type"]):
            facets[f"takes {word}"] = True
        return facets

    def _kind(self, name: str) -> str:
        if name in self.stops:
            return self.stops[name]
        entity = self.schema[name]
        kind = entity["meta-type"]
        if kind == "builtin":
            return str(name if name == "any" else entity["json-type"])
        if kind == "array":
            return f"array of {self._kind(entity['element-type'])}"
        if kind == "alternate":
            return " or ".join(sorted({self._kind(one["type"]) for one in entity["members"]}))
        return str(kind)

    def _words(self, name: str) -> Iterator[str]:
        """The values of an enumeration, also where an array or an alternate holds it."""
        entity = self.schema[name]
        if entity["meta-type"] == "enum":
            yield from self.schema.values(name)
        elif entity["meta-type"] == "array":
            yield from self._words(entity["element-type"])
        elif entity["meta-type"] == "alternate":
            for one in entity["members"]:
                yield from self._words(one["type"])


def _merge(facets: Facets, more: Facets) -> None:
    """Two branches of a union that have a member of the same name: what either says."""
    if facets and facets["type"] != more["type"]:
        kinds = {*str(facets["type"]).split(" or "), *str(more["type"]).split(" or ")}
        more = {**more, "type": " or ".join(sorted(kinds))}
    if facets:
        more = {**more, "optional": bool(facets["optional"] or more["optional"])}
    facets.update(more)
