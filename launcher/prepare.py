"""From what the user named to a plan: reads files, asks the binary and the host what is needed.

The steps are synchronous as long as the binary's answers are in the cache, so that the command
line can spawn QEMU before it imports asyncio.
"""

from __future__ import annotations

import os

from launcher.cache import cache_folder
from launcher.capabilities import Capabilities
from launcher.data import load_catalogue
from launcher.errors import InputError, Place
from launcher.nodes import Mapping, Scalar, from_python
from launcher.plan import HostFacts, make_plan, needed_features, needed_types
from launcher.platforms import NATIVE, find_platform, platform_from_file
from launcher.probe import cached_replies, find_binary, known_replies, replies_of
from launcher.profiles import parse_profile
from launcher.profiles.merge import COMMAND_LINE
from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping as Dict
    from collections.abc import Sequence
    from typing import Any

    from launcher.capabilities import Replies
    from launcher.nodes import Node
    from launcher.plan import Plan
    from launcher.platforms import Catalogue, Platform
    from launcher.profiles import Profile


@record
class Request:
    """What a face asks for.

    `profile` is a path, or a mapping that a program made. `settings` are the `path=value` texts
    of `--set`.
    """

    profile: str | Dict[str, Any]
    platform: str = ""
    qemu: str = ""
    settings: tuple[str, ...] = ()
    #: False: nothing is asked of this host, because the plan is for another one
    this_host: bool = True


@record
class Loaded:
    """Everything that was read from files."""

    request: Request

    profile: Profile
    platform: Platform
    catalogue: Catalogue
    binary: str


@record
class Prepared:
    """A plan and what it was made from."""

    loaded: Loaded
    capabilities: Capabilities
    plan: Plan


def parse_setting(text: str) -> tuple[str, Node]:
    """One `path=value` of `--set`; the value as YAML, `[…]` and `{…}` included.

    Raises:
        InputError: there is no `=`, or the value is not YAML.
    """
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise InputError(
            f"--set {text!r} is not path=value",
            place=Place(COMMAND_LINE),
            hint="for instance --set memory=2GiB or --set devices.nic0.mac=52:54:00:12:34:56",
        )
    place = Place(f"{COMMAND_LINE} {path}")
    if value[:1] in ("[", "{"):
        from launcher.files import parse_yaml

        return path, parse_yaml(f"v: {value}", place.file).items["v"]
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return path, Scalar(value[1:-1], place, plain=False)
    return path, Scalar(value, place)


def load_profile(request: Request) -> Profile:
    """The profile of a request, checked.

    Raises:
        InputError: a file cannot be read, or something in it is wrong.
    """
    from launcher.files import read_yaml

    settings = [parse_setting(text) for text in request.settings]
    root: Node
    if isinstance(request.profile, str):
        root = read_yaml(request.profile)
    else:
        root = from_python(dict(request.profile), Place("<profile>"))
        assert isinstance(root, Mapping)
    return parse_profile(root, read_yaml, settings, request.platform, cache_folder())


def choose_platform(catalogue: Catalogue, node: Scalar) -> Platform:
    """A platform by name, or by the path of a site's own file (it has a `/` or ends in .yaml).

    Raises:
        InputError: there is no such platform, or the file is wrong.
    """
    if node.text == "native":
        return NATIVE
    if "/" in node.text or node.text.endswith((".yaml", ".yml")):
        from launcher.files import read_yaml
        from launcher.profiles.merge import beside

        return platform_from_file(catalogue, read_yaml(beside(node.place, node.text)))
    return find_platform(catalogue, node.text, node.place)


def load(request: Request) -> Loaded:
    """Read and check everything that a plan is made from, but for the binary and the host.

    Raises:
        InputError: something that was given is wrong.
    """
    profile = load_profile(request)
    catalogue = load_catalogue()
    platform = choose_platform(catalogue, profile.platform)
    daemon = profile.tool == "qemu-storage-daemon"
    usual = "qemu-storage-daemon" if daemon else f"qemu-system-{os.uname().machine}"
    binary = find_binary(request.qemu or profile.qemu or usual)
    return Loaded(request, profile, platform, catalogue, binary)


