"""A record → entries: what each property, word and type of one binary is, facet by facet.

Facets: `word` (it exists), `type`, `optional`, `default` (as introspection states it), `value`
(read back from an instance; an error's words where it cannot be), `takes NAME` (a value of an
enumeration), `feature NAME` (deprecated, unstable), `instance` (of a type: whether one was made).
The property `*` is the type, option, command or event itself.
"""

from __future__ import annotations

from launcher.capabilities import Capabilities
from launcher.drift.shapes import Shapes
from launcher.record import record as frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from launcher.drift.shapes import Facets

    #: (family, type, property)
    Key = tuple[str, str, str]
    Entries = dict[Key, Facets]

#: Family → the command whose argument is its shape.
_COMMANDS = {
    "netdev": "netdev_add",
    "blockdev": "blockdev-add",
    "export": "block-export-add",
    "object": "object-add",
}
#: Commands whose arguments are families of their own.
_ELSEWHERE = frozenset((*_COMMANDS.values(), "chardev-add", "migrate-set-parameters"))
#: Options whose words are those of a family, from the schema or from QOM; `-machine` lists a
#: few common ones until 7.2 and those of every machine type together from 8.0 on.
_SHAPED = frozenset(
    (
        *("object", "netdev", "nic", "net", "chardev", "blockdev", "audiodev", "accel", "tpmdev"),
        *("device", "machine"),
    )
)
_NOT_SHOWN = "this release shows nothing of it"


@frozen
class Head:
    """Which binary was surveyed."""

    name: str
    version: str
    build: str
    tool: str


@frozen
class Surveyed:
    """Everything that is known of one binary.

    `unseen` says what the binary does not show at all: (family, type or `*`) → why. What one side
    does not show is not compared.
    """

    head: Head
    machine: str
    entries: Entries
    unseen: dict[tuple[str, str], str]


def read_record(record: dict[str, Any], name: str, machine: str = "") -> Surveyed:
    """The entries of a record; with a machine type, what was read of that machine.

    Args:
        record: as `launcher.survey` makes it.
        name: what to call the binary.
        machine: a machine type of `record["machines"]`; empty: what holds without one.
    """
    reading = _Reading(record, machine)
    reading.objects()
    reading.command_line()
    reading.qmp()
    reading.backends()
    if reading.system:
        reading.migration()
        reading.accelerators()
        reading.machine_types()
        if machine:
            reading.tree()
    capabilities = reading.capabilities
    head = Head(name, capabilities.version, capabilities.build, capabilities.tool)
    return Surveyed(head, machine, dict(sorted(reading.entries.items())), reading.unseen)


