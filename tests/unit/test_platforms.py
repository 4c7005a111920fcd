"""The platforms room: reading change files, resolving a floor, and spelling a pin for a binary."""

from __future__ import annotations

import pytest

from launcher.errors import InputError, InputErrors
from launcher.files import parse_yaml
from launcher.nodes import Mapping
from launcher.platforms import (
    Catalogue,
    Impossible,
    Omitted,
    Pin,
    Range,
    Version,
    Written,
    applies,
    build_catalogue,
    find_platform,
    fitting,
    has_option,
    hazardous,
    observer_for,
    parse_kernel,
    parse_qemu_version,
    parse_version,
    platform_from_file,
    reaches,
    release_numbers,
    removal_for,
    rename_for,
    renamed_from,
    resolve,
    since,
    spell,
    takes_json,
    too_old,
)

BASE = """
object:
  iothread:
    poll-max-ns: {now: "32768", was: "32768", affects: performance, why: w, ref: r}
    poll-grow: {now: "0", was: "0", affects: performance, why: w, ref: r}
    poll-shrink: {now: "0", was: "0", affects: performance, why: w, ref: r}
  memory-backend-ram memory-backend-file:
    prealloc-threads: {now: "1", was: "1", affects: performance, why: w, ref: r}
netdev:
  tap:
    vnet_hdr:
      was: "on"
      now: "on"
      affects: migration
      when: {fd: null}
      needs: tun-vnet-hdr
      why: w
      ref: r
"""
SEVEN = """
object:
  memory-backend-ram memory-backend-file:
    prealloc-threads: {was: "1", now: "${smp}", affects: performance, why: w, ref: r}
removed:
  command-line:
    watchdog: {until: "7.1", instead: -device, ref: r}
  object:
    rng-random: {opened: {until: "7.0", instead: leave it out, ref: r}}
  chardev:
    tty: {"*": {until: "7.2", instead: serial, ref: r}}
added:
  netdev: {stream: ["*"]}
  command-line: {audio: ["*"]}
"""
TEN = """
migration-property:
  migration:
    send-switchover-start:
      was: "off"
      now: "on"
      affects: migration
      qemu: {from: "10.0"}
      why: a new message
      ref: r
renamed:
  chardev:
    socket:
      reconnect-ms:
        {old: reconnect, from: "9.2", old-from: "5.2", old-until: "10.1", factor: 1000, ref: r}
    pty: {where: {old: path, from: "9.2", ref: r}}
  command-line:
    run-with.user: {old: runas, from: "9.1", ref: r}
added:
  blockdev: {"*": [active]}
"""
ELEVEN = """
object:
  iothread:
    poll-grow:
      was: "0"
      now: "2"
      affects: performance
      translate: [{qemu: {from: "11.1"}, value: "0", write: "2", because: kept as it is}]
      why: w
      ref: r
    poll-shrink:
      was: "0"
      now: "2"
      affects: performance
      cannot: [{qemu: {from: "11.1"}, value: "0", because: taken as 2}]
      why: w
      ref: r
    poll-weight:
      now: "3"
      affects: performance
      qemu: {from: "11.1"}
      otherwise: omit
      why: w
      ref: r
    poll-limit:
      now: "8"
      affects: guest
      qemu: {from: "11.1"}
      cannot: [{value: "8", because: "never", otherwise: fail}]
      why: w
      ref: r
"""
LINUX = """
device:
  virtio-net-pci:
    host_uso:
      was: "off"
      now: null
      affects: migration
      qemu: {from: "8.2"}
      when: {netdev: [tap]}
      why: w
      ref: r
"""
NAMES = """
debian-12: {qemu: "7.2", linux: "6.1", ref: packages}
debian-13: {qemu: "10.0", linux: "6.12", ref: packages}
plain: {qemu: "7.2", ref: packages}
"""
OBSERVERS = """
object:
  memory-backend-file:
    rom: [{read: qom, reads-as: {auto: "off"}}]
    share: [{read: qom, bulk: query-memdev, bulk-as: share, qemu: {from: "6.1"}}, {read: qom}]
  "*": {"*": [{read: qom}], size: [{read: qom, as: bytes}]}
netdev:
  tap: {vnet_hdr: [{read: tun-flags, bit: "0x4000"}], "*": [{unobservable: a summary only}]}
  "*": {"*": [{unobservable: no object}]}
audiodev:
  "*": {"*": [{read: query-audiodevs, qemu: {from: "8.0"}}]}
chardev: &none {"*": {"*": [{unobservable: not shown}]}}
accel: *none
blockdev: *none
device: *none
machine: *none
tpmdev: *none
export: *none
migration-property: *none
migration-parameter: *none
migration-capability: *none
"""
SYNTAX = """
object: {json: {from: "6.0"}, pitfalls: [no numbers as booleans], ref: r}
blockdev: {json: {}, ref: r}
run-with: {exists: {from: "8.1"}, ref: r}
writeconfig: {exists: {until: "7.0"}, ref: r}
"""
HAZARDS = """
hazards:
  - {command: x-query-virtio-status, qemu: {from: "11.1"}, effect: SIGABRT, ref: r}
  - {command: object-add, arguments: {qom-type: colo-compare}, effect: SIGABRT, ref: r}
"""
FILES = {
    "qemu/5.2.yaml": BASE,
    "qemu/7.1.yaml": SEVEN,
    "qemu/10.0.yaml": TEN,
    "qemu/11.1.yaml": ELEVEN,
    "linux/6.2.yaml": LINUX,
    "names.yaml": NAMES,
    "observers.yaml": OBSERVERS,
    "syntax.yaml": SYNTAX,
    "hazards.yaml": HAZARDS,
}
#: One change, for files made wrong on purpose.
ROW = "was: '1', now: '2', affects: guest, why: w, ref: r"


