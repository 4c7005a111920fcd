"""TLS between the two ends of a migration: who is server, and whether the names fit.

The destination listens, so there a `tls-creds-*` object is the server's half, and the client's at
the source. Where both ends have one profile, which says no `endpoint`, each is made what it has to
be; a machine that takes a guest and gives it on has one object of each.
"""

from __future__ import annotations

import json
import os

from launcher.errors import HostError
from launcher.migrate.certificate import fits, names_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from launcher.machine import Machine
    from launcher.migrate.transport import Via
    from launcher.plan import Plan
    from launcher.prepare import Prepared


def _parameters(plan: Plan) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for step in plan.setup:
        if step.command == "migrate-set-parameters":
            found.update(step.arguments)
    return found


#: What the client's half is called where an end has both.
_OUT = "{}-out"


def endpoint_settings(prepared: Prepared, end: str, *, both: bool = False) -> tuple[str, ...]:
    """The `--set` texts that make this end client or server, where the profile does not say.

    Args:
        prepared: a plan of this end.
        end: `client` or `server`.
        both: a server that is to send the guest on, and is given a client's half too.
    """
    key = _parameters(prepared.plan).get("tls-creds")
    if not key:
        return ()
    written = prepared.loaded.profile.objects.get(key)
    if written is None or "endpoint" in written.items:
        return ()
    found = [f"objects.{key}.endpoint={end}"]
    if both:
        members = {**_planned(prepared.plan, key), "endpoint": "client"}
        found.append(f"objects.{_OUT.format(key)}={json.dumps(members)}")
    return tuple(found)


def _planned(plan: Plan, key: str) -> dict[str, Any]:
    """What a plan says of an object, but for its id."""
    for option in plan.options:
        if option.name == "-object" and option.members.get("id") == key:
            head = {"qom-type": option.head} if option.head else {}
            return {**head, **{k: v for k, v in option.members.items() if k != "id"}}
    return {}


async def turn_round(machine: Machine) -> None:
    """Make a machine that took its guest as the server send it on as the client, if it is one.

    Raises:
        CommandError: QEMU refuses; MonitorError: it does not answer.
    """
    key = _OUT.format(_parameters(machine.plan).get("tls-creds"))
    if any(o.members.get("id") == key for o in machine.plan.options):
        await machine.monitor.execute("migrate-set-parameters", {"tls-creds": key})


def check_names(source: Plan, destination: Plan, via: Via) -> None:
    """The destination's certificate is for the name that the source will expect.

    Nothing is checked without certificates (PSK), or of one that has no subjectAltName.

    Raises:
        HostError: it is for other names, or cannot be read.
    """
    key = _parameters(destination).get("tls-creds")
    path = _certificate(destination, str(key)) if key else ""
    if not path:
        return
    expected = _parameters(source).get("tls-hostname") or (via.host if via.kind == "tcp" else "")
    hint = "set migration.parameters.tls-hostname to a name that the certificate is for"
    if not expected:
        raise HostError(f"via {via.kind} there is no host name for TLS to check", hint=hint)
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            names = names_of(file.read())
    except (OSError, ValueError) as error:
        words = error.strerror if isinstance(error, OSError) else str(error)
        raise HostError(f"the destination's certificate {path}: {words}") from None
    if names and not fits(expected, names):
        raise HostError(
            f"the destination's certificate is for {', '.join(names)}, and the source will expect "
            f"{expected}",
            hint=hint,
            evidence={"certificate": path, "names": list(names)},
            code="certificate",
        )


def _certificate(plan: Plan, key: str) -> str:
    """The path of a server's certificate; "" for credentials without one."""
    for option in plan.options:
        members = option.members
        kinds = (option.head, members.get("qom-type"))
        if option.name == "-object" and members.get("id") == key and "tls-creds-x509" in kinds:
            return os.path.join(str(members.get("dir", "")), "server-cert.pem")
    return ""
