"""Network backends: what of them is in the stream, and what their hosts' kernels offer."""

from __future__ import annotations

from launcher.platforms.rules import floor, holds
from launcher.preflight.cures import platform_cures, property_cure
from launcher.preflight.findings import Cure, Finding
from launcher.preflight.seats import seats
from launcher.preflight.worth import member

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from launcher.platforms.rules import Offer
    from launcher.preflight.agree import Pair
    from launcher.preflight.options import Entry
    from launcher.preflight.side import Side

_HEADER = "tun-vnet-hdr"


def network_findings(pair: Pair) -> Iterator[Finding]:
    """Backends whose state or whose abilities the other end lacks."""
    if not pair.partial:
        yield from _instances(pair)
    there = seats(pair, pair.destination)
    for place, here in seats(pair, pair.source).items():
        other = there.get(place)
        if here.type.startswith("virtio-net") and other is not None and other.type == here.type:
            yield from _virtio_net(pair, here, other)


# -- backends with state of their own -------------------------------------------------------------


def _instances(pair: Pair) -> Iterator[Finding]:
    """A `user` backend saves its state; its number is in the stream since 8.2 only."""
    for kind, numbered in pair.know.rules.instances.items():
        here, there = (
            [e for e in side.of("netdev") if e.type == kind]
            for side in (pair.source, pair.destination)
        )
        sends = len(here) if holds(numbered, pair.source.version) else min(len(here), 1)
        takes = len(there) if holds(numbered, pair.destination.version) else min(len(there), 1)
        if sends <= takes:
            continue
        if len(here) <= len(there):
            what = f"the source has {len(here)} netdevs of type {kind}"
            subject = ("netdev", kind, here[takes].id, "type")
            values = (len(here), len(there))
            yield pair.finding("slirp-second", what, values, subject=subject)
            continue
        count = f"{len(here)} netdevs of type {kind}, the destination {len(there) or 'none'}"
        missing = here[len(there)]
        subject = ("netdev", kind, missing.id, "type")
        words = f"give the destination the netdev {missing.id!r} of type {kind}, too"
        cures = (Cure("destination", words, *subject, kind),)
        values = (len(here), len(there))
        yield pair.finding("slirp", f"the source has {count}", values, subject=subject, cures=cures)


# -- virtio-net over tap --------------------------------------------------------------------------


def _virtio_net(pair: Pair, here: Entry, there: Entry) -> Iterator[Finding]:
    ends = ((pair.source, here), (pair.destination, there))
    peers = [side.find("netdev", nic.members.get("netdev", "")) for side, nic in ends]
    if peers[0] is None:
        return
    yield from _queues(pair, peers[0], peers[1])
    headers = [_header(side, peer) for (side, _), peer in zip(ends, peers, strict=True)]
    subject = ("netdev", peers[0].type, peers[0].id, "vnet_hdr")
    if headers[1] and pair.destination.features.get(_HEADER) is False:
        what = f"netdev {peers[0].id} has vnet_hdr=on, which the destination's kernel lacks"
        cures = (property_cure(subject, "both", "off"),)
        yield pair.finding("tap-start", what, (headers[0], True), subject=subject, cures=cures)
        return
    if headers[0] is False:
        return
    if headers[1] is False:
        alike = peers[1] is not None and peers[1].type == peers[0].type
        cures = (property_cure(subject, "both" if alike else "source", "off"),)
        kind = peers[1].type if peers[1] is not None else "no backend"
        what = (
            f"netdev {peers[0].id} gives packets a header at the source, {kind} at the destination"
            " does not"
        )
        code = "tap-header" if headers[0] else "tap-unknown"
        yield pair.finding(code, what, (headers[0], False), subject=subject, cures=cures)
        return
    for offer in pair.know.rules.offers:
        yield from _offer(pair, offer, (here, there), peers[0])


def _queues(pair: Pair, here: Entry, there: Entry | None) -> Iterator[Finding]:
    if there is None or here.type != there.type:
        return
    counts = (here.members.get("queues", "1"), there.members.get("queues", "1"))
    if counts[0] != counts[1]:
        subject = ("netdev", here.type, there.id, "queues")
        cures = (property_cure(subject, "destination", counts[0]),)
        what = f"netdev {here.id} has {counts[0]} queues at the source and {counts[1]} at the"
        yield pair.finding("queues", f"{what} destination", counts, subject=subject, cures=cures)


def _header(side: Side, peer: Entry | None) -> bool | None:
    """Whether a backend puts a virtio header before packets; None: nobody knows."""
    if peer is None or peer.type not in _CAN:
        return False
    given = peer.members.get("vnet_hdr")
    if given is not None:
        return given == "on"
    return side.features.get(_HEADER)


#: Backends that can (net/tap.c, net/vhost-user.c and vdpa always do; others never).
_CAN = ("tap", "bridge")


def _offer(pair: Pair, offer: Offer, nics: tuple[Entry, Entry], peer: Entry) -> Iterator[Finding]:
    """One feature of the kernel's: what may be in use at the source must be at the destination."""
    at_source = _offers(pair, pair.source, offer, nics[0])
    at_destination = _offers(pair, pair.destination, offer, nics[1])
    if at_source is False or at_destination is True:
        return
    if at_source is None and at_destination is None and _same_unknown(pair, offer):
        return
    here = nics[0]
    code = offer.code if at_source is True and at_destination is False else "tap-unknown"
    if offer.properties:
        subject = ("device", here.type, here.id, offer.properties[0])
        cures = tuple(_property_cures(pair, offer, here))
    else:
        subject = ("netdev", peer.type, peer.id, "vnet_hdr")
        cures = (property_cure(subject, "both", "off"),)
    words = {True: "offered", False: "not offered", None: "unknown"}
    what = f"{offer.feature} of {here.type} {here.id} is {words[at_source]} by the source's kernel"
    what += f" and {words[at_destination]} at the destination"
    values = (at_source, at_destination)
    yield pair.finding(code, what, values, subject=subject, cures=cures)


def _offers(pair: Pair, side: Side, offer: Offer, nic: Entry) -> bool | None:
    """Whether the device shows the feature to its guest; None: the kernel was not asked."""
    if offer.since is not None:
        from launcher.platforms import reaches

        at = floor(side.machine, side.version)
        if at is None or not reaches(offer.since, at):
            return False
    # An unset property is on since the release that has it.
    if offer.properties and all(
        member(pair.know, side, nic, name) == "off" for name in offer.properties
    ):
        return False
    return side.features.get(offer.feature)


def _same_unknown(pair: Pair, offer: Offer) -> bool:
    """Two plans of which no host is known are taken to be for the same one."""
    return not pair.source.features and not pair.destination.features


def _property_cures(pair: Pair, offer: Offer, nic: Entry) -> Iterator[Cure]:
    subject = ("device", nic.type, nic.id, offer.properties[0])
    yield from platform_cures(pair, subject, "off")
    listed = ", ".join(f"{name}: off" for name in offer.properties)
    text = f"devices.{nic.id or nic.type}: {{{listed}}} at both ends"
    yield Cure("both", text, *subject, "off")
