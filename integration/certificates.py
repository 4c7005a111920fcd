"""Certificates as QEMU's `tls-creds-x509` wants them, made with the openssl of the system."""

from __future__ import annotations

import os
import subprocess

_USAGE = "keyUsage = critical, digitalSignature, keyEncipherment\n"


def make_authority(folder: str) -> None:
    """A certificate authority: `ca-cert.pem` and its key."""
    key = os.path.join(folder, "ca-key.pem")
    words = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=tests"]
    usage = ["-addext", "keyUsage = critical, keyCertSign"]
    _openssl(*words, *usage, "-keyout", key, "-out", os.path.join(folder, "ca-cert.pem"))


def make_certificate(folder: str, who: str, *names: str, authority: str = "") -> None:
    """`server-cert.pem` or `client-cert.pem` with its key, signed by the authority.

    Args:
        folder: of the authority, and where to put them.
        who: `server` or `client`.
        names: subjectAltName, as `DNS:host.example` or `IP:127.0.0.1`.
        authority: the folder of another authority.
    """
    signer = authority or folder
    path = os.path.join(folder, who)
    extra = f"{_USAGE}extendedKeyUsage = {who}Auth\n"
    extra += f"subjectAltName = {','.join(names)}\n" if names else ""
    with open(f"{path}.ext", "w") as file:
        file.write(extra)
    new = ["req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={who}"]
    _openssl(*new, "-keyout", f"{path}-key.pem", "-out", f"{path}.csr")
    sign = ["x509", "-req", "-days", "2", "-CAcreateserial", "-in", f"{path}.csr"]
    keys = [f"{signer}/ca-cert.pem", "-CAkey", f"{signer}/ca-key.pem"]
    _openssl(*sign, "-CA", *keys, "-extfile", f"{path}.ext", "-out", f"{path}-cert.pem")


def _openssl(*words: str) -> None:
    done = subprocess.run(["openssl", *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
