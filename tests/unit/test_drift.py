"""Recorded releases compared: every change is covered or waived, and the rules that decide it."""

from __future__ import annotations

import json
import os
from functools import cache
from itertools import pairwise

import pytest

from launcher.drift import (
    Change,
    Head,
    Surveyed,
    compare,
    drift_json,
    matrix,
    read_record,
    read_waivers,
)
from launcher.drift.compare import same_value
from launcher.drift.cover import Covering
from launcher.drift.shapes import Shapes
from launcher.drift.text import drift_text
from launcher.drift.waivers import plain
from launcher.errors import InputErrors
from launcher.files import parse_yaml
from launcher.platforms import parse_version
from launcher.platforms.steps import following
from launcher.qapi import Schema
from launcher.record import replace
from launcher.report import table
from launcher.survey.layout import layout, record_name
from launcher.survey.shelf import folder, load_record, load_waivers, recorded
from tests.support.records import RELEASES, catalogue, record_of

pytestmark = pytest.mark.hermetic

PAIRS = list(pairwise(RELEASES))
MACHINES = {"pc-q35-5.2", "pc-i440fx-5.2", "microvm", "pc-q35-7.2", "pc-q35-10.0"}
WAIVERS = load_waivers()


def tried() -> list[tuple[str, str, str, str]]:
    """(tool, machine, old, new) of everything that is recorded."""
    found = []
    for old, new in PAIRS:
        both = {*record_of(f"qemu-{old}")["machines"]} & {*record_of(f"qemu-{new}")["machines"]}
        found += [("qemu", machine, old, new) for machine in ("", *sorted(both))]
        found.append(("qsd", "", old, new))
    return found


@cache
def surveyed(name: str, machine: str = "") -> Surveyed:
    return read_record(record_of(name), name, machine)


@cache
def compared(tool: str, machine: str, old: str, new: str) -> dict:
    sides = (surveyed(f"{tool}-{release}", machine) for release in (old, new))
    return drift_json(compare(*sides), catalogue(), WAIVERS)


# -- the recorded releases ------------------------------------------------------------------------


def test_all_machine_types_that_releases_share_are_recorded() -> None:
    assert {machine for _, machine, _, _ in tried()} - {""} == MACHINES
    assert {name.partition("-")[0] for name in recorded()} == {"qemu", "qsd"}
    assert [name for name in recorded() if name.startswith("qemu-")] == [
        f"qemu-{release}" for release in RELEASES
    ]


@pytest.mark.parametrize("name", sorted(recorded()))
def test_a_record_is_laid_out_as_it_would_be_written(name: str) -> None:
    path = recorded()[name]
    with open(path, encoding="utf-8") as file:
        text = file.read()
    found = load_record(path)
    assert layout(found) == text
    assert record_name(found) == name
    assert os.path.dirname(path) == folder()


@pytest.mark.parametrize(("tool", "machine", "old", "new"), tried())
def test_nothing_between_neighbouring_releases_is_uncovered(tool, machine, old, new) -> None:
    found = compared(tool, machine, old, new)
    left = [change for change in found["changes"] if change["cover"] == "uncovered"]
    assert left == []
    counts = found["counts"]
    assert counts["uncovered"] == 0
    changed = counts["changed"] + counts["appeared"] + counts["gone"]
    assert changed == len(found["changes"]) == counts["covered"] + counts["waived"]


def test_every_waiver_fits_something() -> None:
    used = {
        change["by"]["line"]
        for key in tried()
        for change in compared(*key)["changes"]
        if change["cover"] == "waived"
    }
    assert [waiver.place.line for waiver in WAIVERS if waiver.place.line not in used] == []


def test_no_value_of_a_family_that_platforms_pin_is_waived_without_being_named() -> None:
    """A waiver for changed values names the property; a pattern for all would hide the next one."""
    pinned = {"object", "chardev", "netdev", "blockdev", "audiodev", "migration-property"}
    pinned |= {"migration-parameter", "migration-capability"}
    for waiver in WAIVERS:
        values = {"*", "value", "default"} & {*waiver.facet}
        if values and "changed" in waiver.change and {*waiver.family, "*"} & pinned:
            assert "*" not in waiver.property, waiver.because