def trees(**changes: str) -> dict[str, Mapping]:
    texts = {**FILES, **{name.replace("__", "/"): text for name, text in changes.items()}}
    return {name: parse_yaml(text, name) for name, text in texts.items()}


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return build_catalogue(trees())


def v(text: str) -> Version:
    return parse_version(text)


def pins(catalogue: Catalogue, name: str) -> dict[tuple[str, str, str], Pin]:
    return resolve(catalogue, find_platform(catalogue, name))


def mistakes(files: dict[str, Mapping]) -> list[str]:
    with pytest.raises(InputErrors) as caught:
        build_catalogue(files)
    return [f"{m.place}: {m.message}; {m.hint}" for m in caught.value.mistakes]


# -- releases -------------------------------------------------------------------------------------


def test_releases_compare_by_number() -> None:
    assert v("9.2") < v("9.10") < v("10.0")
    assert v("7.2.0") == v("7.2")
    assert v("7.2") <= v("7.2.22")
    assert str(v("7.2.22")) == "7.2.22"


def test_names_sort_by_their_release() -> None:
    names = ["pc-q35-10.0", "pc-q35-jammy", "pc-q35-9.2", "pc-q35-9.2.1"]
    assert sorted(names, key=release_numbers) == [names[1], names[2], names[3], names[0]]
    assert release_numbers("7.2") == (7, 2)


@pytest.mark.parametrize("text", ["7", "", "7.", "7.x", "seven", "7.2-rc1", "1.2.3.4.5", "٧.٢"])  # noqa: RUF001
def test_what_is_not_a_release_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is not a release"):
        parse_version(text)


@pytest.mark.parametrize(
    ("text", "series"),
    [
        ("11.1.3", (11, 1)),
        ("7.2.22 (Debian 1:7.2+dfsg-7)", (7, 2)),
        ("10.0.50", (10, 1)),
        ("11.0.92", (11, 1)),
        ("10.2.91", (11, 0)),
        ("11.1.0-rc2", (11, 1)),
    ],
)
def test_a_development_binary_counts_as_the_release_it_becomes(
    text: str, series: tuple[int, int]
) -> None:
    assert parse_qemu_version(text).series == series