class _Reading:
    """One record on its way to entries."""

    def __init__(self, record: dict[str, Any], machine: str) -> None:
        self.record = record
        self.machine = machine
        self.capabilities = Capabilities(record)
        self.schema = self.capabilities.schema
        self.system = record["tool"] == "qemu-system"
        self.entries: Entries = {}
        self.unseen: dict[tuple[str, str], str] = {}
        self.readings = {**record["readings"]}
        if machine:
            self.readings |= record["machines"][machine]["readings"]
        roots = {family: self.schema.argument_type(c) for family, c in _COMMANDS.items()}
        self.roots = {family: root for family, root in roots.items() if root is not None}
        backend = self.schema.members(self.schema["chardev-add"]["arg-type"])["backend"]
        self.roots["chardev"] = str(backend["type"])
        stops = {root: f"a {family}" for family, root in self.roots.items()}
        self.shapes = Shapes(self.schema, stops)

    def add(self, key: Key, facets: Facets) -> None:
        """Facets of one property; those of several sources stand together."""
        self.entries.setdefault(key, {"word": True}).update(facets)

    def add_properties(self, family: str, type_: str, qom_type: str) -> None:
        """What QOM lists of a type."""
        listed = self.capabilities.properties(qom_type)
        if listed is None:
            self.unseen[family, type_] = "asking for its properties ends this QEMU"
        for name, one in (listed or {}).items():
            if name == "type" or one["type"].startswith("child<"):
                continue
            facets = {"type": one["type"]}
            if "default-value" in one:
                facets["default"] = one["default-value"]
            self.add((family, type_, name), facets)

    def add_readings(self, family: str) -> None:
        """What was read back from the instances of a family."""
        for type_, values in self.readings.get(family, {}).items():
            instance = values.get("*", "made")
            if (family, type_, "*") in self.entries:
                self.add((family, type_, "*"), {"instance": instance})
            for name, value in values.items():
                if name != "*":
                    self.add((family, type_, name), {"value": value})

    # -- families -----------------------------------------------------------------------------

    def objects(self) -> None:
        """User-creatable types: QOM's properties, the schema's members, and an instance."""
        branches = self.schema.branches(self.roots["object"]) if "object" in self.roots else {}
        for type_ in self.record["user-creatable"]:
            self.add(("object", type_, "*"), {})
            self.add_properties("object", type_, type_)
            if type_ in branches:
                for path, facets in self.shapes.members(branches[type_]).items():
                    # QOM's name of the type is nearer to what is kept than JSON's.
                    kept = self.entries.get(("object", type_, path), {})
                    self.add(("object", type_, path), {**facets, **kept})
        self.add_readings("object")

    def backends(self) -> None:
        """Netdev, chardev, blockdev, … : branches of a union, and instances."""
        for family, root in self.roots.items():
            if family != "object":
                self.union(family, root)
        if self.system:
            self.union("audiodev", self.returned("query-audiodevs"))
            tpm = self.schema.members(self.returned("query-tpm"))
            self.union("tpmdev", str(tpm["options"]["type"]))
        for family in ("netdev", "chardev", "blockdev", "audiodev"):
            self.add_readings(family)

    def returned(self, command: str) -> str:
        """The type of the elements that a command returns; empty when there is no such command."""
        if not self.capabilities.has_command(command):
            return ""
        name = self.schema[command]["ret-type"]
        return str(self.schema[name].get("element-type", name))

    def union(self, family: str, root: str) -> None:
        """The branches of a union as types; members that all share under the type `*`."""
        if not root:
            self.unseen[family, "*"] = _NOT_SHOWN
            return
        tag = self.schema[root].get("tag")
        for name, facets in self._shared(root).items():
            if name.partition(".")[0] not in (tag, "id"):
                self.add((family, "*", name), facets)
        for type_, branch in self.schema.branches(root).items():
            self.add((family, type_, "*"), {})
            # Simple unions (chardev-add, until today) wrap a branch in `data`.
            inner = self.schema.members(branch)
            if set(inner) == {"data"}:
                branch = str(inner["data"]["type"])
            for path, facets in self.shapes.members(branch).items():
                self.add((family, type_, path), facets)

    def _shared(self, root: str) -> dict[str, Facets]:
        names = self.schema.members(root)
        found = self.shapes.members(root)
        return {path: one for path, one in found.items() if path.partition(".")[0] in names}

    def migration(self) -> None:
        """Properties with introspection's defaults, parameters, capabilities, and readings."""
        self.add_properties("migration-property", "migration", "migration")
        root = self.schema.argument_type("migrate-set-parameters")
        for path, facets in self.shapes.members(str(root)).items():
            self.add(("migration-parameter", "migration", path), facets)
        root = self.schema["migrate-set-capabilities"]["arg-type"]
        words = self.shapes.members(root)["capabilities.capability"]
        for word in words:
            if word.startswith("takes "):
                self.add(("migration-capability", "migration", word[6:]), {})
        for family in ("migration-property", "migration-parameter", "migration-capability"):
            self.add_readings(family)

    def accelerators(self) -> None:
        """The properties of accelerators; `x-query-jit` reads two of tcg's."""
        for name in self.record["qom-list-types"]:
            if name.endswith("-accel"):
                type_ = name.removesuffix("-accel")
                self.add(("accel", type_, "*"), {})
                if self.capabilities.properties(name) is not None:
                    self.add_properties("accel", type_, name)
                else:
                    self.unseen["accel", type_] = "its properties were not recorded"
        self.add_readings("accel")

    def machine_types(self) -> None:
        """Machine types, and what each one's compat properties do to what is not a device."""
        told = False
        for entry in self.record["query-machines"]:
            facets = {"alias": entry.get("alias"), "deprecated": bool(entry.get("deprecated"))}
            self.add(("machine", entry["name"], "*"), facets)
            if "compat-props" in entry:
                told = True
                rows = entry["compat-props"]
                self.compat(
                    entry["name"], [[r["qom-type"], r["property"], r["value"]] for r in rows]
                )
        if not told:
            for family in ("compat", "compat-device"):
                self.unseen[family, "*"] = "query-machines has no compat-props before 9.1"
        elif self.machine:
            self.compat(self.machine, self.record["machines"][self.machine]["compat"] or [])

    def compat(self, machine: str, rows: list[list[str]]) -> None:
        """Compat properties of one machine type; of two for one property QEMU applies the last.

        Those of devices stand apart, and with them those of types that the build lacks: QEMU lists
        `pl011` on x86, and abstract types such as `pci-device`.
        """
        devices = {*self.record["devices"]} - {"migration"}
        known = {*self.record["qom-list-types"]} - devices
        for qom_type, name, value in rows:
            family = "compat" if qom_type in known else "compat-device"
            self.add((family, machine, f"{qom_type}.{name}"), {"value": value})

    def tree(self) -> None:
        """The machine's own properties, and every other node of its tree by its name."""
        for node, values in self.record["machines"][self.machine]["qom"].items():
            family, type_ = ("machine", self.machine) if node == "/machine" else ("qom", node)
            self.add((family, type_, "*"), {})
            for name, value in values.items():
                self.add((family, type_, name), {"value": value})

    # -- words --------------------------------------------------------------------------------

    def command_line(self) -> None:
        """Options of `-help`, with their words in `query-command-line-options`.

        The words in the help text count where nothing else tells them.
        """
        listed = {e["option"]: e for e in self.record["query-command-line-options"]}
        for option, words in self.record["help"].items():
            self.add(("command-line", option, "*"), {})
            told = listed.get(option, {}).get("parameters") or option in _SHAPED
            for word in () if told else words:
                self.add(("command-line", option, word), {})
        for option, entry in listed.items():
            self.add(("command-line", option, "*"), {})
            for one in entry["parameters"] if option != "machine" else ():
                facets = {"type": one["type"]}
                if "default" in one:
                    facets["default"] = one["default"]
                self.add(("command-line", option, one["name"]), facets)

    def qmp(self) -> None:
        """Commands with their arguments and answers (behind `->`), and events."""
        for name, entity in self.schema.entities.items():
            if entity["meta-type"] not in ("command", "event"):
                continue
            family = f"qmp-{entity['meta-type']}"
            features = {f"feature {one}": True for one in entity.get("features", ())}
            self.add((family, name, "*"), features)
            members = {}
            if name not in _ELSEWHERE:
                members = self.shapes.members(entity["arg-type"])
            if "ret-type" in entity:
                members |= self.shapes.inner(entity["ret-type"], "->")
            for path, facets in members.items():
                self.add((family, name, path), facets)
