"""The shipped platform data: that it holds together, and says what it must."""

from __future__ import annotations

import os
from itertools import pairwise

import pytest

from launcher.data import data_files, folder
from launcher.files import read_yaml
from launcher.platforms import (
    FAMILIES,
    Catalogue,
    Impossible,
    Omitted,
    Row,
    Version,
    Written,
    applies,
    build_catalogue,
    find_platform,
    hazardous,
    observer_for,
    parse_version,
    removal_for,
    rename_for,
    resolve,
    since,
    spell,
    takes_json,
)
from launcher.platforms.changes import Changes, read_changes
from launcher.platforms.reader import Reader

#: Every release that QEMU made in the range of the data.
RELEASES = ["5.2"] + [f"{major}.{minor}" for major in range(6, 11) for minor in range(3)]
RELEASES += ["11.0", "11.1"]
FILES = {name: read_yaml(os.path.join(folder(), name)) for name in data_files(folder())}
CHANGES = sorted(name for name in FILES if "/" in name)


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return build_catalogue(FILES)


def v(text: str) -> Version:
    return parse_version(text)


def release_of(file: str) -> Version:
    return v(file.partition("/")[2].removesuffix(".yaml"))


def changes_of(file: str) -> Changes:
    reader = Reader()
    found = read_changes(reader, file.partition("/")[0], release_of(file), FILES[file])
    assert not reader.mistakes
    return found


def all_rows(catalogue: Catalogue) -> list[Row]:
    return [r for table in (catalogue.qemu, catalogue.linux) for c in table.values() for r in c]


def values(catalogue: Catalogue, platform: str) -> dict[tuple[str, str, str], str]:
    return {k: p.value for k, p in resolve(catalogue, find_platform(catalogue, platform)).items()}


# -- form -----------------------------------------------------------------------------------------


def test_every_release_file_is_of_a_release_that_exists() -> None:
    ours = [str(release_of(name)) for name in CHANGES if name.startswith("qemu/")]
    assert set(ours) <= set(RELEASES)
    assert {"5.2", "11.1"} <= set(ours)


def test_every_row_says_why_and_where_it_is_known_from(catalogue: Catalogue) -> None:
    rows = all_rows(catalogue)
    assert len(rows) > 50
    for row in rows:
        assert row.why.endswith("."), row.place
        assert len(row.why.split()) >= 4, row.place
        assert len(row.ref) > 8, row.place


def test_every_removal_and_rename_has_a_reference(catalogue: Catalogue) -> None:
    for removal in catalogue.removals.values():
        assert removal.ref, removal
        assert removal.instead, removal
    for rename in catalogue.renames.values():
        assert rename.ref, rename


def test_no_text_of_a_row_is_broken_by_a_colon_or_a_brace(catalogue: Catalogue) -> None:
    # In a YAML flow map an unquoted comma ends a value: what follows would be a key without value.
    for row in all_rows(catalogue):
        for text in (row.why, row.ref, *(c.because for c in row.cannot)):
            assert "{" not in text, row.place
            assert text == text.strip(), row.place


@pytest.mark.parametrize("file", [n for n in CHANGES if n.startswith("qemu/")])
def test_a_file_holds_only_what_changed_in_its_release(file: str) -> None:
    release = release_of(file)
    before = str(release) != "5.2" and RELEASES[RELEASES.index(str(release)) - 1]
    found = changes_of(file)
    for row in found.rows:
        if row.knows.from_ is not None:
            assert row.knows.from_ == release, row.place
        if str(release) == "5.2":
            assert row.was == row.now, "the baseline holds what is as old as the data"
        else:
            assert row.was != row.now, row.place
    for rename in found.renames:
        assert rename.from_ == release, rename
        assert (
            rename.old_until is None
            or rename.old_until.series >= rename.from_.series
            or (str(rename.old_until) == before)
        )
    for removal in found.removals:
        assert str(removal.until) == before, removal


