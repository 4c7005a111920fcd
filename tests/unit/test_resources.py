"""What a launch holds: passed to real processes, and undone whatever happens."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time

import pytest

from launcher.errors import HostError, InputError
from launcher.host import runtime
from launcher.host.resources import FdSource, Resources, acquire

CANARY = b"canary-4711"


@pytest.fixture(autouse=True)
def base(monkeypatch):
    folder = tempfile.mkdtemp(prefix="ql")
    monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def no_leak():
    before = sorted(os.listdir("/proc/self/fd"))
    yield
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_nothing_wanted_nothing_held(base):
    with acquire([]) as held:
        assert held.fds == {}
        assert held.directory is None
    assert os.listdir(base) == []


def test_a_socketpair_reaches_the_child_and_ends_with_it():
    with acquire([FdSource("socketpair", "qmp")]) as held:
        fd = held.fds["qmp"]
        child = subprocess.Popen(
            ["bash", "-c", f"echo hello >&{fd}; read line <&{fd}"], pass_fds=[fd]
        )
        held.hand_over()
        ours = held.sockets["qmp"]
        ours.settimeout(10)
        assert ours.recv(100) == b"hello\n"
        ours.sendall(b"go\n")
        assert ours.recv(100) == b""  # without handing over, this would wait for ever
        assert child.wait() == 0


def test_qemu_s_ends_stay_open_until_handed_over():
    with acquire([FdSource("socketpair", "qmp"), FdSource("secret", "s0", data=b"x")]) as held:
        for fd in held.fds.values():
            assert not os.get_inheritable(fd)
            os.fstat(fd)
        held.hand_over()
        held.hand_over()
        for fd in held.fds.values():
            with pytest.raises(OSError):
                os.fstat(fd)
        assert held.sockets["qmp"].fileno() >= 0


ACCEPT = """
import socket, sys
listener = socket.socket(fileno=int(sys.argv[1]))
there, _ = listener.accept()
there.sendall(b"from the child")
"""


def test_a_listener_is_taken_over_by_the_child(base):
    with acquire([FdSource("listener", "qmp")], name="web") as held:
        path = f"{held.directory.path}/qmp"
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        fd = held.fds["qmp"]
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(path)  # at once: nobody has to wait for the child
            child = subprocess.Popen([sys.executable, "-c", ACCEPT, str(fd)], pass_fds=[fd])
            held.hand_over()
            assert client.recv(100) == b"from the child"
            assert child.wait() == 0
    assert os.listdir(f"{base}/qemu-launcher") == []


def test_a_secret_is_read_as_often_as_needed_and_seen_nowhere_else():
    source = FdSource("secret", "s0", data=CANARY)
    with acquire([source]) as held:
        fd = held.fds["s0"]
        script = f"cat /dev/fd/{fd} /dev/fd/{fd}; cat /proc/$$/cmdline /proc/$$/environ"
        said = subprocess.run(
            ["sh", "-c", script], pass_fds=[fd], capture_output=True, check=True
        ).stdout
        assert said.startswith(CANARY * 2)
        assert said.count(CANARY) == 2
        with pytest.raises(OSError):
            os.pwrite(fd, b"changed", 0)
        with pytest.raises(OSError):
            os.ftruncate(fd, 0)
    assert CANARY.decode() not in repr(source) + str(source)


def test_a_large_secret_arrives_whole():
    data = os.urandom(300_000)
    with (
        acquire([FdSource("secret", "s0", data=data)]) as held,
        open(f"/dev/fd/{held.fds['s0']}", "rb") as file,
    ):
        assert file.read() == data


def test_files(tmp_path):
    disk = tmp_path / "disk.raw"
    disk.write_bytes(b"old")
    log = tmp_path / "console.log"
    sources = [
        FdSource("file", "ro", path=str(disk)),
        FdSource("file", "rw", path=str(disk), access="write"),
        FdSource("file", "log", path=str(log), access="append"),
    ]
    with acquire(sources) as held:
        with pytest.raises(OSError):
            os.write(held.fds["ro"], b"x")
        os.write(held.fds["rw"], b"new")
        assert os.read(held.fds["ro"], 9) == b"new"
        os.write(held.fds["log"], b"1")
        assert os.get_blocking(held.fds["log"])
    with acquire(sources) as held:
        os.write(held.fds["log"], b"2")
    assert log.read_text() == "12"
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


@pytest.mark.parametrize("access", ["read", "write", "append"])
def test_what_is_no_file_is_refused_at_once(tmp_path, access):
    os.mkfifo(tmp_path / "fifo")
    started = time.monotonic()
    for path in (str(tmp_path / "fifo"), "/dev/zero", str(tmp_path)):
        with pytest.raises(HostError) as wrong:
            acquire([FdSource("file", "disk", path=path, access=access)])
        assert path in wrong.value.message
    assert time.monotonic() - started < 30  # opening a FIFO would wait for ever


def test_a_log_is_not_written_through_a_link(tmp_path):
    (tmp_path / "log").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(HostError, match="does not open"):
        acquire([FdSource("file", "log", path=str(tmp_path / "log"), access="append")])
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("sources", "name", "error", "said"),
    [
        ([FdSource("file", "disk", path="/missing/disk")], "web", HostError, "No such file"),
        ([FdSource("secret", "s0"), FdSource("secret", "s0")], "web", ValueError, "two sources"),
        ([FdSource("pipe", "p")], "web", ValueError, "no such kind"),
        (
            [FdSource("file", "f", path="/etc/passwd", access="rw")],
            "web",
            ValueError,
            "no such kind",
        ),
        ([FdSource("listener", "qmp")], None, ValueError, "a machine's directory"),
        ([FdSource("listener", "x" * 120)], "web", HostError, "bytes, 107 are possible"),
        (
            [FdSource("listener", "qmp"), FdSource("listener", "holder")],
            "web",
            HostError,
            "is in use",
        ),
        ([], "../web", InputError, "cannot be a machine's name"),
    ],
)
def test_a_failure_leaves_nothing(base, sources, name, error, said):
    first = [FdSource("socketpair", "a"), FdSource("secret", "b", data=b"x")]
    with pytest.raises(error, match=said):
        acquire([*first, *sources], name)
    root = f"{base}/qemu-launcher"
    assert not os.path.exists(root) or os.listdir(root) == []


def test_an_interrupt_in_the_middle_leaves_nothing(base):
    def sources():
        yield FdSource("socketpair", "qmp")
        yield FdSource("listener", "con0")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        acquire(sources(), "web")
    assert os.listdir(f"{base}/qemu-launcher") == []


def test_out_of_fds_leaves_nothing(base):
    import resource

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = {int(fd) for fd in os.listdir("/proc/self/fd")}
    free = [fd for fd in range(3, 100) if fd not in taken]
    sources = [
        FdSource("socketpair", "a"),
        FdSource("listener", "b"),
        FdSource("secret", "c", data=b"x"),
    ]
    said = []
    for more in range(12):  # fails at each step in turn
        resource.setrlimit(resource.RLIMIT_NOFILE, (free[more], limits[1]))
        try:
            acquire(sources, "web").release()
            said.append("")
        except HostError as error:
            said.append(error.message)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        root = f"{base}/qemu-launcher"
        # With no fd at all even the empty directory of the name cannot be taken away again.
        assert not os.path.exists(root) or os.listdir(root) in ([], ["web"])
    failed = [message for message in said if message]
    assert len(failed) >= 4
    assert all("Too many open files" in message for message in failed)
    assert said[-1] == ""


def test_the_second_launch_names_the_first(base):
    with acquire([FdSource("listener", "qmp")], "web") as held:
        path = f"{held.directory.path}/qmp"
        with pytest.raises(HostError, match=f"held by process {os.getpid()}"):
            acquire([FdSource("listener", "qmp")], "web")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)  # the first one's socket is as it was


def test_undone_in_reverse_order_and_once():
    done = []
    held = Resources()
    for number in range(4):
        held.keep(lambda number=number: done.append(number), handed=number % 2 == 1)
    held.hand_over()
    assert done == [3, 1]
    held.release()
    held.release()
    assert done == [3, 1, 2, 0]


def test_a_step_that_fails_does_not_stop_the_others():
    done = []

    def fail():
        done.append("fail")
        raise OSError(5, "Input/output error")

    held = Resources()
    held.keep(lambda: done.append("last"))
    held.keep(fail)
    held.keep(lambda: done.append("first"))
    with pytest.raises(HostError, match="Input/output error"):
        held.release()
    assert done == ["first", "fail", "last"]
    held.release()
    assert done == ["first", "fail", "last"]


def test_a_machine_that_outlives_the_launcher_keeps_its_directory():
    held = acquire([FdSource("listener", "qmp")], "web")
    path = held.directory.path
    held.release(keep_directory=True)
    assert sorted(os.listdir(path)) == ["qmp"]
    held.release()
    assert os.path.isdir(path)
    assert [m.holder for m in runtime.list_machines()] == [None]


def test_release_after_the_directory_was_deleted(base):
    held = acquire([FdSource("listener", "qmp")], "web")
    shutil.rmtree(f"{base}/qemu-launcher")
    held.release()
