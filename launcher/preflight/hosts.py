"""Two hosts' facts compared: what a machine may get at one and miss at the other."""

from __future__ import annotations

from launcher.preflight.cures import platform_cures, property_cure
from launcher.preflight.findings import Cure, Finding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from launcher.preflight.agree import Pair

_HEADER = "tun-vnet-hdr"
#: So many CPU flags are named.
_SHOWN = 8


def host_findings(pair: Pair) -> Iterator[Finding]:
    """What the source's host has and the destination's has not; no machine is looked at."""
    offers = {offer.feature: offer for offer in pair.know.rules.offers}
    for name, present in pair.source.features.items():
        if not present or pair.destination.features.get(name) is not False:
            continue
        what = f"the source's host has {name} and the destination's has not"
        if name in offers or name == _HEADER:
            properties = offers[name].properties if name in offers else ()
            subject = ("netdev", "tap", "", "vnet_hdr")
            cures: tuple[Cure, ...] = (property_cure(subject, "both", "off"),)
            if properties:
                subject = ("device", "virtio-net-pci", "", properties[0])
                cures = tuple(_cures(pair, subject, properties))
            code = "host-offer"
        else:
            subject, cures, code = ("host", "host", "host", name), (), "host-lacks"
        yield pair.finding(code, what, (True, False), subject=subject, cures=cures)
    yield from _flags(pair)


def _cures(
    pair: Pair, subject: tuple[str, str, str, str], properties: tuple[str, ...]
) -> Iterator[Cure]:
    yield from platform_cures(pair, subject, "off")
    listed = ", ".join(f"{name}: off" for name in properties)
    yield Cure("both", f"{{{listed}}} on each virtio-net device at both ends", *subject, "off")


def _flags(pair: Pair) -> Iterator[Finding]:
    here, there = pair.source.cpu_flags, pair.destination.cpu_flags
    gone = sorted((here or frozenset()) - (there or frozenset())) if there else []
    if gone:
        more = f" and {len(gone) - _SHOWN} more" if len(gone) > _SHOWN else ""
        what = f"the destination's CPU lacks {', '.join(gone[:_SHOWN])}{more}"
        subject = ("cpu", "host", "cpu", "flags")
        cures = (Cure("both", "cpu: a model that both hosts have, at both ends", *subject),)
        values = (" ".join(gone), None)
        yield pair.finding("host-cpu", what, values, subject=subject, cures=cures)
