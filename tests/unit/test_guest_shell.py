"""The shell's way, at real shells on real terminals: echo, prompts, escapes, other output."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import shutil
import signal
import socket
import threading

import pytest

from launcher.console import Console
from launcher.guest.ran import GuestError
from launcher.guest.shell import Shell
from launcher.guest.terminal import Terminal

SHELLS = {
    "sh": ["/bin/sh", "-i"],
    "bash": ["/bin/bash", "--norc", "-i"],
    "plain": ["/bin/sh", "-c", "while printf 'guest# ' && read -r line; do eval \"$line\"; done"],
}


@contextlib.asynccontextmanager
async def at(words):
    """A shell on a terminal, and a console that leads there."""
    if shutil.which(words[0]) is None:
        pytest.skip(f"no {words[0]} here")
    pid, master = pty.fork()
    if pid == 0:
        os.environ.update(PS1="guest$ ", TERM="xterm", HISTFILE="")
        os.execv(words[0], words)
    ours, theirs = socket.socketpair()

    def carry(read, write):
        with contextlib.suppress(OSError):
            while data := read():
                write(data)

    threads = [
        threading.Thread(target=carry, args=(lambda: os.read(master, 4096), theirs.sendall)),
        threading.Thread(
            target=carry, args=(lambda: theirs.recv(4096), lambda data: os.write(master, data))
        ),
    ]
    for thread in threads:
        thread.start()
    console = Console(ours)
    try:
        yield console, Shell(Terminal(console)), theirs
    finally:
        os.killpg(pid, signal.SIGKILL)  # of its session, the shell is the leader
        await asyncio.to_thread(os.waitpid, pid, 0)
        console.close()
        theirs.shutdown(socket.SHUT_RDWR)
        os.close(master)
        for thread in threads:
            await asyncio.to_thread(thread.join, 10)
        theirs.close()


@pytest.mark.parametrize("name", SHELLS)
async def test_commands(name):
    async with at(SHELLS[name]) as (_console, shell, _theirs):
        await shell.ping(10)
        found = await shell.run("echo out; echo err >&2; exit 3", 10)
        assert (found.status, found.stdout, found.errors, found.via) == (
            3,
            "out\nerr\n",
            None,
            "shell",
        )
        found = await shell.run(["printf", "%s|", "a b", "'\"$x!`", "grün\n\t\\"], 10)
        assert found.stdout == "a b|'\"$x!`|grün\n\t\\|"
        assert (await shell.run("cat", 10, given=bytes(range(256)))).output == bytes(range(256))
        assert (await shell.run("sh -c 'kill -9 $$'", 10)).status == 137
        assert (await shell.run("cat", 10)).output == b""
        # What stays holds none of the descriptors that the output goes through.
        assert (await shell.run("sleep 99 >/dev/null 2>&1 & echo $?", 60)).stdout == "0\n"


@pytest.mark.parametrize("name", SHELLS)
async def test_files(name, tmp_path):
    async with at(SHELLS[name]) as (_console, shell, _theirs):
        path = tmp_path / "a b'"
        data = os.urandom(20_000)
        await shell.write(str(path), data, 20)
        assert path.read_bytes() == data
        assert await shell.read(str(path), 20) == data
        await shell.write(str(path), b"", 10)
        assert path.read_bytes() == b""
        with pytest.raises(GuestError, match="could not be written"):
            await shell.write(str(tmp_path / "no" / "x"), b"1", 10)
        with pytest.raises(GuestError, match="ended with status"):
            await shell.read(str(tmp_path / "no"), 10)
        await shell.ping(10)


@pytest.mark.parametrize("name", SHELLS)
async def test_output_is_bounded_and_the_command_still_ends_by_itself(name):
    async with at(SHELLS[name]) as (_console, shell, _theirs):
        found = await shell.run("head -c 500000 /dev/zero; exit 4", 20, 1000)
        assert (found.output, found.truncated, found.status) == (bytes(1000), True, 4)
        with pytest.raises(GuestError, match="did not finish"):
            await shell.read("/dev/zero", 1, 100)


async def test_a_long_command():
    async with at(SHELLS["sh"]) as (_console, shell, _theirs):
        words = [f"w{n}" for n in range(3000)]
        assert (await shell.run(["echo", *words], 20)).stdout.split() == words


async def test_what_takes_too_long_is_interrupted():
    async with at(SHELLS["bash"]) as (_console, shell, _theirs):
        await shell.ping(60)  # one that only starts may end of Ctrl-C
        with pytest.raises(GuestError, match=r"did not finish within 0\.5 s; it was sent Ctrl-C"):
            await shell.run("sleep 600", 0.5)
        assert (await shell.run("echo on", 60)).stdout == "on\n"


@pytest.mark.parametrize("name", ["sh", "bash"])
async def test_a_shell_that_is_interrupted_at_any_moment_is_used_again(name):
    """While it reads the line, forks or waits: Ctrl-C may be lost, and so may what comes after."""
    async with at(SHELLS[name]) as (_console, shell, _theirs):
        await shell.ping(60)
        for turn in range(20):
            with pytest.raises(GuestError, match="did not finish"):
                await shell.run("sleep 600", 0.001 + turn * 0.002)
            assert (await shell.run("echo on", 60)).stdout == "on\n"


async def test_other_output_between_the_lines_does_no_harm():
    noise = "(for n in $(seq 300); do echo '[   12.345678] random: noise'; sleep 0.01; done)"
    async with at(SHELLS["sh"]) as (console, shell, _theirs):
        await console.send_line(f"{noise} &")
        outcomes = [await outcome(shell) for _ in range(5)]
        # What came in the middle of a line is told, and not lost.
        assert set(outcomes) <= {"whole", "disturbed"}
        assert "whole" in outcomes


async def outcome(shell):
    try:
        found = await shell.run("head -c 30000 /dev/zero", 10)
    except GuestError as error:
        return "disturbed" if "disturbed" in error.message else error.message
    return "whole" if found.output == bytes(30000) else found.output


async def test_output_that_was_disturbed_is_an_error():
    """A shell whose encoder loses a line."""
    async with at(SHELLS["sh"]) as (console, shell, _theirs):
        await console.send_line('grep() { command grep "$@" | sed 2d; }')
        with pytest.raises(GuestError, match="disturbed"):
            await shell.run("head -c 1000 /dev/zero", 10)
        await console.send_line("base64() { echo what >&2; return 1; }")
        with pytest.raises(GuestError, match="wrote nothing that can be read"):
            await shell.run("true", 10)


async def test_no_shell_there():
    async with at(["/bin/cat"]) as (_console, shell, _theirs):
        with pytest.raises(GuestError, match="did not finish") as caught:
            await shell.ping(0.5)
        assert "log in first" in caught.value.hint