def test_ranges_hold_both_ends_by_series() -> None:
    closed = Range(v("7.0"), v("7.2"))
    assert [closed.contains(v(t)) for t in ("6.2.9", "7.0", "7.2.22", "8.0")] == [
        False,
        True,
        True,
        False,
    ]
    assert Range().contains(v("1.0"))
    update = Range(v("10.0.13"), v("10.0"))
    assert [
        update.contains(v(t)) for t in ("9.2.4", "10.0", "10.0.2", "10.0.13", "10.0.40", "10.1")
    ] == [
        False,
        False,
        False,
        True,
        True,
        False,
    ]
    assert Range(None, v("10.0.12")).contains(v("10.0.2"))
    assert not Range(None, v("10.0.12")).contains(v("10.0.13"))
    assert not update.backwards
    assert Range(v("10.0.13"), v("9.2")).backwards
    assert Range(v("10.0.13"), v("10.0.12")).backwards
    assert not Range(v("10.0")).backwards
    assert str(closed) == "from 7.0 until 7.2"
    assert str(Range(v("7.0"))) == "from 7.0"
    assert str(Range(None, v("7.2"))) == "until 7.2"
    assert str(Range()) == "every release"


@pytest.mark.parametrize(
    ("release", "series"),
    [
        ("6.1.0-18-amd64", (6, 1)),
        ("5.14.0-427.13.1.el9_4.x86_64", (5, 14)),
        ("6.12.57+deb13-cloud-amd64", (6, 12)),
        ("6.18.5", (6, 18)),
        ("4.4.302.7.1", (4, 4)),
    ],
)
def test_a_kernel_tells_its_release_in_front(release: str, series: tuple[int, int]) -> None:
    found = parse_kernel(release)
    assert found is not None
    assert found.series == series


def test_a_kernel_that_tells_nothing_has_no_release() -> None:
    assert parse_kernel("custom") is None
    assert parse_kernel("") is None


# -- resolution -----------------------------------------------------------------------------------


def test_a_floor_takes_the_last_change_at_or_below_it(catalogue: Catalogue) -> None:
    old = pins(catalogue, "qemu-5.2")
    new = pins(catalogue, "qemu-11.1")
    threads = ("object", "memory-backend-ram", "prealloc-threads")
    assert (old[threads].value, new[threads].value) == ("1", "${smp}")
    assert old[threads].reason == "as in QEMU 5.2: w"


def test_a_floor_below_every_change_takes_what_was_before(catalogue: Catalogue) -> None:
    key = ("migration-property", "migration", "send-switchover-start")
    assert pins(catalogue, "qemu-7.2")[key].value == "off"
    assert pins(catalogue, "qemu-7.2")[key].reason == "as before QEMU 10.0: a new message"
    assert pins(catalogue, "qemu-10.0")[key].value == "on"


def test_what_did_not_exist_before_is_not_pinned(catalogue: Catalogue) -> None:
    assert ("object", "iothread", "poll-weight") not in pins(catalogue, "qemu-11.0")
    assert pins(catalogue, "qemu-11.1")["object", "iothread", "poll-weight"].value == "3"


def test_linux_releases_are_an_axis_of_their_own(catalogue: Catalogue) -> None:
    key = ("device", "virtio-net-pci", "host_uso")
    assert pins(catalogue, "debian-12")[key].value == "off"
    assert pins(catalogue, "debian-12")[key].axis == "linux"
    assert key not in pins(catalogue, "debian-13"), "left to the machine type from 6.2 on"
    assert key not in pins(catalogue, "qemu-7.2"), "no Linux floor, no Linux pins"
    assert key not in pins(catalogue, "plain")


