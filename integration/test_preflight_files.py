"""RAM blocks that files decide, against what QEMU does: option ROMs, firmware, flashes.

The rule of test_preflight.py: what fails is predicted from a plan alone, in QEMU's words, and
each cure makes it succeed; what succeeds is not called broken.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from typing import Any

import pytest

from integration.conftest import RELEASES, installed
from integration.test_preflight import (
    Case,
    End,
    Profile,
    check_failing,
    chosen,
    move,
    nic,
    predict,
    q35,
    told,
)
from launcher.data import load_rules
from launcher.ends import end_of_lock, planned_end
from launcher.host.facts import gather
from launcher.host.rom_files import data_folders, file_sizes
from launcher.locking.start import lock
from launcher.preflight import breaks, explain, preflight, side_as_json, side_from_json
from launcher.record import replace

pytestmark = pytest.mark.integration

#: A file's name in a profile below is replaced by its path: `{small}`.
ROMS = {"small": 40000, "same": 65536, "large": 200000}
FLASHES = {"flash-small": 256 << 10, "flash-large": 512 << 10, "flash-copy": 256 << 10}
#: 128 KiB that are no firmware: nothing runs it here.
FIRMWARE = {"bios-small": 128 << 10, "bios-like": 256 << 10, "bios-odd": 100000}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, str]:
    """Files of these sizes by their names."""
    folder = tmp_path_factory.mktemp("files")
    for name, size in {**ROMS, **FLASHES, **FIRMWARE}.items():
        (folder / name).write_bytes(bytes(size))
    own = folder / "own"
    own.mkdir()
    (own / "efi-virtio.rom").write_bytes(bytes(400000))
    return {p.name: str(p) for p in folder.iterdir()}


def placed(value: Any, files: dict[str, str]) -> Any:
    """A profile with the paths of its files."""
    if isinstance(value, dict):
        return {key: placed(item, files) for key, item in value.items()}
    if isinstance(value, list):
        return [placed(item, files) for item in value]
    return value.format_map(files) if isinstance(value, str) else value


def at(case: Case, files: dict[str, str]) -> Case:
    ends = [e._replace(profile=placed(e.profile, files)) for e in (case.source, case.destination)]
    return case._replace(source=ends[0], destination=ends[1])


def card(release: str = "5.2", driver: str = "virtio-net-pci", **more: Any) -> Profile:
    return {**q35(release), **nic(device={"driver": driver, **more})}


def screen(**more: Any) -> Profile:
    return {**q35("5.2"), "devices": {"v": {"driver": "VGA", **more}}}


def behind(**more: Any) -> Profile:
    made = card(bus="p", **more)
    port = {"p": {"driver": "pcie-root-port", "chassis": 1}}
    return {**made, "devices": {**port, **made["devices"]}}


def own(profile: Profile) -> Profile:
    """With a folder of one's own before those of the package."""
    return {**profile, "extra-args": ["-L", "{own}"]}


def flash(file: str, *, kind: str = "file", **more: Any) -> Profile:
    node = {"driver": kind, "filename": f"{{{file}}}", "read-only": True, **more}
    if kind != "file":
        del node["filename"]
        node["file"] = {"driver": "file", "filename": f"{{{file}}}"}
    machine = {"type": "pc-q35-5.2", "pflash0": "f"}
    return {"machine": machine, "memory": "64MiB", "blockdevs": {"f": node}}


def drive(file: str) -> Profile:
    words = ["-drive", f"if=pflash,format=raw,readonly=on,file={{{file}}}"]
    return {**q35("5.2"), "extra-args": words}


def bios(file: str, base: Profile | None = None) -> Profile:
    return {**(base or q35("5.2")), "boot": {"firmware": f"{{{file}}}"}}


