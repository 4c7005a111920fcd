"""The first half of a launch: acquire what the plan wants, and spawn QEMU. Needs no loop.

Composes `host`, `command` and `process`, so that QEMU starts before asyncio need be imported.
"""

from __future__ import annotations

import os

from launcher.command import render_argv, render_key
from launcher.errors import HostError
from launcher.process import spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from launcher.helpers import Running
    from launcher.host.resources import Resources
    from launcher.prepare import Prepared
    from launcher.process import Process

#: What QEMU inherits of our environment; everything else stays with us.
_ENVIRONMENT = (
    *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR"),
    *("XDG_RUNTIME_DIR", "DISPLAY", "WAYLAND_DISPLAY", "PULSE_SERVER", "QEMU_MODULE_DIR"),
    *("LD_LIBRARY_PATH", "LD_PRELOAD", "GLIBC_TUNABLES", "QEMU_AUDIO_DRV"),
)


class Started:
    """A QEMU that was spawned and not yet spoken to."""

    def __init__(
        self,
        prepared: Prepared,
        resources: Resources,
        process: Process,
        argv: list[str],
        helpers: Sequence[Running] = (),
    ) -> None:
        self.prepared = prepared
        self.resources = resources
        self.process = process
        self.argv = argv
        self.helpers = helpers

    def abandon(self) -> None:
        """End QEMU at once and undo what was acquired; for errors before there is a loop."""
        self.process.kill()
        self.resources.release()


def begin(
    prepared: Prepared,
    *,
    named: bool = False,
    detached: bool = False,
    folder: str = "",
    monitors: tuple[str, ...] = (),
) -> Started:
    """Acquire what the plan wants of the host, and spawn QEMU. Needs no loop.

    Args:
        prepared: the plan and its sources.
        named: claim the machine's name on this host, so that `ps`, `stop` and `qmp` find it.
        detached: the machine outlives this process; its monitor is a socket in its directory.
        folder: what to call the directory of a machine that does not claim its own name: both
            ends of a migration have one name and one UUID. By default it has a directory only
            where the profile asks for one.
        monitors: names of further ones, `qmp-…`, that listen in the machine's directory.

    Raises:
        HostError: the name is held, or a resource cannot be had.
        LaunchError: QEMU could not be started.
    """
    from launcher.host.resources import FdSource, acquire

    plan = prepared.plan
    texts = [(o.head, o.members) for o in plan.options] + [("", s.arguments) for s in plan.setup]
    texts += [(helper.folder, {}) for helper in plan.helpers]
    runtime = "${runtime}" in str(texts)
    wants = [
        FdSource(w.kind, w.name, data=w.content.encode())
        if w.kind == "secret"
        else FdSource("listener" if detached and w.kind == "socketpair" else w.kind, w.name)
        for w in plan.wants
    ]
    monitor = FdSource("listener", "qmp") if detached else FdSource("socketpair", "qmp")
    extra = [FdSource("listener", "qmp-control")] if named and not detached else []
    extra += [FdSource("listener", name) for name in monitors]
    claimed = plan.name if named or detached else folder or None
    if claimed is None and runtime:
        claimed = f"{plan.name[:50]}-{plan.uuid[:8]}"
    held = acquire([monitor, *extra, *wants], claimed)
    try:
        return _spawn(prepared, held, detached)
    except BaseException:
        held.release()
        raise


def _spawn(prepared: Prepared, held: Resources, detached: bool) -> Started:
    plan = prepared.plan
    numbers = {name: 3 + place for place, name in enumerate(held.fds)}
    runtime = held.directory.path if held.directory is not None else ""
    # What outlives us is not tied, and then nothing need hold it back.
    key = b"" if detached else render_key(plan.tool, numbers)
    argv = render_argv(plan, numbers, runtime, listening=detached, keyed=bool(key))
    fds = {numbers[name]: fd for name, fd in held.fds.items()}
    _record(prepared, held, None, detached)
    env = environment()
    helpers: Sequence[Running] = ()
    if plan.helpers:
        from launcher.helpers import start_helpers

        helpers = start_helpers(plan, held, env, detached=detached)
    log = _detached_log(held) if detached else None
    if log is not None:
        fds |= {1: log, 2: log}
    try:
        process = spawn(argv, fds=fds, env=env, tie=not detached, key=key)
    finally:
        if log is not None:
            os.close(log)
    held.hand_over()
    try:
        _record(prepared, held, process.pid, detached, helpers)
    except HostError:
        process.kill()
        raise
    return Started(prepared, held, process, argv, helpers)


def _detached_log(held: Resources) -> int:
    """QEMU's own words of a machine that outlives us go to a file beside its sockets."""
    assert held.directory is not None
    path = os.path.join(held.directory.path, "stderr.log")
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags, 0o600)


def environment() -> dict[str, str]:
    """The part of our environment that QEMU gets."""
    return {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}


def _record(
    prepared: Prepared,
    held: Resources,
    pid: int | None,
    detached: bool,
    helpers: Sequence[Running] = (),
) -> None:
    """Write the machine's state.

    `starting` is written before the process exists: a launcher that is killed in between leaves
    a uuid by which the process can be found.
    """
    directory = held.directory
    if directory is None:
        return
    from launcher.host.state import MachineState, start_time

    plan = prepared.plan
    beside = [
        {
            "path": one.helper.path,
            "program": one.helper.program,
            "log": f"{one.helper.chardev}.log",
            "pid": one.process.pid,
            "start_time": start_time(one.process.pid),
        }
        for one in helpers
    ]
    kept = None
    if pid is not None:
        # While it starts there is nothing to verify, and QEMU waits for this file.
        from launcher.plan.kept import keep_plan

        kept = keep_plan(plan)
    control = "qmp" if detached else "qmp-control"
    directory.write_state(
        MachineState(
            name=plan.name,
            uuid=plan.uuid,
            phase="starting" if pid is None else "running",
            pid=pid,
            binary=plan.binary,
            qmp=os.path.join(directory.path, control) if control in held.fds else "",
            console=os.path.join(directory.path, plan.consoles[0])
            if detached and plan.consoles
            else "",
            profile=os.path.abspath(prepared.loaded.profile_file),
            platform=plan.platform,
            plan=kept,
            asked=_asked(prepared) if pid is not None else None,
            helpers=beside or None,
        )
    )


def _asked(prepared: Prepared) -> dict[str, Any]:
    """What the machine was planned from beside its profile, without what holds a secret."""
    request, plan = prepared.loaded.request, prepared.plan
    platform = request.platform
    if platform.endswith((".yaml", ".yml")):
        platform = os.path.abspath(platform)
    found: dict[str, Any] = {"platform": platform}
    if request.lock:
        found["lock"] = os.path.abspath(request.lock)
    if request.settings:
        from launcher.locks.model import shown_settings

        secrets = [want.content for want in plan.wants if want.kind == "secret"]
        found["settings"] = shown_settings(tuple(request.settings), secrets)
    return found
