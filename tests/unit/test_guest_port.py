"""The agent's port against agents that lie, flood, and end, each over a socket."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket

import pytest

from launcher.guest.agent import Agent
from launcher.guest.port import Port
from launcher.guest.ran import GuestError
from launcher.guest.wire import ANSWER, Answers, question


class NoMonitor:
    """What a port asks of QEMU when an agent is silent."""

    def __init__(self):
        self.heard = []
        self.open = False

    def on_event(self, callback):
        self.heard.append(callback)

    async def execute(self, command, timeout):  # noqa: ASYNC109
        return [{"label": "guest-agent", "frontend-open": self.open}]


class Event:
    def __init__(self, name="VSERPORT_CHANGE", *, is_open=True):
        self.name = name
        self.data = {"id": "guest-agent-port", "open": is_open}


class Peer:
    """The other end: answers syncs, and questions by `does`, a function of the question."""

    def __init__(self, sock, does, before=b""):
        self.sock = sock
        self.does = does
        self.before = before
        self.asked = []
        self.heard = asyncio.Event()
        self.syncs = 0

    async def serve(self):
        loop = asyncio.get_running_loop()
        rest = b""
        while data := await loop.sock_recv(self.sock, 65536):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                message = json.loads(line.replace(b"\xff", b""))
                if message["execute"] == "guest-sync-delimited":
                    self.syncs += 1
                    reply = json.dumps({"return": message["arguments"]["id"]}).encode()
                    answer = self.before + b"\xff" + reply + b"\n"
                else:
                    self.asked.append(message)
                    self.heard.set()
                    answer = self.does(message)
                if answer is None:
                    return
                await loop.sock_sendall(self.sock, answer)


@contextlib.asynccontextmanager
async def talking(does, before=b""):
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    monitor = NoMonitor()
    port = Port(ours, "guest-agent", monitor)
    peer = Peer(theirs, does, before)
    task = asyncio.ensure_future(peer.serve())
    try:
        yield port, peer, monitor
    finally:
        task.cancel()
        await asyncio.wait({task})
        port.close()
        theirs.close()


def returns(value):
    return json.dumps({"return": value}).encode() + b"\n"


@pytest.mark.parametrize(
    "before",
    [
        b"",
        b"\n\n",
        b'{"error": {"class": "GenericError", "desc": "JSON parse error"}}\n',
        b'{"return": {"half',
        b"\xff\xff\x00garbage\xff",
        b'{"return": "old"}\n{"return": "older"}\n',
        b"x" * 300_000,
        b"[" * 100_000 + b"\n",
    ],
    ids=["nothing", "empty", "error", "half", "marks", "late", "long", "deep"],
)
async def test_what_comes_before_the_mark_is_dropped(before):
    async with talking(lambda _m: returns({}), before) as (port, _peer, _monitor):
        assert await port.ask("guest-ping", seconds=10) == {}
        assert await port.ask("guest-ping", seconds=10) == {}


@pytest.mark.parametrize(
    "answer",
    [
        b"{}\n",
        b'{"error": "no"}\n',
        b'{"error": {"class": "GenericError"}}\n',
        b'{"error": {"desc": 7}}\n',
    ],
)
async def test_an_answer_that_is_none(answer):
    answers = iter([answer, returns({})])
    async with talking(lambda _m: next(answers)) as (port, _peer, _monitor):
        with pytest.raises(GuestError, match="nonsense to guest-ping"):
            await port.ask("guest-ping", seconds=5)
        assert await port.ask("guest-ping", seconds=5) == {}


@pytest.mark.parametrize(
    "answer",
    [
        b"[1, 2]\n",
        b"nonsense\n",
        b'{"return": ' + b"9" * 5000 + b"}\n",
        b'{"return": ' + b"[" * 90_000 + b"\n",
        b'{"return": [' + b"1," * 200_000 + b"1]}\n",
        b'\xc3\x28{"return": 1}\n',
        b"",
    ],
    ids=["array", "text", "number", "deep", "many", "utf8", "nothing"],
)
async def test_what_is_no_message_is_no_answer(answer):
    answers = iter([answer, returns({})])
    async with talking(lambda _m: next(answers)) as (port, _peer, _monitor):
        with pytest.raises(GuestError, match=r"did not answer within 0\.3 s; no agent has opened"):
            await port.ask("guest-ping", seconds=0.3)
        assert await port.ask("guest-ping", seconds=5) == {}


async def test_an_answer_that_is_too_long_is_dropped_and_the_next_is_heard():
    answers = iter([b'{"return": "' + b"x" * (ANSWER + 1) + b'"}\n', returns(1)])
    async with talking(lambda _m: next(answers)) as (port, _peer, _monitor):
        with pytest.raises(GuestError, match="more than is allowed"):
            await port.ask("guest-info", seconds=10)
        assert await port.ask("guest-ping", seconds=10) == 1


async def test_a_late_answer_is_not_the_next_one():
    answers = iter([b"", returns("late") + returns("right")])
    async with talking(lambda _m: next(answers)) as (port, peer, _monitor):
        with pytest.raises(GuestError, match="did not answer"):
            await port.ask("guest-info", seconds=0.2)
        assert peer.syncs == 1
        # Behind a new mark: the first is what an agent that is in step says.
        assert await port.ask("guest-info", seconds=5) == "late"
        assert peer.syncs == 2


async def test_an_agent_that_ends_is_told_at_once():
    answers = iter([b"", returns({})])
    async with talking(lambda _m: next(answers)) as (port, peer, monitor):
        asking = asyncio.ensure_future(port.ask("guest-exec-status", {"pid": 1}, seconds=60))
        await asyncio.wait_for(peer.heard.wait(), 5)
        monitor.heard[0](Event(is_open=False))
        with pytest.raises(GuestError, match="ended or was started again"):
            await asyncio.wait_for(asking, 5)
        assert await port.ask("guest-ping", seconds=5) == {}


async def test_a_port_that_was_opened_again_is_a_new_agent_or_old_news():
    def new(message):
        return b"" if message["execute"] == "guest-exec" else returns(message["arguments"]["id"])

    async with talking(new) as (port, peer, monitor):
        asking = asyncio.ensure_future(port.ask("guest-exec", seconds=60))
        await asyncio.wait_for(peer.heard.wait(), 5)
        monitor.open = True
        monitor.heard[0](Event(is_open=True))
        with pytest.raises(GuestError, match="ended or was started again"):
            await asyncio.wait_for(asking, 5)

    def same(message):
        if message["execute"] == "guest-exec":
            return b""
        return returns({"pid": 1}) + returns(message["arguments"]["id"])

    async with talking(same) as (port, peer, monitor):
        asking = asyncio.ensure_future(port.ask("guest-exec", seconds=60))
        await asyncio.wait_for(peer.heard.wait(), 5)
        monitor.open = True
        monitor.heard[0](Event(is_open=True))
        assert await asyncio.wait_for(asking, 5) == {"pid": 1}


@pytest.mark.parametrize("name", ["RESUME", "RESET"])
async def test_a_guest_that_came_from_elsewhere_is_brought_in_step(name):
    async with talking(lambda _m: returns({})) as (port, peer, monitor):
        for _ in range(2):
            await port.ask("guest-ping", seconds=5)
            assert peer.syncs == 1
        monitor.heard[0](Event(name))
        await port.ask("guest-ping", seconds=5)
        assert peer.syncs == 2


async def test_a_closed_port():
    async with talking(lambda _m: None) as (port, peer, _monitor):
        peer.sock.shutdown(socket.SHUT_RDWR)
        with pytest.raises(GuestError, match="QEMU closed the agent's port"):
            await port.ask("guest-ping", seconds=5)


async def test_a_flood_is_bounded_in_memory_and_time():
    """Nothing but noise: the deadline ends it, and what is kept is less than an answer."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    port = Port(ours, "guest-agent", NoMonitor())

    async def flood():
        loop = asyncio.get_running_loop()
        while True:
            await loop.sock_sendall(theirs, b"\xff" + b"y" * 65535)
            await asyncio.sleep(0)

    task = asyncio.ensure_future(flood())
    try:
        with pytest.raises(GuestError, match=r"allowed|did not answer"):
            await port.ask("guest-ping", seconds=0.5)
        assert len(port._answers._line) <= ANSWER
    finally:
        task.cancel()
        await asyncio.wait({task})
        port.close()
        theirs.close()


