"""RAM blocks that files decide: option ROMs, firmware, flashes, whose sizes are known or not."""

from __future__ import annotations

import pytest

from launcher.preflight import Block, Finding, Side, breaks, preflight, wanted_files
from launcher.preflight.images import image_of
from launcher.preflight.options import Entry
from launcher.record import replace
from tests.unit.test_preflight import MICROVM, broken, compare, know, q35, side, texts

EFI, BIOS = "efi-virtio.rom", "bios-256k.bin"
ROM = "0000:00:01.0/virtio-net-pci.rom"
USUAL = {EFI: 249344, BIOS: 262144}


def net(release: str = "10.0", *, sizes: object = None, **members: object) -> Side:
    card = {"driver": "virtio-net-pci", "netdev": "n", **members}
    profile = {**q35("5.2"), "netdevs": {"n": {"type": "user"}}, "devices": {"d": card}}
    return side(profile, release, sizes=USUAL if sizes is None else sizes)


def flash(known: int | None, **node: object) -> Side:
    node = node or {"driver": "file", "filename": "/f"}
    profile = {
        "machine": {"type": "pc-q35-7.2", "pflash0": "f"},
        "memory": "64MiB",
        "blockdevs": {"f": node},
    }
    return side(profile, sizes={} if known is None else {"/f": known})


def files(source: Side, destination: Side) -> list[Finding]:
    codes = ("ram-size", "ram-name", "rom-absent", "firmware-file")
    return [f for f in preflight(source, destination, know()) if f.code in codes]


# -- which files ----------------------------------------------------------------------------------


def test_the_files_that_an_end_would_load():
    assert wanted_files(net(), know()) == [EFI, BIOS]
    assert wanted_files(net(romfile="/a.rom"), know()) == ["/a.rom", BIOS]
    assert wanted_files(net(rombar=0), know()) == wanted_files(net(romfile=""), know()) == [BIOS]
    assert wanted_files(flash(1), know()) == ["/f"]
    assert wanted_files(flash(1, driver="null-co", size=4096), know()) == []
    assert wanted_files(side({**q35(), "boot": {"firmware": "/b"}}), know()) == ["/b"]


def test_the_firmware_of_each_machine_type():
    def firmware(kind: dict | str) -> list[str]:
        return wanted_files(replace(side({"machine": kind, "memory": "64MiB"})), know())

    assert firmware({"type": "microvm", "acpi": "off"}) == ["qboot.rom"]
    assert firmware("microvm") == ["bios-microvm.bin"]
    assert firmware("isapc") == ["bios.bin"]
    old = replace(net(), machine="pc-i440fx-2.10")
    # Of a distribution's own numbering only the binary knows, and tells since 9.1.
    theirs = replace(net(), machine="pc-q35-artful", compat=None)
    assert wanted_files(theirs, know()) == []
    older = {("virtio-net-pci", "romfile"): "old.rom", ("virtio-net-pci", "romsize"): "4096"}
    theirs = replace(theirs, compat=older)
    assert wanted_files(theirs, know()) == ["old.rom", BIOS]
    smaller = replace(theirs, compat={**older, ("virtio-net-pci", "romsize"): "8192"})
    [found] = files(theirs, smaller)
    assert (found.source, found.destination) == (4096, 8192)
    assert wanted_files(old, know()) == wanted_files(replace(old, machine="virt"), know()) == []


# -- option ROMs ----------------------------------------------------------------------------------


def test_roms_of_two_sizes():
    [found] = files(net(sizes={**USUAL, EFI: 100000}), net())
    assert (found.source, found.destination) == (0x20000, 0x40000)
    assert f"{ROM!r} is 0x20000 bytes" in found.message
    assert texts(found) == [
        "devices.d.romsize: 262144 at the source",
        "devices.d.romfile: one file for both ends",
        'devices.d.romfile: "" at both ends',
    ]
    [back] = files(net(), net(sizes={**USUAL, EFI: 100000}))
    assert texts(back)[0] == "devices.d.romsize: 262144 at the destination"


