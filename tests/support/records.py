"""Recorded QEMUs, the shipped platform data and hosts built by hand: plans without a machine."""

from __future__ import annotations

import json
import os
from functools import cache

from launcher.capabilities import Capabilities
from launcher.data import data_files, folder
from launcher.files import read_yaml
from launcher.nodes import Mapping
from launcher.plan import HostFacts, Plan, make_plan, needed_features
from launcher.platforms import Catalogue, build_catalogue
from launcher.prepare import choose_platform, parse_setting
from launcher.profiles import Profile, parse_profile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
RECORDED = os.path.join(ROOT, "launcher", "recorded")

#: The releases that are recorded; README.md in the folder says how.
RELEASES = ("5.2", "7.2", "10.0", "11.1")

#: What stands for the parts of a plan that change from start to start.
BINARY, UUID, RUNTIME, CACHE = "@qemu@", "@uuid@", "@run@", "@cache@"

KVM_WORKS = (True, "")
#: What the ladder says on a host whose kernel interprets every guest instruction.
KVM_TRAP = (False, "runs guest code 40 times slower than native: /dev/kvm is emulated")


#: What a record holds besides the answers to the launcher's probe.
NOT_ASKED = ("format", "help", "machines", "readings")


@cache
def record_of(name: str) -> dict:
    """A whole record, `qemu-7.2` or `qsd-7.2`."""
    with open(os.path.join(RECORDED, f"{name}_x86_64.json"), encoding="utf-8") as file:
        return json.load(file)


@cache
def replies_of(release: str, tool: str = "qemu-system") -> dict:
    kind = "qsd" if tool == "qemu-storage-daemon" else "qemu"
    record = record_of(f"{kind}-{release}")
    return {command: answer for command, answer in record.items() if command not in NOT_ASKED}


@cache
def capabilities_of(release: str, tool: str = "qemu-system") -> Capabilities:
    return Capabilities(replies_of(release, tool))


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
    asked = needed_features(profile, catalogue(), platform) if profile and platform else []
    found: dict[str, tuple[bool | None, str]] = dict.fromkeys(asked, (True, ""))
    found.update({name.replace("_", "-"): answer for name, answer in features.items()})
    return HostFacts(linux, "x86_64", kvm, found)


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