LIES = {
    "guest-exec": [{}, {"pid": "1"}, None, []],
    "guest-exec-status": [
        {},
        {"exited": 1},
        {"exited": True},
        {"exited": True, "exitcode": "0"},
        {"exited": True, "exitcode": 0, "out-data": 7},
        {"exited": True, "exitcode": 0, "out-data": "no base64!"},
    ],
}


@pytest.mark.parametrize(("command", "lie"), [(c, lie) for c, lies in LIES.items() for lie in lies])
async def test_a_run_does_not_believe_everything(command, lie):
    def does(message):
        return returns(lie if message["execute"] == command else {"pid": 1})

    async with talking(does) as (port, _peer, _monitor):
        with pytest.raises(GuestError, match=f"nonsense to {command}"):
            await Agent(port).run("true", 5)


@pytest.mark.parametrize("count", [0, -1, 99, "3", None])
async def test_a_write_does_not_believe_the_count(count):
    def does(message):
        return returns({"count": count} if message["execute"] == "guest-file-write" else 1)

    async with talking(does) as (port, _peer, _monitor):
        with pytest.raises(GuestError, match="nonsense to guest-file-write"):
            await Agent(port).write("/x", b"abc", 5)


async def test_a_file_without_end_is_bounded():
    piece = base64.b64encode(bytes(100_000)).decode()

    def does(message):
        if message["execute"] == "guest-file-read":
            return returns({"count": 100_000, "buf-b64": piece, "eof": False})
        return returns(1)

    async with talking(does) as (port, peer, _monitor):
        with pytest.raises(GuestError, match="/dev/zero has more than 1000000 bytes"):
            await Agent(port).read("/dev/zero", 20, 1_000_000)
        assert peer.asked[-1]["execute"] == "guest-file-close"


async def test_what_a_signal_ended():
    def does(message):
        return returns({"pid": 1, "exited": True, "signal": 9, "out-truncated": True})

    async with talking(does) as (port, _peer, _monitor):
        found = await Agent(port).run(["kill", "-9"], 5)
        assert (found.status, found.truncated, found.command) == (137, True, "kill -9")
        with pytest.raises(GuestError, match="ended with status 137"):
            found.check()


def test_a_message_in_pieces():
    answers = Answers()
    answers.begin()
    found = [m for byte in b'{"return": 1}\n' for m in answers.feed(bytes([byte]))]
    assert found == [{"return": 1}]


def test_a_question_is_one_line():
    assert question("guest-ping", None) == b'{"execute":"guest-ping"}\n'
    assert question("a", {"b": "c\nd"}, sentinel=True).count(b"\n") == 1
