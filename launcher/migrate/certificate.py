"""The names that an X.509 certificate is for, as far as a TLS client compares them. Pure.

GnuTLS, which QEMU uses, refuses a server whose certificate has another name than `tls-hostname` or
the host of the address: `Certificate does not match the hostname` (crypto/tlssession.c).
"""

from __future__ import annotations

from binascii import Error, a2b_base64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

#: subjectAltName, 2.5.29.17 (RFC 5280, 4.2.1.6).
_ALT_NAME = b"\x55\x1d\x11"
_OBJECT_ID, _OCTETS, _DNS, _ADDRESS = 0x06, 0x04, 0x82, 0x87
_CONSTRUCTED = 0x20


def names_of(pem: str) -> tuple[str, ...]:
    """The DNS names and addresses of the first certificate in a PEM file, in their order.

    Raises:
        ValueError: it holds no certificate.
    """
    _, begin, rest = pem.partition("-----BEGIN CERTIFICATE-----")
    body, end, _ = rest.partition("-----END CERTIFICATE-----")
    if not begin or not end:
        raise ValueError("there is no certificate in it")
    try:
        der = a2b_base64(body)
        return tuple(_names(der))
    except (Error, IndexError) as error:
        raise ValueError(f"it is damaged: {error}") from None


def fits(name: str, names: tuple[str, ...]) -> bool:
    """Whether a client that expects `name` accepts a certificate for `names`."""
    wanted = name.lower().rstrip(".")
    rest = wanted.partition(".")[2]
    found = [one.lower() for one in names]
    return wanted in found or bool(rest and f"*.{rest}" in found)


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The (tag, content) pairs of a DER encoding."""
    at = 0
    while at < len(data):
        tag, length = data[at], data[at + 1]
        at += 2
        if length & 0x80:
            size = length & 0x7F
            length = int.from_bytes(data[at : at + size], "big")
            at += size
        if at + length > len(data):
            raise IndexError("it ends too early")
        yield tag, data[at : at + length]
        at += length


def _names(data: bytes) -> Iterator[str]:
    for tag, content in _items(data):
        if not tag & _CONSTRUCTED:
            continue
        parts = list(_items(content))
        if parts and parts[0] == (_OBJECT_ID, _ALT_NAME) and parts[-1][0] == _OCTETS:
            for _tag, general in _items(parts[-1][1]):
                yield from _general_names(general)
        else:
            yield from _names(content)


def _general_names(data: bytes) -> Iterator[str]:
    for tag, content in _items(data):
        if tag == _DNS:
            yield content.decode("ascii", "replace")
        elif tag == _ADDRESS and len(content) == 4:
            yield ".".join(str(part) for part in content)
        elif tag == _ADDRESS and len(content) == 16:
            from ipaddress import IPv6Address

            yield str(IPv6Address(content))
