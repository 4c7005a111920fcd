"""The order of a survey: what the probe asks, what is read, what the help says, the machines."""

from __future__ import annotations

import asyncio
import re
import subprocess

from launcher.capabilities import Capabilities
from launcher.errors import CommandError, HostError, InputError
from launcher.probe import fresh_replies
from launcher.survey.ask import Asker
from launcher.survey.pins import pinned_values
from launcher.survey.read import (
    Where,
    read_accel,
    read_audio,
    read_backends,
    read_migration,
    read_objects,
)
from launcher.survey.tree import read_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from typing import Any

    from launcher.monitor import Monitor
    from launcher.platforms import Catalogue, Platform

#: Raised when what is asked, or how it is written, changes.
FORMAT = 1

#: What the sample profiles and the tests plug in; their properties are recorded too.
DEVICES = (
    *("virtio-net-pci", "virtio-net-device", "virtio-blk-pci", "virtio-blk-device"),
    *("virtio-scsi-pci", "scsi-hd", "scsi-cd", "ide-hd", "ide-cd", "nvme", "usb-storage"),
    *("virtio-rng-pci", "virtio-rng-device", "virtio-serial-pci", "virtserialport", "virtconsole"),
    *("virtio-balloon-pci", "virtio-balloon-device", "virtio-mem-pci", "virtio-iommu-pci"),
    *("virtio-gpu-pci", "virtio-vga", "VGA", "bochs-display", "ramfb"),
    *("e1000", "e1000e", "rtl8139", "vmxnet3"),
    *("pcie-root-port", "pci-bridge", "ioh3420", "pxb-pcie"),
    *("qemu-xhci", "usb-tablet", "usb-kbd", "usb-mouse"),
    *("isa-serial", "pci-serial", "isa-debug-exit", "pvpanic", "vmgenid", "vhost-user-fs-pci"),
    *("intel-hda", "hda-duplex", "AC97", "tpm-tis", "tpm-crb", "vhost-vsock-pci", "pc-dimm"),
)
#: Machine types whose properties are recorded.
MACHINES = (
    *("pc-q35-5.2", "pc-q35-7.2", "pc-q35-10.0", "pc-q35-11.1"),
    *("pc-i440fx-5.2", "pc-i440fx-7.2", "microvm", "none"),
)
#: Machine types that are started for a record, where the binary has them: those that several
#: releases of the matrix share, and the one that no release keeps as it was.
STARTED = ("pc-q35-5.2", "pc-q35-7.2", "pc-q35-10.0", "pc-i440fx-5.2", "microvm")
_ACCELERATORS = ("kvm", "tcg", "mshv", "nitro", "qtest", "xen")
_MORE = ("migration", *(f"{name}-accel" for name in _ACCELERATORS))


def survey(
    binary: str,
    hazards: Collection[str],
    machines: Iterable[str] = (),
    pinning: tuple[Catalogue, Platform] | None = None,
    *,
    where_known: bool = False,
) -> dict[str, Any]:
    """Everything that can be read of `binary`.

    Args:
        binary: absolute path.
        hazards: QOM types that end some QEMU when one is made or asked about.
        machines: machine types to start with the typical devices.
        pinning: give every instance what this platform pins.
        where_known: pass over machine types that the binary does not have.

    Raises:
        LaunchError: the binary did not start, or is not QEMU.
        MonitorError: it did not answer in time.
        InputError: it has no such machine type.
    """
    return asyncio.run(_survey(binary, hazards, list(machines), pinning, where_known))


async def _survey(
    binary: str,
    hazards: Collection[str],
    machines: list[str],
    pinning: tuple[Catalogue, Platform] | None,
    where_known: bool,
) -> dict[str, Any]:
    asked = (*DEVICES, *(f"{name}-machine" for name in MACHINES), *_MORE)
    replies: dict[str, Any] = await fresh_replies(binary, asked, hazards)
    reachable(replies)
    found: dict[str, Any] = {**replies, "format": FORMAT}
    with Asker(binary, replies) as asker:
        found["help"] = help_words(asker)
        found["readings"] = await _read(asker, _where(replies, "none", pinning), hazards)
        found["machines"] = {}
        for machine in _present(replies, machines, where_known):
            where = _where(replies, machine, pinning)
            found["machines"][machine] = await _machine(asker, where, hazards)
    return found


