"""The runtime directory: one name, one holder, and what is known of each machine.

    ${XDG_RUNTIME_DIR}/qemu-launcher/NAME/state.json   who runs as NAME
                                         /holder       the process that holds the name
                                         /qmp, /con0   sockets that the launcher bound

Else below /run/user/UID, else /tmp/qemu-launcher-UID. The lock is an flock on the machine's
directory itself, held by an fd: it goes with its holder, however that ends. A machine is alive
when its pid, start time and boot id all match; never by the name of its executable, which a
private loader or a distribution's wrapper changes.
"""

from __future__ import annotations

import fcntl
import os
import time

from launcher.errors import HostError, InputError
from launcher.host.boot_cache import boot_id
from launcher.host.private import (
    FOLDER_FLAGS,
    bind_listener,
    empty_folder,
    open_private,
    read_file,
    remove_file,
    write_atomically,
)
from launcher.host.state import MachineState, running_pid, start_time
from launcher.qapi import format_json, parse_json
from launcher.record import as_dict, record, replace

_STATE, _HOLDER = "state.json", "holder"
_PATIENCE = 2.0
"""Seconds that a launcher tries to learn who holds a name; microseconds are usual."""


@record
class Machine:
    """One entry of `list_machines`.

    Attributes:
        state: None when none was written, or it cannot be read.
        pid: of the machine while it is alive, else None.
        holder: pid of the launcher that holds the name, None when nobody does.
    """

    name: str
    path: str
    state: MachineState | None
    pid: int | None
    holder: int | None

    @property
    def alive(self) -> bool:
        """Whether the recorded process still runs."""
        return self.pid is not None


def check_name(name: str) -> str:
    """The name, when it is one: it becomes a folder's name, an MQTT topic level and `-name`.

    Raises:
        InputError: it is not.
    """
    # Without a regular expression: importing re takes 5 ms before QEMU is started.
    letters = name.replace(".", "").replace("_", "").replace("-", "")
    usual = letters.isascii() and letters.isalnum() and name[:1].isalnum()
    if not usual or len(name) > 63:
        hint = "letters, digits, '.', '_' and '-', at most 63, starting with a letter or digit"
        raise InputError(f"{name!r} cannot be a machine's name", hint=hint, code="name")
    return name


def runtime_path() -> str:
    """Where the runtime directory is for this user and environment; it may not exist yet."""
    uid = os.geteuid()
    for base in (os.environ.get("XDG_RUNTIME_DIR", ""), f"/run/user/{uid}"):
        if base.startswith("/") and os.path.isdir(base):
            return os.path.join(base, "qemu-launcher")
    return f"/tmp/qemu-launcher-{uid}"  # noqa: S108 - opened without following, owner checked


class MachineDirectory:
    """A machine's name and directory, held by this process until `release` or `remove`."""

    def __init__(self, name: str, path: str, fd: int) -> None:
        self.name = name
        self.path = path
        self.fd = fd

    def write_state(self, state: MachineState) -> None:
        """Replace the state on record; whatever fails, the old one stays whole.

        Raises:
            HostError: it cannot be written (a full disk).
        """
        state = replace(state, boot_id=state.boot_id or boot_id())
        if state.pid is not None and state.start_time is None:
            state = replace(state, start_time=start_time(state.pid))
        text = format_json(as_dict(state))
        write_atomically(self.fd, _STATE, text.encode("utf-8", "surrogateescape"), self.path)

    def read_state(self) -> MachineState | None:
        """The state on record, or None."""
        return _read_state(self.fd)

    def bind_listener(self, name: str, *, reachable: bool = True) -> int:
        """The fd of a listening unix socket `name` in this directory (see `bind_listener`)."""
        return bind_listener(self.fd, self.path, name, reachable=reachable)

    def release(self) -> None:
        """Let go of the name and leave the files: the machine goes on without us."""
        if self.fd >= 0:
            remove_file(self.fd, _HOLDER)
            os.close(self.fd)
            self.fd = -1

    def remove(self) -> None:
        """Let go of the name and remove the directory with all that is in it."""
        if self.fd < 0:
            return
        try:
            empty_folder(self.fd)
            if _same(self.fd, self.path):  # else somebody removed it, and it may be another's now
                os.rmdir(self.path)
        finally:
            os.close(self.fd)
            self.fd = -1


def claim(name: str) -> MachineDirectory:
    """Take a machine's name: of any number of launchers exactly one gets it.

    What a dead holder left behind is removed.

    Raises:
        InputError: not a name.
        HostError: another launcher holds it, or its machine still runs; the message names the pid.
    """
    directory = _hold(name, make=True)
    assert directory is not None
    try:
        _refuse_running(directory)
        empty_folder(directory.fd)
        _sign(directory)
    except BaseException:
        os.close(directory.fd)
        raise
    return directory


def adopt(name: str) -> tuple[MachineDirectory, MachineState]:
    """Take the name of a machine that runs without a holder, and leave its files as they are.

    Returns:
        What is held, and the state on record with the pid filled in.

    Raises:
        InputError: not a name.
        HostError: another launcher holds it, or no such machine runs.
    """
    directory = _hold(name, make=False)
    if directory is None:
        raise HostError(f"no machine {name} runs", code="absent")
    try:
        state = directory.read_state()
        pid = running_pid(state) if state else None
        if pid is not None:
            _sign(directory)
    except BaseException:
        os.close(directory.fd)
        raise
    if state is None or pid is None:
        os.close(directory.fd)
        raise HostError(f"no machine {name} runs", code="absent")
    if state.pid is None:
        state = replace(state, pid=pid, start_time=start_time(pid))
    return directory, state


