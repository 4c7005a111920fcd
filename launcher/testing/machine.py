"""`fake_machine`: a machine that is planned and not started."""

from __future__ import annotations

import socket
from typing import Any

from launcher.begin import Started
from launcher.command import render_argv
from launcher.console import Console
from launcher.data import load_catalogue
from launcher.host.resources import Resources
from launcher.machine import Machine
from launcher.monitor import Monitor
from launcher.nodes import MAPPING
from launcher.plan import make_plan
from launcher.prepare import Prepared, Request, choose_platform, load_profile
from launcher.report import Observation, judge
from launcher.sync import Machine as SyncMachine
from launcher.sync.thread import THREAD
from launcher.testing.answers import Answers
from launcher.testing.process import NoProcess
from launcher.testing.records import capabilities_of, releases, replies_of, willing_host
from launcher.testing.server import Server

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from launcher.plan import Plan
    from launcher.report import Report

_UUID = "00000000-0000-4000-8000-000000000000"
_REASON = "recorded: no QEMU was asked"


class FakeMachine(Machine):
    """A `launcher.Machine` without a QEMU, made by `fake_machine`.

    Commands are answered from the records of a release; `answer` says what else is. A command that
    the release does not have fails with CommandError and the class CommandNotFound, one whose
    answer nobody recorded says so. `stop`, `cont`, `quit` and the power button do what they do.
    """

    async def verify(self) -> Report:
        """A report in which every value is unobservable: nothing was read back."""
        seen = {
            (v.family, v.id, v.property): Observation("unreadable", None, _REASON)
            for v in self.plan.values
        }
        self.report = judge(self.plan, seen, self.process.stderr.lines)
        return self.report

    def answer(self, command: str, value: Any) -> None:
        """Have a command answered from now on.

        Args:
            command: its QAPI name; it need not exist.
            value: what it returns, a function of its arguments, or an error that it fails with.
        """
        self._answers.given[command] = value

    def inject(self, event: str, data: Mapping[str, Any] | None = None) -> None:
        """Have QEMU tell an event: `machine.inject("GUEST_PANICKED", {"action": "pause"})`."""
        self._server.tell(event, dict(data or {}))

    def feed(self, data: bytes | str, console: str = "") -> None:
        """Have the guest write on a console, by default the first."""
        raw = data.encode() if isinstance(data, str) else data
        self._ends[console or next(iter(self._ends))].sendall(raw)

    def typed(self, console: str = "") -> bytes:
        """What was typed at a console since the last call."""
        end = self._ends[console or next(iter(self._ends))]
        found = b""
        while True:
            try:
                found += end.recv(65536, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return found

    async def close(self) -> None:
        """End it, and close what was made for it."""
        await super().close()
        self._end()
        await self._server.close()

    def _fake(self, answers: Answers, server: Server, ends: dict[str, socket.socket]) -> None:
        self._answers, self._server, self._ends = answers, server, ends

    def _end(self) -> None:
        """The process that is none has ended: the guest's ends of the consoles close."""
        self.process.kill() if self.process.poll() is None else None
        for end in self._ends.values():
            end.close()


class SyncFakeMachine(SyncMachine):
    """A `launcher.sync.Machine` without a QEMU; see `FakeMachine`."""

    inner: FakeMachine

    def answer(self, command: str, value: Any) -> None:
        """Have a command answered from now on; as `FakeMachine.answer`."""
        self._thread.do(self.inner.answer, command, value)

    def inject(self, event: str, data: Mapping[str, Any] | None = None) -> None:
        """Have QEMU tell an event; as `FakeMachine.inject`."""
        self._thread.do(self.inner.inject, event, data)

    def feed(self, data: bytes | str, console: str = "") -> None:
        """Have the guest write on a console; as `FakeMachine.feed`."""
        self._thread.do(self.inner.feed, data, console)

    def typed(self, console: str = "") -> bytes:
        """What was typed at a console since the last call."""
        return self._thread.do(self.inner.typed, console)


class fake_machine:  # noqa: N801 (called like a function, as `launch` is)
    """A machine of `profile` on a recorded release, for `async with` and for `with`.

    Args:
        profile: the path of a profile, or a mapping of the same shape.
        release: one of `releases()`; by default the newest.
        platform: wins over the profile's own.
        settings: `path=value` texts, as with `--set`.

    Raises:
        InputError: as `launcher.launch`; also for a release that is not recorded.
        HostError: the release cannot run the profile.
    """

    def __init__(
        self,
        profile: str | Mapping[str, Any],
        *,
        release: str = "",
        platform: str = "",
        settings: tuple[str, ...] = (),
    ) -> None:
        self._request = Request(profile, platform, "", tuple(settings))
        self._release = release or releases()[-1]
        self._machine: FakeMachine | None = None

    async def __aenter__(self) -> FakeMachine:
        self._machine = await started(self._request, self._release)
        return self._machine

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._machine is not None
        await self._machine.close()

    def __enter__(self) -> SyncFakeMachine:
        self._machine = THREAD.call(started(self._request, self._release))
        return SyncFakeMachine(self._machine, THREAD)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._machine is not None
        THREAD.call(self._machine.close())


class _Loaded:
    """What a plan was made from, as far as somebody looks at it afterwards."""

    def __init__(self, request: Request, plan: Plan) -> None:
        self.request = request
        self.lock = None
        self.binary = plan.binary
        given = request.profile
        self.profile_file = given if isinstance(given, str) else MAPPING


def planned(request: Request, release: str) -> Prepared:
    """The plan of a request on a recorded release; nothing is asked of this host.

    Raises:
        InputError, HostError: as `fake_machine`.
    """
    profile, catalogue = load_profile(request), load_catalogue()
    platform = choose_platform(catalogue, profile.platform)
    capabilities = capabilities_of(release, profile.tool)
    host = willing_host(profile, platform, catalogue)
    binary = f"recorded/qemu-{release}"
    plan = make_plan(profile, platform, catalogue, capabilities, host, binary=binary, uuid=_UUID)
    loaded: Any = _Loaded(request, plan)
    return Prepared(loaded, plan, replies_of(release, profile.tool))


async def started(request: Request, release: str) -> FakeMachine:
    """A fake machine whose guest runs, or would.

    Raises:
        InputError, HostError: as `fake_machine`.
    """
    prepared = planned(request, release)
    plan = prepared.plan
    names = ["qmp", *(want.name for want in plan.wants)]
    argv = render_argv(plan, {name: 3 + n for n, name in enumerate(names)}, "")
    process: Any = NoProcess(argv)
    answers = Answers(plan, prepared.capabilities)
    ours, theirs = socket.socketpair()
    pairs = {name: socket.socketpair() for name in plan.consoles}
    ends = {name: end for name, (_, end) in pairs.items()}

    def ended() -> None:
        process.end(0)
        theirs.close()
        for end in ends.values():
            end.close()

    server = Server(theirs, answers, prepared.capabilities.replies["query-version"], ended)
    monitor = await Monitor.connect(ours)
    consoles = {name: Console(end) for name, (end, _) in pairs.items()}
    machine = FakeMachine(Started(prepared, Resources(), process, argv, []), monitor, consoles)
    machine._fake(answers, server, ends)
    await machine.verify()
    await machine.resume()
    return machine