def test_native_pins_nothing(catalogue: Catalogue) -> None:
    assert pins(catalogue, "native") == {}


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("debian-21", "there is no platform 'debian-21'", "debian-12"),
        ("zzz", "there is no platform 'zzz'", "known: debian-12, debian-13, plain, native"),
        ("qemu-4.2", "begins with QEMU 5.2", "qemu-5.2"),
        ("qemu-7.3", "there is no QEMU 7.3", "7.2"),
        ("qemu-seven", "'seven' is not a release", "7.2"),
    ],
)
def test_an_unknown_platform_names_its_neighbours(
    catalogue: Catalogue, name: str, message: str, hint: str
) -> None:
    with pytest.raises(InputError) as caught:
        find_platform(catalogue, name)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_a_named_platform_keeps_its_reference(catalogue: Catalogue) -> None:
    assert find_platform(catalogue, "debian-12").ref == "packages"


def test_floors_are_reached_from_their_series_on(catalogue: Catalogue) -> None:
    assert reaches(None, v("5.2"))
    assert reaches(v("7.2"), v("7.2.22"))
    assert not reaches(v("7.2"), v("7.1.9"))
    assert too_old(catalogue, v("5.1"))
    assert not too_old(catalogue, v("5.2.1"))


def test_the_newest_platform_that_would_run_is_named(catalogue: Catalogue) -> None:
    def name(qemu: str, linux: str | None, like: str = "") -> str | None:
        found = fitting(catalogue, v(qemu), v(linux) if linux else None, like)
        return found.name if found else None

    assert name("11.1", "6.18") == "debian-13"
    assert name("11.1", "6.1") == "plain"
    assert name("11.1", "6.1", "debian-13") == "debian-12"
    assert name("11.1", None) == "debian-13"
    assert name("7.2", "5.10", "debian-13") == "plain", "it has no Linux floor"
    assert name("5.2", "6.18") is None


# -- spelling -------------------------------------------------------------------------------------


def spelled(catalogue: Catalogue, platform: str, prop: str, version: str) -> object:
    found = [p for k, p in pins(catalogue, platform).items() if k[2] == prop]
    return spell(found[0], v(version), 4)


def test_a_value_is_written_where_the_binary_knows_it(catalogue: Catalogue) -> None:
    assert spelled(catalogue, "qemu-7.2", "poll-max-ns", "5.2") == Written("32768")
    assert spelled(catalogue, "qemu-7.2", "prealloc-threads", "5.2") == Written("4")
    threads = pins(catalogue, "qemu-7.2")["object", "memory-backend-file", "prealloc-threads"]
    assert spell(threads, v("7.2")) == Written("1"), "no machine: one thread"


def test_an_old_binary_that_behaves_so_anyway_gets_nothing(catalogue: Catalogue) -> None:
    assert spelled(catalogue, "qemu-7.2", "send-switchover-start", "7.2.22") == Omitted(
        "QEMU 7.2.22 has no send-switchover-start (known from 10.0) and behaves as 'off'"
    )


def test_an_old_binary_that_cannot_is_an_error(catalogue: Catalogue) -> None:
    assert spelled(catalogue, "qemu-10.0", "send-switchover-start", "7.2.22") == Impossible(
        "QEMU 7.2.22 has no send-switchover-start (known from 10.0); the platform asks for 'on'"
    )


def test_a_row_may_say_that_a_binary_does_without(catalogue: Catalogue) -> None:
    assert spelled(catalogue, "qemu-11.1", "poll-weight", "10.0") == Omitted(
        "QEMU 10.0 has no poll-weight (known from 11.1) and does without '3'"
    )


def test_a_later_file_translates_values_of_older_platforms(catalogue: Catalogue) -> None:
    assert spelled(catalogue, "qemu-5.2", "poll-grow", "11.0") == Written("0")
    assert spelled(catalogue, "qemu-5.2", "poll-grow", "11.1") == Written("2", "kept as it is")
    assert spelled(catalogue, "qemu-11.1", "poll-grow", "5.2") == Written("2")