@pytest.mark.parametrize("file", [n for n in CHANGES if n.startswith("linux/")])
def test_what_linux_negotiates_is_left_to_the_machine_type_from_there_on(file: str) -> None:
    for row in changes_of(file).rows:
        assert (row.was, row.now) == ("off", None), row.place
        assert row.when == (("netdev", ("tap",)),), row.place
        assert row.knows.from_ is not None, row.place


def test_translations_are_of_values_that_the_chain_has(catalogue: Catalogue) -> None:
    for table in (catalogue.qemu, catalogue.linux):
        for chain in table.values():
            known = {row.was for row in chain} | {row.now for row in chain}
            for row in chain:
                for entry in (*row.translate, *row.cannot):
                    assert entry.value in known, row.place
                    assert entry.because, row.place


def test_a_version_in_the_data_is_no_newer_than_the_data(catalogue: Catalogue) -> None:
    for row in all_rows(catalogue):
        for end in (row.knows.from_, row.knows.until):
            assert end is None or end.series <= catalogue.newest.series, row.place


# -- resolution -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("older", "newer"), list(pairwise(RELEASES)))
def test_two_neighbouring_floors_differ_by_one_file(
    catalogue: Catalogue, older: str, newer: str
) -> None:
    before, after = values(catalogue, f"qemu-{older}"), values(catalogue, f"qemu-{newer}")
    changed = {k for k in before.keys() | after.keys() if before.get(k) != after.get(k)}
    file = f"qemu/{newer}.yaml"
    rows = changes_of(file).rows if file in FILES else ()
    assert changed == {row.key for row in rows}
    for row in rows:
        assert (before.get(row.key), after.get(row.key)) == (row.was, row.now)


def test_the_platform_of_the_measured_failures(catalogue: Catalogue) -> None:
    """The values that make QEMU 10.0 → 7.2 work for machine types without a version."""
    found = values(catalogue, "debian-12")
    migration = {k[2]: value for k, value in found.items() if k[0].startswith("migration-")}
    assert migration == {
        "send-switchover-start": "off",
        "multifd-flush-after-each-section": "on",
        "multifd-clean-tls-termination": "off",
        "x-preempt-pre-7-2": "on",
        "switchover-ack-legacy": "on",
        "zero-page-detection": "legacy",
    }
    assert found["object", "sev-guest", "legacy-vm-type"] == "on"
    assert found["object", "iothread", "poll-shrink"] == "0"
    assert found["chardev", "vc", "encoding"] == "cp437"
    assert found["device", "virtio-net-pci", "host_uso"] == "off"
    assert found["object", "memory-backend-memfd", "prealloc-threads"] == "${smp}"


@pytest.mark.parametrize("binary", RELEASES)
def test_every_named_platform_runs_on_every_binary_at_or_above_its_floor(
    catalogue: Catalogue, binary: str
) -> None:
    version = v(binary)
    for name, known in catalogue.names.items():
        if known.qemu.series > version.series:
            continue
        for pin in resolve(catalogue, find_platform(catalogue, name)).values():
            spelled = spell(pin, version, 4)
            assert not isinstance(spelled, Impossible), (name, binary, spelled)


def test_an_older_binary_runs_what_it_behaves_like_anyway(catalogue: Catalogue) -> None:
    for pin in resolve(catalogue, find_platform(catalogue, "debian-12")).values():
        assert not isinstance(spell(pin, v("5.2"), 4), Impossible), pin


def test_an_older_binary_is_refused_what_it_cannot_do(catalogue: Catalogue) -> None:
    found = resolve(catalogue, find_platform(catalogue, "debian-13"))
    refused = {k[2] for k, pin in found.items() if isinstance(spell(pin, v("7.2"), 4), Impossible)}
    assert {"send-switchover-start", "zero-page-detection", "legacy-vm-type"} <= refused
    assert "share" in refused, "of memory-backend-shm, which 7.2 does not have"


