"""Each option of a plan against a host's policy. Pure.

What is refused here and why: host files that a guest or the sender could read through a disk, a
kernel, a ROM (`romfile`) or a backing file in an image's header; files that QEMU would write
(`dumpdtb`, chardev `file`, `filter-dump`); programs that it would run (a tap's script, a bridge
helper); devices of the host's.
"""

from __future__ import annotations

import os
from fnmatch import fnmatchcase

from launcher.plan.model import Descriptor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from launcher.agent.policy import Policy
    from launcher.plan import Helper, Option

    _Resolve = Callable[[str], str]

#: Options that hold nothing of the host's.
_FREE = frozenset(
    (
        *("-no-user-config", "-nodefaults", "-name", "-uuid", "-S", "-rtc", "-sandbox", "-action"),
        *(
            "-no-reboot",
            "-no-shutdown",
            "-accel",
            "-cpu",
            "-smp",
            "-m",
            "-numa",
            "-append",
            "-boot",
        ),
    )
)
_FILES = frozenset(("-kernel", "-initrd", "-dtb", "-bios"))
_MACHINE_FILES = ("kernel", "initrd", "dtb", "firmware", "shim")
_RANDOM = ("/dev/urandom", "/dev/random")
#: Block drivers that lead to no file; formats are the policy's.
_BLOCKS = frozenset(("null-co", "null-aio", "throttle", "copy-on-read"))
#: What a user network would open on the host, or serve of it.
_USER = frozenset(
    ("hostfwd", "guestfwd", "smb", "smbserver", "tftp", "bootfile", "tftp-server-name")
)


def judge_option(option: Option, policy: Policy, resolve: _Resolve) -> Iterator[str]:
    """Why an option is not allowed; nothing when it is."""
    name = "-" + option.name.lstrip("-")
    if name in _FREE:
        if "splash" in option.members:
            yield f"{name} splash"
    elif name in _FILES:
        yield from _file(option.head, policy, resolve)
    elif name == "-display":
        if option.head != "none":
            yield f"-display {option.head}"
    elif name == "-serial":
        if not option.head.startswith("chardev:"):
            yield f"-serial {option.head}"
    elif name == "-global":
        if not option.head.startswith("migration."):
            yield f"-global {option.head}"
    elif name in _JUDGES:
        yield from _JUDGES[name](option, policy, resolve)
    else:
        yield f"the option {name}"


def _kind(option: Option, tag: str) -> str:
    """The type of an entry, whichever form the binary takes it in."""
    return str(option.members.get(tag, option.head) if option.form == "json" else option.head)


def judge_helper(helper: Helper, policy: Policy, resolve: _Resolve) -> Iterator[str]:
    """Why what runs beside QEMU is not allowed: it writes to a folder that a profile names.

    One in the machine's own runtime directory is the machine's, and ends with it.
    """
    first, *rest = helper.folder.split("/")
    own = first == "${runtime}" and rest and ".." not in rest
    if not own and not _within(helper.folder, policy.tpms, resolve):
        yield f"the TPM's state {helper.folder}"


def _within(path: str, folders: Iterable[str], resolve: _Resolve) -> bool:
    """Whether a path is below one of the folders, wherever links lead."""
    real = resolve(path)
    return any(real.startswith(resolve(one).rstrip(os.sep) + os.sep) for one in folders)


def _file(path: object, policy: Policy, resolve: _Resolve) -> Iterator[str]:
    if not _within(str(path), policy.images, resolve):
        yield f"the file {path}"


def _machine(option: Option, policy: Policy, resolve: _Resolve) -> Iterator[str]:
    if "dumpdtb" in option.members:
        yield "machine.dumpdtb"
    for key in _MACHINE_FILES:
        if key in option.members:
            yield from _file(option.members[key], policy, resolve)


def _object(option: Option, policy: Policy, resolve: _Resolve) -> Iterator[str]:
    kind = _kind(option, "qom-type")
    if kind not in policy.objects:
        yield f"objects of type {kind}"
    for key, value in option.members.items():
        if key == "filename" and value in _RANDOM:
            continue
        if key in ("mem-path", "filename", "file") and not isinstance(value, Descriptor):
            yield from _file(value, policy, resolve)


def _chardev(option: Option, _policy: Policy, _resolve: _Resolve) -> Iterator[str]:
    kind = _kind(option, "backend")
    ours = any(isinstance(value, Descriptor) for value in option.members.values())
    paths = [key for key in ("path", "logfile", "host", "input-path") if key in option.members]
    if (not ours and kind not in ("null", "ringbuf")) or paths:
        yield f"chardev {kind} {' '.join(paths)}".rstrip()


def _tpmdev(option: Option, _policy: Policy, _resolve: _Resolve) -> Iterator[str]:
    """The host's own TPM is not for guests; a chardev that is not ours is refused by itself."""
    kind = _kind(option, "type")
    if kind != "emulator":
        yield f"tpmdev {kind}"


def _netdev(option: Option, policy: Policy, _resolve: _Resolve) -> Iterator[str]:
    kind, members = _kind(option, "type"), option.members
    if kind not in policy.netdevs:
        yield f"netdev {kind}"
    elif kind == "user":
        yield from (f"netdev user {key}" for key in members if key in _USER)
    elif kind == "bridge":
        if members.get("br", "br0") not in policy.bridges or "helper" in members:
            yield f"bridge {members.get('br', 'br0')}"
    elif kind == "tap":
        scripts = [key for key in ("script", "downscript") if members.get(key) != "no"]
        others = [key for key in ("helper", "br", "fd", "fds", "vhostfd") if key in members]
        if members.get("ifname") not in policy.taps:
            yield f"tap {members.get('ifname', '')}".rstrip()
        yield from (f"tap {key}" for key in (*scripts, *others))


def _blockdev(option: Option, policy: Policy, resolve: _Resolve) -> Iterator[str]:
    whole = option.members if "driver" in option.members else {"driver": option.head}
    yield from _node({**whole, **option.members}, policy, resolve)


def _node(node: dict[str, Any], policy: Policy, resolve: _Resolve) -> Iterator[str]:
    driver = node.get("driver")
    if driver == "file":
        yield from _file(node.get("filename"), policy, resolve)
    elif driver in ("host_device", "host_cdrom"):
        if node.get("filename") not in policy.host_devices:
            yield f"the device {node.get('filename')}"
    elif driver in policy.image_formats:
        if driver != "raw" and "backing" not in node:
            # The header of an image says what else QEMU opens, and a guest may have written it.
            yield f"{driver} without `backing` (null, or a node)"
        if driver == "qcow2" and "data-file" in node:
            yield "qcow2 data-file"
    elif driver not in _BLOCKS:
        yield f"block driver {driver}"
    for value in node.values():
        if isinstance(value, dict) and "driver" in value:
            yield from _node(value, policy, resolve)


def _device(option: Option, policy: Policy, _resolve: _Resolve) -> Iterator[str]:
    kind = _kind(option, "driver")
    if not any(fnmatchcase(kind, one) for one in policy.devices):
        yield f"devices of type {kind}"
    if option.members.get("romfile"):
        yield f"{kind}.romfile"


_JUDGES: dict[str, Callable[[Option, Policy, _Resolve], Iterator[str]]] = {
    "-machine": _machine,
    "-object": _object,
    "-chardev": _chardev,
    "-netdev": _netdev,
    "-tpmdev": _tpmdev,
    "-blockdev": _blockdev,
    "-device": _device,
}
