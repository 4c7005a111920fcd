"""The platform on which a machine runs, and migrates, among a set of hosts.

Its floors are the lowest of the hosts'; what the hosts' kernels do not all offer is pinned off
where a platform can pin it, and said where only a profile can leave it out. Pure.
"""

from __future__ import annotations

from launcher.platforms.cpus import CommonCPU, common_cpu
from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from launcher.platforms.catalogue import Catalogue, Key
    from launcher.platforms.cpus import Kinds
    from launcher.platforms.hosts import Host
    from launcher.platforms.versions import Version

#: Feature → properties of any device that the Linux data pin; all are off without it.
_OFFLOADS = {
    "tun-uso": ("host_uso", "guest_uso4", "guest_uso6"),
    "tun-tunnel": ("host_tunnel", "host_tunnel_csum", "guest_tunnel", "guest_tunnel_csum"),
    "tun-tunnel-csum": ("host_tunnel_csum", "guest_tunnel_csum"),
}
_HEADER: Key = ("netdev", "tap", "vnet_hdr")
#: Feature → the one property that is off without it.
_SWITCHES: dict[str, Key] = {
    "tun-vnet-hdr": _HEADER,
    # The flag is the peer's and stands in virtio-net's stream (has_ufo in hw/net/virtio-net.c):
    # host_ufo=off does not help, only a tap without the header.
    "tun-ufo": _HEADER,
    "vhost-net": ("netdev", "tap", "vhost"),
    "userfaultfd": ("migration-capability", "migration", "postcopy-ram"),
}
#: What a profile has to do without where a feature lacks: no value of a platform can say it.
_ADVICE = {
    "kvm": "use `accel: tcg`, or `accel: [kvm, tcg]` for machines that stay where they are",
    "tun-multi-queue": "give a tap no `queues`",
    "vhost-vsock": "use no vhost-vsock device",
    "vhost-vdpa": "use no vhost-vdpa netdev",
    "io_uring": "use `aio: threads` for files",
    "aio": "use `aio: threads` for files",
    "memfd-sealing": "use memory-backend-ram or memory-backend-file",
    "memfd-hugetlb": "use no huge pages from a memfd",
    "sev": "use no sev-guest",
    "sev-es": "use no policy of sev-guest that asks for SEV-ES",
    "sev-snp": "use no sev-snp-guest",
    "tdx": "use no tdx-guest",
}
#: In the order in which they are told.
FEATURES = (*_SWITCHES, *_OFFLOADS, *_ADVICE)


@record
class Floor:
    """The lowest release; `limited_by` are the hosts that have no newer one, by name."""

    version: Version
    limited_by: tuple[str, ...]
    reason: str


@record
class Common:
    """One feature: whether every host has it; else who lacks it, and of whom it is not known."""

    feature: str
    everywhere: bool
    limited_by: tuple[str, ...]
    unknown_on: tuple[str, ...]
    reason: str
    advice: str


@record
class Value:
    """A row of the platform, for the types of `types`."""

    family: str
    types: tuple[str, ...]
    property: str
    value: str
    why: str


@record
class Meeting:
    """The common floor of some hosts."""

    name: str
    hosts: tuple[str, ...]
    arch: str
    qemu: Floor
    linux: Floor
    features: tuple[Common, ...]
    cpu: CommonCPU
    values: tuple[Value, ...]


def meet(name: str, hosts: Sequence[Host], catalogue: Catalogue, kinds: Kinds) -> Meeting:
    """What `hosts` (at least one, as `read_hosts` gives them) have in common.

    Args:
        name: of the platform.
        hosts: in the order of their names.
        catalogue: says which properties of devices follow from the kernel's offloads.
        kinds: CPU models and levels of the hosts' architecture.
    """
    qemu = _qemu_floor(hosts)
    features = tuple(_common(feature, hosts) for feature in FEATURES)
    return Meeting(
        name=name,
        hosts=tuple(host.name for host in hosts),
        arch=hosts[0].arch,
        qemu=qemu,
        linux=_linux_floor(hosts),
        features=features,
        cpu=common_cpu(hosts, kinds, qemu.version),
        values=tuple(_values(hosts, features, catalogue)),
    )


def said(hosts: Sequence[str]) -> str:
    """The first of some names and how many others."""
    others = len(hosts) - 1
    return hosts[0] + (f" and {others} other{'s' * (others > 1)}" if others else "")


def _qemu_floor(hosts: Sequence[Host]) -> Floor:
    lowest = min(hosts, key=lambda host: host.qemu.series)
    limits = tuple(host.name for host in hosts if host.qemu.series == lowest.qemu.series)
    reason = f"{said(limits)}: no newer QEMU than {lowest.qemu} ({lowest.binary})"
    return Floor(_series(lowest.qemu), limits, reason)


def _linux_floor(hosts: Sequence[Host]) -> Floor:
    lowest = min(hosts, key=lambda host: host.linux.series)
    limits = tuple(host.name for host in hosts if host.linux.series == lowest.linux.series)
    return Floor(_series(lowest.linux), limits, f"{said(limits)}: Linux {lowest.kernel}")


def _series(version: Version) -> Version:
    from launcher.platforms.versions import parse_version

    return parse_version(".".join(str(number) for number in version.series))


def _common(feature: str, hosts: Sequence[Host]) -> Common:
    lacking, unknown = [], []
    for host in hosts:
        present = host.features.get(feature, _UNTOLD)[0]
        if present is None:
            unknown.append(host.name)
        elif not present:
            lacking.append(host.name)
    if not lacking and not unknown:
        return Common(feature, True, (), (), "every host has it", "")
    first = (lacking or unknown)[0]
    told = next(host.features.get(feature, _UNTOLD)[1] for host in hosts if host.name == first)
    word = said(lacking) if lacking else f"unknown on {said(unknown)}"
    reason = f"{word}: {told}"
    advice = _ADVICE.get(feature, "")
    return Common(feature, False, tuple(lacking), tuple(unknown), reason, advice)


_UNTOLD: tuple[bool | None, str] = (None, "its facts do not tell")


def _values(
    hosts: Sequence[Host], features: Iterable[Common], catalogue: Catalogue
) -> Iterator[Value]:
    """The rows that the features ask for, each once: the first feature that asks gives the reason.

    What is unknown on a host counts as not there: a value that is off costs speed, one that is on
    costs the migration. Not so for UFO, which every kernel of this decade has and whose pin would
    take all offloads away: that needs a host that is known to lack it and another that has it.
    """
    done: set[tuple[str, str]] = set()
    for common in features:
        if common.everywhere or common.feature in _ADVICE:
            continue
        if common.feature == "tun-ufo" and not _differs(common, hosts):
            continue
        for value in _rows(common, catalogue):
            if (value.family, value.property) not in done:
                done.add((value.family, value.property))
                yield value


def _differs(common: Common, hosts: Sequence[Host]) -> bool:
    return 0 < len(common.limited_by) < len(hosts) - len(common.unknown_on)


def _rows(common: Common, catalogue: Catalogue) -> Iterator[Value]:
    if common.feature in _SWITCHES:
        family, type_, name = _SWITCHES[common.feature]
        yield Value(family, (type_,), name, "off", common.reason)
        return
    for name in _OFFLOADS[common.feature]:
        types = tuple(sorted(key[1] for key in catalogue.linux if key[2] == name))
        yield Value("device", types, name, "off", common.reason)
