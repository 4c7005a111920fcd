"""The typed profile."""

from __future__ import annotations

from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.errors import Place
    from launcher.nodes import Mapping, Node, Scalar


@record
class Serial:
    """One serial port: the id of the chardev behind it, and whether it is the launcher's own."""

    chardev: str
    place: Place
    ours: bool = False


@record
class Tpm:
    """A TPM that a helper emulates: the id of the chardev to it, its folder, its version."""

    chardev: str
    state: Scalar
    version: str


@record
class Profile:
    """What the user wrote, merged, short forms expanded, references checked.

    Values that QEMU defines are nodes, so that each still knows where it was written.
    """

    name: str
    file: str
    platform: Scalar
    tool: str
    machine: Mapping
    accels: tuple[Mapping, ...]
    cpu: Mapping | None
    smp: Mapping | None
    memory: Mapping | None
    boot: dict[str, Scalar]
    objects: dict[str, Mapping]
    netdevs: dict[str, Mapping]
    chardevs: dict[str, Mapping]
    blockdevs: dict[str, Mapping]
    devices: dict[str, Mapping]
    audiodevs: dict[str, Mapping]
    tpmdevs: dict[str, Mapping]
    exports: dict[str, Mapping]
    nbd_server: Mapping | None
    numa: tuple[Mapping, ...]
    serials: tuple[Serial, ...]
    #: chardev of the guest agent's port, which the launcher reads; "" without one
    agent: str
    migration_capabilities: dict[str, Node]
    migration_parameters: dict[str, Node]
    migration_properties: dict[str, Node]
    action: dict[str, Scalar]
    run_with: Mapping | None
    rtc: Mapping | None
    display: str
    qemu: str | None
    uuid: str | None
    extra_args: tuple[str, ...]
    verify: str
    powerdown_seconds: int
    sandbox: bool
    #: what each short form became, for `plan`: ("memory", place, "objects.ram …")
    expansions: tuple[tuple[str, Place, str], ...] = ()
    tpm: Tpm | None = None