def fails() -> list[Case]:
    cases = []
    usual = q35("5.2")
    pairs = [("5.2", "11.1"), ("7.2", "10.0"), ("10.0", "7.2"), ("11.1", "5.2")]
    for a, b in pairs:
        ends = [
            ("rom-grows", card(romfile="{small}"), card(romfile="{large}"), "romfile"),
            ("rom-shrinks", card(romfile="{large}"), card(romfile="{small}"), "romfile"),
            ("flash-grows", flash("flash-small"), flash("flash-large"), "pflash0"),
            ("flash-shrinks", flash("flash-large"), flash("flash-small"), "pflash0"),
            ("bios-shrinks", usual, bios("bios-small"), "firmware"),
            ("bios-grows", bios("bios-small"), usual, "firmware"),
            ("rom-gone", card(), card(romfile=""), "romfile"),
            ("rom-off", card(), card(rombar=0), "rombar"),
        ]
        cases += [
            Case(f"{name}-{a}-{b}", End(x, a), End(y, b), (key,), cure="words", full=a != "7.2")
            for name, x, y, key in ends
        ]
    more = [
        ("screen", screen(), screen(romfile="{large}"), "romfile"),
        ("bridge", behind(romfile="{small}"), behind(romfile="{large}"), "romfile"),
        ("e1000", card(driver="e1000"), card(driver="e1000", romfile="{small}"), "romfile"),
        ("transitional", card(driver="virtio-net-pci-non-transitional"),
         card(driver="virtio-net-pci-non-transitional", romfile="{small}"), "romfile"),
        ("folder", card(), own(card()), "romfile"),
        ("folder-back", own(card()), card(), "romfile"),
        ("romsize", card(romsize=1 << 20), card(), "romfile"),
        ("raw", flash("flash-large", kind="raw", size=256 << 10), flash("flash-large"), "pflash0"),
        ("layers", flash("flash-large", kind="raw"), flash("flash-small", kind="raw"), "pflash0"),
        ("microvm", bios("bios-small", {"machine": "microvm", "memory": "64MiB"}),
         {"machine": {"type": "microvm", "acpi": "on"}, "memory": "64MiB", **bios("bios-like")
          | {"machine": "microvm"}}, "firmware"),
        ("drive", drive("flash-large"), drive("flash-small"), "pflash0"),
        ("drive-here", drive("flash-large"), usual, "if"),
        ("drive-there", usual, drive("flash-large"), "if"),
    ]  # fmt: skip
    cases += [
        Case(n, End(x, "10.0"), End(y, "11.1"), (key,), cure="words") for n, x, y, key in more
    ]
    return cases


@pytest.mark.parametrize("case", chosen(fails()))
def test_what_fails_is_predicted(case, files, guest, tmp_path):
    check_failing(at(case, files), str(tmp_path), guest)


# -- cures ----------------------------------------------------------------------------------------


def cures() -> list[tuple[str, Case, dict[str, Profile]]]:
    """(name, what fails, what the cures say of either end)."""
    small, large = card(romfile="{small}"), card(romfile="{large}")
    grown = card(romfile="{small}", romsize=1 << 18)
    return [
        ("romsize-there", Case("", End(large, "10.0"), End(small, "11.1"), ("romfile",)),
         {"destination": grown}),
        ("romsize-here", Case("", End(small, "7.2"), End(large, "10.0"), ("romfile",)),
         {"source": grown}),
        ("romsize-to-oldest", Case("", End(small, "7.2"), End(large, "5.2"), ("romfile",)),
         {"source": grown}),
        ("one-file", Case("", End(small, "5.2"), End(large, "11.1"), ("romfile",)),
         {"source": large}),
        ("none", Case("", End(small, "5.2"), End(large, "7.2"), ("romfile",)),
         {"source": card(romfile=""), "destination": card(romfile="")}),
        ("none-here", Case("", End(card(), "10.0"), End(card(romfile=""), "7.2"), ("romfile",)),
         {"source": card(romfile="")}),
        ("rombar", Case("", End(card(), "10.0"), End(card(rombar=0), "7.2"), ("rombar",)),
         {"destination": card(rombar=1)}),
        ("folder", Case("", End(own(card()), "10.0"), End(card(), "7.2"), ("romfile",)),
         {"destination": card(romsize=1 << 19)}),
        ("flash", Case("", End(flash("flash-small"), "7.2"), End(flash("flash-large"), "10.0"),
         ("pflash0",)), {"destination": flash("flash-copy")}),
        ("bios", Case("", End(q35("5.2"), "7.2"), End(bios("bios-small"), "10.0"), ("firmware",)),
         {"source": bios("bios-small")}),
    ]  # fmt: skip


