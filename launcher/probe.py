"""A QEMU binary's own account of itself: asked once over QMP, then kept. Process, QMP, cache.

The questions are asked of a throw-away process with `-machine none`, because some of them end
the QEMU that answers (hazards are platform data; see `launcher/platforms/hazards.yaml`). Answers
are kept in the cache folder under the binary's identity (path, inode, size, mtime, and the mtime
of its module folder) as an index (`launcher.index`), of which a launch decodes only what its plan
looks at.
"""

from __future__ import annotations

import os

from launcher.cache import cache_folder, identity, read_own, short_name, write_own
from launcher.errors import InputError, LaunchError, MonitorError, Place, QEMUError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from typing import Any

    from launcher.capabilities import Replies
    from launcher.index import Index
    from launcher.monitor import Monitor

#: Seconds for the whole probe; measured 75 to 85 ms on 7.2, 10.0 and 11.1.
DEADLINE = 20.0

#: Raised when what is asked, or how it is kept, changes.
FORMAT = 6

#: Types that are read back or checked and are not user-creatable.
_MORE_TYPES = (
    "tcg-accel",
    "kvm-accel",
    "chardev-socket",
    "chardev-vc",
    "chardev-qemu-vdagent",
)


def find_binary(name: str) -> str:
    """The absolute path of a QEMU binary given by path or by name.

    Raises:
        InputError: nothing executable is there.
    """
    found: str | None
    if os.sep in name:
        found = os.path.abspath(name)
    else:
        folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
        candidates = (os.path.join(folder, name) for folder in folders if folder)
        found = next((c for c in candidates if os.access(c, os.X_OK)), None)
    if found is None:
        hint = "install qemu-system-x86, or name the binary with --qemu"
        raise InputError(f"no QEMU binary {name!r} on PATH", hint=hint, code="binary")
    if os.path.isdir(found):
        raise InputError("is a directory, not a QEMU binary", place=Place(found), code="binary")
    if not os.path.exists(found):
        raise InputError("there is no such QEMU binary", place=Place(found), code="binary")
    if not os.access(found, os.X_OK):
        raise InputError("is not executable", place=Place(found), code="binary")
    return found


def cache_path(binary: str) -> str:
    """The file that holds the answers of `binary` as it is now."""
    real = os.path.realpath(binary)
    modules = os.environ.get("QEMU_MODULE_DIR") or os.path.join(
        os.path.dirname(os.path.dirname(real)), "lib", "x86_64-linux-gnu", "qemu"
    )
    name = f"{_stem(binary)}{identity(real)}-{identity(modules)}.v{FORMAT}"
    return os.path.join(cache_folder(), "probe", name)


def _stem(binary: str) -> str:
    """How the names of all files begin that were ever kept for this path."""
    return f"{os.path.basename(binary)}-{short_name(binary)}-"


def cached_index(binary: str) -> Index | None:
    """The kept answers of `binary` for `Capabilities`, or None when there are none.

    None also when the file of the binary has changed since.
    """
    data = read_own(cache_path(binary))
    if data is None:
        return None
    from launcher.index import unfold

    return unfold(data)


def cached_replies(binary: str) -> Replies | None:
    """The kept answers of `binary`, whole, or None when there are none for it as it is now."""
    index = cached_index(binary)
    if index is None:
        return None
    from launcher.index import whole

    return whole(index)


def keep_replies(binary: str, replies: Replies) -> None:
    """Write the answers to the cache; a cache that cannot be written costs time, not the launch."""
    from launcher.index import fold

    path = cache_path(binary)
    write_own(path, fold(replies))
    _forget_older(path, _stem(binary))


def _forget_older(path: str, stem: str) -> None:
    """Remove the answers of what the binary's file was before it was replaced."""
    folder, name = os.path.split(path)
    try:
        for other in os.listdir(folder):
            if other.startswith(stem) and other != name:
                os.unlink(os.path.join(folder, other))
    except OSError:
        return


async def replies_of(
    binary: str, types: Iterable[str] = (), hazards: Collection[str] = ()
) -> Replies:
    """All answers of `binary` including the properties of `types`, from the cache where kept.

    Args:
        binary: absolute path.
        types: QOM types whose properties will be needed (devices, machine types).
        hazards: types that end some QEMU when asked about (platform data); never asked unless
            they are in `types`.

    Raises:
        LaunchError: the binary did not start, or is not QEMU.
        MonitorError: it did not answer in time.
    """
    replies = cached_replies(binary)
    fresh = replies is None
    if replies is None:
        replies = await ask_throwaway(binary, _everything, hazards)
    if await _complete(binary, replies, types) or fresh:
        keep_replies(binary, replies)
    return replies


