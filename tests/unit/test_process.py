"""The process room against real processes: shells, and the fake QEMU where one must misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import select
import signal
import socket
import sys
import textwrap
import time
from pathlib import Path

import pytest

import launcher
from launcher.errors import LaunchError, MonitorError
from launcher.process import (
    Deadlines,
    Process,
    StderrTail,
    describe_exit,
    meaningful_lines,
    spawn,
)
from tests.support.leaks import held
from tests.support.talk import QMP_FD, spawn_with_qmp

FAKE = Path(__file__).parent.parent / "fakes" / "qemu.py"
ROOT = Path(launcher.__file__).parent.parent
QUICK = Deadlines(powerdown=0.2, quit=0.2, term=0.2, kill=5.0)

both = pytest.mark.parametrize("tie", [True, False], ids=["tied", "untied"])


@pytest.fixture(autouse=True)
async def nothing_is_left():
    warm = spawn(["/bin/true"], fds={}, env={}, tie=True)  # the tie's own pipe stays, by design
    await warm.wait(10)
    before = held()
    yield
    assert held() == before


def shell(script: str, *, tie: bool = False, fds=None, env=None, cwd=None, args=()) -> Process:
    argv = ["/bin/sh", "-c", script, "sh", *args]
    return spawn(argv, fds=fds or {}, env=env or {}, tie=tie, cwd=cwd)


def fake(does: str, *, tie: bool = False) -> tuple[Process, socket.socket]:
    argv = [sys.executable, str(FAKE), "-chardev", f"socket,id=qmp,fd={QMP_FD}"]
    return spawn_with_qmp(argv, env={"FAKE_QEMU": does}, tie=tie)


async def started(qmp: socket.socket) -> None:
    """The fake has set up its signals and speaks."""
    qmp.setblocking(False)
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(60):
        assert await loop.sock_recv(qmp, 65536)


async def request(qmp: socket.socket, command: str) -> None:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(qmp, b'{"execute":"%s"}' % command.encode())
    await loop.sock_recv(qmp, 65536)


# Words


@pytest.mark.parametrize("size", [1, 7, 1000, 65536])
def test_stderr_is_kept_whole_below_the_bound(size):
    text = "".join(f"line {n}\n" for n in range(2000)).encode()
    tail = StderrTail()
    for at in range(0, len(text), size):
        tail.feed(text[at : at + size])
    assert tail.lines == [f"line {n}" for n in range(2000)]
    assert (tail.dropped_lines, tail.dropped_bytes) == (0, 0)


@pytest.mark.parametrize("size", [7, 1000, 65536])
def test_a_flood_keeps_both_ends_and_counts_the_middle(size):
    lines = [f"line {n}" for n in range(100_000)]
    text = "\n".join(lines).encode() + b"\n"
    tail = StderrTail()
    for at in range(0, len(text), size):
        tail.feed(text[at : at + size])
    kept = tail.lines
    assert kept[:100] == lines[:100]
    assert kept[-100:] == lines[-100:]
    assert len("\n".join(kept)) <= StderrTail.HEAD + StderrTail.TAIL
    # The line on the edge of the head is cut in two, one half of which counts as dropped.
    assert len(kept) + tail.dropped_lines - len(lines) in (0, 1)


def test_a_line_without_end_is_bounded_too():
    tail = StderrTail()
    for _ in range(100):
        tail.feed(b"x" * 10_000)
    assert sum(map(len, tail.lines)) == StderrTail.HEAD + StderrTail.TAIL
    assert tail.dropped_bytes == 1_000_000 - StderrTail.HEAD - StderrTail.TAIL


def test_bytes_that_are_no_text_are_escaped_and_carriage_returns_go():
    tail = StderrTail()
    tail.feed(b"a\xffb\r\nc\x85d\n\nlast")
    assert tail.lines == ["a\\xffb", "c\\x85d", "", "last"]


QEMU = "/usr/bin/qemu-system-x86_64"
NIC = '{"driver":"e1000","id":"nic0","netdev":"x: y"}'


@pytest.mark.parametrize(
    ("lines", "argv", "expected"),
    [
        (
            ["qemu-system-x86_64: -device nonsense: 'nonsense' is not a valid device model name"],
            [QEMU, "-S", "-device", "nonsense"],
            [("-device", "nonsense", 2, "'nonsense' is not a valid device model name", ())],
        ),
        (
            [f"qemu-system-x86_64: -device {NIC}: Property 'e1000.netdev' can't find value 'x: y'"],
            [QEMU, "-device", NIC],
            [("-device", NIC, 1, "Property 'e1000.netdev' can't find value 'x: y'", ())],
        ),
        (
            [f"qemu-system-x86_64.real: -device {NIC}: no"],
            ["/usr/bin/wrapper"],
            [("-device", NIC, -1, "no", ())],
        ),
        (
            [
                "qemu-system-x86_64: -object iothread,id=1: Parameter 'id' expects an identifier",
                "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter.",
            ],
            [],
            [
                (
                    "-object",
                    "iothread,id=1",
                    -1,
                    "Parameter 'id' expects an identifier",
                    (
                        "Identifiers consist of letters, digits, '-', '.', '_', "
                        "starting with a letter.",
                    ),
                )
            ],
        ),
        (
            [
                'qemu-system-x86_64: unsupported machine type: "nope"',
                "Use -machine help to list supported machines",
            ],
            [QEMU, "-machine", "nope"],
            [
                (
                    "",
                    "",
                    -1,
                    'unsupported machine type: "nope"',
                    ("Use -machine help to list supported machines",),
                )
            ],
        ),
        (
            ["qemu: could not open kernel file 'vmlinuz': No such file or directory"],
            [QEMU, "-kernel", "vmlinuz"],
            [("", "", -1, "could not open kernel file 'vmlinuz': No such file or directory", ())],
        ),
        (
            [
                "qemu-system-x86_64: -mon chardev=qmp,mode=control: warning: '-mon' is deprecated, "
                "use '-object' with 'monitor-hmp' or 'monitor-qmp' types instead",
                "qemu-system-x86_64: warning: TCG doesn't support requested feature",
                "qemu-system-x86_64: terminating on signal 15 from pid 1 (init)",
                "qemu-system-x86_64: -nonsense: invalid option",
            ],
            [QEMU, "-nonsense"],
            [("-nonsense", "", 1, "invalid option", ())],
        ),
        (
            ["qemu-system-x86_64: warning: only this"],
            [],
            [("", "", -1, "warning: only this", ())],
        ),
        (
            ["Unexpected error in object_resolve_link() at ../qom/object.c:2015:"],
            [],
            [
                (
                    "",
                    "",
                    -1,
                    "Unexpected error in object_resolve_link() at ../qom/object.c:2015:",
                    (),
                )
            ],
        ),
        (
            ["acme-emulator: -bios: it is gone"],
            ["/opt/acme-emulator", "-bios"],
            [("-bios", "", 1, "it is gone", ())],
        ),
        ([], [QEMU], []),
        (["", "  "], [QEMU], []),
    ],
)
def test_the_error_is_found_and_taken_apart(lines, argv, expected):
    found = meaningful_lines(lines, argv)
    assert [(c.option, c.value, c.index, c.message, c.hints) for c in found] == expected
    assert all(c.line in lines for c in found)


@pytest.mark.parametrize(
    ("returncode", "words"),
    [
        (0, "exit status 0"),
        (1, "exit status 1"),
        (-signal.SIGABRT, "QEMU crashed (SIGABRT)"),
        (-signal.SIGSEGV, "QEMU crashed (SIGSEGV)"),
        (-signal.SIGSYS, "QEMU crashed (SIGSYS)"),
        (-signal.SIGKILL, "killed by SIGKILL"),
        (-signal.SIGTERM, "killed by SIGTERM"),
        (-63, "killed by signal 63"),
    ],
)
def test_an_exit_status_in_words(returncode, words):
    assert describe_exit(returncode) == words


# Spawning


@both
async def test_files_arrive_under_their_numbers_even_when_those_cross(tie, tmp_path):
    one = os.open(tmp_path / "one", os.O_WRONLY | os.O_CREAT)
    two = os.open(tmp_path / "two", os.O_WRONLY | os.O_CREAT)
    # Each one's number in the child is the other one's number here.
    script = f"import os; os.write({one}, b'to two'); os.write({two}, b'to one')"
    argv = [sys.executable, "-I", "-c", script]
    process = spawn(argv, fds={one: two, two: one}, env={}, tie=tie)
    os.close(one)
    os.close(two)
    assert await process.wait(10) == 0
    assert [(tmp_path / name).read_text() for name in ("one", "two")] == ["to one", "to two"]


@both
async def test_nothing_else_is_inherited(tie):
    reading, writing = os.pipe()
    os.set_inheritable(reading, True)  # as a careless parent of ours would leave it
    process = shell("ls -l /proc/$$/fd", tie=tie, fds={5: writing}, env={"PATH": "/bin:/usr/bin"})
    assert await process.wait(10) == 0
    rows = {line.split()[-3]: line.split()[-1] for line in process.stderr.lines if "->" in line}
    os.close(reading)
    os.close(writing)
    assert rows["0"] == "/dev/null"
    assert rows["1"] == rows["2"] != rows["5"]
    rest = rows.keys() - {"0", "1", "2", "5"}
    assert len(rest) == (1 if tie else 0)  # the tie's end, under a number nobody asked for


@both
async def test_the_child_is_a_session_of_its_own_with_fresh_signals(tie):
    process = shell("exec cat /proc/self/status /proc/self/stat", tie=tie, env={"PATH": "/bin"})
    assert await process.wait(10) == 0
    status = dict(line.split(":", 1) for line in process.stderr.lines if ":" in line)
    # The two signals above 31 are the C library's own.
    assert (
        int(status["SigIgn"], 16) & 0x7FFFFFFF == 0
    )  # Python ignores SIGPIPE; its children must not
    assert int(status["SigBlk"], 16) & 0x7FFFFFFF == 0
    session = process.stderr.lines[-1].rpartition(")")[2].split()[3]
    assert int(session) == process.pid


@both
async def test_environment_and_arguments_arrive_untouched(tie):
    hostile = ["a b", "$(id)", "`id`", "'\"", "*", "", "-n", "ünï", "\udcff", "a\nb", "\\"]
    script = "import os, sys; print(ascii(sys.argv[1:]), sorted(os.environ) == ['A', 'LC_CTYPE'])"
    argv = [sys.executable, "-I", "-c", script, *hostile]
    process = spawn(argv, fds={}, env={"A": "$B"}, tie=tie)
    assert await process.wait(10) == 0
    # dash sets PWD; Python sets LC_CTYPE (PEP 538).
    assert process.stderr.lines[-1].startswith(ascii(hostile))


@both
async def test_working_directory(tie, tmp_path):
    odd = tmp_path / "-odd $(dir) 'name'"
    odd.mkdir()
    process = shell("pwd", tie=tie, cwd=str(odd))
    assert await process.wait(10) == 0
    assert process.stderr.lines == [str(odd)]


@both
async def test_a_caller_can_send_the_output_elsewhere(tie, tmp_path):
    log = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    process = shell("echo out; echo err >&2", tie=tie, fds={1: log, 2: log})
    assert process.stderr_fd == -1
    assert await process.wait(10) == 0
    assert (tmp_path / "log").read_text() == "out\nerr\n"
    process = shell("echo out; echo err >&2", tie=tie, fds={1: log})
    os.close(log)
    assert await process.wait(10) == 0
    assert (tmp_path / "log").read_text() == "out\nerr\nout\n"
    assert process.stderr.lines == ["err"]


@both
@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("/nonexistent/qemu", "no such file"),
        ("/etc", "it is not a file"),
        ("{tmp}/data", "it is not executable"),
        ("{tmp}/text", "it is not a program"),
        ("qemu-system-x86_64", "it is not a path"),
    ],
)
def test_what_cannot_be_started_says_why(tie, program, reason, tmp_path):
    for name, mode in (("data", 0o644), ("text", 0o755)):
        (tmp_path / name).write_text("echo a shell would run this")
        (tmp_path / name).chmod(mode)
    program = program.format(tmp=tmp_path)
    with pytest.raises(LaunchError, match=reason) as caught:
        spawn([program, "-S"], fds={}, env={}, tie=tie)
    assert caught.value.evidence["argv"] == [program, "-S"]


@both
def test_an_argument_list_that_is_too_long(tie):
    with pytest.raises(LaunchError, match="Argument list too long"):
        spawn(["/bin/true", "x" * 3_000_000], fds={}, env={}, tie=tie)


@both
def test_without_file_descriptors_nothing_stays_behind(tie):
    """At each possible place of the failure."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for fd in range(3, 512):  # what pytest's own parents left to it, above the limit set below
        with contextlib.suppress(OSError):
            os.set_inheritable(fd, False)
    used = len(os.listdir("/proc/self/fd"))
    outcomes = []
    for limit in range(used - 1, used + 16):
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        try:
            spawn(["/bin/true"], fds={3: 0}, env={}, tie=tie).kill()
            outcomes.append("ran")
        except LaunchError as error:
            outcomes.append(error.message.partition(": ")[2])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert set(outcomes) == {"ran", "Too many open files"}


