"""`make_plan`: the order in which a plan is made."""

from __future__ import annotations

from launcher.errors import HostError, InputError, InputErrors
from launcher.nodes import Scalar
from launcher.plan.accel import decide_accel
from launcher.plan.decide import Decider
from launcher.plan.helpers import decide_helpers
from launcher.plan.machine import decide_machine
from launcher.plan.migration import decide_migration
from launcher.plan.model import Plan
from launcher.plan.sections import decide_process, decide_sections
from launcher.platforms import (
    parse_qemu_version,
    parse_version,
    reaches,
    removal_for,
    resolve,
    too_old,
)
from launcher.qapi import parse_boolean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.capabilities import Capabilities, MachineType
    from launcher.plan.locked import Locked
    from launcher.plan.model import HostFacts
    from launcher.platforms import Catalogue, Platform, Version
    from launcher.profiles import Profile


def needed_types(profile: Profile, capabilities: Capabilities) -> list[str]:
    """The QOM types whose properties a plan of `profile` looks at."""
    if profile.tool != "qemu-system":
        return []
    found = {"migration"}
    for section, tag in (("devices", "driver"), ("objects", "qom-type")):
        kinds = (node.get(tag) for node in getattr(profile, section).values())
        found |= {kind.text for kind in kinds if isinstance(kind, Scalar)}
    kind = profile.machine.get("type")
    machine = capabilities.machine(kind.text) if isinstance(kind, Scalar) else None
    if machine is not None:
        found.add(f"{machine.name}-machine")
    return capabilities.unrecorded(found)


def needed_features(profile: Profile, catalogue: Catalogue, platform: Platform) -> list[str]:
    """The host features that a plan of `profile` asks about; `kvm` stands for the whole ladder."""
    found = set()
    accels = [a.get("accel") for a in profile.accels]
    if profile.tool == "qemu-system" and (
        not accels or any(isinstance(a, Scalar) and a.text == "kvm" for a in accels)
    ):
        found.add("kvm")
    kinds = {
        node.text
        for section, tag in (("objects", "qom-type"), ("netdevs", "type"), ("devices", "driver"))
        for entry in getattr(profile, section).values()
        if isinstance(node := entry.get(tag), Scalar)
    }
    for pin in resolve(catalogue, platform).values():
        if pin.row.needs is not None and pin.type in kinds and pin.value == pin.row.now:
            found.add(pin.row.needs)
    return sorted(found)


def make_plan(
    profile: Profile,
    platform: Platform,
    catalogue: Catalogue,
    capabilities: Capabilities,
    host: HostFacts,
    *,
    binary: str,
    uuid: str,
    locked: Locked | None = None,
) -> Plan:
    """Everything that one start of `profile` on one binary needs, decided.

    Args:
        profile: what the user wrote.
        platform: the floor whose values are pinned.
        catalogue: the platform data.
        capabilities: of the binary.
        host: the facts named by `needed_features`.
        binary: path of the binary, which becomes the first word of argv.
        uuid: the machine's UUID where the profile gives none.
        locked: the values of a lock file, which win over profile and platform.

    Raises:
        InputErrors: the profile asks for something that this binary does not have.
        HostError: the binary or the host cannot do what the platform or the profile asks.
    """
    version = parse_qemu_version(capabilities.version)
    if too_old(catalogue, version):
        raise HostError(
            f"QEMU {version} is older than {catalogue.oldest}, the first that is known here",
            hint="name a newer binary with --qemu",
            code="binary",
        )
    machine = None
    if profile.tool == "qemu-system":
        machine = _machine_type(profile, capabilities, catalogue, version)
    pins = resolve(catalogue, platform)
    decider = Decider(
        profile, platform, pins, catalogue, capabilities, version, host, machine, locked
    )
    accel, reason = _decide(decider, uuid)
    return Plan(
        name=profile.name,
        uuid=profile.uuid or uuid,
        tool=profile.tool,
        binary=binary,
        version=capabilities.version,
        build=capabilities.build,
        platform=platform.name,
        machine=machine.name if machine else "",
        accel=accel,
        accel_reason=reason,
        options=tuple(decider.options),
        setup=tuple(decider.setup),
        values=tuple(decider.values),
        omitted=tuple(decider.omitted),
        wants=tuple(decider.wants),
        unplanned=profile.extra_args,
        verify=profile.verify,
        powerdown_seconds=profile.powerdown_seconds if _hears_powerdown(profile) else 0,
        consoles=tuple(s.chardev for s in profile.serials if s.ours),
        agent=profile.agent,
        notes=tuple(decider.notes),
        helpers=decide_helpers(profile),
    )


def _decide(decider: Decider, uuid: str) -> tuple[str, str]:
    """Every part in its order; the accelerator and why it was chosen.

    Raises:
        InputErrors, HostError: as `make_plan`.
    """
    accel = reason = ""
    system = decider.profile.tool == "qemu-system"
    if system:
        decide_process(decider, uuid)
        decide_machine(decider)
        accel, reason = decide_accel(decider)
        _note_newer_machine(decider)
    decide_sections(decider)
    if system:
        decide_migration(decider)
    if decider.speaker.mistakes:
        raise InputErrors(decider.speaker.mistakes)
    if (trouble := decider.runability()) is not None:
        raise trouble
    return accel, reason


def _hears_powerdown(profile: Profile) -> bool:
    """Whether `system_powerdown` reaches the guest: on x86 it is the ACPI power button."""
    acpi = profile.machine.get("acpi")
    return not (isinstance(acpi, Scalar) and parse_boolean(acpi.text) is False)


def _machine_type(
    profile: Profile, capabilities: Capabilities, catalogue: Catalogue, version: Version
) -> MachineType:
    """The machine type of the profile, its alias resolved.

    Raises:
        InputError: the binary has no such machine type; says what it has instead.
    """
    kind = profile.machine.get("type")
    assert isinstance(kind, Scalar)
    machine = capabilities.machine(kind.text)
    if machine is not None:
        return machine
    removal = removal_for(catalogue, "machine", kind.text, "*", version)
    near = capabilities.nearest_machines(kind.text)
    words = f"QEMU {version} has no machine type {kind.text!r}"
    if removal is not None:
        words += f"; it was removed after {removal.until}"
    near = near or [", ".join(sorted(m.alias for m in capabilities.machines.values() if m.alias))]
    hint = f"it has {' to '.join(near)}"
    raise InputErrors([InputError(words, place=kind.place, hint=hint, code="machine")])


def _note_newer_machine(decider: Decider) -> None:
    """A machine type that the platform's own QEMU does not have cannot go back to it."""
    machine, platform = decider.machine, decider.platform
    if machine is None or not machine.versioned or platform.qemu is None:
        return
    try:
        release = parse_version(machine.name.rpartition("-")[2])
    except InputError:
        return  # a distribution's own numbering
    if not reaches(release, platform.qemu):
        decider.notes.append(
            f"machine type {machine.name} does not exist on the platform's QEMU {platform.qemu}: "
            "this machine cannot migrate there"
        )
