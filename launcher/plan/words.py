"""The words of one binary: typed members of one entry, checked against what the binary knows.

An entry is one object, netdev, chardev, block node, device, … of the profile. It is written in
today's words; the words of an older binary come from the platform data, and what the binary does
not know at all is a mistake that says since when it exists or until when it did.
"""

from __future__ import annotations

from launcher.errors import InputError
from launcher.nodes import Mapping, Scalar, plain_value
from launcher.plan.typed import typed
from launcher.platforms import (
    parse_version,
    reaches,
    removal_for,
    rename_for,
    renamed_from,
    since,
)
from launcher.qapi import Checker, suggest
from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from launcher.capabilities import Capabilities
    from launcher.errors import Place
    from launcher.nodes import Node
    from launcher.platforms import Catalogue, Removal, Version

#: Family → QMP command whose argument type describes it.
_COMMANDS = {
    "object": "object-add",
    "netdev": "netdev_add",
    "blockdev": "blockdev-add",
    "export": "block-export-add",
}
#: Family → the member that says which kind an entry is, and the one that holds its id.
TAGS = {
    "object": ("qom-type", "id"),
    "netdev": ("type", "id"),
    "chardev": ("backend", "id"),
    "blockdev": ("driver", "node-name"),
    "device": ("driver", "id"),
    "audiodev": ("driver", "id"),
    "tpmdev": ("type", "id"),
    "export": ("type", "id"),
}
#: What `-device` knows beside the device's own properties.
_DEVICE_WORDS = ("bus", "addr")


@record
class Word:
    """One property of an entry in the binary's words."""

    today: str  # the name in the profile
    name: str  # the name that the binary knows
    value: Any  # typed, in the binary's units
    place: Place
    note: str = ""


