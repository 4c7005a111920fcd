"""Deciding the values of one entry: the profile's own words, then what the platform pins."""

from __future__ import annotations

from launcher.errors import HostError, InputError, Place
from launcher.nodes import Mapping, Scalar, plain_value
from launcher.plan.model import InheritedFd, Omission, Option, Origin, Value, origin_of
from launcher.plan.words import TAGS, Speaker
from launcher.platforms import (
    Impossible,
    Omitted,
    Written,
    applies,
    asker,
    fitting,
    observer_for,
    parse_kernel,
    reaches,
    spell,
    takes_json,
)
from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from launcher.capabilities import Capabilities, MachineType
    from launcher.nodes import Node
    from launcher.plan.locked import Locked
    from launcher.plan.model import HostFacts, Setup
    from launcher.platforms import Catalogue, Pin, Platform, Version
    from launcher.platforms.catalogue import Key
    from launcher.profiles import Profile

#: What is shown instead of a secret's content.
HIDDEN = "(hidden)"

#: How many reasons one message holds; all of them are in its evidence.
_SHOWN = 3


@record
class Pinned:
    """What a platform's pin becomes for one entry: the text to write, and its origin."""

    pin: Pin
    text: str
    note: str


class Decider:
    """What has been decided so far for one plan. One object per call of `make_plan`."""

    def __init__(
        self,
        profile: Profile,
        platform: Platform,
        pins: dict[Key, Pin],
        catalogue: Catalogue,
        capabilities: Capabilities,
        version: Version,
        host: HostFacts,
        machine: MachineType | None,
        locked: Locked | None = None,
    ) -> None:
        self.profile = profile
        self.platform = platform
        self.catalogue = catalogue
        self.capabilities = capabilities
        self.version = version
        self.host = host
        self.machine = machine
        self.locked = locked
        self.speaker = Speaker(catalogue, capabilities, version)
        self.options: list[Option] = []
        self.setup: list[Setup] = []
        self.values: list[Value] = []
        self.omitted: list[Omission] = []
        self.wants: list[InheritedFd] = []
        self.notes: list[str] = []
        self.smp: int | None = None
        self._impossible: list[str] = []
        self._pins: dict[tuple[str, str], list[Pin]] = {}
        for pin in pins.values():
            self._pins.setdefault((pin.family, pin.type), []).append(pin)

    # -- errors -------------------------------------------------------------------------------

    def fail(self, place: Place, message: str, hint: str = "", code: str = "plan") -> None:
        """Note a mistake of the profile."""
        self.speaker.mistakes.append(InputError(message, place=place, hint=hint, code=code))

    def cannot(self, reason: str) -> None:
        """Note that this binary or this host cannot do what was asked."""
        self._impossible.append(reason)

    def runability(self) -> HostError | None:
        """One error for everything that cannot be had here."""
        if not self._impossible:
            return None
        name, floor = self.platform.name, self.platform.qemu
        if reaches(floor, self.version):
            words = f"platform {name} cannot run here"
        else:
            words = f"platform {name} stands for QEMU {floor}, and this is QEMU {self.version}"
        shown = "; ".join(self._impossible[:_SHOWN])
        more = len(self._impossible) - _SHOWN
        best = fitting(self.catalogue, self.version, parse_kernel(self.host.linux), name)
        hint = f"platform {best.name} would run here" if best is not None else ""
        return HostError(
            f"{words}: {shown}" + (f"; and {more} more" if more > 0 else ""),
            place=self.profile.platform.place,
            hint=hint,
            evidence={"reasons": list(self._impossible)},
            code="runability",
        )

    # -- pins -----------------------------------------------------------------------------------

    def pins_for(
        self, family: str, kind: str, key: str, given: dict[str, str], netdev: str | None = None
    ) -> Iterator[Pinned]:
        """The pins that hold for one entry and that this binary can write.

        Args:
            family: `object`, …
            kind: the entry's type.
            key: its id.
            given: what the profile gives it, as text; what it gives is not pinned.
            netdev: for a device, the type of its network backend.
        """
        for pin in self._candidates(family, kind, key, given, netdev):
            settled = self.settle(pin, key) if self._host_can(pin) else None
            if settled is not None:
                yield settled

    def settle(self, pin: Pin, key: str) -> Pinned | None:
        """What `pin` becomes for the entry `key`; None after noting why nothing is written."""
        spelled = spell(pin, self.version, self.smp)
        if isinstance(spelled, Written) and self._lacks(pin.family, pin.type, pin.property):
            spelled = self._unknown_here(pin)
        if isinstance(spelled, Written):
            return Pinned(pin, spelled.value, spelled.because)
        if isinstance(spelled, Omitted):
            self._omit(pin, key, spelled.reason)
        else:
            self.cannot(f"{pin.family} {pin.type} {pin.property}: {spelled.reason}")
        return None

    def _candidates(
        self, family: str, kind: str, key: str, given: dict[str, str], netdev: str | None
    ) -> Iterator[Pin]:
        """What a lock file says of one entry, then the platform's pins whose conditions hold."""
        taken = set(given)
        if self.locked is not None:
            for pin in self.locked.pins(self.catalogue, family, kind, key):
                taken.add(pin.property)
                yield pin
        versioned = self.machine is not None and self.machine.versioned
        for pin in self._pins.get((family, kind), ()):
            if pin.property in taken or not applies(pin, given, netdev):
                continue
            if not (pin.row.machine == "unversioned" and versioned):
                yield pin

    def _omit(self, pin: Pin, key: str, reason: str) -> None:
        value = self.intended(pin)
        self.omitted.append(
            Omission(pin.family, pin.type, key, pin.property, value, self.origin(pin), reason)
        )

    def intended(self, pin: Pin) -> Any:
        """What a platform asks for, typed as QEMU's JSON is."""
        text = pin.value.replace("${smp}", str(self.smp or 1))
        return plain_value(Scalar(text, pin.row.place))

    def origin(self, pin: Pin) -> Origin:
        """The origin of a pinned value."""
        if pin.axis == "lock" and self.locked is not None:
            return Origin("lock", self.locked.file, pin.row.place)
        return Origin("platform", self.platform.name, pin.row.place)

    def _lacks(self, family: str, kind: str, name: str) -> bool:
        """Whether the binary's own description lacks a property that the data says it has."""
        known = self.speaker.known_words(family, kind)
        return known is not None and name not in known

    def _unknown_here(self, pin: Pin) -> Omitted | Impossible:
        """As `spell` treats a release without the property: the binary has the last word."""
        reason = f"this build of QEMU {self.version} has no {pin.property}"
        if pin.value == pin.oldest_was or pin.row.otherwise == "omit":
            return Omitted(f"{reason} and behaves as {pin.value!r}")
        return Impossible(f"{reason}; {asker(pin)} asks for {pin.value!r}")

    def _host_can(self, pin: Pin) -> bool:
        """Whether the host has the feature that the pinned value needs; notes it when not."""
        needs = pin.row.needs
        if needs is None or pin.value != pin.row.now:
            return True
        can, reason = self.host.features.get(needs, (None, "was not asked of this host"))
        if can is False:
            self.cannot(f"{pin.type} {pin.property}={pin.value} needs {needs}: {reason}")
            return False
        if can is None:
            self.notes.append(f"{pin.type} {pin.property}: {needs} {reason}")
        return True

    # -- entries --------------------------------------------------------------------------------

    def entry(
        self, family: str, key: str, node: Mapping, path: str, netdev: str | None = None
    ) -> dict[str, Any] | None:
        """The members of one entry in the binary's words, profile and pins together.

        Notes each as a value with its origin. None after a mistake.
        """
        tag = TAGS[family][0]
        kind_node = node.get(tag)
        kind = kind_node.text if isinstance(kind_node, Scalar) else ""
        given = _texts(node)
        pinned = {p.pin.property: p for p in self.pins_for(family, kind, key, given, netdev)}
        items: dict[str, Node] = dict(node.items)
        for name, one in pinned.items():
            items[name] = Scalar(one.text, one.pin.row.place)
        words = self.speaker.speak(family, key, Mapping(items, node.place, node.keys), path)
        if words is None:
            return None
        members: dict[str, Any] = {}
        for word in words:
            found = pinned.get(word.today)
            origin = origin_of(word.place) if found is None else self.origin(found.pin)
            intended, note = word.value, word.note
            if found is None and word.name != word.today:
                # The older word may count in other units: reconnect in seconds, reconnect-ms.
                today = plain_value(items[word.today])
                intended = today if isinstance(today, int) else word.value
            if found is not None and found.note:
                intended, note = self.intended(found.pin), found.note
            members[word.name] = word.value
            if word.value is None:
                continue
            self._note(family, kind, key, word.today, word.name, intended, word.value, origin, note)
        return members

    def _note(
        self,
        family: str,
        kind: str,
        key: str,
        today: str,
        spelled: str,
        intended: Any,
        written: Any,
        origin: Origin,
        note: str,
    ) -> None:
        """One value per leaf: nested maps (block nodes, limits) are told by dotted names."""
        if isinstance(written, dict) and written:
            for name, item in written.items():
                dotted = f"{today}.{name}"
                self._note(family, kind, key, dotted, f"{spelled}.{name}", item, item, origin, note)
            return
        observer = observer_for(self.catalogue, family, kind, today, self.version)
        if self.locked is not None:
            origin = self.locked.origin(family, key, today) or origin
        self.values.append(
            Value(family, kind, key, today, intended, origin, observer, written, spelled, note)
        )

    def value(
        self, family: str, kind: str, key: str, name: str, value: Any, origin: Origin
    ) -> None:
        """Note a value that is not part of an entry: machine, accelerator, migration."""
        self._note(family, kind, key, name, name, value, value, origin, "")

    def form(self, option: str) -> str:
        """`json` where the binary's option takes it, else `keyval`."""
        return "json" if takes_json(self.catalogue, option, self.version) else "keyval"


def _texts(node: Mapping) -> dict[str, str]:
    """The members of an entry as QEMU's keyval text, for the conditions of platform rows."""
    found = {}
    for name, item in node.items.items():
        if isinstance(item, Scalar):
            found[name] = {"true": "on", "false": "off"}.get(item.text, item.text)
        else:
            found[name] = ""
    return found
