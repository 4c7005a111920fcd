"""Reading names.yaml, observers.yaml, syntax.yaml and hazards.yaml."""

from __future__ import annotations

from launcher.nodes import Mapping, Scalar
from launcher.platforms.catalogue import FAMILIES, Hazard, Name, Observer, Syntax
from launcher.platforms.versions import Range

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.platforms.catalogue import Key
    from launcher.platforms.reader import Reader

#: The ways of reading a value back; `verify` has one function for each.
READERS = (
    "qom",
    "query-migrate-parameters",
    "query-migrate-capabilities",
    "hmp-migrate",
    "hmp-migrate-all",
    "hmp-network",
    "query-named-block-nodes",
    "query-block-exports",
    "query-chardev",
    "query-audiodevs",
    "query-tpm",
    "query-kvm",
    "query-accelerators",
    "query-cpus-fast",
    "query-memory-size-summary",
    "x-query-jit",
    "tun-flags",
)
_OBSERVER = ("qemu", "read", "as", "reads-as", "bulk", "bulk-as", "bit", "unobservable")


def read_observers(reader: Reader, tree: Mapping) -> dict[Key, tuple[Observer, ...]]:
    """Family → type or `*` → property or `*` → how it is read back, newest range first or not."""
    found: dict[Key, tuple[Observer, ...]] = {}
    reader.keys(tree, FAMILIES, FAMILIES)
    for family, types in reader.entries(tree, "observers"):
        for names, properties in reader.entries(types, family):
            for name, node in properties.items.items():
                entries = reader.list(node, f"{family} {names} {name}")
                observers = tuple(_observer(reader, entry) for entry in entries)
                for type_ in names.split():
                    found[family, type_, name] = observers
        if (family, "*", "*") not in found:
            reader.wrong(types.place, f"{family} has no fallback: add '*': {{'*': [...]}}")
    return found


def _observer(reader: Reader, node: object) -> Observer:
    entry = reader.mapping(node, "an observer")  # type: ignore[arg-type]
    if entry is None:
        return Observer(Range(), None)
    reader.keys(entry, _OBSERVER)
    if ("read" in entry.items) == ("unobservable" in entry.items):
        reader.wrong(entry.place, "an observer has either `read` or `unobservable`")
    bit = reader.text(entry, "bit") or "0"
    return Observer(
        knows=reader.range(entry),
        read=reader.choice(entry, "read", READERS, "") or None,
        as_=reader.text(entry, "as") or "",
        reads_as=reader.pairs(entry, "reads-as"),
        bulk=reader.text(entry, "bulk") or "",
        bulk_as=reader.text(entry, "bulk-as") or "",
        bit=_bit(reader, entry, bit),
        unobservable=reader.text(entry, "unobservable") or "",
    )


def _bit(reader: Reader, entry: Mapping, text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        reader.wrong(entry.items["bit"].place, "bit must be a number such as 0x4000")
        return 0


def read_syntax(reader: Reader, tree: Mapping) -> dict[str, Syntax]:
    """Option → where it exists, where it takes JSON, and what to mind in its keyval form."""
    found = {}
    for option, body in reader.entries(tree, "syntax"):
        reader.keys(body, ("exists", "json", "pitfalls", "ref"))
        pitfalls = reader.list(body.get("pitfalls"), "pitfalls")
        found[option] = Syntax(
            option,
            reader.range(body, "exists"),
            reader.range(body, "json") if "json" in body.items else None,
            tuple(p.text for p in pitfalls if isinstance(p, Scalar)),
            reader.text(body, "ref") or "",
        )
    return found


def read_hazards(reader: Reader, tree: Mapping) -> tuple[Hazard, ...]:
    """The QMP commands that end a live QEMU."""
    reader.keys(tree, ("hazards",), ("hazards",))
    found = []
    for node in reader.list(tree.get("hazards"), "hazards"):
        body = reader.mapping(node, "a hazard")
        if body is None:
            continue
        known = ("command", "arguments", "qemu", "effect", "ref")
        reader.keys(body, known, ("command", "effect", "ref"))
        found.append(
            Hazard(
                reader.text(body, "command") or "",
                reader.pairs(body, "arguments"),
                reader.range(body),
                reader.text(body, "effect") or "",
                reader.text(body, "ref") or "",
            )
        )
    return tuple(found)


def read_names(reader: Reader, tree: Mapping) -> dict[str, Name]:
    """Platform → the QEMU and the Linux of that distribution's release."""
    found = {}
    for name, body in reader.entries(tree, "names"):
        reader.keys(body, ("qemu", "linux", "ref"), ("qemu", "ref"))
        qemu = reader.version(body, "qemu")
        if qemu is not None:
            linux = reader.version(body, "linux")
            found[name] = Name(name, qemu, linux, reader.text(body, "ref") or "")
    return found
