"""Certificates for tests, made by openssl: an authority, and what it signs."""

from __future__ import annotations

import os
import subprocess

_DAYS = "2"


def _openssl(*words: str) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True, timeout=60)


class Authority:
    """One authority in a folder: `ca.pem` and `ca.key`."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.file = os.path.join(folder, "ca.pem")
        self.key = os.path.join(folder, "ca.key")
        _openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-nodes", "-days", _DAYS, "-subj", "/CN=test authority", "-keyout", self.key),
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign", "-out", self.file),
        )

    def sign(self, name: str, *names: str, days: str = _DAYS, subject: str = "") -> tuple[str, str]:
        """A certificate for a common name and more (`DNS:h1`, `IP:127.0.0.1`), and its key.

        With days below nothing it has expired; `subject` is the whole of its name.
        """
        base = os.path.join(self.folder, name)
        request, extensions = f"{base}.csr", f"{base}.ext"
        _openssl(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-utf8", "-multivalue-rdn", "-subj", subject or f"/CN={name}"),
            *("-keyout", f"{base}.key", "-out", request),
        )
        with open(extensions, "w") as file:
            file.write("basicConstraints=critical,CA:FALSE\n")
            # QEMU 5.2 and 10.0 want the second one of any key, newer ones of those with RSA only.
            file.write("keyUsage=critical,digitalSignature,keyEncipherment\n")
            file.write("extendedKeyUsage=serverAuth,clientAuth\n")
            file.write(f"subjectAltName={','.join(names or (f'DNS:{name}',))}\n")
        _openssl(
            *("x509", "-req", "-in", request, "-CA", self.file, "-CAkey", self.key),
            *("-CAcreateserial", "-days", days, "-extfile", extensions, "-out", f"{base}.pem"),
        )
        return f"{base}.pem", f"{base}.key"

    def qemu_folder(self, folder: str, host: str, subject: str = "") -> str:
        """A host's folder as QEMU's `tls-creds-x509` wants it."""
        os.makedirs(folder)
        certificate, key = self.sign(f"{host}-stream", f"DNS:{host}", subject=subject)
        for source, names in (
            (self.file, ("ca-cert.pem",)),
            (certificate, ("server-cert.pem", "client-cert.pem")),
            (key, ("server-key.pem", "client-key.pem")),
        ):
            for name in names:
                with open(source) as old, open(os.path.join(folder, name), "w") as new:
                    new.write(old.read())
        return folder
