"""Reading waivers.yaml: the changes that need no row, class by class, each with its reason."""

from __future__ import annotations

from launcher.errors import InputErrors
from launcher.platforms.reader import Reader
from launcher.platforms.steps import touches
from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.drift.compare import Change
    from launcher.errors import Place
    from launcher.nodes import Mapping
    from launcher.platforms import Version

_KEYS = ("family", "type", "property", "facet", "change", "from", "until", "old", "new", "because")
_CHANGES = ("changed", "appeared", "gone")


@record
class Waiver:
    """One class of changes. Each pattern is a list of words, in which `*` stands for any text.

    `from_` and `until`: the change lies between two releases of which the newer is at least
    `from_` and the older at most `until`, as a change of a release between them does.
    """

    family: tuple[str, ...]
    type: tuple[str, ...]
    property: tuple[str, ...]
    facet: tuple[str, ...]
    change: tuple[str, ...]
    from_: Version | None
    until: Version | None
    old: tuple[str, ...]
    new: tuple[str, ...]
    because: str
    place: Place

    def matches(self, change: Change, old: Version, new: Version) -> bool:
        """Whether a change between two binaries is of this class."""
        return (
            touches(self.from_, self.until, old, new)
            and change.change in self.change
            and _any(self.family, change.family)
            and _any(self.type, change.type)
            and _any(self.property, change.property)
            and _any(self.facet, change.facet)
            and _any(self.old, plain(change.old))
            and _any(self.new, plain(change.new))
        )


def read_waivers(tree: Mapping) -> tuple[Waiver, ...]:
    """The waivers of a file, in its order.

    Raises:
        InputErrors: everything that is wrong in it, each with its place.
    """
    reader = Reader()
    reader.keys(tree, ("waivers",), ("waivers",))
    found = []
    for node in reader.list(tree.get("waivers"), "waivers"):
        body = reader.mapping(node, "a waiver")
        if body is not None:
            reader.keys(body, _KEYS, ("family", "because"))
            found.append(_waiver(reader, body))
    if reader.mistakes:
        raise InputErrors(reader.mistakes)
    return tuple(found)


def _waiver(reader: Reader, body: Mapping) -> Waiver:
    def words(key: str, default: str = "*") -> tuple[str, ...]:
        text = reader.text(body, key)
        return tuple((default if text is None else text).split(" | "))

    change = words("change", " | ".join(_CHANGES))
    for word in change:
        if word not in _CHANGES:
            reader.wrong(body.items["change"].place, f"change cannot be {word!r}")
    return Waiver(
        words("family"),
        words("type"),
        words("property"),
        words("facet"),
        change,
        reader.version(body, "from"),
        reader.version(body, "until"),
        words("old"),
        words("new"),
        reader.text(body, "because") or "",
        body.place,
    )


def plain(value: object) -> str:
    """A value as patterns see it: as QEMU's command line has it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, dict) and len(value) == 1:
        return next(f"{name}: {text}" for name, text in value.items())
    return "" if value is None else str(value)


def _any(patterns: tuple[str, ...], text: str) -> bool:
    return any(_fits(pattern, text) for pattern in patterns)


def _fits(pattern: str, text: str) -> bool:
    """Whether `text` is of the form of `pattern`: brackets are plain there, unlike in a shell's."""
    head, star, rest = pattern.partition("*")
    if not star:
        return pattern == text
    if not text.startswith(head):
        return False
    parts = rest.split("*")
    position = len(head)
    for part in parts[:-1]:
        found = text.find(part, position)
        if found < 0:
            return False
        position = found + len(part)
    return text.endswith(parts[-1]) and len(text) - len(parts[-1]) >= position
