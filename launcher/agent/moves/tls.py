"""The certificates of a stream between two hosts: a folder of this host's, as QEMU wants it.

`ca-cert.pem`, `server-cert.pem`, `server-key.pem`, `client-cert.pem`, `client-key.pem` (QEMU's
documentation, "TLS setup for network services"). The server's certificate is for the host's id, so
that a source knows whom it sends a guest to, whatever address it was told.
"""

from __future__ import annotations

import os
from contextlib import suppress

from launcher.errors import HostError, InputError, LauncherError
from launcher.migrate.certificate import fits, names_of, subject_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from launcher.monitor import Monitor

    T = TypeVar("T")

#: The names of the objects (QAPI: tls-creds-x509, authz-simple) while a guest is on its way.
_KEY, _WHO = "launcher-migration-tls", "launcher-migration-authz"
#: What QEMU says of a client that it does not take (crypto/tlssession.c).
REFUSED = "TLS x509 authz check for "
#: Characters of a distinguished name: QEMU has room for as many (crypto/tlssession.c).
_LONGEST = 1023
_FILES = ("ca-cert.pem", "{0}-cert.pem", "{0}-key.pem")


def check_folder(folder: str, endpoint: str, host: str = "") -> None:
    """Refuse a folder that will not do.

    Args:
        folder: of this host's certificates.
        endpoint: `server` or `client`.
        host: the id that the server's certificate must be for.

    Raises:
        HostError: a file is missing, or the certificate is for others.
    """
    for name in _FILES:
        path = os.path.join(folder, name.format(endpoint))
        if not os.access(path, os.R_OK):
            hint = "`migration-tls` of the policy names the folder (docs/agent.md)"
            raise HostError(f"{path} cannot be read", hint=hint, code="certificate")
    if endpoint != "server":
        return
    path, names = _read(folder, "server-cert.pem", names_of)
    if not fits(host, names):
        raise HostError(
            f"{path} is for {', '.join(names) or 'nobody'}, and this host is {host}",
            hint="sources will expect the host's id among its names (subjectAltName)",
            code="certificate",
        )


def _read(folder: str, name: str, read: Callable[[str], T]) -> tuple[str, T]:
    path = os.path.join(folder, name)
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return path, read(file.read(1 << 20))
    except (OSError, ValueError) as error:
        raise HostError(f"{path}: {error}", code="certificate") from None


def client_name(folder: str) -> str:
    """The distinguished name that this host's QEMU has as a client.

    Raises:
        HostError: the certificate will not do.
    """
    check_folder(folder, "client")
    return _read(folder, "client-cert.pem", subject_of)[1]


def told_name(body: dict[str, Any], peer: str) -> str:
    """The distinguished name with which a source says that its QEMU will come.

    Raises:
        InputError: it says none.
    """
    name = body.get("certificate")
    if not isinstance(name, str) or not 0 < len(name) <= _LONGEST:
        words = f"{peer} does not say which certificate it comes with"
        hint = "`migration-tls` in its policy, and the same release of the launcher at both hosts"
        raise InputError(words, hint=hint, code="certificate")
    return name


async def arm(
    monitor: Monitor, folder: str, endpoint: str, hostname: str = "", client: str = ""
) -> None:
    """Have a QEMU speak TLS in its next migration.

    Args:
        monitor: of the QEMU.
        folder: as in `check_folder`.
        endpoint: `server` or `client`.
        hostname: whom a client expects.
        client: the distinguished name of the only client that a server takes.

    Raises:
        CommandError: QEMU cannot use them; MonitorError: it does not answer.
    """
    await disarm(monitor)
    made = {"qom-type": "tls-creds-x509", "id": _KEY, "endpoint": endpoint, "dir": folder}
    await monitor.execute("object-add", {**made, "verify-peer": True})
    wanted = {"tls-creds": _KEY, "tls-hostname": hostname}
    if endpoint == "server":
        # QAPI: MigrationParameters.tls-authz, since 4.0.
        who = {"qom-type": "authz-simple", "id": _WHO, "identity": client}
        await monitor.execute("object-add", who)
        wanted["tls-authz"] = _WHO
    await monitor.execute("migrate-set-parameters", wanted)


async def disarm(monitor: Monitor) -> None:
    """Have a QEMU as it was before `arm`, as far as it answers."""
    with suppress(LauncherError):
        before = await monitor.execute("query-migrate-parameters")
        if before.get("tls-creds") == _KEY:
            off = {"tls-creds": "", "tls-hostname": "", "tls-authz": ""}
            await monitor.execute("migrate-set-parameters", off)
    for key in (_KEY, _WHO):
        with suppress(LauncherError):
            await monitor.execute("object-del", {"id": key})