def test_what_a_binary_cannot_have_is_said(catalogue: Catalogue) -> None:
    assert spelled(catalogue, "qemu-5.2", "poll-shrink", "11.1.3") == Omitted(
        "QEMU 11.1.3 cannot have poll-shrink=0: taken as 2"
    )
    assert spelled(catalogue, "qemu-11.1", "poll-shrink", "11.1.3") == Written("2")
    assert spelled(catalogue, "qemu-11.1", "poll-limit", "11.1") == Impossible(
        "QEMU 11.1 cannot have poll-limit=8: never"
    )


def test_a_row_may_hold_only_under_conditions(catalogue: Catalogue) -> None:
    found = pins(catalogue, "debian-12")
    tap = found["netdev", "tap", "vnet_hdr"]
    uso = found["device", "virtio-net-pci", "host_uso"]
    assert applies(tap, {"ifname": "tap0"})
    assert not applies(tap, {"fd": "7"})
    assert applies(uso, {"netdev": "net0"}, "tap")
    assert not applies(uso, {"netdev": "net0"}, "user")
    assert not applies(uso, {})
    assert applies(found["object", "iothread", "poll-max-ns"], {})


# -- a site's own platform ------------------------------------------------------------------------

SITE = """
name: ours
extends: debian-12
linux: "5.10"
object:
  iothread:
    poll-grow: {value: "0", why: as measured here}
    poll-max-ns: {value: null}
  memory-backend-ram memory-backend-file:
    merge: {value: "off"}
device:
  virtio-net-pci:
    host_uso: {value: "on", when: {netdev: tap}}
"""


def test_a_site_overrides_and_adds_rows(catalogue: Catalogue) -> None:
    platform = platform_from_file(catalogue, parse_yaml(SITE, "ours.yaml"))
    assert (platform.name, str(platform.qemu), str(platform.linux)) == ("ours", "7.2", "5.10")
    found = resolve(catalogue, platform)
    grow = found["object", "iothread", "poll-grow"]
    assert (grow.axis, grow.reason) == ("site", "set by ours: as measured here")
    assert spell(grow, v("11.1")) == Written("2", "kept as it is")
    assert ("object", "iothread", "poll-max-ns") not in found
    merge = found["object", "memory-backend-file", "merge"]
    assert (merge.value, merge.oldest_was, merge.reason) == ("off", None, "set by ours")
    uso = found["device", "virtio-net-pci", "host_uso"]
    assert str(uso.knows) == "from 8.2"
    assert applies(uso, {}, "tap")
    assert isinstance(spell(uso, v("7.2")), Impossible)
    assert isinstance(spell(merge, v("5.2")), Written)


def test_a_site_may_begin_from_nothing(catalogue: Catalogue) -> None:
    text = 'name: bare\nqemu: "7.2"\nobject: {iothread: {poll-max-ns: {value: "0"}}}\n'
    platform = platform_from_file(catalogue, parse_yaml(text, "bare.yaml"))
    assert (str(platform.qemu), platform.linux) == ("7.2", None)
    assert resolve(catalogue, platform)["object", "iothread", "poll-max-ns"].value == "0"


def test_all_mistakes_of_a_site_file_are_told_at_once(catalogue: Catalogue) -> None:
    text = 'extends: debian-99\nobjects: {}\nobject: {iothread: {a: {vale: "1"}, b: 3}}\n'
    with pytest.raises(InputErrors) as caught:
        platform_from_file(catalogue, parse_yaml(text, "bad.yaml"))
    said = [f"{m.place}: {m.message}; {m.hint}" for m in caught.value.mistakes]
    assert said == [
        "bad.yaml:1:1: the key 'name' is missing; ",
        "bad.yaml:1:10: there is no platform 'debian-99'; did you mean debian-13 or debian-12?",
        "bad.yaml:2:1: unknown key 'objects'; did you mean object?",
        "bad.yaml:3:24: the key 'value' is missing; ",
        "bad.yaml:3:25: unknown key 'vale'; did you mean value?",
        "bad.yaml:3:40: object iothread b must be a mapping; ",
    ]


# -- words ----------------------------------------------------------------------------------------


