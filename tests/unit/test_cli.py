"""The command line without QEMU: what it imports, how it words mistakes, what it exits with."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys

import pytest

import launcher
from launcher.cache import cache_folder
from launcher.cli import main
from launcher.cli.show import error_lines
from launcher.cli.talk import parse_arguments
from launcher.cli.verbs import VERBS
from launcher.errors import HostError, InputError, InputErrors, LaunchError, Place
from tests.support.records import ROOT

GOOD = "name: good\nplatform: debian-12\nmachine: pc\naccel: tcg\nmemory: 64MiB\n"

#: Each costs a large part of a bare interpreter's start (docs/decisions).
HEAVY = {
    *("asyncio", "ssl", "json", "yaml", "typing", "dataclasses", "inspect", "subprocess"),
    *("logging", "socket", "importlib.metadata", "launcher.platforms", "launcher.profiles"),
    *("launcher.plan", "launcher.start", "launcher.probe", "qemu", "termios", "shutil"),
}

_LIST_MODULES = """
import sys
before = set(sys.modules)
from launcher.cli import main
status = main(sys.argv[1:])
sys.stderr.write("\\n".join(sorted(set(sys.modules) - before)))
sys.exit(status)
"""


def modules_of(*words: str) -> set[str]:
    """The modules that a call imports beyond those of the bare interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", _LIST_MODULES, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(done.stderr.split())


@pytest.fixture
def profile(tmp_path):
    """Writes a profile; the path that the command line is given."""

    def write(text: str, name: str = "web.yaml") -> str:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


# -- help -----------------------------------------------------------------------------------------


