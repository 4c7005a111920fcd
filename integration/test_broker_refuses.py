"""A broker that is absent, refuses us, or is not whom we trust: said at once, and what to do."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import select
import subprocess
import sys
import threading
import time

import pytest

import launcher.fleet
from integration.mqtt import SECONDS, AgentProcess, Broker, Stranger
from launcher.bus.broker import Broker as Address
from launcher.bus.broker import MqttError, make_client
from launcher.bus.link import Link, connected
from launcher.bus.refusal import BrokerError
from tests.support.certificates import Authority

pytestmark = pytest.mark.integration

WORDS = {"h1": "one", "orchestrator": "vier"}
#: What is wrong, and what the error says of it: in words, as a code, and what to do.
CASES = {
    "authority": ("the broker's certificate is refused: ", "tls", "--ca-file"),
    "no authority": ("the broker's certificate is refused: ", "tls", "--ca-file names"),
    "expired": ("certificate has expired", "tls", "another certificate"),
    "other name": ("certificate is not valid for '127.0.0.1'", "tls", "subjectAltName"),
    "our authority": ("the broker refuses our certificate (h1.pem): it does not", "tls", "--cert-"),
    "our expired": ("the broker refuses our certificate (h1.pem): it has expired", "tls", "--cert"),
    "our none": ("the broker wants a certificate of ours", "tls", "--cert-file"),
    "password": ("the broker does not let us in: Not authorized", "access", "is h1 known to it"),
    "no password": ("the broker does not let us in: Not authorized", "access", "--username"),
    "absent": ("nobody listens there", "broker", "is it running"),
    "plain": ("it hung up before it answered", "broker", "TLS on that port"),
    "no name": ("its name is not known", "broker", "DNS"),
}
ABSENT = ("absent", "plain", "no name")


@pytest.fixture
def case(request, authority, tmp_path):
    """A broker with something wrong, and the words with which an agent goes there."""
    name = request.param
    passwords = WORDS if "password" in name else None
    broker = Broker(str(tmp_path), authority=authority, passwords=passwords)
    words = ["--broker", broker.url, *broker.identity("h1")]
    at = words.index("--ca-file")
    folder = tmp_path / "others"
    folder.mkdir()
    if name == "authority":
        words[at + 1] = Authority(str(folder)).file
    elif name == "no authority":
        del words[at : at + 2]
    elif name == "expired":
        authority.sign("broker", "IP:127.0.0.1", days="-1")
    elif name == "other name":
        authority.sign("broker", "DNS:elsewhere.example")
    elif name == "our authority":
        certificate, key = Authority(str(folder)).sign("h1")
        words[at + 2 :] = ["--cert-file", certificate, "--key-file", key]
    elif name == "our expired":
        authority.sign("h1", days="-1")
    elif name in ("our none", "no password"):
        del words[at + 2 :]
    elif name == "password":
        (tmp_path / "h1.password").write_text("nonsense\n")
    elif name == "plain":
        words[1] = broker.url.replace("mqtts:", "mqtt:")
    elif name == "no name":
        words[1] = "mqtt://broker.invalid"
    if name != "absent":
        broker.launch()
    yield name, words
    broker.close()


def check(*words: str) -> tuple[int, dict, str]:
    command = [sys.executable, "-m", "launcher", "agent", "--host-id", "h1", *words, "--check"]
    done = subprocess.run(
        [*command, "--format", "json"], capture_output=True, text=True, timeout=60
    )
    return done.returncode, json.loads(done.stdout or "{}"), done.stdout + done.stderr


@pytest.mark.parametrize("case", CASES, indirect=True, ids=str)
def test_check_says_what_is_wrong_where_and_what_to_do(case):
    name, words = case
    said, code, hint = CASES[name]
    status, found, shown = check(*words)
    assert "Traceback" not in shown
    assert status == 4, shown
    error = found["error"]
    assert error["message"].startswith(f"{words[1]}: "), error
    assert said in error["message"], error
    assert (error["code"], hint in error["hint"]) == (code, True), error


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # paho's, of a failed handshake
@pytest.mark.parametrize("case", ["our authority", "password", "other name"], indirect=True)
async def test_a_fleet_says_the_same(case):
    name, words = case
    said, code, _ = CASES[name]
    options = dict(zip(words[2::2], words[3::2], strict=True))
    given = {key.removeprefix("--").replace("-", "_"): text for key, text in options.items()}
    with pytest.raises(BrokerError, match=r"127\.0\.0\.1") as error:
        async with launcher.fleet.connect(words[1], **given):
            pass
    assert (said in str(error.value), error.value.code, error.value.exit_status) == (True, code, 4)
    del error
    gc.collect()


def agent_of(folder, *words: str) -> AgentProcess:
    """An agent that goes to a broker with the words of a case."""
    home = folder / "agent"
    home.mkdir()
    policy = home / "policy.yaml"
    policy.write_text("machines: 1\n")
    broker = Broker(str(home))
    made = AgentProcess(broker, str(home), "h1", str(policy), str(home))
    made.words = ["agent", "--host-id", "h1", *words]
    return made


@pytest.mark.parametrize("case", [one for one in CASES if one not in ABSENT], indirect=True)
def test_an_agent_that_is_refused_when_it_starts_says_so_and_ends(case, tmp_path):
    name, words = case
    agent = agent_of(tmp_path, *words)
    agent.start()
    try:
        assert agent.process.wait(60) == 4
        said, _code, hint = CASES[name]
        assert said in agent.log()
        assert hint in agent.log()
        assert "Traceback" not in agent.log()
    finally:
        agent.close()


def wait_log(agent: AgentProcess, words: str, times: int = 1) -> None:
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        if agent.log().count(words) >= times:
            assert agent.process.poll() is None
            return
        select.select([], [], [], 0.02)
    raise AssertionError(f"{words!r} is not {times} times in {agent.log()}")


def test_an_agent_waits_for_a_broker_that_is_absent_and_once_taken_for_one_that_refuses(
    authority, tmp_path
):
    """A certificate that has expired under machines that run is replaced; the agent is there."""
    broker = Broker(str(tmp_path), authority=authority)
    agent = agent_of(tmp_path, "--broker", broker.url, *broker.identity("h1"))
    try:
        agent.start()
        wait_log(agent, "the broker is away: " + broker.url + ": nobody listens there")
        broker.start()
        stranger = Stranger(broker, "h1")
        stranger.wait_retained("status", lambda value: value["status"] == "online")
        broker.kill()
        authority.sign("broker", "IP:127.0.0.1", days="-1")
        broker.launch()
        wait_log(agent, "certificate has expired (give the broker another certificate")
        broker.kill()
        authority.sign("broker", "IP:127.0.0.1")
        broker.start()
        # It has forgotten the agent's session, and throws away what nobody there subscribed to.
        wait_log(agent, "connected to", times=2)
        assert stranger.do("query")["status"] == "done"
        # Each reason once, and not at each attempt.
        lines = agent.log().splitlines()
        assert len(lines) == len([line for n, line in enumerate(lines) if line != lines[n - 1]])
        assert "Traceback" not in agent.log()
    finally:
        agent.close()
        broker.close()


# -- the socket, under a broker that ends ---------------------------------------------------------


async def _sent_as_it_ends(broker: Broker, client: Link) -> None:
    async with connected(client):
        broker.kill()
        # In one turn: something is to be written, and the end of the connection is read.
        client._client.publish("a/b", b"x", 1)
        client._readable()
        await client.publish("a/b", b"x", 1)


async def test_a_broker_that_ends_while_something_is_sent_leaves_no_trace(tmp_path):
    """aiomqtt has the loop watch a socket a turn after paho asked for it, when it may be closed."""
    said = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, told: said.append(told))
    for number in range(3):
        broker = Broker(str(tmp_path))
        broker.start()
        client = make_client(Address(broker.url), f"c{number}", session=0)
        with pytest.raises(MqttError):
            await _sent_as_it_ends(broker, client)
        fds = set(asyncio.get_running_loop()._selector.get_map())
        del client
        gc.collect()
        await asyncio.sleep(0)
        assert all(os.path.exists(f"/proc/self/fd/{fd}") for fd in fds)
    assert said == []


async def test_a_connection_that_nobody_waits_for_any_more_does_not_come_about(tmp_path):
    """The thread that connects cannot be cancelled: what it brings is closed."""
    with Broker(str(tmp_path)) as broker:
        client = make_client(Address(broker.url), "late", session=0)
        connect, begun, go = client._client_connect, threading.Event(), threading.Event()

        def late() -> None:
            begun.set()
            go.wait(30)
            connect()

        client._client_connect = late
        entering = asyncio.ensure_future(connected(client).__aenter__())
        await asyncio.to_thread(begun.wait, 30)
        entering.cancel()
        await asyncio.gather(entering, return_exceptions=True)
        go.set()
        async with asyncio.timeout(30):
            await client.hung_up.wait()
        assert client._client.socket() is None