def test_old_binaries_are_spoken_to_in_old_words(catalogue: Catalogue) -> None:
    rename = rename_for(catalogue, "chardev", "socket", "reconnect-ms", v("9.1"))
    assert rename is not None
    assert rename.old == "reconnect"
    assert rename.old_value("2000") == "2"
    assert rename.old_value("1500") is None, "1.5 s cannot be said in seconds"
    assert rename.old_value("soon") is None
    assert rename.new_value("2") == "2000"
    assert rename.new_value("soon") is None
    assert rename_for(catalogue, "chardev", "socket", "reconnect-ms", v("9.2")) is None
    assert rename_for(catalogue, "chardev", "socket", "reconnect-ms", v("5.1")) is None
    assert rename_for(catalogue, "chardev", "socket", "path", v("9.1")) is None


def test_a_rename_without_a_factor_keeps_the_value(catalogue: Catalogue) -> None:
    rename = rename_for(catalogue, "chardev", "pty", "where", v("7.2"))
    assert rename is not None
    assert rename.old_value("/tmp/p") == "/tmp/p"
    assert rename.new_value("/tmp/p") == "/tmp/p"


def test_an_old_word_leads_to_todays(catalogue: Catalogue) -> None:
    found = renamed_from(catalogue, "chardev", "socket", "reconnect")
    assert found is not None
    assert found.new == "reconnect-ms"
    assert renamed_from(catalogue, "chardev", "socket", "port") is None
    runas = rename_for(catalogue, "command-line", "run-with", "user", v("7.2"))
    assert runas is not None
    assert runas.old == "runas"


def test_removed_words_say_until_when(catalogue: Catalogue) -> None:
    gone = removal_for(catalogue, "object", "rng-random", "opened", v("7.2"))
    assert gone is not None
    assert (str(gone.until), gone.instead) == ("7.0", "leave it out")
    assert removal_for(catalogue, "object", "rng-random", "opened", v("7.0.5")) is None
    assert removal_for(catalogue, "object", "rng-random", "filename", v("7.2")) is None
    assert removal_for(catalogue, "chardev", "tty", "path", v("8.0")) is not None
    assert removal_for(catalogue, "command-line", "watchdog", "*", v("7.2")) is not None


def test_words_say_since_when(catalogue: Catalogue) -> None:
    assert since(catalogue, "netdev", "stream", "*") == "7.1"
    assert since(catalogue, "netdev", "stream", "addr") == "7.1"
    assert since(catalogue, "blockdev", "qcow2", "active") == "10.0"
    assert since(catalogue, "object", "iothread", "poll-weight") == "11.1"
    assert since(catalogue, "object", "iothread", "poll-max-ns") is None
    assert since(catalogue, "chardev", "socket", "reconnect-ms") == "5.2", "by its old name"
    assert since(catalogue, "chardev", "pty", "where") is None


def test_observers_are_found_from_exact_to_general(catalogue: Catalogue) -> None:
    def seen(family: str, type_: str, prop: str, version: str = "10.0") -> tuple[object, ...]:
        found = observer_for(catalogue, family, type_, prop, v(version))
        return (found.read, found.as_, found.bulk, found.bit, found.unobservable)

    assert seen("object", "memory-backend-file", "share") == ("qom", "", "query-memdev", 0, "")
    assert seen("object", "memory-backend-file", "share", "5.2")[2] == ""
    assert seen("object", "anything", "size") == ("qom", "bytes", "", 0, "")
    assert seen("object", "anything", "at-all")[0] == "qom"
    assert seen("netdev", "tap", "vnet_hdr")[3] == 0x4000
    assert seen("netdev", "tap", "queues")[4] == "a summary only"
    assert seen("netdev", "user", "hostfwd")[4] == "no object"
    assert seen("audiodev", "none", "id")[0] == "query-audiodevs"
    assert seen("audiodev", "none", "id", "7.2")[4] == "no way to read it back is known"
    rom = observer_for(catalogue, "object", "memory-backend-file", "rom", v("10.0"))
    assert rom.reads_as == (("auto", "off"),)