def find(found: dict, *key: str) -> dict:
    family, type_, name, facet = key
    return next(
        c
        for c in found["changes"]
        if (c["family"], c["type"], c["property"], c["facet"]) == (family, type_, name, facet)
    )


def test_the_changed_defaults_that_were_measured_are_found_with_their_rows() -> None:
    found = compared("qemu", "", "10.0", "11.1")
    for name in ("poll-grow", "poll-shrink"):
        change = find(found, "object", "iothread", name, "value")
        assert (change["change"], change["old"], change["new"]) == ("changed", 0, 2)
        assert change["by"]["file"] == "qemu/11.1.yaml"
        assert change["by"]["kind"] == "row"
        assert change["by"]["line"] > 0
    machine = compared("qemu", "microvm", "5.2", "7.2")
    for kind in ("ram", "file", "memfd"):
        change = find(machine, "object", f"memory-backend-{kind}", "prealloc-threads", "value")
        assert (change["old"], change["new"], change["by"]["release"]) == (1, 2, "7.1")
    assert find(found, "chardev", "vc", "encoding", "word")["new"] == "utf8"
    assert find(found, "chardev", "socket", "reconnect", "word")["by"]["kind"] == "renamed"
    older = compared("qemu", "", "7.2", "10.0")
    appeared = find(older, "migration-parameter", "migration", "zero-page-detection", "word")
    assert (appeared["new"], appeared["by"]["now"]) == ("multifd", "multifd")
    assert find(older, "accel", "tcg", "one-insn-per-tb", "word")["by"]["kind"] == "renamed"
    daemon = compared("qsd", "", "10.0", "11.1")
    assert find(daemon, "object", "iothread", "poll-shrink", "value")["new"] == 2


def test_without_the_rows_a_change_is_uncovered() -> None:
    data = catalogue()
    rows = {key: chain for key, chain in data.qemu.items() if key[1] != "iothread"}
    sides = [surveyed(f"qemu-{release}") for release in ("10.0", "11.1")]
    found = drift_json(compare(*sides), replace(data, qemu=rows), WAIVERS)
    left = {(c["type"], c["property"]) for c in found["changes"] if c["cover"] == "uncovered"}
    assert left == {
        ("iothread", "poll-grow"),
        ("iothread", "poll-shrink"),
        ("iothread", "poll-weight"),
    }
    text = drift_text(found, table)
    assert "UNCOVERED" in text
    assert text.index("iothread.poll-grow") < text.index("\nchardev\n")
    assert "3 uncovered" in text.splitlines()[-1]


def test_a_release_compared_with_itself_has_no_drift() -> None:
    found = drift_json(
        compare(surveyed("qemu-10.0", "microvm"), surveyed("qemu-10.0", "microvm")),
        catalogue(),
        WAIVERS,
        "debian-12",
    )
    assert found["changes"] == []
    assert found["counts"]["same"] > 10_000
    text = drift_text(found, table)
    assert "machine type microvm" in text
    assert "both with what debian-12 pins" in text


def test_the_table_leaves_out_what_needs_nothing_unless_asked() -> None:
    found = compared("qemu", "", "10.0", "11.1")
    short, whole = drift_text(found, table), drift_text(found, table, every=True)
    assert "iothread.poll-shrink" in short
    assert "--all shows them" in short
    assert "--all" not in whole
    assert whole.count("\n") > len(found["changes"])
    assert "compat\n" not in short  # parts of machine types that went
    assert "not compared:" in short
    assert "not compared:" not in drift_text(compared("qsd", "", "10.0", "11.1"), table)


def test_the_matrix_holds_each_change_where_its_value_stands() -> None:
    sides = [surveyed(f"qemu-{release}") for release in RELEASES]
    found = matrix(sides, catalogue(), WAIVERS)
    assert [one["name"] for one in found["releases"]] == [f"qemu-{r}" for r in RELEASES]
    rows = {(r["family"], r["type"], r["property"], r["facet"]): r for r in found["rows"]}
    assert len(rows) == len(found["rows"])
    grow = rows["object", "iothread", "poll-grow", "value"]
    assert [cell["value"] for cell in grow["cells"]] == [0, 0, 0, 2]
    assert [step and step["change"] for step in grow["steps"]] == [None, None, "changed"]
    weight = rows["object", "iothread", "poll-weight", "value"]
    assert [cell["state"] for cell in weight["cells"]] == ["absent"] * 3 + ["here"]
    assert weight["steps"][2]["change"] == "appeared"
    assert rows["audiodev", "none", "*", "instance"]["cells"][0]["state"] == "unseen"
    for number, (old, new) in enumerate(PAIRS):
        counts = found["pairs"][number]["counts"]
        assert counts == compared("qemu", "", old, new)["counts"]
        steps = [row["steps"][number] for row in found["rows"] if row["steps"][number]]
        assert len(steps) == counts["covered"] + counts["waived"] + counts["uncovered"]
    json.dumps(found)