def _where(
    replies: dict[str, Any], machine: str, pinning: tuple[Catalogue, Platform] | None
) -> Where:
    if pinning is None:
        return Where(machine)
    catalogue, platform = pinning
    return Where(machine, pinned_values(catalogue, platform, Capabilities(replies), machine))


def _present(replies: dict[str, Any], machines: Iterable[str], where_known: bool) -> list[str]:
    known = {m["name"] for m in replies.get("query-machines", ())}
    known |= {m["alias"] for m in replies.get("query-machines", ()) if "alias" in m}
    if where_known:
        return [name for name in machines if name in known]
    for name in machines:
        if name not in known:
            triple = replies["query-version"]["qemu"]
            said = f"QEMU {triple['major']}.{triple['minor']} has no machine type {name!r}"
            raise InputError(said, code="machine")
    return list(machines)


async def _read(asker: Asker, where: Where, hazards: Collection[str]) -> dict[str, Any]:
    """What does not need a machine, and what the machine's compat properties may change."""
    readings: dict[str, Any] = {"object": await read_objects(asker, where, hazards)}
    if not asker.system:
        return readings
    readings |= await read_migration(asker, where)
    if where.machine == "none":
        readings |= await read_backends(asker, where)
        readings["audiodev"] = await read_audio(asker, where)
        readings["accel"] = await read_accel(asker, where)
    return readings


async def _machine(asker: Asker, where: Where, hazards: Collection[str]) -> dict[str, Any]:
    tree = await asker.ask(lambda m: read_tree(asker, m), where.words, where.machine)
    compat = await asker.ask(lambda m: _compat(m, where.machine))
    return {"qom": tree, "compat": compat, "readings": await _read(asker, where, hazards)}


async def _compat(monitor: Monitor, machine: str) -> list[list[str]] | None:
    """[qom-type, property, value] of a machine type in QEMU's order; None where it does not say.

    `query-machines` has the argument `compat-props` since 9.1 (qapi/machine.json).
    """
    try:
        listed = await monitor.execute("query-machines", {"compat-props": True})
    except CommandError:
        return None
    entry = next(m for m in listed if machine in (m["name"], m.get("alias")))
    rows = entry.get("compat-props", ())
    return [[row["qom-type"], row["property"], row["value"]] for row in rows]


def help_words(asker: Asker) -> dict[str, list[str]]:
    """Option → the words of its synopsis in `-help`, the only list of options that is whole.

    Raises:
        HostError: the program does not end.
    """
    flag = "-help" if asker.system else "--help"
    try:
        done = subprocess.run(
            [asker.binary, flag], capture_output=True, text=True, errors="replace", timeout=20
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError(f"{asker.binary} {flag} did not end: {error}") from None
    return parse_help(done.stdout)


_OPTION = re.compile(r"^ {0,2}--?([A-Za-z][\w-]*)")
_WORD = re.compile(r"(?<![\w.$-])([a-z][\w.-]*)=")


def parse_help(text: str) -> dict[str, list[str]]:
    """The options of a help text, each with the words that stand before an equals sign."""
    found: dict[str, set[str]] = {}
    here: set[str] = set()
    for line in text.splitlines():
        option = _OPTION.match(line)
        if option is not None:
            here = found.setdefault(option[1], set())
        # What stands behind it are another option's words, as in `-singlestep` of 8.2.
        here |= set(_WORD.findall(line.partition(" synonym for ")[0]))
    return {name: sorted(words) for name, words in sorted(found.items())}


def reachable(replies: dict[str, Any]) -> None:
    """Drop what no plan and no comparison looks at.

    That is descriptions, and compat properties of types that the build does not have (two thirds
    of `query-machines` on 10.0).
    """
    for command in ("qom-list-properties", "device-list-properties"):
        for listed in replies[command].values():
            for member in listed:
                member.pop("description", None)
            listed.sort(key=lambda member: str(member["name"]))
    existing = set(replies["qom-list-types"])
    for machine in replies.get("query-machines", ()):
        if "compat-props" in machine:
            rows = machine["compat-props"]
            machine["compat-props"] = [row for row in rows if row["qom-type"] in existing]
