"""The runtime directory and exclusive names: real directories, real processes, real races."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import uuid

import pytest

from launcher.errors import HostError, InputError
from launcher.host import runtime
from launcher.host.boot_cache import boot_id
from launcher.host.private import UNIX_PATH_BYTES, connect_path, open_private
from launcher.host.state import MachineState, is_alive, pid_of_uuid, start_time

ROUNDS = 1000 if os.environ.get("QEMU_LAUNCHER_FULL") == "1" else 50


@pytest.fixture(autouse=True)
def base(monkeypatch):
    """A private XDG_RUNTIME_DIR with a short path, as /run/user/UID is."""
    folder = tempfile.mkdtemp(prefix="ql")
    monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def ended():
    """The pid and start time of a process that is no more."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        return child.pid, start_time(child.pid)


@pytest.fixture
def alive():
    """A process to stand for a machine: only its pid and start time matter here."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        yield child.pid


def state_of(name="web", **known):
    return MachineState(name, str(uuid.uuid4()), **known)


# Places


def test_where_it_is(base, monkeypatch, tmp_path):
    uid = os.geteuid()
    assert runtime.runtime_path() == f"{base}/qemu-launcher"
    run_user = f"/run/user/{uid}"
    fallback = f"{run_user}/qemu-launcher"
    if not os.path.isdir(run_user):
        fallback = f"/tmp/qemu-launcher-{uid}"
    for unusable in ("", "relative/path", str(tmp_path / "missing")):
        monkeypatch.setenv("XDG_RUNTIME_DIR", unusable)
        assert runtime.runtime_path() == fallback
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert runtime.runtime_path() == fallback


def test_made_private_whatever_the_umask(base):
    old = os.umask(0)
    try:
        held = runtime.claim("web")
    finally:
        os.umask(old)
    for path in (f"{base}/qemu-launcher", held.path):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o700
    held.remove()


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701, 0o1777])
def test_a_directory_that_others_may_enter_is_refused(base, mode):
    os.mkdir(f"{base}/qemu-launcher")
    os.chmod(f"{base}/qemu-launcher", mode)
    with pytest.raises(HostError, match=f"has mode {mode:04o}") as wrong:
        runtime.claim("web")
    assert wrong.value.hint.startswith("chmod 700")
    assert os.listdir(f"{base}/qemu-launcher") == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_another_user_is_refused(base):
    os.mkdir(f"{base}/qemu-launcher", 0o700)
    os.chown(f"{base}/qemu-launcher", 65534, 65534)
    with pytest.raises(HostError, match="belongs to uid 65534"):
        runtime.claim("web")


@pytest.mark.parametrize("level", ["qemu-launcher", "qemu-launcher/web"])
@pytest.mark.parametrize("kind", ["link", "file", "dangling"])
def test_a_link_or_file_in_its_place_is_refused(base, tmp_path, level, kind):
    place = f"{base}/{level}"
    os.makedirs(os.path.dirname(place), 0o700, exist_ok=True)
    target = tmp_path / "target"
    if kind == "link":
        target.mkdir(0o700)
    if kind == "file":
        with open(place, "w"):
            pass
    else:
        os.symlink(target, place)
    with pytest.raises(HostError, match="something else has its place"):
        runtime.claim("web")
    if kind == "link":
        assert os.listdir(target) == []


def test_a_place_that_cannot_be_made(base, monkeypatch):
    monkeypatch.setattr(runtime, "runtime_path", lambda: f"{base}/missing/qemu-launcher")
    with pytest.raises(HostError, match="cannot be made or opened: No such file"):
        runtime.claim("web")


# Names


@pytest.mark.parametrize("name", ["web", "a", "0", "Web-1_2.x", "a" * 63, "web.lock"])
def test_names(name):
    held = runtime.claim(name)
    assert os.path.isdir(held.path)
    held.remove()
    assert not os.path.exists(held.path)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "-x",
        "_x",
        ".x",
        "a/b",
        "../x",
        "a b",
        "a\n",
        "a\0",
        "a" * 64,
        "wéb",
        "a+#",
        "\u0661",  # a digit, but not one of ours
    ],
)
def test_not_names(name, base):
    with pytest.raises(InputError, match="cannot be a machine's name"):
        runtime.claim(name)
    assert os.listdir(base) == []


# One holder


def test_the_loser_names_the_holder():
    with_name = runtime.claim("web")
    with pytest.raises(HostError, match=f"machine web is held by process {os.getpid()}$") as lost:
        runtime.claim("web")
    assert lost.value.evidence["pid"] == os.getpid()
    assert lost.value.code == "busy"
    runtime.claim("db").remove()  # another name is free
    with_name.remove()
    runtime.claim("web").remove()


def test_the_loser_touches_nothing():
    held = runtime.claim("web")
    state = state_of(pid=os.getpid())
    held.write_state(state)
    with socket.socket(fileno=held.bind_listener("qmp")):
        before = sorted(os.listdir(held.path))
        for _ in range(3):
            with pytest.raises(HostError):
                runtime.claim("web")
        assert sorted(os.listdir(held.path)) == before
        assert held.read_state().uuid == state.uuid
    held.remove()


WORKER = """
import os, sys, time
sys.path[:0] = sys.argv[1:]
from launcher.errors import HostError
from launcher.host import runtime
print("ready", flush=True)
held = None
for line in sys.stdin:
    word, when = line.split()
    if word == "claim":
        while time.monotonic_ns() < int(when): pass   # all of them at the same moment
        try:
            held = runtime.claim("web")
            print("won", os.getpid(), flush=True)
        except HostError as error:
            print("lost", error.evidence.get("pid"), flush=True)
    elif word == "drop" and held is not None:
        held.remove() if when == "1" else held.release()
        held = None
        print("dropped", flush=True)
