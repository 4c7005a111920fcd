"""One end as JSON and back: for the other host of a migration, and for later. Pure.

Only between launchers of one release: whoever reads another form is told so, and refuses.
"""

from __future__ import annotations

from launcher.errors import InputError
from launcher.platforms import Version
from launcher.preflight.options import Entry
from launcher.preflight.side import Block, Side
from launcher.record import as_dict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

#: Raised when the form below changes.
FORM = 1
_MAPPINGS = ("settings", "owners", "told", "compat", "defaults")
_VERSIONS = ("version", "linux")
_TABLES = ("file_systems", "images", "tpms", "held")
#: What an end lacks that was kept when its machine started, by an agent of before.
_NEWER = ("images", "sizes", "tpms", "held")
_SETS = ("machines", "cpu_flags")
_TEXTS = (
    *("name", "machine", "asked", "ram_id", "accel", "platform"),
    *("trouble", "trouble_code", "trouble_hint"),
)


def side_as_json(side: Side) -> dict[str, Any]:
    """An end as `side_from_json` takes it."""
    found = as_dict(side)
    for name in _MAPPINGS:
        value = found[name]
        if value is not None:
            found[name] = [[*key, text] for key, text in value.items()]
    for name in _VERSIONS:
        if found[name] is not None:
            found[name] = [found[name].text, *found[name].numbers]
    for name in _SETS:
        if found[name] is not None:
            found[name] = sorted(found[name])
    found["entries"] = [[e.family, e.type, e.id, e.members] for e in side.entries]
    if side.ram is not None:
        found["ram"] = {name: [block.used, block.total] for name, block in side.ram.items()}
    return {"form": FORM, **found, "blockers": list(side.blockers)}


def side_from_json(value: Any, name: str) -> Side:
    """The end that `side_as_json` wrote.

    Args:
        value: what was written.
        name: of where it comes from, for the error.

    Raises:
        InputError: it is something else.
    """
    if not isinstance(value, dict) or value.get("form") != FORM:
        raise InputError(
            f"what {name} says of its end is of another form",
            hint="both hosts need the same release of the launcher",
            code="preflight",
        )
    try:
        return _side({key: item for key, item in value.items() if key != "form"})
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        words = f"what {name} says of its end cannot be read: {error}"
        raise InputError(words, code="preflight") from None


def _side(value: Mapping[str, Any]) -> Side:
    found = {**dict.fromkeys(_NEWER), **value}
    for name in _MAPPINGS:
        if found[name] is not None:
            found[name] = {tuple(map(str, row[:-1])): str(row[-1]) for row in found[name]}
    for name in _VERSIONS:
        if found[name] is not None:
            text, *numbers = found[name]
            found[name] = Version(str(text), tuple(int(n) for n in numbers))
    for name in _SETS:
        if found[name] is not None:
            found[name] = frozenset(map(str, found[name]))
    found["entries"] = tuple(
        Entry(str(family), str(kind), str(key), {str(k): str(v) for k, v in members.items()})
        for family, kind, key, members in found["entries"]
    )
    if found["ram"] is not None:
        found["ram"] = {str(n): Block(int(b[0]), int(b[1])) for n, b in found["ram"].items()}
    if found["sizes"] is not None:
        sizes = found["sizes"].items()
        found["sizes"] = {str(k): None if v is None else int(v) for k, v in sizes}
    for name in _TABLES:
        if found[name] is not None:
            found[name] = {str(k): str(v) for k, v in found[name].items()}
    found["blockers"] = tuple(map(str, found["blockers"]))
    found["features"] = {
        str(k): None if v is None else bool(v) for k, v in found["features"].items()
    }
    for name in _TEXTS:
        found[name] = str(found[name])
    return Side(
        **{**found, "partial": bool(found["partial"]), "draws_uuid": bool(found["draws_uuid"])}
    )
