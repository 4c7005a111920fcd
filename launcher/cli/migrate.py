"""`migrate`: rehearse a migration on this host, and prove that the guest went on."""

from __future__ import annotations

import sys

from launcher.cli.options import add_format, seconds
from launcher.cli.show import note, out, out_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from launcher.migrate import MigrationError, Progress
    from launcher.rehearse import Leg, Rehearsal, Rehearsing
    from launcher.report import Report

_MIB = 1 << 20


def arguments(parser: argparse.ArgumentParser, _verb: str) -> None:
    """The options of `migrate`."""
    add = parser.add_argument
    add("profile", metavar="PROFILE", help="the profile of both ends")
    add("--from", default="", metavar="BIN", help="the QEMU binary of the source")
    add("--to", default="", metavar="BIN", help="the QEMU binary of the destination")
    add("--platform", default="", metavar="P", help="a platform's name or file, for both ends")
    add(
        "--via",
        default="unix",
        metavar="HOW",
        help="unix (default), tcp, tcp:HOST:PORT, file, file:PATH or fd",
    )
    add("--there-and-back", action="store_true", help="let the guest return to the source's QEMU")
    for word, where in (("set", "both ends"), ("from-set", "the source"), ("to-set", "the other")):
        add(
            f"--{word}",
            action="append",
            default=[],
            metavar="PATH=VALUE",
            help=f"set a key of the profile at {where}; may be repeated",
        )
    add(
        "--up",
        default="",
        metavar="PATTERN",
        help="a regular expression that the console shows when the guest is up; "
        "by default its counter",
    )
    add("--up-timeout", type=seconds, default=60.0, metavar="S", help="how long for (default 60)")
    add(
        "--counter",
        default="",
        metavar="PATTERN",
        help="a regular expression whose group is a number that the guest counts on its console; "
        "by default 'tick ([0-9]+)'",
    )
    add("--timeout", type=seconds, default=600.0, metavar="S", help="give up after (default 600)")
    add("--stall", type=seconds, default=15.0, metavar="S", help="give up when nothing moves")
    add("--force", action="store_true", help="migrate although the preflight says it would break")
    add_format(parser)
    parser.set_defaults(run=migrate)


def _asked(options: argparse.Namespace) -> Rehearsing:
    from launcher.migrate import Limits, parse_via
    from launcher.migrate.counter import TICK
    from launcher.rehearse import Rehearsing

    parse_via(options.via)
    return Rehearsing(
        profile=options.profile,
        platform=options.platform,
        source=getattr(options, "from"),
        destination=options.to,
        settings=tuple(options.set),
        source_settings=tuple(options.from_set),
        destination_settings=tuple(options.to_set),
        via=options.via,
        legs=2 if options.there_and_back else 1,
        up=options.up,
        up_seconds=options.up_timeout,
        counter=options.counter or TICK,
        force=options.force,
        limits=Limits(stall=options.stall, whole=options.timeout),
    )


def migrate(options: argparse.Namespace) -> int:
    """Rehearse, tell, and exit with 1 when it was refused or something is not proved."""
    import asyncio

    from launcher.migrate import MigrationError
    from launcher.rehearse import Rehearsal

    text = options.format == "text"
    face = _Face() if text else None
    rehearsal = Rehearsal(
        _asked(options), face.progress if face else None, face.step if face else None
    )
    noted: list[int] = []
    error: MigrationError | None = None
    try:
        asyncio.run(_until_signal(rehearsal, noted))
    except MigrationError as failed:
        error = failed
    except asyncio.CancelledError:
        if not noted:
            raise
    if face:
        face.end()
        for leg in rehearsal.legs:
            _show_leg(leg)
        if error is not None:
            raise error
        if noted:
            note("cancelled; nothing was left running")
    else:
        out_json(_json(rehearsal, error, cancelled=bool(noted)))
    if noted:
        return 128 + noted[0]
    if error is not None:
        return error.exit_status
    return 0 if _verdict(rehearsal) == "match" else 1


