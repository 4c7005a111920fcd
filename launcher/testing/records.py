"""The recorded releases, and a host that has everything a plan asks about."""

from __future__ import annotations

from functools import cache

from launcher.capabilities import Capabilities
from launcher.errors import InputError
from launcher.plan import HostFacts, needed_features
from launcher.survey.shelf import load_record, recorded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from launcher.capabilities import Replies
    from launcher.platforms import Catalogue, Platform
    from launcher.profiles import Profile

    Answer = tuple[bool | None, str]

#: What a record holds besides the answers to the launcher's probe.
NOT_ASKED = ("format", "help", "machines", "readings")
_KINDS = {"qemu-system": "qemu", "qemu-storage-daemon": "qsd"}


def releases() -> tuple[str, ...]:
    """The recorded releases of QEMU, oldest first."""
    return tuple(name.removeprefix("qemu-") for name in recorded() if name.startswith("qemu-"))


@cache
def record_of(name: str) -> dict[str, Any]:
    """A whole record, `qemu-7.2` or `qsd-7.2`.

    Raises:
        InputError: there is none of that name.
    """
    shelf = recorded()
    if name not in shelf:
        raise InputError(f"{name} is not recorded", hint=f"recorded: {', '.join(shelf)}")
    return load_record(shelf[name])


@cache
def replies_of(release: str, tool: str = "qemu-system") -> Replies:
    """What a release answered to the launcher's probe.

    Raises:
        InputError: it is not recorded.
    """
    record = record_of(f"{_KINDS[tool]}-{release}")
    return {command: answer for command, answer in record.items() if command not in NOT_ASKED}


@cache
def capabilities_of(release: str, tool: str = "qemu-system") -> Capabilities:
    """What a recorded release can do.

    Raises:
        InputError: it is not recorded.
    """
    return Capabilities(replies_of(release, tool))


def willing_host(
    profile: Profile | None = None,
    platform: Platform | None = None,
    catalogue: Catalogue | None = None,
    *,
    kvm: Answer = (True, ""),
    linux: str = "6.12.48+deb13-amd64",
    features: Mapping[str, Answer] | None = None,
) -> HostFacts:
    """A host that has everything the plan asks about, but for what is given."""
    asked: list[str] = []
    if profile is not None and platform is not None and catalogue is not None:
        asked = needed_features(profile, catalogue, platform)
    found: dict[str, Answer] = dict.fromkeys(asked, (True, ""))
    return HostFacts(linux, "x86_64", kvm, {**found, **(features or {})})
