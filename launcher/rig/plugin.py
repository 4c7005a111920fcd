"""What pytest calls. Nothing else of the launcher is imported until a test asks for a machine."""

from __future__ import annotations

import gc
import inspect
import os
from contextlib import contextmanager

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from typing import Any

    from launcher.rig.bench import Bench, MachineFactory
    from launcher.rig.choices import Binary
    from launcher.rig.rig import Rig, Running

_MACHINES = frozenset(("machine", "machine_factory", "module_machine", "session_machine"))
_MARK = (
    "machine(profile, platform=…, qemu=…, settings=…, verify=…, lock=…, up=…, up_seconds=…, "
    "allow=…): what the fixtures machine, machine_factory, module_machine, session_machine start"
)
_bench = pytest.StashKey["Bench"]()
_before = pytest.StashKey[set[int]]()
_rig_key = pytest.StashKey["Rig"]()
_binaries = pytest.StashKey[tuple[list[str], list[str]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the rig's options."""
    group = parser.getgroup("machines", "machines of qemu-launcher")
    add = group.addoption
    add(
        "--qemu",
        action="append",
        default=[],
        metavar="BIN",
        help="run each test that uses a "
        "machine on this QEMU; may be repeated; `matrix` is all releases of scripts/qemu-matrix",
    )
    add(
        "--platform",
        action="append",
        default=[],
        metavar="P",
        help="... and with this platform instead of the test's; may be repeated",
    )
    add("--accel", default="", metavar="NAME", help="the accelerator, instead of the profiles'")
    add(
        "--machine-artifacts",
        default="",
        metavar="DIR",
        help="where the records of the machines "
        "of failed tests go; by default to pytest's temporary folder",
    )
    add(
        "--strict-host",
        action="store_true",
        help="fail a test that this host cannot run, instead of skipping it",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Name the mark, and look for the binaries that were named.

    Raises:
        pytest.UsageError: one is not there.
    """
    config.addinivalue_line("markers", _MARK)
    named = config.getoption("--qemu")
    if named:
        from launcher.errors import LauncherError
        from launcher.rig.choices import binaries, binary_ids

        try:
            paths = binaries(named)
        except LauncherError as error:
            place = f"{error.place}: " if error.place else ""
            hint = f" ({error.hint})" if error.hint else ""
            raise pytest.UsageError(f"--qemu: {place}{error.message}{hint}") from None
        config.stash[_binaries] = paths, binary_ids(paths)


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say which binaries are tested."""
    paths, ids = config.stash.get(_binaries, ([], []))
    return [f"{name}: {path}" for name, path in zip(ids, paths, strict=True)]


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(collector: pytest.Collector, name: str, obj: object) -> None:
    """Asynchronous tests with a machine need no mark of pytest-asyncio's."""
    if not inspect.iscoroutinefunction(obj) or not name.startswith("test"):
        return
    marks = {mark.name for mark in getattr(obj, "pytestmark", ())}
    uses = _MACHINES.intersection(inspect.signature(obj).parameters)
    if (
        uses
        and not marks & {"asyncio", "anyio"}
        and collector.config.pluginmanager.hasplugin("asyncio")
    ):
        pytest.mark.asyncio(obj)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that uses a machine on each binary and platform."""
    if not _MACHINES.intersection(metafunc.fixturenames):
        return
    given = {n for mark in metafunc.definition.iter_markers("parametrize") for n in _names(mark)}
    paths, ids = metafunc.config.stash.get(_binaries, ([], []))
    if paths and "qemu" not in given:
        metafunc.parametrize("qemu", paths, ids=ids, indirect=True)
    mark = metafunc.definition.get_closest_marker("machine")
    own = mark.kwargs.get("platform", ()) if mark else ()
    platforms = metafunc.config.getoption("--platform") or ([own] if isinstance(own, str) else own)
    if platforms and "platform" not in given:
        ids = [os.path.basename(p).removesuffix(".yaml") for p in platforms]
        metafunc.parametrize("platform", list(platforms), ids=ids, indirect=True)


def _names(mark: pytest.Mark) -> list[str]:
    names = mark.args[0] if mark.args else mark.kwargs.get("argnames", ())
    return [n.strip() for n in names.split(",")] if isinstance(names, str) else list(names)


@pytest.fixture(scope="session")
def _rig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    from launcher.rig.rig import Rig

    named = request.config.getoption("--machine-artifacts")
    rig = Rig(os.path.abspath(named) if named else str(tmp_path_factory.mktemp("machines")))
    request.config.stash[_rig_key] = rig
    yield rig
    rig.end_shared("session")


@pytest.fixture(scope="module")
def _module_rig(request: pytest.FixtureRequest, _rig: Rig) -> Iterator[None]:
    yield
    _rig.end_shared("module", request.node.nodeid)


@pytest.fixture
def qemu(request: pytest.FixtureRequest) -> Binary:
    """The QEMU binary under test: of `--qemu`, else the one that is found."""
    from launcher.rig.choices import Binary

    if hasattr(request, "param"):
        return Binary.of(request.param, chosen=True)
    from launcher.errors import InputError
    from launcher.probe import find_binary

    try:
        path = find_binary(f"qemu-system-{os.uname().machine}")
    except InputError:
        path = ""
    return Binary.of(path, chosen=False)


@pytest.fixture
def platform(request: pytest.FixtureRequest) -> str:
    """The platform under test: of `--platform` or the mark; "" is the profile's own."""
    return str(getattr(request, "param", ""))


@pytest.fixture
def _machines(
    request: pytest.FixtureRequest, _rig: Rig, qemu: Any, platform: str
) -> Iterator[Bench]:
    from launcher.rig.bench import Bench

    bench = request.node.stash[_bench] = Bench(_rig, request.node, qemu, platform)
    try:
        yield bench
    finally:
        bench.close()


def _asynchronous(request: pytest.FixtureRequest) -> bool:
    return inspect.iscoroutinefunction(request.function)


@pytest.fixture
def machine_factory(request: pytest.FixtureRequest, _machines: Bench) -> MachineFactory:
    """Starts machines that end with the test; awaited in an asynchronous one."""
    from launcher.rig.bench import MachineFactory

    return MachineFactory(_machines, request.config, asynchronous=_asynchronous(request))


@pytest.fixture
def machine(request: pytest.FixtureRequest, _machines: Bench) -> Any:
    """The machine of the mark `machine`: `launcher.Machine`, or `launcher.sync.Machine`."""
    return _face(request, lambda: _machines.start(_machines.wanted()))


@pytest.fixture
def fake_machines() -> Iterator[Any]:
    """Makes machines without a QEMU: `fake_machines(profile, release="7.2", platform=…)`.

    They have the face without asyncio; an asynchronous test takes `launcher.testing.fake_machine`.
    """
    from contextlib import ExitStack

    from launcher.testing import fake_machine

    with ExitStack() as stack:
        yield lambda profile, **more: stack.enter_context(fake_machine(profile, **more))


@pytest.fixture
def module_machine(request: pytest.FixtureRequest, _machines: Bench, _module_rig: None) -> Any:
    """A machine that boots once for its module; each test gets it as it was then."""
    module = request.node.getparent(pytest.Module)
    scope = ("module", module.nodeid)
    where = f"{module.nodeid}{_worker(request.config)}"
    return _face(request, lambda: _machines.share(scope, _machines.wanted(), where))


@pytest.fixture
def session_machine(request: pytest.FixtureRequest, _machines: Bench) -> Any:
    """A machine that boots once for the run; each test gets it as it was then."""
    where = f"session{_worker(request.config)}"
    return _face(request, lambda: _machines.share(("session",), _machines.wanted(), where))


def _worker(config: pytest.Config) -> str:
    """Of pytest-xdist."""
    return f"-{config.workerinput['workerid']}" if hasattr(config, "workerinput") else ""


def _face(request: pytest.FixtureRequest, start: Any) -> Any:
    from launcher.errors import LauncherError
    from launcher.rig.bench import refuse

    try:
        running: Running = start()
    except LauncherError as error:
        refuse(error, request.config)
        raise
    return running.face(asynchronous=_asynchronous(request))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Remember which QEMUs the fixtures of a test started."""
    if _rig_key in item.config.stash:
        from launcher.rig.leaks import machines_left

        own = item.stash[_bench].pids() if _bench in item.stash else set()
        item.stash[_before] = set(machines_left(own))
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Say when a test left a QEMU running, and end it."""
    try:
        result = yield
    finally:
        rig = item.config.stash.get(_rig_key, None)
        left = rig.leaked(item.stash[_before]) if rig is not None and _before in item.stash else {}
    if left:
        names = ", ".join(f"{name} (process {pid})" for pid, name in sorted(left.items()))
        pytest.fail(f"{item.nodeid} left running: {names}; ended now", pytrace=False)
    return result


@contextmanager
def _no_collections() -> Generator[None, None, None]:
    """Put garbage collection off."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep and show what there is to know of the machines of a failed test."""
    bench = item.stash.get(_bench, None)
    if bench is None:
        return (yield)
    # To show where a test failed pytest parses it, and so does a traceback that qemu.qmp formats in
    # the machines' thread. ast.parse of CPython 3.11 counts its depth once for all threads, and a
    # collection in its midst lets another one in: `AST constructor recursion depth mismatch`, which
    # ends the whole run (3.11.7, two threads: 205 of 208 failed, and none of 752 without it).
    with _no_collections():
        report = yield
    if report.failed:
        for name, folder, text in bench.evidence():
            report.sections.append((f"machine {name}", text))
            if ("machine-artifacts", folder) not in item.user_properties:
                item.user_properties.append(("machine-artifacts", folder))
                report.user_properties.append(("machine-artifacts", folder))
    if call.when == "teardown":
        bench.clear()
        del item.stash[_bench]
    return report