"""


def _workers(count):
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        for _ in range(count)
    ]
    assert all(worker.stdout.readline() == "ready\n" for worker in workers)
    return workers


def _end(workers):
    for worker in workers:
        worker.stdin.close()
        worker.wait()
        worker.stdout.close()


def test_of_racing_launchers_exactly_one_wins():
    workers = _workers(4)
    try:
        for turn in range(ROUNDS):
            moment = time.monotonic_ns() + 1_000_000
            for worker in workers:
                worker.stdin.write(f"claim {moment}\n")
            said = [worker.stdout.readline().split() for worker in workers]
            winners = [int(pid) for word, pid in said if word == "won"]
            assert len(winners) == 1, said
            losers = {pid for word, pid in said if word == "lost"}
            assert losers == {str(winners[0])}, said
            winner = next(worker for worker in workers if worker.pid == winners[0])
            winner.stdin.write(f"drop {turn % 2}\n")
            assert winner.stdout.readline() == "dropped\n"
    finally:
        _end(workers)
    assert all(worker.returncode == 0 for worker in workers)


CHURN = """
import os, sys
sys.path[:0] = sys.argv[3:]
from launcher.errors import HostError
from launcher.host import runtime
witness, rounds, wins, lost = sys.argv[1], int(sys.argv[2]), 0, 0
print("ready", flush=True)
sys.stdin.readline()
for _ in range(rounds):
    try:
        held = runtime.claim("web")
    except HostError as error:
        assert error.evidence["pid"] != os.getpid(), error
        lost += 1
        continue
    os.close(os.open(witness, os.O_CREAT | os.O_EXCL))   # fails when another is in here too
    wins += 1
    os.unlink(witness)
    held.remove()
