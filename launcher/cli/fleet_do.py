"""`fleet start`, `stop`, `query`, `qmp`, `migrate`: one command to one host's agent."""

from __future__ import annotations

from launcher.cli.show import note, out, out_json, show_error
from launcher.errors import InputError, LauncherError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable
    from typing import Any

    from launcher.fleet.asking import Answer
    from launcher.fleet.client import Fleet
    from launcher.fleet.looking import View


def _view(options: argparse.Namespace) -> View:
    from launcher.fleet.looking import View

    hosts = (options.host, options.to) if options.what == "migrate" else (options.host,)
    return View(hosts, facts=False, machines=False)


async def _ask(
    fleet: Fleet, options: argparse.Namespace, verb: str, progress: Any = None, **arguments: Any
) -> Answer:
    return await fleet.command(
        *(options.host, verb),
        timeout=options.timeout,
        wait=options.wait,
        progress=progress,
        **arguments,
    )


def _show(options: argparse.Namespace, answer: Answer, text: str) -> int:
    if options.format == "json":
        told = {"host": options.host, "id": answer.id, "status": answer.status}
        out_json({**told, "result": answer.result})
    else:
        out(text)
    return 0


async def start(fleet: Fleet, options: argparse.Namespace) -> int:
    """Start a machine; which one is a name on that host, or a file of ours."""
    from launcher.cli.fleet_text import counted, word, wrong_row, wrong_values
    from launcher.fleet.faults import RemoteError

    try:
        answer = await _ask(
            *(fleet, options, "start"),
            profile=_profile(options.profile),
            name=options.name or None,
            platform=options.platform or None,
            qemu=options.qemu or None,
            settings=options.set or None,
            locked=options.locked or None,
            verify=options.verify,
        )
    except RemoteError as error:
        wrong = wrong_values(error.result)
        if wrong and options.format == "text":
            for value in wrong:
                note("  ".join(wrong_row(error.host, options.profile, value)))
        raise
    told = answer.result if isinstance(answer.result, dict) else {}
    how = "started" if told.get("changed") else "runs already"
    where = f"{options.host}/{word(told.get('name'))}"
    said = f"{word(told.get('verdict'))}: {counted(told.get('counts'))}"
    return _show(options, answer, f"{where}: {how}, pid {word(told.get('pid'))}, {said}")


def _profile(text: str) -> Any:
    """A name as it is; what is written as a file is read, and sent whole.

    Raises:
        InputError: it cannot be read, or stands on other files, which the host does not have.
    """
    import os

    if os.sep not in text and not text.endswith((".yaml", ".yml", ".json")):
        return text
    from launcher.errors import Place
    from launcher.files import read_yaml
    from launcher.nodes import plain_value

    found = plain_value(read_yaml(text))
    if isinstance(found, dict) and "extends" in found:
        words = "a profile that extends another one cannot be sent"
        hint = "put both on the host, and name it"
        raise InputError(words, place=Place(text), hint=hint, code="extends")
    if isinstance(found, dict):
        found.setdefault("name", os.path.basename(text).rpartition(".")[0])
    return found


async def stop(fleet: Fleet, options: argparse.Namespace) -> int:
    """Stop machines of one host, all at once."""
    import asyncio

    from launcher.cli.fleet_text import word

    first = "quit" if options.now else "SIGKILL" if options.force else None
    names = list(dict.fromkeys(options.machines))
    asked = (_ask(fleet, options, "stop", machine=name, first=first) for name in names)
    answers = await asyncio.gather(*asked, return_exceptions=True)
    stopped, failed, status = [], [], 0
    for name, answer in zip(names, answers, strict=True):
        if isinstance(answer, LauncherError):
            status = max(status, answer.exit_status)
            failed.append({**answer.as_json(), "name": name})
            if options.format == "text":
                show_error(answer)
        elif isinstance(answer, BaseException):
            raise answer
        else:
            by = answer.result.get("by") if isinstance(answer.result, dict) else None
            stopped.append({"host": options.host, "name": name, "by": by})
            if options.format == "text":
                out(f"{options.host}/{name}: stopped ({word(by)})")
    if options.format == "json":
        out_json({"stopped": stopped, "errors": failed})
    return status


async def query(fleet: Fleet, options: argparse.Namespace) -> int:
    """What the agent itself says of one machine, or of all."""
    from launcher.cli.fleet_text import MACHINE_HEAD, machine_row, word
    from launcher.report import table

    answer = await _ask(fleet, options, "query", machine=options.machine)
    told = answer.result if isinstance(answer.result, dict) else {}
    states = [told] if options.machine else told.get("machines") or []
    rows = [machine_row(options.host, word(one.get("name")), one) for one in states]
    text = table(rows, MACHINE_HEAD, {}) if rows else "no machine of this agent runs"
    if options.machine:
        text += f"\nthe guest is {word(told.get('status'))}"
    return _show(options, answer, text)


async def qmp(fleet: Fleet, options: argparse.Namespace) -> int:
    """What QEMU answered, as QEMU gave it, whatever the format."""
    answer = await _ask(
        *(fleet, options, "qmp"),
        machine=options.machine,
        command=options.command,
        arguments=_arguments(options.arguments),
    )
    out_json(answer.result)
    return 0


def _arguments(text: str | None) -> Any:
    import json

    if text is None:
        return None
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InputError(f"the arguments are not JSON: {error}", code="usage") from None
    if not isinstance(found, dict):
        raise InputError("the arguments are not a JSON object", code="usage")
    return found


async def migrate(fleet: Fleet, options: argparse.Namespace) -> int:
    """Move a machine, after its preflight.

    Raises:
        HostError: the host that shall have it is away.
        InputError: the preflight finds a break.
    """
    from launcher.cli.fleet_text import word
    from launcher.fleet.chores import breaks_of, check_hosts

    check_hosts(fleet, [options.host, options.to])
    breaks = await breaks_of(fleet, options.host, options.machine, options.to, options.timeout)
    if breaks and not options.force:
        said = "; ".join(word(one.get("message")) for one in breaks)
        words = f"{options.machine} cannot go to {options.to}: {said}"
        raise InputError(words, hint="--force tries all the same", code="preflight")
    answer = await _ask(
        *(fleet, options, "migrate"),
        progress=None if options.format == "json" else _progress(options),
        machine=options.machine,
        to=options.to,
        force=options.force or None,
    )
    told = answer.result if isinstance(answer.result, dict) else {}
    return _show(
        options,
        answer,
        f"{options.machine}: {options.host} -> {options.to}, {word(told.get('result'))}",
    )


def _progress(options: argparse.Namespace) -> Callable[[Answer], None]:
    from launcher.cli.fleet_text import progress_text

    def tell(answer: Answer) -> None:
        said = progress_text(answer.result)
        if said:
            note(f"{options.machine} -> {options.to}: {said}")

    return tell


VERBS: dict[str, Callable[[Fleet, argparse.Namespace], Awaitable[int]]] = {
    "start": start,
    "stop": stop,
    "query": query,
    "qmp": qmp,
    "migrate": migrate,
}
VIEWS = dict.fromkeys(VERBS, _view)