def test_overview_imports_nothing_but_the_command_line():
    ours = {"launcher", "launcher.cli", "launcher.cli.show", "launcher.cli.verbs", "__future__"}
    assert modules_of("--help") == ours


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_imports_nothing_heavy(verb):
    assert not modules_of(verb, "--help") & HEAVY


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_shows_an_example(verb, capsys):
    assert main([verb, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"\nexample:\n  {VERBS[verb][2]}\n" in shown
    assert VERBS[verb][1][1:20] in shown


def test_overview_names_every_verb_and_every_exit_status(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for verb in VERBS:
        assert f"\n  {verb} " in shown
    for status in ("0", "1", "2", "3", "4", "130"):
        assert f" {status}  " in shown


def test_no_verb_is_bad_input(capsys):
    assert main([]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("usage: ")


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"qemu-launcher {launcher.__version__}\n"


def test_python_dash_m():
    done = subprocess.run(
        [sys.executable, "-m", "launcher", "--version"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == f"qemu-launcher {launcher.__version__}\n"


# -- words that cannot be right -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["rum"], "there is no verb 'rum'", "did you mean run?"),
        (["zzzz"], "there is no verb 'zzzz'", "see `qemu-launcher --help`"),
        (["--qemu", "x", "run"], "the verb comes first", "see `qemu-launcher --help`"),
        (["plan"], "are required: PROFILE", "see `qemu-launcher plan --help`"),
        (["plan", "a", "b"], "unrecognized arguments: b", "see `qemu-launcher plan --help`"),
        (["plan", "a", "--plat", "x"], "unrecognized arguments", "plan --help"),
        (["plan", "a", "--format", "xml"], "invalid choice: 'xml'", "plan --help"),
        (["run", "a", "--timeout", "-1", "--until", "x"], "invalid seconds value", "run --help"),
        (["run", "a", "--timeout", "5"], "--timeout is for --until", ""),
        (["run", "a", "--until", "x", "--detach"], "--detach does not", ""),
        (["run", "a", "--until", "("], "not a regular expression", ""),
        (["run", "a", "--report", "r.txt"], "the ending must be one of", "decides the form"),
        (["run", "a", "--verify", "lax"], "invalid choice: 'lax'", "run --help"),
        (["platform"], "are required: list|show|diff", "platform --help"),
        (["platform", "show", "debian-21"], "there is no platform 'debian-21'", "debian-12"),
        (["platform", "diff", "debian-12", "./no.yaml"], "there is no such file", ""),
        (["host", "kwm"], "no host fact or feature 'kwm'", "did you mean kvm?"),
        (["host", "qqqqqqqq"], "no host fact or feature", "known are "),
        (["stop", "web", "--now", "--force"], "not allowed with argument", "stop --help"),
        (["schema", "--qemu", "/no/such"], "there is no such QEMU binary", ""),
        (["check", "/no/such.yaml"], "there is no such file", ""),
        (["check", "/"], "is a directory", "name a file in it"),
        (["verify", "web"], "neither a profile's file nor a running machine", "ps"),
        (["plan", "x.yaml", "--set", "memory"], "is not path=value", "--set memory=2GiB"),
    ],
)
def test_bad_input_is_told_in_one_line_with_a_hint(
    words, message, hint, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert main(words) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    first, *rest = shown.err.splitlines()
    assert "error: " in first
    assert message in first
    if hint:
        assert rest[-1].startswith("hint: ")
        assert hint in rest[-1]


def test_mistakes_show_their_line_and_a_caret(profile, capsys):
    path = profile("name: web\nplatform: debian-12\nmachine: q35\nmemory: 1GB!\nuuid: [1]\n")
    assert main(["check", "--no-qemu", path]) == 2
    assert capsys.readouterr().err == (
        f"{path}:4:9: error: memory must be a size, not '1GB!'\n"
        "  memory: 1GB!\n"
        "          ^\n"
        "hint: write 1G, which is binary in QEMU\n"
        f"{path}:5:7: error: uuid must be text, not a list\n"
        "  uuid: [1]\n"
        "        ^\n"
    )


def test_json_errors_stand_alone_on_stdout(profile, capsys):
    path = profile("name: web\nplatfrom: debian-12\nmachine: q35\n")
    assert main(["plan", path, "--format", "json"]) == 2
    shown = capsys.readouterr()
    assert shown.err == ""
    error = json.loads(shown.out)["error"]
    assert {"code", "message", "file", "line", "column", "hint", "qemu_stderr"} <= set(error)
    assert [(m["line"], m["column"]) for m in error["mistakes"]] == [(1, 1), (2, 1)]
    assert error["mistakes"][1]["hint"] == "did you mean platform?"


def test_json_is_kept_to_when_the_words_cannot_be_parsed(capsys):
    assert main(["plan", "--format=json", "--nonsense", "x"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "usage"


def test_check_tells_all_mistakes_of_all_files(profile, capsys):
    good, bad = profile(GOOD, "good.yaml"), profile("name: bad\nmachine: q35\n", "bad.yaml")
    assert main(["check", "--no-qemu", bad, good, "/no/such.yaml"]) == 2
    shown = capsys.readouterr()
    assert shown.out == f"{good}: ok (without a QEMU)\n"
    assert f"{bad}:1:1: error: the profile needs 'platform'" in shown.err
    assert "/no/such.yaml: error: there is no such file" in shown.err


def test_check_as_json(profile, capsys):
    good, bad = profile(GOOD, "good.yaml"), profile("name: bad\nmachine: q35\n", "bad.yaml")
    assert main(["check", "--no-qemu", "--format", "json", good, bad]) == 2
    files = json.loads(capsys.readouterr().out)["files"]
    assert [(f["file"], f["ok"], f["qemu"]) for f in files] == [
        (good, True, None),
        (bad, False, None),
    ]
    assert files[1]["errors"][0]["code"] == "missing"


def test_check_without_any_qemu_checks_the_file(profile, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    path = profile(GOOD)
    assert main(["check", path]) == 0
    assert capsys.readouterr().out == f"{path}: ok (without a QEMU)\n"
    # A binary that was asked for must be there.
    assert main(["check", path, "--qemu", "qemu-system-x86_64"]) == 2


def test_every_sample_is_ok(capsys):
    folder = os.path.join(ROOT, "profiles")
    samples = [os.path.join(folder, n) for n in os.listdir(folder) if n.endswith(".yaml")]
    assert samples
    assert main(["check", "--no-qemu", *samples]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(samples)


# -- errors as text -------------------------------------------------------------------------------


def test_a_caret_stands_below_its_column_whatever_precedes_it(tmp_path):
    path = tmp_path / "tab.yaml"
    path.write_bytes(b"a: \t\x1b[31mx \xe2\x80\xaeb\n")
    lines = list(error_lines(InputError("no", place=Place(str(path), 1, 10))))
    # The file is no YAML and may hold anything: the terminal sees none of it raw.
    assert lines[1].startswith("  a:  \\x1b[31mx \\")
    assert lines[1].isprintable()
    assert lines[2].index("^") == lines[1].index("x \\")


def test_a_long_line_is_shown_around_its_column(tmp_path):
    path = tmp_path / "long.yaml"
    path.write_text("a" * 5000 + "X" + "b" * 5000)
    _message, source, caret = error_lines(InputError("no", place=Place(str(path), 1, 5001)))
    assert len(source) < 200
    assert source[caret.index("^")] == "X"


@pytest.mark.parametrize(
    "place", [Place("/no/such", 1, 1), Place("/dev/null", 3, 1), Place("<profile>", 1, 1)]
)
def test_a_source_line_that_cannot_be_read_is_left_out(place):
    assert list(error_lines(InputError("no", place=place, hint="h"))) == [
        f"{place}: error: no",
        "hint: h",
    ]


def test_words_of_qemu_stand_indented_and_escaped():
    said = ["", *(f"line {n}" for n in range(30)), "qemu: \x1b]0;title\x07 gone"]
    error = LaunchError("QEMU 7.2.0 did not start", evidence={"qemu_stderr": said})
    lines = list(error_lines(error))
    assert lines[0] == "error: QEMU 7.2.0 did not start"
    assert lines[1] == "  … 11 lines more"
    assert lines[2] == "  line 11"
    assert lines[-1].startswith("  qemu: \\x1b]0;title\\x07")
    assert not any(ord(c) < 32 for line in lines for c in line)


# -- what must never happen -----------------------------------------------------------------------


class Exploding:
    """Stands for a verb with a bug, or in which something happens."""

    def __init__(self, monkeypatch, error: BaseException) -> None:
        def arguments(parser, _verb):
            parser.add_argument("--format")
            parser.set_defaults(run=self)

        self.error = error
        monkeypatch.setattr("launcher.cli.host.arguments", arguments)

    def __call__(self, _options):
        raise self.error


def test_a_bug_is_one_line_and_exit_status_3(monkeypatch, capsys):
    Exploding(monkeypatch, KeyError("was\nhere"))
    monkeypatch.delenv("QEMU_LAUNCHER_DEBUG", raising=False)
    assert main(["host"]) == 3
    shown = capsys.readouterr().err
    assert shown.startswith("error: internal error: KeyError: 'was\\nhere' at unit/test_cli.py:")
    assert "please report it" in shown
    assert "Traceback" not in shown
    assert len(shown.splitlines()) == 2


def test_a_bug_shows_its_traceback_to_who_asks(monkeypatch, capsys):
    Exploding(monkeypatch, RecursionError("deep"))
    monkeypatch.setenv("QEMU_LAUNCHER_DEBUG", "1")
    assert main(["host", "--format", "json"]) == 3
    shown = capsys.readouterr()
    assert "Traceback" in shown.err
    assert json.loads(shown.out)["error"]["code"] == "internal"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (KeyboardInterrupt(), 130),
        (BrokenPipeError(errno.EPIPE, "x"), 141),
        (HostError("no"), 4),
        (InputErrors([InputError("a"), InputError("b")]), 2),
        (SystemExit(), 0),
    ],
)
def test_exit_status(monkeypatch, error, status, capfd):
    saved = os.dup(1)
    try:
        Exploding(monkeypatch, error)
        assert main(["host"]) == status
    finally:
        os.dup2(saved, 1)
        os.close(saved)


def shell(script: str, **env: str) -> subprocess.CompletedProcess[str]:
    call = f"{sys.executable} -m launcher"
    return subprocess.run(
        ["bash", "-c", script.replace("QL", call)],
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_reader_that_goes_away_is_no_error():
    done = shell("QL platform show debian-12 --explain | true; echo ${PIPESTATUS[0]}")
    assert done.stdout in ("141\n", "0\n")
    assert done.stderr == ""


def test_head_gets_its_lines():
    done = shell("set -o pipefail; QL platform show debian-12 --format json | head -c 8")
    assert done.stdout == '{"name":'
    assert done.stderr == ""


@pytest.mark.parametrize("words", ["--help", "run --help", "platform list"])
def test_a_full_disk_is_told(words):
    done = shell(f"QL {words} >/dev/full")
    assert done.returncode == 4
    assert done.stderr == "error: the output cannot be written: No space left on device\n"


def test_an_error_on_a_full_stderr_keeps_its_exit_status():
    done = shell("QL platform show nothing 2>/dev/full")
    assert done.returncode == 2


def test_a_closed_stdout_is_no_crash():
    done = shell("QL platform list >&-")
    assert "Traceback" not in done.stderr
    assert done.returncode == 0


def test_any_file_name_can_be_shown_on_any_terminal():
    done = shell("QL check $'/tmp/\\xff\\u00e9.yaml'", PYTHONIOENCODING="ascii", LC_ALL="C.UTF-8")
    assert done.returncode == 2
    assert "there is no such file" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["plan", "a.yaml", "--qemu", ""], "--qemu"),
        (["plan", "a.yaml", "--qemu="], "--qemu"),
        (["run", "a.yaml", "--platform", ""], "--platform"),
        (["check", ""], "an argument"),
        (["lock", "a.yaml", "-o", ""], "-o"),
        (["platform", "show", ""], "an argument"),
    ],
)
def test_an_empty_word_is_no_default(words, what, capsys):
    assert main(words) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"error: {what} is empty\nhint: is a variable of the shell not set?")


def test_a_lock_file_in_the_place_of_its_profile(capsys):
    assert main(["plan", "tests/golden/locks/web.lock.yaml"]) == 2
    shown = capsys.readouterr().err
    assert "web.lock.yaml: error: is a lock file, not a profile" in shown
    assert "web.yaml" in shown


def test_check_finds_lock_files_beside_profiles(tmp_path, capsys):
    path = tmp_path / "web.lock.yaml"
    with open(os.path.join(ROOT, "tests/golden/locks/web.lock.yaml")) as file:
        text = file.read()
    path.write_text(text)
    assert main(["check", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: ok (a lock file)\n"
    path.write_text(text.replace("poll-grow, value: 0", "poll-grow, value: 4"))
    assert main(["check", str(path)]) == 2
    assert "edited after it was written" in capsys.readouterr().err


def test_a_line_of_output_stays_one_line_whatever_a_file_is_called(profile, capsys):
    path = profile(GOOD, "a\nb.yaml")
    assert main(["check", path, "--no-qemu"]) == 0
    assert "a\\nb.yaml: ok" in capsys.readouterr().out


@pytest.mark.parametrize("home", ["", "here"])
def test_a_home_that_is_no_path_is_looked_up(monkeypatch, home):
    import pwd

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", home)
    there = pwd.getpwuid(os.getuid()).pw_dir
    assert cache_folder() == os.path.join(there, ".cache", "qemu-launcher")


def test_a_user_without_a_home_does_not_cache_where_it_stands(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)
    assert cache_folder() == "/.cache/qemu-launcher"


def test_output_without_streams(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert main(["--version"]) == 0
    sys.stdout.close()


# -- platform, host, completion -------------------------------------------------------------------


def test_platform_list(capsys):
    assert main(["platform", "list"]) == 0
    text = capsys.readouterr().out
    assert main(["platform", "list", "--format", "json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {"name", "qemu", "linux", "ref"} == set(listed["platforms"][0])
    for entry in listed["platforms"]:
        assert entry["name"] in text
    names = [entry["name"] for entry in listed["platforms"]]
    assert names.index("rhel-9.2") < names.index("rhel-10.0")


def test_platform_show(capsys):
    assert main(["platform", "show", "debian-12", "--format", "json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["name"], shown["qemu"], shown["linux"]) == ("debian-12", "7.2", "6.1")
    values = {(v["family"], v["type"], v["property"]): v for v in shown["values"]}
    row = values["migration-property", "migration", "send-switchover-start"]
    assert row["value"] == "off"
    assert row["ref"]
    assert main(["platform", "show", "debian-12", "--explain"]) == 0
    text = capsys.readouterr().out
    line = next(x for x in text.splitlines() if "send-switchover-start" in x)
    assert row["why"] in line
    assert row["ref"] in line
    assert text.startswith(f"debian-12: QEMU 7.2, Linux 6.1; {len(values)} values are pinned\n")


def test_platform_native_pins_nothing(capsys):
    assert main(["platform", "show", "native"]) == 0
    assert capsys.readouterr().out == "native: no floor; 0 values are pinned\n"


def test_platform_diff(capsys):
    assert main(["platform", "diff", "qemu-9.2", "qemu-10.0", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["a"], found["b"]) == ("qemu-9.2", "qemu-10.0")
    changes = {(c["family"], c["type"], c["property"]): (c["a"], c["b"]) for c in found["changes"]}
    key = ("migration-property", "migration", "send-switchover-start")
    assert changes[key] == ("off", "on")
    assert all(a != b for a, b in changes.values())
    assert main(["platform", "diff", "native", "qemu-10.0"]) == 0
    assert "(not pinned)" in capsys.readouterr().out
    assert main(["platform", "diff", "qemu-10.0", "qemu-10.0"]) == 0
    assert capsys.readouterr().out == "qemu-10.0 and qemu-10.0 pin the same values\n"


def test_a_sites_own_platform_stands_wherever_a_name_does(profile, capsys):
    site = profile(
        "name: site\nextends: debian-12\nmigration-property:\n  migration:\n"
        "    send-switchover-start: {value: 'on', why: all our hosts have 10.0}\n",
        "site.yaml",
    )
    assert main(["platform", "diff", "debian-12", site, "--format", "json"]) == 0
    changes = json.loads(capsys.readouterr().out)["changes"]
    assert [(c["property"], c["a"], c["b"]) for c in changes] == [
        ("send-switchover-start", "off", "on")
    ]
    assert main(["check", "--no-qemu", "--platform", site, profile(GOOD)]) == 0


def test_host_gathers_only_what_is_asked_for(capsys):
    assert main(["host", "kernel", "--format", "json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"format", "kernel"}
    assert main(["host", "kernel", "arch"]) == 0
    text = capsys.readouterr().out
    assert os.uname().release in text
    assert os.uname().machine in text


def test_host_features_come_with_their_evidence(capsys):
    assert main(["host", "memfd-sealing"]) == 0
    text = capsys.readouterr().out
    assert "memfd-sealing.works" in text
    assert "a sealed memfd works" in text


@pytest.mark.parametrize("shell_name", ["bash", "zsh", "tcsh"])
def test_completion_knows_every_verb(shell_name, capsys):
    pytest.importorskip("shtab")
    assert main(["completion", shell_name]) == 0
    script = capsys.readouterr().out
    for verb in VERBS:
        assert verb in script


def test_completion_without_shtab_is_a_sentence(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 4
    assert "pip install 'qemu-launcher[complete]'" in capsys.readouterr().err


# -- arguments of qmp -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([], {}),
        (['{"a": [1, {"b": null}]}'], {"a": [1, {"b": None}]}),
        (["id=disk0", "size=1024", "on=true"], {"id": "disk0", "size": 1024, "on": True}),
        (["path=/a=b", "list=[1,2]", "nan=NaN"], {"path": "/a=b", "list": [1, 2], "nan": "NaN"}),
        (["backend.type=null", "backend.data={}"], {"backend": {"type": None, "data": {}}}),
        (['version="10"', "empty="], {"version": "10", "empty": ""}),
    ],
)
def test_arguments_of_qmp(words, wanted):
    assert parse_arguments(words) == wanted


@pytest.mark.parametrize(
    "words",
    [["x"], ["=1"], ["a..b=1"], ["a=1", "a=2"], ["a=1", "a.b=2"], ['{"a": '], ["a.b=1", "a=2"]],
)
def test_arguments_of_qmp_that_cannot_be_right(words):
    with pytest.raises(InputError):
        parse_arguments(words)