@pytest.mark.parametrize("row", [pytest.param(r, id=r[0]) for r in cures()])
def test_a_cure_makes_it_succeed(row, files):
    _, case, changes = row
    case = at(case, files)
    assert set(case.properties) <= {f.property for f in breaks(predict(*case[1:3]))}
    ends = [
        end._replace(profile=placed(changes[word], files)) if word in changes else end
        for word, end in zip(("source", "destination"), case[1:3], strict=True)
    ]
    findings = predict(*ends)
    assert not breaks(findings), told(findings)
    outcome = move(*ends)
    assert outcome.result == "completed", (outcome, told(findings))


def test_the_size_is_named_that_is_needed(files):
    ends = [
        End(placed(card(romfile=f), files), r)
        for f, r in (("{large}", "10.0"), ("{small}", "11.1"))
    ]
    [finding] = breaks(predict(*ends))
    cure = finding.cures[0]
    assert (cure.end, cure.property, cure.value) == ("destination", "romsize", str(1 << 18))
    # 5.2 cannot be told.
    [older] = breaks(predict(ends[0], ends[1]._replace(release="5.2")))
    assert "romsize" not in {c.property for c in older.cures}


# -- what succeeds --------------------------------------------------------------------------------


def succeeds() -> list[Case]:
    made = [
        ("same-room", card(romfile="{small}"), card(romfile="{same}"), "10.0", "11.1"),
        ("only-there", card(romfile=""), card(), "7.2", "10.0"),
        ("only-there-bar", card(rombar=0), card(romfile="{large}"), "11.1", "5.2"),
        ("neither", card(rombar=0), card(romfile=""), "10.0", "7.2"),
        ("unused-size", card(rombar=0, romsize=1 << 20), card(rombar=0), "10.0", "7.2"),
        ("flash", flash("flash-small"), flash("flash-copy"), "5.2", "11.1"),
        ("flash-cut", flash("flash-small"), flash("flash-large", kind="raw", size=256 << 10),
         "10.0", "7.2"),
        ("bios", q35("5.2"), bios("bios-like"), "7.2", "10.0"),
        ("drive", drive("flash-small"), flash("flash-copy"), "10.0", "10.0"),
        # A device that has no option ROM misses none.
        ("without", {**q35("5.2"), "devices": {"b": {"driver": "virtio-balloon-pci"}}},
         {**q35("5.2"), "devices": {"b": {"driver": "virtio-balloon-pci", "rombar": 0}}}, "10.0",
         "10.0"),
        # The script of this release has its own folder before any that is given.
        ("folder-first", card(), own(card()), "5.2", "5.2"),
        # The files of the releases, in all directions.
        *((f"packages-{a}-{b}", {**card(), **both()}, {**card(), **both()}, a, b)
          for a, b in (("5.2", "11.1"), ("11.1", "5.2"), ("7.2", "10.0"))),
    ]  # fmt: skip
    return [Case(name, End(x, a), End(y, b), ()) for name, x, y, a, b in made]


def both() -> Profile:
    made = card()
    return {**made, "devices": {**made["devices"], "v": {"driver": "VGA"}}}


@pytest.mark.parametrize("case", [pytest.param(c, id=c.name) for c in succeeds()])
def test_what_succeeds_is_not_called_broken(case, files):
    case = at(case, files)
    findings = predict(case.source, case.destination)
    assert not breaks(findings), told(findings)
    feared = {f.property for f in findings if f.severity != "harmless"}
    assert not feared & {"romfile", "rombar", "romsize"}, told(findings)
    outcome = move(case.source, case.destination)
    assert outcome.result == "completed", (outcome, told(findings))


def test_microvms_with_one_firmware(files):
    """What the packages have is another size since 8.2; one file at both ends is of one."""
    base = {"machine": {"type": "microvm", "acpi": "on"}, "memory": "64MiB"}
    ends = [End(placed(bios("bios-small", base), files), r) for r in ("5.2", "7.2", "10.0")]
    for a, b in ((0, 2), (2, 0), (1, 2)):
        assert not [f for f in breaks(predict(ends[a], ends[b])) if "pc.bios" in f.words]


