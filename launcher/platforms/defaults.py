"""What a platform pins as versioned defaults, in the terms of QEMU's QAPI schema. Pure.

The QAPI schema says of an optional member that it is optional, never what it is worth, and has no
word for a default that depends on a release. This is that table: command, type, member, default,
since which release, with the reference (asked for on qemu-devel in December 2025, RFC "QOM:
Introduce OBJECT_COMPAT class").
"""

from __future__ import annotations

from launcher.errors import Place
from launcher.nodes import Scalar, plain_value
from launcher.platforms.lookup import since
from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from launcher.platforms.catalogue import Cannot, Catalogue, Row, Write
    from launcher.platforms.resolve import Pin

    Json = dict[str, Any]

#: What a template stands for, in words.
TEMPLATES = {"${smp}": "the number of the machine's CPUs"}


@record
class Spot:
    """Where a family's members stand: the QMP command, its QAPI type, what tells the branches.

    `command` and `type` are None where QAPI does not describe the members; `option` is the one
    on the command line.
    """

    option: str
    command: str | None = None
    type: str | None = None
    discriminator: str | None = None


#: qapi/qom.json, net.json, char.json, block-core.json, block-export.json, migration.json,
#: audio.json as of QEMU 11.1. Accelerators, machines, devices and the migration object are QOM's:
#: device_add takes anything (`gen: false`), the others have no command at all.
SPOTS: dict[str, Spot] = {
    "object": Spot("-object", "object-add", "ObjectOptions", "qom-type"),
    "netdev": Spot("-netdev", "netdev_add", "Netdev", "type"),
    "chardev": Spot("-chardev", "chardev-add", "ChardevBackend", "type"),
    "blockdev": Spot("-blockdev", "blockdev-add", "BlockdevOptions", "driver"),
    "export": Spot("--export", "block-export-add", "BlockExportOptions", "type"),
    "migration-parameter": Spot("-global", "migrate-set-parameters", "MigrationParameters"),
    "migration-capability": Spot("-global", "migrate-set-capabilities", "MigrationCapability"),
    "audiodev": Spot("-audiodev", None, "Audiodev", "driver"),
    "tpmdev": Spot("-tpmdev", None, "TpmTypeOptions", "type"),
    "accel": Spot("-accel"),
    "machine": Spot("-machine"),
    "device": Spot("-device"),
    "migration-property": Spot("-global"),
}


def typed_default(text: str, kin: tuple[str | None, ...]) -> Any:
    """A value of the data as QAPI types it: `off` is false, unless its kin are words, too.

    Args:
        text: as on QEMU's command line.
        kin: the values that the property has had; `on` beside `auto` is QAPI's OnOffAuto.
    """
    values = [_plain(word) for word in (*kin, text) if word is not None and word not in TEMPLATES]
    alike = all(type(value) is type(values[0]) for value in values)
    return _plain(text) if alike else text


def _plain(text: str) -> Any:
    return plain_value(Scalar(text, Place("platform")))


def versioned_default(catalogue: Catalogue, pin: Pin) -> Json:
    """One pinned value as a row of the table, ready for JSON."""
    chain = catalogue.rows((pin.family, pin.type, pin.property))
    kin = tuple(word for row in chain for word in (row.was, row.now))
    spot = SPOTS[pin.family]
    limits: list[tuple[Cannot | Write, str | None]] = [(c, None) for c in pin.row.cannot]
    limits += [(entry, entry.write) for entry in pin.row.translate]
    return {
        "family": pin.family,
        "option": spot.option,
        "command": spot.command,
        "type": spot.type,
        "discriminator": spot.discriminator,
        "case": pin.type if spot.command is None or spot.discriminator else None,
        "member": pin.property,
        "default": typed_default(pin.value, kin),
        "since": since(catalogue, pin.family, pin.type, pin.property),
        "known": {"from": _said(pin.knows.from_), "until": _said(pin.knows.until)},
        "axis": pin.axis,
        "versions": _versions(chain, kin),
        "when": {name: [*values] for name, values in pin.row.when},
        "needs": pin.row.needs,
        "limits": [
            {
                "known": {"from": _said(limit.knows.from_), "until": _said(limit.knows.until)},
                "default": typed_default(limit.value, kin),
                "write": None if write is None else typed_default(write, kin),
                "because": limit.because,
            }
            for limit, write in limits
        ],
        "affects": pin.row.affects,
        "why": pin.reason,
        "reference": pin.row.ref,
    }


def _said(version: object) -> str | None:
    return None if version is None else str(version)


def _versions(chain: tuple[Row, ...], kin: tuple[str | None, ...]) -> list[Json]:
    """Every default that the property has had, oldest first; null is left to others."""
    found: list[Json] = []
    for row in chain:
        if not found and row.was is not None:
            found.append({"since": None, "default": typed_default(row.was, kin)})
        now = None if row.now is None else typed_default(row.now, kin)
        if not found or found[-1]["default"] != now:
            found.append({"since": _said(row.release), "default": now})
    return found
