"""`check`: the mistakes of any number of profiles, all of them."""

from __future__ import annotations

from launcher.cli.options import add_format, add_request
from launcher.cli.plan import request_of
from launcher.cli.show import out, out_json, show_error
from launcher.display import printable
from launcher.errors import InputError, LauncherError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from launcher.prepare import Request


def arguments(parser: argparse.ArgumentParser, _verb: str) -> None:
    """The options of `check`."""
    parser.add_argument("profiles", nargs="+", metavar="PROFILE", help="profiles' files")
    parser.add_argument(
        "--no-qemu",
        action="store_true",
        help="check the files alone, not against what a QEMU binary knows",
    )
    parser.add_argument(
        "--no-host",
        action="store_true",
        help="check for another host: ask nothing of this one",
    )
    add_request(parser)
    add_format(parser)
    parser.set_defaults(run=check)


def check(options: argparse.Namespace) -> int:
    """Check each profile; the exit status is that of the worst mistake."""
    status = 0
    found: list[dict[str, Any]] = []
    for path in options.profiles:
        entry: dict[str, Any] = {"file": path, "ok": True, "qemu": None, "errors": []}
        found.append(entry)
        lock = path.endswith(".lock.yaml")  # `check *.yaml` finds them beside their profiles
        try:
            entry["qemu"] = None if lock else _check_one(request_of(options, path), options)
            if lock:
                _check_lock(path)
        except LauncherError as error:
            status = max(status, error.exit_status)
            entry["ok"] = False
            mistakes = getattr(error, "mistakes", None) or (error,)
            entry["errors"] = [one.as_json() for one in mistakes]
            if options.format == "text":
                show_error(error)
            continue
        if options.format == "text":
            against = f"against QEMU {entry['qemu']}" if entry["qemu"] else "without a QEMU"
            against = "a lock file" if lock else against
            out(f"{printable(path)}: ok ({against})")
    if options.format == "json":
        out_json({"files": found})
    return status


def _check_lock(path: str) -> None:
    from launcher.lock_files import load_lock

    load_lock(path)


def _check_one(request: Request, options: argparse.Namespace) -> str | None:
    """Check one profile; the version of the QEMU that it was checked against, None for none."""
    from launcher.data import load_catalogue
    from launcher.prepare import choose_platform, load, load_profile, prepare_now

    if not options.no_qemu:
        try:
            loaded = load(request)
        except InputError as error:
            # Without any QEMU on this machine the file can still be checked; a binary that the
            # user names must be there.
            if error.code != "binary" or request.qemu:
                raise
        else:
            return prepare_now(loaded, ask_host=not options.no_host).plan.version
    choose_platform(load_catalogue(), load_profile(request).platform)
    return None
