"""What a host lets others start. Pure.

Twice: of a request, before any file or binary that it names is touched, and of the plan, which is
what QEMU would be told. A plan passes when each option of it is known to be harmless; what is not
known is refused, so that an option of tomorrow's QEMU is not one that nobody thought of.
"""

from __future__ import annotations

import os
from fnmatch import fnmatchcase

from launcher.agent.rules import judge_helper, judge_option
from launcher.bus.topics import is_id
from launcher.errors import InputError
from launcher.nodes import Scalar, Sequence
from launcher.qapi import nearest, parse_size
from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from launcher.nodes import Mapping as Node
    from launcher.plan import Plan

#: Commands that tell and change nothing; what is allowed when a policy names none.
QMP = (
    *("query-status", "query-version", "query-name", "query-uuid", "query-cpus-fast"),
    *("query-block", "query-blockstats", "query-named-block-nodes", "query-chardev"),
    *("query-iothreads", "query-memory-size-summary", "query-memory-devices", "query-pci"),
    *("query-kvm", "query-migrate", "query-balloon", "query-rx-filter", "query-jobs"),
)
#: Device types whose every property is the guest's business and no file or device of the host's.
DEVICES = (
    *("virtio-blk-*", "virtio-net-*", "virtio-rng-*", "virtio-scsi-*", "virtio-serial-*"),
    *("virtio-balloon-*", "virtio-vga", "virtio-gpu-device", "virtio-gpu-pci", "virtio-mem-pci"),
    *("virtio-keyboard-*", "virtio-mouse-*", "virtio-tablet-*", "virtconsole", "virtserialport"),
    *("e1000", "e1000e", "rtl8139", "pcnet", "ide-hd", "ide-cd", "scsi-hd", "scsi-cd", "nvme"),
    *("nvme-ns", "ahci", "ich9-ahci", "lsi53c895a", "megasas", "VGA", "bochs-display"),
    *("isa-serial", "pci-serial", "qemu-xhci", "nec-usb-xhci", "usb-ehci", "usb-kbd", "usb-mouse"),
    *("usb-tablet", "usb-storage", "pcie-root-port", "pcie-pci-bridge", "pci-bridge", "ioh3420"),
    *("pvpanic", "pvpanic-pci", "i6300esb", "ich9-intel-hda", "intel-hda", "hda-duplex"),
    *("hda-micro", "hda-output", "pc-dimm", "qemu64-*", "isa-debug-exit", "tpm-crb", "tpm-tis"),
)
OBJECTS = (
    *("memory-backend-ram", "memory-backend-memfd", "memory-backend-file", "iothread"),
    *("rng-builtin", "rng-random", "throttle-group", "secret", "thread-context"),
)


class PolicyError(InputError):
    """This host does not let others do that; nothing was started."""

    code = "policy"


@record
class Policy:
    """What is allowed. Without a file of its own a host allows little.

    `images` are folders (a file in them may be a disk, a kernel, firmware), `tpms` those in which
    the state of a TPM may be; `binaries` are files or folders. `migration_address` is where the
    host listens for guests, `migration_tls` the folder of its certificates (see `moves.tls`). Sizes
    are bytes; `memory` is for one machine, `total_memory` for all of them.
    """

    images: tuple[str, ...] = ()
    tpms: tuple[str, ...] = ()
    image_formats: tuple[str, ...] = ("raw",)
    host_devices: tuple[str, ...] = ()
    binaries: tuple[str, ...] = ("/usr/bin",)
    netdevs: tuple[str, ...] = ("user",)
    bridges: tuple[str, ...] = ()
    taps: tuple[str, ...] = ()
    devices: tuple[str, ...] = DEVICES
    objects: tuple[str, ...] = OBJECTS
    qmp: tuple[str, ...] = QMP
    verbs: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    inline_profiles: bool = False
    sandbox: bool = True
    migration_address: str = ""
    migration_tls: str = ""
    migration_plaintext: bool = False
    migrate_from: tuple[str, ...] = ("*",)
    commands_per_second: int = 200
    machines: int = 64
    cpus: int = 16
    memory: int = 16 << 30
    total_memory: int = 64 << 30

    def allows_verb(self, verb: str) -> bool:
        """Whether a verb may be used at all; none named means all."""
        return not self.verbs or verb in self.verbs

    def check_qmp(self, command: str) -> None:
        """Refuse a QMP command that is not on the list.

        Raises:
            PolicyError: it is not.
        """
        if command not in self.qmp:
            hint = f"allowed are {', '.join(self.qmp)}"
            raise PolicyError(f"policy does not allow the QMP command {command}", hint=hint)