async def _until_signal(rehearsal: Rehearsal, noted: list[int]) -> None:
    """Cancelled by a signal, a rehearsal undoes the migration and ends both machines."""
    import asyncio

    from launcher.cli.signals import take_signals

    task = asyncio.ensure_future(rehearsal.run())

    def end(number: int) -> None:
        noted.append(number)
        task.cancel()

    take_signals(asyncio.get_running_loop(), [], end)
    await task


# -- what is shown --------------------------------------------------------------------------------


class _Face:
    """Steps and progress on stderr: one line that changes on a terminal, else a line a second."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._open = False
        self._told = -1.0

    def step(self, text: str) -> None:
        self.end()
        note(text)
        self._told = -1.0

    def progress(self, now: Progress) -> None:
        over = now.status == "completed"
        if not self._terminal and not over and now.seconds - self._told < 1.0:
            return
        self._told = now.seconds
        line = progress_text(now)
        if self._terminal:
            sys.stderr.write(f"\r\x1b[K{line}")
            sys.stderr.flush()
            self._open = True
        else:
            note(line)

    def end(self) -> None:
        if self._open:
            sys.stderr.write("\n")
            self._open = False


def progress_text(now: Progress) -> str:
    """One line: what was sent, what is left, how fast, how fast the guest writes, downtime."""
    parts = [
        f"{now.seconds:6.1f} s  {now.status:<10}",
        f"{now.transferred / _MIB:.0f} MiB sent, {now.remaining / _MIB:.0f} of "
        f"{now.total / _MIB:.0f} MiB left",
        f"{now.rate / _MIB:.0f} MiB/s",
        f"the guest writes {now.dirty_rate / _MIB:.0f} MiB/s",
    ]
    if now.downtime is not None:
        parts.append(f"downtime {now.downtime} ms")
    return ", ".join(parts)


def _show_leg(leg: Leg) -> None:
    from launcher.preflight import findings_text

    migration = leg.migration
    for finding in [one for one in migration.findings if one.severity != "harmless"]:
        note(findings_text((finding,)))
    if migration.result != "completed":
        return
    assert migration.after is not None
    assert leg.source_report is not None
    timings = migration.timings or {}
    still = timings.get("blackout")
    out(
        f"{leg.source_report.plan.name}: QEMU {leg.source_report.plan.version} to "
        f"{migration.after.plan.version} via {migration.via.partition(':')[0]} in "
        f"{timings['total'] / 1000:.2f} s"
        + (f"; the guest stood still for {still:.0f} ms" if still is not None else "")
    )
    for name, report in (("source", leg.source_report), ("destination", migration.after)):
        counts = ", ".join(f"{count} {word}" for word, count in report.counts.items() if count)
        out(f"  {name}: {report.verdict} ({counts})")
    if leg.counter is not None:
        out(f"  {leg.counter}")


def _reports(rehearsal: Rehearsal) -> list[Report]:
    found = []
    for leg in rehearsal.legs:
        found += [r for r in (leg.source_report, leg.migration.before, leg.migration.after) if r]
    return found


def _verdict(rehearsal: Rehearsal) -> str:
    """`match` when all was as planned and no counter broke. One that is absent proves nothing."""
    counters = [leg.counter.verdict for leg in rehearsal.legs if leg.counter is not None]
    fine = all(report.verdict == "match" for report in _reports(rehearsal))
    return "match" if fine and not {"broken", "stopped"} & set(counters) else "mismatch"


def _json(rehearsal: Rehearsal, error: MigrationError | None, *, cancelled: bool) -> dict[str, Any]:
    from launcher.rehearse import leg_json

    legs = [leg_json(leg) for leg in rehearsal.legs]
    if cancelled:
        result = "cancelled"
    else:
        result = legs[-1]["result"] if legs else "failed"
    empty: dict[str, Any] = {"source": None, "destination": None, "preflight": [], "timings": {}}
    found = {**(legs[0] if legs else empty), "result": result, "verdict": _verdict(rehearsal)}
    if len(legs) > 1:
        found["back"] = legs[1]
    if error is not None:
        found["error"] = error.as_json()
    return found
