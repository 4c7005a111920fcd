"""Whether a machine can move from one end to another, told before a byte is sent. Pure."""

from __future__ import annotations

from launcher.preflight.agree import Pair, settings_findings
from launcher.preflight.between import between_findings
from launcher.preflight.cures import settled
from launcher.preflight.findings import (
    SEVERITIES,
    Cure,
    Finding,
    breaks,
    counts,
    explain,
    findings_text,
    worst_first,
)
from launcher.preflight.hosts import host_findings
from launcher.preflight.identity import identity_findings, trouble_findings
from launcher.preflight.locked import side_of_lock
from launcher.preflight.memory import memory_findings
from launcher.preflight.naming import named_at_their_ends
from launcher.preflight.network import network_findings
from launcher.preflight.obstacles import obstacle_findings
from launcher.preflight.reading import side_of_facts, side_of_json, side_of_plan
from launcher.preflight.roms import places_without, settled_by_sizes, told_once, wanted_files
from launcher.preflight.seats import device_findings
from launcher.preflight.side import Block, Side
from launcher.preflight.wire import side_as_json, side_from_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.platforms.rules import Knowledge


def preflight(
    source: Side, destination: Side, know: Knowledge, via: str = "", *, still: bool = False
) -> tuple[Finding, ...]:
    """What differs between two ends and matters to a migration, the worst first.

    Args:
        source: the end that runs the guest.
        destination: the end that is to take it. What breaks in one direction may not in the other.
        know: the change files and migration.yaml.
        via: `unix`, `tcp`, `file`, `fd` or `exec`; empty when it is not known.
        still: whether the guest is known to stand still while it is sent.
    """
    pair = Pair(source, destination, know, via, still=still)
    if not source.machine and not destination.machine and not source.entries:
        return worst_first(host_findings(pair))
    if source.trouble or destination.trouble:
        return worst_first(trouble_findings(pair))
    found = [*identity_findings(pair), *settings_findings(pair), *obstacle_findings(pair)]
    found += between_findings(pair)
    if source.machine and source.machine == destination.machine:
        devices = settled_by_sizes(pair, [*device_findings(pair), *network_findings(pair)])
        blocks = [*memory_findings(pair)]
        # A missing device's ROM is missing, too: that is said already.
        gone = places_without(pair)
        blocks = [b for b in blocks if str(b.source).rpartition("/")[0] not in gone]
        found = [*settled_by_sizes(pair, found), *devices]
        found += told_once(found, blocks)
    return worst_first(named_at_their_ends(pair, settled(pair, found)))


__all__ = [
    "SEVERITIES",
    "Block",
    "Cure",
    "Finding",
    "Side",
    "breaks",
    "counts",
    "explain",
    "findings_text",
    "preflight",
    "side_as_json",
    "side_from_json",
    "side_of_facts",
    "side_of_json",
    "side_of_lock",
    "side_of_plan",
    "wanted_files",
]
