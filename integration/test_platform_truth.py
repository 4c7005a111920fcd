"""The platform data against real QEMUs: words, ranges, defaults, pins, JSON forms and hazards.

Independent of the launcher's own probing and reading: it asks with bare QMP.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from functools import cache
from typing import Any

import pytest

from integration.conftest import RELEASES, Installed, installed, needs_tap
from integration.rawqmp import RawQMP
from launcher.data import data_files, folder
from launcher.files import read_yaml
from launcher.platforms import (
    Catalogue,
    Omitted,
    Pin,
    Platform,
    Version,
    Written,
    build_catalogue,
    find_platform,
    has_option,
    observer_for,
    parse_version,
    resolve,
    spell,
    takes_json,
)

pytestmark = pytest.mark.integration

#: Words that these builds leave out, by the release from which the data says they exist: Debian
#: builds without the library, or the type needs a kernel or CPU that no build here has.
BUILT_WITHOUT = {
    ("blockdev", "io_uring", "*"): "libblkio came to Debian's build after 10.0",
    ("blockdev", "nvme-io_uring", "*"): "libblkio came to Debian's build after 10.0",
    ("blockdev", "virtio-blk-vfio-pci", "*"): "libblkio came to Debian's build after 10.0",
    ("blockdev", "virtio-blk-vhost-user", "*"): "libblkio came to Debian's build after 10.0",
    ("blockdev", "virtio-blk-vhost-vdpa", "*"): "libblkio came to Debian's build after 10.0",
    ("netdev", "af-xdp", "*"): "no libxdp",
    ("netdev", "af-xdp", "map-path"): "no libxdp",
    ("netdev", "af-xdp", "map-start-index"): "no libxdp",
    ("object", "igvm-cfg", "*"): "no libigvm",
    ("blockdev", "rbd", "encrypt"): "a module of its own",
    ("object", "memory-backend-epc", "*"): "registered only where the host has /dev/sgx_vepc",
}


QUIET = ("-nodefaults", "-no-user-config", "-display", "none", "-accel", "tcg", "-S")


@cache
def data() -> Catalogue:
    root = folder()
    return build_catalogue({name: read_yaml(os.path.join(root, name)) for name in data_files(root)})


def version_of(qemu: Installed) -> Version:
    return parse_version(qemu.release)


def start(qemu: Installed, *words: str, machine: str = "none") -> RawQMP:
    return RawQMP([qemu.binary, *QUIET, "-machine", machine, *words])


def refused(qemu: Installed, *words: str) -> str:
    """What QEMU says when it does not start with these words; empty when it does."""
    done = subprocess.run(
        [qemu.binary, *QUIET, "-machine", "q35", "-qmp", "stdio", *words],
        input='{"execute": "qmp_capabilities"} {"execute": "quit"}',
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stderr if done.returncode else ""


# -- what a binary knows --------------------------------------------------------------------------


class Known:
    """The words of one binary, from its own introspection."""

    def __init__(self, qemu: Installed) -> None:
        done = subprocess.run(
            [qemu.binary, "-help"], capture_output=True, text=True, timeout=60, check=True
        )
        self.options = set(re.findall(r"^--?([\w-]+)", done.stdout, re.MULTILINE))
        self.help = done.stdout
        with start(qemu) as qmp:
            self.schema = {e["name"]: e for e in qmp.execute("query-qmp-schema")}
            user = qmp.execute("qom-list-types", implements="user-creatable", abstract=False)
            self.types = {entry["name"] for entry in user}
            self.machines = {m["name"] for m in qmp.execute("query-machines")}
            self.parameters = set(qmp.execute("query-migrate-parameters"))
            listed = qmp.execute("query-migrate-capabilities")
            self.capabilities = {entry["capability"] for entry in listed}
            self.migration = self._properties(qmp, "device-list-properties", "migration")
            self.properties = {
                name: self._properties(qmp, "qom-list-properties", name)
                for name in sorted(self._asked() & (self.types | self._classes(qmp)))
            }
            self.devices = {
                name: self._properties(qmp, "device-list-properties", name)
                for name in sorted({k[1] for k in data().linux})
            }

    @staticmethod
    def _properties(qmp: RawQMP, command: str, name: str) -> set[str]:
        return {p["name"] for p in qmp.execute(command, typename=name)}

    @staticmethod
    def _asked() -> set[str]:
        """The QOM types of the data, never those whose listing ends QEMU."""
        asked = {k[1] for k in (*data().qemu, *data().additions, *data().removals)}
        asked |= {"tcg-accel", "kvm-accel", "chardev-qemu-vdagent"}
        return asked - {"x-remote-object", "colo-compare", "filter-dump"}

    @staticmethod
    def _classes(qmp: RawQMP) -> set[str]:
        return {entry["name"] for entry in qmp.execute("qom-list-types", abstract=False)}

    def members(self, name: str) -> dict[str, str]:
        return {m["name"]: m["type"] for m in self.schema[name].get("members", ())}

    def kinds(self, family: str) -> dict[str, set[str]]:
        """Kind → the words of a union of the schema; those of every kind under `*`."""
        if family == "chardev":
            root = self.members(self.schema["chardev-add"]["arg-type"])["backend"]
        else:
            commands = {"netdev": "netdev_add", "blockdev": "blockdev-add"}
            command = {**commands, "export": "block-export-add"}[family]
            root = self.schema[command]["arg-type"]
        found = {"*": set(self.members(root))}
        for variant in self.schema[root]["variants"]:
            words = self.members(variant["type"])
            found[variant["case"]] = set(self.members(words["data"]) if "data" in words else words)
        return found

    def has(self, family: str, type_: str, word: str) -> bool | None:
        """Whether the binary knows a word; None when it does not say.

        Members of members (`server.mptcp`) and single values (`mode=cpr-exec`) are not looked up
        here: test_drift.py compares them, release by release.
        """
        if family not in ("command-line", "machine") and ("." in word or "=" in word):
            return None
        if family in ("qmp-command", "qmp-event"):
            root = self.schema.get(type_)
            return root is not None and (word == "*" or word in self.members(root["arg-type"]))
        if family == "accel" and word == "*":
            return None
        if family == "object":
            if word == "*":
                return type_ in self.types
            return word in self.properties.get(type_, ())
        if family == "accel":
            return word in self.properties.get(f"{type_}-accel", ())
        if family == "device":
            return word in self.devices[type_]
        if family == "machine":
            return type_ in self.machines
        if family == "migration-property":
            return word in self.migration
        if family == "migration-parameter":
            # Some are only shown once they are set: the schema knows them all.
            shown = self.members(self.schema["migrate-set-parameters"]["arg-type"])
            return word in shown
        if family == "migration-capability":
            return word in self.capabilities
        if family == "command-line":
            if word == "*":
                return type_ in self.options
            text = self.help.partition(f"\n-{type_} ")[2].partition("\n-")[0]
            return re.search(rf"\b{word}\b", text) is not None
        if (family, type_, word) == ("chardev", "qemu-vdagent", "x-migration-blocked"):
            return word in self.properties.get("chardev-qemu-vdagent", ())
        if family == "audiodev":
            return None
        kinds = self.kinds(family)
        if word == "*":
            return type_ in kinds
        if type_ == "*":
            return word in kinds.pop("*") or all(word in words for words in kinds.values())
        return word in kinds.get(type_, ()) or word in kinds["*"]


@cache
def known(release: str) -> Known:
    return Known(installed(release))


def test_every_word_that_a_row_writes_is_known_in_its_range(qemu: Installed) -> None:
    words, version = known(qemu.release), version_of(qemu)
    wrong = []
    for key, chain in {**data().qemu, **data().linux}.items():
        ranges = [row.knows for row in chain if str(row.knows) != "every release"]
        expected = ranges[-1].contains(version) if ranges else True
        if words.has(*key) is not expected:
            wrong.append((key, f"the data says {expected}"))
    assert not wrong


def test_every_word_appears_in_the_release_that_the_data_says(qemu: Installed) -> None:
    words, version = known(qemu.release), version_of(qemu)
    wrong = []
    for key, release in data().additions.items():
        removal = data().removals.get(key)
        gone = removal is not None and removal.until.series < version.series
        expected = release.series <= version.series and not gone
        found = words.has(*key)
        if found is None or found is expected or (expected and key in BUILT_WITHOUT):
            continue
        wrong.append((key, f"the data says since {release}"))
    assert not wrong


def test_every_removed_word_is_gone_and_was_there(qemu: Installed) -> None:
    words, version = known(qemu.release), version_of(qemu)
    wrong = []
    for key, removal in data().removals.items():
        family, type_, word = key
        if word in ("opened", "loaded") or type_ == "authz-list-file":
            continue  # listed for some releases more, but `not writable`
        rename = data().old_words.get((family, "run-with", type_))
        young = rename is not None and rename.old_from is not None
        if young and version.series < rename.old_from.series:
            continue
        since = data().additions.get(key)
        if since is not None and version.series < since.series:
            continue
        found = words.has(*key)
        expected = version.series <= removal.until.series
        if found is not None and found is not expected and not (expected and key in NEVER_LISTED):
            wrong.append((key, f"the data says until {removal.until}"))
    assert not wrong


#: Removed words that a release had without listing them where this test looks.
NEVER_LISTED = {
    ("command-line", "vnc", "acl"),  # not in the help text
    ("command-line", "old-param", "*"),  # of Arm's binary only
    ("command-line", "enable-fips", "*"),
    ("command-line", "show-cursor", "*"),
    ("chardev", "tty", "*"),  # an alias, not a branch of the schema
    ("chardev", "parport", "*"),
}


@pytest.mark.parametrize("key", sorted(k for k in data().renames if k[0] in ("chardev", "netdev")))
def test_renamed_words_change_hands(qemu: Installed, key: tuple[str, str, str]) -> None:
    words, version, rename = known(qemu.release), version_of(qemu), data().renames[key]
    assert rename.old_until is not None
    has_new = version.series >= rename.from_.series
    has_old = version.series <= rename.old_until.series and (
        rename.old_from is None or version.series >= rename.old_from.series
    )
    assert words.has(*key) is has_new
    assert words.has(key[0], key[1], rename.old) is has_old


def test_reconnect_is_translated_to_what_the_binary_takes(qemu: Installed, tmp_path) -> None:
    path = str(tmp_path / "socket")
    words = ["socket", "id=c", f"path={path}", "reconnect-ms=2000"]
    rename = data().renames["chardev", "socket", "reconnect-ms"]
    if version_of(qemu).series < rename.from_.series:
        words[-1] = f"{rename.old}={rename.old_value('2000')}"
    assert refused(qemu, "-chardev", ",".join(words)) == ""


# -- defaults -------------------------------------------------------------------------------------

#: What an object of a type needs besides what is pinned.
NEEDS = {
    "memory-backend-ram": "size=2M",
    "memory-backend-memfd": "size=2M",
    "memory-backend-shm": "size=2M",
    "memory-backend-file": "size=2M,mem-path={folder}/ram",
    "sev-guest": "cbitpos=47,reduced-phys-bits=1",
    "sev-snp-guest": "cbitpos=47,reduced-phys-bits=1",
}
CHARDEVS = {"vc": "", "qemu-vdagent": ""}
SMP = 2


class Started:
    """A QEMU with one object or chardev of every type of the data, some with values written."""

    def __init__(self, qemu: Installed, folder: str, pins: dict[tuple[str, str, str], Pin]) -> None:
        self.version = version_of(qemu)
        self.written: dict[tuple[str, str, str], str] = {}
        for key, pin in pins.items():
            spelled = spell(pin, self.version, SMP)
            if isinstance(spelled, Written):
                self.written[key] = spelled.value
        words: list[str] = ["-smp", str(SMP), "-vga", "none"]
        self.ids = {}
        for family, option, kinds in (
            ("object", "-object", {k[1] for k in data().qemu if k[0] == "object"}),
            ("chardev", "-chardev", set(CHARDEVS)),
        ):
            for number, kind in enumerate(sorted(kinds)):
                if not known(qemu.release).has(family, kind, "*"):
                    continue
                self.ids[family, kind] = f"{family[0]}{number}"
                entry = [kind, f"id={family[0]}{number}", NEEDS.get(kind, "").format(folder=folder)]
                entry += [f"{k[2]}={v}" for k, v in self.written.items() if k[:2] == (family, kind)]
                words += [option, ",".join(filter(None, entry))]
        for key, value in self.written.items():
            if key[0] == "migration-property":
                words += ["-global", f"migration.{key[2]}={value}"]
        # The newest machine type of a release has no compat properties.
        self.qmp = start(qemu, *words, machine="q35")
        for key, value in self.written.items():
            if key[0] == "migration-parameter":
                self.qmp.execute("migrate-set-parameters", **{key[2]: value})

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *_: object) -> None:
        self.qmp.close()

    def read(self, key: tuple[str, str, str]) -> str | None:
        """The value that QEMU has, as keyval text; None where nothing shows it."""
        family, type_, word = key
        observer = observer_for(data(), family, type_, word, self.version)
        if observer.read == "qom":
            if (family, type_) not in self.ids:
                return None
            folder = {"object": "/objects", "chardev": "/chardevs"}[family]
            path = f"{folder}/{self.ids[family, type_]}"
            answer = self.qmp.ask("qom-get", {"path": path, "property": word})
            if "not found" in answer.get("error", {}).get("desc", ""):
                return None
            return text_of(answer["return"])
        if observer.read == "query-migrate-parameters":
            found = self.qmp.execute("query-migrate-parameters").get(word)
            return None if found is None else text_of(found)
        if observer.read in ("hmp-migrate", "hmp-migrate-all"):
            line = "info migrate" + (" -a" if observer.read == "hmp-migrate-all" else "")
            lines = (one.strip().partition(": ") for one in self.qmp.hmp(line).splitlines())
            return {name: value for name, _, value in lines}.get(word)
        return None


def text_of(value: Any) -> str:
    return (
        {True: "on", False: "off"}.get(value, str(value)) if isinstance(value, bool) else str(value)
    )


def test_a_platform_of_its_own_release_pins_what_the_binary_does_anyway(
    qemu: Installed, tmp_path
) -> None:
    pins = resolve(data(), find_platform(data(), f"qemu-{qemu.release}"))
    with Started(qemu, str(tmp_path), {}) as started:
        seen = {key: started.read(key) for key in pins}
    differs, compared = [], 0
    for key, pin in pins.items():
        if seen[key] is not None:
            compared += 1
            wanted = spell(pin, started.version, SMP)
            value = wanted.value if isinstance(wanted, Written) else pin.value
            if seen[key] != value:
                differs.append((key, value, seen[key]))
    assert not differs
    assert compared >= 16


@pytest.mark.parametrize("platform", ["debian-11", "debian-12", "debian-13", "qemu-11.1"])
def test_what_a_platform_writes_is_what_every_binary_then_has(
    qemu: Installed, platform: str, tmp_path
) -> None:
    found = find_platform(data(), platform)
    pins = {
        key: pin
        for key, pin in resolve(data(), found).items()
        if not isinstance(spell(pin, version_of(qemu), SMP), Omitted)
    }
    with Started(qemu, str(tmp_path), pins) as started:
        differs = [
            (key, value, seen)
            for key, value in started.written.items()
            if (seen := started.read(key)) not in (None, value)
        ]
        read = [key for key in started.written if started.read(key) is not None]
    assert not differs
    assert len(read) >= 16


def test_a_changed_default_is_seen_on_the_releases_on_both_sides(tmp_path) -> None:
    """Each change of a value that QMP shows: `was` on a binary before it, `now` on one after."""
    seen: dict[str, dict[tuple[str, str, str], str | None]] = {}
    for release in RELEASES:
        with Started(installed(release), str(tmp_path), {}) as started:
            seen[release] = {key: started.read(key) for key in data().qemu}
    checked = set()
    for key, chain in data().qemu.items():
        for row in chain:
            for release, values in seen.items():
                assert row.release is not None
                before = parse_version(release).series < row.release.series
                wanted = row.was if before else row.now
                if values[key] is None or wanted is None or _superseded(chain, row, release):
                    continue
                assert values[key] == wanted.replace("${smp}", str(SMP)), (key, release)
                checked.add((key, row.release.text, before))
    for key, release in (
        (("object", "iothread", "poll-shrink"), "11.1"),
        (("object", "iothread", "poll-grow"), "11.1"),
        (("object", "memory-backend-ram", "prealloc-threads"), "7.1"),
    ):
        assert {(key, release, True), (key, release, False)} <= checked


def _superseded(chain: tuple[Any, ...], row: Any, release: str) -> bool:
    """Whether another change of the chain lies between a row and a binary."""
    series = parse_version(release).series
    return any(
        row.release.series < other.release.series <= series
        or series < other.release.series < row.release.series
        for other in chain
        if other is not row
    )


def test_11_1_takes_no_zero_for_the_old_way_of_shrinking() -> None:
    qemu = installed("11.1")
    largest = str(2**63 - 1)
    for written, stored in (("0", "2"), ("1", "1"), (largest, largest)):
        with start(qemu, "-object", f"iothread,id=io,poll-shrink={written}") as qmp:
            seen = qmp.execute("qom-get", path="/objects/io", property="poll-shrink")
            assert str(seen) == stored
    assert "int64" in refused(qemu, "-object", f"iothread,id=io,poll-shrink={2**63}")


#: A boot sector that reads a sector forty times, waits some milliseconds, and begins again:
#: xor ax,ax; mov ds,ax; mov es,ax; again: mov bp,40; burst: mov ax,0x201; mov cx,2; mov dx,0x80;
#: mov bx,0x7e00; int 0x13; dec bp; jnz burst; mov ecx,6000000; delay: dec ecx; jnz delay;
#: jmp again
BURSTS = bytes.fromhex(
    "31c08ed88ec0bd2800b80102b90200ba8000bb007ecd134d75ef66b9808d5b00664975fcebe0"
)


def polling(release: str, shrink: str, folder: str, polls: int) -> list[tuple[str, int, int]]:
    """(grow or shrink, old, new) of an iothread's polling time under bursts of reads."""
    disk = os.path.join(folder, "disk")
    with open(disk, "wb") as file:
        file.write(BURSTS.ljust(510, b"\0") + b"\x55\xaa" + bytes(1 << 20))
    words = [
        *("-nodefaults", "-display", "none", "-machine", "q35", "-accel", "tcg", "-m", "64"),
        *("-object", f"iothread,id=io,poll-max-ns=1000000,poll-shrink={shrink}"),
        *("-blockdev", f"file,node-name=disk,filename={disk}"),
        *("-device", "virtio-blk-pci,drive=disk,iothread=io,num-queues=1"),
        *("-trace", "poll_shrink", "-trace", "poll_grow", "-trace", "run_poll_handlers_begin"),
    ]
    found: list[tuple[str, int, int]] = []
    process = subprocess.Popen([installed(release).binary, *words], stderr=subprocess.PIPE)
    try:
        assert process.stderr is not None
        for line in process.stderr:
            polls -= b"run_poll_handlers_begin" in line
            change = re.search(rb"poll_(grow|shrink) .* old (\d+) new (\d+)", line)
            if change is not None:
                found.append((change[1].decode(), int(change[2]), int(change[3])))
            if not polls:
                break
    finally:
        process.kill()
        process.communicate()
    return found


