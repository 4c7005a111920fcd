"""Reading the human monitor's text, where QMP has no answer. Pure."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def parse_migrate(text: str) -> dict[str, dict[str, str]]:
    """`info migrate` (until 10.2) and `info migrate -a` (11.1): `send-switchover-start: on`."""
    found = {}
    for line in text.splitlines():
        name, colon, value = line.partition(": ")
        if colon:
            found[name.strip()] = value.strip()
    return {"": found}


def parse_network(text: str) -> dict[str, dict[str, str]]:
    r"""`info network`: ` \ net0: index=0,type=tap,ifname=tap0,…` by netdev id."""
    found = {}
    for line in text.splitlines():
        name, colon, rest = line.lstrip(" \\").partition(": ")
        if not colon:
            continue
        members = (part.partition("=") for part in rest.split(","))
        found[name] = {key: value for key, equals, value in members if equals}
    return found


def parse_qtree(text: str) -> dict[str, dict[str, Any]]:
    """`info qtree`: the properties of each device that has an id.

    A virtio proxy such as virtio-net-pci keeps most values in its nested device without an id;
    those are given under the proxy's id, where the proxy has none of that name itself.
    """
    found: dict[str, dict[str, Any]] = {}
    owners: list[tuple[int, str]] = []  # (indentation, id) of the devices around this line
    # Where the lines go that follow: QEMU prints a device's properties before the buses below it
    # (qdev_print in softmmu/qdev-monitor.c).
    here: dict[str, Any] | None = None
    for line in text.splitlines():
        body = line.lstrip()
        if body.startswith("dev: "):
            indent = len(line) - len(body)
            kind, _, rest = body[5:].partition(", id ")
            key = rest.strip().strip('"')
            owners = [o for o in owners if o[0] < indent]
            if not key and owners and kind.startswith("virtio"):
                key = owners[-1][1]
            owners.append((indent, key))
            here = found.setdefault(key, {}) if key else None
        elif here is not None:
            name, equals, value = body.partition(" = ")
            if equals and name not in here:
                here[name] = _qtree_value(value)
    return found


def _qtree_value(text: str) -> Any:
    """Typed as qom-get's: `"text"`, `true`, `4 (0x4)` and `262144 (256 KiB)`."""
    if len(text) > 1 and text[0] == text[-1] == '"':
        return text[1:-1]
    if text in ("true", "false"):
        return text == "true"
    number, bracket, _ = text.partition(" (")
    digits = number.removeprefix("-")
    return int(number) if bracket and digits.isdigit() and len(digits) <= 20 else text


def parse_ram_blocks(text: str) -> dict[str, dict[str, int]]:
    """`info ramblock`: used and total bytes of each RAM block, by name.

    The name comes first and may hold blanks; newer releases have two columns more (an address of
    this process, and whether it is read-only).
    """
    found = {}
    for line in text.splitlines():
        numbers = [part for part in line.split() if part.startswith("0x")]
        name = line.partition(" KiB ")[0].partition(" MiB ")[0].partition(" GiB ")[0]
        name = name.strip().rpartition(" ")[0].strip()
        if len(numbers) >= 3 and name:
            used, total = (int(number, 16) for number in numbers[1:3])
            found[name] = {"used": used, "total": total}
    return found