def test_an_accelerator_whose_properties_were_not_recorded_is_not_compared() -> None:
    record = record_of("qemu-11.1")
    found = read_record({**record, "qom-list-types": ["hvf-accel"]}, "mac")
    assert found.unseen["accel", "hvf"] == "its properties were not recorded"


def test_a_default_that_a_schema_states_is_a_facet() -> None:
    entities = [
        {
            "name": "0",
            "meta-type": "object",
            "members": [{"name": "a", "type": "int", "default": 3}],
        }
    ]
    assert Shapes(Schema(entities), {}).members("0") == {
        "a": {"word": True, "type": "int", "optional": True, "default": 3}
    }


# -- the rules ------------------------------------------------------------------------------------


def side(version: str, entries: dict, unseen: dict | None = None) -> Surveyed:
    head = Head(f"qemu-{version}", f"{version}.0", "", "qemu-system")
    return Surveyed(
        head, "", {key: {"word": True, **v} for key, v in entries.items()}, unseen or {}
    )


def changes(
    before: dict, after: dict, *, old: dict | None = None, new: dict | None = None
) -> list[Change]:
    """What `compare` finds; `old` and `new` are what the sides do not show."""
    return list(compare(side("7.2", before, old), side("10.0", after, new)).changes)


KEY = ("object", "iothread", "poll-grow")
TYPE = ("object", "iothread", "*")


def test_what_one_side_does_not_show_is_not_compared() -> None:
    assert changes({}, {KEY: {}}, old={("object", "*"): "why"}) == []
    assert changes({KEY: {}}, {}, new={("object", "iothread"): "why"}) == []
    # The type itself is known, although its properties are not.
    found = changes({TYPE: {}}, {}, new={("object", "iothread"): "why"})
    assert [change.change for change in found] == ["gone"]


def test_facets_that_only_one_source_has_are_no_changes() -> None:
    assert changes({KEY: {"type": "int"}}, {KEY: {"optional": True}}) == []
    # 5.2 has no schema for objects: nothing can be said of the values that it takes.
    assert changes({KEY: {}}, {KEY: {"optional": True, "takes a": True}}) == []
    found = changes({KEY: {"optional": True}}, {KEY: {"optional": True, "takes a": True}})
    assert [(c.facet, c.change) for c in found] == [("takes a", "appeared")]
    found = changes({KEY: {"feature deprecated": True}}, {KEY: {}})
    assert [(c.facet, c.change) for c in found] == [("feature deprecated", "gone")]


def test_a_value_is_compared_where_both_sides_could_make_an_instance() -> None:
    error = {"error": "no"}
    assert [
        (c.facet, c.change) for c in changes({TYPE: {}, KEY: {}}, {TYPE: {}, KEY: {"value": 1}})
    ] == [("value", "appeared")]
    found = changes({TYPE: {"instance": error}, KEY: {}}, {TYPE: {}, KEY: {"value": 1}})
    assert found == []
    found = changes({KEY: {"value": 1}}, {KEY: {"value": error}})
    assert [(c.change, c.old, c.new) for c in found] == [("changed", 1, error)]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (1, 1, True),
        (1, True, False),
        (0, False, False),
        ({"a": [1]}, {"a": [1]}, True),
        ({"a": [1]}, {"a": [True]}, False),
        ({"a": 1}, {"b": 1}, False),
        ([1], [1, 2], False),
        ("1", 1, False),
    ],
)
def test_values_are_the_same_when_their_json_is(one, other, same) -> None:
    assert same_value(one, other) is same


