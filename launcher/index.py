"""The answers of one binary in a form that is cheap to look at: each is decoded when asked for.

All of them are 200 to 450 KB of JSON, of which a plan looks at a few kilobytes; so entities, types
and machine types are kept one by one under their names. marshal needs no import and is decoded at
three times the speed of JSON; a file of it is read only when nobody else may write it
(`launcher.cache`).
"""

from __future__ import annotations

from marshal import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _collections_abc import dict_items, dict_values
    from typing import Any

    from launcher.capabilities import Replies

#: Lists that are kept by the name of each entry: command → the member that holds the name.
_NAMED = {
    "query-qmp-schema": "name",
    "query-machines": "name",
    "query-command-line-options": "option",
}
#: Answers that are maps from a type to what is known of it.
_BY_TYPE = ("device-list-properties", "qom-list-properties")

_PACKED = (bytes, memoryview)


class Folded(dict[str, "Any"]):
    """A dict whose values are decoded when they are looked at.

    JSON holds no bytes: a value of such a type is one that nobody has looked at yet.
    """

    def __getitem__(self, key: str) -> Any:
        value = super().__getitem__(key)
        if type(value) in _PACKED:
            value = self[key] = self._decoded(key, value)
        return value

    def _decoded(self, _key: str, data: bytes | memoryview) -> Any:
        return loads(data)  # noqa: S302 (our own file: see above)

    def get(self, key: str, default: Any = None) -> Any:
        """The value under `key`, decoded."""
        return self[key] if key in self else default  # noqa: SIM401 (this is that method)

    def items(self) -> dict_items[str, Any]:
        """All of it, decoded."""
        self._decode()
        return super().items()

    def values(self) -> dict_values[str, Any]:
        """All values, decoded."""
        self._decode()
        return super().values()

    def _decode(self) -> None:
        for key, value in super().items():
            if type(value) in _PACKED:
                self[key] = self._decoded(key, value)


class Index(Folded):
    """All answers of a binary, by command."""

    def _decoded(self, key: str, data: bytes | memoryview) -> Any:
        value = super()._decoded(key, data)
        return Folded(value) if key in (*_NAMED, *_BY_TYPE) else value


def fold(replies: Replies) -> bytes:
    """`replies` to be kept; `unfold` gives back what Capabilities looks at."""
    parts: list[bytes] = []
    sizes: dict[str, int] = {}
    for command, answer in replies.items():
        found: Any = answer
        if command in _NAMED:
            found = {entry[_NAMED[command]]: dumps(entry) for entry in answer}
        elif command in _BY_TYPE:
            found = {name: dumps(entry) for name, entry in answer.items()}
        parts.append(dumps(found))
        sizes[command] = len(parts[-1])
    contents = dumps(sizes)
    return b"".join((len(contents).to_bytes(4, "little"), contents, *parts))


def whole(kept: Index) -> Replies:
    """What `fold` was given, all of it decoded."""
    replies: Replies = dict(kept.items())
    for command, answer in replies.items():
        if command in _NAMED:
            replies[command] = list(answer.values())
        elif command in _BY_TYPE:
            replies[command] = dict(answer.items())
    return replies


def unfold(data: bytes) -> Index | None:
    """What `fold` kept; None when `data` is something else."""
    whole = memoryview(data)
    start = 4 + int.from_bytes(whole[:4], "little")
    try:
        sizes = loads(whole[4:start])  # noqa: S302 (our own file: see above)
        if start + sum(sizes.values()) != len(data):
            return None
    except (ValueError, EOFError, TypeError, AttributeError):
        return None
    kept = Index()
    for command, size in sizes.items():
        kept[command] = whole[start : start + size]  # not copied: it is 300 KB, mostly unused
        start += size
    return kept
