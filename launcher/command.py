"""Plan and resources to argv. Pure, and decides nothing."""

from __future__ import annotations

from launcher.plan.model import Descriptor
from launcher.qapi import format_json, format_keyval
from launcher.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from launcher.plan.model import Helper, Option, Plan

#: The monitor's place in the child; 0 to 2 are the standard streams.
MONITOR_FD = 3
#: The name of the launcher's own monitor, of its chardev and of its descriptor.
_FIRST = "qmp"


def render_argv(
    plan: Plan,
    descriptors: Mapping[str, int],
    runtime: str,
    *,
    listening: bool = False,
    keyed: bool = False,
) -> list[str]:
    """The command line of a launch.

    Args:
        plan: what was decided.
        descriptors: resource name → number of the descriptor in the child; `qmp` is the
            monitor's, and further `qmp-*` names are further monitors.
        runtime: the machine's runtime directory, for `${runtime}`.
        listening: the descriptors of monitor and consoles are listening sockets, because the
            machine outlives the launcher.
        keyed: what `render_key` gives is not among the words, and comes on stdin.
    """
    argv = [plan.binary]
    served = {helper.chardev for helper in plan.helpers}
    for option in plan.options:
        ours = listening and option.members.get("id") not in served
        argv += _words(_listening(option) if ours else option, descriptors, runtime)
    argv += plan.unplanned
    argv += _monitors(plan, descriptors, listening, keyed)
    return argv


def render_key(tool: str, descriptors: Mapping[str, int]) -> bytes:
    """What QEMU is to read from its stdin and cannot begin without: its monitor's chardev.

    The word that names it, `-qmp chardev:qmp`, is on the command line, and QEMU ends when nothing
    of that name exists (`chardev "qmp" not found`, on 5.2 to 11.1). `-readconfig` reads before
    anything is made, and to the end of the file. Empty for a tool that has no `-readconfig`.
    """
    if tool == "qemu-storage-daemon":
        return b""
    fd = descriptors[_FIRST]
    return f'[chardev "{_FIRST}"]\n  backend = "socket"\n  fd = "{fd}"\n'.encode()


def render_standalone(plan: Plan, runtime: str) -> list[str]:
    """A command line for a reader or a script, without what only a launch can hold.

    The monitor is left out (append one), the launcher's console is the standard streams, a
    second console and the guest agent's port go nowhere, a secret's descriptor is named but not
    open, and a helper listens in the runtime directory (`render_helper`).
    """
    argv = [plan.binary]
    streams_free = True
    served = {helper.chardev for helper in plan.helpers}
    for option in plan.options:
        held = [v.name for v in option.members.values() if isinstance(v, Descriptor)]
        if option.members.get("id") in served and held:
            path = f"{runtime}/{option.members['id']}"
            argv += [
                option.name,
                format_keyval("socket", {"id": option.members["id"], "path": path}),
            ]
        elif option.name.endswith("-chardev") and held:
            key = option.members["id"]
            streams = streams_free and key != plan.agent
            argv += [
                option.name,
                f"stdio,id={key},signal=off" if streams else f"null,id={key}",
            ]
            streams_free = streams_free and not streams
        else:
            argv += _words(option, {}, runtime)
    return [*argv, *plan.unplanned]


def render_helper(helper: Helper, number: int | None, runtime: str) -> list[str]:
    """The command line of a helper.

    Args:
        helper: what was planned.
        number: of its end of the pair; None has it listen in `runtime` instead, for a reader.
        runtime: the machine's runtime directory.
    """
    if number is not None:
        end = helper.connected.replace("{fd}", str(number))
    else:
        end = helper.listening.replace("{path}", f"{runtime}/{helper.chardev}")
    return [helper.program, *(word.replace("{end}", end) for word in helper.words)]


def option_at(plan: Plan, index: int) -> Option | None:
    """The option that word `index` of `render_argv`'s result belongs to."""
    position = 1
    for option in plan.options:
        position += 1 if option.form == "flag" else 2
        if index < position:
            return option
    return None


def _listening(option: Option) -> Option:
    """The launcher's own chardev as a server on a listening descriptor."""
    held = any(isinstance(v, Descriptor) for v in option.members.values())
    if not held or not option.name.endswith("-chardev"):
        return option
    return replace(option, members={**option.members, "server": True, "wait": False})


def _monitors(
    plan: Plan, descriptors: Mapping[str, int], listening: bool, keyed: bool
) -> list[str]:
    """One form for all releases: `-mon` is deprecated in 11.1, `monitor-qmp` unknown in 10.0."""
    daemon = plan.tool == "qemu-storage-daemon"
    words: list[str] = []
    for name, fd in descriptors.items():
        if name != _FIRST and not name.startswith("qmp-"):
            continue
        if name == _FIRST and keyed:
            words += ["-readconfig", "/dev/fd/0", "-qmp", f"chardev:{name}"]
            continue
        # The first is a connected socket unless the machine outlives us; the others listen, bound
        # by the launcher beforehand: no path race, no polling.
        connected = name == _FIRST and not listening
        chardev = f"socket,id={name},fd={fd}" + ("" if connected else ",server=on,wait=off")
        if daemon:
            words += ["--chardev", chardev, "--monitor", f"chardev={name}"]
        else:
            words += ["-chardev", chardev, "-qmp", f"chardev:{name}"]
    return words


def _words(option: Option, descriptors: Mapping[str, int], runtime: str) -> list[str]:
    if option.form == "flag":
        return [option.name]
    if option.form == "word":
        return [option.name, fill(option.head, descriptors, runtime)]
    members = fill(option.members, descriptors, runtime)
    if option.form == "json":
        return [option.name, format_json(members)]
    return [option.name, format_keyval(option.head, members)]


def fill(value: Any, descriptors: Mapping[str, int], runtime: str) -> Any:
    """Descriptors and `${runtime}` in place of their names, at any depth."""
    if isinstance(value, Descriptor):
        number = descriptors.get(value.name)
        if value.name.startswith("secret-"):
            return f"/dev/fd/{number if number is not None else value.name}"
        # QEMU wants text here: the descriptor may also be a name (QAPI: SocketAddress fd).
        return str(number if number is not None else f"@{value.name}@")
    if isinstance(value, dict):
        return {key: fill(item, descriptors, runtime) for key, item in value.items()}
    if isinstance(value, list):
        return [fill(item, descriptors, runtime) for item in value]
    if isinstance(value, str) and "${runtime}" in value:
        return value.replace("${runtime}", runtime)
    return value
