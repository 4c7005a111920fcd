"""The monitor room against a peer that fails in every way: the fake QEMU, a real process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qemu.qmp import ExecInterruptedError

from launcher.errors import CommandError, MonitorError
from launcher.monitor import Event, Monitor
from launcher.monitor.events import EVENT_PREFIX, EventBudget, EventFilter
from launcher.process import Process
from tests.support.leaks import held
from tests.support.talk import QMP_FD, conversation, spawn_with_qmp, watched

FAKE = Path(__file__).parent.parent / "fakes" / "qemu.py"


@pytest.fixture(autouse=True)
async def nothing_is_left():
    before = held()
    yield
    assert held() == before
    assert asyncio.all_tasks() == {asyncio.current_task()}


def start(does: str) -> tuple[Process, socket.socket]:
    argv = [sys.executable, str(FAKE), "--fd", str(QMP_FD)]
    return spawn_with_qmp(argv, env={"FAKE_QEMU": does}, tie=False)


@contextlib.asynccontextmanager
async def fake(does: str = ""):
    """A fake QEMU, and our end of its QMP, which is left to the test."""
    process, sock = start(does)
    async with watched(process):
        yield process, sock


@contextlib.asynccontextmanager
async def session(does: str = ""):
    process, sock = start(does)
    async with conversation(process, sock) as monitor:
        yield monitor, process


# Deaths and nonsense: each ends in a MonitorError that says what happened, in time.

CONNECT = [
    ("die-before-greeting", "QEMU closed it", "EOFError"),
    ("close-before-greeting", "QEMU closed it", "EOFError"),
    ("greeting-none", "no QMP greeting within 0.3 s", "timeout"),
    ("greeting-garbage", "not JSON: b'SSH-2.0-OpenSSH_9.2", "DeserializationError"),
    ("greeting-array", "not an object", "UnexpectedTypeError"),
    ("greeting-other", "no QMP greeting: .*requires 'QMP'", "KeyError"),
    ("greeting-versionless", "no QMP greeting: .*requires 'version'", "KeyError"),
    ("greeting-half", "no QMP greeting within 0.3 s", "timeout"),
    ("greeting-utf8", "not UTF-8", "UnicodeDecodeError"),
    ("greeting-deep", "nested too deep", "RecursionError"),
    ("capabilities-refused", "refused qmp_capabilities", "NegotiationError"),
    ("capabilities-none", "no answer to qmp_capabilities within 0.3 s", "timeout"),
    ("capabilities-die", "QEMU closed it", "EOFError"),
]


@pytest.mark.parametrize(("does", "says", "cause"), CONNECT, ids=[row[0] for row in CONNECT])
async def test_connecting_to_one_that_fails(does, says, cause):
    async with fake(does) as (process, sock):
        if cause == "timeout":  # it must have come so far that only the fault is missing
            await readable(sock, process, 1.0 if does == "greeting-none" else 60.0)
        # Its own start takes longer than the deadline of the silent ones.
        timeout = 0.3 if cause == "timeout" else 60.0
        with pytest.raises(MonitorError, match=says) as caught:
            await Monitor.connect(sock, timeout=timeout)
        assert caught.value.evidence == {"command": "qmp_capabilities", "cause": cause}
        assert sock.fileno() == -1


async def readable(sock: socket.socket, process: Process, seconds: float) -> None:
    """Until the fake has sent something, or evidently will not."""
    ready = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sock, ready.set)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await ready.wait()
    loop.remove_reader(sock)
    assert process.returncode is None


EXECUTE = [
    ("reply-none", "query-status: no answer within SECONDS s", "timeout"),
    ("reply-half", "query-status: no answer within SECONDS s", "timeout"),
    ("reply-30MB-endless", "more than 10 MiB", "ValueError"),
    ("reply-30MB", "more than 10 MiB", "ValueError"),
    ("reply-garbage", "not JSON: b'Segmentation fault", "DeserializationError"),
    ("reply-array", "not an object", "UnexpectedTypeError"),
    ("reply-utf8", "not UTF-8", "UnicodeDecodeError"),
    ("reply-deep", "nested too deep", "RecursionError"),
    ("reply-long-number", "Exceeds the limit", "ValueError"),
    ("reply-half-eof", "closed it in the middle of a message", "EOFError"),
    ("reply-eof", "QEMU closed it", "EOFError"),
    ("reply-wrong-id", "no answer within SECONDS s", "timeout"),
    ("reply-number-id", "no answer within SECONDS s", "timeout"),
    ("reply-no-id", "no answer within SECONDS s", "timeout"),
    ("reply-empty-object", "no answer within SECONDS s", "timeout"),
    ("reply-second-greeting", "no answer within SECONDS s", "timeout"),
    ("error-no-id", "did not understand a request: .*JSON parse error", "ServerParseError"),
    ("answer-neither", "neither a return nor an error", "malformed reply"),
    ("answer-error-text", "neither a return nor an error", "malformed reply"),
    ("answer-error-empty", "neither a return nor an error", "malformed reply"),
    ("die-at-command", "QEMU closed it", "EOFError"),
    ("abort-at-command", "QEMU closed it", "EOFError"),
    ("kill-at-command", "QEMU closed it", "EOFError"),
]
STILL_USABLE = {"timeout", "malformed reply"}
STRAY = {
    "reply-wrong-id",
    "reply-number-id",
    "reply-no-id",
    "reply-empty-object",
    "reply-second-greeting",
}


@pytest.mark.parametrize("several", [False, True], ids=["execute", "execute_all"])
@pytest.mark.parametrize(("does", "says", "cause"), EXECUTE, ids=[row[0] for row in EXECUTE])
async def test_a_command_to_one_that_fails(does, says, cause, several):
    stray = does in STRAY
    for timeout in (0.3, 5.0, 60.0) if cause == "timeout" else (60.0,):
        said = says.replace("SECONDS", f"{timeout:g}")
        async with session(does) as (monitor, _):
            asking = monitor.execute("query-status", timeout=timeout)
            if several:
                asking.close()
                asking = monitor.execute_all([("query-status", None)], timeout=timeout)
            with pytest.raises(MonitorError, match=said) as caught:
                await asking
            evidence = caught.value.evidence
            assert (evidence["command"], evidence["cause"]) == ("query-status", cause)
            assert monitor.connected == (cause in STILL_USABLE)
            if stray and not evidence.get("stray_replies"):
                continue  # the fake was slower than that
            assert evidence.get("stray_replies", 0) == stray
            if not monitor.connected:  # and it keeps saying why
                with pytest.raises(MonitorError, match=said):
                    await monitor.execute("query-name")
                with pytest.raises(MonitorError, match=said):
                    await monitor.wait_event("STOP", timeout=10)
                assert [event async for event in monitor.listen()] == []
            elif not does.startswith("reply-half"):
                assert await monitor.execute("query-name") == {"asked": "query-name"}
            return
    pytest.fail("the fake's stray reply never came")


async def test_all_who_wait_learn_the_same_cause():
    async with session("reply-garbage") as (monitor, _):
        waiting = [
            monitor.execute("query-status"),
            monitor.execute("query-name"),
            monitor.execute_all([("query-kvm", None), ("query-uuid", None)]),
            monitor.wait_event("SHUTDOWN", timeout=10),
        ]
        errors = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(error) for error in errors] == [MonitorError] * 4
        assert {error.evidence["cause"] for error in errors} == {"DeserializationError"}


@pytest.mark.parametrize("does", ["reply-none", "deaf-to-quit", "flood-events"])
async def test_closing_a_peer_that_does_not_read(does):
    async with session(does) as (monitor, process):
        process.send_signal(signal.SIGSTOP)
        big = {"path": "x" * 4_000_000}  # more than a socket buffers
        with pytest.raises(MonitorError, match="no answer"):
            await monitor.execute("qom-list", big, timeout=0.1)
        begin = time.monotonic()
        await monitor.close()
        assert (
            time.monotonic() - begin < 20
        )  # a peer that reads nothing would be waited for for ever
        assert not monitor.connected
        await monitor.close()


async def test_a_cancelled_connection_leaves_nothing():
    async with fake("greeting-none") as (_, sock):
        connecting = asyncio.create_task(Monitor.connect(sock))
        await asyncio.sleep(0.05)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        assert sock.fileno() == -1


async def test_a_cancelled_command_leaves_a_usable_session():
    async with session("answer-late") as (monitor, _):
        asking = asyncio.create_task(monitor.execute("query-status"))
        await asyncio.sleep(0.05)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await monitor.execute("query-name") == {"asked": "query-name"}


# What works


async def test_greeting_answers_and_what_they_cost():
    async with session() as (monitor, _):
        assert monitor.version == (10, 0, 0)
        assert monitor.greeting["capabilities"] == ["oob"]
        negotiation = (monitor.commands, monitor.bytes_sent)
        assert negotiation[0] == 1
        assert await monitor.execute("query-status") == {"asked": "query-status"}
        assert await monitor.execute("qom-get", {"path": "/", "property": "type"})
        sent = (
            '{"execute":"query-status","id":"1"}'
            '{"execute":"qom-get","arguments":{"path":"/","property":"type"},"id":"2"}'
        )
        cost = (monitor.commands - negotiation[0], monitor.bytes_sent - negotiation[1])
        assert cost == (2, len(sent))


async def test_an_answer_leaves_room_for_the_end_of_the_session():
    """Which qemu.qmp puts on top of one that nobody has fetched yet."""
    async with session() as (monitor, _):
        client = monitor._client
        number = await client._issue(client._request("query-status", None, "execute"))
        while client._pending[number].empty():  # noqa: ASYNC110 (a queue tells only who takes)
            await asyncio.sleep(0)
        client._pending[number].put_nowait(ExecInterruptedError("Disconnected"))
        assert "return" in await client._reply(number)


async def test_many_at_once_keep_their_order():
    async with session() as (monitor, _):
        names = [f"query-{number}" for number in range(300)]
        answers = await monitor.execute_all([(name, None) for name in names])
        assert answers == [{"asked": name} for name in names]
        assert monitor.commands == 301
        assert await monitor.execute_all([]) == []


async def test_an_error_is_the_value_of_its_own_command():
    async with session("answer-both") as (monitor, _):
        answers = await monitor.execute_all([("query-status", None), ("query-name", None)])
        assert isinstance(answers[0], CommandError)
        assert answers[0].message == "query-status: both"
        expected = {"command": "query-status", "class": "GenericError", "desc": "both"}
        assert answers[0].evidence == expected
        assert answers[1] == {"asked": "query-name"}
    async with session("answer-both") as (monitor, _):
        with pytest.raises(CommandError, match="query-status: both"):
            await monitor.execute("query-status")


@pytest.mark.parametrize(
    ("does", "value"), [("answer-null", None), ("answer-9MB", "x" * 9_000_000)]
)
async def test_odd_but_right_answers(does, value):
    async with session(does) as (monitor, _):
        assert await monitor.execute("query-status") == value


async def test_a_late_and_a_repeated_answer_are_nobodys():
    async with session("answer-late,answer-twice") as (monitor, _):
        with pytest.raises(MonitorError, match=r"no answer within 0\.1 s"):
            await monitor.execute("query-status", timeout=0.1)
        assert await monitor.execute("query-name") == {"asked": "query-name"}


@pytest.mark.parametrize("bad", [{"a": object()}, {"a": b"bytes"}, {("k",): 1}])
async def test_arguments_that_are_not_json_are_refused_before_they_are_sent(bad):
    async with session() as (monitor, _):
        before = monitor.bytes_sent
        with pytest.raises(TypeError):
            await monitor.execute("qom-set", bad)
        with pytest.raises(TypeError):
            await monitor.execute_all([("query-name", None), ("qom-set", bad)])
        assert await monitor.execute("query-status")
        assert monitor.bytes_sent - before <= 2 * 40


# Events


async def test_events_are_kept_and_found_afterwards():
    async with session() as (monitor, process):
        mark = monitor.mark()
        seen: list[Event] = []
        forget = monitor.on_event(seen.append)
        with monitor.listen({"SHUTDOWN"}) as stream:
            await monitor.execute("quit")
            assert await process.wait(10) == 0
            event = await monitor.wait_event("SHUTDOWN", timeout=10)
            assert event.data == {"guest": False, "reason": "host-qmp-quit"}
            assert (event.number, list(monitor.events)) == (1, [event])
            assert [each async for each in stream] == [event]  # ends with the connection
        assert seen == [event]
        forget()
        # After the end: what came is still found, what did not come is an error at once.
        again = await monitor.wait_event({"STOP", "SHUTDOWN"}, timeout=10, since=mark)
        assert again == event
        with pytest.raises(MonitorError, match="QEMU closed it"):
            await monitor.wait_event("SHUTDOWN", lambda e: e.data["guest"], timeout=10)
        with pytest.raises(MonitorError, match="QEMU closed it"):
            await monitor.wait_event("SHUTDOWN", timeout=10, since=monitor.mark())


async def test_an_event_may_come_before_the_answer_to_the_negotiation():
    async with session("event-before-capabilities") as (monitor, _):
        assert (await monitor.wait_event("RESUME", timeout=0)).number == 1
        assert await monitor.execute("query-status")


async def test_waiting_for_an_event_has_a_deadline():
    async with session() as (monitor, _):
        with pytest.raises(MonitorError, match=r"no STOP within 0\.1 s"):
            await monitor.wait_event("STOP", timeout=0.1)
        assert monitor.connected


async def test_an_error_in_a_callback_is_the_loops_affair(caplog):
    def fails(event: Event) -> None:
        raise ZeroDivisionError

    reported = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
    async with session() as (monitor, _):
        monitor.on_event(fails)
        assert await monitor.execute("quit") == {}
        await monitor.wait_event("SHUTDOWN", timeout=10)
    assert [type(error) for error in reported] == [ZeroDivisionError]
    assert caplog.records == []


async def test_a_flood_is_dropped_counted_and_does_not_hide_what_matters():
    async with session("flood-events") as (monitor, _):
        mark, begin = monitor.mark(), time.monotonic()
        with monitor.listen(size=8) as stream:
            assert await monitor.execute("query-status", timeout=60)
            await monitor.wait_event("STOP", timeout=10)
            kept = [event for event in monitor.events if event.name == "GUEST_CRASHLOADED"]
            assert len(kept) + monitor.dropped["GUEST_CRASHLOADED"] == 40_000
            # A burst, and so many a second (test_a_budget_is_a_burst_and_a_rate_for_each_name).
            assert 64 <= len(kept) <= 65 + 32 * (time.monotonic() - begin)
            numbers = [event.data["number"] for event in kept]
            assert numbers == sorted(numbers)
            assert list(monitor.dropped) == ["GUEST_CRASHLOADED"]
            assert stream.dropped == monitor.mark() - mark - 8
            assert (await anext(stream)).number == monitor.mark() - 7


async def test_even_important_events_have_a_limit_and_history_is_bounded():
    async with session("flood-important") as (monitor, _):
        assert await monitor.execute("query-status", timeout=60)
        assert len(monitor.events) == 1024
        assert 0 < monitor.dropped["BLOCK_IO_ERROR"] < 20_000 - 4096 + 1


async def test_a_peer_that_invents_names_gets_one_budget_for_the_rest():
    begin = time.monotonic()
    async with session("flood-names") as (monitor, _):
        assert await monitor.execute("query-status", timeout=60)
        assert monitor.mark() + sum(monitor.dropped.values()) == 4000
        assert 256 * 2 <= monitor.mark() <= 256 * 2 + 65 + 32 * (time.monotonic() - begin)


def line(name: str, **data: object) -> bytes:
    message = {"timestamp": {"seconds": 1, "microseconds": 2}, "event": name, "data": data}
    return json.dumps(message).encode() + b"\r\n"


def test_a_budget_is_a_burst_and_a_rate_for_each_name():
    now = 100.0
    budget = EventBudget(lambda: now)
    assert sum(budget.admits(line("RESET")) for _ in range(1000)) == 64
    assert budget.admits(line("RTC_CHANGE"))
    assert sum(budget.admits(line("SHUTDOWN")) for _ in range(1000)) == 1000
    now += 1.0
    assert sum(budget.admits(line("RESET")) for _ in range(1000)) == 32
    assert budget.dropped == {"RESET": 1000 - 64 + 1000 - 32}
    now += 1e6
    assert sum(budget.admits(line("RESET")) for _ in range(1000)) == 64


def test_data_cannot_forge_a_name():
    budget = EventBudget(lambda: 0.0)
    forged = line("RESET", text='", "event": "SHUTDOWN', event="SHUTDOWN")
    assert sum(budget.admits(forged) for _ in range(100)) == 64
    assert budget.dropped == {"RESET": 36}


def test_an_event_in_another_spelling_is_never_dropped():
    budget = EventBudget(lambda: 0.0)
    odd = EVENT_PREFIX + b'"seconds":1},"event":"RESET"}\r\n'
    assert all(budget.admits(odd) for _ in range(100))


messages = st.one_of(
    st.sampled_from([line("RESET"), line("STOP"), line("RESET", text="{\n".replace("\n", "\\n"))]),
    st.binary(max_size=40).map(lambda data: data.replace(b"\n", b"") + b"\n"),
    st.sampled_from([b"\n", b"{", b'{"time', EVENT_PREFIX, EVENT_PREFIX + b"\n"]),
    st.just(EVENT_PREFIX + b"x" * 300 + b"\n"),
    st.just(b'{"return": {}, "id": "1"}\r\n'),
)


@pytest.mark.property
@given(st.lists(messages, max_size=200), st.lists(st.integers(1, 400), min_size=1, max_size=50))
def test_every_byte_passes_in_order_but_the_dropped_events(stream, sizes):
    text = b"".join(stream)
    budget = EventBudget(lambda: 0.0)
    filter_ = EventFilter(budget)
    filter_.LONGEST = 200  # so that short examples meet it
    passed, at, turn = [], 0, 0
    while at < len(text):
        size = sizes[turn % len(sizes)]
        passed.append(filter_.feed(text[at : at + size]))
        at, turn = at + size, turn + 1
    got = b"".join(passed) + filter_.rest()

    again = EventBudget(lambda: 0.0)
    *whole, rest = text.split(b"\n")
    expected = b"".join(
        each + b"\n" for each in whole if not each.startswith(EVENT_PREFIX) or again.admits(each)
    )
    assert got == expected + rest
    assert budget.dropped == again.dropped
