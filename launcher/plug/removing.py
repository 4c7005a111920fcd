"""Unplugging: ask the device out, wait for it, then remove what nobody uses any more."""

from __future__ import annotations

import asyncio

from launcher.errors import CommandError, InputError, LauncherError, MonitorError
from launcher.plug.parts import lock_of, lose
from launcher.plug.words import COMMANDS, removal
from launcher.profiles.addition import SECTIONS, uses
from launcher.qapi import suggest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.machine import Machine
    from launcher.monitor import Event
    from launcher.profiles.addition import Entry

#: QEMU could not do what the guest let it (QAPI; the first since 6.2, the other for memory only).
_REFUSALS = ("DEVICE_UNPLUG_GUEST_ERROR", "MEM_UNPLUG_ERROR")
#: What a guest says with ACPI's _OST (ACPI 6.5, 6.3.5): about an ejection, and that it will not.
_OST = "ACPI_DEVICE_OST"
_EJECTION = (0x03, 0x103)
_WILL_NOT = {
    0x01: "it says no reason",
    0x02: "it does not know the request",
    0x80: "the device is locked",
    0x81: "an application uses the device",
    0x82: "the device is busy",
    0x83: "something that depends on the device is busy",
}
#: Seconds for a backend that its device has not let go of yet: QEMU frees a device a moment after
#: it has said that it is deleted.
_LINGER = 5.0
_AGAIN = 0.05


class UnplugError(LauncherError):
    """A device is still there; `evidence["device"]` says which."""

    code = "unplug"
    exit_status = 3


async def unplug(machine: Machine, ids: tuple[str, ...], backends: bool, seconds: float) -> None:
    """Take parts from the machine; see `Machine.unplug`."""
    async with lock_of(machine):
        for key in ids:
            section = _section_of(machine, key)
            _refuse_used(machine, (section, key))
            wanted = {(section, key)}
            if backends:
                wanted |= _left_over(machine, wanted)
            await take_out(machine, wanted, seconds)


def _section_of(machine: Machine, key: str) -> str:
    profile = machine.prepared.loaded.profile
    for section in reversed(SECTIONS):  # devices first: their backends go with them
        if key in getattr(profile, section):
            return section
    known = [name for section in SECTIONS for name in getattr(profile, section)]
    raise InputError(
        f"{machine.plan.name} has no part {key!r}", hint=suggest(key, known), code="absent"
    )


def _refuse_used(machine: Machine, entry: Entry) -> None:
    """Refuse what others need. QEMU itself lets a netdev go from under its device.

    Raises:
        InputError: somebody uses it.
    """
    section, key = entry
    users = uses(machine.prepared.loaded.profile).get(entry, set())
    if users:
        named = ", ".join(sorted(f"{s}.{k}".rstrip(".") for s, k in users))
        raise InputError(
            f"{section}.{key} is used by {named}", hint="unplug that first", code="used"
        )


def _left_over(machine: Machine, gone: set[Entry]) -> set[Entry]:
    """The backends that only these parts use, and those that only such backends use."""
    using = uses(machine.prepared.loaded.profile)
    whole = set(gone)
    found: set[Entry] = set()
    while True:
        more = {
            entry
            for entry, users in using.items()
            if users <= whole and entry not in whole and entry[0] != "devices"
        }
        if not more:
            return found
        found |= more
        whole |= more


async def take_out(machine: Machine, wanted: set[Entry], seconds: float) -> None:
    """Remove parts, users before what they use; each is forgotten as soon as it is gone.

    Raises:
        UnplugError: a device stays; CommandError: QEMU refuses.
    """
    left = set(wanted)
    while left:
        using = uses(machine.prepared.loaded.profile)
        order = [(s, k) for s in reversed(SECTIONS) for k in _keys(machine, s) if (s, k) in left]
        entry = next((e for e in order if not using.get(e, set()) & left), order[0])
        await remove(machine, *entry, seconds)
        lose(machine, {entry})
        left.discard(entry)


def _keys(machine: Machine, section: str) -> list[str]:
    return list(getattr(machine.prepared.loaded.profile, section))


async def remove(machine: Machine, section: str, key: str, seconds: float) -> None:
    """Remove one part of QEMU's; nothing but QEMU is told.

    Raises:
        UnplugError: a device stays; CommandError: QEMU refuses.
    """
    if section == "devices":
        await _remove_device(machine, key, seconds)
        return
    command, arguments = removal(section, key)
    if section == "blockdevs":
        from launcher.snapshot import forget_overlay

        await forget_overlay(machine, key)
    end = asyncio.get_running_loop().time() + _LINGER
    while True:
        try:
            await machine.monitor.execute(command, arguments)
        except CommandError as error:
            in_use = "in use" in error.message or "busy" in error.message
            if not in_use or asyncio.get_running_loop().time() > end:
                raise CommandError(
                    f"{section}.{key}: {error.message}", evidence=error.evidence
                ) from None
        else:
            return
        await asyncio.sleep(_AGAIN)


async def _remove_device(machine: Machine, key: str, seconds: float) -> None:
    before = machine.monitor.mark()
    try:
        await machine.monitor.execute(COMMANDS["devices"][1], {"id": key})
    except CommandError as error:
        if error.evidence.get("class") == "DeviceNotFound":
            return  # the guest let go of it after an earlier call had given up
        if "already in the process of unplug" not in error.message:
            raise CommandError(
                f"devices.{key}: {error.message}", hint=_hint(error), evidence=error.evidence
            ) from None

    def ours(event: Event) -> bool:
        if event.name == _OST:
            return event.data["info"].get("device") == key and bool(_refusal(event))
        return event.data.get("device") == key

    try:
        event = await machine.monitor.wait_event(
            ("DEVICE_DELETED", _OST, *_REFUSALS), ours, timeout=seconds, since=before
        )
    except MonitorError as error:
        if error.evidence.get("cause") != "timeout":
            raise
        raise await _stays(machine, key, seconds) from None
    if event.name != "DEVICE_DELETED":
        raise UnplugError(
            f"the guest refuses to let go of {key}: {_refusal(event)}",
            hint="it still uses it; what it says is on its console",
            evidence={"device": key, "event": event.name},
        )


def _refusal(event: Event) -> str:
    """Why a guest does not let go; empty while it still may."""
    if event.name != _OST:
        return str(event.data.get("msg") or "QEMU says no more")
    info = event.data["info"]
    return _WILL_NOT.get(info["status"], "") if info["source"] in _EJECTION else ""


def _hint(error: CommandError) -> str:
    if "does not support hotplugging" in error.message:
        return "it stands where nothing can be unplugged; only a machine's end removes it"
    return ""


async def _stays(machine: Machine, key: str, seconds: float) -> UnplugError:
    lines = await machine.whereabouts()
    error = UnplugError(
        f"the guest did not let go of {key} within {seconds:g} s",
        hint="with PCI (ACPI or PCIe) the guest must take part: it has to run, with an operating "
        "system that knows hot plug; with ACPI a reset of the machine completes the removal",
        evidence={"device": key, "guest": lines},
    )
    error.add_note("\n".join(lines))
    return error
