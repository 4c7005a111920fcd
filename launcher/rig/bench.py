"""The machines of one test: what it asks for, what it gets, and what is kept when it fails."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

import pytest

from launcher.errors import HostError, InputError, LauncherError
from launcher.record import replace
from launcher.rig.choices import Binary
from launcher.rig.rig import Rig, Running, Wanted, file_name
from launcher.sync.thread import THREAD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

_FIELDS = frozenset(Wanted.__annotations__)


class Bench:
    """The machines of one test.

    Attributes:
        failed: the test has failed; then the records are kept.
    """

    def __init__(self, rig: Rig, item: pytest.Item, qemu: object, platform: str) -> None:
        self.failed = False
        self._rig = rig
        self._item = item
        self._qemu = getattr(qemu, "binary", qemu)  # a fixture of the user's may give more
        self._platform = platform
        self._own: list[Running] = []
        self._shared: list[Running] = []
        self._lock = threading.Lock()
        self._closed = False

    def wanted(self, profile: str | Mapping[str, Any] | None = None, **more: Any) -> Wanted:
        """What the mark `machine` asks for, with what is given here instead.

        Raises:
            pytest.UsageError: no profile, or an argument that there is not.
        """
        mark = self._item.get_closest_marker("machine")
        given = {**(mark.kwargs if mark else {}), **more}
        profile = profile or (mark.args[0] if mark and mark.args else given.pop("profile", None))
        given.pop("profile", None)
        unknown = sorted(set(given) - _FIELDS)
        if profile is None or unknown:
            what = f"no argument {unknown[0]!r}" if unknown else "a profile as its first argument"
            raise pytest.UsageError(f"{self._item.nodeid}: the mark `machine` takes {what}")
        settings = given.get("settings", ())
        if isinstance(settings, dict):
            settings = [f"{key}={value}" for key, value in settings.items()]
        accel = self._item.config.getoption("--accel")
        given["settings"] = (*settings, *([f"accel={accel}"] if accel else []))
        allow = given.get("allow", ())
        given["allow"] = (allow,) if isinstance(allow, str) else tuple(allow)
        if self._platform and "platform" not in more:
            given["platform"] = self._platform
        wanted = Wanted(self._path(profile), **given)
        return self._on_binary(wanted)

    def _on_binary(self, wanted: Wanted) -> Wanted:
        qemu = self._qemu
        chosen = qemu.chosen if isinstance(qemu, Binary) else True
        if qemu and (chosen or not wanted.qemu) and (chosen or not isinstance(qemu, Binary)):
            return replace(wanted, qemu=str(qemu))
        return wanted

    def _path(self, profile: str | Mapping[str, Any]) -> str | Mapping[str, Any]:
        """A relative path is beside the test, below the root of all tests, or from here."""
        if not isinstance(profile, (str, os.PathLike)):
            return profile
        root = str(self._item.config.rootpath)
        for folder in (str(self._item.path.parent), root):
            path = os.path.join(folder, profile)
            if os.path.exists(path):
                return path
        return os.fspath(profile)

    def start(self, wanted: Wanted) -> Running:
        """A machine of this test's own.

        Raises:
            LauncherError: as `launch`.
            RuntimeError: the test has ended meanwhile.
        """
        running = self._rig.start(wanted, self._item.nodeid)
        with self._lock:
            if not self._closed:
                self._own.append(running)
                return running
        self._rig.end(running)
        running.record.discard()
        raise RuntimeError("the test that asked for this machine has ended")

    def share(self, scope: tuple[str, ...], wanted: Wanted, where: str) -> Running:
        """A shared machine, as it was when it had booted.

        Raises:
            LauncherError: as `launch`, or it did not come up.
        """
        running = self._rig.share((*scope, repr(wanted)), wanted, where)
        self._shared.append(running)
        return running

    def pids(self) -> set[int]:
        """Of the machines that end with the test."""
        return {running.machine.process.pid for running in self._own}

    def close(self) -> None:
        """End the test's machines.

        Raises:
            GuestFault: a guest was beyond help, and no call had said so.
        """
        with self._lock:
            self._closed = True
        faults = [self._rig.end(running) for running in self._own]
        faults += [running.guard.unreported() for running in self._shared]
        found = [fault for fault in faults if fault is not None]
        if found:
            self.failed = True
            raise found[0]

    def clear(self) -> None:
        """Remove the records of a test that passed."""
        if not self.failed:
            for running in self._own:
                running.record.discard()

    def evidence(self) -> list[tuple[str, str, str]]:
        """Of each machine: its name, the folder of what is kept, and what to show of it."""
        self.failed = True
        found = []
        for running in (*self._own, *self._shared):
            name, kept = running.machine.plan.name, running.record
            if running in self._shared:
                test = os.path.join(self._rig.folder, file_name(self._item.nodeid))
                kept = kept.copy(os.path.join(test, f"shared-{file_name(name)}"))
            try:
                lines = THREAD.call(kept.gather(running.machine))
            except LauncherError as error:
                lines = [f"could not be asked: {error}"]
            for console_name, console in running.machine.consoles.items():
                last = THREAD.do(lambda c=console: c.text).splitlines()[-20:]
                lines += [f"{console_name}:", *(f"  {line!r}"[:200] for line in last)]
            lines += ["kept:", *(f"  {path}" for path in kept.files())]
            found.append((name, kept.folder, "\n".join(lines)))
        return found


def refuse(error: LauncherError, config: pytest.Config) -> None:
    """Skip a test that this host cannot run, or fail it under `--strict-host`; else return.

    Raises:
        pytest.skip.Exception, pytest.fail.Exception: with the reason.
    """
    missing = isinstance(error, InputError) and error.code == "binary"
    if not isinstance(error, HostError) and not missing:
        if error.hint:
            error.add_note(f"hint: {error.hint}")
        return
    reason = f"this host cannot run it: {error.message}"
    if error.hint:
        reason += f" ({error.hint})"
    if config.getoption("--strict-host"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


class MachineFactory:
    """Starts machines that end with the test: `machine_factory("web.yaml", platform="debian-12")`.

    Without a profile it takes that of the mark `machine`; arguments win over the mark's. In an
    asynchronous test it is awaited.
    """

    def __init__(self, bench: Bench, config: pytest.Config, *, asynchronous: bool) -> None:
        self._bench = bench
        self._config = config
        self._asynchronous = asynchronous

    def __call__(self, profile: str | Mapping[str, Any] | None = None, **more: Any) -> Any:
        """Start one more machine; see the class."""
        wanted = self._bench.wanted(profile, **more)
        return self._later(wanted) if self._asynchronous else self._now(wanted)

    def _now(self, wanted: Wanted) -> Any:
        try:
            return self._bench.start(wanted).face(asynchronous=self._asynchronous)
        except LauncherError as error:
            refuse(error, self._config)
            raise

    def _later(self, wanted: Wanted) -> Coroutine[Any, Any, Any]:
        async def starting() -> Any:
            try:
                running = await asyncio.to_thread(self._bench.start, wanted)
            except LauncherError as error:
                refuse(error, self._config)
                raise
            return running.face(asynchronous=True)

        return starting()
