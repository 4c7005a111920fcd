"""Verdicts, and reports in every form."""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

import pytest

from launcher.errors import Place
from launcher.files import parse_yaml
from launcher.plan import Omission, Origin, Value
from launcher.platforms import Observer
from launcher.platforms.versions import ALWAYS
from launcher.record import replace
from launcher.report import (
    Observation,
    argv_text,
    as_text,
    find_complaints,
    judge,
    plan_json,
    plan_text,
    report_json,
    report_text,
    same,
    table,
    wrong_text,
)
from launcher.report.markup import junit_properties, report_html, report_junit
from launcher.report.text import quote, shorten
from tests.support.records import plan_of, profile_from

pytestmark = pytest.mark.hermetic

QOM = Observer(ALWAYS, "qom")
BLIND = Observer(ALWAYS, None, unobservable="there is no command")


def value(name: str, written: object, observer: Observer = QOM, **more) -> Value:
    origin = Origin("profile", "", Place("f.yaml", 3, 1))
    fields = {"family": "object", "type": "iothread", "id": "io0", "note": "", **more}
    return Value(
        property=name,
        value=more.pop("value", written),
        origin=origin,
        observer=observer,
        written=written,
        spelled=name,
        **{k: v for k, v in fields.items() if k != "value"},
    )


@pytest.fixture(scope="module")
def plan():
    text = "name: web\nplatform: native\nmachine: microvm\naccel: tcg\n"
    return plan_of(profile_from(parse_yaml(text, "f.yaml")), "10.0")


def judged(plan, one: Value, seen: Observation | None):
    observations = {} if seen is None else {(one.family, one.id, one.property): seen}
    return judge(replace(plan, values=(one,)), observations).judged[0]


@pytest.mark.parametrize(
    ("written", "observed", "verdict"),
    [
        (5, 5, "match"),
        (5, "5", "match"),
        (16, "0x10", "match"),
        (5, 6, "mismatch"),
        (True, "on", "match"),
        ("on", True, "match"),
        (False, "true", "mismatch"),
        ("ram", "/objects/ram", "match"),
        ("ram", "/objects/ram2", "mismatch"),
        ("a", "", "mismatch"),
        ("", None, "match"),
        ([1, 2], [1, 2], "match"),
        ([1, 2], [1], "mismatch"),
        ([1], 1, "mismatch"),
        ({"a": 1}, {"a": 1, "b": 2}, "match"),
        ({"a": 1}, {"b": 1}, "mismatch"),
        ("1" * 30, "1" * 29, "mismatch"),
    ],
)
def test_same_value_or_not(plan, written, observed, verdict):
    found = judged(plan, value("p", written), Observation("read", observed))
    assert (found.verdict, found.observed) == (verdict, observed)
    assert same(written, observed) is (verdict == "match")


def test_the_four_verdicts(plan):
    one = value("p", 1)
    assert judged(plan, one, Observation("read", 1)).verdict == "match"
    assert judged(plan, one, Observation("read", 2)).verdict == "mismatch"
    absent = judged(plan, one, Observation("absent"))
    assert (absent.verdict, absent.reason) == ("absent", "QEMU has no such value")
    assert judged(plan, one, Observation("absent", reason="gone")).reason == "gone"
    unread = judged(plan, one, Observation("unreadable", reason="refused"))
    assert (unread.verdict, unread.reason) == ("unobservable", "refused")
    blind = judged(plan, value("p", 1, BLIND), Observation("read", 1))
    assert (blind.verdict, blind.reason) == ("unobservable", "there is no command")


def test_what_was_not_read_is_never_a_match(plan):
    found = judged(plan, value("p", 1), None)
    assert (found.verdict, found.reason) == ("unobservable", "qom was not asked")


def test_a_value_that_qemu_keeps_as_another(plan):
    observer = Observer(ALWAYS, "qom", reads_as=(("auto", "off"),))
    one = value("rom", "auto", observer)
    assert judged(plan, one, Observation("read", False)).verdict == "match"
    wrong = judged(plan, one, Observation("read", "auto"))
    assert (wrong.verdict, wrong.reason) == ("mismatch", "QEMU keeps it as off")


@pytest.mark.parametrize(
    ("planned", "observed", "verdict"),
    [
        ("06.1", 0x31, "match"),
        ("5", 40, "match"),
        ("5", 5, "mismatch"),
        ("nowhere", 40, "mismatch"),
        ("1.x", 8, "mismatch"),
    ],
)
def test_a_pci_address_is_slot_and_function(plan, planned, observed, verdict):
    one = value("addr", planned, family="device", type="nvme", id="d0")
    assert judged(plan, one, Observation("read", observed)).verdict == verdict