def covering(old: str, new: str, text: str = "waivers: []") -> Covering:
    waivers = read_waivers(parse_yaml(text, "w.yaml"))
    return Covering(catalogue(), waivers, compare(side(old, {}), side(new, {})))


def verdict(key: tuple[str, str, str], facet: str, change: str, *values, old="7.2", new="10.0"):
    before, after = (*values, None, None)[:2]
    return covering(old, new).cover(Change(*key, facet, change, before, after))


def test_a_row_covers_only_the_values_that_it_says() -> None:
    grow = ("object", "iothread", "poll-grow")
    of = {"old": "10.0", "new": "11.1"}
    assert verdict(grow, "value", "changed", 0, 2, **of).verdict == "covered"
    assert verdict(grow, "value", "changed", 0, 3, **of).verdict == "uncovered"
    assert verdict(grow, "value", "changed", 1, 2, **of).verdict == "uncovered"
    assert verdict(grow, "value", "changed", 0, 2).verdict == "uncovered"
    assert verdict(grow, "value", "gone", 0, **of).verdict == "uncovered"
    assert verdict(grow, "type", "changed", "int", "str", **of).verdict == "uncovered"
    prealloc = ("object", "memory-backend-ram", "prealloc-threads")
    for new, expected in ((2, "covered"), ("two", "uncovered")):
        found = verdict(prealloc, "value", "changed", 1, new, old="5.2", new="7.2")
        assert found.verdict == expected


def test_a_value_that_is_shown_first_is_covered_where_its_word_came() -> None:
    weight = ("object", "iothread", "poll-weight")
    of = {"old": "10.0", "new": "11.1"}
    assert verdict(weight, "value", "appeared", None, 3, **of).verdict == "covered"
    # Its row says nothing of what was before.
    assert verdict(weight, "value", "changed", 1, 3, **of).verdict == "uncovered"


def test_a_word_is_covered_in_the_releases_in_which_it_came_or_went() -> None:
    header = ("blockdev", "luks", "header")
    assert verdict(header, "word", "appeared").verdict == "covered"
    assert verdict(header, "word", "appeared", old="9.0", new="9.1").verdict == "uncovered"
    assert verdict(header, "word", "gone").verdict == "uncovered"
    inner = ("blockdev", "luks", "header.driver")
    assert verdict(inner, "word", "appeared").verdict == "covered"
    loaded = ("object", "secret", "loaded")
    assert verdict(loaded, "word", "gone").by.file == "qemu/7.1.yaml"
    assert verdict(loaded, "word", "gone", old="6.2", new="7.0").verdict == "uncovered"


def test_a_renamed_word_is_covered_on_its_way_in_and_out() -> None:
    old, new = ("chardev", "socket", "reconnect"), ("chardev", "socket", "reconnect-ms")
    assert verdict(new, "word", "appeared").by.kind == "renamed"
    assert verdict(old, "word", "gone", old="10.0", new="11.1").by.kind == "renamed"
    stream = ("netdev", "stream", "reconnect")
    assert verdict(stream, "word", "appeared").by.was == "reconnect"
    option = ("command-line", "chardev", "reconnect")
    assert verdict(option, "word", "gone", old="10.0", new="11.1").by.kind == "renamed"
    option = ("command-line", "singlestep", "*")
    assert verdict(option, "word", "gone").by.now == "one-insn-per-tb"
    option = ("command-line", "no-such-option", "*")
    assert verdict(option, "word", "gone").verdict == "uncovered"


def test_one_value_of_an_enumeration_may_have_its_own_row() -> None:
    mode = ("migration-parameter", "migration", "mode")
    of = {"old": "10.0", "new": "11.1"}
    assert verdict(mode, "takes cpr-exec", "appeared", **of).by.release == "10.2"
    assert verdict(mode, "takes something", "appeared", **of).verdict == "uncovered"


def test_the_migration_object_has_parameters_and_capabilities_once_more() -> None:
    compress = ("migration-property", "migration", "x-compress")
    assert verdict(compress, "word", "gone").by.kind == "removed"
    level = ("migration-property", "migration", "zero-page-detection")
    assert verdict(level, "default", "changed", "legacy", "multifd").verdict == "covered"