async def fresh_replies(
    binary: str, types: Iterable[str] = (), hazards: Collection[str] = ()
) -> Replies:
    """As `replies_of`, asked now: nothing that was kept is looked at, and nothing is kept.

    Raises:
        LaunchError: the binary did not start, or is not QEMU.
        MonitorError: it did not answer in time.
    """
    replies: Replies = await ask_throwaway(binary, _everything, hazards)
    await _complete(binary, replies, types)
    return replies


async def _complete(binary: str, replies: Replies, types: Iterable[str]) -> bool:
    """Add the properties of `types` to `replies`; whether there was anything to add."""
    missing = _missing(replies, types)
    if missing:
        try:
            more = await ask_throwaway(binary, _more_types, missing)
        except QEMUError:
            # One type killed the QEMU that was asked (7.2 aborts on a device whose module is
            # not installed): ask one at a time and let each death cost one type only.
            more = {}
            for one in missing:
                try:
                    _merge(more, await ask_throwaway(binary, _more_types, [one]))
                except QEMUError:
                    _merge(more, {"qom-list-properties": {one: []}})
        _merge(replies, more)
    return bool(missing)


def _missing(replies: Replies, types: Iterable[str]) -> list[str]:
    known = set(replies["device-list-properties"]) | set(replies["qom-list-properties"])
    existing = set(replies["qom-list-types"])
    return sorted(t for t in set(types) if t in existing and t not in known)


def _merge(replies: Replies, more: Replies) -> None:
    for command, answers in more.items():
        replies.setdefault(command, {}).update(answers)


def tool_of(binary: str) -> str:
    """`qemu-storage-daemon` or `qemu-system`, by the file's name."""
    name = os.path.basename(binary)
    return "qemu-storage-daemon" if "storage-daemon" in name else "qemu-system"


def _argv(binary: str, machine: str, words: Iterable[str]) -> list[str]:
    chardev = "socket,id=qmp,fd=3"
    if tool_of(binary) == "qemu-storage-daemon":
        return [binary, "--chardev", chardev, "--monitor", "chardev=qmp", *words]
    return [
        *(binary, "-no-user-config", "-nodefaults", "-display", "none", "-machine", machine, "-S"),
        *("-chardev", chardev, "-qmp", "chardev:qmp", *words),
    ]


async def ask_throwaway(
    binary: str,
    questions: Any,
    about: Collection[Any],
    *,
    machine: str = "none",
    words: Iterable[str] = (),
) -> Any:
    """Run one throw-away QEMU, by default with `-machine none`, and put `questions` to it.

    Args:
        binary: absolute path.
        questions: `async (monitor, about, tool) -> answer`.
        about: passed on.
        machine: its machine type, with properties as `-machine` takes them.
        words: further words of its command line.

    Raises:
        LaunchError: the binary did not start, or is not QEMU.
        MonitorError: it went away while it was asked.
    """
    import asyncio
    import socket

    from launcher.monitor import Monitor
    from launcher.process import spawn

    ours, theirs = socket.socketpair()
    argv = _argv(binary, machine, words)
    try:
        try:
            process = spawn(argv, fds={3: theirs.fileno()}, env=dict(os.environ), tie=True)
        except OSError as error:
            words = f"could not be started: {error.strerror}"
            raise LaunchError(words, place=Place(binary), evidence={"argv": argv}) from None
        finally:
            theirs.close()
        monitor: Monitor | None = None
        try:
            async with asyncio.timeout(DEADLINE):
                monitor = await Monitor.connect(ours, timeout=DEADLINE)
                answers = await questions(monitor, about, tool_of(binary))
        except TimeoutError:
            raise _not_qemu(binary, argv, process, "did not answer its monitor") from None
        except QEMUError as error:
            if monitor is None:
                raise _not_qemu(binary, argv, process, error.message) from None
            if isinstance(error, MonitorError) and process.poll() is not None:
                raise _killed(binary, argv, process) from None
            raise
        finally:
            if monitor is not None:
                await monitor.close()
            process.kill()
    finally:
        ours.close()
    return answers


def _not_qemu(binary: str, argv: list[str], process: Any, words: str) -> LaunchError:
    process.drain()
    lines = list(process.stderr.lines)
    said = next((line for line in lines if line.strip()), "")
    return LaunchError(
        f"does not behave as QEMU: {said or words}",
        place=Place(binary),
        hint="name a qemu-system-* or qemu-storage-daemon binary, 5.2 or later",
        evidence={"qemu_stderr": lines, "argv": argv},
        code="binary",
    )