def prepare_cached(loaded: Loaded, *, ask_host: bool = True) -> Prepared | None:
    """The plan, when the binary's answers are all known; None: `prepare` has to ask it."""
    replies = cached_replies(loaded.binary)
    if replies is None or needed_types(loaded.profile, Capabilities(replies)):
        return None
    return _plan(loaded, replies, ask_host)


async def prepare(loaded: Loaded) -> Prepared:
    """The plan, after asking the binary what is not known of it yet.

    Raises:
        InputError: the profile asks for something that this binary does not have.
        HostError: the binary or the host cannot do what is asked.
        LaunchError: the binary does not behave as QEMU.
    """
    prepared = prepare_cached(loaded)
    if prepared is not None:
        return prepared
    replies = await _ask(loaded)
    return _plan(loaded, replies)


def prepare_now(loaded: Loaded, *, ask_host: bool = True) -> Prepared:
    """As `prepare`, for callers without a loop; imports asyncio only when QEMU must be asked.

    Args:
        loaded: what was read from files.
        ask_host: False plans for a host that this one need not be: nothing is asked of it, and
            what is not known does not stand in the way.
    """
    prepared = prepare_cached(loaded, ask_host=ask_host)
    if prepared is not None:
        return prepared
    import asyncio

    return _plan(loaded, asyncio.run(_ask(loaded)), ask_host)


async def _ask(loaded: Loaded) -> Replies:
    hazards = hazardous_types(loaded.catalogue)
    replies = await replies_of(loaded.binary, (), hazards)
    types = needed_types(loaded.profile, Capabilities(replies))
    if types and known_replies(loaded.binary, types) is None:
        replies = await replies_of(loaded.binary, types, hazards)
    return replies


def hazardous_types(catalogue: Catalogue) -> frozenset[str]:
    """Types that end some release of QEMU when asked about; the probe leaves them for last."""
    return frozenset(
        value
        for hazard in catalogue.hazards
        if hazard.command in ("qom-list-properties", "device-list-properties", "object-add")
        for name, value in hazard.arguments
        if name in ("typename", "qom-type")
    )


def _plan(loaded: Loaded, replies: Replies, ask_host: bool = True) -> Prepared:
    capabilities = Capabilities(replies)
    _check_tool(loaded, capabilities)
    features = needed_features(loaded.profile, loaded.catalogue, loaded.platform)
    if not loaded.request.this_host:
        features = []
    plan = make_plan(
        loaded.profile,
        loaded.platform,
        loaded.catalogue,
        capabilities,
        host_facts(features if ask_host else ()),
        binary=loaded.binary,
        uuid=new_uuid(),
    )
    return Prepared(loaded, capabilities, plan)


def _check_tool(loaded: Loaded, capabilities: Capabilities) -> None:
    if capabilities.tool != loaded.profile.tool:
        raise InputError(
            f"the profile is for {loaded.profile.tool}, and this is {capabilities.tool}",
            place=Place(loaded.binary),
            hint="name another binary with --qemu",
            code="binary",
        )


def host_facts(features: Sequence[str]) -> HostFacts:
    """The host facts that a plan asks for; only those are gathered."""
    system = os.uname()
    found: dict[str, tuple[bool | None, str]] = {}
    if features:
        from launcher.host.facts import feature

        for name in features:
            answer = feature(name)
            found[name] = (answer.present, answer.reason)
    kvm = found.get("kvm", (None, "was not asked of this host"))
    return HostFacts(system.release, system.machine, kvm, found)


def new_uuid() -> str:
    """A random UUID (version 4); the standard module costs more to import than this."""
    raw = bytearray(os.urandom(16))
    raw[6] = (raw[6] & 0x0F) | 0x40
    raw[8] = (raw[8] & 0x3F) | 0x80
    text = raw.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
