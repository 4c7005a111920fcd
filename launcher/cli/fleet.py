"""`fleet`: the hosts behind a broker, all of them at once. Its verbs are in the modules below.

fleet.py         the words, and which function does it
fleet_look.py    ls, facts, platform
fleet_do.py      start, stop, query, qmp, migrate
fleet_all.py     verify, drain: many commands
fleet_watch.py   watch
fleet_text.py    what they show
"""

from __future__ import annotations

from launcher.cli.options import add_format, seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from typing import Any


#: Verb → (module, what it does, an example).
WORDS = {
    "ls": ("look", "hosts and their machines", "fleet ls --broker mqtt://127.0.0.1"),
    "facts": ("look", "what hosts can do", "fleet facts h1 --format json"),
    "platform": ("look", "the platform that all hosts share", "fleet platform -o common.yaml"),
    "start": ("do", "start a machine on a host", "fleet start h1 web --platform debian-12"),
    "stop": ("do", "stop machines of a host, the kind way first", "fleet stop h1 web"),
    "query": ("do", "what an agent knows of its machines", "fleet query h1 web"),
    "qmp": ("do", "send one QMP command that a host's policy allows", "fleet qmp h1 web query-kvm"),
    "verify": ("all", "read every machine back, list what is not as planned", "fleet verify h1"),
    "migrate": ("do", "move a machine to another host", "fleet migrate h1 web --to h2"),
    "drain": ("all", "move every machine of a host away", "fleet drain h1 --to h2 --to h3"),
    "watch": ("watch", "hosts and machines as they change", "fleet watch"),
}


def arguments(parser: argparse.ArgumentParser, _verb: str) -> None:
    """The options of `fleet` and its verbs."""
    verbs = parser.add_subparsers(metavar="|".join(WORDS), required=True, dest="what")
    for word, (_module, what, example) in WORDS.items():
        epilog = f"example:\n  qemu-launcher {example}"
        sub = verbs.add_parser(
            word, help=what, description=f"{what[0].upper()}{what[1:]}.", epilog=epilog
        )
        _ADD[word](sub)
        _common(sub, word)
        sub.set_defaults(run=fleet)


def _common(parser: argparse.ArgumentParser, word: str) -> None:
    from launcher.cli.agent import add_broker

    add_broker(parser)
    add = parser.add_argument
    add("--client", default="", metavar="ID", help="our name in the topic of answers; by default U")
    if word != "watch":
        most = 600.0 if word in ("migrate", "drain") else 60.0
        add(
            "--timeout",
            type=seconds,
            default=most,
            metavar="S",
            help=f"seconds for each answer; by default {most:g}",
        )
    if word in ("start", "stop", "query", "qmp", "migrate"):
        add("--wait", action="store_true", help="wait for a host that is away")
    add_format(parser)


def _hosts(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("hosts", nargs="*", metavar="HOST", help="by default all")


def _platform(parser: argparse.ArgumentParser) -> None:
    from launcher.cli.meet import add_result

    _hosts(parser)
    add_result(parser)


def _start(parser: argparse.ArgumentParser) -> None:
    from launcher.cli.options import add_request

    add = parser.add_argument
    add("host", metavar="HOST", help="where")
    add("profile", metavar="PROFILE", help="its name on that host, or a file here, which is sent")
    add("--name", default="", metavar="N", help="what to call the machine")
    add_request(parser)
    add("--locked", action="store_true", help="keep the lock file beside the profile, or refuse")
    add("--verify", choices=("strict", "warn"), help="by default the profile's")


def _stop(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("host", metavar="HOST", help="where")
    parser.add_argument("machines", nargs="+", metavar="MACHINE", help="which")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--now", action="store_true", help="do not ask the guest: quit QEMU")
    how.add_argument("--force", action="store_true", help="kill QEMU (SIGKILL)")


def _query(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("host", metavar="HOST", help="where")
    parser.add_argument("machine", nargs="?", metavar="MACHINE", help="by default all")


def _qmp(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("host", metavar="HOST", help="where")
    add("machine", metavar="MACHINE", help="which")
    add("command", metavar="COMMAND", help="such as query-status")
    add("arguments", nargs="?", metavar="JSON", help="its arguments, an object")


def _migrate(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("host", metavar="HOST", help="where it runs")
    add("machine", metavar="MACHINE", help="which")
    add("--to", required=True, metavar="HOST", help="where to")
    add("--force", action="store_true", help="though the preflight finds a break")


def _drain(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("host", metavar="HOST", help="to be emptied")
    add(
        "--to",
        action="append",
        required=True,
        metavar="HOST",
        help="may take machines; repeated, in the order in which they are asked",
    )
    add("--force", action="store_true", help="though a preflight finds a break")


def _watch(parser: argparse.ArgumentParser) -> None:
    _hosts(parser)
    parser.add_argument(
        "--for",
        dest="seconds",
        type=seconds,
        metavar="S",
        help="end after so many seconds; by default at Ctrl-C",
    )


_ADD: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    "ls": _hosts,
    "facts": _hosts,
    "platform": _platform,
    "verify": _hosts,
    "start": _start,
    "stop": _stop,
    "query": _query,
    "qmp": _qmp,
    "migrate": _migrate,
    "drain": _drain,
    "watch": _watch,
}


#: Seconds to see all that is retained. A broker that is silent is told sooner: to connect, and to
#: answer each thing that we say, it has ten (launcher/bus/broker.py).
_LOOK = 60.0


def fleet(options: argparse.Namespace) -> int:
    """Do what one of the verbs says.

    Raises:
        LauncherError: it could not be done.
    """
    import gc

    from launcher.cli.agent import broker_of
    from launcher.cli.broker_file import fill, path
    from launcher.errors import InputError

    gc.enable()
    fill(options)
    if not options.broker:
        hint = f"--broker mqtt://HOST, QEMU_LAUNCHER_BROKER, or `broker:` in {path()[0]}"
        raise InputError("no broker is named", hint=hint, code="usage")
    broker = broker_of(options)
    import asyncio

    from launcher.fleet.client import Fleet

    verb: Any = __import__(f"launcher.cli.fleet_{WORDS[options.what][0]}", fromlist=["VIEWS"])
    view = verb.VIEWS[options.what](options)

    async def work() -> int:
        _hush()
        async with Fleet(broker, options.client, view, _LOOK) as found:
            status: int = await verb.VERBS[options.what](found, options)
            return status

    return asyncio.run(work())


def _hush() -> None:
    """Let the MQTT library keep to itself that a connection ended: we tell it in our own words.

    It logs that, and adds a socket to the loop that may be closed by then.
    """
    import asyncio
    import logging

    logging.getLogger("mqtt").setLevel(logging.CRITICAL)

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not isinstance(context.get("exception"), OSError):
            loop.default_exception_handler(context)

    asyncio.get_running_loop().set_exception_handler(handle)