def test_it_is_usable_before_asyncio_is_imported():
    code = """
        import sys
        from launcher.process import spawn
        process = spawn(["/bin/sh", "-c", "echo early"], fds={}, env={}, tie=True)
        heavy = {"asyncio", "subprocess", "dataclasses", "typing", "inspect", "threading"}
        print(heavy & sys.modules.keys(), flush=True)
        while process.poll() is None: process.drain()
        print(process.stderr.lines, process.returncode)
    """
    env = {"PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-S", "-c", textwrap.dedent(code)]  # -S: no site-packages hooks
    process = spawn(argv, fds={}, env=env, tie=False)
    while process.poll() is None:
        process.drain()
    assert process.stderr.lines == ["set()", "['early'] 0"]


# The tie


LAUNCHER = """
    import os, signal, sys, threading
    from launcher.process import spawn
    def start():
        global process
        process = spawn(["/bin/sh", "-c", "exec sleep 600"], fds={}, env={"PATH": "/bin"}, tie=True)
    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    if "fork" in sys.argv and os.fork() == 0:
        print("copy", os.getpid(), flush=True)
        while True: signal.pause()
    print("child", process.pid, flush=True)
    while True: signal.pause()
"""


async def tied_pair(*words: str) -> tuple[Process, dict[str, int]]:
    argv = [sys.executable, "-c", textwrap.dedent(LAUNCHER), *words]
    process = spawn(argv, fds={}, env={"PYTHONPATH": str(ROOT)}, tie=False)
    wanted = 1 + len(words)
    async with asyncio.timeout(60):
        while len(process.stderr.lines) < wanted:
            loop = asyncio.get_running_loop()
            readable = asyncio.Event()
            loop.add_reader(process.stderr_fd, readable.set)
            await readable.wait()
            loop.remove_reader(process.stderr_fd)
            process.drain()
    said = dict(line.split() for line in process.stderr.lines)
    return process, {name: int(pid) for name, pid in said.items()}


