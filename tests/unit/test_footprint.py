"""What the launcher loads and opens, where no clock is involved: the cost that users wait for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launcher.cache import cache_folder
from launcher.probe import cached_index, keep_replies
from tests.support.records import ROOT, replies_of

#: Each of these costs between a tenth and nine tenths of the interpreter's own start.
HEAVY = {
    *("argparse", "asyncio", "collections", "dataclasses", "enum", "functools", "inspect", "json"),
    *("qemu", "re", "socket", "ssl", "subprocess", "typing", "yaml", "_pickle"),
}
#: What the YAML parser needs of them.
YAML = {"yaml", "re", "enum", "functools", "collections"}

PROFILE = """\
name: web
platform: debian-12
machine: microvm
accel: tcg
memory: 128MiB
serial: console
devices:
  rng0: {driver: virtio-rng-device}
"""

#: Runs the command line and tells what was loaded; -S keeps site's own imports out of it.
_TELL = """
import sys
sys.path[:0] = {path!r}
told = {{}}
def watch(event, arguments):
    if event == "os.posix_spawn":
        told.setdefault("spawning", sorted(sys.modules))
    if event == "open":
        told.setdefault("opened", []).append(str(arguments[0]))
sys.addaudithook(watch)
from launcher.cli import main
sys.argv = ["qemu-launcher", *{words!r}]
told["status"] = main()
told["modules"] = sorted(sys.modules)
import json
sys.stderr.write("\\n" + json.dumps(told))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A profile, a cache, and something that is executable in QEMU's place."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    binary = tmp_path / "qemu-system-x86_64"
    binary.write_text("#!/bin/sh\nexit 1\n")
    binary.chmod(0o755)
    replies = dict(replies_of("10.0"))
    replies["device-list-properties"].setdefault("virtio-rng-device", [])
    keep_replies(str(binary), replies)
    profile = tmp_path / "web.yaml"
    profile.write_text(PROFILE)
    then = time.time_ns() - 10**10
    os.utime(profile, ns=(then, then))
    return tmp_path


def told(*words: str) -> dict:
    """What one command line loaded, opened and returned."""
    path = [ROOT, *(entry for entry in sys.path if "site-packages" in entry)]
    code = _TELL.format(path=path, words=words)
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        check=False,
    )
    return json.loads(done.stderr.splitlines()[-1])


def heavy(modules: list[str]) -> set[str]:
    return HEAVY & {name.partition(".")[0] for name in modules}


def plan(folder: Path, *more: str) -> dict:
    qemu = str(folder / "qemu-system-x86_64")
    return told("plan", str(folder / "web.yaml"), "--qemu", qemu, *more)


def test_help_loads_nothing_heavy():
    assert heavy(told("--help")["modules"]) == set()


@pytest.mark.parametrize("form", ["text", "argv", "json"])
def test_a_kept_plan_loads_nothing_heavy(folder, form):
    assert plan(folder)["status"] == 0
    again = plan(folder, "--format", form)
    assert again["status"] == 0
    assert heavy(again["modules"]) == set()


def test_a_fresh_plan_loads_no_more_than_the_yaml_parser(folder):
    first = plan(folder)
    assert first["status"] == 0
    # The platform data is read once, and kept with the pickler.
    assert heavy(first["modules"]) <= YAML | {"_pickle"}


def test_qemu_is_spawned_before_anything_heavy_is_loaded(folder):
    plan(folder)
    for verb in ("run", "verify"):
        words = (verb, str(folder / "web.yaml"), "--qemu", str(folder / "qemu-system-x86_64"))
        done = told(*words)
        assert done["status"] == 3  # what stands in for QEMU ends at once
        assert heavy(done["spawning"]) == set()
        assert "asyncio" in done["modules"]


def test_a_kept_plan_opens_two_files_of_the_cache(folder):
    plan(folder)
    opened = [path for path in plan(folder)["opened"] if path.startswith(cache_folder())]
    assert [os.path.basename(os.path.dirname(path)) for path in opened] == ["plan", "probe"]


def test_a_kept_plan_reads_no_profile(folder):
    plan(folder)
    assert not [path for path in plan(folder)["opened"] if path.endswith(".yaml")]


def test_kept_answers_are_one_open_file(folder):
    """Looking at a binary's answers: one open and read, a few stats for its identity."""
    opened: list[str] = []
    watching = True

    def watch(event: str, arguments: tuple) -> None:
        by_path = arguments and isinstance(arguments[0], str)
        if watching and by_path and event in ("open", "os.listdir", "os.scandir"):
            opened.append(f"{event} {arguments[0]}")

    sys.addaudithook(watch)
    try:
        index = cached_index(str(folder / "qemu-system-x86_64"))
    finally:
        watching = False
    assert index is not None
    assert len(opened) == 1, opened
    # Of 1200 entities those are decoded that somebody looked at.
    schema = index["query-qmp-schema"]
    assert schema["query-status"]["meta-type"] == "command"
    assert sum(type(value) is not bytes for value in dict.values(schema)) == 1