def test_a_report_is_wrong_when_anything_is(plan):
    good, bad, gone = value("a", 1), value("b", 1), value("c", 1)
    seen = {
        ("object", "io0", "a"): Observation("read", 1),
        ("object", "io0", "b"): Observation("read", 2),
        ("object", "io0", "c"): Observation("absent"),
    }
    assert judge(replace(plan, values=(good,)), seen).verdict == "match"
    report = judge(replace(plan, values=(good, bad, gone)), seen)
    assert report.verdict == "mismatch"
    assert report.counts == {"match": 1, "mismatch": 1, "absent": 1, "unobservable": 0}
    assert [j.value.property for j in report.wrong] == ["b", "c"]


def test_a_complaint_is_a_mismatch(plan):
    lines = ["warning: fine", "global migration.x has invalid class name"]
    report = judge(replace(plan, values=()), {}, lines)
    assert report.complaints == (lines[1],) == find_complaints(lines)
    assert report.verdict == "mismatch"


@pytest.fixture
def report(plan):
    values = (
        value("a", 1),
        value("b", 'x<y>&"z"\x1b[31m'),
        value("c", [1, 2, 3]),
        value("d", 1, BLIND),
        value("p", True, family="machine", type="microvm", id="machine"),
    )
    seen = {
        ("object", "io0", "a"): Observation("read", 1),
        ("object", "io0", "b"): Observation("read", "other"),
        ("object", "io0", "c"): Observation("absent", reason="no\nproperty"),
        ("machine", "machine", "p"): Observation("read", True),
    }
    whole = replace(
        plan, values=values, unplanned=("-msg", "a\x07b"), accel_reason="kvm: is a trap"
    )
    return judge(whole, seen, ["x has invalid class name \x1b[0m"], commands=3, request_bytes=99)


def test_report_as_text(report):
    assert report_text(report) == (
        f"web: microvm, tcg, QEMU {report.plan.version} ({report.plan.build}), platform native\n"
        "accel tcg: kvm: is a trap\n"
        "property        planned           observed  origin     verdict\n"
        "iothread io0 a  1                 1         profile:3  match\n"
        'iothread io0 b  x<y>&"z"\\x1b[31m  other     profile:3  mismatch\n'
        "iothread io0 c  [1,2,3]           -         profile:3  absent\n"
        "iothread io0 d  1                 -         profile:3  unobservable\n"
        "machine p       on                on        profile:3  match\n"
        "platform native: nothing was pinned\n"
        "complaint: x has invalid class name \\x1b[0m\n"
        "not planned, not verified: -msg a\\x07b\n"
        "verdict: mismatch (2 match, 1 mismatch, 1 absent, 1 unobservable)"
    )


def test_report_in_colour_marks_verdicts_only(report):
    text = report_text(report, color=True)
    assert "\x1b[32mmatch\x1b[0m" in text
    assert "\x1b[31mmismatch\x1b[0m" in text
    assert text.count("\x1b[") == 2 * 5


def test_report_without_values(plan):
    text = report_text(judge(replace(plan, values=(), build="", platform="debian-12"), {}))
    assert text.splitlines() == [
        f"web: microvm, tcg, QEMU {plan.version}, platform debian-12",
        "verdict: match (0 match, 0 mismatch, 0 absent, 0 unobservable)",
    ]


def test_only_what_is_wrong(report):
    assert wrong_text(report) == (
        'iothread io0 b: planned x<y>&"z"\\x1b[31m (profile:3), observed other\n'
        "iothread io0 c: planned [1,2,3] (profile:3), observed nothing (no\\nproperty)\n"
        "x has invalid class name \\x1b[0m"
    )


def test_report_as_json(report):
    found = report_json(report)
    json.dumps(found)
    assert found["verdict"] == "mismatch"
    assert found["stats"] == {"commands": 3, "request_bytes": 99}
    assert found["values"][0] == {
        "family": "object",
        "type": "iothread",
        "id": "io0",
        "property": "a",
        "planned": 1,
        "observed": 1,
        "origin": "profile:3",
        "observer": "qom",
        "verdict": "match",
        "reason": None,
    }
    assert found["values"][3]["observer"] == "unobservable"
    assert {"name", "qemu", "platform", "machine", "accel"} <= set(found)


