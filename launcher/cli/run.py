"""`run`: start a machine, prove it, let the guest run, and stay with it to its end."""

from __future__ import annotations

import time

from launcher.cli.options import add_format, add_locked, add_request, seconds
from launcher.cli.plan import request_of
from launcher.cli.reports import add_report
from launcher.errors import InputError, VerdictError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable

    from launcher.begin import Started
    from launcher.machine import Machine
    from launcher.plan import Plan
    from launcher.prepare import Prepared


def arguments(parser: argparse.ArgumentParser, _verb: str) -> None:
    """The options of `run`."""
    add = parser.add_argument
    add("profile", metavar="PROFILE", help="a profile's file")
    add("--detach", action="store_true", help="leave the machine running in the background")
    add(
        "--until",
        metavar="PATTERN",
        help="stop the machine once its console shows this regular expression; exit 1 if not",
    )
    add("--timeout", type=seconds, metavar="S", help="how long --until waits (default 120)")
    add(
        "--verify",
        choices=("strict", "warn"),
        metavar="strict|warn",
        help="what a value does that is not as planned; by default what the profile says",
    )
    add_report(parser)
    add("--stats", action="store_true", help="tell QMP commands, bytes and milliseconds")
    add_locked(parser)
    add_request(parser)
    add_format(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run a machine. QEMU is spawned before asyncio is imported."""
    check_options(options)
    clock = {"begin": time.monotonic()}
    from launcher.prepare import load, prepare_now

    return attended(options, prepare_now(load(request_of(options))), clock)


def attended(
    options: argparse.Namespace,
    prepared: Prepared,
    clock: dict[str, float],
    arriving: Callable[[Machine], Awaitable[None]] | None = None,
) -> int:
    """Start a machine and stay with it, or leave it detached.

    Args:
        options: of `run`.
        prepared: what to start.
        clock: when it began (`begin`, time.monotonic).
        arriving: what is done once the machine is proved, before its guest runs.
    """
    _check_plan(options, prepared.plan)
    from launcher.begin import begin
    from launcher.cli.signals import note_signals

    clock["planned"] = time.monotonic()
    noted = note_signals()
    started = begin(prepared, named=True, detached=options.detach)
    clock["spawned"] = time.monotonic()
    kept = False
    try:
        status = _attend(options, started, clock, noted, arriving)
        kept = options.detach and status == 0
    finally:
        if not kept:
            # Whatever came, and wherever: nothing stays. After a clean end this does nothing.
            started.abandon()
    if kept:
        _show_detached(options, started)
    return status


def _attend(
    options: argparse.Namespace,
    started: Started,
    clock: dict[str, float],
    noted: list[int],
    arriving: Callable[[Machine], Awaitable[None]] | None,
) -> int:
    import gc

    from launcher.cli.loop import import_loop

    gc.enable()
    import_loop()
    import asyncio

    from launcher.cli.session import Session

    session = Session(options, started, clock, noted, arriving)
    try:
        return asyncio.run(session.live())
    except VerdictError as error:
        if options.format != "json":
            raise
        session.show_json(error)
        return error.exit_status


def check_options(options: argparse.Namespace) -> None:
    """`--until` and what goes with it.

    Raises:
        InputError: they do not go together.
    """
    if options.timeout is not None and options.until is None:
        raise InputError("--timeout is for --until", code="usage")
    if options.until is None:
        return
    if options.detach:
        raise InputError("--until stays with the machine, --detach does not", code="usage")
    import re

    try:
        re.compile(options.until)
    except re.error as error:
        raise InputError(
            f"--until {options.until!r} is not a regular expression: {error}", code="usage"
        ) from None


def _check_plan(options: argparse.Namespace, plan: Plan) -> None:
    if options.until is not None and not plan.consoles:
        raise InputError(
            f"--until watches a console, and {plan.name} has none",
            hint="add `serial: console` to the profile",
            code="console",
        )


def _show_detached(options: argparse.Namespace, started: Started) -> None:
    from launcher.cli.show import out

    if options.format == "text":
        out(f"{started.prepared.plan.name} {started.process.pid}")