print(wins, lost)
"""


def test_taking_and_removing_at_the_same_time(tmp_path):
    command = [sys.executable, "-c", CHURN, str(tmp_path / "witness"), str(ROUNDS * 4), *sys.path]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    children = [subprocess.Popen(command, **pipes, text=True) for _ in range(4)]
    # All of them have started when they begin: a start may take longer than all the rounds.
    assert all(child.stdout.readline() == "ready\n" for child in children)
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    wins = lost = 0
    for child in children:
        out, err = child.communicate(timeout=100)
        assert child.returncode == 0, err
        wins += int(out.split()[0])
        lost += int(out.split()[1])
    assert wins > 0
    assert lost > 0  # else they never met
    assert wins + lost == 4 * 4 * ROUNDS


def test_a_killed_holder_leaves_the_name_free():
    (worker,) = _workers(1)
    worker.stdin.write("claim 0\n")
    assert worker.stdout.readline() == f"won {worker.pid}\n"
    assert [m.holder for m in runtime.list_machines()] == [worker.pid]
    with pytest.raises(HostError, match=f"held by process {worker.pid}"):
        runtime.claim("web")
    worker.kill()
    worker.wait()
    assert [m.holder for m in runtime.list_machines()] == [None]
    runtime.claim("web").remove()
    _end([worker])


# State


def test_state_round_trip(alive):
    held = runtime.claim("web")
    assert held.read_state() is None
    state = state_of(phase="running", pid=alive, plan={"argv": ["-name", "é,\n"]}, qmp="qmp")
    held.write_state(state)
    kept = held.read_state()
    assert (kept.uuid, kept.plan, kept.pid) == (state.uuid, state.plan, alive)
    assert (kept.start_time, kept.boot_id) == (start_time(alive), boot_id())
    assert stat.S_IMODE(os.stat(f"{held.path}/state.json").st_mode) == 0o600
    assert is_alive(kept)
    held.remove()


def test_alive_means_pid_and_start_time_and_boot(alive, ended):
    here, now = boot_id(), start_time(alive)
    assert is_alive(state_of(pid=alive, start_time=now, boot_id=here))
    assert not is_alive(state_of(pid=alive, start_time=now + 1, boot_id=here))  # pid used again
    assert not is_alive(state_of(pid=alive, start_time=now, boot_id="another boot"))
    assert not is_alive(state_of(pid=ended[0], start_time=ended[1], boot_id=here))
    assert not is_alive(state_of(boot_id=here))


def test_a_zombie_is_not_alive():
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert start_time(child.pid) is None
    child.wait()


def test_the_name_of_a_running_machine_is_refused(alive):
    held = runtime.claim("web")
    held.write_state(state_of(phase="running", pid=alive))
    held.release()  # the launcher goes, the machine stays
    (listed,) = runtime.list_machines()
    assert (listed.name, listed.alive, listed.pid, listed.holder) == ("web", True, alive, None)
    with pytest.raises(HostError, match=f"already runs as process {alive}"):
        runtime.claim("web")
    assert runtime.remove_stale() == []
    adopted, state = runtime.adopt("web")
    assert state.pid == alive
    assert [m.holder for m in runtime.list_machines()] == [os.getpid()]
    with pytest.raises(HostError, match=f"held by process {os.getpid()}"):
        runtime.adopt("web")
    adopted.remove()


def test_a_machine_whose_pid_was_never_recorded_is_found():
    held = runtime.claim("web")
    state = state_of()
    held.write_state(state)
    held.release()
    assert not runtime.list_machines()[0].alive
    command = ["sh", "-c", "echo up; read line", "-uuid", state.uuid]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as machine:
        assert machine.stdout.read(3) == b"up\n"  # its arguments are there only after exec
        assert pid_of_uuid(state.uuid) == machine.pid
        with pytest.raises(HostError, match=f"already runs as process {machine.pid}"):
            runtime.claim("web")
        adopted, found = runtime.adopt("web")
        assert (found.pid, found.start_time) == (machine.pid, start_time(machine.pid))
        adopted.release()
    assert pid_of_uuid(state.uuid) is None
    with pytest.raises(HostError, match="no machine web runs"):
        runtime.adopt("web")
    assert runtime.remove_stale() == ["web"]


def test_nothing_to_adopt(base):
    with pytest.raises(HostError, match="no machine web runs"):
        runtime.adopt("web")
    assert os.listdir(f"{base}/qemu-launcher") == []


def test_stale_machines_are_removed_and_others_not(alive, ended):
    for name, pid in (("dead", ended[0]), ("lives", alive), ("held", ended[0])):
        held = runtime.claim(name)
        held.write_state(state_of(name, phase="running", pid=pid, start_time=ended[1]))
        if name == "lives":
            held.write_state(state_of(name, phase="running", pid=pid))
        if name != "held":
            held.release()
    os.mkdir(f"{runtime.runtime_path()}/dead/logs", 0o700)
    with open(f"{runtime.runtime_path()}/dead/logs/console", "w"):
        pass
    assert [(m.name, m.alive) for m in runtime.list_machines()] == [
        ("dead", False),
        ("held", False),
        ("lives", True),
    ]
    assert runtime.remove_stale() == ["dead"]
    assert [m.name for m in runtime.list_machines()] == ["held", "lives"]
    held.remove()


def test_what_a_dead_holder_left_is_gone_for_the_next(ended, tmp_path):
    held = runtime.claim("web")
    held.write_state(state_of(phase="running", pid=ended[0], start_time=ended[1]))
    os.close(held.bind_listener("qmp"))
    (tmp_path / "disk").write_text("mine")
    os.symlink(tmp_path, f"{held.path}/link")  # never followed
    held.release()
    held = runtime.claim("web")
    assert os.listdir(held.path) == ["holder"]
    assert held.read_state() is None
    assert (tmp_path / "disk").read_text() == "mine"
    os.close(held.bind_listener("qmp"))
    held.remove()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"name": "web"}', "\xff"])
def test_a_damaged_state_is_none(text):
    held = runtime.claim("web")
    with open(f"{held.path}/state.json", "w", encoding="latin-1") as file:
        file.write(text)
    assert held.read_state() is None
    assert runtime.list_machines()[0].state is None
    held.remove()


def test_fields_of_a_newer_release_are_ignored():
    held = runtime.claim("web")
    with open(f"{held.path}/state.json", "w") as file:
        json.dump({"name": "web", "uuid": "u", "colour": "red"}, file)
    assert held.read_state() == MachineState("web", "u")
    held.remove()


def test_a_write_that_fails_leaves_the_old_state():
    held = runtime.claim("web")
    old = state_of()
    held.write_state(old)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))  # fails in the middle
    try:
        with pytest.raises(HostError, match=os.strerror(errno.EFBIG)):
            held.write_state(state_of(plan="x" * 10_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert held.read_state().uuid == old.uuid
    assert sorted(os.listdir(held.path)) == ["holder", "state.json"]
    held.remove()


FULL_DISK = """
import os, sys
sys.path[:0] = sys.argv[1:]
from launcher.errors import HostError
from launcher.host import runtime
from launcher.host.state import MachineState
held = runtime.claim("web")
held.write_state(MachineState("web", "old"))
with open(os.environ["XDG_RUNTIME_DIR"] + "/ballast", "wb", buffering=0) as ballast:
    try:
        while True: ballast.write(b"x" * 4096)
    except OSError: pass