def list_machines() -> list[Machine]:
    """All machines on record, by name; takes no lock, so it never makes a launch fail."""
    root_path = runtime_path()
    try:
        root = os.open(root_path, FOLDER_FLAGS)
    except OSError:
        return []
    try:
        seen = [_look(root, root_path, name) for name in sorted(os.listdir(root))]
    finally:
        os.close(root)
    return [machine for machine in seen if machine is not None]


def find_machine(name: str) -> Machine | None:
    """One machine of `list_machines`, without a look at the others; None when there is none."""
    root_path = runtime_path()
    if "/" in name or name in ("", ".", ".."):
        return None
    try:
        root = os.open(root_path, FOLDER_FLAGS)
    except OSError:
        return None
    try:
        return _look(root, root_path, name)
    finally:
        os.close(root)


def _look(root: int, root_path: str, name: str) -> Machine | None:
    try:
        fd = os.open(name, FOLDER_FLAGS, dir_fd=root)
    except OSError:
        return None
    try:
        state = _read_state(fd)
        pid = running_pid(state) if state else None
        return Machine(name, os.path.join(root_path, name), state, pid, _holder(fd))
    finally:
        os.close(fd)


def remove_stale() -> list[str]:
    """Remove the directories of machines that neither run nor are held; their names."""
    removed = []
    for machine in list_machines():
        if machine.alive or machine.holder is not None:
            continue
        try:
            claim(machine.name).remove()
        except (HostError, InputError, OSError):
            continue  # taken since, or not ours to name
        removed.append(machine.name)
    return removed


def _hold(name: str, *, make: bool) -> MachineDirectory | None:
    """The locked directory of a name; None when there is none and none is to be made."""
    check_name(name)
    root_path = runtime_path()
    root = open_private(root_path)
    path = os.path.join(root_path, name)
    deadline = time.monotonic() + _PATIENCE
    try:
        while True:
            if not make and name not in os.listdir(root):
                return None
            fd = _lock(root, path, name)
            if fd is not None:
                return MachineDirectory(name, path, fd)
            if time.monotonic() > deadline:
                raise HostError(f"machine {name} is held by another process", code="busy")
    finally:
        os.close(root)


def _lock(root: int, path: str, name: str) -> int | None:
    """The locked fd of NAME's directory, or None when it changed hands meanwhile: try again."""
    try:
        fd = open_private(path, name, root)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # A holder removes the directory before it lets go: that would be a lock on nothing.
        if _same(fd, name, root):
            return fd
    except BlockingIOError:
        holder = _holder(fd)
        if holder is not None:
            os.close(fd)
            raise HostError(
                f"machine {name} is held by process {holder}",
                hint=f"stop it first: qemu-launcher stop {name}",
                evidence={"pid": holder, "path": path},
                code="busy",
            ) from None
    os.close(fd)
    return None


def _same(fd: int, name: str, at: int | None = None) -> bool:
    """Whether a path still leads to the open directory."""
    try:
        there = os.stat(name, dir_fd=at, follow_symlinks=False)
    except FileNotFoundError:
        return False
    here = os.fstat(fd)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def _sign(directory: MachineDirectory) -> None:
    """Note who holds the name, for kernels and file systems where /proc/locks cannot tell."""
    note = f"{os.getpid()} {start_time(os.getpid())}\n"
    write_atomically(directory.fd, _HOLDER, note.encode(), directory.path)


def _refuse_running(directory: MachineDirectory) -> None:
    state = directory.read_state()
    if state is None:
        return
    pid = running_pid(state)
    if pid is not None:
        raise HostError(
            f"machine {directory.name} already runs as process {pid}",
            hint=f"stop it first: qemu-launcher stop {directory.name}",
            evidence={"pid": pid, "path": directory.path},
            code="busy",
        )


def _holder(fd: int) -> int | None:
    """The pid that holds the flock on a directory, None when nobody does or none can be told.

    The kernel's own list is right at any moment. The holder's note is for file systems whose
    inodes it shows otherwise, and counts only while its writer lives.
    """
    here = os.fstat(fd)
    place = f"{os.major(here.st_dev):02x}:{os.minor(here.st_dev):02x}:{here.st_ino}"
    try:
        with open("/proc/locks") as locks:
            for line in locks:
                # 1: FLOCK  ADVISORY  WRITE 4711 fe:00:12345 0 EOF
                fields = line.split()
                if fields[1] == "FLOCK" and fields[5] == place and int(fields[4]) > 0:
                    return int(fields[4])
        pid, started = read_file(fd, _HOLDER).split()
        return int(pid) if start_time(int(pid)) == int(started) else None
    except (OSError, IndexError, ValueError):
        return None


#: States by the file that held them. A state is never written in place: another one is another
#: file. It holds a whole plan, and an agent asks for the same few again and again.
_known: dict[tuple[int, int, int, int], MachineState] = {}
_KNOWN = 256


def _read_state(folder: int) -> MachineState | None:
    try:
        at = os.stat(_STATE, dir_fd=folder, follow_symlinks=False)
        key = (at.st_dev, at.st_ino, at.st_mtime_ns, at.st_size)
        if key in _known:
            return _known[key]
        # Names of files may hold bytes that are no UTF-8.
        kept = parse_json(read_file(folder, _STATE).decode("utf-8", "surrogateescape"))
        known = {name: kept[name] for name in MachineState.__match_args__ if name in kept}
        state = MachineState(**known)
    except (OSError, ValueError, TypeError):
        return None
    if len(_known) >= _KNOWN:
        _known.clear()
    _known[key] = state
    return state
