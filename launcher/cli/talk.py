"""`console`, `qmp`: speak to a machine that runs already."""

from __future__ import annotations

from launcher.cli.options import add_format
from launcher.cli.show import note, out_json
from launcher.errors import InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from launcher.host.runtime import Machine


def arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """The options of one of the verbs."""
    add = parser.add_argument
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
    parser.set_defaults(run=qmp if verb == "qmp" else console)


# -- console --------------------------------------------------------------------------------------


def console(options: argparse.Namespace) -> int:
    """Show a detached machine's console and pass keys to it, until Ctrl-] or its end."""
    from launcher.rejoin import find, state_of

    machine = find(options.name)
    path = state_of(machine).console
    if not path:
        from launcher.rejoin import is_detached

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
    from launcher.rejoin import connect_socket

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

    from launcher.rejoin import find

    arguments_ = parse_arguments(options.arguments)
    machine = find(options.name)
    if not options.force:
        _refuse_hazard(machine, options.command, arguments_)
    reply = asyncio.run(_execute(machine, options.command, arguments_))
    out_json(reply)
    return 0


async def _execute(machine: Machine, command: str, arguments_: dict[str, Any]) -> Any:
    from launcher.rejoin import connect

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
