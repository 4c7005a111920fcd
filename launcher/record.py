"""Small frozen value classes, without the import cost of `dataclasses`.

Importing `dataclasses` pulls in `inspect`, which costs more than half of a bare interpreter's
start (docs/decisions/0002-import-time.md). The nouns of this project are plain values, so this
room gives them just that: fields in declared order, defaults, equality, a readable repr, and an
error on assignment. Type checkers see the standard `dataclass(frozen=True)`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import dataclass as _dataclass
    from typing import Any, TypeVar, dataclass_transform

    _T = TypeVar("_T")

    @dataclass_transform(frozen_default=True)
    def record(cls: type[_T]) -> type[_T]:
        """Typed stand-in for `dataclass(frozen=True)`."""
        return _dataclass(frozen=True)(cls)

    def replace(value: _T, /, **changes: Any) -> _T:
        """Typed stand-in for `dataclasses.replace`."""
        return value

    def as_dict(value: Any) -> dict[str, Any]:
        """Typed stand-in for the runtime function below."""
        return {}

    _Init = Callable[..., None]
else:
    #: So many values of a class are made by the general way before it gets one of its own, which
    #: takes as long to compile as fifty of them.
    _FEW = 32

    def _init_of(cls, fields, defaults):
        """`__init__` of one class: the general one, until many values of it have been made."""
        left = _FEW

        def init(self, *args, **kwargs):
            nonlocal left
            left -= 1
            if not left:
                cls.__init__ = _compiled(fields, defaults)
            if kwargs or len(args) != len(fields):
                args = _complete(self, args, kwargs, fields, defaults)
            self.__dict__.update(zip(fields, args, strict=True))

        return init

    def _compiled(fields, defaults):
        """`__init__` as one would write it: a plan makes thousands of records."""
        words = [f"{name}=_defaults[{name!r}]" if name in defaults else name for name in fields]
        lines = [f"def __init__(self, {', '.join(words)}):", " _own = self.__dict__"]
        lines += [f" _own[{name!r}] = {name}" for name in fields]
        made = {"_defaults": defaults}
        exec("\n".join(lines), made)  # noqa: S102 (of nothing but our own classes' field names)
        return made["__init__"]

    def _complete(value, args, kwargs, fields, defaults):
        """The values of all fields, in order."""
        if len(args) > len(fields):
            raise TypeError(f"{type(value).__name__} takes {len(fields)} values, got {len(args)}")
        complete = list(args)
        for name in fields[: len(args)]:
            if name in kwargs:
                raise TypeError(f"{type(value).__name__} got {name!r} twice")
        for name in fields[len(args) :]:
            if name in kwargs:
                complete.append(kwargs.pop(name))
            elif name in defaults:
                complete.append(defaults[name])
            else:
                raise TypeError(f"{type(value).__name__} needs {name!r}")
        if kwargs:
            raise TypeError(f"{type(value).__name__} has no field {next(iter(kwargs))!r}")
        return complete

    def _set(self, name, value):
        raise AttributeError(f"{type(self).__name__} is frozen: cannot set {name!r}")

    def _eq(self, other):
        if type(self) is not type(other):
            return NotImplemented
        return all(getattr(self, n) == getattr(other, n) for n in self.__record_fields__)

    def _hash(self):
        return hash((type(self), *(getattr(self, n) for n in self.__record_fields__)))

    def _repr(self):
        body = ", ".join(f"{n}={getattr(self, n)!r}" for n in self.__record_fields__)
        return f"{type(self).__name__}({body})"

    def record(cls):
        """Make `cls` a frozen value class of its annotated fields.

        Mutable defaults are refused, as `dataclasses` refuses them: one list shared by all
        values is never what was meant.
        """
        inherited = getattr(cls, "__record_fields__", ())
        written = cls.__dict__.get("__annotations__", {})  # noqa: RUF063 (inspect is what we avoid)
        own = tuple(n for n in written if n not in inherited)
        defaults = dict(getattr(cls, "__record_defaults__", {}))
        for name in own:
            if name in cls.__dict__:
                if isinstance(cls.__dict__[name], (list, dict, set)):
                    raise TypeError(f"{cls.__name__}.{name}: a mutable default is shared")
                defaults[name] = cls.__dict__[name]
            elif defaults:
                raise TypeError(f"{cls.__name__}.{name} needs a default, as those before it have")
        cls.__record_fields__ = inherited + own
        cls.__record_defaults__ = defaults
        cls.__match_args__ = inherited + own
        cls.__init__ = _init_of(cls, cls.__record_fields__, defaults)
        cls.__setattr__ = _set
        cls.__eq__ = _eq
        cls.__hash__ = _hash
        if "__repr__" not in cls.__dict__:
            cls.__repr__ = _repr
        return cls

    def replace(value, /, **changes):
        """A copy of `value` with some fields changed."""
        fields = {n: getattr(value, n) for n in value.__record_fields__}
        fields.update(changes)
        return type(value)(**fields)

    def as_dict(value):
        """The fields of `value` by name, not descending into nested records."""
        return {n: getattr(value, n) for n in value.__record_fields__}
