"""A kept plan is used as long as nothing has changed that it follows from, and not longer."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from launcher import plan_cache
from launcher.cache import cache_folder
from launcher.prepare import Loaded, Prepared, Request, load, prepare_now
from launcher.probe import keep_replies
from launcher.record import replace
from tests.support.records import replies_of

pytestmark = pytest.mark.hermetic

PROFILE = """\
extends: base.yaml
name: web
objects:
  io0: {qom-type: iothread}
"""
BASE = """\
platform: debian-12
machine: microvm
accel: tcg
memory: 128MiB
serial: console
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A cache that knows a binary, and a profile of two files."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    binary = tmp_path / "qemu-system-x86_64"
    binary.write_bytes(b"\x7fELF")
    binary.chmod(0o755)
    keep_replies(str(binary), dict(replies_of("10.0")))
    write(tmp_path / "base.yaml", BASE)
    write(tmp_path / "web.yaml", PROFILE)
    return tmp_path


def write(path: Path, text: str) -> None:
    """A file that was written some time ago: the newest ones are not trusted."""
    write.age -= 1
    path.write_text(text)
    then = time.time_ns() - 10**10 + write.age
    os.utime(path, ns=(then, then))


write.age = 0


def request(folder: Path, *settings: str, **more: object) -> Request:
    return Request(
        str(folder / "web.yaml"),
        qemu=str(folder / "qemu-system-x86_64"),
        settings=settings,
        **more,
    )


def prepared(wanted: Request, **how: bool) -> tuple[Loaded, Prepared]:
    loaded = load(wanted)
    return loaded, prepare_now(loaded, **how)


def was_kept(loaded: Loaded) -> bool:
    """Whether the plan came from the cache: then no file of the user was read."""
    return not loaded.files


def kept_files() -> list[str]:
    folder = os.path.join(cache_folder(), "plan")
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


def test_the_second_plan_is_the_first_with_a_uuid_of_its_own(folder):
    loaded, first = prepared(request(folder))
    assert not was_kept(loaded)
    loaded, second = prepared(request(folder))
    assert was_kept(loaded)
    assert first.plan.uuid != second.plan.uuid
    (option,) = [o for o in second.plan.options if o.name == "-uuid"]
    assert option.head == second.plan.uuid
    for name in first.plan.__match_args__:
        if name not in ("uuid", "options"):
            assert getattr(second.plan, name) == getattr(first.plan, name), name
    others = [o for o in first.plan.options if o.name != "-uuid"]
    assert [o for o in second.plan.options if o.name != "-uuid"] == others
    assert len(second.plan.values) > 5
    assert second.capabilities.version == "10.0.2"


def test_what_was_not_read_is_read_when_somebody_looks(folder):
    prepared(request(folder))
    loaded, _again = prepared(request(folder))
    assert was_kept(loaded)
    assert loaded.profile.name == "web"
    assert loaded.platform.name == "debian-12"
    assert [os.path.basename(path) for path, _state in loaded.files] == ["web.yaml", "base.yaml"]
    with pytest.raises(AttributeError):
        _ = loaded.no_such_thing


def test_a_kept_plan_has_no_other_fields(folder):
    prepared(request(folder))
    _loaded, again = prepared(request(folder))
    with pytest.raises(AttributeError):
        _ = again.plan.no_such_thing
    assert replace(again.plan, name="other").values == again.plan.values


def test_a_uuid_of_the_profile_stays(folder):
    uuid = "4dcb5e7e-6cbd-4f3e-a0ea-6f0b1f2d9f62"
    for _ in range(2):
        _loaded, found = prepared(request(folder, f"uuid={uuid}"))
        assert found.plan.uuid == uuid


@pytest.mark.parametrize(
    "change",
    [
        lambda f: write(f / "web.yaml", PROFILE.replace("io0", "io1")),
        lambda f: write(f / "base.yaml", BASE.replace("128MiB", "256MiB")),
        lambda f: write(f / "base.yaml", BASE),  # the same text, written again
        lambda f: os.utime(f / "qemu-system-x86_64"),
    ],
)
def test_a_changed_file_is_read_again(folder, change):
    prepared(request(folder))
    change(folder)
    keep_replies(str(folder / "qemu-system-x86_64"), dict(replies_of("10.0")))
    loaded, _found = prepared(request(folder))
    assert not was_kept(loaded)


