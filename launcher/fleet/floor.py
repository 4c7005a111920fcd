"""The platform that hosts share, from the facts that their agents keep published."""

from __future__ import annotations

from launcher.errors import Place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from launcher.platforms.meet import Meeting


def common_floor(facts: Mapping[str, Mapping[str, Any]], name: str = "meet") -> Meeting:
    """What some hosts have in common: `platform meet` of their retained facts.

    Args:
        facts: by host id, which stands for the node name in them: two agents may share a node.
        name: of the platform.

    Raises:
        InputErrors: everything that is wrong with them.
    """
    from launcher.data import load_catalogue, load_cpus
    from launcher.platforms.hosts import read_hosts
    from launcher.platforms.meet import meet

    catalogue = load_catalogue()
    named = [(_file(host), {**found, "name": host}) for host, found in sorted(facts.items())]
    hosts = read_hosts(named, catalogue, _place)
    return meet(name, hosts, catalogue, load_cpus(hosts[0].arch))


def _file(host: str) -> str:
    return f"the facts of {host}"


def _place(file: str, _path: Sequence[str | int]) -> Place:
    return Place(file)