def ends_within(pid: int, seconds: float) -> bool:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([pidfd], [], [], seconds)[0])
    finally:
        os.close(pidfd)


async def test_a_tied_child_ends_with_us_and_not_with_the_thread_that_made_it():
    process, pids = await tied_pair()
    assert not ends_within(pids["child"], 0.2)  # PR_SET_PDEATHSIG would have ended it
    process.kill()
    assert ends_within(pids["child"], 60)


@pytest.mark.parametrize("step", ["F_SETOWN", "F_SETSIG", "F_SETFL"])
@pytest.mark.parametrize(
    ("needs", "key"), [("", b""), ("read key && ", b"key\n")], ids=["shell", "key"]
)
async def test_killed_while_the_tie_is_made(step, needs, key):
    """The child must not have become the program, or begun, yet, at any step."""
    code = f"""
        import fcntl, os, signal
        from launcher.process import spawn
        real = fcntl.fcntl
        def dies(fd, command, *rest):
            if command == fcntl.{step}:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(fd, command, *rest)
        fcntl.fcntl = dies
        spawn(["/bin/sh", "-c", "{needs}echo lives && exec sleep 600"], fds={{1: 1}},
              env={{"PATH": "/bin"}}, tie=True, key={key!r})
    """
    argv = [sys.executable, "-c", textwrap.dedent(code)]
    process = spawn(argv, fds={}, env={"PYTHONPATH": str(ROOT)}, tie=False)
    stderr = os.dup(process.stderr_fd)
    assert await process.wait(10) == -signal.SIGKILL
    os.set_blocking(stderr, True)
    # To the end of the file: the child that held the pipe has ended, and had said nothing.
    assert select.select([stderr], [], [], 60)[0]
    assert os.read(stderr, 100) == b""
    assert process.stderr.lines == []
    os.close(stderr)


