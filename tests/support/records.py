"""Recorded QEMUs, the shipped platform data and hosts built by hand: plans without a machine."""

from __future__ import annotations

import os
from functools import cache

from launcher.data import data_files, folder
from launcher.files import read_yaml
from launcher.nodes import Mapping
from launcher.plan import HostFacts, Plan, make_plan
from launcher.platforms import Catalogue, build_catalogue
from launcher.prepare import choose_platform, parse_setting
from launcher.profiles import Profile, parse_profile
from launcher.testing.records import NOT_ASKED, capabilities_of, record_of, replies_of, willing_host

__all__ = ["NOT_ASKED", "capabilities_of", "record_of", "replies_of"]

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
RECORDED = os.path.join(ROOT, "launcher", "recorded")

#: The releases that are recorded; README.md in the folder says how.
RELEASES = ("5.2", "7.2", "10.0", "11.1")

#: What stands for the parts of a plan that change from start to start.
BINARY, UUID, RUNTIME, CACHE = "@qemu@", "@uuid@", "@run@", "@cache@"

KVM_WORKS = (True, "")
#: What the ladder says on a host whose kernel interprets every guest instruction.
KVM_TRAP = (False, "runs guest code 40 times slower than native: /dev/kvm is emulated")


@cache
def catalogue() -> Catalogue:
    """Built from the files, never from the user's cache."""
    root = folder()
    return build_catalogue({name: read_yaml(os.path.join(root, name)) for name in data_files(root)})


def host(
    profile: Profile | None = None,
    platform: object = None,
    *,
    kvm: tuple[bool | None, str] = KVM_WORKS,
    linux: str = "6.12.48+deb13-amd64",
    **features: tuple[bool | None, str],
) -> HostFacts:
    """A host that has everything the plan asks about, but for what is given."""
    given = {name.replace("_", "-"): answer for name, answer in features.items()}
    return willing_host(profile, platform, catalogue(), kvm=kvm, linux=linux, features=given)


def profile_from(
    source: str | Mapping, settings: tuple[str, ...] = (), platform: str = ""
) -> Profile:
    """A profile by path, or from a tree."""
    tree = read_yaml(source) if isinstance(source, str) else source
    return parse_profile(tree, read_yaml, [parse_setting(s) for s in settings], platform, CACHE)


def plan_of(
    profile: Profile, release: str, *, facts: HostFacts | None = None, **named: object
) -> Plan:
    """The plan of a profile on a recorded binary."""
    platform = choose_platform(catalogue(), profile.platform)
    facts = facts or host(profile, platform, **named)
    capabilities = capabilities_of(release, profile.tool)
    return make_plan(profile, platform, catalogue(), capabilities, facts, binary=BINARY, uuid=UUID)
