"""What is on record about a machine, and whether the process on record is still that process."""

from __future__ import annotations

import os

from launcher.host.boot_cache import boot_id
from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


#: What is on record about a helper.
_HELPER = {"path", "program", "log", "pid", "start_time"}


@record
class MachineState:
    """What is on record about one machine.

    Attributes:
        phase: `starting` until the machine's pid is known, then `running`.
        start_time: of `pid`, clock ticks since boot (proc(5), field 22); filled in on writing.
        boot_id: of the boot that it was written in; filled in on writing.
        plan: the plan's JSON form, for reports about a running machine.
        asked: what it was planned from beside the profile: `platform`, `settings`, `lock`.
        helpers: what runs beside it: `path`, `program`, `log`, `pid` and `start_time` of each.
    """

    name: str
    uuid: str
    phase: str = "starting"
    pid: int | None = None
    start_time: int | None = None
    boot_id: str = ""
    binary: str = ""
    qmp: str = ""
    console: str = ""
    profile: str = ""
    platform: str = ""
    plan: Any = None
    asked: Any = None
    helpers: Any = None


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when it has ended (zombies too)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    if not fields or fields[0] in (b"Z", b"X"):
        return None
    return int(fields[19])


def is_alive(state: MachineState) -> bool:
    """Whether the process on record is still that process."""
    if state.pid is None or state.start_time is None:
        return False
    return state.boot_id == boot_id() and start_time(state.pid) == state.start_time


def ended_helpers(state: MachineState) -> list[dict[str, Any]]:
    """Those of a machine's helpers that run no more."""
    found = state.helpers if isinstance(state.helpers, list) else []
    known = [one for one in found if isinstance(one, dict) and one.keys() >= _HELPER]
    return [one for one in known if start_time(one["pid"]) != one["start_time"]]


def running_pid(state: MachineState) -> int | None:
    """The pid of a recorded machine while it runs, also when it was never recorded."""
    if is_alive(state):
        return state.pid
    if state.phase == "starting" and state.boot_id == boot_id():
        return pid_of_uuid(state.uuid)
    return None


def pid_of_uuid(uuid: str) -> int | None:
    """The process with `-uuid UUID` in its arguments: a machine whose pid was never recorded.

    That happens when the launcher is killed between starting QEMU and writing its state.
    """
    wanted = uuid.encode()
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                arguments = file.read().split(b"\0")
        except OSError:
            continue
        if wanted in arguments[1:]:
            option = arguments[arguments.index(wanted, 1) - 1]
            if option in (b"-uuid", b"--uuid") and not _is_elsewhere(entry):
                return int(entry)
    return None


def _is_elsewhere(entry: str) -> bool:
    """Whether a process was given another runtime directory than ours.

    Both ends of a migration have one UUID, and two agents may share a machine.
    """
    try:
        with open(f"/proc/{entry}/environ", "rb") as file:
            values = file.read().split(b"\0")
    except OSError:
        return False
    ours = os.fsencode(os.environ.get("XDG_RUNTIME_DIR", ""))
    name = b"XDG_RUNTIME_DIR="
    return any(v.startswith(name) and v[len(name) :] != ours for v in values)