async def test_a_key_is_all_that_is_on_stdin(tmp_path):
    for cwd in (None, str(tmp_path)):
        argv = ["/bin/sh", "-c", "cat; pwd"]
        process = spawn(argv, fds={}, env={"PATH": "/bin"}, tie=True, key=b"one\ntwo\n", cwd=cwd)
        assert await process.wait(10) == 0
        assert process.stderr.lines == ["one", "two", cwd or os.getcwd()]


async def test_a_child_that_does_not_wait_for_its_key():
    for _ in range(50):  # before or after it is written
        process = spawn(["/bin/true"], fds={}, env={}, tie=True, key=b"unread")
        assert await process.wait(10) == 0


async def test_a_forked_copy_of_us_does_not_keep_it_alive():
    process, pids = await tied_pair("fork")
    process.kill()
    ended = ends_within(pids["child"], 60)
    os.kill(pids["copy"], signal.SIGKILL)
    assert ended


async def test_a_stopped_child_ends_with_us_too():
    process, pids = await tied_pair()
    os.kill(pids["child"], signal.SIGSTOP)
    process.kill()
    assert ends_within(pids["child"], 60)


# Running


async def test_returncode_and_last_words():
    process = shell("echo first; echo last >&2; exit 3")
    assert process.returncode is None
    assert await process.wait(10) == 3
    assert (process.returncode, process.pidfd, process.stderr_fd) == (3, -1, -1)
    assert process.stderr.lines == ["first", "last"]
    assert await process.wait(0) == 3
    assert await process.stop() == "exited"


