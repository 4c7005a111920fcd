"""The certificates of a stream between two hosts: a folder of this host's, as QEMU wants it.

`ca-cert.pem`, `server-cert.pem`, `server-key.pem`, `client-cert.pem`, `client-key.pem` (QEMU's
documentation, "TLS setup for network services"). The server's certificate is for the host's id, so
that a source knows whom it sends a guest to, whatever address it was told.
"""

from __future__ import annotations

import os
from contextlib import suppress

from launcher.errors import HostError, LauncherError
from launcher.migrate.certificate import fits, names_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.monitor import Monitor

#: The name of the object (QAPI: tls-creds-x509) while a guest is on its way.
_KEY = "launcher-migration-tls"
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
    path = os.path.join(folder, "server-cert.pem")
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            names = names_of(file.read(1 << 20))
    except (OSError, ValueError) as error:
        raise HostError(f"{path}: {error}", code="certificate") from None
    if not fits(host, names):
        raise HostError(
            f"{path} is for {', '.join(names) or 'nobody'}, and this host is {host}",
            hint="sources will expect the host's id among its names (subjectAltName)",
            code="certificate",
        )


async def arm(monitor: Monitor, folder: str, endpoint: str, hostname: str = "") -> None:
    """Have a QEMU speak TLS in its next migration.

    Args:
        monitor: of the QEMU.
        folder: as in `check_folder`.
        endpoint: `server` or `client`.
        hostname: whom a client expects.

    Raises:
        CommandError: QEMU cannot use them; MonitorError: it does not answer.
    """
    await disarm(monitor)
    made = {"qom-type": "tls-creds-x509", "id": _KEY, "endpoint": endpoint, "dir": folder}
    await monitor.execute("object-add", {**made, "verify-peer": True})
    wanted = {"tls-creds": _KEY, "tls-hostname": hostname}
    await monitor.execute("migrate-set-parameters", wanted)


async def disarm(monitor: Monitor) -> None:
    """Have a QEMU as it was before `arm`, as far as it answers."""
    with suppress(LauncherError):
        before = await monitor.execute("query-migrate-parameters")
        if before.get("tls-creds") == _KEY:
            off = {"tls-creds": "", "tls-hostname": ""}
            await monitor.execute("migrate-set-parameters", off)
        await monitor.execute("object-del", {"id": _KEY})
