"""The names of an X.509 certificate, as far as the other end of TLS compares them. Pure.

GnuTLS, which QEMU uses, refuses a server whose certificate has another name than `tls-hostname` or
the host of the address: `Certificate does not match the hostname` (crypto/tlssession.c). Of a
client QEMU compares the distinguished name of the subject with `tls-authz`, as GnuTLS writes it.
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
#: Attributes of a name, by the octets of their object identifier, as GnuTLS calls them
#: (lib/x509/common.c, `_oid2str`); those that certificates of hosts have.
_ATTRIBUTES = {
    b"\x55\x04\x03": "CN",
    b"\x55\x04\x04": "surName",
    b"\x55\x04\x05": "serialNumber",
    b"\x55\x04\x06": "C",
    b"\x55\x04\x07": "L",
    b"\x55\x04\x08": "ST",
    b"\x55\x04\x09": "street",
    b"\x55\x04\x0a": "O",
    b"\x55\x04\x0b": "OU",
    b"\x55\x04\x0c": "title",
    b"\x55\x04\x0d": "description",
    b"\x55\x04\x11": "postalCode",
    b"\x55\x04\x2a": "givenName",
    b"\x09\x92\x26\x89\x93\xf2\x2c\x64\x01\x01": "UID",
    b"\x09\x92\x26\x89\x93\xf2\x2c\x64\x01\x19": "DC",
    b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x01": "EMAIL",
}
#: UTF8String, PrintableString, IA5String: those of which GnuTLS takes the octets as they are.
_TEXTS = (0x0C, 0x13, 0x16)
_SET, _VERSION = 0x31, 0xA0


def names_of(pem: str) -> tuple[str, ...]:
    """The DNS names and addresses of the first certificate in a PEM file, in their order.

    Raises:
        ValueError: it holds no certificate.
    """
    try:
        return tuple(_names(_der(pem)))
    except (Error, IndexError) as error:
        raise ValueError(f"it is damaged: {error}") from None


def subject_of(pem: str) -> str:
    """The distinguished name of the first certificate in a PEM file, as GnuTLS writes it.

    `gnutls_x509_crt_get_dn`: attributes in the certificate's own order, escaped as in RFC 4514.

    Raises:
        ValueError: it holds no certificate, or one with a name that is not known to be written so.
    """
    try:
        [(_, certificate)] = _items(_der(pem))
        _, signed = next(_items(certificate))
        fields = [item for item in _items(signed) if item[0] != _VERSION]
        # serialNumber, signature, issuer, validity, subject (RFC 5280, 4.1)
        subject = fields[4][1]
        return ",".join(_relative(content) for tag, content in _items(subject) if tag == _SET)
    except (Error, IndexError, StopIteration) as error:
        raise ValueError(f"it is damaged: {error}") from None


def _relative(data: bytes) -> str:
    """One RelativeDistinguishedName."""
    return "+".join(_attribute(content) for _tag, content in _items(data))


def _attribute(data: bytes) -> str:
    (_, kind), (tag, value) = _items(data)
    name = _ATTRIBUTES.get(kind)
    if name is None or tag not in _TEXTS or b"\0" in value:
        raise ValueError(f"its subject has a part that is not known ({kind.hex()}, type {tag})")
    text = value.decode("utf-8", "replace")
    found = "".join(f"\\{one}" if one in ',+"\\<>;' else one for one in text)
    if found[:1] in ("#", " "):
        found = f"\\{found}"
    if len(text) > 1 and text.endswith(" "):
        found = f"{found[:-1]}\\ "
    return f"{name}={found}"


def _der(pem: str) -> bytes:
    _, begin, rest = pem.partition("-----BEGIN CERTIFICATE-----")
    body, end, _ = rest.partition("-----END CERTIFICATE-----")
    if not begin or not end:
        raise ValueError("there is no certificate in it")
    return a2b_base64(body)


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