#: What a setting may not change: files are read for it, or commands in line wait by it.
_READING = ("extends", "platform", "name")


def check_request(policy: Policy, arguments: Mapping[str, Any]) -> None:
    """Refuse a request by what it names, before anything that it names is touched.

    Raises:
        PolicyError: it names what policy does not allow.
    """
    profile = arguments["profile"]
    if isinstance(profile, str):
        if policy.profiles and not any(fnmatchcase(profile, one) for one in policy.profiles):
            raise PolicyError(f"policy does not allow the profile {profile}")
    elif not policy.inline_profiles:
        hint = "name a profile of the host, or set `inline-profiles: on` in its policy"
        raise PolicyError("policy does not allow profiles of the sender's own", hint=hint)
    elif "extends" in profile:
        raise PolicyError("a profile that was sent cannot extend files of this host")
    else:
        _check_platform(profile.get("platform", ""))
        if not is_id(arguments.get("name", profile.get("name"))):
            raise PolicyError("a profile that was sent needs a `name` that is an id")
    _check_platform(arguments.get("platform", ""))
    for text in arguments.get("settings", ()):
        path = str(text).partition("=")[0]
        if path.partition(".")[0] in _READING:
            hint = f"give {path!r} beside the profile" if path != "extends" else ""
            raise PolicyError(f"policy does not allow to set {path}", hint=hint)


def _check_platform(name: object) -> None:
    """A platform by name only: a path would have this host read a file of the sender's choice."""
    if name and (not isinstance(name, str) or "/" in name or name.endswith((".yaml", ".yml"))):
        raise PolicyError("policy allows platforms by name, not by file")


def check_binary(policy: Policy, binary: str, resolve: Callable[[str], str]) -> None:
    """Refuse a binary that policy does not name, before it is asked anything.

    Args:
        policy: of this host.
        binary: absolute path.
        resolve: a path without symbolic links (os.path.realpath).

    Raises:
        PolicyError: it is none of those.
    """
    here = {binary, resolve(binary)}
    for allowed in policy.binaries:
        if allowed in here or all(_inside(one, allowed, resolve) for one in here):
            return
    raise PolicyError(f"policy does not allow the binary {binary}")


def _inside(path: str, folder: str, resolve: Callable[[str], str]) -> bool:
    return os.path.dirname(path) in (folder, resolve(folder))


def check_plan(policy: Policy, plan: Plan, resolve: Callable[[str], str]) -> tuple[int, int]:
    """Refuse a plan that is more than policy allows; all reasons at once.

    Returns:
        RAM in bytes and CPUs of the machine.

    Raises:
        PolicyError: it is.
    """
    found = [reason for option in plan.options for reason in judge_option(option, policy, resolve)]
    found += [reason for helper in plan.helpers for reason in judge_helper(helper, policy, resolve)]
    if not is_id(plan.name):
        found.append(f"the machine's name {plan.name!r} is not an id")
    if plan.tool != "qemu-system":
        found.append(f"{plan.tool} is not started for others")
    found += [f"raw argument {word}" for word in plan.unplanned[:3]]
    for step in plan.setup:
        if step.command not in ("migrate-set-capabilities", "migrate-set-parameters"):
            found.append(f"the command {step.command} while it starts")
    if policy.sandbox and not any(o.name == "-sandbox" for o in plan.options):
        found.append("QEMU without its sandbox")
    memory, cpus = machine_size(plan)
    if memory > policy.memory:
        found.append(f"{memory} bytes of RAM, where {policy.memory} are allowed")
    if cpus > policy.cpus:
        found.append(f"{cpus} CPUs, where {policy.cpus} are allowed")
    if found:
        raise PolicyError(
            f"policy does not allow {plan.name}: {'; '.join(found[:8])}",
            hint="the host's policy file says what it allows",
            evidence={"reasons": found},
        )
    return memory, cpus