def test_syntax_depends_on_the_release(catalogue: Catalogue) -> None:
    assert takes_json(catalogue, "object", v("6.0"))
    assert not takes_json(catalogue, "object", v("5.2"))
    assert takes_json(catalogue, "blockdev", v("5.2"))
    assert not takes_json(catalogue, "run-with", v("10.0"))
    assert not takes_json(catalogue, "machine", v("10.0"))
    assert has_option(catalogue, "run-with", v("8.1"))
    assert not has_option(catalogue, "run-with", v("7.2"))
    assert not has_option(catalogue, "writeconfig", v("7.2"))
    assert has_option(catalogue, "machine", v("5.2"))


def test_hazards_know_command_release_and_arguments(catalogue: Catalogue) -> None:
    assert hazardous(catalogue, "x-query-virtio-status", v("11.1")) is not None
    assert hazardous(catalogue, "x-query-virtio-status", v("10.0")) is None
    assert hazardous(catalogue, "query-status", v("11.1")) is None
    assert hazardous(catalogue, "object-add", v("7.2")) is not None, "arguments not known"
    assert hazardous(catalogue, "object-add", v("7.2"), {"qom-type": "iothread"}) is None
    assert hazardous(catalogue, "object-add", v("7.2"), {"qom-type": "colo-compare"}) is not None