class Speaker:
    """Turns entries into the words of one binary; `mistakes` grows.

    Args:
        catalogue: renames, removals and additions.
        capabilities: of the binary.
        version: its release.
    """

    def __init__(self, catalogue: Catalogue, capabilities: Capabilities, version: Version) -> None:
        self.catalogue = catalogue
        self.capabilities = capabilities
        self.version = version
        self.mistakes: list[InputError] = []
        # The same few kinds are asked about for every entry of a profile.
        self._kinds: dict[str, frozenset[str] | None] = {}
        self._roots: dict[str, str | None] = {}
        self._known: dict[tuple[str, str], frozenset[str] | None] = {}

    def fail(self, place: Place, message: str, hint: str = "", code: str = "unknown") -> None:
        """Note one mistake."""
        self.mistakes.append(InputError(message, place=place, hint=hint, code=code))

    # -- kinds ------------------------------------------------------------------------------

    def knows_kind(self, family: str, kind: Scalar, known: frozenset[str] | None) -> bool:
        """Whether the binary has such a kind; notes the mistake when it has not.

        Args:
            family: `object`, `device`, …
            kind: what the profile says.
            known: all kinds of the binary; None when they cannot be listed.
        """
        if known is None or kind.text in known:
            return True
        removal = removal_for(self.catalogue, family, kind.text, "*", self.version)
        newer = since(self.catalogue, family, kind.text, "*")
        hint = suggest(kind.text, known)
        words = f"QEMU {self.version} has no {family} {kind.text!r}"
        if removal is not None:
            words, hint = f"{words}; it was removed after {removal.until}", instead_of(removal)
        elif newer is not None and not self._has_reached(newer):
            words, hint = f"{words}; it exists since QEMU {newer}", f"use QEMU {newer} or later"
        self.fail(kind.place, words, hint)
        return False

    def kinds(self, family: str) -> frozenset[str] | None:
        """All kinds of a family that the binary has, as far as it says."""
        if family not in self._kinds:
            self._kinds[family] = self._list_kinds(family)
        return self._kinds[family]

    def _list_kinds(self, family: str) -> frozenset[str] | None:
        schema = self.capabilities.schema
        if family == "device":
            return frozenset(self.capabilities.replies["devices"])
        if family == "chardev":
            branches = self._chardev_backends()
            return frozenset(branches) or None
        root = self._root(family)
        kinds: frozenset[str] | None = None
        if root is not None:
            tag_type = schema.members(root)[schema[root]["tag"]]["type"]
            kinds = frozenset(schema.values(tag_type))
        if family == "object":
            # The schema lists what some builds have; this is what this binary has.
            creatable = frozenset(self.capabilities.replies["user-creatable"])
            return creatable if kinds is None else kinds & creatable
        if family == "tpmdev" and "query-tpm-types" in schema:
            listed = schema[schema["query-tpm-types"]["ret-type"]]
            return frozenset(schema.values(listed["element-type"]))
        return kinds

    def known_words(self, family: str, kind: str) -> frozenset[str] | None:
        """The names of all properties of a kind; None when the binary does not list them."""
        if (family, kind) not in self._known:
            self._known[family, kind] = self._list_words(family, kind)
        return self._known[family, kind]

    def _list_words(self, family: str, kind: str) -> frozenset[str] | None:
        root = self._root(family)
        if root is not None:
            return frozenset(self.capabilities.schema.all_members(root, kind))
        if family == "chardev":
            return self.capabilities.option_parameters("chardev")
        if family == "migration-capability":
            return self._migration_capabilities()
        if family == "migration-parameter":
            schema = self.capabilities.schema
            command = schema.argument_type("migrate-set-parameters")
            return frozenset(schema.members(command)) if command else frozenset()
        listed = self.capabilities.properties(f"{kind}-accel" if family == "accel" else kind)
        return None if listed is None else frozenset(listed)

    def _migration_capabilities(self) -> frozenset[str]:
        schema = self.capabilities.schema
        command = schema.argument_type("migrate-set-capabilities")
        if command is None:
            return frozenset()
        listed = schema[schema.members(command)["capabilities"]["type"]]["element-type"]
        return frozenset(schema.values(schema.members(listed)["capability"]["type"]))

    def _root(self, family: str) -> str | None:
        """The union type that describes a family; None where the binary's schema has none."""
        if family not in self._roots:
            self._roots[family] = self._find_root(family)
        return self._roots[family]

    def _find_root(self, family: str) -> str | None:
        schema = self.capabilities.schema
        command = _COMMANDS.get(family)
        root = schema.argument_type(command) if command else None
        if family == "audiodev":
            root = self._audiodev_type()
        return root if root is not None and schema[root].get("tag") else None

    def _chardev_backends(self) -> dict[str, str]:
        schema = self.capabilities.schema
        root = schema.argument_type("chardev-add")
        if root is None:
            return {}
        backend = schema.members(root).get("backend")
        return schema.branches(backend["type"]) if backend else {}

    def _audiodev_type(self) -> str | None:
        """The Audiodev union, which introspection reaches only through query-audiodevs (8.0)."""
        schema = self.capabilities.schema
        if "query-audiodevs" not in schema:
            return None
        listed = schema[schema["query-audiodevs"]["ret-type"]]
        return str(listed["element-type"])

    # -- entries ------------------------------------------------------------------------------

    def speak(self, family: str, key: str, node: Mapping, path: str) -> list[Word] | None:
        """The typed words of one entry, without its kind and id; None when its kind is wrong."""
        tag, id_member = TAGS[family]
        kind = node.get(tag)
        if not isinstance(kind, Scalar) or not self.knows_kind(family, kind, self.kinds(family)):
            return None
        spelled = self._respell(family, kind.text, node)
        members = Mapping(
            {n: s.node for n, s in spelled.items()},
            node.place,
            {n: s.place for n, s in spelled.items()},
        )
        values = self._check(family, kind, key, members, path)
        return [
            Word(s.today, name, values[name], s.place, s.note)
            for name, s in spelled.items()
            if name not in (tag, id_member) and name in values
        ]

    def _respell(self, family: str, kind: str, node: Mapping) -> dict[str, _Spelled]:
        """The entry's members under the names that this binary knows."""
        spelled = {}
        for today, item in node.items.items():
            place = node.key_place(today)
            old_word = renamed_from(self.catalogue, family, kind, today)
            if old_word is not None and old_word.new != today:
                self._old_word(old_word, item, place)
                continue
            rename = rename_for(self.catalogue, family, kind, today, self.version)
            if rename is None:
                spelled[today] = _Spelled(today, item, place, "")
                continue
            text = item.text if isinstance(item, Scalar) else None
            value = rename.old_value(text) if text is not None else None
            if value is None:
                self.fail(
                    item.place,
                    f"QEMU {self.version} cannot express {today}={text}: it knows only "
                    f"{rename.old}, in units of {rename.factor}",
                    f"use a multiple of {rename.factor}",
                    "value",
                )
                continue
            note = f"{today} is called {rename.old} before QEMU {rename.from_}"
            older = item if value == text else Scalar(value, item.place)
            spelled[rename.old] = _Spelled(today, older, place, note)
        return spelled

    def _old_word(self, rename: Any, item: Node, place: Place) -> None:
        value = rename.new_value(item.text) if isinstance(item, Scalar) else None
        wanted = f"{rename.new}: {value}" if value is not None else rename.new
        self.fail(
            place,
            f"{rename.old!r} was renamed {rename.new!r} in QEMU {rename.from_}",
            f"profiles are written in today's words for every binary: `{wanted}`",
        )

    def _check(
        self, family: str, kind: Scalar, key: str, members: Mapping, path: str
    ) -> dict[str, Any]:
        """Typed values of the members, against the best description the binary gives."""
        owner = f"{family} {kind.text}"
        schema = self.capabilities.schema
        root = self._root(family)
        if root is not None:

            def unknown(about: str, name: str) -> tuple[str, str] | None:
                word, _, nested_kind = about.partition(" ")
                return self.unknown(word, nested_kind, name) if word == family else None

            checker = Checker(schema, unknown)
            named = {**members.items, TAGS[family][1]: Scalar(key, members.place)}
            whole = Mapping(named, members.place, members.keys)
            values = checker.check(root, whole, path, owner)
            self.mistakes += checker.mistakes
            return values if isinstance(values, dict) else {}
        if family in ("object", "device"):
            return self._by_properties(family, kind.text, members, path)
        if family == "chardev":
            self._known_parameters("chardev", kind.text, members)
        return {name: plain_value(item) for name, item in members.items.items()}

    def arguments(self, command: str, node: Mapping, path: str) -> dict[str, Any]:
        """The typed arguments of a QMP command, against the binary's schema."""
        root = self.capabilities.schema.argument_type(command)
        if root is None:
            self.fail(node.place, f"QEMU {self.version} has no {command}")
            return {}
        checker = Checker(self.capabilities.schema)
        values = checker.check(root, node, path, path)
        self.mistakes += checker.mistakes
        return values if isinstance(values, dict) else {}

    def unknown(self, family: str, kind: str, name: str) -> tuple[str, str] | None:
        """Better words for a property that the binary lacks: since when, until when."""
        removal = removal_for(self.catalogue, family, kind, name, self.version)
        words = f"QEMU {self.version} has no {name!r} for {family} {kind}"
        if kind == "migration":
            words = f"QEMU {self.version} has no {family.replace('-', ' ')} {name!r}"
        if removal is not None:
            return f"{words}; it was removed after {removal.until}", instead_of(removal)
        newer = since(self.catalogue, family, kind, name)
        if newer is not None and not self._has_reached(newer):
            hint = f"remove it, or use QEMU {newer} or later"
            return f"{words}; it exists since QEMU {newer}", hint
        return None

    def _has_reached(self, release: str) -> bool:
        """Whether the binary is of `release` or newer: what it lacks, this build leaves out."""
        return reaches(parse_version(release), self.version)

    def _known_parameters(self, option: str, kind: str, members: Mapping) -> None:
        """Names of an option that QEMU describes as one flat list for all kinds."""
        known = self.capabilities.option_parameters(option)
        for name in members.items if known else ():
            if name not in (known or ()) and name not in (TAGS[option][0], "id"):
                self.unknown_word(option, kind, name, members.key_place(name), known or frozenset())

    def unknown_word(
        self, family: str, kind: str, name: str, place: Place, known: frozenset[str]
    ) -> None:
        """Note a property that this kind does not have, with what is known about the word."""
        usual = f"{name!r} is not a property of {family} {kind}"
        if kind == "migration":
            usual = f"there is no {family.replace('-', ' ')} {name!r}"
        message, hint = self.unknown(family, kind, name) or (usual, suggest(name, known))
        self.fail(place, message, hint)

    def known_parameters(self, option: str, node: Mapping, path: str) -> None:
        """Note the keys of `node` that the option does not have, where the binary lists them."""
        known = self.capabilities.option_parameters(option)
        for name in node.items:
            if known and name not in known:
                words = f"{path} has no {name!r} on QEMU {self.version}"
                self.fail(node.key_place(name), words, suggest(name, known))

    def _by_properties(self, family: str, kind: str, members: Mapping, path: str) -> dict[str, Any]:
        """Typed by QOM's property list: devices on every release, objects on 5.2."""
        listed = self.capabilities.properties(kind)
        extra = (*TAGS[family], *(_DEVICE_WORDS if family == "device" else ()))
        values: dict[str, Any] = {}
        for name, item in members.items.items():
            info = (listed or {}).get(name)
            if info is not None:
                values[name] = self.typed(info, item, f"{path}.{name}")
            elif listed is None or name in extra:
                values[name] = plain_value(item)
            else:
                known = frozenset(listed) | frozenset(extra)
                self.unknown_word(family, kind, name, members.key_place(name), known)
        return values

    def typed(self, info: dict[str, Any], node: Node, path: str) -> Any:
        """The value of `node` as a QOM property: `info` as qom-list-properties gives it."""
        return typed(info, node, path, self.mistakes)


def instead_of(removal: Removal) -> str:
    """What to do about a word that was removed."""
    nothing = removal.instead == "nothing"
    return "remove it; nothing replaces it" if nothing else f"use {removal.instead}"


@record
class _Spelled:
    today: str
    node: Node
    place: Place
    note: str
