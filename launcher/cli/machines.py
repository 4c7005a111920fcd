"""`ps`, `stop`, `console`, `qmp`: machines that run already."""

from __future__ import annotations

from launcher.cli.options import add_format
from launcher.cli.show import note, out, out_json, show_error
from launcher.errors import InputError, LauncherError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from launcher.host.runtime import Machine


def arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """The options of one of the verbs."""
    add = parser.add_argument
    if verb == "stop":
        add("names", nargs="+", metavar="NAME", help="of a running machine")
        how = parser.add_mutually_exclusive_group()
        how.add_argument("--now", action="store_true", help="do not ask the guest: quit QEMU")
        how.add_argument("--force", action="store_true", help="kill QEMU (SIGKILL)")
    elif verb in ("console", "qmp"):
        add("name", metavar="NAME", help="of a running machine")
    if verb == "qmp":
        add("command", metavar="COMMAND", help="its QAPI name")
        add(
            "arguments",
            nargs="*",
            metavar="ARGUMENT",
            help="one JSON object, or key=value with values in JSON or as text; a.b=c nests",
        )
        add("--force", action="store_true", help="send a command that is known to end QEMU")
    add_format(parser)
    parser.set_defaults(run={"ps": ps, "stop": stop, "console": console, "qmp": qmp}[verb])


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
    from launcher.report import printable, table

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
    from launcher.machines import is_detached
    from launcher.plan.kept import restore_plan

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

    from launcher import machines

    first = machines.KINDLY
    if options.now or options.force:
        first = machines.NOW if options.now else machines.FORCE

    async def one(name: str) -> str | LauncherError:
        try:
            return await machines.stop(machines.find(name), first)
        except LauncherError as error:
            return error

    results = await asyncio.gather(*(one(name) for name in names))
    return dict(zip(names, results, strict=True))


# -- console --------------------------------------------------------------------------------------


def console(options: argparse.Namespace) -> int:
    """Show a detached machine's console and pass keys to it, until Ctrl-] or its end."""
    from launcher.machines import find, state_of

    machine = find(options.name)
    path = state_of(machine).console
    if not path:
        from launcher.machines import is_detached

        if is_detached(state_of(machine)):
            raise InputError(
                f"{machine.name} has no console",
                hint="add `serial: console` to its profile",
                code="console",
            )
        raise InputError(
            f"the console of {machine.name} is with process {machine.holder}, which runs it",
            hint="only a machine started with `run --detach` has a console for others",
            code="console",
        )
    import asyncio

    return asyncio.run(_attend(path))


async def _attend(path: str) -> int:
    import asyncio
    from contextlib import nullcontext

    from launcher.cli.terminal import Keys, Screen, is_ours
    from launcher.console import Console
    from launcher.machines import connect_socket

    guest = Console(connect_socket(path))
    screen = Screen(1)
    left = asyncio.Event()
    guest.listen(screen.write)
    ours = is_ours(0)
    if ours:
        note("Ctrl-] leaves; the machine goes on")
    try:
        with Keys(guest, 0, left.set) if ours else nullcontext():
            ends = [
                asyncio.ensure_future(thing)
                for thing in (left.wait(), guest.wait_closed(None), screen.lost.wait())
            ]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for end in ends:
                end.cancel()
            if guest.closed:
                await screen.drain()
    finally:
        screen.close()
        guest.close()
    if screen.lost.is_set():
        raise BrokenPipeError
    return 0


# -- qmp ------------------------------------------------------------------------------------------


def qmp(options: argparse.Namespace) -> int:
    """Send one command and print what it returns, as JSON."""
    import asyncio

    from launcher.machines import find

    arguments_ = parse_arguments(options.arguments)
    machine = find(options.name)
    if not options.force:
        _refuse_hazard(machine, options.command, arguments_)
    reply = asyncio.run(_execute(machine, options.command, arguments_))
    out_json(reply)
    return 0


async def _execute(machine: Machine, command: str, arguments_: dict[str, Any]) -> Any:
    from launcher.machines import connect

    monitor = await connect(machine)
    try:
        return await monitor.execute(command, arguments_ or None)
    finally:
        await monitor.close()


def _refuse_hazard(machine: Machine, command: str, arguments_: dict[str, Any]) -> None:
    """Refuse what is known to end a QEMU of this release.

    Raises:
        InputError: it is known to.
    """
    from launcher.plan.kept import restore_plan

    plan = restore_plan(machine.state.plan) if machine.state else None
    if plan is None:
        return
    from launcher.data import load_catalogue
    from launcher.platforms import hazardous, parse_qemu_version

    hazard = hazardous(load_catalogue(), command, parse_qemu_version(plan.version), arguments_)
    if hazard is not None:
        raise InputError(
            f"{command} is not sent to QEMU {plan.version}: {hazard.effect}",
            hint="--force sends it all the same",
            code="hazard",
        )


def parse_arguments(words: list[str]) -> dict[str, Any]:
    """The arguments of a QMP command: one JSON object, or `key=value` words.

    A value is JSON where it can be read as that, else text; `on` and `off` are text, too. A
    dotted key nests: `backend.type=null`.

    Raises:
        InputError: neither.
    """
    found: dict[str, Any] = {}
    if len(words) == 1 and words[0].lstrip().startswith("{"):
        import json

        try:
            whole = json.loads(words[0])
        except ValueError as error:
            raise InputError(f"the arguments are not JSON: {error}", code="usage") from None
        assert isinstance(whole, dict)
        return whole
    for word in words:
        path, equals, value = word.partition("=")
        steps = path.split(".")
        if not equals or not all(steps):
            raise InputError(
                f"{word!r} is not key=value",
                hint='write id=disk0 size=1024, or one JSON object: \'{"id": "disk0"}\'',
                code="usage",
            )
        _put(found, steps, _value(value), path)
    return found


def _put(found: dict[str, Any], steps: list[str], value: Any, path: str) -> None:
    at = found
    for step in steps[:-1]:
        below = at.setdefault(step, {})
        if not isinstance(below, dict):
            raise InputError(f"{path} is inside of {step}, which is a value", code="usage")
        at = below
    if steps[-1] in at:
        raise InputError(f"{path} is given twice", code="usage")
    at[steps[-1]] = value


def _value(text: str) -> Any:
    import json

    try:
        return json.loads(text, parse_constant=_not_a_number)
    except ValueError:
        return text


def _not_a_number(text: str) -> Any:
    """NaN and Infinity are no JSON, whatever Python thinks."""
    raise ValueError(text)
