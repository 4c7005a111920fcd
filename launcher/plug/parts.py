"""The machine's own account of what it has, kept true while parts come and go."""

from __future__ import annotations

import asyncio
import copy

from launcher.errors import InputError
from launcher.nodes import Mapping, from_python
from launcher.plan.addition import reduced
from launcher.plan.kept import keep_plan
from launcher.profiles.addition import without
from launcher.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from launcher.errors import Place
    from launcher.machine import Machine
    from launcher.prepare import Loaded, Prepared
    from launcher.profiles import Profile
    from launcher.profiles.addition import Entry
    from launcher.report import Report


def lock_of(machine: Machine) -> asyncio.Lock:
    """One change at a time: each begins with what the last one left."""
    if machine.changing is None:
        machine.changing = asyncio.Lock()
    lock: asyncio.Lock = machine.changing
    return lock


def tree_of(given: dict[str, Any], place: Place) -> Mapping:
    """What a program gave, as a profile's tree.

    Raises:
        InputError: it holds what no profile can.
    """
    try:
        tree = from_python({name: part for name, part in given.items() if part}, place)
    except TypeError as error:
        raise InputError(str(error), place=place, code="type") from None
    assert isinstance(tree, Mapping)
    return tree


def loaded_with(machine: Machine, profile: Profile) -> Loaded:
    """What the machine's plan was made from, with another profile."""
    loaded = copy.copy(machine.prepared.loaded)
    loaded.key = loaded.kept = None
    loaded.profile = profile
    return loaded


def become(machine: Machine, prepared: Prepared, report: Report | None) -> None:
    """Have the machine be what `prepared` says from now on, for who asks here and elsewhere."""
    machine.prepared, machine.plan = prepared, prepared.plan
    machine.report = report
    directory = machine.resources.directory
    if directory is not None and (state := directory.read_state()) is not None:
        directory.write_state(replace(state, plan=keep_plan(prepared.plan, machine.changes)))


def lose(machine: Machine, gone: set[Entry]) -> None:
    """Forget parts that the machine has no more."""
    plan = reduced(machine.plan, gone)
    loaded = loaded_with(machine, without(machine.prepared.loaded.profile, gone))
    prepared = copy.copy(machine.prepared.with_plan(plan))
    prepared.loaded = loaded
    report = machine.report
    if report is not None:
        kept = {(v.family, v.id) for v in plan.values}
        judged = tuple(j for j in report.judged if (j.value.family, j.value.id) in kept)
        report = replace(report, plan=plan, judged=judged)
    become(machine, prepared, report)
