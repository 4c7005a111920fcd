"""`plan`: what would be started, and who set each value. Starts nothing."""

from __future__ import annotations

import os

from launcher.cli.options import add_format, add_locked, add_request
from launcher.cli.show import out, out_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser, _verb: str) -> None:
    """The options of `plan`."""
    parser.add_argument("profile", metavar="PROFILE", help="a profile's file")
    parser.add_argument("--explain", action="store_true", help="show each value and its origin")
    parser.add_argument(
        "--no-host",
        action="store_true",
        help="plan for another host: ask nothing of this one",
    )
    add_locked(parser)
    add_request(parser)
    add_format(parser, ("text", "json", "argv"))
    parser.set_defaults(run=plan)


def plan(options: argparse.Namespace) -> int:
    """Print the plan of a profile."""
    from launcher.command import render_helper, render_standalone
    from launcher.host.runtime import runtime_path
    from launcher.prepare import load, prepare_now
    from launcher.report import argv_text, plan_json, plan_text

    prepared = prepare_now(load(request_of(options)), ask_host=not options.no_host)
    made = prepared.plan
    runtime = os.path.join(runtime_path(), made.name)
    argv = render_standalone(made, runtime)
    helpers = [render_helper(helper, None, runtime) for helper in made.helpers]
    if options.format == "json":
        out_json(plan_json(made, argv, helpers))
    elif options.format == "argv":
        out(argv_text(argv))
    else:
        out(plan_text(made, argv, helpers, explain=options.explain))
    return 0


def request_of(options: argparse.Namespace, profile: str = "") -> Request:
    """What the options of `add_request` ask for."""
    from launcher.prepare import Request

    path = profile or options.profile
    if ".lock." in path:
        from launcher.lock_files import lock_path

        lock_path(path)  # which refuses a lock file in the place of its profile
    lock = getattr(options, "lock", "")
    if not lock and getattr(options, "locked", False):
        from launcher.lock_files import lock_path

        lock = lock_path(path)
    settings = tuple(options.set)
    return Request(path, options.platform, options.qemu, settings, lock=lock)


if TYPE_CHECKING:
    from launcher.prepare import Request
