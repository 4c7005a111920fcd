"""`agent`: serve this host's machines behind an MQTT broker."""

from __future__ import annotations

import os

from launcher.cli.options import add_format
from launcher.cli.show import out, out_json
from launcher.errors import HostError, InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from launcher.agent.agent import Agent, Settings
    from launcher.bus.broker import Broker


def add_broker(parser: argparse.ArgumentParser) -> None:
    """Where the broker is and who we are to it."""
    add = parser.add_argument
    usual = os.environ.get("QEMU_LAUNCHER_BROKER", "")
    add(
        "--broker",
        default=usual,
        metavar="URL",
        help="mqtt://HOST[:PORT], mqtts://… or unix:///PATH; by default $QEMU_LAUNCHER_BROKER",
    )
    add("--username", default="", metavar="U", help="who we are to the broker")
    add("--password-file", default="", metavar="FILE", help="a file that holds the password")
    add("--ca-file", default="", metavar="FILE", help="certificates that sign the broker's")
    add("--cert-file", default="", metavar="FILE", help="our own certificate")
    add("--key-file", default="", metavar="FILE", help="its key, where it is not in the same file")


def broker_of(options: argparse.Namespace) -> Broker:
    """What the options of `add_broker` say.

    Raises:
        InputError: no broker is named.
        HostError: what speaks MQTT is not installed.
    """
    if not options.broker:
        hint = "--broker mqtt://HOST, or QEMU_LAUNCHER_BROKER in the environment"
        raise InputError("no broker is named", hint=hint, code="usage")
    try:
        from launcher.bus.broker import Broker
    except ImportError as error:
        raise HostError(
            f"{error.name} is not installed, and speaks to the broker",
            hint="pip install 'qemu-launcher[agent]'",
            code="missing",
        ) from None
    names = ("username", "password_file", "ca_file", "cert_file", "key_file")
    return Broker(options.broker, *(getattr(options, name) for name in names))


def arguments(parser: argparse.ArgumentParser, _verb: str) -> None:
    """The options of `agent`."""
    add = parser.add_argument
    add_broker(parser)
    add("--host-id", default="", metavar="ID", help="this host's id; by default its node name")
    add("--profiles", default="", metavar="DIR", help="the profiles that commands may name")
    add("--policy", default="", metavar="FILE", help="what others may start (docs/agent.md)")
    add("--state", default="", metavar="DIR", help="where the agent keeps its journal")
    add(
        "--pool",
        action="append",
        default=[],
        metavar="ID",
        help="take starts that any host of this pool may take; may be repeated",
    )
    add("--metrics", default="", metavar="PORT", help="serve Prometheus on loopback (ADDRESS:PORT)")
    add("--check", action="store_true", help="tell what the broker lets this agent do, and end")
    add_format(parser)
    parser.set_defaults(run=agent)


def agent(options: argparse.Namespace) -> int:
    """Serve until a signal comes; machines go on after that."""
    import asyncio
    import gc

    gc.enable()
    settings = _settings(options)
    if options.check:
        from launcher.agent.probe import check_broker

        found = asyncio.run(check_broker(settings))
        return _show_check(found, options.format)
    from launcher.agent.agent import Agent

    metrics = None
    if options.metrics:
        from launcher.agent.scrape import parse_place

        metrics = parse_place(options.metrics)
    lock = _hold_host()
    try:
        return asyncio.run(_serve(Agent, settings, metrics))
    finally:
        os.close(lock)


async def _serve(make: type[Agent], settings: Settings, metrics: tuple[str, int] | None) -> int:
    import asyncio
    import signal

    from launcher.notify import notifier

    serving = make(settings, notifier())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, serving.stop)
    if metrics is None:
        await serving.run()
        return 0
    from launcher.agent.scrape import Scrape
    from launcher.agent.telling import log

    async with Scrape(metrics, serving.metrics) as scrape:
        log("metrics at http://{}:{}/metrics".format(*scrape.place))
        await serving.run()
    return 0


def _settings(options: argparse.Namespace) -> Settings:
    broker = broker_of(options)
    from launcher.agent.agent import Settings
    from launcher.agent.policy import Policy, parse_policy
    from launcher.bus.topics import check_id

    policy = Policy()
    if options.policy:
        from launcher.files import read_yaml

        policy = parse_policy(read_yaml(options.policy))
    if options.profiles and not os.path.isdir(options.profiles):
        raise InputError(f"there is no folder {options.profiles}", code="file")
    host = check_id(options.host_id or os.uname().nodename.lower().partition(".")[0], "a host's id")
    profiles = os.path.abspath(options.profiles) if options.profiles else ""
    pools = tuple(check_id(pool, "a pool's id") for pool in options.pool)
    return Settings(broker, host, options.state or state_folder(), profiles, policy, pools)


def state_folder() -> str:
    """Where an agent's journal is by default: `$XDG_STATE_HOME/qemu-launcher/agent`."""
    base = os.environ.get("XDG_STATE_HOME", "")
    if not base.startswith("/"):
        base = os.path.expanduser("~/.local/state")
    return os.path.join(base, "qemu-launcher", "agent")


def _hold_host() -> int:
    """One agent for the machines of one user: a second would see its machines as nobody's.

    Raises:
        HostError: there is one.
    """
    import fcntl

    from launcher.host.private import open_private
    from launcher.host.runtime import runtime_path

    folder = open_private(runtime_path())
    try:
        # No machine can have that name.
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(".agent", flags, 0o600, dir_fd=folder)
    finally:
        os.close(folder)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        words = "another agent has the machines of this user"
        raise HostError(words, hint="end it first", code="busy") from None
    return fd


def _show_check(found: list[dict[str, Any]], form: str) -> int:
    good = all(one["good"] for one in found)
    if form == "json":
        out_json({"good": good, "checks": found})
    else:
        for one in found:
            out(f"{'good' if one['good'] else 'BAD '}  {one['what']}: {one['found']}")
    return 0 if good else 1
