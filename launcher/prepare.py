"""From what the user named to a plan: reads files, asks the binary and the host what is needed.

The steps are synchronous as long as the binary's answers are in the cache, so that the command
line can spawn QEMU before it imports asyncio.
"""

from __future__ import annotations

import os

from launcher.cache import cache_folder, identity
from launcher.errors import InputError, Place
from launcher.nodes import MAPPING, Mapping, Scalar, from_python
from launcher.probe import cache_path, cached_index, find_binary, replies_of
from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from collections.abc import Mapping as Dict
    from typing import Any

    from launcher.capabilities import Capabilities, Replies
    from launcher.locks.model import Lock
    from launcher.nodes import Node
    from launcher.plan import HostFacts, Plan
    from launcher.plan_cache import KeptPlan, Key
    from launcher.platforms import Catalogue, Platform
    from launcher.profiles import Profile


@record
class Request:
    """What a face asks for.

    `profile` is a path, or a mapping that a program made. `settings` are the `path=value` texts
    of `--set`. `lock` is the path of a lock file that is to be kept; `lock_sent` is what it says,
    where that came from another host instead of a file.
    """

    profile: str | Dict[str, Any]
    platform: str = ""
    qemu: str = ""
    settings: tuple[str, ...] = ()
    #: False: nothing is asked of this host, because the plan is for another one
    this_host: bool = True
    lock: str = ""
    lock_sent: Dict[str, Any] | None = None


class Loaded:
    """What a plan is made from, but for the binary's answers and the host.

    A kept plan makes reading the files unnecessary: then `profile`, `platform` and `catalogue` are
    read when somebody looks at them.

    Attributes:
        binary: absolute path of the QEMU binary.
        lock: the lock file that is to be kept.
        kept: a plan that was made of the same files before.
    """

    profile: Profile
    platform: Platform
    catalogue: Catalogue

    def __init__(self, request: Request) -> None:
        self.request = request
        self.key: Key | None = None
        self.kept: KeptPlan | None = None
        self.files: list[tuple[str, str]] = []
        self.named = ""
        self.lock: Lock | None = None
        if request.lock:
            from launcher.lock_files import opened

            self.lock, self.request = opened(request)
        elif isinstance(request.profile, str):
            from launcher.plan_cache import key_of, recall

            words = (request.profile, request.platform, request.qemu, *request.settings)
            self.key = key_of(str(request.this_host), *words)
            self.kept = recall(self.key)
        if self.kept is None:
            self._read()
        else:
            self.named = self.kept.named
        self.binary = find_binary(self.named)

    def __getattr__(self, name: str) -> Any:
        if name not in ("profile", "platform", "catalogue"):
            raise AttributeError(name)
        self._read()
        return self.__dict__[name]

    def _read(self) -> None:
        from launcher.data import load_catalogue

        profile = load_profile(self.request, self._read_yaml)
        catalogue = load_catalogue()
        self.platform = choose_platform(catalogue, profile.platform, self._read_yaml)
        if self.lock is not None:
            from launcher.lock_files import locked_profile

            profile = locked_profile(self.lock, profile)
        self.profile, self.catalogue = profile, catalogue
        daemon = profile.tool == "qemu-storage-daemon"
        usual = "qemu-storage-daemon" if daemon else f"qemu-system-{os.uname().machine}"
        self.named = self.request.qemu or profile.qemu or usual

    def _read_yaml(self, path: str) -> Mapping:
        from launcher.files import read_yaml

        self.files.append((path, identity(path)))
        return read_yaml(path)

    @property
    def profile_file(self) -> str:
        """The path of the profile, as it was given; `<profile>` for a mapping."""
        given = self.request.profile
        return given if isinstance(given, str) else MAPPING


class Prepared:
    """A plan and what it was made from."""

    def __init__(self, loaded: Loaded, plan: Plan, replies: Replies) -> None:
        self.loaded = loaded
        self.plan = plan
        self._replies = replies
        self._capabilities: Capabilities | None = None

    @property
    def capabilities(self) -> Capabilities:
        """What the binary can do."""
        if self._capabilities is None:
            from launcher.capabilities import Capabilities

            self._capabilities = Capabilities(self._replies)
        return self._capabilities

    def with_plan(self, plan: Plan) -> Prepared:
        """The same with another plan for the same binary."""
        return Prepared(self.loaded, plan, self._replies)


def parse_setting(text: str) -> tuple[str, Node]:
    """One `path=value` of `--set`; the value as YAML, `[…]` and `{…}` included.

    Raises:
        InputError: there is no `=`, or the value is not YAML.
    """
    from launcher.profiles.merge import COMMAND_LINE

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

        try:
            return path, parse_yaml(f"v: {value}", place.file).items["v"]
        except InputError as error:
            # Lines and columns are those of no file that the user has.
            words, hint = error.message, error.hint
            raise InputError(words, place=place, hint=hint, code=error.code) from None
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return path, Scalar(value[1:-1], place, plain=False)
    return path, Scalar(value, place)


