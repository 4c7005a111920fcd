"""Records as bytes and back, with marshal: the pickler's own imports cost more than a plan.

Holds what a plan is made of: records, plain values, and lists, tuples and dicts of these. An
object that stands in several places is kept once. Only files of our own are read in this way
(`launcher.cache`): marshal trusts what it reads.
"""

from __future__ import annotations

from marshal import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: The types that stand for themselves.
_PLAIN = frozenset((str, int, bool, float, type(None), bytes))
#: What a flattened tuple begins with; a flattened record begins with the number of its class.
_TUPLE = "t"


def flatten(value: Any) -> bytes:
    """The bytes of `value`.

    Raises:
        ValueError: it holds something that is neither plain nor a record.
    """
    classes: dict[Any, int] = {}
    kept: dict[int, Any] = {}

    def flat(item: Any) -> Any:
        """The form of one object that is not plain."""
        done = kept.get(id(item))
        if done is not None:
            return done
        kind = type(item)
        if kind is dict:
            done = {k: v if type(v) in _PLAIN else flat(v) for k, v in item.items()}
        elif kind is list:
            done = [v if type(v) in _PLAIN else flat(v) for v in item]
        elif kind is tuple:
            done = (_TUPLE, *[v if type(v) in _PLAIN else flat(v) for v in item])
        elif hasattr(kind, "__record_fields__"):
            number = classes.setdefault(kind, len(classes))
            fields = [getattr(item, name) for name in kind.__match_args__]
            done = (number, *[v if type(v) in _PLAIN else flat(v) for v in fields])
        else:
            raise ValueError(f"a {kind.__name__} cannot be kept")
        kept[id(item)] = done
        return done

    body = value if type(value) in _PLAIN else flat(value)
    return dumps(([(c.__module__, c.__qualname__, c.__match_args__) for c in classes], body))


def restore(data: bytes | None) -> Any:
    """What `flatten` was given; None when the bytes are of something else, or of other records."""
    if data is None:
        return None
    try:
        named, body = loads(data)  # noqa: S302 (our own file: see above)
        return _Restorer(named).value(body)
    except (ValueError, EOFError, TypeError, AttributeError, ImportError, LookupError):
        return None


class _Restorer:
    def __init__(self, named: list[tuple[str, str, tuple[str, ...]]]) -> None:
        self.classes: list[tuple[Any, tuple[str, ...]]] = []
        for module, name, fields in named:
            cls = getattr(__import__(module, fromlist=[name]), name)
            if cls.__match_args__ != fields:
                raise ValueError(f"{name} has other fields now")
            self.classes.append((cls, fields))
        self.known: dict[int, Any] = {}

    def value(self, item: Any) -> Any:
        kind = type(item)
        if kind is tuple:
            known = self.known.get(id(item))
            if known is None:
                known = self.known[id(item)] = self._made(item)
            return known
        if kind is dict:
            return {key: v if type(v) in _PLAIN else self.value(v) for key, v in item.items()}
        if kind is list:
            return [v if type(v) in _PLAIN else self.value(v) for v in item]
        return item

    def _made(self, item: tuple[Any, ...]) -> Any:
        value = self.value
        parts = [v if type(v) in _PLAIN else value(v) for v in item[1:]]
        if item[0] == _TUPLE:
            return tuple(parts)
        cls, fields = self.classes[item[0]]
        made = cls.__new__(cls)
        made.__dict__.update(zip(fields, parts, strict=True))
        return made
