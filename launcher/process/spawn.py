"""Start a process with chosen file descriptors, and tie its life to ours.

`os.posix_spawn` costs 0.1 ms whatever our own size; `preexec_fn` would force a fork of all of it.

The tie. A machine that belongs to a foreground run must not survive us, whatever kills us and
whenever. Asking QEMU (`-run-with exit-with-parent=on`, 11.1) leaves every fourth one alive when we
are killed while it starts. PR_SET_PDEATHSIG needs code between fork and exec, or two more programs
in front of QEMU (setpriv to ask for it, a shell to check that the parent is still there); it is
lost when QEMU drops its uid, and it fires when the *thread* that spawned ends. So the tie is a
pipe of which only we hold the writing end:

1. The child gets its own open file of the reading end. Once its pid is known we ask the kernel to
   send that pid SIGKILL when something happens to the pipe (F_SETOWN, F_SETSIG, O_ASYNC: fcntl(2)).
   Nothing is ever written to it, so what happens to it is that we are gone.
2. Until that is set up something holds the child back. What is known to be a QEMU is not given its
   key: the words on its stdin without which it cannot begin. It starts meanwhile, and ends when it
   meets the end of the file instead, because then we died in between. For everything else a shell
   in front of it does the same, which costs a millisecond.

There is one pipe for all children, so a tied machine costs no file descriptor of ours.
"""

from __future__ import annotations

import fcntl
import os

from launcher.errors import LaunchError
from launcher.process.running import Process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    _FileActions = list[tuple[int, int, int] | tuple[int, int]]

_SHELL = "/bin/sh"
_SIGKILL = 9  # by number: importing `signal` costs more than the rest of this module
# Ignored signals survive exec: Python itself ignores SIGPIPE, nohup ignores SIGHUP. QEMU gets all
# of them as a fresh process would. 9 and 19 (SIGSTOP) cannot be set.
_DEFAULT_SIGNALS = tuple(n for n in range(1, 32) if n not in (9, 19))

_tie_pipe: tuple[int, int] | None = None


def spawn(
    argv: Sequence[str],
    *,
    fds: Mapping[int, int],
    env: Mapping[str, str],
    tie: bool,
    key: bytes = b"",
    cwd: str | None = None,
) -> Process:
    """Start `argv` and return at once; needs no event loop.

    The child is the leader of a session of its own, so that a Ctrl-C at our terminal reaches us
    and not it. Its stdin is /dev/null; its stdout and stderr are a pipe that the `Process` drains,
    unless `fds` names a file for 1 or 2 (a machine that outlives us wants a log file there). It
    inherits no other file descriptor.

    Args:
        argv: the program's path (with a slash in it; PATH is not searched) and its arguments.
        fds: the child's file descriptor number → ours, which stays open here.
        env: its whole environment.
        tie: it is killed (SIGKILL) when this process ends in any way, or replaces itself (exec).
        key: with `tie`, what it reads to the end from its stdin and cannot begin without. Without a
            key a shell holds it back until it is tied, and its stdin is /dev/null.
        cwd: its working directory; ours when None.

    Raises:
        LaunchError: it could not be started; `evidence["argv"]` has `argv`.
    """
    _check_program(argv)
    ours: list[int] = []  # closed before we return, whatever happens
    stderr = -1
    try:
        # Above every number that the child will use: a dup2 must not overwrite a later source.
        floor = max((2, *fds)) + 1
        sources = {target: _copy(fd, floor, ours) for target, fd in fds.items()}
        if 1 not in fds or 2 not in fds:
            stderr, writing = os.pipe()
            os.set_blocking(stderr, False)
            writing = _move(writing, floor, ours)
            sources = {1: writing, 2: writing, **sources}
        if tie:
            process = _spawn_tied(argv, env, cwd, key, sources, floor, ours, stderr)
        else:
            sources[0] = _move(os.open(os.devnull, os.O_RDONLY), floor, ours)
            command = argv if cwd is None else _through_shell('exec "$@"', argv, cwd)
            process = _own(_posix_spawn(command, env, sources), argv, stderr)
    except OSError as error:
        message = f"cannot start {argv[0]}: {os.strerror(error.errno or 0)}"
        raise LaunchError(message, evidence={"argv": list(argv)}) from error
    else:
        stderr = -1  # the Process has it now
        return process
    finally:
        for fd in (*ours, stderr):
            if fd >= 0:
                os.close(fd)


