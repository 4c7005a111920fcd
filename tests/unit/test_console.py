"""A console against a socket: what a guest may send, and what is waited for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import threading
import time

import pytest

from launcher.console import KEEP, Console
from launcher.errors import LauncherError


@contextlib.asynccontextmanager
async def pair():
    ours, guest = socket.socketpair()
    console = Console(ours)
    try:
        yield console, guest
    finally:
        console.close()
        guest.close()


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        ([b"login: "], "login: "),
        ([b"\x1b[0;32m", b"OK\x1b[0m\n"], "OK\n"),
        ([b"a\x1b", b"[1", b";2Hb."], "ab."),
        ([b"\x1b]0;tit", b"le\x07c."], "c."),
        ([b"\x1bP1$r\x1b\\d."], "d."),
        ([b"\x1bcreset."], "reset."),
        ([b"\xff\xfeok."], "\ufffd\ufffdok."),
        ([b"gr\xc3", b"\xbcn."], "grün."),
        ([b"\xe2\x82", b"x."], "\ufffdx."),
        ([b"a\x00b."], "a\x00b."),
    ],
)
async def test_a_guests_bytes_become_text(pieces, text):
    async with pair() as (console, guest):
        heard = bytearray()
        news = asyncio.Event()
        console.listen(lambda data: (heard.extend(data), news.set()))
        for piece in pieces:
            news.clear()
            guest.send(piece)
            await asyncio.wait_for(news.wait(), 5)
        assert console.text == text
        assert heard == b"".join(pieces)


async def test_an_escape_may_come_in_two_pieces_wherever_it_is_cut():
    whole = b"a\x1b[1;31mb\x1b]0;title\x1b\\c\x1bPq#0\x1b\\d\x1bXsos\x07e\x1b(Bf\x1b7."
    for cut in range(1, len(whole)):
        async with pair() as (console, guest):
            guest.send(whole[:cut])
            await console.wait_for("a", 5)
            guest.send(whole[cut:])
            await console.wait_for(r"\.", 5)
            assert console.text == "abcdef.", cut


async def test_an_escape_without_an_end_does_not_hide_the_rest():
    async with pair() as (console, guest):
        guest.send(b"\x1b]0;" + b"x" * 10000 + b"\nlogin: ")
        assert await console.wait_for("login: ", 5) == "login: "


async def test_expect_goes_on_where_it_was_and_wait_for_looks_at_all():
    async with pair() as (console, guest):
        guest.send(b"one\ntwo\nready\n")
        assert (await console.expect(r"(\w+)\n", 5)).group(1) == "one"
        assert (await console.expect(r"(\w+)\n", 5)).group(1) == "two"
        assert await console.wait_for("one", 5) == "one"
        assert console.read() == "ready\n"
        assert console.read() == ""
        with pytest.raises(LauncherError, match="did not show 'one': not within"):
            await console.expect("one", 0.05)
        console.forget()
        with pytest.raises(LauncherError, match="it showed nothing"):
            await console.wait_for("one", 0.05)
        guest.send(b"again one\n")
        assert (await console.expect("one", 5)).group() == "one"


async def test_lines_are_sent_and_ends_are_told():
    async with pair() as (console, guest):
        await console.send_line("uname")
        assert guest.recv(100) == b"uname\n"
        waiting = asyncio.ensure_future(console.wait_for("never", 30))
        await asyncio.sleep(0)
        guest.send(b"last words")
        guest.close()
        with pytest.raises(
            LauncherError, match=r"the console was closed; .*'last words'"
        ) as caught:
            await waiting
        assert caught.value.evidence["console"] == ["last words"]
        assert "  'last words'" in caught.value.__notes__[0]


async def test_a_failed_wait_asks_where_the_guest_is():
    async with pair() as (console, _guest):

        async def explain() -> list[str]:
            return ["runstate: paused"]

        console.explain = explain
        with pytest.raises(LauncherError) as caught:
            await console.wait_for("x", 0.01)
        assert caught.value.evidence["guest"] == ["runstate: paused"]
        assert "runstate: paused" in caught.value.__notes__[0]


async def test_a_flood_is_bounded_in_memory_and_still_searched():
    """64 MiB of lines, and the word at their end; GIBIBYTE=1 sends a whole one."""
    count = 1 << (14 if os.environ.get("GIBIBYTE") else 10)
    block = (b"x" * 79 + b"\n") * 819
    async with pair() as (console, guest):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

        def flood() -> None:
            for _ in range(count):
                guest.sendall(block)
            guest.sendall(b"the end is near\n")

        thread = threading.Thread(target=flood)
        began = time.monotonic()
        thread.start()
        assert await console.wait_for("the end is n.*r", 100) == "the end is near"
        thread.join()
        print(f"{count * len(block) / 1e6 / (time.monotonic() - began):.0f} MB/s")
        assert len(console.text) <= KEEP
        assert console.dropped + len(console.text) == count * len(block) + 16
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < 16 * 1024  # KiB
