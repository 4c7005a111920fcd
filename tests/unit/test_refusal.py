"""Why a broker is not there for us: what no real broker of the tests says."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl

import pytest
from aiomqtt.exceptions import MqttCodeError, MqttConnectError
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from launcher.bus.broker import Broker, MqttError, make_client
from launcher.bus.link import Link, connected
from launcher.bus.refusal import refusal, root_of
from launcher.errors import InputError

URL = "mqtt://broker.example"


def refused(code: int) -> MqttError:
    return MqttConnectError(ReasonCode(PacketTypes.CONNACK, identifier=code))


def alert(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, reason)
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("error", "words", "refused"),
    [
        (socket.gaierror(-2, "Name or service not known"), "its name is not known", False),
        (FileNotFoundError(2, "No such file"), "nobody listens there", False),
        (TimeoutError("timed out"), "it does not answer in time", False),
        (MqttError("Operation timed out"), "it does not answer in time", False),
        (ConnectionResetError(104, "reset"), "it hung up before it answered", False),
        (OSError(113, "No route to host"), "it cannot be reached: No route to host", False),
        (MqttError(""), "MqttError", False),
        (alert("WRONG_VERSION_NUMBER"), "no TLS with the broker: wrong version number", False),
        (alert("TLSV1_ALERT_UNKNOWN_CA"), "the broker wants a certificate of ours", True),
        (MqttCodeError(4, "gone"), "the connection ended", False),
        (
            MqttCodeError(ReasonCode(PacketTypes.DISCONNECT, identifier=0x8B), "gone"),
            "the connection ended: Server shutting down",
            False,
        ),
        (refused(0x88), "the broker takes nobody now", False),
        (refused(0x97), "the broker takes nobody now", False),
        (refused(0x85), "the broker does not let us in", True),
        (refused(0x8A), "the broker does not let us in", True),
    ],
    ids=str,
)
def test_what_passes_by_itself_is_told_from_what_does_not(error, words, refused):
    found = refusal(Broker(URL), error, "me")
    assert f"{URL}: {words}" in found.message
    assert found.hint
    assert found.refused is refused
    assert found.exit_status == 4


def test_the_error_behind_an_error_is_found():
    def fail() -> None:
        try:
            raise ConnectionRefusedError(111, "Connection refused")
        except OSError as error:
            raise MqttError(str(error)) from None

    with pytest.raises(MqttError) as error:
        fail()
    assert isinstance(root_of(error.value), ConnectionRefusedError)


def test_hints_say_whose_file_to_look_at():
    certificate = refusal(Broker(URL, cert_file="/etc/me.pem"), refused(0x87))
    assert "/etc/me.pem" in certificate.hint
    assert "mary" in refusal(Broker(URL, username="mary"), refused(0x86)).hint


@pytest.mark.parametrize("url", ["mqtt://a..b", f"mqtt://{'x' * 64}.example"])
async def test_what_cannot_be_a_name_is_bad_input(url):
    with pytest.raises(InputError, match="not a broker's address"):
        make_client(Broker(url), "me")


async def test_a_broker_that_says_nothing_is_not_waited_for_for_ever():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = Broker(f"mqtt://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(MqttError) as error:
            async with connected(make_client(address, "me", session=0, seconds=0.1)):
                pass
        assert "does not answer in time" in refusal(address, error.value).message
    # Nothing of it is left that the loop would still look at.
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left or not (await asyncio.wait(left, timeout=10))[1]


async def test_a_broker_that_hangs_up_right_after_it_let_us_in_is_away():
    """aiomqtt forgets then that it was told so, and would wait for messages for ever."""
    said = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, told: said.append(told))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(2)
        writer.write(b"\x20\x03\x00\x00\x00")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        address = Broker(f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        for _ in range(20):
            with pytest.raises(MqttError):
                await _listen(make_client(address, "me", session=0))
    gc.collect()
    await asyncio.sleep(0)
    assert said == []


async def _listen(client: Link) -> None:
    async with asyncio.timeout(20), connected(client):
        async for _message in client.messages:
            pass