def test_another_request_is_another_plan(folder):
    prepared(request(folder))
    for other in (
        request(folder, "memory=256MiB"),
        request(folder, platform="debian-11"),
        request(folder, this_host=False),
    ):
        loaded, _found = prepared(other)
        assert not was_kept(loaded)


def test_a_plan_for_another_host_is_another_plan(folder):
    prepared(request(folder), ask_host=False)
    loaded, _found = prepared(request(folder), ask_host=True)
    assert not was_kept(loaded)


def test_another_host_is_asked_again(folder, monkeypatch):
    prepared(request(folder))
    facts = __import__("launcher.prepare", fromlist=["host_facts"]).host_facts
    monkeypatch.setattr(
        "launcher.prepare.host_facts", lambda asked: replace(facts(asked), linux="4.19.0")
    )
    loaded, _found = prepared(request(folder))
    assert not was_kept(loaded)


def test_another_launcher_plans_again(folder, monkeypatch):
    prepared(request(folder))
    monkeypatch.setattr(plan_cache, "_launcher_files", lambda: iter(["make.py:1.1"]))
    assert not was_kept(load(request(folder)))


def test_every_file_of_the_rooms_counts_and_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(plan_cache, "__file__", str(tmp_path / "plan_cache.py"))
    files = ("a.py", "plan/b.py", "platforms/new/folder/c.yaml", "qapi/d.md", "cli/plan/e.py")
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [entry.partition(":")[0] for entry in plan_cache._launcher_files()]
    assert sorted(found) == ["a.py", "b.py", "c.yaml"]


def test_a_mapping_is_not_kept(folder):
    profile = {"name": "web", "platform": "native", "machine": "microvm", "accel": "tcg"}
    prepared(Request(profile, qemu=str(folder / "qemu-system-x86_64")))
    assert kept_files() == []


def test_a_secret_is_written_nowhere(folder):
    secret = "objects.key={qom-type: secret, data: hunter2hunter2}"
    _loaded, found = prepared(request(folder, secret))
    assert [want.kind for want in found.plan.wants if want.kind == "secret"] == ["secret"]
    assert kept_files() == []


def test_a_file_that_may_still_be_written_is_not_trusted(folder):
    (folder / "web.yaml").write_text(PROFILE)
    soon = time.time() + 60  # as if it were written now, however long planning takes
    os.utime(folder / "web.yaml", (soon, soon))
    prepared(request(folder))
    assert kept_files() == []
    write(folder / "web.yaml", PROFILE)
    prepared(request(folder))
    assert len(kept_files()) == 1


def test_the_newest_are_kept(folder, monkeypatch):
    monkeypatch.setattr(plan_cache, "_MOST", 3)
    for number in range(6):
        prepared(request(folder, f"smp={number + 1}"))
    assert len(kept_files()) == 3
    loaded, _found = prepared(request(folder, "smp=6"))
    assert was_kept(loaded)


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_a_damaged_file_is_no_plan(folder, damage):
    prepared(request(folder))
    path = Path(cache_folder(), "plan", kept_files()[0])
    path.write_bytes(path.read_bytes()[:-9] if damage is None else damage)
    loaded, _found = prepared(request(folder))
    assert not was_kept(loaded)
    assert was_kept(load(request(folder)))


def test_a_file_that_others_may_write_is_not_read(folder):
    prepared(request(folder))
    Path(cache_folder(), "plan", kept_files()[0]).chmod(0o666)
    assert not was_kept(load(request(folder)))


def test_a_cache_that_cannot_be_written_costs_nothing_else(folder):
    prepared(request(folder))
    plans = Path(cache_folder(), "plan")
    for name in kept_files():
        (plans / name).unlink()
    plans.rmdir()
    plans.write_text("in the way")
    loaded, found = prepared(request(folder))
    assert not was_kept(loaded)
    assert found.plan.name == "web"
