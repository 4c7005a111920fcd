"""Where QEMU finds the files that it copies into RAM blocks, and how large they are."""

from __future__ import annotations

import os

import pytest

from launcher.host import facts
from launcher.host.rom_files import data_folders, file_sizes, qcow2_size, rom_sizes


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def program(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_a_binary_says_where_it_looks(tmp_path):
    asked = tmp_path / "asked"
    binary = program(tmp_path / "qemu", f'echo "$@" >>{asked}; echo /a; echo /b')
    assert data_folders(binary) == data_folders(binary) == ["/a", "/b"]
    assert asked.read_text() == "-L help\n"
    data_folders(binary, ["/own"])
    assert asked.read_text().splitlines()[1:] == ["-L /own -L help"]
    program(tmp_path / "qemu", "echo /another/place")
    assert data_folders(binary) == ["/another/place"]


def test_a_binary_that_does_not_say(tmp_path):
    assert data_folders(program(tmp_path / "qemu", "echo no such option; exit 1")) == []
    assert data_folders(str(tmp_path / "missing")) == []


def test_the_first_folder_that_has_a_file_counts(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder, size in ((first, 3), (second, 5)):
        folder.mkdir()
        (folder / "a.rom").write_bytes(b"x" * size)
    (second / "b.rom").write_bytes(b"x")
    (first / "b.rom").mkdir()
    folders = [str(first), str(second)]
    found = file_sizes(["a.rom", "b.rom", "c.rom", f"{second}/a.rom", "/no/such"], folders)
    assert found == {"a.rom": 3, "b.rom": 1, "c.rom": None, f"{second}/a.rom": 5, "/no/such": None}
    # QEMU takes a file of that name from where it stands.
    (tmp_path / "a.rom").write_bytes(b"x" * 7)
    assert file_sizes(["a.rom"], folders) == {"a.rom": 7}


def test_what_cannot_be_told_is_left_out(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    assert file_sizes(["missing.rom"], []) == {}
    assert file_sizes([f"{tmp_path}/folder", f"{tmp_path}/loop"], ["/"]) == {}
    (tmp_path / "plain").write_text("")
    assert file_sizes([f"{tmp_path}/plain/below"], ["/"]) == {f"{tmp_path}/plain/below": None}


def test_an_image_has_the_size_that_its_header_says(tmp_path):
    image = tmp_path / "a.qcow2"
    image.write_bytes(b"QFI\xfb" + bytes(20) + (524288).to_bytes(8, "big") + bytes(40))
    assert file_sizes([f"qcow2:{image}"], []) == {f"qcow2:{image}": 524288}
    image.write_bytes(b"QFI\xfb")
    assert qcow2_size(str(image)) is None
    image.write_bytes(bytes(64))
    assert file_sizes([f"qcow2:{image}", "qcow2:/no/such"], ["/"]) == {}


def test_the_roms_of_a_binary(tmp_path):
    for name, size in (("efi-e1000.rom", 4), ("bios.bin", 5), ("openbios-ppc", 6), ("x.bin", 7)):
        (tmp_path / name).write_bytes(b"x" * size)
    other = tmp_path / "other"
    other.mkdir()
    (other / "bios.bin").write_bytes(b"x")
    (other / "vgabios-qxl.bin").write_bytes(b"xx")
    (other / "gone.rom").symlink_to("nowhere")
    folders = [str(tmp_path), f"{tmp_path}/missing", str(other)]
    expected = {"bios.bin": 5, "efi-e1000.rom": 4, "vgabios-qxl.bin": 2}
    assert rom_sizes(folders) == expected
    binary = program(
        tmp_path / "qemu-system-x86_64",
        f'[ "$1" = -L ] || exec echo QEMU emulator version 10.0.2; echo {os.pathsep.join(folders)}'
        f" | tr {os.pathsep} '\\n'",
    )
    [row] = [r for r in facts.gather(["qemu"], binaries=[binary])["qemu"] if r["path"] == binary]
    assert (row["version"], row["roms"]) == ("10.0.2", expected)
