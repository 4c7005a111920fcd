"""What can be said of a migration: how long it may take, how far it is, what came of it. Pure."""

from __future__ import annotations

from launcher.errors import QEMUError
from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Protocol

    from launcher.capabilities import Capabilities
    from launcher.monitor import Monitor
    from launcher.plan import Plan
    from launcher.preflight import Finding
    from launcher.report import Report

    class Ending(Protocol):
        """A process, as far as its end matters; the code is negative for a signal."""

        @property
        def returncode(self) -> int | None:
            """None while it runs."""
            ...

        def poll(self) -> int | None:
            """The returncode if it has ended; never waits."""
            ...

        async def wait(self, timeout: float | None) -> int:  # noqa: ASYNC109
            """Wait until it has ended; TimeoutError."""
            ...

    class End(Protocol):
        """One side of a migration that this process reaches: `Machine`, or `Rejoined`."""

        @property
        def plan(self) -> Plan:
            """What was decided."""
            ...

        @property
        def monitor(self) -> Monitor:
            """Its QMP session."""
            ...

        @property
        def process(self) -> Ending:
            """Its process."""
            ...

        @property
        def argv(self) -> Sequence[str]:
            """Its command line."""
            ...

        @property
        def capabilities(self) -> Capabilities:
            """What the binary can do."""
            ...

        @property
        def folder(self) -> str:
            """Its runtime directory, empty for none."""
            ...

        def said(self) -> list[str]:
            """What QEMU said on stderr."""
            ...


@record
class Limits:
    """How long parts of a migration may take, in seconds.

    Attributes:
        stall: nothing moves and no state changes; then it hangs, and is given up. Two ends that
            disagree about multifd hang so, and one of them may stop answering its monitor.
        whole: from the first byte to the guest's running at the destination. A guest that
            writes faster than the stream carries is never done.
        undo: until the source has let go of a migration that was given up.
    """

    stall: float = 15.0
    whole: float = 600.0
    undo: float = 10.0


@record
class Progress:
    """How far a migration is (QAPI: MigrationInfo, query-migrate at the source).

    Attributes:
        seconds: since it began.
        transferred, remaining, total: bytes of RAM; `transferred` counts what was sent again.
        dirty_rate: bytes a second that the guest writes meanwhile; 0 until QEMU has measured it.
        rate: bytes a second that the stream carries.
        downtime: milliseconds, expected while it runs and real once it is done; None: not known.
    """

    status: str
    seconds: float
    transferred: int = 0
    remaining: int = 0
    total: int = 0
    dirty_rate: int = 0
    rate: int = 0
    downtime: int | None = None


def progress_of(info: Mapping[str, Any], seconds: float) -> Progress:
    """The progress that an answer of query-migrate tells."""
    ram: Mapping[str, Any] = info.get("ram") or {}
    pages = ram.get("dirty-pages-rate", 0)
    return Progress(
        status=str(info.get("status", "none")),
        seconds=seconds,
        transferred=int(ram.get("transferred", 0)),
        remaining=int(ram.get("remaining", 0)),
        total=int(ram.get("total", 0)),
        dirty_rate=int(pages * ram.get("page-size", 4096)),
        rate=int(ram.get("mbps", 0) * 1_000_000 / 8),
        downtime=info.get("downtime", info.get("expected-downtime")),
    )


@record
class Migration:
    """What came of one migration.

    Attributes:
        result: `completed`, `failed`, `refused` (before a byte was sent) or `cancelled`.
        via: the transport, as `unix`, `tcp:127.0.0.1:4444`.
        findings: of the preflight, worst first.
        before: the destination's report before the stream was loaded, None when not reached.
        after: and after it, before the guest ran there.
        timings: milliseconds by name, see docs/migration.md.
        progress: the last that the source said.
        guest: where it runs now: `source`, `destination`, or `` when it does not run.
        source_said, destination_said: QEMU's own words, of query-migrate and of stderr.
    """

    result: str
    via: str
    findings: tuple[Finding, ...] = ()
    before: Report | None = None
    after: Report | None = None
    timings: Mapping[str, float] | None = None
    progress: Progress | None = None
    guest: str = ""
    source_said: tuple[str, ...] = ()
    destination_said: tuple[str, ...] = ()


class MigrationError(QEMUError):
    """A guest did not move; `migration` says how far it came and where the guest is."""

    code = "migration"

    def __init__(
        self,
        message: str,
        *,
        migration: Migration | None = None,
        hint: str = "",
        evidence: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message, hint=hint, evidence=evidence)
        self.migration = migration
        if migration is not None and migration.result == "refused":
            # A check failed, and nothing of QEMU's did.
            self.exit_status = 1
            self.code = "preflight"
