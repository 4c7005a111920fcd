"""`drift` and `record` at the command line, as far as no QEMU is needed."""

from __future__ import annotations

import json
import os

import pytest

from launcher.cli import main
from launcher.survey.ask import empty_qcow2
from launcher.survey.kits import SIZE, devices_of, host_value
from launcher.survey.shelf import recorded
from launcher.survey.whole import parse_help


def test_two_recorded_releases_are_compared_without_any_qemu(capsys) -> None:
    assert main(["drift", "qemu-10.0", "qemu-11.1"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("qemu-10.0 (10.0.2) -> qemu-11.1 (11.1.3)\n")
    assert "iothread.poll-shrink" in text
    assert main(["drift", "qemu-5.2", "qemu-7.2", "--machine", "microvm", "--format=json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["machine"], found["platform"]) == ("microvm", None)
    assert found["counts"]["uncovered"] == 0


def test_a_record_may_be_any_file_and_what_is_uncovered_fails(capsys, tmp_path) -> None:
    with open(recorded()["qemu-11.1"], encoding="utf-8") as file:
        record = json.load(file)
    record["readings"]["object"]["iothread"]["poll-max-ns"] = 1
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(record))
    assert main(["drift", "qemu-10.0", str(path)]) == 1
    text = capsys.readouterr().out
    assert "UNCOVERED" in text
    assert "1 uncovered" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["qemu-10.0"], "drift needs OLD and NEW"),
        (["qemu-10.0", "qemu-9.9"], "no QEMU binary 'qemu-9.9'"),
        (["qemu-10.0", "qemu-11.1", "--platform", "debian-12"], "nothing can be pinned"),
        (["qemu-10.0", "qemu-11.1", "--machine", "pc-q35-9.0"], "is not in the record"),
        (["qemu-10.0", "@broken@"], "is no record of a QEMU"),
        (["qemu-10.0", "@other@"], "is no record of a QEMU"),
    ],
)
def test_what_cannot_be_compared_is_said(words, said, capsys, tmp_path) -> None:
    for name, text in (("broken", "{"), ("other", "[]")):
        (tmp_path / f"{name}.json").write_text(text)
        words = [str(tmp_path / f"{name}.json") if w == f"@{name}@" else w for w in words]
    assert main(["drift", *words]) == 2
    assert said in capsys.readouterr().err


def test_a_record_that_cannot_be_read_is_said(capsys, tmp_path) -> None:
    folder = tmp_path / "folder.json"
    os.mkdir(folder)
    assert main(["drift", "qemu-10.0", str(folder)]) == 2
    assert "cannot be read: Is a directory" in capsys.readouterr().err


def test_recording_what_is_no_qemu_is_said(capsys) -> None:
    assert main(["record", "/nonexistent/qemu-system-x86_64"]) == 2
    assert "there is no such QEMU binary" in capsys.readouterr().err


def test_the_words_of_an_option_are_those_before_an_equals_sign() -> None:
    text = """usage: qemu [options]
-h or -help     display this help and exit
-add-fd fd=fd,set=set[,opaque=opaque]
                Add 'fd' to fd 'set'
-run-with [async-teardown=on|off][,chroot=dir]
                [,user=username|uid:gid]
-singlestep     deprecated synonym for -accel tcg,one-insn-per-tb=on
  --chardev <options>    configure a character device backend, id=ID
"""
    assert parse_help(text) == {
        "add-fd": ["fd", "opaque", "set"],
        "chardev": ["id"],
        "h": [],
        "run-with": ["async-teardown", "chroot", "user"],
        "singlestep": [],
    }


def test_each_kind_of_machine_has_its_typical_devices() -> None:
    assert devices_of("none") == ()
    assert "virtio-net-pci,id=net,netdev=net0" in devices_of("pc-q35-7.2")
    assert "virtio-net-device,id=net,netdev=net0" in devices_of("microvm")
    assert devices_of("isapc") == ("-m", "128")
    assert devices_of("virt") == ("-smp", "2", "-m", "128")
    assert host_value("object", "iothread", "thread-id")
    assert not host_value("object", "iothread", "poll-grow")


def test_the_empty_image_is_a_qcow2_of_the_size_that_nodes_have() -> None:
    image = empty_qcow2()
    assert image[:8] == b"QFI\xfb\0\0\0\2"
    assert int.from_bytes(image[24:32], "big") == SIZE
    assert len(image) == 4 << 16
