"""`fleet ls`, `facts`, `platform`: what hosts keep published. Nothing is asked of an agent."""

from __future__ import annotations

from launcher.cli.show import colors, note, out, out_json
from launcher.record import as_dict

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable
    from typing import Any

    from launcher.fleet.client import Fleet
    from launcher.fleet.looking import View


def _view(options: argparse.Namespace) -> View:
    from launcher.fleet.looking import View

    listed = options.what == "ls"
    return View(tuple(options.hosts), facts=not listed, machines=listed)


async def ls(fleet: Fleet, options: argparse.Namespace) -> int:
    """Hosts, and their machines."""
    import sys

    from launcher.cli import fleet_text as text
    from launcher.fleet.chores import check_hosts
    from launcher.report import table

    hosts = [fleet.hosts[name] for name in check_hosts(fleet, options.hosts)]
    if options.format == "json":
        listed = [{**as_dict(host), "machines": _states(fleet, host.name)} for host in hosts]
        out_json({"hosts": listed})
        return 0
    if not hosts:
        note("no agent has told of a host")
        return 0
    marks = text.MARKS if colors(sys.stdout) else {}
    out(table([text.host_row(host) for host in hosts], text.HOST_HEAD, marks))
    rows = [
        text.machine_row(host.name, name, fleet.machines[host.name, name])
        for host in hosts
        for name in fleet.machines_of(host.name)
    ]
    if rows:
        out("")
        out(table(rows, text.MACHINE_HEAD, marks))
    if fleet.left_out:
        note(f"{fleet.left_out} messages were left out: no agent publishes such, or too many")
    return 0


def _states(fleet: Fleet, host: str) -> list[dict[str, Any]]:
    return [fleet.machines[host, name] for name in fleet.machines_of(host)]


async def facts(fleet: Fleet, options: argparse.Namespace) -> int:
    """Facts of hosts: one JSON object, or a few lines for each."""
    from launcher.fleet.chores import check_hosts

    hosts = check_hosts(fleet, options.hosts)
    if options.format == "json":
        out_json({"hosts": {host: fleet.facts.get(host) for host in hosts}})
        return 0
    for number, host in enumerate(hosts):
        if number:
            out("")
        found = fleet.facts.get(host)
        out(_summary(host, found) if found is not None else f"{host}: has told no facts yet")
    return 0


def _summary(host: str, found: dict[str, Any]) -> str:
    from launcher.cli.host_summary import host_summary

    try:
        return host_summary({**found, "name": host})
    except (KeyError, TypeError, AttributeError):
        return f"{host}: its facts are not those of this release; see --format json"


async def platform(fleet: Fleet, options: argparse.Namespace) -> int:
    """The common floor, and the host that limits each value."""
    from launcher.cli.meet import show
    from launcher.fleet.chores import check_hosts
    from launcher.fleet.floor import common_floor

    hosts = check_hosts(fleet, options.hosts)
    silent = [host for host in hosts if host not in fleet.facts]
    if silent:
        note(f"no facts, so not counted: {', '.join(silent)}")
    known = {host: fleet.facts[host] for host in hosts if host in fleet.facts}
    return show(common_floor(known, options.name), options)


VERBS: dict[str, Callable[[Fleet, argparse.Namespace], Awaitable[int]]] = {
    "ls": ls,
    "facts": facts,
    "platform": platform,
}
VIEWS = dict.fromkeys(VERBS, _view)