# -- mistakes in the data -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("qemu/7.1.yaml", "objekt: {}", "unknown key 'objekt'; did you mean object?"),
        ("qemu/7.1.yaml", "object: 3", "object must be a mapping"),
        ("qemu/7.1.yaml", "object: {x: {y: {now: '1'}}}", "the key 'why' is missing"),
        (
            "qemu/7.1.yaml",
            "object: {x: {y: {now: '1', wass: '2', affects: guest, why: w, ref: r}}}",
            "unknown key 'wass'; did you mean was",
        ),
        (
            "qemu/7.1.yaml",
            "object: {x: {y: {now: '1', affects: all, why: w, ref: r}}}",
            "affects cannot be 'all'; migration | guest | host",
        ),
        (
            "qemu/7.1.yaml",
            "object: {x: {y: {now: [1], affects: guest, why: w, ref: r}}}",
            "now must be text",
        ),
        (
            "qemu/7.1.yaml",
            "object: {x: {y: {now: '1', affects: guest, why: w, ref: r, qemu: {from: x.y}}}}",
            "'x.y' is not a release",
        ),
        (
            "qemu/7.1.yaml",
            "object: {x: {y: {now: '1', affects: guest, why: w, ref: r, "
            "qemu: {from: '8.0', until: '7.0'}}}}",
            "qemu ends before it begins",
        ),
        (
            "qemu/7.1.yaml",
            "object: {x: {y: {now: '1', affects: guest, why: w, ref: r, translate: 3}}}",
            "translate must be a list",
        ),
        (
            "qemu/7.1.yaml",
            "object: {x: {y: {now: '1', affects: guest, why: w, ref: r, translate: [3]}}}",
            "an entry of translate must be a mapping",
        ),
        (
            "qemu/7.1.yaml",
            "object: {x: {y: {now: '1', affects: guest, why: w, ref: r, cannot: [3]}}}",
            "an entry of cannot must be a mapping",
        ),
        (
            "qemu/7.1.yaml",
            "object: {x: {y: {now: '1', affects: guest, why: w, ref: r, when: {a: [[1]]}}}}",
            "when a must be a value or a list of values",
        ),
        (
            "qemu/7.1.yaml",
            "object: {iothread: {poll-max-ns: {was: '1', now: '2', affects: guest, why: w, "
            "ref: r}}}",
            "object iothread.poll-max-ns was '1' before 7.1, but 5.2 made it '32768'",
        ),
        (
            "qemu/7.1.yaml",
            "object: {iothread: {poll-max-ns: {was: '32768', now: '32768', affects: guest, "
            "why: w, ref: r}}}",
            "object iothread.poll-max-ns does not change in 7.1",
        ),
        (
            "qemu/7.1.yaml",
            f"object: {{a b: {{x: {{{ROW}}}}}, b: {{x: {{{ROW}}}}}}}",
            "object b.x stands twice in the file of 7.1",
        ),
        ("qemu/7.1.yaml", "renamed: {nic: {}}", "renamed: no family 'nic'; known: object"),
        ("qemu/7.1.yaml", "added: {nic: {}}", "added: no family 'nic'"),
        ("qemu/7.1.yaml", "added: {object: {x: 3}}", "added object x must be a list"),
        ("qemu/7.1.yaml", "added: {object: {x: [[3]]}}", "an added name must be text"),
        ("qemu/7.1.yaml", "renamed: {object: {x: {y: {old: z}}}}", "the key 'from' is missing"),
        (
            "qemu/7.1.yaml",
            "renamed: {object: {x: {y: {old: z, from: '7.1', ref: r, factor: '0'}}}}",
            "factor must be a whole number",
        ),
        ("qemu/7.1.yaml", "removed: {object: {x: {y: {}}}}", "the key 'until' is missing"),
        ("qemu/seven.yaml", "{}", "'seven' is not a release"),
        ("kemu/7.1.yaml", "{}", "kemu/7.1.yaml is no file of the platform data; known: qemu/"),
        ("observer.yaml", "{}", "is no file of the platform data; did you mean observers.yaml"),
        (
            "linux/6.3.yaml",
            f"object: {{iothread: {{poll-max-ns: {{{ROW}}}}}}}",
            "object iothread.poll-max-ns has changes in QEMU and in Linux",
        ),
        ("names.yaml", "debian-12: {linux: '6.1', ref: r}", "the key 'qemu' is missing"),
        ("syntax.yaml", "object: {jsn: {}}", "unknown key 'jsn'; did you mean json?"),
        ("hazards.yaml", "hazards: [{command: quit}]", "the key 'effect' is missing"),
        ("hazards.yaml", "hazards: [quit]", "a hazard must be a mapping"),
        ("observers.yaml", "object: {}", "the key 'netdev' is missing"),
        (
            "observers.yaml",
            OBSERVERS.replace('"*": {"*": [{read: qom}], size', '"*": {size'),
            "object has no fallback",
        ),
        (
            "observers.yaml",
            OBSERVERS.replace("[{unobservable: no object}]", "[{}]"),
            "an observer has either `read` or `unobservable`",
        ),
        (
            "observers.yaml",
            OBSERVERS.replace("{unobservable: no object}", "3"),
            "an observer must be a mapping",
        ),
        (
            "observers.yaml",
            OBSERVERS.replace("read: query-audiodevs", "read: query-audio"),
            "read cannot be 'query-audio'",
        ),
        ("observers.yaml", OBSERVERS.replace("0x4000", "many"), "bit must be a number"),
    ],
)
def test_a_mistake_is_told_with_its_place(file: str, text: str, said: str) -> None:
    files = trees()
    files[file] = parse_yaml(text, file)
    found = mistakes(files)
    assert any(said in one and one.startswith(file) for one in found), found


def test_a_missing_table_or_no_release_at_all_is_told() -> None:
    found = mistakes({"names.yaml": trees()["names.yaml"]})
    assert {one.partition(":")[0] for one in found if "is missing" in one} == {
        "hazards.yaml",
        "observers.yaml",
        "syntax.yaml",
    }
    assert any("no release file" in one for one in found)


def test_every_mistake_of_every_file_comes_at_once() -> None:
    files = trees(qemu__7__1=BASE)
    del files["qemu/7/1"]
    files["qemu/7.1.yaml"] = parse_yaml("objekt: {}\nremoved: {x: {}}\n", "qemu/7.1.yaml")
    files["hazards.yaml"] = parse_yaml("hazards: 3\n", "hazards.yaml")
    assert len(mistakes(files)) == 3
