"""`platform defaults`: what a platform pins, as data in QAPI's own terms or as JSON Schema."""

from __future__ import annotations

from launcher.cli.options import add_format, add_qemu
from launcher.cli.show import json_text, out, out_json
from launcher.errors import HostError, InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from launcher.capabilities import Capabilities
    from launcher.plan.defaults import Here
    from launcher.platforms import Catalogue, Pin, Platform

    Json = dict[str, Any]


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `platform defaults`."""
    parser.add_argument("platform", metavar="P", help="a platform's name or file")
    add_qemu(parser)
    parser.add_argument(
        "--schema",
        action="store_true",
        help="print the JSON Schema of that binary's QMP commands, with the defaults filled in",
    )
    add_format(parser, ("text", "json", "yaml"))
    parser.set_defaults(run=show)


def show(options: argparse.Namespace) -> int:
    """Print a platform's versioned defaults.

    Raises:
        InputError: the platform is not known, or `--schema` was given without a binary.
        HostError: the binary cannot do what the platform asks.
    """
    from launcher.cli.options import platform_named
    from launcher.data import load_catalogue
    from launcher.platforms import resolve

    if options.schema and not options.qemu:
        raise InputError(
            "the schema is made of a binary's own, and none was named",
            hint=f"qemu-launcher platform defaults {options.platform} --schema "
            "--qemu qemu-system-x86_64",
            code="usage",
        )
    catalogue = load_catalogue()
    platform = platform_named(catalogue, options.platform)
    pins = list(resolve(catalogue, platform).values())
    capabilities = _capabilities(catalogue, options.qemu, pins) if options.qemu else None
    if not options.schema:
        _print(_table(catalogue, platform, pins, capabilities), options.format)
        return 0
    from launcher.plan.defaults import defaults_on, schema_with_defaults

    assert capabilities is not None
    here = defaults_on(pins, catalogue, capabilities)
    _refuse(here, platform, capabilities)
    written = schema_with_defaults(here, capabilities, f"platform {platform.name}")
    if options.format == "yaml":
        _out_yaml(written)
    else:
        out(json_text(written, pretty=True))
    return 0


def _capabilities(catalogue: Catalogue, named: str, pins: list[Pin]) -> Capabilities:
    """What the binary says of itself, of the types that are pinned in particular."""
    import asyncio

    from launcher.capabilities import Capabilities
    from launcher.prepare import hazardous_types
    from launcher.probe import find_binary, replies_of

    binary, hazards = find_binary(named), hazardous_types(catalogue)
    found = Capabilities(asyncio.run(replies_of(binary, (), hazards)))
    types = found.unrecorded({pin.type for pin in pins})
    return Capabilities(asyncio.run(replies_of(binary, types, hazards))) if types else found


def _refuse(here: list[Here], platform: Platform, capabilities: Capabilities) -> None:
    """A schema that leaves out what the platform promises would be another platform's.

    Raises:
        HostError: the binary cannot have some value.
    """
    wrong = [f"{h.pin.family} {h.pin.type}: {h.reason}" for h in here if h.status == "impossible"]
    if wrong:
        raise HostError(
            f"platform {platform.name} cannot be had of QEMU {capabilities.version}: {wrong[0]}"
            + (f"; and {len(wrong) - 1} more" if len(wrong) > 1 else ""),
            hint="without --schema the table tells all of them",
            evidence={"reasons": wrong},
            code="runability",
        )


def _table(
    catalogue: Catalogue, platform: Platform, pins: list[Pin], capabilities: Capabilities | None
) -> Json:
    from launcher.platforms.defaults import versioned_default

    rows = [versioned_default(catalogue, pin) for pin in pins]
    table: Json = {
        "platform": platform.name,
        "qemu": str(platform.qemu) if platform.qemu else None,
        "linux": str(platform.linux) if platform.linux else None,
        "binary": None,
        "defaults": rows,
    }
    if capabilities is not None:
        from launcher.plan.defaults import defaults_on

        table["binary"] = {"tool": capabilities.tool, "version": capabilities.version}
        for row, here in zip(rows, defaults_on(pins, catalogue, capabilities), strict=True):
            row["here"] = {
                "status": here.status,
                "member": here.member,
                "default": here.default,
                "reason": here.reason or None,
            }
    return table


def _print(table: Json, form: str) -> None:
    if form == "json":
        out_json(table)
    elif form == "yaml":
        _out_yaml(table)
    else:
        _out_text(table)


def _out_yaml(value: Json) -> None:
    import yaml

    out(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100).rstrip())


def _out_text(table: Json) -> None:
    from launcher.report import table as aligned

    rows = table["defaults"]
    floors = [f"{word} {table[key]}" for word, key in (("QEMU", "qemu"), ("Linux", "linux"))]
    floors = [floor for floor in floors if not floor.endswith(" None")]
    out(f"{table['platform']}: {', '.join(floors) or 'no floor'}; {len(rows)} defaults")
    if not rows:
        return
    binary = table["binary"]
    head = ["command", "type", "member", "default", "since", "affects", "reference"]
    if binary is not None:
        head.insert(4, binary["version"])
    out(aligned([_cells(row, binary is not None) for row in rows], head, {}))


def _cells(row: Json, here: bool) -> list[str]:
    spot = row["command"] or (
        f"{row['option']} migration" if row["case"] is None else row["option"]
    )
    cells = [spot, row["case"] or "-", row["member"], json_text(row["default"], pretty=False)]
    if here:
        found = row["here"]
        written = found["status"] == "written"
        cells.append(json_text(found["default"], pretty=False) if written else found["status"])
    return [*cells, row["since"] or "-", row["affects"], row["reference"]]