def _killed(binary: str, argv: list[str], process: Any) -> LaunchError:
    """A QEMU that one of our questions ended: a bug of it, or modules that are not its own."""
    from launcher.display import printable
    from launcher.process import describe_exit

    lines = list(process.stderr.lines)
    said = [line for line in lines if line.strip()]
    modules = any("same build" in line for line in said)
    words = f": {printable(said[-1])}" if said else ""
    return LaunchError(
        f"{describe_exit(process.returncode)} when asked what it can do{words}",
        place=Place(binary),
        hint="modules of another build are in its module folder; set QEMU_MODULE_DIR, or install "
        "its own"
        if modules
        else "",
        evidence={"qemu_stderr": lines, "argv": argv, "returncode": process.returncode},
        code="binary",
    )


async def _everything(monitor: Monitor, hazards: Collection[str], tool: str) -> Replies:
    """The fixed part of the probe."""
    system = tool == "qemu-system"
    questions: list[tuple[str, dict[str, Any] | None]] = [
        ("query-version", None),
        ("query-qmp-schema", None),
        ("qom-list-types", None),
        ("qom-list-types", {"implements": "user-creatable"}),
        ("qom-list-types", {"implements": "device"}),
    ]
    if system:
        questions.append(("query-command-line-options", None))
    answers = await monitor.execute_all(questions)
    version, schema, types, creatable, devices, *options = answers
    device_names = {t["name"] for t in devices if not t.get("abstract")}
    replies: Replies = {
        "tool": tool,
        "query-version": version,
        "query-qmp-schema": schema,
        "qom-list-types": sorted(t["name"] for t in types if not t.get("abstract")),
        "devices": sorted(device_names),
        "user-creatable": sorted(t["name"] for t in creatable if not t.get("abstract")),
        "query-command-line-options": options[0] if options else [],
        "device-list-properties": {},
    }
    asked = [t for t in (*replies["user-creatable"], *_MORE_TYPES) if t not in hazards]
    existing = set(replies["qom-list-types"])
    replies["qom-list-properties"] = await _properties(
        monitor, "qom-list-properties", [t for t in asked if t in existing]
    )
    if system:
        replies["query-machines"] = await _machines(monitor, schema, device_names)
    return replies


async def _machines(
    monitor: Monitor, schema: list[dict[str, Any]], devices: set[str]
) -> list[dict[str, Any]]:
    """Machine types, each with its compat properties of non-device types and of migration.

    `compat-props` is an argument of query-machines since QEMU 9.1 (qapi/machine.json, feature
    `unstable`); QEMU also lists types that the build lacks, which are harmless here.
    """
    entity = next(e for e in schema if e["name"] == "query-machines")
    arguments = next((e for e in schema if e["name"] == entity.get("arg-type")), {})
    known = any(m["name"] == "compat-props" for m in arguments.get("members", ()))
    listed = await monitor.execute("query-machines", {"compat-props": True} if known else None)
    kept = []
    for machine in listed:
        slim = {
            key: machine[key]
            for key in ("name", "alias", "deprecated", "default-ram-id")
            if key in machine
        }
        if known:
            slim["compat-props"] = [
                row
                for row in machine.get("compat-props", ())
                if row["qom-type"] == "migration" or row["qom-type"] not in devices
            ]
        kept.append(slim)
    return sorted(kept, key=lambda m: str(m["name"]))


async def _more_types(monitor: Monitor, types: Collection[str], _tool: str) -> Replies:
    """The properties of further types: devices by their own command, all others by QOM's."""
    devices = await monitor.execute("qom-list-types", {"implements": "device"})
    names = {t["name"] for t in devices}
    return {
        "device-list-properties": await _properties(
            monitor, "device-list-properties", [t for t in types if t in names]
        ),
        "qom-list-properties": await _properties(
            monitor, "qom-list-properties", [t for t in types if t not in names]
        ),
    }


async def _properties(
    monitor: Monitor, command: str, types: Collection[str]
) -> dict[str, list[dict[str, Any]]]:
    answers = await monitor.execute_all([(command, {"typename": name}) for name in types])
    return {
        name: [_slim(p) for p in answer]
        for name, answer in zip(types, answers, strict=True)
        if isinstance(answer, list)
    }


def _slim(listed: dict[str, Any]) -> dict[str, Any]:
    return {k: listed[k] for k in ("name", "type", "description", "default-value") if k in listed}
