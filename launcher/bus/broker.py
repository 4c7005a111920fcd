"""Where the broker is, and a session with it. With `link` the one importer of aiomqtt.

Three settings that no default has, each measured: TCP_NODELAY (else Nagle and delayed ACKs make a
command and its answer 44 ms a way), acknowledging by hand (aiomqtt acknowledges what it has only
queued: 169 of 300 commands were lost in five kills of an agent), and a bound on what the broker may
send before that (else its queue grows without end).
"""

from __future__ import annotations

import os
import socket

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from launcher.bus.link import Link
from launcher.errors import HostError, InputError
from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Seconds between two signs of life; a broker that is gone is noticed after twice that.
KEEPALIVE = 15
#: Seconds that a broker keeps what it has for us while we are away.
SESSION_SECONDS = 24 * 3600
#: Seconds until others are told that we are lost: a restart is quicker.
WILL_DELAY = 10
#: Commands that a broker may send before the first of them is acknowledged.
RECEIVE_MAXIMUM = 128
#: Bytes of one packet: a broker drops for us what is larger, before it reaches our memory.
MAXIMUM_PACKET = 1 << 20
#: Reason codes of MQTT 5 (2.4).
NOT_AUTHORIZED, NO_SHARED_SUBSCRIPTIONS = 0x87, 0x9E
_PORTS = {"mqtt": 1883, "mqtts": 8883}

MqttError = aiomqtt.MqttError
Client = Link
Message = aiomqtt.Message


@record
class Broker:
    """Where a broker is and who we are to it.

    `url` is `mqtt://HOST[:PORT]`, `mqtts://HOST[:PORT]` or `unix:///PATH`. The password is in a
    file, for argv is readable by everyone on a host.
    """

    url: str
    username: str = ""
    password_file: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""


def _place(url: str) -> tuple[str, str, int]:
    """Scheme, host or path, and port.

    Raises:
        InputError: no such place.
    """
    from urllib.parse import urlsplit

    hint = "mqtt://HOST[:PORT], mqtts://HOST[:PORT] or unix:///PATH"
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme, 0)
        (parts.hostname or "").encode("idna")  # what cannot be a name is a UnicodeError
    except ValueError:
        raise InputError(f"{url!r} is not a broker's address", hint=hint, code="url") from None
    if parts.username or parts.password:
        words = "a broker's address holds no user and no password: others can read it"
        raise InputError(words, hint="--username and --password-file", code="url")
    if parts.scheme == "unix" and parts.path.startswith("/") and not parts.netloc:
        return "unix", parts.path, 0
    if parts.scheme in _PORTS and parts.hostname and parts.path in ("", "/") and not parts.query:
        return parts.scheme, parts.hostname, port
    raise InputError(f"{url!r} is not a broker's address", hint=hint, code="url")


def _password(broker: Broker) -> str | None:
    if not broker.password_file:
        return None
    from launcher.files import read_text

    return read_text(broker.password_file, limit=4096).rstrip("\n")


def properties(packet: int, **values: Any) -> Properties:
    """MQTT 5 properties of a packet, by their names in the standard."""
    made = Properties(packet)  # type: ignore[no-untyped-call]
    for name, value in values.items():
        setattr(made, name, value)
    return made


def publish_properties(
    correlation: bytes | None = None, reply: str = "", expiry: int = 0
) -> Properties | None:
    """Properties of a message; None when there are none."""
    values: dict[str, Any] = {}
    if correlation is not None:
        values["CorrelationData"] = correlation
    if reply:
        values["ResponseTopic"] = reply
    if expiry:
        values["MessageExpiryInterval"] = expiry
    return properties(PacketTypes.PUBLISH, **values) if values else None


def make_client(
    broker: Broker,
    identifier: str,
    *,
    will: tuple[str, bytes] | None = None,
    session: int = SESSION_SECONDS,
    by_hand: bool = True,
    packet: int = MAXIMUM_PACKET,
    seconds: float = 10.0,
) -> Client:
    """A session with a broker, to be entered; for one connection.

    Args:
        broker: where it is.
        identifier: of the client; two of one name throw each other out.
        will: topic and payload that the broker publishes, retained, when we are lost.
        session: seconds that it outlives its connection; 0 begins with a new one.
        by_hand: messages are acknowledged with `acknowledge` only.
        packet: bytes of the largest that the broker may send.
        seconds: until the broker must have let us in, and answered each thing we say.

    Raises:
        InputError: no broker's address, or a file that it names cannot be read.
        HostError: a certificate cannot be used.
    """
    scheme, place, port = _place(broker.url)
    options: dict[str, Any] = {}
    if scheme == "unix":
        options["transport"] = "unix"
    else:
        options["socket_options"] = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
    if scheme == "mqtts":
        options["tls_context"] = _tls(broker)
    if will is not None:
        delay = properties(PacketTypes.WILLMESSAGE, WillDelayInterval=WILL_DELAY)
        options["will"] = aiomqtt.Will(will[0], will[1], 1, True, delay)
    client = Link(
        place,
        port or 1883,
        identifier=identifier,
        username=broker.username or None,
        password=_password(broker),
        protocol=aiomqtt.ProtocolVersion.V5,
        keepalive=KEEPALIVE,
        clean_start=session == 0,
        timeout=seconds,
        properties=properties(
            PacketTypes.CONNECT,
            SessionExpiryInterval=session,
            ReceiveMaximum=RECEIVE_MAXIMUM,
            MaximumPacketSize=packet,
        ),
        max_inflight_messages=RECEIVE_MAXIMUM,
        **options,
    )
    client.pending_calls_threshold = 10 * RECEIVE_MAXIMUM
    # aiomqtt has no way to it (its issue 345).
    client._client.manual_ack_set(by_hand)
    return client


