"""A plan as it is kept beside a running machine, so that the machine can be proved again.

Planning once more would not do: the binary on disk may have been replaced since, the profile
edited, and the platform data may be another release's. What is kept is what was expected. Pure.
"""

from __future__ import annotations

from launcher.errors import Place
from launcher.plan.model import Origin, Plan, Value
from launcher.platforms.catalogue import Observer
from launcher.platforms.versions import ALWAYS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

#: Raised when the form below changes: a plan kept in another form is not read.
FORM = 1

_HEAD = (
    *("name", "uuid", "tool", "binary", "version", "build", "platform", "machine"),
    *("accel", "accel_reason", "verify", "powerdown_seconds"),
)
_VALUE = ("family", "type", "id", "property", "value", "written", "spelled", "note")
_OBSERVER = ("read", "as_", "bulk", "bulk_as", "bit", "unobservable")


def keep_plan(plan: Plan, changes: Sequence[str] = ()) -> dict[str, Any]:
    """What verifying and stopping a machine need of its plan, as JSON; no options, no secrets.

    Args:
        plan: of the machine as it is now.
        changes: the parts that came or went since it was started.
    """
    return {
        "changes": list(changes),
        "form": FORM,
        **{name: getattr(plan, name) for name in _HEAD},
        "consoles": list(plan.consoles),
        "unplanned": list(plan.unplanned),
        "values": [_keep_value(value) for value in plan.values],
    }


def changes_of(kept: Any) -> list[str]:
    """The changes that `keep_plan` was told of."""
    changes = kept.get("changes") if isinstance(kept, dict) else None
    return [str(part) for part in changes or ()]


def _keep_value(value: Value) -> dict[str, Any]:
    place, observer = value.origin.place, value.observer
    return {
        **{name: getattr(value, name) for name in _VALUE},
        "origin": [value.origin.kind, value.origin.detail],
        "place": [place.file, place.line, place.column] if place is not None else None,
        "observer": {
            **{name: getattr(observer, name) for name in _OBSERVER},
            "reads_as": [list(pair) for pair in observer.reads_as],
        },
    }


def restore_plan(kept: Any) -> Plan | None:
    """The plan that `keep_plan` kept, without options and setup; None for any other form."""
    if not isinstance(kept, dict) or kept.get("form") != FORM:
        return None
    try:
        return Plan(
            **{name: kept[name] for name in _HEAD},
            options=(),
            setup=(),
            values=tuple(_restore_value(value) for value in kept["values"]),
            omitted=(),
            wants=(),
            unplanned=tuple(kept["unplanned"]),
            consoles=tuple(kept["consoles"]),
        )
    except (KeyError, TypeError, ValueError):
        return None


def _restore_value(kept: dict[str, Any]) -> Value:
    observer = dict(kept["observer"])
    reads_as = tuple((str(written), str(read)) for written, read in observer.pop("reads_as"))
    place = Place(*kept["place"]) if kept["place"] is not None else None
    kind, detail = kept["origin"]
    return Value(
        **{name: kept[name] for name in _VALUE},
        origin=Origin(kind, detail, place),
        observer=Observer(ALWAYS, reads_as=reads_as, **observer),
    )