try:
    held.write_state(MachineState("web", "new", plan="x" * 100_000))
except HostError as error:
    print(error)
print(held.read_state().uuid, sorted(os.listdir(held.path)))
try:
    runtime.claim("db")
except HostError as error:
    print(error)
"""


def test_a_full_disk(base):
    mount = f"mount -t tmpfs -o size=64k,mode=700 tmpfs {base} && "
    inside = ["sh", "-c", mount + 'exec "$@"', "sh", sys.executable, "-c", FULL_DISK, *sys.path]
    flags = ["-m"] if os.geteuid() == 0 else ["-Urm"]
    if subprocess.run(["unshare", *flags, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespace may be made here")
    done = subprocess.run(
        ["unshare", *flags, *inside], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[0] == f"{base}/qemu-launcher/web/state.json cannot be written: " + os.strerror(
        errno.ENOSPC
    )
    assert said[1] == "old ['holder', 'state.json']"
    assert os.strerror(errno.ENOSPC) in said[2]


def test_a_launcher_killed_while_writing_leaves_a_whole_state():
    held = runtime.claim("web")
    chance = random.Random(7)
    held.write_state(state_of(plan="x"))
    seen = set()
    for _ in range(ROUNDS):
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                for number in range(1_000_000):
                    held.write_state(state_of(plan=str(number % 10) * (number % 7 * 3000 + 1)))
                    if number == 2:
                        os.write(writer, b"x")
            finally:
                os._exit(1)
        os.close(writer)
        assert os.read(reader, 1) == b"x"
        os.close(reader)
        until = time.monotonic_ns() + chance.randrange(3_000_000)
        while time.monotonic_ns() < until:
            pass
        os.kill(pid, signal.SIGKILL)
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL
        state = held.read_state()
        assert state is not None
        assert len(state.plan) in {n * 3000 + 1 for n in range(7)}
        assert set(state.plan) <= {state.plan[0]}
        seen.add(state.uuid)
    assert len(seen) == ROUNDS
    held.remove()


def test_the_directory_deleted_under_a_holder(base):
    held = runtime.claim("web")
    shutil.rmtree(f"{base}/qemu-launcher")
    with pytest.raises(HostError, match="cannot be written"):
        held.write_state(state_of())
    again = runtime.claim("web")  # the name is another directory now
    held.remove()
    assert os.path.isdir(again.path)  # not touched by the first one's end
    again.remove()


def test_release_and_remove_are_done_once():
    held = runtime.claim("web")
    held.remove()
    held.remove()
    held.release()
    again = runtime.claim("web")
    again.release()
    again.release()
    again.remove()
    assert os.path.isdir(again.path)


def test_nobody_has_run_anything_yet(base):
    assert runtime.list_machines() == []
    assert runtime.remove_stale() == []
    assert os.listdir(base) == []


def test_the_holder_s_note_where_proc_locks_cannot_tell(monkeypatch):
    """Some file systems number an inode otherwise in /proc/locks: then the note counts."""
    held = runtime.claim("web")
    real = os.fstat

    class Renumbered:
        def __init__(self, fd):
            self.st_ino, self.st_dev = real(fd).st_ino + 1, real(fd).st_dev

    with monkeypatch.context() as patched:
        patched.setattr(os, "fstat", Renumbered)
        assert runtime._holder(held.fd) == os.getpid()
        with open(f"{held.path}/holder", "w") as note:
            note.write(f"{os.getpid()} 1\n")  # of a process that had this pid before
        assert runtime._holder(held.fd) is None
    held.remove()


# Sockets


def test_a_listener_is_ours_alone_from_the_first_moment():
    held = runtime.claim("web")
    old = os.umask(0)
    try:
        listener = socket.socket(fileno=held.bind_listener("qmp"))
    finally:
        os.umask(old)
    path = f"{held.path}/qmp"
    found = os.stat(path)
    assert (stat.S_ISSOCK(found.st_mode), stat.S_IMODE(found.st_mode)) == (True, 0o600)
    with listener, socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        there, _ = listener.accept()
        with there:
            client.sendall(b"x")
            assert there.recv(1) == b"x"
    held.remove()


def test_a_second_listener_is_refused_and_the_first_goes_on():
    held = runtime.claim("web")
    with socket.socket(fileno=held.bind_listener("qmp")) as first:
        with pytest.raises(HostError, match="qmp cannot be bound: is in use"):
            held.bind_listener("qmp")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"{held.path}/qmp")
            first.accept()[0].close()
    held.remove()


@pytest.mark.parametrize("extra", [0, 1, 50])
def test_a_path_at_and_over_the_limit(base, monkeypatch, extra):
    rest = "/qemu-launcher/web/qmp"
    deep = base + "/" + "d" * (UNIX_PATH_BYTES - len(base) - 1 - len(rest) + extra)
    os.mkdir(deep, 0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", deep)
    held = runtime.claim("web")
    path = f"{held.path}/qmp"
    assert len(path) == UNIX_PATH_BYTES + extra
    if extra:
        with pytest.raises(HostError, match=f"has {len(path)} bytes, 107 are possible") as wrong:
            held.bind_listener("qmp")
        assert "XDG_RUNTIME_DIR" in wrong.value.hint
        assert not os.path.exists(path)
    listener = socket.socket(fileno=held.bind_listener("qmp", reachable=not extra))
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    with listener, socket.socket(socket.AF_UNIX) as client:
        client.connect(connect_path(held.fd, "qmp"))
        listener.accept()[0].close()
    held.remove()


def test_an_open_directory_is_not_inherited(base):
    fd = open_private(f"{base}/x")
    try:
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)
