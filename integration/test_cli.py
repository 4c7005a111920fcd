"""The verbs as a user calls them: processes, pipes, a terminal, and real QEMUs.

Each test has a runtime directory of its own and machines with names of their own; at its end
neither a process nor a file of them may be left.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import time
import uuid
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from launcher.host.facts import feature

pytestmark = pytest.mark.integration

RELEASES = ("5.2", "7.2", "10.0", "11.1")
ROOT = Path(__file__).parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qemu-launcher"
QL = (sys.executable, "-c", "import sys; from launcher.cli import main; sys.exit(main())")
PATIENCE = 60.0


def binary_of(release: str, program: str = "qemu-system-x86_64") -> str:
    matrix = Path(os.environ.get("QEMU_LAUNCHER_MATRIX") or CACHE / "matrix")
    path = matrix / release / "bin" / program
    if not path.exists():
        pytest.fail(f"no QEMU {release}: run scripts/qemu-matrix")
    return str(path)


@pytest.fixture(params=RELEASES)
def release(request) -> str:
    return request.param


@pytest.fixture
def boot() -> tuple[str, ...]:
    """Options that start the Linux guest of profiles/microvm-demo.yaml."""
    guest = Path(os.environ.get("QEMU_LAUNCHER_GUEST") or CACHE / "guest")
    if not (guest / "vmlinuz").exists():
        pytest.fail("no guest: run scripts/guest")
    return (
        *("profiles/microvm-demo.yaml", "--set", f"kernel={guest}/vmlinuz"),
        *("--set", f"initrd={guest}/initrd.img", "--set", "accel=tcg"),
    )


class Line:
    """A user's command line, with a runtime directory of its own."""

    def __init__(self, folder: Path, runtime: str) -> None:
        self.folder = folder
        self.runtime = runtime
        self.name = f"cli-{uuid.uuid4().hex[:10]}"
        self.env = {**os.environ, "XDG_RUNTIME_DIR": runtime, "PYTHONPATH": str(ROOT)}
        self.env.pop("NO_COLOR", None)
        self.started: list[subprocess.Popen[bytes]] = []

    def __call__(self, *words: str, check: int | None = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*QL, *words],
            cwd=ROOT,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE * 2,
        )
        assert "Traceback" not in done.stderr, done.stderr
        if check is not None:
            assert done.returncode == check, (done.stdout, done.stderr)
        return done

    def json(self, *words: str, check: int | None = 0):
        return json.loads(self(*words, "--format", "json", check=check).stdout)

    def profile(self, more: str = "", *, powerdown: int = 0, name: str = "") -> str:
        """A machine without a guest: it runs its firmware, and hears no power button."""
        path = self.folder / "machine.yaml"
        path.write_text(
            f"name: {name or self.name}\nplatform: debian-11\nmachine: pc\naccel: tcg\n"
            f"memory: 64MiB\nserial: console\nstop: {{powerdown-seconds: {powerdown}}}\n{more}",
            encoding="utf-8",
        )
        return str(path)

    def begin(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a `run` that stays."""
        process = subprocess.Popen(
            [*QL, "run", *words],
            cwd=ROOT,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.started.append(process)
        return process

    def running(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a `run`, and wait until its report says that the guest may run."""
        process = self.begin(*words, "--format", "json")
        assert process.stdout is not None
        report = json.loads(process.stdout.readline())
        assert report["verdict"] == "match"
        return process

    def machines(self) -> list[str]:
        """Processes of our machine, by their command lines."""
        found = []
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if f"guest={self.name}".encode() in entry.read_bytes():
                    found.append(entry.parent.name)
        return found

    def gone(self) -> None:
        """Nothing runs, and nothing lies about."""
        deadline = time.monotonic() + 60
        while self.machines() and time.monotonic() < deadline:
            os.sched_yield()  # the kernel ends a tied machine with its launcher, not before it
        assert self.machines() == []
        folder = Path(self.runtime) / "qemu-launcher"
        assert not folder.exists() or list(folder.iterdir()) == []


@pytest.fixture
def line(tmp_path):
    # Sockets live in it: their paths must be short.
    runtime = tempfile.mkdtemp(prefix="ql-")
    made = Line(tmp_path, runtime)
    yield made
    for process in made.started:
        if process.poll() is None:
            process.kill()
        process.communicate()
    left = made.machines()
    for pid in left:
        os.kill(int(pid), signal.SIGKILL)
    shutil.rmtree(runtime)
    assert left == []


def ended(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    """Exit status and error of a `running` machine's `run` that is about to end."""
    out, err = process.communicate(timeout=PATIENCE)
    assert b"Traceback" not in err, err
    return process.returncode, json.loads(out)["error"]["message"] if out else ""


# -- plan, check, verify, schema ------------------------------------------------------------------


def test_plan_shapes(line, release):
    plan = line.json("plan", line.profile(), "--qemu", binary_of(release))
    assert {"qemu", "platform", "machine", "accel", "argv", "setup", "values", "omitted"} <= set(
        plan
    )
    assert plan["qemu"]["version"].startswith(f"{release}.")
    assert plan["argv"][0] == plan["qemu"]["binary"] == binary_of(release)
    assert {"family", "type", "id", "property", "value", "origin", "observer"} <= set(
        plan["values"][0]
    )
    origins = {(v["id"], v["property"]): v["origin"] for v in plan["values"]}
    assert origins["ram", "size"] == "profile:5"
    assert origins["ram", "share"] == "platform debian-11"
    text = line("plan", line.profile(), "--qemu", binary_of(release), "--explain").stdout
    assert "platform debian-11" in text
    assert "read back by" in text


def test_plan_as_argv_is_what_a_shell_takes(line):
    script = line(
        "plan", line.profile(), "--qemu", binary_of("10.0"), "--format", "argv"
    ).stdout.strip()
    # Monitor commands on stdin, in place of the console that the plan has there.
    quoted = script.replace("stdio,id=console,signal=off", "null,id=console")
    done = subprocess.run(
        ["bash", "-c", f"{quoted} -qmp stdio"],
        input='{"execute":"qmp_capabilities"}{"execute":"query-name"}{"execute":"quit"}',
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    assert json.loads(done.stdout.splitlines()[2]) == {"return": {"name": line.name}}


def test_a_cached_plan_imports_nothing_heavy(line):
    words = ("plan", line.profile(), "--qemu", binary_of("10.0"), "--format", "json")
    line(*words)  # the probe is cached from here on
    listing = (
        "import sys; from launcher.cli import main; main(sys.argv[1:]);"
        "sys.stderr.write('\\n'.join(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", listing, *words],
        env=line.env,
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    heavy = {"asyncio", "ssl", "typing", "dataclasses", "inspect", "subprocess", "logging", "qemu"}
    assert set(done.stderr.split()) & heavy == set()
    assert json.loads(done.stdout)["argv"]


def test_check_against_a_binary(line):
    good = line.profile()
    assert (
        f"{good}: ok (against QEMU 10.0." in line("check", good, "--qemu", binary_of("10.0")).stdout
    )
    bad = line.profile(
        "netdevs:\n  n0: {type: user, hostfwdd: tcp::22-:22}\n"
        "devices: {nic0: {driver: e1000, netdev: n0}}\n"
    )
    done = line("check", bad, "--qemu", binary_of("10.0"), check=2)
    assert f"{bad}:9:20: error: 'hostfwdd' is not a property of netdev user" in done.stderr
    assert "did you mean hostfwd" in done.stderr
    assert "ok (without a QEMU)" in line("check", bad, "--no-qemu").stdout


def test_verify_a_profile(line, release):
    report = line.json("verify", line.profile(), "--qemu", binary_of(release))
    assert report["verdict"] == "match"
    assert report["counts"]["match"] > 0
    assert report["counts"]["mismatch"] == report["counts"]["absent"] == 0
    assert {"planned", "observed", "origin", "observer", "verdict", "reason"} <= set(
        report["values"][0]
    )
    line.gone()


@pytest.mark.parametrize("ending", ["json", "xml", "html"])
def test_report_files(line, ending):
    path = line.folder / f"report.{ending}"
    line("verify", line.profile(), "--qemu", binary_of("10.0"), "--report", str(path))
    text = path.read_text(encoding="utf-8")
    if ending == "json":
        assert json.loads(text)["verdict"] == "match"
    elif ending == "xml":
        suite = ET.fromstring(text)
        assert suite.get("failures") == "0"
        assert suite.find("testcase") is not None
    else:
        assert text.startswith("<!doctype html>")


def test_a_report_that_cannot_be_written(line):
    words = ("--qemu", binary_of("10.0"), "--report", "/no/such/folder/r.json")
    assert "cannot be written" in line("verify", line.profile(), *words, check=4).stderr
    assert "cannot be written" in line("run", line.profile(), *words, check=4).stderr
    line.gone()


def test_schema_of_a_binary(line, release):
    schema = json.loads(line("schema", "--qemu", binary_of(release)).stdout)
    drivers = json.dumps(schema["properties"]["devices"])
    assert '"virtio-blk-pci"' in drivers


# -- run ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_run_until_the_guest_is_up(line, boot, release):
    done = line(
        *("run", *boot, "--set", f"name={line.name}", "--qemu", binary_of(release)),
        *("--until", "guest is up", "--timeout", "110", "--stats"),
    )
    assert "qemu-launcher guest is up" in done.stdout
    assert "verdict" not in done.stdout  # stdout is the guest's
    assert re.search(r"verdict: match \(\d+ match, 0 mismatch, 0 absent", done.stderr)
    assert re.search(r"stats: \d+ QMP commands, \d+ bytes", done.stderr)
    assert "\x1b[" not in done.stderr  # colors are for terminals
    line.gone()


def test_run_until_what_does_not_come(line):
    done = line(
        *("run", line.profile(), "--qemu", binary_of("10.0")),
        *("--until", "login:", "--timeout", "0.5"),
        check=1,
    )
    assert "error: the console did not show 'login:': not within 0.5 s" in done.stderr
    line.gone()


def test_until_is_no_success_when_it_was_stopped(line):
    process = line.running(line.profile(), "--qemu", binary_of("10.0"), "--until", "never")
    line("stop", line.name)
    assert ended(process)[0] == 128 + signal.SIGTERM
    line.gone()


def test_until_needs_a_console(line):
    path = line.folder / "plain.yaml"
    path.write_text(f"name: {line.name}\nplatform: native\nmachine: pc\naccel: tcg\n")
    done = line("run", str(path), "--qemu", binary_of("10.0"), "--until", "x", check=2)
    assert "has none" in done.stderr


def test_run_ends_with_its_guest(line):
    process = line.running(line.profile(), "--qemu", binary_of("10.0"))
    assert line("qmp", line.name, "quit").stdout == "{}\n"
    assert ended(process)[0] == 0
    line.gone()


@pytest.mark.parametrize(
    ("words", "status"), [((), 0), (("--now",), 130), (("--force",), 3)], ids=str
)
def test_stop_a_machine_in_the_foreground(line, words, status):
    process = line.running(line.profile(), "--qemu", binary_of("10.0"))
    assert [(m["name"], m["mode"]) for m in line.json("ps")["machines"]] == [
        (line.name, "foreground")
    ]
    stopped = line.json("stop", line.name, *words)["stopped"]
    assert stopped == [{"name": line.name, "by": "SIGKILL" if status == 3 else "its launcher"}]
    code, err = ended(process)
    assert code == status
    if status == 3:
        assert "killed by SIGKILL" in err
    line.gone()


def test_a_second_signal_does_not_wait_for_the_guest(line):
    process = line.running(line.profile(powerdown=300), "--qemu", binary_of("10.0"))
    process.send_signal(signal.SIGTERM)
    # The button has been pressed when QEMU says so; until then the second could be the first.
    while line("qmp", line.name, "query-status", check=None).returncode == 0:
        process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == 0
    line.gone()


def test_a_machine_that_crashes(line):
    process = line.running(line.profile(), "--qemu", binary_of("10.0"))
    os.kill(line.json("ps")["machines"][0]["pid"], signal.SIGABRT)
    code, err = ended(process)
    assert code == 3
    assert f"{line.name} ended: QEMU crashed (SIGABRT)" in err
    line.gone()


def test_a_launcher_that_is_killed_takes_its_machine_along(line):
    process = line.running(line.profile(), "--qemu", binary_of("10.0"))
    process.kill()
    process.wait()
    assert line.json("ps")["machines"] == []
    line.gone()


def test_a_name_that_is_taken(line):
    process = line.running(line.profile(), "--qemu", binary_of("10.0"))
    done = line("run", line.profile(), "--qemu", binary_of("10.0"), check=4)
    assert f"error: machine {line.name} is held by process {process.pid}" in done.stderr
    assert f"hint: stop it first: qemu-launcher stop {line.name}" in done.stderr
    line("stop", line.name)
    assert ended(process)[0] == 0


@pytest.mark.parametrize("detach", [(), ("--detach",)], ids=["foreground", "detached"])
def test_a_bad_start_shows_what_qemu_said(line, release, detach):
    profile = line.profile('extra-args: ["-global", "pc-dimm.nonsense", "-bogus"]\n')
    words = ("run", profile, "--qemu", binary_of(release), *detach)
    done = line(*words, check=3)
    assert "error: QEMU " in done.stderr
    assert "-bogus" in done.stderr
    assert any(text.startswith("  qemu-system") for text in done.stderr.splitlines())
    error = line.json(*words, check=3)["error"]
    assert any("-bogus" in text for text in error["qemu_stderr"])
    line.gone()


def meddled(line: Line) -> str:
    """A QEMU that is started with another default than the one that was asked for."""
    path = line.folder / "qemu-system-x86_64"
    extra = "-global migration.send-switchover-start=on"
    path.write_text(f'#!/bin/sh\nexec {binary_of("10.0")} "$@" {extra}\n')
    path.chmod(0o755)
    return str(path)


def test_a_mismatch_keeps_the_guest_from_running(line):
    words = (line.profile(), "--qemu", meddled(line))
    done = line("run", *words, check=1)
    assert "verdict: mismatch" in done.stderr
    assert "1 value is not what was planned; the guest did not run" in done.stderr
    assert "send-switchover-start: planned off (platform debian-11), observed on" in done.stderr
    report = line.json("run", *words, check=1)
    assert report["verdict"] == report["error"]["code"] == "mismatch"
    wrong = [v for v in report["values"] if v["verdict"] == "mismatch"]
    assert [(v["property"], v["planned"], v["observed"]) for v in wrong] == [
        ("send-switchover-start", False, "on")
    ]
    assert line.json("verify", *words, check=1)["counts"]["mismatch"] == 1
    line.gone()


def test_a_mismatch_under_warn_is_told(line):
    done = line(
        *("run", line.profile(), "--qemu", meddled(line), "--verify", "warn"),
        *("--until", "never", "--timeout", "0.2"),
        check=1,
    )
    assert "verdict: mismatch" in done.stderr
    assert "did not show 'never'" in done.stderr  # so the guest ran


@pytest.mark.slow
def test_a_console_on_a_full_disk_is_told(line, boot):
    words = ("--set", f"name={line.name}", "--qemu", binary_of("10.0"))
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*QL, "run", *boot, *words, "--until", "never"],
            cwd=ROOT,
            env=line.env,
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
    assert done.returncode == 4, done.stderr
    assert "error: the console cannot be written: No space left on device" in done.stderr


def test_a_machine_whose_profile_is_in_a_folder_of_any_name(line):
    folder = line.folder / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    path = folder / "web.yaml"
    path.write_text(f"name: {line.name}\nplatform: native\nmachine: none\naccel: tcg\n")
    assert line("run", str(path), "--detach", "--qemu", binary_of("10.0")).returncode == 0
    shown = json.loads(line("ps", "--format", "json").stdout)["machines"][0]
    assert shown["profile"] == str(path)
    assert line("stop", line.name, "--now").returncode == 0


def test_a_reader_that_leaves_ends_the_machine(line, boot):
    words = ("run", *boot, "--set", f"name={line.name}", "--qemu", binary_of("10.0"))
    script = '"$@" | head -c 20; echo " ${PIPESTATUS[0]}"'
    done = subprocess.run(
        ["bash", "-c", script, "bash", *QL, *words],
        cwd=ROOT,
        env=line.env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE * 2,
    )
    assert done.stdout.endswith(" 141\n")
    assert "rror" not in done.stderr.partition("verdict: match")[2]
    line.gone()


# -- at a terminal --------------------------------------------------------------------------------


class Terminal:
    """A command at a terminal of its own."""

    def __init__(self, line: Line, *words: str) -> None:
        self.seen = b""
        self.ours, theirs = pty.openpty()
        self.theirs = theirs
        self.before = termios.tcgetattr(theirs)
        # A session of its own, whose terminal this is: as a login would make it.
        login = "import os,sys,fcntl,termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
        login += "os.execv(sys.argv[1], sys.argv[1:])"
        self.process = subprocess.Popen(
            [sys.executable, "-c", login, *QL, *words],
            cwd=ROOT,
            env=line.env,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        line.started.append(self.process)

    def until(self, pattern: bytes) -> bytes:
        """Read until the screen shows `pattern`."""
        deadline = time.monotonic() + PATIENCE * 1.5
        while not (found := re.search(pattern, self.seen)):
            left = max(0.0, deadline - time.monotonic())
            ready, _, _ = select.select([self.ours], [], [], left)
            assert ready, self.seen[-2000:]
            self.seen += os.read(self.ours, 4096)
        self.seen = self.seen[found.end() :]
        return found.group()

    def type(self, keys: bytes) -> None:
        os.write(self.ours, keys)

    def end(self) -> int:
        """The exit status; the terminal is as it was."""
        status = self.process.wait(timeout=PATIENCE)
        after = termios.tcgetattr(self.theirs)
        os.close(self.theirs)
        os.close(self.ours)
        assert after == self.before
        return status


@pytest.mark.slow
def test_the_console_at_a_terminal(line, boot):
    terminal = Terminal(
        line, "run", *boot, "--set", f"name={line.name}", "--qemu", binary_of("10.0")
    )
    assert b"\x1b[32m" in terminal.until(rb"(?s)verdict\r\n.*verdict: match")
    terminal.until(rb"Ctrl-\] stops the machine")
    terminal.until(rb"guest# ")
    terminal.type(b"echo he''llo\r")
    terminal.until(rb"\nhello\r?\n")
    terminal.type(b"sleep 1000\r")
    terminal.until(rb"sleep 1000\r?\n")
    terminal.type(b"\x1d")
    assert terminal.end() == 0
    line.gone()


def test_the_key_to_leave_asks_first(line):
    terminal = Terminal(line, "run", line.profile(powerdown=300), "--qemu", binary_of("10.0"))
    terminal.until(rb"Ctrl-\] asks the guest to power down")
    terminal.type(b"\x1d")
    terminal.until(rb"asking the guest to power down \(300 s\)")
    terminal.type(b"\x1d")
    assert terminal.end() == 0
    line.gone()


def test_the_terminal_is_restored_after_a_signal(line):
    terminal = Terminal(line, "run", line.profile(), "--qemu", binary_of("10.0"))
    terminal.until(rb"Ctrl-\] stops the machine")
    line("stop", line.name)
    assert terminal.end() == 0


# -- machines that outlive their launcher ---------------------------------------------------------


def test_a_detached_machine_from_its_start_to_its_end(line, release):
    profile = line.profile()
    done = line("run", profile, "--qemu", binary_of(release), "--detach")
    name, pid = done.stdout.split()
    assert (name, [pid]) == (line.name, line.machines())
    (entry,) = line.json("ps")["machines"]
    assert (entry["name"], entry["pid"], entry["mode"]) == (name, int(pid), "detached")
    assert entry["qemu"]["version"].startswith(f"{release}.")
    assert entry["profile"] == profile
    assert line.name in line("ps").stdout
    assert line.json("qmp", name, "query-status")["running"] is True
    words = ("qmp", name, "human-monitor-command", "command-line=info name")
    assert json.loads(line(*words).stdout) == f"{name}\r\n"
    # The profile may change or go: what was expected is on record.
    os.unlink(profile)
    assert line.json("verify", name)["verdict"] == "match"
    assert line.json("stop", name) == {"stopped": [{"name": name, "by": "quit"}], "errors": []}
    line.gone()


def test_a_running_machine_that_was_meddled_with(line):
    line("run", line.profile(), "--qemu", binary_of("10.0"), "--detach")
    line("qmp", line.name, "migrate-set-parameters", "zero-page-detection=multifd")
    done = line("verify", line.name, check=1)
    assert "verdict: mismatch" in done.stdout
    line("stop", line.name, "--force")
    line.gone()


def test_errors_of_qmp(line):
    line("run", line.profile(), "--qemu", binary_of("11.1"), "--detach")
    error = line.json("qmp", line.name, "qom-get", "path=/no", "property=x", check=3)["error"]
    assert error["code"] == "command"
    assert "Device '/no' not found" in error["message"]
    words = ("qmp", line.name, "x-query-virtio-status", "path=/machine")
    assert "is not sent to QEMU 11.1" in line(*words, check=2).stderr
    assert "no machine 'nobody' runs" in line("qmp", "nobody", "query-status", check=2).stderr
    line("stop", line.name)


def test_stop_several_and_one_that_is_not_there(line):
    line("run", line.profile(), "--qemu", binary_of("10.0"), "--detach")
    result = line.json("stop", line.name, "nobody", check=2)
    assert [s["name"] for s in result["stopped"]] == [line.name]
    assert [e["name"] for e in result["errors"]] == ["nobody"]
    line.gone()


def test_stop_a_detached_machine_that_does_not_answer(line):
    line("run", line.profile(), "--qemu", binary_of("10.0"), "--detach")
    pid = line.json("ps")["machines"][0]["pid"]
    os.kill(pid, signal.SIGSTOP)
    before = time.monotonic()
    stopped = line.json("stop", line.name)["stopped"]
    assert stopped == [{"name": line.name, "by": "SIGKILL"}]
    assert time.monotonic() - before < 60  # it ends at all: two rungs take five seconds each
    line.gone()


@pytest.mark.slow
def test_the_console_of_a_detached_machine(line, boot):
    words = (*boot, "--set", f"name={line.name}", "--qemu", binary_of("10.0"))
    line("run", *words, "--detach")
    terminal = Terminal(line, "console", line.name)
    terminal.until(rb"Ctrl-\] leaves")
    terminal.until(rb"guest# ")
    terminal.type(b"\x1d")
    assert terminal.end() == 0
    again = Terminal(line, "console", line.name)
    again.until(rb"Ctrl-\] leaves")
    again.type(b"echo ba''ck\r")
    again.until(rb"\nback\r?\n")
    line("stop", line.name)
    assert again.end() == 0
    line.gone()


def test_console_needs_one(line):
    process = line.running(line.profile(), "--qemu", binary_of("10.0"))
    done = line("console", line.name, check=2)
    assert f"is with process {process.pid}" in done.stderr
    line("stop", line.name)
    assert ended(process)[0] == 0


def test_a_storage_daemon(line, release):
    path = line.folder / "daemon.yaml"
    path.write_text(
        f"name: {line.name}\nplatform: debian-11\ntool: qemu-storage-daemon\n"
        "blockdevs: {data: {driver: null-co, size: 1048576, read-zeroes: on}}\n"
    )
    words = (str(path), "--qemu", binary_of(release, "qemu-storage-daemon"))
    line("run", *words, "--detach")
    assert line.json("verify", line.name)["verdict"] == "match"
    nodes = line.json("qmp", line.name, "query-named-block-nodes")
    assert [n["node-name"] for n in nodes] == ["data"]
    assert line.json("stop", line.name)["stopped"][0]["by"] == "quit"
    line.gone()


# -- hosts ----------------------------------------------------------------------------------------


@pytest.mark.skipif(feature("kvm").present is True, reason="this host has what is missing here")
def test_what_the_host_cannot_do_is_exit_status_4(line):
    done = line("plan", line.profile(), "--qemu", binary_of("10.0"), "--set", "accel=kvm", check=4)
    assert "error: accel kvm cannot run a guest here" in done.stderr
    words = ("--qemu", binary_of("10.0"), "--set", "accel=kvm", "--no-host")
    assert line.json("plan", line.profile(), *words)["accel"] == "kvm"


# -- whenever a signal comes ----------------------------------------------------------------------


@pytest.mark.parametrize("words", [("run",), ("run", "--detach"), ("verify",)], ids=str)
def test_a_signal_at_any_moment_leaves_nothing(line, words):
    """Signals spread over the time that a start takes."""
    verb, *more = words
    # The interpreter's own start and end are not ours to guard: it says when it has begun.
    code = (
        "import os,sys; from launcher.cli import main; os.write(2, b'.'); s = main(); os._exit(s)"
    )
    given = (verb, line.profile(), "--qemu", binary_of("10.0"), *more)
    call = [sys.executable, "-c", code, *given]
    started = time.monotonic()
    line(*given, *_briefly(verb, more), check=None)
    whole = time.monotonic() - started
    line("stop", line.name, "--now", check=None)
    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    for turn in range(24):
        process = subprocess.Popen(
            call,
            cwd=ROOT,
            env=line.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        line.started.append(process)
        assert process.stderr is not None
        assert process.stderr.read(1) == b"."
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(whole * (turn + 1) / 24)
        process.send_signal(signals[turn % 3])
        _out, err = process.communicate(timeout=PATIENCE)
        if process.returncode > 0 or b"error" in err:
            assert process.returncode in (128 + signals[turn % 3],), err
            assert b"Traceback" not in err
        if more and process.returncode == 0:
            line("stop", line.name, "--now")  # the signal came too late
        if process.returncode < 0:
            line("ps")  # Python was not ours yet, or QEMU had just been spawned
        line.gone()


def _briefly(verb: str, more: list[str]) -> tuple[str, ...]:
    """Options with which the command ends by itself."""
    return ("--until", ".{9}", "--timeout", "0.01") if verb == "run" and not more else ()
