"""The QOM tree of a paused machine, by names that do not depend on the order of creation."""

from __future__ import annotations

import re

from launcher.errors import CommandError
from launcher.survey.read import flattened

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from launcher.monitor import Monitor
    from launcher.survey.ask import Asker

    #: Name of a node → its properties.
    Tree = dict[str, dict[str, Any]]

#: What the families' own readings hold, property by property.
_ELSEWHERE = frozenset(("/objects", "/chardevs", "/audiodevs"))
#: A device without an id gets a number by its turn: device[12]. Its type is its role.
_NUMBERED = re.compile(r"device\[\d+\]")
#: Interrupt lines without an owner are numbered in the same way.
_LINE = re.compile(r"(non-qdev-gpio)\[\d+\]")
_CHILD = re.compile(r"child<(.*)>")
#: Old spellings of other properties, not readable (5.2 to 10.0).
_LEGACY = "legacy-"
#: Values of the moment or of the host.
_HOST = {
    "date": "the clock",
    "rtc-time": "the clock",
    "uuid": "drawn by chance",
    "tsc-frequency": "of the host's CPU",
}
_AT_ONCE = 256


async def read_tree(asker: Asker, monitor: Monitor) -> Tree:
    """Every readable property of every node of the machine.

    A node is called by its path, in which a numbered device is `TYPE#k`, the k-th of its type: the
    numbers shift with every device that a release adds. Links are given by these names too.
    """
    nodes = await _nodes(monitor)
    names = dict(sorted(nodes.items(), key=lambda item: -len(item[0])))
    found: Tree = {name: {} for name in nodes.values()}
    wanted: list[tuple[str, str]] = []
    listings = await _many(monitor, "qom-list", [{"path": path} for path in nodes])
    for path, listed in zip(nodes, listings, strict=True):
        own = (one for one in listed if not one["type"].startswith("child<"))
        wanted += [(path, one["name"]) for one in own if not one["name"].startswith(_LEGACY)]
    answers = await _many(
        monitor, "qom-get", [{"path": path, "property": name} for path, name in wanted]
    )
    for (path, name), answer in zip(wanted, answers, strict=True):
        if name in _HOST:
            found[nodes[path]][name] = {"host": _HOST[name]}
        elif isinstance(answer, CommandError):
            found[nodes[path]][name] = {"error": asker.words_of(answer)}
        else:
            value = _renamed(names, asker.plain(answer))
            found[nodes[path]].update(flattened(name, value))
    return dict(sorted((name, dict(sorted(values.items()))) for name, values in found.items()))


async def _nodes(monitor: Monitor) -> dict[str, str]:
    """Path → name of every node, from the root down."""
    nodes = {"/": "/"}
    fresh = ["/"]
    while fresh:
        listings = await _many(monitor, "qom-list", [{"path": path} for path in fresh])
        below: list[str] = []
        for path, listed in zip(fresh, listings, strict=True):
            counts: dict[str, int] = {}
            for one in sorted(listed, key=lambda entry: _by_number(entry["name"])):
                child = _CHILD.fullmatch(one["type"])
                inner = f"{path.rstrip('/')}/{one['name']}"
                if child is None or inner in _ELSEWHERE:
                    continue
                name = one["name"]
                if _NUMBERED.fullmatch(name):
                    counts[child[1]] = counts.get(child[1], -1) + 1
                    name = f"{child[1]}#{counts[child[1]]}"
                nodes[inner] = f"{nodes[path].rstrip('/')}/{name}"
                below.append(inner)
        fresh = below
    return nodes


def _by_number(name: str) -> tuple[str, int]:
    stem, _, number = name.partition("[")
    digits = number.rstrip("]")
    return (stem, int(digits)) if digits.isdigit() else (name, -1)


async def _many(monitor: Monitor, command: str, arguments: list[dict[str, Any]]) -> list[Any]:
    """Answers to many questions, some hundred in flight at once."""
    answers: list[Any] = []
    for start in range(0, len(arguments), _AT_ONCE):
        batch = arguments[start : start + _AT_ONCE]
        answers += await monitor.execute_all([(command, one) for one in batch])
    return answers


def _renamed(names: dict[str, str], value: Any) -> Any:
    """A value in which paths of the tree are the names of their nodes."""
    if isinstance(value, str) and value.startswith("/"):
        for path, name in names.items():
            if value == path or (path != "/" and value.startswith(f"{path}/")):
                return _LINE.sub(r"\1", name + value[len(path) :])
    if isinstance(value, dict):
        return {key: _renamed(names, one) for key, one in value.items()}
    return [_renamed(names, one) for one in value] if isinstance(value, list) else value
