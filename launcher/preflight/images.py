"""How large a block node is: which file decides it, or what its own words say."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.preflight.options import Entry
    from launcher.preflight.side import Side

#: In front of a file whose guest sees another size than the file has, as its header says.
QCOW2 = "qcow2:"
#: A null node's size when nobody gives one (block/null.c).
_NULL = 1 << 30
_MOST_LAYERS = 8


def image_of(side: Side, node: Entry) -> tuple[str, int | None]:
    """The file whose size is the node's, as `Side.sizes` has it, and a size that is known so.

    Either may be empty: then nothing is claimed.
    """
    kind, members = node.type, dict(node.members)
    for _ in range(_MOST_LAYERS):
        size = members.get("size", "")
        if kind.startswith("null-"):
            return "", int(size) if size.isdecimal() else _NULL
        if kind == "raw" and size.isdecimal():
            return "", int(size)
        if kind == "file":
            return members.get("filename", ""), None
        if kind not in ("raw", "qcow2") or members.get("offset", "0") != "0":
            break
        below = {
            name.removeprefix("file."): value
            for name, value in members.items()
            if name.startswith("file.")
        }
        if not below:
            other = side.find("blockdev", members.get("file", ""))
            if other is None:
                break
            below = {"driver": other.type, **other.members}
        if kind == "qcow2":
            file = below.get("filename", "") if below.get("driver") == "file" else ""
            return (f"{QCOW2}{file}" if file else ""), None
        kind, members = below.get("driver", ""), below
    return "", None
