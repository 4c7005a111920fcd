"""A record as text that a person can compare: sorted, one entity, name or value a line."""

from __future__ import annotations

import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: How deep a command's answer is broken into lines; 1 where it is not named.
_DEPTHS = {
    "query-version": 0,
    "tool": 0,
    "format": 0,
    "qom-list-properties": 2,
    "device-list-properties": 2,
    "readings": 3,
}


def layout(record: dict[str, Any]) -> str:
    """The whole record."""
    body = []
    for name in sorted(record):
        if name == "machines":
            text = _machines(record[name])
        else:
            text = _lines(record[name], _DEPTHS.get(name, 1))
        body.append(f"{json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(body) + "\n}\n"


def _machines(machines: dict[str, Any]) -> str:
    found = []
    for machine, parts in machines.items():
        inner = [
            f'"compat": {_lines(parts["compat"], 1)}',
            f'"qom": {_lines(parts["qom"], 2)}',
            f'"readings": {_lines(parts["readings"], 3)}',
        ]
        found.append(f"{json.dumps(machine)}: {{\n" + ",\n".join(inner) + "\n}")
    return "{\n" + ",\n".join(found) + "\n}" if found else "{}"


def _lines(value: object, depth: int) -> str:
    """JSON with line breaks in the outermost `depth` containers only."""
    if depth and isinstance(value, dict):
        body = (f"{json.dumps(key)}: {_lines(item, depth - 1)}" for key, item in value.items())
        return "{\n" + ",\n".join(body) + "\n}" if value else "{}"
    if depth and isinstance(value, list):
        body = (_lines(item, depth - 1) for item in value)
        return "[\n" + ",\n".join(body) + "\n]" if value else "[]"
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def record_name(record: dict[str, Any]) -> str:
    """What a record is called: `qemu-7.2`, or `qsd-7.2` for the storage daemon."""
    triple = record["query-version"]["qemu"]
    kind = "qsd" if record["tool"] == "qemu-storage-daemon" else "qemu"
    return f"{kind}-{triple['major']}.{triple['minor']}"
