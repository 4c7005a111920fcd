"""Files that a user named for a result."""

from __future__ import annotations

import os

import pytest

from launcher.errors import HostError, InputError
from launcher.lock_files import check_replaceable
from launcher.locks.model import HEAD
from launcher.output import write_output

pytestmark = pytest.mark.hermetic


def test_a_file_is_replaced_and_keeps_its_mode(tmp_path):
    path = tmp_path / "report.json"
    path.write_text("old")
    path.chmod(0o640)
    write_output(str(path), "new", "the report")
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["report.json"]


def test_what_cannot_be_written_in_utf_8_is_escaped(tmp_path):
    path = tmp_path / "report.json"
    write_output(str(path), "a\udcffb", "the report")
    assert path.read_bytes() == b"a\\udcffb"


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_output(str(tmp_path / "link"), "new", "the report")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    path = str(tmp_path / "pipe")
    os.mkfifo(path)
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_output(path, "text", "the report")
        assert os.read(reading, 100) == b"text"
    finally:
        os.close(reading)
    assert not os.path.isfile(path)


def test_a_full_device_is_an_error_and_stays_a_device(tmp_path):
    link = tmp_path / "full"
    link.symlink_to("/dev/full")
    with pytest.raises(HostError, match=r"the lock file .*full cannot be written: No space left"):
        write_output(str(link), "text", "the lock file")
    assert not os.path.isfile("/dev/full")


@pytest.mark.parametrize(("name", "words"), [("", "directory"), ("none/file", "No such file")])
def test_what_cannot_be_written_is_named(tmp_path, name, words):
    with pytest.raises(HostError, match=words):
        write_output(os.path.join(tmp_path, name), "text", "the report")
    assert os.listdir(tmp_path) == []


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "report.json"
    path.write_text("old")

    def fail(_one: str, _two: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(HostError, match="No space left"):
        write_output(str(path), "new", "the report")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.json"]


@pytest.mark.parametrize("text", ["", HEAD + "format: 1\n"])
def test_a_lock_file_may_be_written_over_a_lock_file(tmp_path, text):
    path = tmp_path / "web.lock.yaml"
    check_replaceable(str(path))
    path.write_text(text)
    check_replaceable(str(path))


def test_a_lock_file_is_not_written_over_a_profile(tmp_path):
    path = tmp_path / "web.yaml"
    path.write_text("name: web\n")
    with pytest.raises(InputError, match="is not a lock file, and one would be written over it"):
        check_replaceable(str(path))
