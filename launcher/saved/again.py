"""What a machine that runs was planned from, and whether that still makes the same machine.

A lock says what a machine is, as it follows from its profile. Of a machine that another process
started there is a record of what was asked for; the profile may have been edited since.
"""

from __future__ import annotations

import re
from itertools import pairwise

from launcher.command import render_argv
from launcher.errors import HostError, InputError
from launcher.plan.decide import HIDDEN
from launcher.prepare import Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from launcher.host.state import MachineState
    from launcher.prepare import Prepared
    from launcher.rejoined import Rejoined

#: Options that make what a guest has.
_GUEST = ("-machine", "-cpu", "-smp", "-m", "-numa", "-object", "-device", "-netdev", "-blockdev")
#: Descriptors have other numbers at each start.
_NUMBERED = re.compile(r"(fdset/|/dev/fd/|\bfds?\"?[:=]\"?)\d+")


def request_of(state: MachineState, settings: tuple[str, ...]) -> Request:
    """What was asked for when a machine was started, with its UUID.

    Args:
        state: what is on record.
        settings: given again, and further ones.

    Raises:
        HostError: nothing is on record of it.
        InputError: a secret must be given again.
    """
    asked = state.asked
    if not isinstance(asked, dict):
        raise HostError(
            f"what was asked for {state.name} is not on record",
            hint="it was started by another release of the launcher, or by a program",
        )
    again = {text.partition("=")[0] for text in settings}
    kept = []
    for path, text in asked.get("settings", {}).items():
        if text != HIDDEN:
            kept.append(f"{path}={text}")
        elif path not in again:
            raise InputError(
                f"{path} is a secret, which is not on record",
                hint=f"give it again with --set {path}=…",
                code="save",
            )
    return Request(
        state.profile,
        str(asked.get("platform", "")),
        state.binary,
        (*kept, *settings, f"uuid={state.uuid}"),
        lock=str(asked.get("lock", "")),
    )


def refuse_changed(name: str, changes: Sequence[str]) -> None:
    """A lock is of a profile: refuse a machine that was given other parts since.

    Raises:
        InputError: it was.
    """
    if changes:
        raise InputError(
            f"{name} is not what its profile says: {', '.join(changes)} plugged or unplugged since "
            "the start; nothing was saved",
            hint="undo that first, or start the machine from a profile that says so",
            code="changed",
        )


def same_machine(running: Rejoined, prepared: Prepared) -> None:
    """The plan of now makes the machine that runs.

    Raises:
        InputError: it does not; says what differs.
    """
    names = ("qmp", *(want.name for want in prepared.plan.wants))
    fresh = render_argv(prepared.plan, dict.fromkeys(names, 0), running.folder)
    here, there = _guest(running.argv), _guest(fresh)
    if here == there:
        return
    gone = [" ".join(word) for word in here if word not in there]
    come = [" ".join(word) for word in there if word not in here]
    raise InputError(
        f"{prepared.plan.name}: its profile makes another machine now than the one that runs",
        hint="the profile was edited, or something was plugged in or out since it was started",
        evidence={"running": gone, "profile": come},
        code="save",
    )


def _guest(argv: Sequence[str]) -> list[tuple[str, str]]:
    """The options of a command line that make what the guest has, in their order."""
    found = [(name, text) for name, text in pairwise(argv) if name in _GUEST]
    return [(name, _NUMBERED.sub(r"\g<1>N", text)) for name, text in found]
