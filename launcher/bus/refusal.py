"""Why a broker is not there for us, in words: what is wrong, where, and what to do.

Two kinds. A broker that is *absent* may come: who waits for it is right. One that *refuses* us, or
that is not whom we were told to trust, does so the next time, too, until somebody changes a file.
"""

from __future__ import annotations

import os
import socket
import ssl

from aiomqtt.exceptions import MqttCodeError, MqttConnectError

from launcher.bus.broker import NO_SHARED_SUBSCRIPTIONS, SubscribeError
from launcher.errors import HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from launcher.bus.broker import Broker

#: What to do about a topic that we may not read or write.
RULES = "the broker's rules must allow it: packaging/agent/acl.conf, docs/agent.md"
#: Codes of OpenSSL (x509_vfy.h): X509_V_ERR_…
_NOT_YET, _EXPIRED, _HOSTNAME, _ADDRESS = 9, 10, 62, 64
#: What a TLS alert about a certificate has in OpenSSL's name of it (RFC 8446, 6.2).
_ALERTS = {
    "UNKNOWN_CA": "it does not know who signed it",
    "CERTIFICATE_EXPIRED": "it has expired",
    "CERTIFICATE_REVOKED": "it was revoked",
    "CERTIFICATE_REQUIRED": "it wants one, and we have none",
    "CERTIFICATE_UNKNOWN": "it is not acceptable",
    "UNSUPPORTED_CERTIFICATE": "it is not for clients",
    "BAD_CERTIFICATE": "it is not acceptable",
    "HANDSHAKE_FAILURE": "or has no cipher in common with us",
    "DECRYPT_ERROR": "its signature does not fit",
    "ACCESS_DENIED": "access denied",
}
#: Reason codes of CONNACK (MQTT 5, 3.2.2.2) that are no judgement about us.
_PASSING = frozenset((0x80, 0x88, 0x89, 0x97, 0x9C, 0x9D, 0x9F))
_UNSPECIFIED, _BAD_ID = 0x80, 0x85


class BrokerError(HostError):
    """A broker that is not there for us.

    Attributes:
        refused: the next attempt will be answered the same.
    """

    code = "broker"

    def __init__(self, words: str, hint: str, *, refused: bool = False, code: str = "") -> None:
        super().__init__(words, hint=hint, code=code)
        self.refused = refused


def refusal(broker: Broker, error: BaseException, identifier: str = "") -> BrokerError:
    """What it means that there is no connection.

    Args:
        broker: where it is and who we are to it.
        error: as `connected` raised it.
        identifier: the client's.
    """
    root = root_of(error)
    if isinstance(root, SubscribeError):
        return _not_told(broker, root)
    if isinstance(root, ssl.SSLCertVerificationError):
        return _not_trusted(broker, root)
    if isinstance(root, ssl.SSLError):
        return _alert(broker, root)
    if isinstance(root, MqttConnectError):
        code: Any = root.rc
        return _not_let_in(broker, getattr(code, "value", code), str(code), identifier)
    if isinstance(root, MqttCodeError):
        return _ended(broker, root.rc)
    return _absent(broker, root)


def root_of(error: BaseException) -> BaseException:
    """What an error came from, where that is known: aiomqtt hides it behind its own."""
    while True:
        before = error.__cause__ or error.__context__
        if before is None or not isinstance(before, Exception):
            return error
        error = before


def _not_trusted(broker: Broker, error: ssl.SSLCertVerificationError) -> BrokerError:
    code, said = error.verify_code, error.verify_message.rstrip(".")
    if code in (_EXPIRED, _NOT_YET):
        hint = "give the broker another certificate, if this host's clock is right"
    elif code in (_HOSTNAME, _ADDRESS):
        hint = "--broker must be a name or address that the certificate has (subjectAltName)"
    elif broker.ca_file:
        hint = f"does {broker.ca_file} hold the authority that signed it? (--ca-file)"
    else:
        hint = "--ca-file names the authority that signed it, where the system does not know it"
    words = f"{broker.url}: the broker's certificate is refused: {said}"
    return BrokerError(words, hint, refused=True, code="tls")


def _alert(broker: Broker, error: ssl.SSLError) -> BrokerError:
    name = error.reason or ""
    for ending, meaning in _ALERTS.items():
        if not name.endswith(f"ALERT_{ending}"):
            continue
        ours = os.path.basename(broker.cert_file) if broker.cert_file else "that we have none"
        words = f"{broker.url}: the broker refuses our certificate ({ours}): {meaning}"
        hint = "--cert-file and --key-file: one that its authority signed and that has not expired"
        if not broker.cert_file:
            words = f"{broker.url}: the broker wants a certificate of ours"
        return BrokerError(words, hint, refused=True, code="tls")
    said = name.replace("_", " ").lower() or str(error)
    hint = "does it speak TLS on that port? mqtts:// is usually 8883, mqtt:// 1883"
    return BrokerError(f"{broker.url}: no TLS with the broker: {said}", hint)


def _not_let_in(broker: Broker, value: int, said: str, identifier: str) -> BrokerError:
    if value in _PASSING:
        words = f"{broker.url}: the broker takes nobody now: {said}"
        return BrokerError(words, "its own log says more")
    if value == _BAD_ID:
        hint = f"it refuses the client id {identifier}"
    elif broker.username:
        hint = f"is {broker.username} known to it, with what --password-file holds?"
    elif broker.cert_file:
        hint = f"does it know the name of the certificate in {broker.cert_file}?"
    else:
        hint = "--username and --password-file, or --cert-file, say who we are"
    words = f"{broker.url}: the broker does not let us in: {said}"
    return BrokerError(words, hint, refused=True, code="access")


def _not_told(broker: Broker, error: SubscribeError) -> BrokerError:
    words = f"{broker.url}: the broker refuses the subscription to {error.topic}: {error.code}"
    hint = RULES
    if error.code.value == NO_SHARED_SUBSCRIPTIONS:
        hint = "pools need a broker that has shared subscriptions"
    return BrokerError(words, hint, refused=True, code="access")


def _ended(broker: Broker, code: Any) -> BrokerError:
    """A connection that there was; a broker that ends in order says why (MQTT 5, 3.14.2.1)."""
    value = getattr(code, "value", 0)
    why = f": {code}" if value > _UNSPECIFIED else ""
    return BrokerError(f"{broker.url}: the connection ended{why}", "is it running?")


def _absent(broker: Broker, error: BaseException) -> BrokerError:
    hint = "is it running, and is --broker right?"
    if isinstance(error, socket.gaierror):
        words, hint = "its name is not known", "is --broker right, and does this host's DNS work?"
    elif isinstance(error, (ConnectionRefusedError, FileNotFoundError)):
        words = "nobody listens there"
    elif isinstance(error, TimeoutError) or "timed out" in str(error):
        words, hint = "it does not answer in time", "is it running, or is a firewall between?"
    elif isinstance(error, (ConnectionError, BrokenPipeError)) or "hung up" in str(error):
        words = "it hung up before it answered"
        hint = "its own log says why: " + (
            "a certificate that it does not accept? (--cert-file)"
            if broker.url.startswith("mqtts:")
            else "TLS on that port (mqtts://), or too many clients?"
        )
    elif isinstance(error, OSError):
        words = f"it cannot be reached: {error.strerror or error}"
    else:
        words = str(error) or type(error).__name__
    return BrokerError(f"{broker.url}: {words}", hint)