async def test_waiting_has_a_deadline_and_several_may_wait():
    process = shell("exec sleep 60", env={"PATH": "/bin"})
    with pytest.raises(TimeoutError):
        await process.wait(0.05)
    waiters = [asyncio.create_task(process.wait(10)) for _ in range(3)]
    process.send_signal(signal.SIGUSR1)
    assert await asyncio.gather(*waiters) == [-signal.SIGUSR1] * 3
    process.send_signal(signal.SIGUSR1)  # to one that has ended: nothing


async def test_a_child_of_the_child_that_holds_stderr_does_not_hold_us():
    process = shell("sleep 60 & echo $!", env={"PATH": "/bin"})
    assert await process.wait(10) == 0
    os.kill(int(process.stderr.lines[0]), signal.SIGKILL)


async def test_stderr_that_is_closed_early_is_no_end():
    process = shell(
        "exec >&- 2>&-; read _ </proc/$PPID/nonexistent; exec sleep 0.1", env={"PATH": "/bin"}
    )
    assert await process.wait(10) == 0


def test_without_a_loop():
    process = shell("echo one; exec sleep 60", env={"PATH": "/bin"})
    assert select.select([process.stderr_fd], [], [], 10)[0]
    assert process.drain() == 4
    assert process.poll() is None
    assert process.kill() == -signal.SIGKILL
    assert process.kill() == -signal.SIGKILL
    assert process.stderr.lines == ["one"]


async def test_killed_inside_a_loop_that_watches_it():
    process = shell("exec sleep 60", env={"PATH": "/bin"})
    await process.watch()
    waiter = asyncio.create_task(process.wait(10))
    await asyncio.sleep(0)
    assert process.kill() == -signal.SIGKILL
    assert await waiter == -signal.SIGKILL


def test_it_can_move_to_another_loop():
    process = shell("exec sleep 60", env={"PATH": "/bin"})
    asyncio.run(process.watch())
    assert asyncio.run(process.stop()) == "SIGTERM"