def test_compat_properties_are_covered_by_the_rows_of_what_they_set() -> None:
    machine = "pc-q35-7.2"
    of = {"old": "10.0", "new": "11.1"}
    of_9 = verdict(("compat", machine, "migration.zero-page-detection"), "word", "appeared")
    assert of_9.by.release == "9.0"
    for name in ("chardev-vc.encoding", "migration.switchover-ack-legacy"):
        found = verdict(("compat", machine, name), "word", "appeared", None, "x", **of)
        assert found.verdict == "covered", name
    found = verdict(("compat", machine, "sev-guest.legacy-vm-type"), "word", "appeared", **of)
    assert found.verdict == "uncovered"
    gone = ("compat", "pc-q35-4.0", "migration.send-switchover-start")
    assert verdict(gone, "word", "gone", "off", **of).by.kind == "removed"


def test_a_type_that_ended_one_release_is_covered_by_its_hazard() -> None:
    colo = ("object", "colo-compare", "*")
    of = {"old": "10.0", "new": "11.1"}
    assert verdict(colo, "instance", "changed", {"error": "a"}, "made", **of).by.kind == "hazard"
    assert verdict(colo, "instance", "changed", {"error": "a"}, "made").verdict == "uncovered"
    listed = ("object", "authz-list-file", "*")
    found = verdict(listed, "instance", "changed", "made", {"error": "a"}, old="5.2", new="7.2")
    assert found.by.kind == "removed"


def test_a_family_without_data_is_uncovered_unless_waived() -> None:
    key = ("qom", "/machine", "x")
    assert verdict(key, "value", "changed", 1, 2).verdict == "uncovered"
    text = 'waivers: [{family: qom, property: "*", old: "1", because: why}]'
    cover = covering("7.2", "10.0", text).cover(Change(*key, "value", "changed", 1, 2))
    assert (cover.verdict, cover.by.why, cover.by.file) == ("waived", "why", "w.yaml")
    cover = covering("7.2", "10.0", text).cover(Change(*key, "value", "changed", 3, 2))
    assert cover.verdict == "uncovered"


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("family: object", True),
        ("family: chardev | object", True),
        ("family: chardev", False),
        ("family: obj*", True),
        ("family: '*'\ntype: io*ad", True),
        ("family: '*'\ntype: io*ad*x", False),
        ("family: '*'\ntype: i*t*r*d", True),
        ("family: '*'\ntype: i*x*d", False),
        ("family: '*'\ntype: iothread*iothread", False),
        ("family: '*'\ntype: x*", False),
        ("family: '*'\nproperty: poll-grow[0]", False),
        ("family: '*'\nfacet: word", False),
        ("family: '*'\nchange: gone | appeared", False),
        ("family: '*'\nfrom: '10.0'", True),
        ("family: '*'\nfrom: '10.1'", False),
        ("family: '*'\nuntil: '7.2'", True),
        ("family: '*'\nuntil: '7.1'", False),
        ("family: '*'\nold: 'on'", True),
        ("family: '*'\nnew: 'on'", False),
        ("family: '*'\nnew: ''", True),
    ],
)
def test_a_waiver_fits_by_its_patterns(text: str, fits: bool) -> None:
    body = "".join(f"    {line}\n" for line in text.splitlines())
    (waiver,) = read_waivers(parse_yaml(f"waivers:\n  - because: why\n{body}", "w.yaml"))
    change = Change(*KEY, "value", "changed", True, None)
    assert waiver.matches(change, parse_version("7.2"), parse_version("10.0")) is fits


def test_mistakes_of_waivers_are_told_together() -> None:
    text = "waivers: [{family: a, because: b, change: moved, from: x}, 3, {wrong: 1}]"
    with pytest.raises(InputErrors) as caught:
        read_waivers(parse_yaml(text, "w.yaml"))
    assert len(caught.value.mistakes) == 6


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "on"),
        (False, "off"),
        (None, ""),
        (3, "3"),
        ({"error": "no"}, "error: no"),
        ([], "[]"),
    ],
)
def test_values_are_written_as_the_command_line_has_them(value, text) -> None:
    assert plain(value) == text


def test_the_release_after_the_last_of_a_year_is_the_first_of_the_next() -> None:
    assert [following(parse_version(v)) for v in ("7.1", "7.2", "10.0")] == ["7.2", "8.0", "10.1"]
