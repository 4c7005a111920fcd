"""`verify`: prove a profile without running its guest, or prove a running machine again."""

from __future__ import annotations

import os

from launcher.cli.options import add_format, add_locked, add_request
from launcher.cli.plan import request_of
from launcher.cli.reports import add_report, write_report
from launcher.cli.show import out_json, show_report
from launcher.errors import InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Coroutine
    from typing import Any, TypeVar

    from launcher.begin import Started
    from launcher.prepare import Prepared
    from launcher.report import Report

    _T = TypeVar("_T")


def arguments(parser: argparse.ArgumentParser, _verb: str) -> None:
    """The options of `verify`."""
    parser.add_argument(
        "target", metavar="TARGET", help="a profile's file, or the name of a running machine"
    )
    add_report(parser)
    add_locked(parser)
    add_request(parser)
    add_format(parser)
    parser.set_defaults(run=verify)


def verify(options: argparse.Namespace) -> int:
    """Verify, report, and exit with 1 when a value is not as planned."""
    target = options.target
    if os.sep in target or target.endswith((".yaml", ".yml")) or os.path.isfile(target):
        report = _verify_profile(options)
    else:
        report = _verify_machine(options)
    if options.report:
        write_report(report, options.report)
    if options.format == "json":
        from launcher.report import report_json

        out_json(report_json(report))
    else:
        show_report(report, to_stdout=True)
    return 0 if report.verdict == "match" else 1


def _verify_profile(options: argparse.Namespace) -> Report:
    """Start paused, read everything back, quit; the guest runs no instruction."""
    from launcher.prepare import load, prepare_now

    return while_paused(prepare_now(load(request_of(options, options.target))), _read_back)


def while_paused(prepared: Prepared, work: Callable[[Started], Coroutine[Any, Any, _T]]) -> _T:
    """What `work` gives with a machine that was started paused and ends with it.

    Raises:
        SystemExit: a signal ended it.
    """
    from launcher.begin import begin
    from launcher.cli.loop import import_loop
    from launcher.cli.signals import note_signals

    noted = note_signals()
    started = begin(prepared)
    try:
        import_loop()
        import asyncio

        try:
            return asyncio.run(until_signal(work(started), noted))
        except asyncio.CancelledError:
            raise SystemExit(128 + noted[0]) from None
    finally:
        started.abandon()


async def until_signal(work: Coroutine[Any, Any, _T], noted: list[int]) -> _T:
    """What `work` gives; cancelled by a signal it ends its machine on the way out.

    Args:
        work: with a machine of ours.
        noted: signals that came before there was a loop; grows.
    """
    import asyncio

    from launcher.cli.signals import take_signals

    task = asyncio.ensure_future(work)

    def end(number: int) -> None:
        noted.append(number)
        task.cancel()

    take_signals(asyncio.get_running_loop(), noted[:], end)
    return await task


async def _read_back(started: Started) -> Report:
    from launcher.diagnose import died
    from launcher.errors import MonitorError
    from launcher.start import attach

    machine = await attach(started)
    try:
        return await machine.verify()
    except MonitorError as error:
        raise await died(started, error) from None
    finally:
        await machine.close()


def _verify_machine(options: argparse.Namespace) -> Report:
    for name in ("platform", "qemu", "set", "locked", "lock"):
        if getattr(options, name):
            raise InputError(
                f"--{name} is for a profile; a running machine is what it is", code="usage"
            )
    import asyncio

    from launcher import rejoin

    try:
        machine = rejoin.find(options.target)
    except InputError as error:
        error.message = f"{options.target!r} is neither a profile's file nor a running machine"
        raise
    return asyncio.run(rejoin.verify(machine))
