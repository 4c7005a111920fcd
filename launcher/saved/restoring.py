"""A machine under the lock of a saved state, the state in it, and the guest goes on."""

from __future__ import annotations

import os

from launcher.errors import InputError, Place
from launcher.incoming import incoming
from launcher.lock_files import load_lock
from launcher.migrate import Limits, Migration, MigrationError
from launcher.migrate.stream import load_state
from launcher.nodes import MAPPING
from launcher.preflight import breaks, preflight, side_of_lock
from launcher.prepare import Request
from launcher.saved.saving import absolute, lock_of_state
from launcher.start import refuse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from launcher.machine import Machine
    from launcher.preflight import Finding


def prepare_restore(
    path: str,
    *,
    profile: str | Mapping[str, Any] = "",
    qemu: str = "",
    settings: tuple[str, ...] = (),
) -> Request:
    """What is asked for when a saved state is to go on: its lock is to be kept.

    Args:
        path: of the state; its lock stands beside it.
        profile: by default the one that the lock names.
        qemu: the binary, by name or path; by default the profile's.
        settings: further `path=value` texts.

    Raises:
        InputError: there is no lock, or the profile is not known.
    """
    beside = lock_of_state(absolute(path))
    lock = load_lock(beside)
    if not profile:
        file = lock.document["profile"]["file"]
        if file == MAPPING:
            words = "it was saved of a machine whose profile is no file"
            hint = "restore it with that profile: profile=…"
            raise InputError(words, place=Place(beside), hint=hint, code="profile")
        profile = os.path.join(os.path.dirname(beside), file)
    return Request(profile, qemu=qemu, settings=settings, lock=beside)


async def restore(
    path: str,
    *,
    profile: str | Mapping[str, Any] = "",
    qemu: str = "",
    settings: tuple[str, ...] = (),
    paused: bool = False,
    force: bool = False,
    limits: Limits | None = None,
) -> Machine:
    """Start a machine under the lock of a saved state, load the state, and let the guest go on.

    The files stay. A guest that went on must not go on from the same file again: its disks have.

    Args:
        path: of the state; its lock stands beside it.
        profile: by default the one that the lock names.
        qemu: the binary, by name or path; by default the profile's.
        settings: further `path=value` texts.
        paused: leave the guest paused.
        force: load the state although the preflight says that it would break.
        limits: deadlines.

    Raises:
        InputError: there is no lock, or it does not fit the profile.
        HostError: the binary cannot be what was locked; says what it cannot be.
        VerdictError: a value is not what was locked; the guest did not run.
        MigrationError: the preflight against the lock refuses, or QEMU could not load the state.
    """
    from launcher.prepare import load, prepare

    request = prepare_restore(path, profile=profile, qemu=qemu, settings=settings)
    machine = await incoming(await prepare(load(request)))
    try:
        refuse(await machine.verify())
        await arrive(machine, path, force=force, limits=limits)
        if not paused:
            await machine.resume()
    except BaseException:
        await machine.close()
        raise
    return machine


async def arrive(
    machine: Machine, path: str, *, force: bool = False, limits: Limits | None = None
) -> tuple[Finding, ...]:
    """Load a saved state into a machine that waits for it under the state's lock.

    Args:
        machine: verified; its guest is paused then.
        path: of the state.
        force: load it although the preflight says that it would break.
        limits: deadlines.

    Returns:
        What the preflight found.

    Raises:
        VerdictError: a value is not what was locked.
        MigrationError: the preflight refuses, or QEMU could not load the state.
    """
    findings = await _compare(machine, lock_of_state(absolute(path)))
    wrong = breaks(findings)
    if wrong and not force:
        raise MigrationError(
            f"{machine.plan.name} was not restored: it would fail: {wrong[0].message}",
            migration=Migration("refused", f"file:{path}", findings),
            hint=" or ".join(cure.text for cure in wrong[0].cures) or "nothing cures it",
        )
    await load_state(machine, absolute(path), limits or Limits())
    refuse(await machine.verify())
    return findings


async def _compare(machine: Machine, beside: str) -> tuple[Finding, ...]:
    """The machine that was saved, as its lock tells, against the one that waits."""
    from launcher.data import load_rules
    from launcher.ends import end_of

    saved = side_of_lock(load_lock(beside).document, os.path.basename(beside))
    # `save` stops the guest before it writes the first byte.
    return preflight(saved, await end_of(machine), load_rules(), still=True)