def _check_program(argv: Sequence[str]) -> None:
    """Refuse what a shell in between would put in its own words, or run as a script."""
    program, reason = argv[0], ""
    if "/" not in program:
        reason = "it is not a path"
    elif not os.path.exists(program):
        reason = "no such file"
    elif not os.path.isfile(program):
        reason = "it is not a file"
    elif not os.access(program, os.X_OK):
        reason = "it is not executable"
    elif not _begins_like_a_program(program):
        reason = "it is not a program"
    if reason:
        raise LaunchError(f"cannot start {program}: {reason}", evidence={"argv": list(argv)})


def _begins_like_a_program(path: str) -> bool:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(4).startswith((b"\x7fELF", b"#!"))
    except OSError:  # executable and not readable is allowed
        return True


def _spawn_tied(
    argv: Sequence[str],
    env: Mapping[str, str],
    cwd: str | None,
    key: bytes,
    sources: dict[int, int],
    floor: int,
    ours: list[int],
    stderr: int,
) -> Process:
    # A new open file of the shared pipe: the signal is a property of the open file, and each child
    # needs its own. The child keeps it for life, under a number that the caller did not ask for.
    tie = _move(os.open(f"/proc/self/fd/{_tie()[0]}", os.O_RDONLY), floor, ours)
    gate, go = os.pipe()
    ours.append(go)
    sources = {**sources, tie: tie, 0: _move(gate, floor, ours)}
    if key and cwd is None:
        command: Sequence[str] = argv
    else:
        script = 'exec "$@"' if key else 'read _ && exec "$@" </dev/null'
        command = _through_shell(script, argv, cwd)
    process = _own(_posix_spawn(command, env, sources), argv, stderr)
    try:
        fcntl.fcntl(tie, fcntl.F_SETOWN, process.pid)
        fcntl.fcntl(tie, fcntl.F_SETSIG, _SIGKILL)
        fcntl.fcntl(tie, fcntl.F_SETFL, os.O_ASYNC)
        _let_go(go, key)
    except BaseException:
        process.stderr_fd = -1  # the caller closes it
        process.kill()
        raise
    return process


def _let_go(go: int, key: bytes) -> None:
    try:  # noqa: SIM105 (contextlib is not imported for it)
        os.write(go, key or b"\n")
    except BrokenPipeError:  # it has ended already, as its pidfd tells
        pass


def _own(pid: int, argv: Sequence[str], stderr: int) -> Process:
    try:
        return Process(pid, argv, stderr)
    except BaseException:  # no file descriptor left for its pidfd: nothing may run unwatched
        os.kill(pid, _SIGKILL)
        os.waitpid(pid, 0)
        raise


def _through_shell(script: str, argv: Sequence[str], cwd: str | None) -> list[str]:
    """The argv of a shell that becomes `argv`; every word is an argument of it, none is script."""
    if cwd is None:
        return [_SHELL, "-c", script, argv[0], *argv]
    script = f'cd -- "$1" && shift && {script}'
    program = os.path.abspath(argv[0])
    return [_SHELL, "-c", script, program, os.path.abspath(cwd), program, *argv[1:]]


def _posix_spawn(argv: Sequence[str], env: Mapping[str, str], sources: Mapping[int, int]) -> int:
    actions: _FileActions = [(os.POSIX_SPAWN_CLOSE, fd) for fd in _inheritable(sources)]
    # dup2 of a number onto itself clears its close-on-exec flag (glibc 2.29, POSIX 2024).
    actions += [(os.POSIX_SPAWN_DUP2, source, target) for target, source in sources.items()]
    return os.posix_spawn(
        argv[0],
        list(argv),
        env,
        file_actions=actions,
        setsid=True,
        setsigmask=(),
        setsigdef=_DEFAULT_SIGNALS,
    )


def _inheritable(wanted: Iterable[int]) -> list[int]:
    """What the child would inherit besides `wanted`: files that somebody left inheritable to us."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd > 2 and fd not in wanted:
            try:
                if os.get_inheritable(fd):
                    found.append(fd)
            except OSError:  # the directory's own descriptor, or one that another thread closed
                continue
    return found


def _copy(fd: int, floor: int, ours: list[int]) -> int:
    copy = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, floor)
    ours.append(copy)
    return copy


def _move(fd: int, floor: int, ours: list[int]) -> int:
    try:
        return _copy(fd, floor, ours)
    finally:
        os.close(fd)


def _tie() -> tuple[int, int]:
    """The pipe that ends with this process; made when it is first needed, never closed."""
    global _tie_pipe
    if _tie_pipe is None:
        _tie_pipe = os.pipe()
    return _tie_pipe


def _forget_tie() -> None:
    """A forked copy of us must not keep our machines alive when we are gone."""
    global _tie_pipe
    if _tie_pipe is not None:
        for fd in _tie_pipe:
            os.close(fd)
        _tie_pipe = None


os.register_at_fork(after_in_child=_forget_tie)
