"""Two sets of entries → what changed, appeared and is gone, and how much stayed the same."""

from __future__ import annotations

from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from launcher.drift.entries import Key, Surveyed
    from launcher.drift.shapes import Facets

#: Facets that say more than that a thing exists: a word may come and go.
_PRESENCE = ("takes ", "feature ")
#: Facets that not every source of a word has: compared where both sides have them.
_PARTIAL = frozenset(("type", "optional", "default", "instance", "alias", "deprecated"))


@record
class Change:
    """One difference. `old` and `new` are JSON values, None where there is nothing on that side."""

    family: str
    type: str
    property: str
    facet: str
    change: str  # "changed" | "appeared" | "gone"
    old: Any
    new: Any


@record
class Comparison:
    """Two binaries side by side."""

    old: Surveyed
    new: Surveyed
    changes: tuple[Change, ...]
    #: Family → how many facets are the same on both sides.
    same: dict[str, int]
    #: (family, type or `*`, "old" or "new", why): what one side does not show, so not compared.
    unseen: tuple[tuple[str, str, str, str], ...]


def compare(old: Surveyed, new: Surveyed) -> Comparison:
    """What differs between two surveyed binaries, by family, type and property."""
    changes: list[Change] = []
    same: dict[str, int] = {}
    for key in sorted({*old.entries, *new.entries}):
        if _hidden(old, key) or _hidden(new, key):
            continue
        for change in _differences(key, old, new):
            if isinstance(change, Change):
                changes.append(change)
            else:
                same[key[0]] = same.get(key[0], 0) + 1
    unseen = [
        (family, type_, side, why)
        for side, one in (("old", old), ("new", new))
        for (family, type_), why in sorted(one.unseen.items())
    ]
    return Comparison(old, new, tuple(changes), same, tuple(unseen))


def _hidden(side: Surveyed, key: Key) -> bool:
    """Whether a side shows nothing of this family or type, although it may have it."""
    family, type_, name = key
    if (family, "*") in side.unseen:
        return True
    return name != "*" and (family, type_) in side.unseen


def _differences(key: Key, old: Surveyed, new: Surveyed) -> Iterator[Change | str]:
    """A Change for each facet that differs, the facet's name for each that does not."""
    before, after = old.entries.get(key), new.entries.get(key)
    if before is None and after is not None:
        yield Change(*key, "word", "appeared", None, _shown(after))
        return
    if after is None and before is not None:
        yield Change(*key, "word", "gone", _shown(before), None)
        return
    assert before is not None
    assert after is not None
    for facet in sorted({*before, *after}):
        if facet in before and facet in after:
            if same_value(before[facet], after[facet]):
                yield facet
            else:
                yield Change(*key, facet, "changed", before[facet], after[facet])
        elif facet.startswith(_PRESENCE):
            if _both_say(facet, before, after):
                yield _one_sided(key, facet, before, after)
        elif facet not in _PARTIAL and _made(key, old) and _made(key, new):
            yield _one_sided(key, facet, before, after)


def _one_sided(key: Key, facet: str, before: Facets, after: Facets) -> Change:
    if facet in before:
        return Change(*key, facet, "gone", before[facet], None)
    return Change(*key, facet, "appeared", None, after[facet])


def _both_say(facet: str, before: Facets, after: Facets) -> bool:
    """Whether both sides come from a schema: 5.2 has none for objects."""
    return ("optional" in before) == ("optional" in after) or facet.startswith("feature ")


def _made(key: Key, side: Surveyed) -> bool:
    """Whether an instance of the type could be read at all."""
    facets = side.entries.get((key[0], key[1], "*"), {})
    return bool(facets.get("instance", "made") == "made")


def _shown(facets: Facets) -> Any:
    """What to show of a property that is on one side only: its value, else its default."""
    for facet in ("value", "default"):
        if facet in facets:
            return facets[facet]
    return True


def same_value(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON: unlike Python, 1 is not true."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_value(one[k], other[k]) for k in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_value, one, other))
    return bool(one == other)