@pytest.mark.parametrize(("native", "told"), [(False, True), (True, False), (None, False)])
def test_a_guest_that_is_interpreted_is_told(report, native, told):
    seen = replace(report, speed=(native, "1 tick of 900"))
    assert report_json(seen)["speed"] == {"native": native, "reason": "1 tick of 900"}
    assert ("not at native speed: 1 tick of 900" in report_text(seen)) is told
    assert report_json(report)["speed"] is None


def test_report_as_junit(report):
    root = ET.fromstring(report_junit(report))
    assert root.attrib == {"name": "web", "tests": "5", "failures": "2", "skipped": "1"}
    cases = root.findall("testcase")
    assert [len(case) for case in cases] == [0, 1, 1, 1, 0]
    assert cases[1][0].tag == "failure"
    assert "\x1b" not in cases[1][0].attrib["message"]
    assert cases[3][0].attrib["message"] == "there is no command"
    named = {p.attrib["name"]: p.attrib["value"] for p in root.iter("property")}
    assert named == junit_properties(report)


def test_report_as_html(report):
    page = report_html(report)
    assert "<script" not in page
    assert "x&lt;y&gt;&amp;&quot;z&quot;" in page
    assert page.count("<tr class=") == 5
    assert "http" not in page  # one file, nothing fetched


def test_plan_as_json_and_text(plan):
    omission = Omission("object", "iothread", "io0", "x", 1, Origin("platform", "p"), "why not")
    renamed = replace(value("new", 2000, note="old name"), spelled="old", written=2)
    whole = replace(plan, values=(renamed, value("d", 1, BLIND)), omitted=(omission,), notes=("n",))
    found = plan_json(whole, ["q", "-S"])
    json.dumps(found)
    assert found["values"][0]["written"] == {"property": "old", "value": 2}
    assert found["values"][0]["note"] == "old name"
    assert "written" not in found["values"][1]
    assert found["omitted"][0]["reason"] == "why not"
    text = plan_text(whole, ["q", "-S"], explain=True)
    assert "omitted: iothread x=1 (platform p): why not" in text
    assert "there is no command" in text
    assert text.endswith("note: n")
    assert "omitted" not in plan_text(whole, ["q", "-S"])


def test_a_plan_shows_what_runs_beside():
    text = "name: t\nplatform: native\nmachine: q35\naccel: tcg\ntpm: /srv/tpm\n"
    plan = plan_of(profile_from(parse_yaml(text, "f.yaml")), "10.0")
    assert "beside it, in /srv/tpm: swtpm \\\n  --tpm2\n" in plan_text(
        plan, ["qemu"], [["swtpm", "--tpm2"]]
    )
    shown = plan_json(plan, ["qemu"], [["swtpm", "--tpm2"]])["helpers"]
    assert shown == [
        {"path": "tpm", "chardev": "tpm0", "folder": "/srv/tpm", "argv": ["swtpm", "--tpm2"]}
    ]


def test_plan_text_tells_setup_and_reason():
    server = "nbd-server: {addr: {type: unix, data: {path: x}}}\n"
    text = f"platform: native\ntool: qemu-storage-daemon\n{server}"
    plan = plan_of(profile_from(parse_yaml(text, "f.yaml")), "10.0")
    told = plan_text(replace(plan, accel="tcg", accel_reason="why"), ["q"], explain=True)
    assert 'then nbd-server-start {"addr":{"type":"unix","data":{"path":"x"}}}' in told
    assert "accel tcg: why" in told


def test_a_command_line_for_the_shell():
    argv = ["q", "-S", "-append", "a b", "-x", "it's", "", "--", "more"]
    assert argv_text(argv) == (
        "q \\\n  -S \\\n  -append 'a b' \\\n  -x 'it'\"'\"'s' \\\n  '' \\\n  -- more"
    )


@pytest.mark.parametrize(
    "word", ["plain", "a b", "it's", "", "$x", "ж", "a\nb", "`id`", "~", "a=b"]
)
def test_quoting_as_the_shell_reads_it(word):
    import shlex

    assert shlex.split(quote(word)) == [word]


def test_shorten():
    assert shorten("x" * 100) == "x" * 43 + "…"
    assert shorten({"a": [1]}) == '{"a":[1]}'
    assert as_text(None) == ""


def test_table_pads_all_but_the_last():
    assert table([["a", "b"]], ["long", "x"], {}) == "long  x\na     b"


def test_html_of_a_plan_without_a_build(report):
    assert "<p>" in report_html(replace(report, plan=replace(report.plan, build="")))
