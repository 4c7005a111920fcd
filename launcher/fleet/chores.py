"""What takes many commands: verify all machines, empty a host. Where to is the caller's word."""

from __future__ import annotations

import asyncio

from launcher.errors import LauncherError
from launcher.fleet.faults import RemoteError, gone, nobody
from launcher.fleet.picture import ONLINE
from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from launcher.fleet.asking import Answer
    from launcher.fleet.client import Fleet

#: Commands at once; an agent has as many slots.
_AT_ONCE = 8
#: Codes of a migration after which it is not known where the guest is: nothing more is tried.
_UNKNOWN = ("timeout", "lost", "offline", "unsettled", "interrupted", "internal")


@record
class Verified:
    """One machine read back anew: its report, or why there is none.

    `machine` is empty for a host whose agent is not there.
    """

    host: str
    machine: str
    report: dict[str, Any] | None
    error: LauncherError | None

    @property
    def good(self) -> bool:
        """Whether everything was read back as planned."""
        return self.report is not None and self.report.get("verdict") == "match"


@record
class Moved:
    """What became of one machine of a host that is emptied.

    `to` is where it runs now, None when it stayed; `tried` is each candidate that did not take it,
    with the error or the findings that say why.
    """

    machine: str
    to: str | None
    result: dict[str, Any] | None
    tried: tuple[tuple[str, LauncherError | Sequence[Any]], ...]


def check_hosts(fleet: Fleet, names: Sequence[str]) -> list[str]:
    """`names`, or all hosts that are known.

    Raises:
        HostError: nobody has told of one.
    """
    for name in names:
        if name not in fleet.hosts:
            raise nobody(name, list(fleet.hosts))
    return list(dict.fromkeys(names)) or sorted(fleet.hosts)


async def verify_all(
    fleet: Fleet,
    hosts: Sequence[str] = (),
    *,
    seconds: float = 60.0,
    told: Callable[[Verified], None] | None = None,
) -> list[Verified]:
    """Have every machine of some hosts, or of all, read back anew.

    Args:
        fleet: that looks at machines.
        hosts: by name; none stands for all.
        seconds: for each machine, from when its turn has come.
        told: called with each as it comes.

    Returns:
        One for each machine, by host and name, and one for each host whose agent is away.

    Raises:
        HostError: there is no such host.
    """
    slots = {host: asyncio.Semaphore(_AT_ONCE) for host in check_hosts(fleet, hosts)}

    async def one(host: str, machine: str) -> Verified:
        found = await _verify(fleet, host, machine, seconds, slots[host])
        if told is not None:
            told(found)
        return found

    work = []
    for host in slots:
        there = fleet.hosts[host].status == ONLINE
        work += [one(host, name) for name in (fleet.machines_of(host) if there else [""])]
    return list(await asyncio.gather(*work))


async def _verify(
    fleet: Fleet, host: str, machine: str, seconds: float, slots: asyncio.Semaphore
) -> Verified:
    if not machine:
        return Verified(host, "", None, gone(host, fleet.hosts[host].status))
    async with slots:
        try:
            answer = await fleet.command(host, "verify", timeout=seconds, machine=machine)
        except LauncherError as error:
            report = error.result if isinstance(error, RemoteError) else None
            return Verified(host, machine, report if isinstance(report, dict) else None, error)
    return Verified(host, machine, answer.result, None)


async def drain(
    fleet: Fleet,
    host: str,
    candidates: Sequence[str],
    *,
    seconds: float = 600.0,
    force: bool = False,
    progress: Callable[[str, str, Answer], None] | None = None,
    told: Callable[[Moved], None] | None = None,
) -> list[Moved]:
    """Move every machine of a host away, one after the other.

    For each machine the candidates are asked in their order: the first to which its preflight finds
    no break has it. One that then refuses is a candidate less; what stays says why.

    Args:
        fleet: that looks at machines.
        host: to be emptied.
        candidates: hosts that may take machines, by name.
        seconds: for one migration.
        force: move a machine though its preflight finds a break.
        progress: called with machine, candidate and each answer on the way.
        told: called with each machine once its fate is known.

    Raises:
        HostError: there is no such host, or the one to be emptied is away.
    """
    check_hosts(fleet, [host, *candidates])
    if fleet.hosts[host].status != ONLINE:
        raise gone(host, fleet.hosts[host].status)
    found = []
    for machine in fleet.machines_of(host):
        moved = await _move(fleet, host, machine, candidates, seconds, force, progress)
        found.append(moved)
        if told is not None:
            told(moved)
    return found


async def _move(
    fleet: Fleet,
    host: str,
    machine: str,
    candidates: Sequence[str],
    seconds: float,
    force: bool,
    progress: Callable[[str, str, Answer], None] | None,
) -> Moved:
    tried: list[tuple[str, LauncherError | Sequence[Any]]] = []
    for to in dict.fromkeys(candidates):
        try:
            breaks = await breaks_of(fleet, host, machine, to)
        except LauncherError as error:
            tried.append((to, error))
            continue
        if breaks and not force:
            tried.append((to, breaks))
            continue
        try:
            answer = await fleet.command(
                *(host, "migrate"),
                timeout=seconds,
                progress=_for(progress, machine, to),
                machine=machine,
                to=to,
                force=force or None,
            )
        except LauncherError as error:
            tried.append((to, error))
            if error.code in _UNKNOWN:
                break
            continue
        return Moved(machine, to, answer.result, tuple(tried))
    return Moved(machine, None, None, tuple(tried))


def _for(
    progress: Callable[[str, str, Answer], None] | None, machine: str, to: str
) -> Callable[[Answer], None] | None:
    if progress is None:
        return None
    return lambda answer: progress(machine, to, answer)


async def breaks_of(
    fleet: Fleet, host: str, machine: str, to: str, seconds: float = 60.0
) -> list[Any]:
    """The findings of a preflight that would break a migration.

    Raises:
        LauncherError: as `Fleet.command`; the candidate's agent is away.
    """
    if fleet.hosts[to].status != ONLINE:
        raise gone(to, fleet.hosts[to].status)
    answer = await fleet.command(host, "preflight", timeout=seconds, machine=machine, to=to)
    found = answer.result.get("findings", []) if isinstance(answer.result, dict) else []
    return [one for one in found if isinstance(one, dict) and one.get("severity") == "breaks"]
