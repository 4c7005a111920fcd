"""What one QEMU binary can do, read from its recorded replies. Pure.

Nothing here asks QEMU anything: `probe` records what the binary answered (`Replies`), and this
room reads those answers. Tests use recorded replies of four releases in the same way.
"""

from __future__ import annotations

from launcher.platforms.versions import release_numbers
from launcher.qapi import Schema, nearest
from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    #: Recorded answers by command; see `probe` for what is asked.
    Replies = dict[str, Any]


@record
class MachineType:
    """One machine type of a binary (QAPI: MachineInfo)."""

    name: str
    alias: str | None
    deprecated: bool
    default_ram_id: str | None
    #: (qom-type, property) -> value, of types that are not devices, plus `migration`.
    compat: dict[tuple[str, str], str]

    @property
    def versioned(self) -> bool:
        """True for `pc-q35-7.2` and the like: such a type carries compat properties."""
        return self.name.rpartition("-")[2][:1].isdigit() and "." in self.name


class Capabilities:
    """Look-ups in the replies of one binary.

    Args:
        replies: what `probe` recorded, or its index (`launcher.index`), where lists are maps.
    """

    def __init__(self, replies: Replies) -> None:
        self.replies = replies
        self._schema: Schema | None = None
        self._machines: dict[str, MachineType] = {}
        self._listed_machines: dict[str, dict[str, Any]] | None = None
        self._types: frozenset[str] | None = None
        self._options: dict[str, dict[str, Any]] | None = None
        self._properties: dict[str, dict[str, dict[str, Any]]] = {}

    @property
    def version(self) -> str:
        """The release as text, `7.2.22` (QAPI: query-version)."""
        triple = self.replies["query-version"]["qemu"]
        return f"{triple['major']}.{triple['minor']}.{triple['micro']}"

    @property
    def build(self) -> str:
        """What the packager calls this build, for instance `Debian 1:7.2+dfsg-7+deb12u18`."""
        return str(self.replies["query-version"].get("package", "")).strip("v()")

    @property
    def tool(self) -> str:
        """`qemu-system` or `qemu-storage-daemon`."""
        return str(self.replies.get("tool", "qemu-system"))

    @property
    def schema(self) -> Schema:
        """The binary's QAPI schema (QAPI: query-qmp-schema)."""
        if self._schema is None:
            self._schema = Schema(self.replies["query-qmp-schema"])
        return self._schema

    def has_command(self, name: str) -> bool:
        """Whether the binary's QMP knows the command."""
        return name in self.schema and self.schema[name]["meta-type"] == "command"

    # -- types and properties ---------------------------------------------------------------

    @property
    def types(self) -> frozenset[str]:
        """All QOM types that are not abstract (QAPI: qom-list-types)."""
        if self._types is None:
            self._types = frozenset(self.replies["qom-list-types"])
        return self._types

    def properties(self, qom_type: str) -> dict[str, dict[str, Any]] | None:
        """The properties of a type by name; None when they were not recorded.

        For devices `device-list-properties`, for all others `qom-list-properties`.
        """
        known = self._properties.get(qom_type)
        if known is None:
            for command in ("device-list-properties", "qom-list-properties"):
                listed = self.replies.get(command, {}).get(qom_type)
                if listed is not None:
                    known = self._properties[qom_type] = {p["name"]: p for p in listed}
                    break
        # Empty: the type ended the QEMU that was asked about it, so nothing is known.
        return known or None

    def unrecorded(self, types: Iterable[str]) -> list[str]:
        """Those of `types` that exist and whose properties were not recorded yet."""
        recorded = {
            name
            for command in ("device-list-properties", "qom-list-properties")
            for name in self.replies.get(command, {})
        }
        return sorted(t for t in set(types) if t in self.types and t not in recorded)

    def option_parameters(self, option: str) -> frozenset[str] | None:
        """The keys of a command-line option, None when QEMU lists none for it.

        Source: QAPI `query-command-line-options`, which is incomplete for options that were
        converted to QAPI; an empty list there means "any".
        """
        if self._options is None:
            self._options = _by_name(self.replies.get("query-command-line-options", ()), "option")
        entry = self._options.get(option)
        return None if entry is None else frozenset(p["name"] for p in entry["parameters"]) or None

    # -- machine types ------------------------------------------------------------------------

    @property
    def machines(self) -> dict[str, MachineType]:
        """All machine types by name (QAPI: query-machines)."""
        return {name: self._machine(name) for name in self._machine_entries}

    def machine(self, name: str) -> MachineType | None:
        """The machine type called `name`, an alias such as `q35` resolved."""
        if name in self._machine_entries:
            return self._machine(name)
        entries = self._machine_entries.values()
        found = next((m["name"] for m in entries if m.get("alias") == name), None)
        return None if found is None else self._machine(found)

    @property
    def _machine_entries(self) -> dict[str, dict[str, Any]]:
        if self._listed_machines is None:
            self._listed_machines = _by_name(self.replies.get("query-machines", ()), "name")
        return self._listed_machines

    def _machine(self, name: str) -> MachineType:
        known = self._machines.get(name)
        if known is None:
            m = self._machine_entries[name]
            known = self._machines[name] = MachineType(
                name,
                m.get("alias"),
                bool(m.get("deprecated", False)),
                m.get("default-ram-id"),
                {(c["qom-type"], c["property"]): c["value"] for c in m.get("compat-props", ())},
            )
        return known

    def nearest_machines(self, name: str) -> list[str]:
        """Machine types that look like `name`; the newest of its family when none does."""
        family = name.rpartition("-")[0]
        kin = [m for m in self._machine_entries if family and m.startswith(f"{family}-")]
        if kin:
            kin.sort(key=release_numbers)
            return kin[:1] + kin[-1:]
        return nearest(name, self._machine_entries)


def _by_name(listed: Any, member: str) -> dict[str, dict[str, Any]]:
    """A list of answers by the name of each; an index has it so already."""
    return listed if isinstance(listed, dict) else {entry[member]: entry for entry in listed}