@pytest.mark.slow
def test_no_divisor_of_11_1_resets_the_polling_time_as_0_did(tmp_path) -> None:
    """Why poll-shrink=0 `cannot` be had on 11.1: its values only ever divide, or do nothing."""
    old = polling("10.0", "0", str(tmp_path), 150)
    assert {new for kind, before, new in old if kind == "shrink"} == {0}
    assert any(before > 0 for kind, before, _ in old if kind == "shrink")
    taken_as_2 = polling("11.1", "0", str(tmp_path), 60)
    shrunk = [(before, new) for kind, before, new in taken_as_2 if kind == "shrink"]
    assert shrunk
    assert all(new in (before, before // 2) for before, new in shrunk)
    huge = polling("11.1", str(2**63 - 1), str(tmp_path), 60)
    assert [kind for kind, before, new in huge if kind == "grow"]
    assert not [change for change in huge if change[2] < change[1]], "it never shrinks at all"


def test_a_tap_has_its_header_unless_told_otherwise(qemu: Installed) -> None:
    needs_tap()
    name = f"qlt{os.getpid() % 100000}"
    tap = f"tap,id=n,ifname={name},script=no,downscript=no"
    observer = observer_for(data(), "netdev", "tap", "vnet_hdr", version_of(qemu))
    for words, has in (("", True), (",vnet_hdr=on,vhost=off", True), (",vnet_hdr=off", False)):
        path = f"/sys/class/net/{name}/tun_flags"
        with start(qemu, "-netdev", tap + words), open(path, encoding="ascii") as file:
            assert bool(int(file.read(), 0) & observer.bit) is has


# -- forms ----------------------------------------------------------------------------------------

JSON_FORMS = {
    "object": {"qom-type": "iothread", "id": "io"},
    "device": {"driver": "virtio-rng-pci", "id": "rng"},
    "netdev": {"type": "user", "id": "net"},
    "blockdev": {"driver": "null-co", "node-name": "node", "size": 1048576},
    "audiodev": {"driver": "none", "id": "audio"},
    "compat": {"deprecated-input": "accept"},
    "incoming": {
        "channel-type": "main",
        "addr": {"transport": "socket", "type": "unix", "path": "/nonexistent/never-made"},
    },
}


@pytest.mark.parametrize("option", sorted(JSON_FORMS))
def test_an_option_takes_json_in_the_releases_that_the_data_says(
    qemu: Installed, option: str
) -> None:
    said = refused(qemu, f"-{option}", json.dumps(JSON_FORMS[option]))
    version = version_of(qemu)
    if not takes_json(data(), option, version):
        assert said, f"{option} took JSON"
    elif option == "incoming":
        # Understood as a channel: it is the folder of the socket that is missing.
        assert "Failed to bind socket" in said
    else:
        assert said == ""


def test_options_exist_in_the_releases_that_the_data_says(qemu: Installed) -> None:
    options = known(qemu.release).options
    for option in data().syntax:
        assert (option in options) is has_option(data(), option, version_of(qemu)), option


# -- hazards --------------------------------------------------------------------------------------


def lives_on(qmp: RawQMP, command: str, arguments: dict[str, Any]) -> bool:
    """Whether QEMU answers, lives, and still has its file descriptor 0."""
    try:
        qmp.ask(command, arguments)
        qmp.execute("query-status")
    except (AssertionError, OSError):
        return False
    return os.path.lexists(f"/proc/{qmp.process.pid}/fd/0")


#: What the schema asks for before an object is made.
COMPLETE: dict[str, dict[str, Any]] = {
    "colo-compare": {"primary_in": "a", "secondary_in": "b", "outdev": "c", "iothread": "d"},
    "x-remote-object": {"fd": "none", "devid": "none"},
    "acpi-generic-initiator": {"pci-dev": "none", "node": 0},
}


@pytest.mark.parametrize("number", range(len(data().hazards)))
def test_a_hazard_ends_the_releases_that_the_data_says_and_no_other(
    qemu: Installed, number: int
) -> None:
    hazard = data().hazards[number]
    arguments: dict[str, Any] = dict(hazard.arguments)
    words: tuple[str, ...] = ()
    machine = "none"
    if hazard.command == "x-query-virtio-status":
        machine, words = "q35", ("-device", "virtio-rng-pci,id=rng")
        arguments = {"path": "/machine/peripheral/rng/virtio-backend"}
    if hazard.command == "object-add":
        arguments |= {"id": "hazard", **COMPLETE[arguments["qom-type"]]}
    with start(qemu, *words, machine=machine) as qmp:
        lives = lives_on(qmp, hazard.command, arguments)
    assert lives is not hazard.knows.contains(version_of(qemu)), (hazard, lives)


def test_platforms_are_values_not_objects_of_a_binary() -> None:
    """The same platform gives the same pins, whatever binary is looked at in between."""
    platform = find_platform(data(), "debian-12")
    assert isinstance(platform, Platform)
    before = resolve(data(), platform)
    for release in RELEASES:
        known(release)
    assert resolve(data(), platform) == before
