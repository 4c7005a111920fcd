"""Programs beside QEMU: started before it, ended with it.

A helper serves one chardev of QEMU's through a pair of sockets, so there is no path that another
could take, and nothing to wait for: what QEMU says first waits in the socket. It ends by itself
when QEMU does that has begun to use it; where QEMU did not come so far, we end it. Beside a QEMU
that is tied to us it is tied as well.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from functools import partial

from launcher.command import fill, render_helper
from launcher.display import printable
from launcher.errors import HostError, LauncherError
from launcher.process import describe_exit, spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from launcher.host.resources import Resources
    from launcher.plan import Helper, Plan
    from launcher.process import Process

#: Its end of the pair, in the helper.
_FD = 3
#: Seconds for a helper whose QEMU has ended to end by itself, and after SIGTERM. swtpm stays where
#: the socket was closed before QEMU opened the second one, for commands (0.7, measured).
_BY_ITSELF, _TERMINATED = 0.3, 2.0
#: Where distributions keep programs that are not on every user's PATH.
_ELSEWHERE = ("/usr/bin", "/usr/local/bin", "/usr/sbin")


class Running:
    """A helper that was started."""

    def __init__(self, helper: Helper, process: Process) -> None:
        self.helper = helper
        self.process = process

    def end(self) -> None:
        """Wait until it has ended by itself, and make it end when it does not."""
        if self.process.ends_within(_BY_ITSELF):
            return
        self.process.send_signal(15)
        if not self.process.ends_within(_TERMINATED):
            self.process.kill()

    def words(self) -> str:
        """What it said first, as a hint where QEMU says only that it does not get on with it."""
        self.process.drain()
        lines = self.process.stderr.lines
        return f"{self.helper.program} said: {printable(lines[0])}" if lines else ""

    def trouble(self) -> LauncherError | None:
        """What is wrong with it; None while it runs, and when it ended as it should."""
        self.process.drain()
        code = self.process.poll()
        if not code:
            return None
        lines = self.process.stderr.lines
        words = printable(lines[0]) if lines else "it said nothing"
        helper = self.helper
        return LauncherError(
            f"{helper.path}: {helper.program} ended ({describe_exit(code)}): {words}",
            place=helper.place,
            evidence={"helper_stderr": lines, "folder": helper.folder},
            code="helper",
        )


def start_helpers(
    plan: Plan, held: Resources, env: Mapping[str, str], *, detached: bool
) -> list[Running]:
    """Start what the plan has beside QEMU. `held` ends it again, unless the machine is kept.

    Raises:
        HostError: a program is not there, or its folder cannot be.
        LaunchError: it could not be started.
    """
    found = []
    for helper in plan.helpers:
        runtime = held.directory.path if held.directory is not None else ""
        folder = _folder(helper, str(fill(helper.folder, {}, runtime)))
        _name, *words = render_helper(helper, _FD, runtime)
        fds = {_FD: held.others[helper.chardev]}
        log = _log(held, helper) if detached else -1
        try:
            if log >= 0:
                fds |= {1: log, 2: log}
            argv = [_program(helper), *words]
            process = spawn(argv, fds=fds, env=env, tie=not detached, cwd=folder)
        finally:
            if log >= 0:
                os.close(log)
        running = Running(helper, process)
        held.keep(partial(_undo, running, held, detached))
        found.append(running)
    return found


def _undo(running: Running, held: Resources, detached: bool) -> None:
    """End a helper with its machine, but not one whose machine was let go of."""
    let_go = detached and held.directory is not None and held.directory.fd < 0
    if not let_go:
        running.end()


def _program(helper: Helper) -> str:
    folders = (*os.environ.get("PATH", os.defpath).split(os.pathsep), *_ELSEWHERE)
    for folder in folders:
        path = os.path.join(folder, helper.program)
        if folder and os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    raise HostError(
        f"{helper.path} needs the program {helper.program}, which is not on PATH",
        place=helper.place,
        hint=f"install the distribution's package {helper.program}",
        code="helper",
    )


def _folder(helper: Helper, path: str) -> str:
    """The helper's own folder; nobody else may look into it when it is made here."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        if not os.path.isdir(path):
            words = f"{helper.path}: {path} is not a folder"
            raise HostError(words, place=helper.place, code="helper") from None
    except OSError as error:
        words = f"{helper.path}: cannot make the folder {path}: {error.strerror}"
        raise HostError(words, place=helper.place, code="helper") from error
    return path


def make_beside(folder: str) -> str:
    """A new folder beside a helper's own, on the same file system.

    Raises:
        HostError: it cannot be made.
    """
    parent, name = os.path.split(os.path.abspath(folder))
    try:
        return tempfile.mkdtemp(prefix=f"{name}.", suffix=".arrived", dir=parent)
    except OSError as error:
        words = f"cannot make a folder beside {folder}: {error.strerror}"
        raise HostError(words, code="helper") from error


def take_beside(folder: str, beside: str, *, keep: bool) -> None:
    """Remove a folder of `make_beside`; its helper has ended.

    Args:
        folder: the helper's own.
        beside: the other one.
        keep: what is in it becomes what is in `folder`, file by file.

    Raises:
        HostError: that cannot be; nothing is removed.
    """
    if keep:
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            for name in os.listdir(beside):
                os.replace(os.path.join(beside, name), os.path.join(folder, name))
        except OSError as error:
            words = f"what is in {beside} cannot be put into {folder}: {error.strerror}"
            hint = "it is the newest; move it there before the next start"
            raise HostError(words, hint=hint, code="helper") from error
    shutil.rmtree(beside, ignore_errors=True)


def _log(held: Resources, helper: Helper) -> int:
    """Where one that outlives us says what it has to say."""
    assert held.directory is not None
    path = os.path.join(held.directory.path, f"{helper.chardev}.log")
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags, 0o600)
