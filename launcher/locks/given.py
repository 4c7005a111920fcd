"""What a profile resolves to, as a tree that can be kept and compared. Pure.

Everything is merged, filled in and expanded, short forms are gone, and nothing of it tells where
on this host it was made: no white space, no comments, no folder of the user's, no secret.
"""

from __future__ import annotations

import os

from launcher.nodes import Mapping, Scalar, Sequence
from launcher.plan.decide import HIDDEN
from launcher.profiles.merge import beside
from launcher.profiles.parse import BOOT_PATHS, PATHS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from launcher.errors import Place
    from launcher.nodes import Node
    from launcher.profiles import Profile

#: Sections whose entries have ids; their order decides PCI slots.
SECTIONS = (
    *("objects", "netdevs", "chardevs", "blockdevs", "devices"),
    *("audiodevs", "tpmdevs", "exports"),
)
#: Block options that are secrets without being secret objects (qapi/block-core.json, curl).
_SECRETS = frozenset(("cookie",))


class Home:
    """Where a lock file stands, so that paths in it can be told from there.

    Args:
        folder: of the lock file, absolute.
        cache: the launcher's cache folder, which profiles call `${cache}`.
    """

    def __init__(self, folder: str, cache: str) -> None:
        self.folder = folder
        self.cache = cache

    def text(self, text: str) -> str:
        """`text` without this user's cache folder."""
        return text.replace(self.cache, "${cache}") if self.cache else text

    def path(self, path: str, file: str) -> str:
        """A path that was written in `file`, as seen from the lock file.

        An absolute one stays as it is, unless it leads to something beside its file: that is what
        a relative one has become.
        """
        if path.startswith("${") or not path:
            return path
        beside = os.path.dirname(file)
        if os.path.isabs(path) and not (beside and path.startswith(os.path.join(beside, ""))):
            return self.text(path)
        return os.path.relpath(os.path.abspath(path), self.folder or ".")

    def named(self, name: str, file: str) -> str:
        """The name of a platform, or the path of its file."""
        is_file = "/" in name or name.endswith((".yaml", ".yml"))
        return self.path(name, file) if is_file else name


def is_path(family: str, name: str) -> bool:
    """Whether a property holds a path: the last of its dotted names decides."""
    return name.rpartition(".")[2] in PATHS.get(f"{family}s", ())


def given(profile: Profile, home: Home) -> Mapping:
    """The tree of a profile, with the place of everything in it."""
    here = profile.platform.place
    items: dict[str, Node | None] = {
        "name": Scalar(profile.name, here),
        "uuid": _maybe(profile.uuid, here),
        "platform": _platform(profile.platform, home),
        "tool": Scalar(profile.tool, here),
        "machine": _tree(profile.machine, home),
        "accel": _list(profile.accels, home),
        "cpu": _tree(profile.cpu, home),
        "smp": _tree(profile.smp, home),
        "memory": _tree(profile.memory, home),
        "boot": _boot(profile.boot, here, home),
        **{name: _section(name, getattr(profile, name), here, home) for name in SECTIONS},
        "nbd-server": _tree(profile.nbd_server, home),
        "numa": _list(profile.numa, home),
        "serial": Sequence(tuple(Scalar(s.chardev, s.place) for s in profile.serials), here),
        "migration": _migration(profile, here, home),
        "action": _map(dict(profile.action), here, home),
        "run-with": _tree(profile.run_with, home),
        "rtc": _tree(profile.rtc, home),
        "display": Scalar(profile.display, here),
        "sandbox": Scalar("on" if profile.sandbox else "off", here),
        "extra-args": _extra(profile.extra_args, here, home),
        "verify": Scalar(profile.verify, here),
        "powerdown-seconds": Scalar(str(profile.powerdown_seconds), here),
    }
    kept = {key: node for key, node in items.items() if node is not None and not _is_empty(node)}
    return Mapping(kept, here, {})


def _maybe(text: str | None, place: Place) -> Scalar | None:
    return None if text is None else Scalar(text, place)


def _is_empty(node: Node) -> bool:
    return not isinstance(node, Scalar) and not node.items


def _platform(node: Scalar, home: Home) -> Scalar:
    path = node.text
    if "/" in path or path.endswith((".yaml", ".yml")):
        path = beside(node.place, path)
    return Scalar(home.named(path, node.place.file), node.place)


def _scalar(node: Scalar, home: Home, *, path: bool = False) -> Scalar:
    text = home.path(node.text, node.place.file) if path else home.text(node.text)
    return Scalar(text, node.place)


def _tree(node: Node | None, home: Home, paths: Iterable[str] = ()) -> Node | None:
    """`node` with its keys in alphabetical order, which means nothing inside of one entry."""
    if node is None:
        return None
    if isinstance(node, Scalar):
        return _scalar(node, home)
    if isinstance(node, Sequence):
        return _list(node.items, home, paths)
    items: dict[str, Node] = {}
    for key in sorted(node.items):
        item = node.items[key]
        if key in _SECRETS:
            items[key] = Scalar(HIDDEN, item.place)
        elif isinstance(item, Scalar):
            items[key] = _scalar(item, home, path=key in paths)
        else:
            made = _tree(item, home, paths)
            assert made is not None
            items[key] = made
    return Mapping(items, node.place, node.keys)


def _list(nodes: Iterable[Node], home: Home, paths: Iterable[str] = ()) -> Sequence | None:
    made = tuple(tree for node in nodes if (tree := _tree(node, home, paths)) is not None)
    return Sequence(made, made[0].place) if made else None


def _map(nodes: dict[str, Node], place: Place, home: Home) -> Mapping:
    made = _tree(Mapping(nodes, place, {k: n.place for k, n in nodes.items()}), home)
    assert isinstance(made, Mapping)
    return made


def _boot(boot: dict[str, Scalar], place: Place, home: Home) -> Mapping:
    items: dict[str, Node] = {
        key: _scalar(boot[key], home, path=key in BOOT_PATHS) for key in sorted(boot)
    }
    return Mapping(items, place, {key: node.place for key, node in boot.items()})


def _section(name: str, entries: dict[str, Mapping], place: Place, home: Home) -> Mapping:
    """Entries in the order of the file."""
    items: dict[str, Node] = {}
    for key, entry in entries.items():
        made = _tree(entry, home, PATHS.get(name, ()))
        assert isinstance(made, Mapping)
        kind = entry.get("qom-type")
        if isinstance(kind, Scalar) and kind.text == "secret" and "data" in made.items:
            hidden = Scalar(HIDDEN, made.items["data"].place)
            made = Mapping({**made.items, "data": hidden}, made.place, made.keys)
        items[key] = made
    keys = {key: entry.place for key, entry in entries.items()}
    return Mapping(items, next(iter(keys.values()), place), keys)


def _migration(profile: Profile, place: Place, home: Home) -> Mapping:
    parts = {
        name: _map(dict(getattr(profile, f"migration_{name}")), place, home)
        for name in ("capabilities", "parameters", "properties")
    }
    return Mapping({k: part for k, part in parts.items() if part.items}, place, {})


def _extra(words: tuple[str, ...], place: Place, home: Home) -> Sequence:
    """Raw arguments; one that makes a secret is not kept."""
    shown = (HIDDEN if "secret" in word and "data" in word else home.text(word) for word in words)
    return Sequence(tuple(Scalar(word, place) for word in shown), place)


def texts(node: Node) -> object:
    """The tree without places, as it is kept."""
    if isinstance(node, Mapping):
        return {key: texts(item) for key, item in node.items.items()}
    if isinstance(node, Sequence):
        return [texts(item) for item in node.items]
    return node.text
