"""What CPUs have in common: flags, the level of the x86-64 ABI, and a CPU model of QEMU's."""

from __future__ import annotations

from launcher.errors import InputErrors
from launcher.platforms.reader import Reader
from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from launcher.nodes import Mapping
    from launcher.platforms.hosts import Host
    from launcher.platforms.versions import Version


@record
class Kind:
    """A CPU model or an ABI level: what a CPU must have to be one.

    `vendor` is empty and `qemu`, the first release that has it, None for a level.
    """

    name: str
    flags: frozenset[str]
    vendor: str = ""
    qemu: Version | None = None


@record
class Kinds:
    """The levels and models of one architecture, each list from the least to the best."""

    levels: tuple[Kind, ...] = ()
    models: tuple[Kind, ...] = ()


@record
class Choice:
    """The best kind that all hosts have, None when there is none; and why not a better one."""

    name: str | None
    limited_by: tuple[str, ...] = ()
    reason: str = ""


@record
class CommonCPU:
    """`flags` None: the CPU of a host is unknown."""

    flags: frozenset[str] | None
    vendors: tuple[str, ...]
    level: Choice
    model: Choice


def read_kinds(tree: Mapping) -> Kinds:
    """A file of the folder `cpu`.

    Raises:
        InputErrors: everything that is wrong in it.
    """
    reader = Reader()
    reader.keys(tree, ("levels", "models"), ("levels", "models"))
    levels: list[Kind] = []
    below: frozenset[str] = frozenset()
    node = reader.mapping(tree.get("levels"), "levels")
    for name in node.items if node else ():
        below |= frozenset((reader.text(node, name) or "").split()) if node else frozenset()
        levels.append(Kind(name, below))
    models = []
    for name, body in reader.entries(tree.get("models"), "models"):
        reader.keys(body, ("vendor", "qemu", "flags"), ("vendor", "qemu", "flags"))
        flags = frozenset((reader.text(body, "flags") or "").split())
        vendor = reader.text(body, "vendor") or ""
        models.append(Kind(name, flags, vendor, reader.version(body, "qemu")))
    if reader.mistakes:
        raise InputErrors(reader.mistakes)
    return Kinds(tuple(levels), tuple(models))


def common_cpu(hosts: Sequence[Host], kinds: Kinds, floor: Version) -> CommonCPU:
    """What the CPUs of `hosts` share, and the best model that a QEMU of `floor` has for them."""
    blind = [host.name for host in hosts if host.flags is None]
    vendors = tuple(sorted({host.vendor for host in hosts if host.vendor}))
    if blind:
        none = Choice(None, tuple(blind), f"the CPU of {blind[0]} is unknown")
        return CommonCPU(None, vendors, none, none)
    flags = frozenset.intersection(*(host.flags or frozenset() for host in hosts))
    level = _best(hosts, flags, kinds.levels)
    if len(vendors) != 1:
        model = Choice(None, (), f"the CPUs are of {' and '.join(vendors) or 'no known vendor'}")
        return CommonCPU(flags, vendors, level, model)
    models = [one for one in kinds.models if one.vendor == vendors[0]]
    known = [one for one in models if one.qemu is None or one.qemu.series <= floor.series]
    model = _best(hosts, flags, known)
    if not model.limited_by and known != models:
        newer = next(one for one in models if one not in known)
        oldest = tuple(host.name for host in hosts if host.qemu.series == floor.series)
        model = Choice(model.name, oldest, f"{newer.name} is known from QEMU {newer.qemu} on")
    return CommonCPU(flags, vendors, level, model)


def _best(hosts: Sequence[Host], flags: frozenset[str], kinds: Sequence[Kind]) -> Choice:
    """The last of `kinds` whose flags all hosts have, and who lacks what of the next one."""
    fits = [number for number, kind in enumerate(kinds) if kind.flags <= flags]
    best = fits[-1] if fits else -1
    name = kinds[best].name if fits else None
    if best + 1 == len(kinds):
        return Choice(name)
    following = kinds[best + 1]
    lacking = following.flags - flags
    limits = tuple(host.name for host in hosts if lacking - (host.flags or frozenset()))
    first = next(host for host in hosts if host.name == limits[0])
    words = sorted(lacking - (first.flags or frozenset()))
    more = f" and {len(words) - 6} more" if len(words) > 6 else ""
    return Choice(name, limits, f"{following.name} needs {' '.join(words[:6])}{more}")
