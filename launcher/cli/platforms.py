"""`platform` and its verbs: what platforms pin."""

from __future__ import annotations

from launcher.cli import defaults, meet
from launcher.cli.options import add_format, platform_named
from launcher.cli.show import out, out_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from launcher.platforms import Pin, Platform

    Key = tuple[str, str, str]


def arguments(parser: argparse.ArgumentParser, _verb: str) -> None:
    """The options of `platform` and its verbs."""
    known = "list|show|diff|defaults|meet"
    verbs = parser.add_subparsers(metavar=known, required=True, dest="what")
    listing = verbs.add_parser("list", help="all named platforms")
    listing.set_defaults(run=list_platforms)
    showing = verbs.add_parser("show", help="every value that a platform pins")
    showing.add_argument("platform", metavar="P", help="a platform's name or file")
    showing.add_argument("--explain", action="store_true", help="tell why, and where it is from")
    showing.set_defaults(run=show)
    comparing = verbs.add_parser("diff", help="what differs between two platforms")
    for name in ("a", "b"):
        comparing.add_argument(name, metavar=name.upper(), help="a platform's name or file")
    comparing.set_defaults(run=diff)
    defaults.arguments(verbs.add_parser("defaults", help="its values in QAPI's own terms"))
    meet.arguments(verbs.add_parser("meet", help="the platform that a set of hosts shares"))
    for each in (listing, showing, comparing):
        add_format(each)


def list_platforms(options: argparse.Namespace) -> int:
    """List the named platforms, and what else `platform:` takes."""
    from launcher.data import load_catalogue

    catalogue = load_catalogue()
    names = sorted(catalogue.names.values(), key=lambda n: _by_number(n.name))
    if options.format == "json":
        listed = [
            {
                "name": n.name,
                "qemu": str(n.qemu),
                "linux": str(n.linux) if n.linux else None,
                "ref": n.ref,
            }
            for n in names
        ]
        floors = {"oldest": str(catalogue.oldest), "newest": str(catalogue.newest)}
        out_json({"platforms": listed, "qemu": floors})
        return 0
    from launcher.report import table

    rows = [(n.name, str(n.qemu), str(n.linux or "-"), n.ref) for n in names]
    out(table(rows, ("name", "qemu", "linux", "reference"), {}))
    out(f"qemu-{catalogue.oldest} to qemu-{catalogue.newest}: a QEMU release alone, no Linux")
    out("native: nothing is pinned")
    out("FILE.yaml: a site's own platform")
    return 0


def _by_number(name: str) -> tuple[str, tuple[int, ...]]:
    """`rhel-9.2` before `rhel-10.0`."""
    from launcher.platforms.versions import release_numbers  # --help needs none of that room

    family, _, release = name.partition("-")
    return family, release_numbers(release.partition("-")[0])


def show(options: argparse.Namespace) -> int:
    """Show every value that a platform pins."""
    from launcher.data import load_catalogue
    from launcher.platforms import resolve

    catalogue = load_catalogue()
    platform = platform_named(catalogue, options.platform)
    pins = list(resolve(catalogue, platform).values())
    if options.format == "json":
        out_json(
            {
                "name": platform.name,
                "qemu": str(platform.qemu) if platform.qemu else None,
                "linux": str(platform.linux) if platform.linux else None,
                "ref": platform.ref or None,
                "values": [_pin_json(pin) for pin in pins],
            }
        )
        return 0
    from launcher.report import table

    floors = [f"{word} {floor}" for word, floor in _floors(platform) if floor is not None]
    out(f"{platform.name}: {', '.join(floors) or 'no floor'}; {len(pins)} values are pinned")
    head = ["family", "type", "property", "value", "affects"]
    more = ["why", "reference"] if options.explain else []
    rows = [
        [
            *(pin.family, pin.type, pin.property, pin.value, pin.row.affects),
            *([pin.reason, pin.row.ref] if options.explain else []),
        ]
        for pin in pins
    ]
    if rows:
        out(table(rows, [*head, *more], {}))
    return 0


def _floors(platform: Platform) -> tuple[tuple[str, Any], ...]:
    return (("QEMU", platform.qemu), ("Linux", platform.linux))


def _pin_json(pin: Pin) -> dict[str, Any]:
    return {
        "family": pin.family,
        "type": pin.type,
        "property": pin.property,
        "value": pin.value,
        "axis": pin.axis,
        "affects": pin.row.affects,
        "known": str(pin.knows),
        "needs": pin.row.needs,
        "why": pin.reason,
        "ref": pin.row.ref,
    }


def diff(options: argparse.Namespace) -> int:
    """Show what differs between two platforms."""
    from launcher.data import load_catalogue
    from launcher.platforms import resolve

    catalogue = load_catalogue()
    sides = [platform_named(catalogue, options.a), platform_named(catalogue, options.b)]
    first, second = (resolve(catalogue, platform) for platform in sides)
    changes = [
        _change(key, first.get(key), second.get(key))
        for key in sorted({*first, *second})
        if _value(first.get(key)) != _value(second.get(key))
    ]
    if options.format == "json":
        out_json({"a": sides[0].name, "b": sides[1].name, "changes": changes})
        return 0
    if not changes:
        out(f"{sides[0].name} and {sides[1].name} pin the same values")
        return 0
    from launcher.report import table

    rows = [
        [
            *(str(c["family"]), str(c["type"]), str(c["property"])),
            *(_cell(c["a"]), _cell(c["b"]), str(c["affects"]), str(c["ref"])),
        ]
        for c in changes
    ]
    head = ("family", "type", "property", sides[0].name, sides[1].name, "affects", "reference")
    out(table(rows, head, {}))
    return 0


def _value(pin: Pin | None) -> str | None:
    return None if pin is None else pin.value


def _cell(value: Any) -> str:
    return "(not pinned)" if value is None else str(value)


def _change(key: Key, a: Pin | None, b: Pin | None) -> dict[str, Any]:
    known = b or a
    assert known is not None
    return {
        "family": key[0],
        "type": key[1],
        "property": key[2],
        "a": _value(a),
        "b": _value(b),
        "affects": known.row.affects,
        "why": known.row.why,
        "ref": known.row.ref,
    }
