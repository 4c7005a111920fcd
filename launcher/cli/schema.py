"""`schema` and `completion`: what editors and shells want to know."""

from __future__ import annotations

from launcher.cli.options import add_qemu
from launcher.cli.show import json_text, out
from launcher.errors import HostError, InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """The options of one of the verbs."""
    if verb == "schema":
        add_qemu(parser)
        parser.add_argument("--lock", action="store_true", help="of lock files, not of profiles")
        parser.add_argument(
            "--asyncapi",
            action="store_true",
            help="the topics and messages of agents instead, AsyncAPI 3.0 as YAML",
        )
        parser.add_argument(
            "--format", choices=("json", "text"), default="json", help="JSON in either case"
        )
        parser.set_defaults(run=schema)
        return
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="the shell")
    parser.set_defaults(run=completion)


def schema(options: argparse.Namespace) -> int:
    """Print the JSON Schema of profiles; with a binary, of all that this binary knows.

    Raises:
        InputError: a schema of lock files was asked of a binary; they have but one.
    """
    if options.asyncapi:
        from launcher.agent.asyncapi import document_yaml

        if options.lock or options.qemu:
            raise InputError("--asyncapi stands alone", code="usage")
        out(document_yaml().rstrip())
        return 0
    if options.lock:
        from launcher.locks.shape import lock_schema

        if options.qemu:
            raise InputError("--lock has one schema for all binaries", code="usage")
        out(json_text(lock_schema(), pretty=True))
        return 0
    from launcher.profiles import PROFILE, SHAPE
    from launcher.qapi.jsonschema import profile_schema

    capabilities = None
    if options.qemu:
        from launcher.capabilities import Capabilities
        from launcher.data import load_catalogue
        from launcher.prepare import hazardous_types
        from launcher.probe import cached_replies, find_binary, replies_of

        binary = find_binary(options.qemu)
        replies = cached_replies(binary)
        if replies is None:
            import asyncio

            hazards = hazardous_types(load_catalogue())
            replies = asyncio.run(replies_of(binary, (), hazards))
        capabilities = Capabilities(replies)
    out(json_text(profile_schema(SHAPE, PROFILE, capabilities), pretty=True))
    return 0


def completion(options: argparse.Namespace) -> int:
    """Print the completion script for a shell.

    Raises:
        HostError: shtab is not installed.
    """
    try:
        import shtab
    except ImportError:
        raise HostError(
            "completion scripts are made by shtab, which is not installed",
            hint="pip install 'qemu-launcher[complete]'",
            code="shtab",
        ) from None
    from launcher.cli.parser import whole

    out(shtab.complete(whole(), shell=options.shell))
    return 0
