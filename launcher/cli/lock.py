"""`lock`: write a profile's lock file, ask what moved since, compare two lock files."""

from __future__ import annotations

from launcher.cli.options import add_format, add_request
from launcher.cli.show import note, out, out_json
from launcher.display import printable
from launcher.errors import InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from launcher.locking.start import Locking
    from launcher.locks.compare import Moved

_NOTHING = "-"


def arguments(parser: argparse.ArgumentParser, _verb: str) -> None:
    """The options of `lock`."""
    add = parser.add_argument
    add(
        "files",
        nargs="+",
        metavar="PROFILE",
        help="a profile's file; with --diff two lock files",
    )
    add("--check", action="store_true", help="tell what moved since; exit 1 if something did")
    add("--diff", action="store_true", help="compare two lock files; exit 1 if they differ")
    add("-o", "--output", default="", metavar="FILE", help="the lock file; by default beside it")
    add_request(parser)
    add_format(parser)
    parser.set_defaults(run=lock)


def lock(options: argparse.Namespace) -> int:
    """Lock, check or compare, as the options say."""
    wanted = 2 if options.diff else 1
    if len(options.files) != wanted or (options.check and options.diff):
        raise InputError(
            "--diff takes two lock files" if options.diff else "lock takes one profile",
            hint="`lock web.yaml`, or `lock --diff old.lock.yaml new.lock.yaml`",
            code="usage",
        )
    if options.diff:
        return _diff(options)
    return _check(options) if options.check else _write(options)


def _write(options: argparse.Namespace) -> int:
    """Start paused, read everything back, write the file; the guest runs no instruction."""
    import asyncio

    from launcher.cli.plan import request_of
    from launcher.cli.verify import while_paused
    from launcher.lock_files import check_replaceable, lock_path
    from launcher.locking.start import prepare_lock, read_back, write_lock

    profile = options.files[0]
    path = options.output or lock_path(profile)
    check_replaceable(path)
    prepared = asyncio.run(prepare_lock(request_of(options, profile)))
    written = write_lock(path, while_paused(prepared, read_back))
    if options.format == "json":
        out_json({"file": written.file, "lock": written.document})
        return 0
    out(_told(written))
    return 0


def _told(written: Locking) -> str:
    counts, plan = written.report.counts, written.report.plan
    values = len(written.report.judged)
    return (
        f"{printable(written.file)}: {values} values of {plan.name} on QEMU {plan.version}, "
        f"{counts['match']} observed, {counts['unobservable']} unobservable"
    )


def _check(options: argparse.Namespace) -> int:
    import asyncio

    from launcher.lock_files import lock_path
    from launcher.locking.moved import moved

    path = options.output or lock_path(options.files[0])
    found = asyncio.run(
        moved(
            options.files[0],
            platform=options.platform,
            qemu=options.qemu,
            settings=tuple(options.set),
            file=path,
        )
    )
    if options.format == "json":
        out_json({"lock": path, "moved": [one.as_json() for one in found]})
    elif found:
        _show(found, ("what", "name", "locked", "now"))
    else:
        out(f"{printable(path)}: nothing moved")
    return 1 if found else 0


def _diff(options: argparse.Namespace) -> int:
    from launcher.lock_files import load_lock
    from launcher.locks.compare import differences

    for name in ("platform", "qemu", "set", "output"):
        if getattr(options, name):
            raise InputError(f"--{name} is for a profile; --diff reads two files", code="usage")
    one, two = options.files
    found = differences(load_lock(one), load_lock(two))
    if options.format == "json":
        rows = [{"what": m.what, "name": m.name, "old": m.locked, "new": m.now} for m in found]
        out_json({"old": one, "new": two, "differences": rows})
    elif found:
        _show(found, ("what", "name", one, two))
    else:
        note(f"{one} and {two} say the same")
    return 1 if found else 0


def _show(found: Sequence[Moved], head: tuple[str, ...]) -> None:
    from launcher.display import printable
    from launcher.report import as_text, table
    from launcher.report.text import shorten

    rows = [
        (
            one.what,
            printable(one.name) or _NOTHING,
            _NOTHING if one.locked is None else shorten(one.locked),
            _NOTHING if one.now is None else printable(as_text(one.now)),
        )
        for one in found
    ]
    out(table(rows, head, {}))
