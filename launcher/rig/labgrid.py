"""A labgrid driver: an environment file names a profile, and its target is that machine.

    imports: [launcher.rig.labgrid]
    targets:
      main:
        drivers:
          QEMULauncherDriver: {profile: profiles/web.yaml, platform: debian-12}
          ShellDriver: {prompt: '# ', login_prompt: 'login: ', username: root}
          QEMULauncherStrategy: {up: 'login: '}

Imported by labgrid and by nobody else: `pip install qemu-launcher[labgrid]`.
"""

from __future__ import annotations

import enum
import threading
import time
from collections import deque
from typing import Any

import attr
from labgrid.driver import Driver
from labgrid.driver.consoleexpectmixin import ConsoleExpectMixin
from labgrid.factory import target_factory
from labgrid.protocol import ConsoleProtocol, PowerProtocol
from labgrid.step import step
from labgrid.strategy import Strategy, StrategyError
from pexpect import EOF, TIMEOUT

from launcher.begin import begin
from launcher.prepare import Request, load, prepare
from launcher.start import start
from launcher.sync.start import adopt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher import sync
    from launcher.machine import Machine

#: Bytes of a console that wait to be read; of more, the oldest go.
KEEP = 1 << 20


class Unread:
    """What a console wrote and labgrid has not read yet; filled from the launcher's thread.

    Attributes:
        dropped: bytes that were too many.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._news = threading.Condition()

    def put(self, data: bytes) -> None:
        """Add what came."""
        with self._news:
            self._pieces.append(data)
            self._size += len(data)
            while self._size > KEEP:
                gone = self._pieces.popleft()
                self._size -= len(gone)
                self.dropped += len(gone)
            self._news.notify_all()

    def take(self, most: int, seconds: float) -> bytes:
        """What there is, at most so many bytes; waits for some, then b""."""
        with self._news:
            self._news.wait_for(lambda: self._pieces, seconds)
            data = b"".join(self._pieces)
            self._pieces.clear()
            if len(data) > most:
                self._pieces.append(data[most:])
            self._size = max(0, len(data) - most)
            return data[:most]


@target_factory.reg_driver
@attr.s(eq=False)
class QEMULauncherDriver(ConsoleExpectMixin, Driver, PowerProtocol, ConsoleProtocol):
    """A machine of a profile, proved at each start; power and the first serial console.

    Args:
        profile: its path, relative to the environment file, or a mapping.
        platform: instead of the profile's.
        qemu: the binary, or a key of the environment's `tools`.
        settings: path → value, as with `--set`.
        verify: `strict` or `warn`.
        lock: the path of a lock file that is kept.

    Attributes:
        machine: the `launcher.sync.Machine` while it is on, else None.
    """

    profile: Any = attr.ib(validator=attr.validators.instance_of((str, dict)))
    platform: Any = attr.ib(default="", validator=attr.validators.instance_of(str))
    qemu: Any = attr.ib(default="", validator=attr.validators.instance_of(str))
    settings: Any = attr.ib(factory=dict, validator=attr.validators.instance_of(dict))
    verify: Any = attr.ib(default="", validator=attr.validators.instance_of(str))
    lock: Any = attr.ib(default="", validator=attr.validators.instance_of(str))

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self.txdelay = None  # both belong to ConsoleExpectMixin
        self.txchunk = None
        self.machine: sync.Machine | None = None
        self._unread = Unread()

    def on_deactivate(self) -> None:
        """Called by labgrid: nothing runs behind a driver that is not active."""
        self.off()

    @Driver.check_active
    @step()
    def on(self) -> None:
        """Start the machine, and let its guest run when it is what was planned.

        Raises:
            LauncherError: as `launcher.launch`.
        """
        if self.machine is None:
            self._unread = Unread()
            self.machine = adopt(self._started())

    async def _started(self) -> Machine:
        config = self.target.env.config if self.target.env else None
        profile, lock, qemu = self.profile, self.lock, self.qemu
        if config is not None:
            profile = config.resolve_path(profile) if isinstance(profile, str) else profile
            lock = config.resolve_path(lock) if lock else ""
            qemu = config.get_tool(qemu) if qemu in (config.data.get("tools") or {}) else qemu
        settings = tuple(f"{key}={value}" for key, value in self.settings.items())
        prepared = await prepare(load(Request(profile, self.platform, qemu, settings, lock=lock)))
        return await start(begin(prepared), verify=self.verify or None, attached=self._attached)

    def _attached(self, machine: Machine) -> None:
        if machine.consoles:
            machine.console.listen(self._unread.put)

    @step()
    def off(self) -> None:
        """End the machine at once, as one pulls the plug."""
        machine, self.machine = self.machine, None
        if machine is not None:
            machine.close()

    @Driver.check_active
    @step()
    def cycle(self) -> None:
        """Off, and on again."""
        self.off()
        self.on()

    @Driver.check_active
    @step(result=True, args=["command"])
    def qmp(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
        """Execute a QMP command.

        Raises:
            CommandError, MonitorError: as `launcher.sync.Machine.qmp`.
        """
        return self._running().qmp(command, arguments)

    def _running(self) -> sync.Machine:
        if self.machine is None:
            raise StrategyError(f"{self} is off")
        return self.machine

    def _read(self, size: int = 1, timeout: float = 10.0, max_size: int | None = None) -> bytes:
        data = self._unread.take(max_size or 4096, timeout)
        if data:
            return data
        if self.machine is not None and self.machine.console.closed:
            raise EOF(f"{self}: the machine has ended")
        raise TIMEOUT(f"{self}: nothing on the console within {timeout:.2f} s")

    def _write(self, data: bytes) -> int:
        self._running().console.write(data)
        return len(data)

    def __str__(self) -> str:
        return f"QEMULauncherDriver({self.target.name})"


class Status(enum.Enum):
    """Where a target is."""

    unknown = 0
    off = 1
    up = 2
    shell = 3


@target_factory.reg_driver
@attr.s(eq=False)
class QEMULauncherStrategy(Strategy):
    """Off, up (the console has shown `up`), and shell, where the target has a ShellDriver.

    Args:
        up: a regular expression that the console shows when the guest has booted.
        up_seconds: how long that may take.
    """

    bindings = {"machine": "QEMULauncherDriver", "shell": {"ShellDriver", None}}

    up: Any = attr.ib(default="login: ", validator=attr.validators.instance_of(str))
    up_seconds = attr.ib(default=120.0, converter=float)
    status: Any = attr.ib(default=Status.unknown)

    @step(args=["status"])
    def transition(self, status: Status | str, **_step: Any) -> None:
        """Bring the target there; does nothing when it is there already.

        Raises:
            StrategyError: there is no such status, or no way to it.
        """
        wanted = status if isinstance(status, Status) else Status.__members__.get(status)
        if wanted in (None, Status.unknown) or (wanted is Status.shell and self.shell is None):
            raise StrategyError(f"{self.target.name}: no way to {status!r}")
        if wanted is self.status:
            return
        if wanted is Status.shell:
            self.transition(Status.up)
            self.target.activate(self.shell)
        else:
            if self.shell is not None:
                self.target.deactivate(self.shell)
            self.target.activate(self.machine)
            self.machine.off()
            if wanted is Status.up:
                self.machine.on()
                began = time.monotonic()
                self.machine.expect(self.up, timeout=self.up_seconds)
                self.machine.logger.info("up in %.1f s", time.monotonic() - began)
        self.status = wanted
