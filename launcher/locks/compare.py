"""What moved between two states of one machine, and what differs between two machines. Pure."""

from __future__ import annotations

from launcher.nodes import Mapping, Scalar, Sequence
from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from launcher.errors import Place
    from launcher.locks.model import Lock
    from launcher.nodes import Node


@record
class Moved:
    """One difference.

    `what` is the part of the lock file (`profile`, `platform`, `qemu`, `host`, `machine`,
    `value`, `observed`, `omitted`, `migration`), `name` what of it. None stands for nothing there.
    """

    what: str
    name: str
    locked: Any
    now: Any

    def as_json(self) -> dict[str, Any]:
        """The shape of a difference in `lock --check` and `lock --diff`."""
        return {"what": self.what, "name": self.name, "locked": self.locked, "now": self.now}


@record
class Change:
    """A difference between two trees of a profile, with the places on both sides.

    Where a whole entry is on one side only, that is one change.
    """

    path: str
    locked: Any
    now: Any
    locked_place: Place
    place: Place


def changes(locked: Node, now: Node, path: str = "") -> Iterator[Change]:
    """What is different in `now`, by dotted path.

    The order of the keys counts in the sections whose entries have ids: it decides PCI slots.
    """
    if isinstance(locked, Mapping) and isinstance(now, Mapping):
        yield from _in_mapping(locked, now, path)
    elif isinstance(locked, Sequence) and isinstance(now, Sequence):
        yield from _in_list(locked, now, path)
    elif not (isinstance(locked, Scalar) and isinstance(now, Scalar) and locked.text == now.text):
        yield Change(path, _said(locked), _said(now), locked.place, now.place)


def _in_mapping(locked: Mapping, now: Mapping, path: str) -> Iterator[Change]:
    for key in dict.fromkeys((*locked.items, *now.items)):
        below = f"{path}.{key}".lstrip(".")
        before, after = locked.get(key), now.get(key)
        if before is None:
            yield Change(below, None, _said(now.items[key]), locked.place, now.key_place(key))
        elif after is None:
            yield Change(below, _said(before), None, locked.key_place(key), now.place)
        else:
            yield from changes(before, after, below)
    same = set(locked.items) == set(now.items)
    if path and same and "." not in path and list(locked.items) != list(now.items):
        order = (", ".join(locked.items), ", ".join(now.items))
        yield Change(f"{path} (order)", *order, locked.place, now.place)


def _in_list(locked: Sequence, now: Sequence, path: str) -> Iterator[Change]:
    for number in range(max(len(locked.items), len(now.items))):
        below = f"{path}.{number}"
        if number >= len(locked.items):
            node = now.items[number]
            yield Change(below, None, _said(node), locked.place, node.place)
        elif number >= len(now.items):
            node = locked.items[number]
            yield Change(below, _said(node), None, node.place, now.place)
        else:
            yield from changes(locked.items[number], now.items[number], below)


def _said(node: Node) -> str:
    """A node on one line."""
    if isinstance(node, Scalar):
        return node.text
    if isinstance(node, Sequence):
        return "[" + ", ".join(_said(item) for item in node.items) + "]"
    return "{" + ", ".join(f"{k}: {_said(n)}" for k, n in node.items.items()) + "}"


def flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of a section by dotted path."""
    if isinstance(value, dict) and (value or not path):
        for key, item in value.items():
            yield from flat(item, f"{path}.{key}".lstrip("."))
    else:
        yield path, value


def differ(what: str, locked: dict[str, Any], now: dict[str, Any]) -> Iterator[Moved]:
    """The differences of two maps."""
    for name in dict.fromkeys((*locked, *now)):
        if locked.get(name) != now.get(name) or (name in locked) != (name in now):
            yield Moved(what, name, locked.get(name), now.get(name))


def named(rows: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Rows of values or omissions by a name for people."""
    return {value_name(row["family"], row["type"], row["id"], row["property"]): row for row in rows}


def value_name(family: str, kind: str, key: str, name: str) -> str:
    """`object iothread io0 poll-grow`, `migration-capability migration multifd`."""
    return " ".join(dict.fromkeys((family, kind, key, name)))


def compare_values(
    locked: Iterable[dict[str, Any]], now: Iterable[dict[str, Any]], fields: tuple[str, ...]
) -> Iterator[Moved]:
    """The differences of two lists of rows, in some of their fields.

    `value` is called so, the other fields by their own names.
    """
    before, after = named(locked), named(now)
    for name in dict.fromkeys((*before, *after)):
        old, new = before.get(name), after.get(name)
        for field in fields if old is not None and new is not None else fields[:1]:
            one = None if old is None else old.get(field)
            two = None if new is None else new.get(field)
            if one != two:
                yield Moved(field, name, one, two)


#: The parts that are maps of facts, and what of them a person asks about.
_MAPS = ("profile", "request", "platform", "qemu", "host", "machine")


def differences(one: Lock, two: Lock) -> list[Moved]:
    """Everything in which two lock files differ, value by value."""
    found: list[Moved] = []
    a, b = one.document, two.document
    for part in _MAPS:
        found += differ(part, dict(flat(a.get(part, {}))), dict(flat(b.get(part, {}))))
    found += (Moved("given", c.path, c.locked, c.now) for c in changes(one.given, two.given))
    found += compare_values(a["values"], b["values"], ("value", "origin", "observed"))
    for name, locked, now in _omitted(a, b):
        found.append(Moved("omitted", name, locked, now))
    migration = (dict(flat(d.get("migration", {}))) for d in (a, b))
    found += differ("migration", *migration)
    return found


def _omitted(a: dict[str, Any], b: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    before, after = (
        {name: row["value"] for name, row in named(d.get("omitted", ())).items()} for d in (a, b)
    )
    for moved in differ("omitted", before, after):
        yield moved.name, moved.locked, moved.now