def test_an_older_release_cannot_be_told_the_size():
    [found] = files(net("5.2", sizes={**USUAL, EFI: 100000}), net())
    assert [cure.property for cure in found.cures] == ["romfile", "romfile"]
    nobody = replace(net(sizes={**USUAL, EFI: 100000}), version=None)
    assert [cure.property for cure in files(nobody, net())[0].cures] == ["romfile", "romfile"]


@pytest.mark.parametrize(
    ("here", "there"),
    [
        (249344, 262144),  # both are 256 KiB
        (1000, 4096),  # a page is the least
        (65536, 65536),
    ],
)
def test_roms_that_take_the_same_room(here, there):
    ends = [net(romfile=f"/{n}", sizes={**USUAL, f"/{n}": n}) for n in (here, there)]
    assert files(*ends) == []
    # That they are two files is no news then.
    assert ("property", "romfile") not in compare(*ends)


def test_the_size_that_the_profile_tells_counts():
    assert files(net(romsize=524288), net(romfile="/r", sizes={"/r": 400000})) == []
    [found] = files(net(romsize=524288), net(romsize=4294967295))
    assert (found.source, found.destination) == (0x80000, 0x40000)
    # Then the file need not be known, and the two properties are no risk.
    assert files(net(romsize=524288, sizes={}), net(romsize=524288, sizes={})) == []
    assert ("property", "romsize") not in compare(net(romsize=262144), net())
    assert ("property", "romsize") in compare(net(romsize=262144), net(sizes={}))


def test_what_is_not_known_is_no_alarm():
    assert files(net(sizes={}), net()) == files(net(), replace(net(), sizes=None)) == []
    risk = compare(net(romfile="/a"), net(romfile="/b"))["property", "romfile"]
    assert risk.severity == "risks"


def test_a_rom_that_only_one_end_has():
    [found] = files(net(), net(romfile=""))
    assert (found.code, found.source) == ("ram-name", ROM)
    assert texts(found) == [
        "leave out romfile of d at the destination",
        'devices.d.romfile: "" at the source',
    ]
    own = files(net(romfile="/r", sizes={"/r": 1}), net(romfile=""))[0]
    assert texts(own)[0] == "devices.d.romfile: /r at the destination"
    [bar] = files(net(), net(rombar=0))
    assert texts(bar) == [
        "devices.d.rombar: 1 at the destination",
        "devices.d.rombar: 0 at the source",
    ]
    assert broken(net(), net(rombar=0)) == {("ram-name", "rombar")}
    # QEMU only minds what it is sent.
    for less in (net(rombar=0), net(romfile="")):
        assert not breaks(preflight(less, net(), know()))
        assert files(less, net(romfile="", rombar=0)) == []


def test_a_rom_that_is_nowhere():
    gone = {**USUAL, EFI: None}
    here, there = files(net(sizes=gone), net()), files(net(), net(sizes=gone))
    assert [f.code for f in (*here, *there)] == ["rom-absent", "rom-absent"]
    assert (here[0].source, there[0].destination) == (EFI, EFI)
    assert "virtio-net-pci d of the destination" in there[0].message
    assert there[0].words == 'failed to find romfile "…"'
    assert texts(there[0]) == ["a file at the destination that QEMU finds and takes"]
    # A size of its own does not help.
    assert files(net(), net(sizes=gone, romsize=262144))[0].code == "rom-absent"


def test_two_cards_without_an_id():
    def two(first: str, second: str) -> Side:
        entries = [
            Entry("device", "virtio-net-pci", "", {"romfile": name}) for name in (first, second)
        ]
        known = net(sizes={"/a": 4096, "/b": 4096})
        others = [e for e in known.entries if e.family != "device"]
        return replace(known, entries=(*others, *entries))

    assert ("property", "romfile") not in compare(two("/a", "/b"), two("/b", "/a"))
    # One that is not known may be the one that is told of.
    assert ("property", "romfile") in compare(two("/a", "/b"), two("/b", "/c"))
    assert ("property", "romfile") in compare(two("/a", "/b"), two("/c", "/b"))