async def test_a_flood_on_stderr_neither_blocks_it_nor_us():
    script = "i=0; while [ $i -lt 60000 ]; do echo line $i; i=$((i+1)); done; echo end"
    process = shell(script)
    # Of our own time: others may use the CPUs, too.
    turns, longest, before = 0, 0.0, time.thread_time()
    waiter = asyncio.create_task(process.wait(60))
    while not waiter.done():
        await asyncio.sleep(0)
        turns += 1
        longest, before = max(longest, time.thread_time() - before), time.thread_time()
    assert await waiter == 0
    assert (process.stderr.lines[0], process.stderr.lines[-1]) == ("line 0", "end")
    assert process.stderr.dropped_lines > 40_000
    assert longest < 0.5
    assert turns > 5  # nobody waited for its end


async def test_one_that_ends_before_it_is_watched():
    process = shell("exit 7")
    assert ends_within(process.pid, 10)
    assert await process.wait(10) == 7


async def test_somebody_else_reaped_it():
    process = shell("exit 7")
    os.waitpid(process.pid, 0)  # noqa: ASYNC222 (it ends at once)
    assert await process.wait(10) == 255


# The ladder


async def test_quit_is_enough():
    process, qmp = fake("")
    with qmp:
        await started(qmp)
        assert (
            await process.stop(quit=lambda: request(qmp, "quit"), deadlines=Deadlines()) == "quit"
        )
    assert (process.returncode, process.ladder) == (0, [])


@pytest.mark.parametrize("tie", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize(
    ("does", "rung", "returncode"),
    [
        ("deaf-to-quit", "SIGTERM", -signal.SIGTERM),
        ("deaf-to-quit,ignores-sigterm", "SIGKILL", -signal.SIGKILL),
        ("ignores-sigterm", "quit", 0),
    ],
)
async def test_each_rung_when_those_before_it_fail(does, rung, returncode, tie):
    process, qmp = fake(does, tie=tie)
    with qmp:
        await started(qmp)
        short, long = 0.2, 60.0
        deadlines = Deadlines(
            quit=long if rung == "quit" else short,
            term=long if rung == "SIGTERM" else short,
            kill=long,
        )
        assert await process.stop(quit=lambda: request(qmp, "quit"), deadlines=deadlines) == rung
    assert process.returncode == returncode


async def test_a_stopped_process_needs_sigkill():
    process, qmp = fake("")
    with qmp:
        await started(qmp)
        process.send_signal(signal.SIGSTOP)
        assert await process.stop(quit=lambda: request(qmp, "quit"), deadlines=QUICK) == "SIGKILL"
    assert process.ladder == ["quit: still running", "SIGTERM: still running"]


async def test_powerdown_comes_first_and_may_work():
    process, qmp = fake("")
    with qmp:
        await started(qmp)
        assert await process.stop(powerdown=lambda: request(qmp, "quit")) == "powerdown"


async def test_a_rung_whose_action_fails_passes_on_soon_with_its_reason():
    async def fails() -> None:
        raise MonitorError("QMP connection lost: QEMU closed it")

    def fails_at_once() -> None:
        raise ZeroDivisionError("a bug")

    process = shell("exec sleep 60", env={"PATH": "/bin"})
    begin = time.monotonic()
    rung = await process.stop(powerdown=fails_at_once, quit=fails, deadlines=Deadlines())
    assert rung == "SIGTERM"
    assert time.monotonic() - begin < 20  # of the 35 s that both may take
    assert process.ladder == [
        "powerdown: ZeroDivisionError: a bug",
        "powerdown: still running",
        "quit: MonitorError: QMP connection lost: QEMU closed it",
        "quit: still running",
    ]


async def test_quit_that_ends_it_without_an_answer_is_what_worked():
    process, qmp = fake("quit-without-answer")

    async def ask() -> None:
        await request(qmp, "quit")
        raise MonitorError("QMP connection lost: QEMU closed it")

    with qmp:
        await started(qmp)
        assert await process.stop(quit=ask) == "quit"


async def test_cancelling_a_stop_leaves_no_task():
    process = shell("trap '' TERM; echo up; while :; do sleep 1; done", env={"PATH": "/bin"})
    assert select.select([process.stderr_fd], [], [], 10)[0]
    tasks = asyncio.all_tasks()
    stopping = asyncio.create_task(process.stop())
    await asyncio.sleep(0.05)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert asyncio.all_tasks() == tasks
    assert process.kill() == -signal.SIGKILL
