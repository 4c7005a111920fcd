"""Walking one data file, keeping every mistake with its place instead of stopping at the first."""

from __future__ import annotations

from launcher.errors import InputError
from launcher.nodes import Mapping, Scalar, Sequence
from launcher.platforms.versions import ALWAYS, Range, parse_version

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from launcher.errors import Place
    from launcher.nodes import Node
    from launcher.platforms.versions import Version


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint with the known words that look like `word`, or empty."""
    # difflib costs more to import than this whole folder takes to read: only for a mistake.
    from difflib import get_close_matches

    near = get_close_matches(word, sorted(known), n=3)
    return f"did you mean {' or '.join(near)}?" if near else ""


class Reader:
    """Typed access to nodes; `mistakes` holds what was wrong so far."""

    def __init__(self) -> None:
        self.mistakes: list[InputError] = []

    def wrong(self, place: Place, message: str, hint: str = "") -> None:
        """Keep one mistake."""
        self.mistakes.append(InputError(message, place=place, hint=hint, code="platform-data"))

    def mapping(self, node: Node | None, what: str) -> Mapping | None:
        """The node as a mapping; anything else is a mistake."""
        if isinstance(node, Mapping):
            return node
        if node is not None:
            self.wrong(node.place, f"{what} must be a mapping")
        return None

    def entries(self, node: Node | None, what: str) -> Iterator[tuple[str, Mapping]]:
        """The (key, mapping) pairs of a mapping of mappings."""
        outer = self.mapping(node, what)
        for key, inner in outer.items.items() if outer else ():
            found = self.mapping(inner, f"{what} {key}")
            if found is not None:
                yield key, found

    def list(self, node: Node | None, what: str) -> tuple[Node, ...]:
        """The items of a list; nothing at all is an empty one."""
        if isinstance(node, Sequence):
            return node.items
        if node is not None:
            self.wrong(node.place, f"{what} must be a list")
        return ()

    def keys(self, node: Mapping, known: Iterable[str], needed: Iterable[str] = ()) -> None:
        """Check the keys of `node` against those that it may and must have."""
        known = tuple(known)
        for key in node.items:
            if key not in known:
                hint = nearest(key, known) or f"known: {', '.join(known)}"
                self.wrong(node.key_place(key), f"unknown key {key!r}", hint)
        for key in needed:
            if key not in node.items:
                self.wrong(node.place, f"the key {key!r} is missing")

    def text(self, node: Mapping, key: str) -> str | None:
        """The text under `key`; None when it is absent, null or not a scalar."""
        value = node.get(key)
        if value is None:
            return None
        if not isinstance(value, Scalar):
            self.wrong(value.place, f"{key} must be text")
            return None
        return None if value.is_null else value.text

    def choice(self, node: Mapping, key: str, known: Iterable[str], default: str) -> str:
        """The word under `key`, one of `known`."""
        word = self.text(node, key)
        if word is None:
            return default
        known = tuple(known)
        if word not in known:
            self.wrong(node.items[key].place, f"{key} cannot be {word!r}", " | ".join(known))
        return word

    def version(self, node: Mapping, key: str) -> Version | None:
        """The release under `key`."""
        word = self.text(node, key)
        if word is None:
            return None
        try:
            return parse_version(word, node.items[key].place)
        except InputError as error:
            self.mistakes.append(error)
            return None

    def range(self, node: Mapping, key: str = "qemu") -> Range:
        """The range under `key`, every release when it is absent."""
        inner = self.mapping(node.get(key), key)
        if inner is None:
            return ALWAYS
        self.keys(inner, ("from", "until"))
        found = Range(self.version(inner, "from"), self.version(inner, "until"))
        if found.backwards:
            self.wrong(inner.place, f"{key} ends before it begins")
        return found

    def pairs(self, node: Mapping, key: str) -> tuple[tuple[str, str], ...]:
        """A mapping of text to text, as pairs."""
        inner = self.mapping(node.get(key), key)
        if inner is None:
            return ()
        return tuple((name, self.text(inner, name) or "") for name in inner.items)
