"""What a lock file says of one plan: values that win over profile and platform."""

from __future__ import annotations

import builtins

from launcher.nodes import Mapping, Scalar
from launcher.plan.model import Origin
from launcher.platforms import locked_pin
from launcher.record import record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from launcher.errors import Place
    from launcher.platforms import Catalogue, Pin
    from launcher.profiles import Profile

    #: (family, id, property)
    ValueKey = tuple[str, str, str]


#: How the origins of values begin that the profile says, or its machine type.
GIVEN = ("profile", "command line")
MACHINE_TYPE = "machine type"


@record
class LockedValue:
    """One value of a lock file.

    `origin` is who set it when it was locked, for instance `platform debian-12`; `observed` is
    what QEMU answered then, None where `was_read` is False.
    """

    family: str
    type: str
    id: str
    property: str
    value: Any
    origin: str
    place: Place
    written: Any = None
    spelled: str = ""
    was_read: bool = False
    observed: Any = None

    @builtins.property  # `property` is a field here
    def key(self) -> ValueKey:
        """(family, id, property)."""
        return (self.family, self.id, self.property)


@record
class Locked:
    """The part of a lock file that decides a plan.

    Attributes:
        file: the lock file's name, for origins.
        values: by (family, id, property).
        machine: the machine type, its alias resolved; empty for a tool that has none.
        machine_place: where the lock says so.
        accel: the accelerator; empty likewise.
    """

    file: str
    values: dict[ValueKey, LockedValue]
    machine: str
    machine_place: Place
    accel: str

    def origin(self, family: str, key: str, name: str) -> Origin | None:
        """The origin of a value that the lock holds; None for any other."""
        found = self.values.get((family, key, name))
        return None if found is None else Origin("lock", self.file, found.place)

    def pins(self, catalogue: Catalogue, family: str, kind: str, key: str) -> Iterator[Pin]:
        """The lock's values for one entry, with what the platform data knows of writing them.

        What the profile gives it gives again, and what a machine type set is left to the machine
        type: both are locked themselves.
        """
        for value in self.values.values():
            if (value.family, value.type, value.id) != (family, kind, key):
                continue
            if value.origin.startswith((*GIVEN, MACHINE_TYPE)):
                continue
            name = (family, kind, value.property)
            yield locked_pin(catalogue, name, as_pinned(value.value), value.place)

    def from_machine_type(self) -> Iterator[LockedValue]:
        """The values that a machine type set."""
        return (v for v in self.values.values() if v.origin.startswith(MACHINE_TYPE))


def as_pinned(value: Any) -> str:
    """A value in the words of the platform data."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


def with_lock(profile: Profile, locked: Locked) -> Profile:
    """`profile` with the locked machine type in place of an alias, and the locked accelerator."""
    machine, accels = profile.machine, profile.accels
    if locked.machine:
        place = locked.machine_place
        items = {**machine.items, "type": Scalar(locked.machine, place)}
        machine = Mapping(items, machine.place, machine.keys)
        named = Mapping({"accel": Scalar(locked.accel, place)}, place, {})
        accels = (next((a for a in accels if _name(a) == locked.accel), named),)
    return replace(profile, machine=machine, accels=accels)


def _name(accel: Mapping) -> str:
    node = accel.get("accel")
    return node.text if isinstance(node, Scalar) else ""
