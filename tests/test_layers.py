"""The house keeps its order: who may import whom, who may touch the world, how long things get."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from functools import cache

import pytest

from tests.support.records import ROOT

pytestmark = pytest.mark.hermetic

TOP = os.path.join(ROOT, "launcher")

#: Rooms, floor by floor: each may import from the floors below it, never from its own or above.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("record",),
    ("errors", "flat", "display"),
    ("nodes",),
    ("qapi",),
    ("platforms", "index"),
    ("capabilities",),
    ("profiles",),
    ("plan",),
    ("command", "report"),
    ("locks", "drift"),
    ("preflight",),
    # below: the pure core; above: what touches the world
    ("files", "cache", "output", "notify"),
    ("bus",),
    ("data", "lock_files", "plan_cache", "host", "process", "monitor", "console"),
    ("probe", "verify"),
    ("prepare", "survey"),
    ("rejoin",),
    ("diagnose", "ends", "rejoined"),
    ("migrate",),
    ("whereabouts", "snapshot", "screen", "dump", "faults", "helpers", "guest"),
    ("plug", "controls"),
    ("begin", "machine"),
    ("start",),
    ("locking", "incoming"),
    ("rehearse", "saved"),
    ("speed", "sync", "agent", "fleet"),
    ("testing",),
    ("rig",),
    ("cli",),
    ("__init__", "__main__"),
)
#: Rooms whose modules take values and give values.
PURE = (
    *("record", "errors", "flat", "display", "nodes", "qapi", "platforms", "capabilities", "index"),
    *("profiles", "plan", "command", "report", "locks", "preflight", "drift"),
)
#: What a pure room may not import. `os` is allowed for `os.path` alone, on which names of files
#: are put together.
WORLD = frozenset(
    (
        *("asyncio", "ctypes", "fcntl", "glob", "io", "mmap", "multiprocessing"),
        *("pathlib", "pickle", "pty", "random", "select", "shutil", "signal", "socket", "ssl"),
        *("subprocess", "sys", "tempfile", "termios", "threading", "time", "urllib", "uuid"),
        *("yaml", "qemu"),
    )
)
LONGEST_MODULE, LONGEST_FUNCTION = 400, 80


def _modules() -> list[str]:
    """Every module by its path relative to `launcher/`."""
    found = []
    for folder, _, names in os.walk(TOP):
        found += [os.path.relpath(os.path.join(folder, n), TOP) for n in names if n.endswith(".py")]
    return sorted(found)


MODULES = _modules()


def _room(module: str) -> str:
    return module.partition(os.sep)[0].removesuffix(".py")


def _dotted(module: str) -> str:
    parts = ["launcher", *module.removesuffix(".py").split(os.sep)]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def _source(module: str) -> str:
    with open(os.path.join(TOP, module), encoding="utf-8") as file:
        return file.read()


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(_source(module))


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def _running(node: ast.AST, *, functions: bool) -> Iterator[ast.AST]:
    """The nodes that run: without what only type checkers see, and without functions if asked."""
    for child in ast.iter_child_nodes(node):
        if _is_type_checking(child):
            assert isinstance(child, ast.If)
            for other in child.orelse:
                yield other
                yield from _running(other, functions=functions)
            continue
        if not functions and isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        yield child
        yield from _running(child, functions=functions)


def _imports(module: str, *, functions: bool = True) -> set[str]:
    """The dotted names that a module imports when it runs."""
    found = set()
    for node in _running(_tree(module), functions=functions):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are written in full"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _imported_rooms(module: str) -> set[str]:
    names = (name.split(".") for name in _imports(module) if name.startswith("launcher."))
    return {parts[1] for parts in names if parts[1] in ROOMS}


ROOMS = frozenset(_room(module) for module in MODULES)
LEVEL = {room: level for level, floor in enumerate(FLOORS) for room in floor}


def test_every_room_has_a_floor_and_no_other_is_named():
    assert set(LEVEL) == ROOMS
    assert set(PURE) <= ROOMS
    assert len(LEVEL) == sum(len(floor) for floor in FLOORS)


@pytest.mark.parametrize("module", MODULES)
def test_imports_lead_downstairs(module):
    room = _room(module)
    upstairs = {
        other for other in _imported_rooms(module) if other != room and LEVEL[other] >= LEVEL[room]
    }
    assert upstairs == set()


@pytest.mark.parametrize("module", [m for m in MODULES if _room(m) in PURE])
def test_pure_rooms_do_not_touch_the_world(module):
    names = {name.split(".")[0] for name in _imports(module)}
    assert names & WORLD == set()
    for node in _running(_tree(module), functions=True):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "os":
            assert node.attr == "path", f"line {node.lineno}: os.{node.attr}"
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("open", "input", "print"):
            pytest.fail(f"line {node.lineno}: {ast.unparse(node.func)}()")


@pytest.mark.parametrize("module", [m for m in MODULES if _room(m) != "monitor"])
def test_only_the_monitor_room_knows_the_qmp_library(module):
    text = ast.unparse(_tree(module))
    used = {n for n in _imports(module) if n.split(".")[0] == "qemu"}
    assert used == set()
    assert not re.search(r"import_module\(['\"]qemu", text)


@pytest.mark.parametrize("module", [m for m in MODULES if _room(m) != "bus"])
def test_only_the_bus_knows_the_mqtt_library(module):
    assert {n for n in _imports(module) if n.split(".")[0] in ("aiomqtt", "paho")} == set()


def test_no_module_imports_itself_in_a_circle():
    """At import time: what a function imports when it is called is no circle."""
    known = {_dotted(module): module for module in MODULES}
    graph = {
        name: {i for i in _imports(module, functions=False) if i in known and i != name}
        for name, module in known.items()
    }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail[trail.index(name) :], name))
        if name in done:
            return
        for other in sorted(graph[name]):
            # A package that imports its own parts is not imported by them in turn.
            visit(other, (*trail, name))
        done.add(name)

    for name in sorted(graph):
        visit(name, ())


@pytest.mark.parametrize("module", MODULES)
def test_modules_and_functions_stay_short(module):
    lines = _source(module).count("\n")
    assert lines <= LONGEST_MODULE, f"{lines} lines"
    for node in ast.walk(_tree(module)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= LONGEST_FUNCTION, f"{node.name} has {length} lines"


_ORDER = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)


def _compares_versions(node: ast.Compare) -> bool:
    """A comparison that knows releases: of a version's numbers, or with one written down."""
    inside = [part for side in (node.left, *node.comparators) for part in ast.walk(side)]
    attributes = {part.attr for part in inside if isinstance(part, ast.Attribute)}
    names = {part.id for part in inside if isinstance(part, ast.Name)} | attributes
    texts = [p.value for p in inside if isinstance(p, ast.Constant) and isinstance(p.value, str)]
    if any(re.fullmatch(r"\d+\.\d+(\.\d+)?", text) for text in texts):
        return True
    if attributes & {"series", "numbers"}:
        return True
    return bool(names & {"version", "release"}) and any(isinstance(o, _ORDER) for o in node.ops)


@pytest.mark.parametrize("module", [m for m in MODULES if _room(m) != "platforms"])
def test_only_the_platform_data_compares_versions(module):
    """No `if version >=`: what differs between releases is data."""
    found = [
        f"line {node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(_tree(module))
        if isinstance(node, ast.Compare) and _compares_versions(node)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("text", "compares"),
    [
        ("version >= other", True),
        ("plan.version < floor", True),
        ("a.series == b.series", True),
        ("release == '7.2'", True),
        ("text in ('8.0', '8.1')", True),
        ("version == expected", False),
        ("count > 7.2", False),
        ("name == 'pc-q35-7.2'", False),
    ],
)
def test_the_rule_about_versions_finds_them(text, compares):
    node = ast.parse(text, mode="eval").body
    assert isinstance(node, ast.Compare)
    assert _compares_versions(node) is compares
