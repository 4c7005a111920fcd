"""`ps`, `stop`: the machines of this user."""

from __future__ import annotations

from launcher.cli.options import add_format
from launcher.cli.show import note, out, out_json, show_error
from launcher.errors import LauncherError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from launcher.host.runtime import Machine


def arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """The options of one of the verbs."""
    if verb == "stop":
        parser.add_argument("names", nargs="+", metavar="NAME", help="of a running machine")
        how = parser.add_mutually_exclusive_group()
        how.add_argument("--now", action="store_true", help="do not ask the guest: quit QEMU")
        how.add_argument("--force", action="store_true", help="kill QEMU (SIGKILL)")
    add_format(parser)
    parser.set_defaults(run=stop if verb == "stop" else ps)


# -- ps -------------------------------------------------------------------------------------------


def ps(options: argparse.Namespace) -> int:
    """List the machines of this user; what dead ones left is removed."""
    from launcher.host.runtime import list_machines, remove_stale

    remove_stale()
    found = [_described(machine) for machine in list_machines() if machine.alive]
    if options.format == "json":
        out_json({"machines": found})
        return 0
    if not found:
        note("no machine runs")
        return 0
    from launcher.display import printable
    from launcher.report import table

    rows = [
        [
            *(str(m["name"]), str(m["pid"]), str(m["mode"]), str(m["platform"] or "-")),
            *(str(m["qemu"]["version"] or "-"), printable(str(m["profile"] or "-"))),
        ]
        for m in found
    ]
    out(table(rows, ("name", "pid", "mode", "platform", "qemu", "profile"), {}))
    return 0


def _described(machine: Machine) -> dict[str, Any]:
    """One machine, ready for JSON."""
    from launcher.plan.kept import restore_plan
    from launcher.rejoin import is_detached

    state = machine.state
    plan = restore_plan(state.plan) if state is not None else None
    detached = state is not None and is_detached(state)
    return {
        "name": machine.name,
        "pid": machine.pid,
        "mode": "detached" if detached else "foreground",
        "launcher": machine.holder,
        "uuid": state.uuid if state else None,
        "qemu": {
            "binary": (state.binary or None) if state else None,
            "version": plan.version if plan else None,
            "build": plan.build if plan else None,
        },
        "platform": (state.platform or None) if state else None,
        "machine": plan.machine if plan else None,
        "accel": plan.accel if plan else None,
        "profile": (state.profile or None) if state else None,
        "qmp": (state.qmp or None) if state else None,
        "console": (state.console or None) if state else None,
        "directory": machine.path,
    }


# -- stop -----------------------------------------------------------------------------------------


def stop(options: argparse.Namespace) -> int:
    """Stop machines, all at once."""
    import asyncio

    results = asyncio.run(_stop_all(list(dict.fromkeys(options.names)), options))
    status = 0
    stopped: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    for name, result in results.items():
        if isinstance(result, LauncherError):
            status = max(status, result.exit_status)
            failed.append({"name": name, **result.as_json()})
            if options.format == "text":
                show_error(result)
            continue
        stopped.append({"name": name, "by": result})
        if options.format == "text":
            out(f"{name}: stopped ({result})")
    if options.format == "json":
        out_json({"stopped": stopped, "errors": failed})
    return status


async def _stop_all(
    names: list[str], options: argparse.Namespace
) -> dict[str, str | LauncherError]:
    import asyncio

    from launcher import rejoin

    first = rejoin.KINDLY
    if options.now or options.force:
        first = rejoin.NOW if options.now else rejoin.FORCE

    async def one(name: str) -> str | LauncherError:
        try:
            return await rejoin.stop(rejoin.find(name), first)
        except LauncherError as error:
            return error

    results = await asyncio.gather(*(one(name) for name in names))
    return dict(zip(names, results, strict=True))