def test_a_rom_behind_a_bridge():
    def behind(size: int) -> Side:
        port = {"driver": "pcie-root-port", "chassis": 1}
        card = {"driver": "virtio-net-pci", "netdev": "n", "bus": "p"}
        profile = {
            **q35(),
            "netdevs": {"n": {"type": "user"}},
            "devices": {"p": port, "d": card},
        }
        return side(profile, sizes={**USUAL, EFI: size})

    [found] = files(behind(4096), behind(8192))
    assert "'0000:00:01.0:00.0/virtio-net-pci.rom'" in found.message
    assert texts(found)[0] == "devices.d.romsize: 8192 at the source"


def test_names_of_blocks():
    def end(driver: str, size: int) -> Side:
        profile = {**q35(), "devices": {"d": {"driver": driver}}}
        return replace(net(), entries=side(profile).entries, sizes=dict.fromkeys(names, size))

    names = ("vgabios-stdvga.bin", "efi-e1000.rom", EFI)
    for driver, name in (
        ("VGA", "vga.rom"),
        ("e1000", "e1000.rom"),
        ("virtio-net-pci-non-transitional", "virtio-net-pci-non-transitional"),
    ):
        [found] = files(end(driver, 4096), end(driver, 8192))
        assert f"'0000:00:01.0/{name}'" in found.message
        assert found.property == "romfile"


def test_an_observed_end_and_a_planned_one():
    def observed(size: int, name: str = ROM) -> Side:
        return replace(net(sizes={}), ram={name: Block(size, size)}, sizes=None)

    assert files(observed(0x40000), net()) == files(net(), observed(0x40000)) == []
    [found] = files(observed(0x80000), net())
    assert texts(found)[0] == "devices.d.romsize: 524288 at the destination"
    # A name that is not there says that we looked in the wrong place, and nothing else.
    assert files(observed(0x80000, "other"), net()) == []
    # Of a device that the plan does not have there is nothing to say but the sizes.
    strange = [replace(net(), ram={"0000:00:09.0/x.rom": Block(n, n)}, sizes=None) for n in (1, 2)]
    assert [texts(f) for f in files(*strange)] == [[]]


def test_a_device_of_another_kind_is_told_as_that():
    other = {**q35(), "devices": {"d": {"driver": "VGA"}}}
    assert files(net(), side(other, sizes=USUAL)) == []
    assert files(replace(net(), partial=True), net(romfile="", sizes={EFI: None})) == []


# -- firmware -------------------------------------------------------------------------------------


def bios(size: int | None, **more: object) -> Side:
    return side(q35(), sizes={BIOS: size}, **more)


def test_firmware_of_two_sizes():
    [found] = files(bios(131072), bios(262144))
    assert (found.property, texts(found)) == (
        "firmware",
        ["boot.firmware: one file for both ends"],
    )
    assert (
        files(bios(131072), side({**q35(), "boot": {"firmware": "/b"}}, sizes={"/b": 131072})) == []
    )
    assert files(bios(131072), replace(bios(262144), sizes=None)) == []


def test_firmware_that_cannot_be_loaded():
    for end in (bios(None), bios(40000), bios(0)):
        [found] = files(bios(262144), end)
        assert (found.code, found.words) == ("firmware-file", "could not load PC BIOS '…'")
    assert "is nowhere" in files(bios(None), bios(262144))[0].message
    assert "not whole 64 KiB" in files(bios(40000), bios(262144))[0].message


def test_what_releases_have_is_not_told_of_one_file():
    """The rule of microvm's firmware is for the files that come with the packages."""
    micro = {"machine": "microvm", "memory": "64MiB"}

    def end(release: str, size: int | None) -> Side:
        sizes = {} if size is None else {"bios-microvm.bin": size}
        return side(micro, release, sizes=sizes)

    # Told once, with the cure that the rule knows.
    ends = end("7.2", 0x10000), end("10.0", 0x20000)
    assert broken(*ends) == {("releases", "")}
    assert files(*ends) == []
    assert broken(end("7.2", None), end("10.0", 0x20000)) == {("releases", "")}
    assert broken(end("7.2", 0x20000), end("10.0", 0x20000)) == set()
    assert files(side(MICROVM, sizes={"qboot.rom": 65536}), side(MICROVM, sizes={})) == []