def load_profile(request: Request, read: Callable[[str], Mapping] | None = None) -> Profile:
    """The profile of a request, checked.

    Args:
        request: what to load.
        read: reads one YAML file; by default `read_yaml`.

    Raises:
        InputError: a file cannot be read, or something in it is wrong.
    """
    from launcher.files import read_yaml
    from launcher.profiles import parse_profile

    read = read or read_yaml
    settings = [parse_setting(text) for text in request.settings]
    root: Node
    if isinstance(request.profile, str):
        root = read(request.profile)
    else:
        root = from_python(dict(request.profile), Place(MAPPING))
        assert isinstance(root, Mapping)
    return parse_profile(root, read, settings, request.platform, cache_folder())


def choose_platform(
    catalogue: Catalogue, node: Scalar, read: Callable[[str], Mapping] | None = None
) -> Platform:
    """A platform by name, or by the path of a site's own file (it has a `/` or ends in .yaml).

    Raises:
        InputError: there is no such platform, or the file is wrong.
    """
    from launcher.platforms import NATIVE, find_platform, platform_from_file

    if node.text == "native":
        return NATIVE
    if "/" in node.text or node.text.endswith((".yaml", ".yml")):
        from launcher.files import read_yaml
        from launcher.profiles.merge import beside, read_named

        path = beside(node.place, node.text)
        tree = read_named(read or read_yaml, path, node.place, "platform")
        return platform_from_file(catalogue, tree)
    return find_platform(catalogue, node.text, node.place)


def load(request: Request) -> Loaded:
    """Read and check everything that a plan is made from, but for the binary and the host.

    Raises:
        InputError: something that was given is wrong.
    """
    return Loaded(request)


def prepare_cached(loaded: Loaded, *, ask_host: bool = True) -> Prepared | None:
    """The plan, when the binary's answers are all known; None: `prepare` has to ask it."""
    index = cached_index(loaded.binary)
    if index is None:
        return None
    plan = _kept_plan(loaded, ask_host)
    if plan is not None:
        return Prepared(loaded, plan, index)
    from launcher.capabilities import Capabilities
    from launcher.plan import needed_types

    if needed_types(loaded.profile, Capabilities(index)):
        return None
    return _plan(loaded, index, ask_host)


def _kept_plan(loaded: Loaded, ask_host: bool) -> Plan | None:
    """The plan that was made of the same files, when binary and host are the same, too."""
    kept = loaded.kept
    if kept is None or kept.asks_host != ask_host or kept.binary != loaded.binary:
        return None
    if kept.answers != cache_path(loaded.binary) or kept.host != host_facts(kept.asked):
        return None
    return kept.start(new_uuid())


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
    from launcher.capabilities import Capabilities
    from launcher.plan import needed_types

    hazards = hazardous_types(loaded.catalogue)
    replies = await replies_of(loaded.binary, (), hazards)
    types = needed_types(loaded.profile, Capabilities(replies))
    return await replies_of(loaded.binary, types, hazards) if types else replies


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
    from launcher.capabilities import Capabilities
    from launcher.plan import needed_features

    capabilities = Capabilities(replies)
    _check_tool(loaded, capabilities)
    asked: tuple[str, ...] = ()
    if ask_host and loaded.request.this_host:
        asked = tuple(needed_features(loaded.profile, loaded.catalogue, loaded.platform))
    host = host_facts(asked)
    plan = _made(loaded, capabilities, host)
    if loaded.key is not None:
        from launcher.plan_cache import keep

        keep(
            loaded.key,
            plan,
            files=tuple(loaded.files),
            named=loaded.named,
            binary=loaded.binary,
            answers=cache_path(loaded.binary),
            asks_host=ask_host,
            asked=asked,
            host=host,
            own_uuid=loaded.profile.uuid is None,
        )
    return Prepared(loaded, plan, replies)


def _made(loaded: Loaded, capabilities: Capabilities, host: HostFacts) -> Plan:
    """The plan, of a lock file if there is one.

    Raises:
        InputError, HostError: as `prepare`; under a lock one HostError with what cannot be kept.
    """
    from launcher.plan import make_plan

    lock = loaded.lock

    def made() -> Plan:
        return make_plan(
            loaded.profile,
            loaded.platform,
            loaded.catalogue,
            capabilities,
            host,
            binary=loaded.binary,
            uuid=new_uuid(),
            locked=lock.locked() if lock is not None else None,
        )

    if lock is None:
        return made()
    from launcher.locks.replay import keep_lock

    return keep_lock(lock, loaded.profile, capabilities.version, loaded.catalogue, made)


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
    from launcher.plan import HostFacts

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