def test_the_poll_defaults_of_11_1_cannot_be_taken_back_whole(catalogue: Catalogue) -> None:
    found = resolve(catalogue, find_platform(catalogue, "debian-12"))
    grow = spell(found["object", "iothread", "poll-grow"], v("11.1.3"))
    shrink = spell(found["object", "iothread", "poll-shrink"], v("11.1.3"))
    assert isinstance(grow, Written)
    assert grow.value == "2"
    assert isinstance(shrink, Omitted)


def test_tap_is_pinned_only_where_qemu_takes_the_word(catalogue: Catalogue) -> None:
    """QEMU refuses vnet_hdr= beside fd=, fds= and helper= (net/tap.c net_init_tap)."""
    found = resolve(catalogue, find_platform(catalogue, "debian-12"))
    header, vhost = found["netdev", "tap", "vnet_hdr"], found["netdev", "tap", "vhost"]
    assert applies(header, {"ifname": "tap0", "script": "no"})
    for word in ("fd", "fds", "helper"):
        assert not applies(header, {word: "3"})
    assert applies(vhost, {"fd": "3"})
    for word in ("vhostfd", "vhostfds", "vhostforce"):
        assert not applies(vhost, {word: "on"})


# -- words ----------------------------------------------------------------------------------------


def test_since_versions_of_well_known_words(catalogue: Catalogue) -> None:
    known = {
        ("object", "iothread", "aio-max-batch"): "6.1",
        ("object", "iothread", "thread-pool-max"): "7.1",
        ("object", "iothread", "poll-weight"): "11.1",
        ("object", "memory-backend-ram", "reserve"): "6.1",
        ("object", "memory-backend-file", "rom"): "8.2",
        ("object", "memory-backend-shm", "*"): "9.1",
        ("object", "sev-guest", "legacy-vm-type"): "9.1",
        ("netdev", "stream", "*"): "7.2",
        ("netdev", "stream", "reconnect-ms"): "8.0",
        ("chardev", "vc", "encoding"): "11.1",
        ("chardev", "socket", "logtimestamp"): "11.0",
        ("blockdev", "qcow2", "active"): "10.0",
        ("device", "virtio-net-pci", "host_uso"): "8.2",
        ("device", "virtio-net-pci", "host_tunnel"): "10.2",
        ("migration-parameter", "migration", "mode"): "8.2",
        ("migration-capability", "migration", "mapped-ram"): "9.0",
        ("command-line", "run-with", "*"): "8.1",
    }
    assert {key: since(catalogue, *key) for key in known} == known


@pytest.mark.parametrize(
    ("family", "type_", "word", "last"),
    [
        ("command-line", "runas", "*", "9.2"),
        ("command-line", "chroot", "*", "8.2"),
        ("command-line", "soundhw", "*", "7.0"),
        ("command-line", "no-acpi", "*", "8.2"),
        ("command-line", "no-hpet", "*", "8.2"),
        ("command-line", "singlestep", "*", "8.2"),
        ("migration-property", "migration", "decompress-error-check", "9.0"),
        ("migration-capability", "migration", "compress", "9.0"),
        ("migration-parameter", "migration", "block-incremental", "9.0"),
        ("object", "rng-random", "opened", "7.0"),
        ("machine", "pc-q35-3.1", "*", "10.0"),
        ("machine", "pc-i440fx-5.1", "*", "11.0"),
    ],
)
def test_removed_words_are_refused_after_their_last_release(
    catalogue: Catalogue, family: str, type_: str, word: str, last: str
) -> None:
    following = RELEASES[RELEASES.index(last) + 1]
    assert removal_for(catalogue, family, type_, word, v(last)) is None
    assert removal_for(catalogue, family, type_, word, v(following)) is not None