# -- flashes --------------------------------------------------------------------------------------


def test_flashes_of_two_sizes():
    [found] = files(flash(262144), flash(524288))
    assert found.property == "pflash0"
    assert "'system.flash0' is 0x40000 bytes" in found.message
    assert texts(found) == [
        "machine.pflash0: one file for both ends",
        "a file of 262144 bytes behind f at the destination, padded or cut",
    ]
    assert files(flash(262144), flash(262144)) == files(flash(262144), flash(None)) == []
    there = flash(524288)
    gone = replace(there, entries=tuple(e for e in there.entries if e.family != "blockdev"))
    assert files(flash(262144), gone) == []


def test_flashes_as_qemu_tells_them():
    ends = [
        replace(flash(None), ram={name: Block(size, size)})
        for name, size in (("system.flash0", 0x40000), ("system.flash0", 0x80000))
    ]
    [found] = [f for f in files(*ends) if f.property == "pflash0"]
    assert "behind f" in texts(found)[1]
    assert [f.property for f in files(ends[0], flash(0x80000))] == ["pflash0"]
    copies = [replace(e, ram={"isa-bios": Block(n, n)}) for n, e in zip((1, 2), ends, strict=True)]
    assert [f.property for f in files(*copies)] == ["pflash0"]


def test_flashes_that_are_drives():
    def drive(text: str, **sizes: int) -> Side:
        profile = {**q35(), "extra-args": ["-drive", f"if=pflash,{text}"]}
        return side(profile, sizes={f"/{name}": size for name, size in sizes.items()})

    here = drive("format=raw,file=/a", a=262144)
    assert wanted_files(here, know()) == ["/a"]
    [found] = files(here, drive("format=raw,file=/b", b=524288))
    assert texts(found)[1] == "a file of 262144 bytes at the destination, padded or cut"
    assert files(here, drive("file=/b", b=524288)) == []
    [gone] = files(here, drive("format=raw,file=/b,unit=1", b=524288))
    assert (gone.code, gone.source, gone.destination) == ("ram-name", "system.flash0", None)
    assert texts(gone) == ["the same flashes at both ends"]
    # A flash of the machine's own is the same thing.
    own = flash(262144)
    assert {f.property for f in breaks(preflight(here, own, know()))} == set()
    assert ("property", "pflash0") in broken(own, replace(here, entries=side(q35()).entries))
    assert (
        files(drive("format=raw,file=/b,index=1", b=1), drive("format=raw,file=/b,unit=1", b=1))
        == []
    )


@pytest.mark.parametrize(
    ("driver", "members", "expected"),
    [
        ("file", {"filename": "/f"}, ("/f", None)),
        ("null-co", {"size": "4096"}, ("", 4096)),
        ("null-aio", {}, ("", 1 << 30)),
        ("raw", {"size": "4096", "file": "f"}, ("", 4096)),
        ("raw", {"file.driver": "file", "file.filename": "/f"}, ("/f", None)),
        ("raw", {"file": "f"}, ("/f", None)),
        ("raw", {"file": "f", "offset": "512"}, ("", None)),
        ("raw", {"file": "gone"}, ("", None)),
        ("qcow2", {"file": "f"}, ("qcow2:/f", None)),
        ("qcow2", {"file.driver": "nbd"}, ("", None)),
        ("nbd", {}, ("", None)),
        ("raw", {"file": "ring"}, ("", None)),
    ],
)
def test_what_decides_a_node(driver, members, expected):
    nodes = (
        Entry("blockdev", "file", "f", {"filename": "/f"}),
        Entry("blockdev", "raw", "ring", {"file": "ring"}),
    )
    assert (
        image_of(replace(flash(1), entries=nodes), Entry("blockdev", driver, "x", members))
        == expected
    )