def machine_size(plan: Plan) -> tuple[int, int]:
    """RAM in bytes, as far as it may grow, and CPUs of a plan; 128 MiB and one are QEMU's own."""
    memory, cpus, backends = 128 << 20, 1, 0
    for option in plan.options:
        members = option.members
        if option.name == "-m":
            sizes = [parse_size(str(members.get(key, 0))) or 0 for key in ("size", "maxmem")]
            memory = max(sizes)
        elif option.name == "-smp":
            cpus = max(
                (int(members[key]) for key in ("cpus", "maxcpus") if key in members),
                default=_product(members),
            )
        elif option.name == "-object" and "size" in members:
            backends += parse_size(str(members["size"])) or 0
    return max(memory, backends), cpus


def _product(members: Mapping[str, Any]) -> int:
    """The CPUs of a topology that does not count them: each level times the next."""
    number = 1
    for value in members.values():
        number *= int(value)
    return number


# -- the file -------------------------------------------------------------------------------------

_LISTS = (
    *("images", "tpms", "image-formats", "host-devices", "binaries", "netdevs", "bridges", "taps"),
    *("devices", "objects", "qmp", "verbs", "profiles", "migrate-from"),
)
_SIZES = ("memory", "total-memory")
_COUNTS = ("machines", "cpus", "commands-per-second")
_SWITCHES = ("inline-profiles", "sandbox", "migration-plaintext")
_TEXTS = ("migration-address", "migration-tls")
#: Lists that a file adds to, instead of replacing them: nobody wants to repeat sixty names.
_ADDED = ("devices", "objects", "qmp")


def parse_policy(tree: Node) -> Policy:
    """The policy that a file holds.

    Raises:
        InputError: a key or a value that no policy has.
    """
    given: dict[str, Any] = {}
    known = (*_LISTS, *_SIZES, *_COUNTS, *_SWITCHES, *_TEXTS)
    for key, node in tree.items.items():
        place = tree.key_place(key)
        if key not in known:
            near = nearest(key, known)
            hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
            raise InputError(f"there is no {key!r} in a policy", place=place, hint=hint)
        name = key.replace("-", "_")
        value: Any
        if key in _LISTS:
            value = _texts(node)
            if value is not None and key in _ADDED:
                value = (*getattr(Policy(), name), *value)
            wanted = "a list"
        else:
            text = node.text if isinstance(node, Scalar) else ""
            value, wanted = _scalar(key, text)
        if value is None:
            raise InputError(f"{key} must be {wanted}", place=place)
        given[name] = value
    return Policy(**given)


def _texts(node: Any) -> tuple[str, ...] | None:
    if not isinstance(node, Sequence) or not all(isinstance(n, Scalar) for n in node.items):
        return None
    return tuple(n.text for n in node.items if isinstance(n, Scalar))


def _scalar(key: str, text: str) -> tuple[Any, str]:
    if key in _SIZES:
        return parse_size(text), "a size, such as 4GiB"
    if key in _COUNTS:
        return (int(text) if text.isdecimal() and text.isascii() else None), "a count"
    if key in _TEXTS:
        return text or None, "a text"
    return {"on": True, "true": True, "off": False, "false": False}.get(text), "on or off"