@pytest.mark.parametrize(
    ("family", "type_", "new", "version", "old", "value"),
    [
        ("chardev", "socket", "reconnect-ms", "9.1", "reconnect", "3"),
        ("netdev", "stream", "reconnect-ms", "8.0", "reconnect", "3"),
        ("command-line", "run-with", "user", "9.0", "runas", "3000"),
        ("command-line", "run-with", "chroot", "8.0", "chroot", "3000"),
        ("command-line", "run-with", "async-teardown", "7.2", "async-teardown", "3000"),
        ("accel", "tcg", "one-insn-per-tb", "7.2", "-singlestep", "3000"),
    ],
)
def test_todays_words_are_spoken_in_old_ones(
    catalogue: Catalogue, family: str, type_: str, new: str, version: str, old: str, value: str
) -> None:
    rename = rename_for(catalogue, family, type_, new, v(version))
    assert rename is not None
    assert (rename.old, rename.old_value("3000")) == (old, value)
    assert rename_for(catalogue, family, type_, new, v("11.1")) is None


def test_stream_had_no_reconnect_at_all_before_8_0(catalogue: Catalogue) -> None:
    assert rename_for(catalogue, "netdev", "stream", "reconnect-ms", v("7.2")) is None


def test_json_forms_by_release(catalogue: Catalogue) -> None:
    def options(version: str) -> set[str]:
        return {option for option in catalogue.syntax if takes_json(catalogue, option, v(version))}

    always = {"blockdev", "audiodev", "display"}
    assert options("5.2") == always
    assert options("7.2") == always | {"object", "device", "netdev", "compat"}
    assert options("10.0") == options("11.1") == options("7.2") | {"incoming"}


def test_the_command_that_aborts_11_1_is_known(catalogue: Catalogue) -> None:
    assert hazardous(catalogue, "x-query-virtio-status", v("11.1.3")) is not None
    assert hazardous(catalogue, "x-query-virtio-status", v("10.0.2")) is None


# -- reading back ---------------------------------------------------------------------------------


def test_every_family_has_a_way_to_be_read_or_a_reason(catalogue: Catalogue) -> None:
    for family in FAMILIES:
        for release in RELEASES:
            found = observer_for(catalogue, family, "no-such-type", "no-such-property", v(release))
            assert found.read or len(found.unobservable.split()) > 4, family


#: Pinned values that no release shows. The set only shrinks.
NEVER_SHOWN = {
    ("migration-property", "migration", "multifd-clean-tls-termination"),
    ("migration-property", "migration", "multifd-flush-after-each-section"),
    ("migration-property", "migration", "switchover-ack-legacy"),
    ("migration-property", "migration", "x-preempt-pre-7-2"),
    ("netdev", "tap", "vhost"),
}


@pytest.mark.parametrize("release", RELEASES)
def test_what_cannot_be_read_back_is_known_and_only_shrinks(
    catalogue: Catalogue, release: str
) -> None:
    unread = {
        key
        for key in (*catalogue.qemu, *catalogue.linux)
        if observer_for(catalogue, *key, v(release)).read is None
    }
    assert unread == NEVER_SHOWN


# -- names ----------------------------------------------------------------------------------------


def test_every_name_is_a_release_of_this_data(catalogue: Catalogue) -> None:
    for name, known in catalogue.names.items():
        assert str(known.qemu) in RELEASES, name
        assert known.linux is not None, name
        assert known.ref, name
        assert resolve(catalogue, find_platform(catalogue, name))


def test_the_names_of_one_distribution_never_go_back(catalogue: Catalogue) -> None:
    by_distribution: dict[str, list[tuple[float, Version]]] = {}
    for name, known in catalogue.names.items():
        if not name.endswith("-backports"):
            distribution, _, number = name.partition("-")
            major, _, minor = number.partition(".")
            key = float(major) * 100 + float(minor or 0)
            by_distribution.setdefault(distribution, []).append((key, known.qemu))
    for found in by_distribution.values():
        ordered = [qemu.numbers for _, qemu in sorted(found, key=lambda pair: pair[0])]
        # RHEL 8.10 came after 9.0 to 9.4 and kept the QEMU of 8.6; compared within a major only.
        assert ordered == sorted(ordered), found
