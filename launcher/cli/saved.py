"""`save` and `restore`: a guest into a file, and on from it, in another QEMU too."""

from __future__ import annotations

import os
import time

from launcher.cli.options import add_format, add_qemu, seconds
from launcher.cli.reports import add_report
from launcher.cli.show import note, out, out_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from launcher.host.runtime import Machine as Running
    from launcher.machine import Machine
    from launcher.migrate import Limits

_MIB = 1 << 20


def arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """The options of one of the verbs."""
    add = parser.add_argument
    if verb == "save":
        add("name", metavar="NAME", help="of a running machine")
        add("state", metavar="FILE", help="for its state; the lock is written beside it")
    else:
        add("state", metavar="FILE", help="that `save` wrote; its lock stands beside it")
        add("--profile", default="", metavar="FILE", help="by default the one that was saved")
        add_qemu(parser)
        add("--detach", action="store_true", help="leave the machine running in the background")
        add(
            "--until",
            metavar="PATTERN",
            help="stop the machine once its console shows this regular expression; exit 1 if not",
        )
        add("--timeout", type=seconds, metavar="S", help="how long --until waits (default 120)")
        add("--force", action="store_true", help="load it although the preflight says it breaks")
        add_report(parser)
    add(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        help="set a key of the profile; for save only what is a secret need be given again"
        if verb == "save"
        else "set a key of the profile; may be repeated",
    )
    add("--limit", type=seconds, default=600.0, metavar="S", help="give up after (default 600)")
    add("--stall", type=seconds, default=15.0, metavar="S", help="give up when nothing moves")
    add_format(parser)
    parser.set_defaults(run=save if verb == "save" else restore)


def _limits(options: argparse.Namespace) -> Limits:
    from launcher.migrate import Limits

    return Limits(stall=options.stall, whole=options.limit)


# -- save -----------------------------------------------------------------------------------------


def save(options: argparse.Namespace) -> int:
    """Save a machine and end it; interrupted, the guest goes on and no file is left."""
    import asyncio

    from launcher.rejoin import find
    from launcher.saved import lock_of_state

    machine = find(options.name)
    noted: list[int] = []
    began = time.monotonic()
    try:
        asyncio.run(_until_signal(machine, options, noted))
    except asyncio.CancelledError:
        if not noted:
            raise
        note(f"{options.name} was not saved, and goes on")
        return 128 + noted[0]
    state = os.path.abspath(options.state)
    size, took = os.path.getsize(state), time.monotonic() - began
    if options.format == "json":
        told = {"name": options.name, "file": state, "lock": lock_of_state(state), "bytes": size}
        out_json({**told, "uuid": machine.state.uuid if machine.state else None,
                  "ms": round(took * 1000, 1)})  # fmt: skip
    else:
        out(f"{options.name}: saved to {options.state}, {size / _MIB:.1f} MiB in {took:.1f} s")
    return 0


async def _until_signal(machine: Running, options: argparse.Namespace, noted: list[int]) -> None:
    import asyncio

    from launcher.cli.signals import take_signals
    from launcher.saved import save_running

    limits, settings = _limits(options), tuple(options.set)
    work = save_running(machine, options.state, settings=settings, limits=limits)
    task = asyncio.ensure_future(work)

    def end(number: int) -> None:
        noted.append(number)
        task.cancel()

    take_signals(asyncio.get_running_loop(), [], end)
    await task


# -- restore --------------------------------------------------------------------------------------


def restore(options: argparse.Namespace) -> int:
    """Start a machine under the state's lock, load the state, and stay with it as `run` does."""
    from launcher.cli.run import attended, check_options
    from launcher.incoming import waiting_plan
    from launcher.prepare import load, prepare_now
    from launcher.saved import prepare_restore

    options.stats, options.verify = False, None
    check_options(options)
    clock = {"begin": time.monotonic()}
    settings = tuple(options.set)
    request = prepare_restore(
        options.state, profile=options.profile, qemu=options.qemu, settings=settings
    )
    prepared = prepare_now(load(request))
    limits = _limits(options)

    async def arriving(machine: Machine) -> None:
        from launcher.preflight import findings_text
        from launcher.saved import arrive

        found = await arrive(machine, options.state, force=options.force, limits=limits)
        for finding in [one for one in found if one.severity != "harmless"]:
            note(findings_text((finding,)))

    return attended(options, prepared.with_plan(waiting_plan(prepared.plan)), clock, arriving)