# -- ends that do not start -----------------------------------------------------------------------


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize(
    "profile",
    [
        card(romfile="/no/such.rom"),
        bios("bios-odd"),
        {**q35("5.2"), "boot": {"firmware": "/no/such"}},
    ],
    ids=["rom", "odd", "firmware"],
)
def test_a_file_that_cannot_be_loaded(release, profile, files):
    start = q35("5.2") if "boot" in profile else card()
    ends = End(start, release), End(placed(profile, files), release)
    [finding] = breaks(predict(*ends))
    assert finding.code in ("rom-absent", "firmware-file")
    words = ends[1].argv(ends[1].prepared())
    done = subprocess.run([*words, "-S"], capture_output=True, text=True, timeout=30)
    assert done.returncode != 0
    assert explain([finding], done.stderr), done.stderr


# -- what the sizes are measured against ----------------------------------------------------------


@pytest.mark.parametrize("release", RELEASES)
def test_the_files_are_what_the_binary_loads(release, files, tmp_path):
    """A lock has what QEMU told: the plan of the same profile says the same, and of another not."""
    devices = {driver: {"driver": driver} for driver in ROM_OF}
    profile = {"name": "roms", "accel": "tcg", **q35("5.2"), "devices": devices}
    end = End(profile, release)
    path = str(tmp_path / "roms.lock.yaml")
    asyncio.run(
        lock({**profile, "platform": "native"}, qemu=installed(release).binary, output=path)
    )
    locked, planned = end_of_lock(path), planned_end(end.prepared())
    assert locked.ram is not None
    assert planned.sizes is not None
    assert None not in planned.sizes.values()
    assert not breaks(preflight(locked, planned, load_rules()))
    larger = {**planned.sizes, "efi-virtio.rom": 1 << 20}
    off = replace(planned, sizes=larger)
    for ends in ((locked, off), (off, locked)):
        [finding] = breaks(preflight(*ends, load_rules()))
        assert "virtio-net-pci.rom" in finding.message
    assert side_from_json(side_as_json(off), "h") == off
    for name, file in ROM_OF.values():
        [block] = [n for n in locked.ram if n.endswith(f"/{name}")]
        size = planned.sizes[file]
        assert size is not None
        assert locked.ram[block].used == 1 << (size - 1).bit_length()


ROM_OF = {
    "VGA": ("vga.rom", "vgabios-stdvga.bin"),
    "e1000": ("e1000.rom", "efi-e1000.rom"),
    "i82551": ("i82551.rom", "pxe-eepro100.rom"),
    "ne2k_pci": ("ne2000.rom", "efi-ne2k_pci.rom"),
    "rtl8139": ("rtl8139.rom", "efi-rtl8139.rom"),
    "vmxnet3": ("vmxnet3.rom", "efi-vmxnet3.rom"),
    "virtio-net-pci": ("virtio-net-pci.rom", "efi-virtio.rom"),
}


def test_the_facts_of_another_host(files):
    binary = installed("10.0").binary
    [row] = [r for r in gather(["qemu"], binaries=[binary])["qemu"] if r["path"] == binary]
    sizes = file_sizes(["efi-virtio.rom"], data_folders(binary))
    assert row["roms"]["efi-virtio.rom"] == sizes["efi-virtio.rom"]
    prepared = End(card(), "10.0").prepared()
    here = planned_end(prepared)

    def there(**change: Any) -> Any:
        return planned_end(prepared, {"features": {}, "qemu": [{**row, **change}]})

    assert not breaks(preflight(here, there(), load_rules()))
    grown = there(roms={**row["roms"], "efi-virtio.rom": 400000})
    assert {f.property for f in breaks(preflight(here, grown, load_rules()))} == {"romfile"}
    # Of another build, of an older file, and of files of that host's own nothing is known.
    assert there(build="another").sizes == there(roms=None).sizes == {}
    assert os.path.isabs(files["small"])
    named = End(placed(card(romfile="{small}"), files), "10.0").prepared()
    told_there = planned_end(named, {"features": {}, "qemu": [row]})
    assert told_there.sizes is not None
    assert files["small"] not in told_there.sizes
    folder = End(placed(own(card()), files), "10.0").prepared()
    assert planned_end(folder, {"features": {}, "qemu": [row]}).sizes == {}
    assert planned_end(prepared, {"features": {}, "qemu": {"unknown": "x"}}).sizes == {}