class _TopicError(MqttError):
    """A broker's answer about one topic.

    Attributes:
        topic: which.
        code: why.
    """

    def __init__(self, topic: str, code: ReasonCode) -> None:
        super().__init__(f"{topic}: {code}")
        self.topic = topic
        self.code = code


class SubscribeError(_TopicError):
    """A broker refused a subscription (SUBACK: MQTT 5, 3.9.3)."""


async def subscribe(client: Client, *wanted: str, marks: bool = False) -> None:
    """Subscribe to topics, all of them at once.

    Args:
        client: connected.
        wanted: topics, which may have wildcards.
        marks: each message keeps the mark by which a retained one is told.

    Raises:
        SubscribeError: the broker refuses one of them; aiomqtt only returns that.
        MqttError: the connection ended.
    """
    options = SubscribeOptions(qos=1, retainAsPublished=marks)
    codes: Any = await client.subscribe([(topic, options) for topic in wanted])
    for topic, code in zip(wanted, codes, strict=True):
        if code.is_failure:
            raise SubscribeError(topic, code)


async def subscribe_commands(client: Client, topic: str) -> None:
    """Subscribe to commands; each keeps the mark by which a retained one is told.

    Without that option a broker takes the mark off what it has no need to keep for us, and a
    command that was sent as retained is done once more by every agent that comes later.

    Raises:
        MqttError: as `subscribe`.
    """
    await subscribe(client, topic, marks=True)


async def share_pool(client: Client, pool: str, topic: str) -> None:
    """Take part in a shared subscription: of its members each message goes to one.

    Raises:
        MqttError: as `subscribe`; a broker that has no shared subscriptions is not asked for one,
            for it would hang up (MQTT 5, 3.2.2.3.13).
    """
    shared = f"$share/{pool}/{topic}"
    if not getattr(client.granted, "SharedSubscriptionAvailable", 1):
        code = ReasonCode(PacketTypes.SUBACK, identifier=NO_SHARED_SUBSCRIPTIONS)
        raise SubscribeError(shared, code)
    await subscribe_commands(client, shared)


class PublishError(_TopicError):
    """A broker threw away what was published (PUBACK: MQTT 5, 3.4.2.1)."""

    @property
    def forbidden(self) -> bool:
        """Whether it is the broker's rules that say so."""
        return self.code.value == NOT_AUTHORIZED


async def publish(
    client: Client,
    topic: str,
    payload: bytes,
    *,
    retain: bool = False,
    properties: Properties | None = None,
) -> None:
    """Publish, and wait until the broker has it.

    Raises:
        PublishError: it does not take it.
        MqttError: the connection ended.
    """
    code = await client.deliver(topic, payload, retain, properties)
    if code is not None and code.is_failure:
        raise PublishError(topic, code)


def acknowledge(client: Client, message: Message) -> None:
    """Let the broker forget a message; of a connection that is gone this does nothing."""
    client._client.ack(message.mid, message.qos)


def thrown_out(error: BaseException) -> bool:
    """Whether a connection ended because another client came with our name (reason code 0x8E)."""
    while error.__cause__ is not None:
        error = error.__cause__
    code = getattr(error, "rc", None)
    return getattr(code, "value", code) == 0x8E


def property_of(message: Message, name: str) -> Any:
    """An MQTT 5 property of a message, None when it has none of that name."""
    return getattr(message.properties, name, None) if message.properties is not None else None


def _tls(broker: Broker) -> Any:
    import ssl

    try:
        context = ssl.create_default_context(cafile=broker.ca_file or None)
        if broker.cert_file:
            # A file without a key's password: there is nobody to be asked for it.
            context.load_cert_chain(broker.cert_file, broker.key_file or None, _nobody)
    except (OSError, ssl.SSLError) as error:
        names = [os.path.basename(f) for f in (broker.ca_file, broker.cert_file) if f]
        words = f"the certificates {' and '.join(names)} cannot be used: {error}"
        raise HostError(words, code="tls") from None
    return context


def _nobody() -> str:
    raise OSError("its key has a password")
