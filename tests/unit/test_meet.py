"""The common floor of hosts: floors, features, CPUs, the file that is written, and mistakes."""

from __future__ import annotations

import copy
import itertools
import json

import pytest

from launcher.cli.meet import meeting
from launcher.data import load_cpus
from launcher.errors import HostError, InputError, InputErrors
from launcher.files import parse_yaml
from launcher.host.facts import FORMAT as WRITTEN
from launcher.platforms import platform_from_file, resolve
from launcher.platforms.cpus import Kinds, read_kinds
from launcher.platforms.hosts import FORMAT, read_hosts
from launcher.platforms.meet import FEATURES, meet
from launcher.platforms.meet_text import meeting_json, meeting_yaml
from tests.support.goldens import Goldens, orphans
from tests.support.records import catalogue, replies_of
from tests.support.render import error_golden

pytestmark = pytest.mark.hermetic

HASWELL = "Haswell-v1"


@pytest.fixture(scope="module")
def goldens(request):
    return Goldens(request.config)


def flags_of(model):
    return next(one.flags for one in load_cpus("x86_64").models if one.name == model)


def host(name, linux="6.18.3", qemu=("11.1.3",), lacks=(), unknown=(), model=HASWELL, **more):
    """The facts of a host that has every feature but those it `lacks`."""
    binaries = [
        {
            "path": f"/opt/{version}/bin/qemu-system-x86_64",
            "tool": "qemu-system",
            "target": "x86_64",
            "version": version,
            "build": "",
        }
        for version in qemu
    ]
    answers = {feature: (True, f"{feature} works") for feature in FEATURES}
    answers |= {feature: (False, f"the kernel has no {feature}") for feature in lacks}
    answers |= dict.fromkeys(unknown, (None, "Permission denied"))
    facts = {
        "format": FORMAT,
        "name": name,
        "arch": "x86_64",
        "kernel": {"release": linux},
        "cpu": {"vendor": "GenuineIntel", "flags": sorted(flags_of(model))},
        "qemu": binaries,
        "features": {n: {"present": p, "reason": r} for n, (p, r) in answers.items()},
    }
    return {**facts, **more}


def nowhere(file, path):
    pytest.fail(f"{file}: {path}")


def common(*facts, name="meet"):
    files = [(f"{number}.json", one) for number, one in enumerate(facts)]
    hosts = read_hosts(files, catalogue(), nowhere)
    return meet(name, hosts, catalogue(), load_cpus("x86_64"))


def pins(found):
    """What the written file pins, by property."""
    platform = platform_from_file(catalogue(), parse_yaml(meeting_yaml(found), "meet.yaml"))
    return {key[2]: pin for key, pin in resolve(catalogue(), platform).items()}


# -- floors ----------------------------------------------------------------------------------------


def test_the_format_is_the_one_that_host_writes():
    assert FORMAT == WRITTEN


def test_floors_are_the_lowest_of_the_newest():
    found = common(
        host("a", qemu=("5.2.0", "10.0.2")),
        host("b", linux="6.1.0-18-amd64"),
        host("c", qemu=("7.2.22", "8.2.2", "7.2.1"), linux="6.1.55"),
    )
    assert str(found.qemu.version) == "8.2"
    assert found.qemu.limited_by == ("c",)
    assert found.qemu.reason == "c: no newer QEMU than 8.2.2 (/opt/8.2.2/bin/qemu-system-x86_64)"
    assert str(found.linux.version) == "6.1"
    assert found.linux.limited_by == ("b", "c")
    assert found.linux.reason == "b and 1 other: Linux 6.1.0-18-amd64"


def test_numbers_are_compared_and_not_text():
    found = common(host("a", linux="6.9.1", qemu=("9.2.0",)), host("b", linux="6.12.0"))
    assert (str(found.qemu.version), str(found.linux.version)) == ("9.2", "6.9")


def test_a_candidate_of_a_release_is_that_release():
    assert str(common(host("a", qemu=("11.0.92",))).qemu.version) == "11.1"


def test_only_a_system_emulator_of_the_host_s_architecture_counts():
    one = host("a", qemu=("7.2.22",))
    other = {"path": "/usr/bin/qemu-img", "tool": "qemu-img", "target": None, "version": "10.0.2"}
    arm = {"path": "/q", "tool": "qemu-system", "target": "aarch64", "version": "10.0.2"}
    dead = {**arm, "target": "x86_64", "version": {"unknown": "--version ended with 3"}}
    kvm = {**arm, "target": None, "version": "9.1.0", "path": "/usr/libexec/qemu-kvm"}
    one["qemu"] += [other, arm, dead]
    assert str(common(one).qemu.version) == "7.2"
    one["qemu"].append(kvm)
    assert common(one).qemu.reason == "a: no newer QEMU than 9.1 (/usr/libexec/qemu-kvm)"


# -- features --------------------------------------------------------------------------------------


def test_nothing_is_pinned_that_every_host_has():
    found = common(host("a"), host("b"))
    assert found.values == ()
    assert all(one.everywhere for one in found.features)
    assert pins(found).get("host_uso") is None


@pytest.mark.parametrize(
    ("feature", "off"),
    [
        ("tun-uso", {"host_uso", "guest_uso4", "guest_uso6"}),
        (
            "tun-tunnel",
            {"host_tunnel", "host_tunnel_csum", "guest_tunnel", "guest_tunnel_csum"},
        ),
        ("tun-tunnel-csum", {"host_tunnel_csum", "guest_tunnel_csum"}),
        ("tun-vnet-hdr", {"vnet_hdr"}),
        ("tun-ufo", {"vnet_hdr"}),
        ("vhost-net", {"vhost"}),
        ("userfaultfd", {"postcopy-ram"}),
    ],
)
def test_what_one_host_lacks_is_off_and_the_host_is_named(feature, off):
    found = common(host("a"), host("b", lacks=[feature]), host("c"))
    assert {value.property for value in found.values} == off
    written = pins(found)
    for name in off:
        assert written[name].value == "off"
        assert written[name].reason == f"set by meet: b: the kernel has no {feature}"
    if feature in ("tun-uso", "tun-tunnel"):
        # As the platform data have it: beside a tap only, and from the release that knows it.
        pin = written[f"host_{feature.removeprefix('tun-')}"]
        assert pin.row.when == (("netdev", ("tap",)),)
        assert pin.knows.from_ is not None


def test_unknown_counts_as_not_there():
    found = common(host("a"), host("b", unknown=["tun-uso"]))
    assert found.values[0].why == "unknown on b: Permission denied"
    told = meeting_json(found)["features"]["tun-uso"]
    assert (told["everywhere"], told["limited_by"], told["unknown_on"]) == (False, [], ["b"])


def test_a_feature_that_facts_do_not_tell_is_unknown():
    old = host("b")
    del old["features"]["tun-tunnel"]
    found = common(host("a"), old)
    assert found.values[0].why == "unknown on b: its facts do not tell"


@pytest.mark.parametrize(
    ("lacks", "unknown"), [(("a", "b"), ()), ((), ("b",)), (("a",), ("b",)), ((), ("a", "b"))]
)
def test_ufo_takes_the_header_away_only_where_hosts_are_known_to_differ(lacks, unknown):
    facts = [
        host(
            name,
            lacks=["tun-ufo"] if name in lacks else (),
            unknown=["tun-ufo"] if name in unknown else (),
        )
        for name in ("a", "b")
    ]
    assert common(*facts).values == ()


def test_a_value_that_two_features_ask_for_stands_once():
    found = common(host("a"), host("b", lacks=["tun-vnet-hdr", "tun-ufo", "tun-tunnel"]))
    names = [value.property for value in found.values]
    assert len(names) == len(set(names))
    assert "no tun-vnet-hdr" in next(v.why for v in found.values if v.property == "vnet_hdr")


def test_what_no_platform_pins_is_advice():
    found = common(host("a"), host("b", lacks=["kvm", "io_uring", "sev"]), host("c", lacks=["sev"]))
    text = meeting_yaml(found)
    assert "#   kvm: use `accel: tcg`" in text
    assert "(b: the kernel has no io_uring)" in text
    assert "#   sev: use no sev-guest (b and 1 other: the kernel has no sev)" in text
    assert "#   kvm: runs guests on every host" in meeting_yaml(common(host("a")))
    assert "#   on no host: sev, tdx" in meeting_yaml(common(host("a", lacks=["sev", "tdx"])))


def test_the_order_of_hosts_does_not_matter():
    facts = [
        host("a", lacks=["tun-uso"], qemu=("7.2.22",)),
        host("b", linux="5.10.0", lacks=["tun-uso"], model="Nehalem-v1"),
        host("c", unknown=["userfaultfd"], model="Nehalem-v1"),
    ]
    texts = set()
    for order in itertools.permutations(facts):
        found = common(*order)
        texts.add(meeting_yaml(found) + json.dumps(meeting_json(found)))
    assert len(texts) == 1


# -- CPUs ------------------------------------------------------------------------------------------


def test_the_best_model_and_level_that_all_cpus_have():
    found = common(host("a", model="Icelake-Server-v2"), host("b", model="Nehalem-v1")).cpu
    assert found.flags == flags_of("Nehalem-v1")
    assert (found.model.name, found.model.limited_by) == ("Nehalem-v1", ("b",))
    assert found.model.reason == "Westmere-v1 needs aes pclmulqdq"
    assert (found.level.name, found.level.limited_by) == ("x86-64-v2", ("b",))
    assert found.level.reason == "x86-64-v3 needs abm avx avx2 bmi1 bmi2 f16c and 3 more"


def test_flags_of_two_cpus_may_be_less_than_either():
    one, other = host("a"), host("b")
    one["cpu"]["flags"].remove("cx16")
    other["cpu"]["flags"].remove("ssse3")
    found = common(one, other).cpu
    assert (found.level.name, found.model.name) == ("x86-64-v1", None)
    assert found.level.limited_by == ("a", "b")


def test_a_model_is_one_that_the_oldest_qemu_has():
    old = common(host("a", model="SapphireRapids-v1", qemu=("7.2.22",))).cpu.model
    assert old.name == "Icelake-Server-v4"
    assert old.reason == "SapphireRapids-v1 is known from QEMU 8.0 on"
    assert old.limited_by == ("a",)
    newest = common(host("a", model="SapphireRapids-v1", qemu=("8.0.0",)))
    assert meeting_yaml(newest).endswith(
        "\n#   cpu: SapphireRapids-v1 is the best model that all have\n#   cpu level: x86-64-v4\n"
    )
    new = newest.cpu
    assert (new.model.name, new.model.reason) == ("SapphireRapids-v1", "")
    assert (new.level.name, new.level.reason) == ("x86-64-v4", "")


def test_cpus_of_two_vendors_have_a_level_and_no_model():
    amd = {"vendor": "AuthenticAMD", "flags": sorted(flags_of("EPYC-Rome-v1"))}
    found = common(host("a"), host("b", cpu=amd))
    assert found.cpu.level.name == "x86-64-v3"
    assert found.cpu.model.name is None
    text = meeting_yaml(found)
    assert "no model is known to fit all (the CPUs are of AuthenticAMD and GenuineIntel)" in text


def test_an_unknown_cpu_leaves_all_of_it_unknown():
    found = common(host("a"), host("b", cpu={"unknown": "/proc/cpuinfo: Permission denied"}))
    assert found.cpu.flags is None
    assert found.cpu.model.reason == "the CPU of b is unknown"
    assert meeting_json(found)["cpu"]["flags"] is None


def test_an_architecture_without_data_has_flags_only():
    arm = {
        "arch": "aarch64",
        "cpu": {"vendor": "0x41", "flags": ["aes", "fp"]},
    }
    one = host("a", **arm)
    one["qemu"][0]["target"] = "aarch64"
    hosts = read_hosts([("a.json", one)], catalogue(), nowhere)
    assert load_cpus("aarch64") == Kinds()
    found = meet("arm", hosts, catalogue(), load_cpus("aarch64")).cpu
    assert (found.flags, found.level.name, found.model.name) == ({"aes", "fp"}, None, None)


def test_cpu_data_hold_together():
    kinds = load_cpus("x86_64")
    assert [level.name for level in kinds.levels] == [f"x86-64-v{n}" for n in (1, 2, 3, 4)]
    for below, above in itertools.pairwise(kinds.levels):
        assert below.flags < above.flags
    for model in kinds.models:
        assert kinds.levels[0].flags <= model.flags, model.name
    by_name = {model.name: model.flags for model in kinds.models}
    # docs/system/cpu-models-x86-abi.csv of QEMU says the same of these.
    for name, number in (("Nehalem-v1", 2), ("Haswell-v1", 3), ("Skylake-Server-v4", 4)):
        assert kinds.levels[number - 1].flags <= by_name[name]
        assert number == 4 or not kinds.levels[number].flags <= by_name[name]


def test_models_are_in_the_recorded_releases_that_the_data_say():
    for release in ("5.2", "7.2", "10.0", "11.1"):
        types = set(replies_of(release)["qom-list-types"])
        for model in load_cpus("x86_64").models:
            since = tuple(int(n) for n in str(model.qemu).split("."))
            known = since <= tuple(int(n) for n in release.split("."))
            assert (f"{model.name}-x86_64-cpu" in types) is known, (release, model.name)


def test_mistakes_in_cpu_data():
    text = "levels: {v1: a b}\nmodels: {M: {vendor: X, qemu: seven, flags: a}}\nmore: {}\n"
    with pytest.raises(InputErrors) as wrong:
        read_kinds(parse_yaml(text, "cpu.yaml"))
    assert [str(one.place) for one in wrong.value.mistakes] == ["cpu.yaml:2:31", "cpu.yaml:3:1"]
    with pytest.raises(InputErrors, match="2 mistakes"):
        read_kinds(parse_yaml("{}", "cpu.yaml"))


# -- the file --------------------------------------------------------------------------------------


def test_the_file_is_as_it_should_be(goldens):
    found = common(
        host("web", linux="6.1.0-18-amd64", qemu=("7.2.22",), lacks=["tun-uso", "tun-tunnel"]),
        host("db", unknown=["tun-tunnel-csum"], lacks=["userfaultfd", "sev", "kvm"]),
        host("mail", qemu=("10.0.2",), model="Nehalem-v1", lacks=["io_uring"]),
        name="fleet",
    )
    goldens.check("meet/fleet.yaml", meeting_yaml(found))
    goldens.check("meet/fleet.out.json", json.dumps(meeting_json(found), indent=1) + "\n")


def test_many_hosts_are_counted():
    found = common(*(host(f"h{number:03}") for number in range(20)))
    assert "# h000, h001, h002, h003, h004, h005, h006, h007 and 12 more" in meeting_yaml(found)
    assert "h000 and 19 others" in found.qemu.reason


def test_names_and_reasons_of_others_stay_text():
    evil = host('x"\n  evil: {}', lacks=["tun-uso"], linux="6.1.0-1\nlinux: 9.9")
    evil["features"]["tun-uso"]["reason"] = 'no"\nname: other'
    found = common(evil)
    written = parse_yaml(meeting_yaml(found), "meet.yaml")
    assert set(written.items) == {"name", "qemu", "linux", "device"}
    assert pins(found)["host_uso"].value == "off"


# -- mistakes --------------------------------------------------------------------------------------


def _without(key):
    def change(facts):
        del facts[key]

    return change


def _with(**changes):
    return lambda facts: facts.update(copy.deepcopy(changes))


CASES = {
    "another-format": _with(format="host-facts-2"),
    "format-unlike": _with(format="report-1"),
    "format-missing": _without("format"),
    "no-kernel": _without("kernel"),
    "kernel-no-text": _with(kernel={"release": 6}),
    "kernel-no-release": _with(kernel={"release": "six"}),
    "no-qemu": _with(qemu=[]),
    "qemu-unknown": _with(qemu={"unknown": "Permission denied"}),
    "qemu-of-a-tool": _with(qemu=[{"path": "/usr/bin/qemu-img", "tool": "qemu-img"}]),
    "qemu-no-path": _with(qemu=["/usr/bin/qemu-system-x86_64"]),
    "qemu-no-version": _with(
        qemu=[{"path": "/q", "tool": "qemu-system", "target": "x86_64", "version": "new"}]
    ),
    "qemu-too-old": _with(
        qemu=[{"path": "/q", "tool": "qemu-system", "target": "x86_64", "version": "4.2.1"}]
    ),
    "cpu-missing": _without("cpu"),
    "cpu-flags": _with(cpu={"vendor": "GenuineIntel", "flags": [1, 2]}),
    "features-no-mapping": _with(features=[]),
    "feature-no-answer": _with(features={"kvm": {"present": "yes", "reason": "because"}}),
    "feature-no-reason": _with(features={"kvm": {"present": True}}),
    "feature-no-mapping": _with(features={"kvm": True}),
    "architecture": _with(
        arch="aarch64",
        qemu=[{"path": "/q", "tool": "qemu-system", "target": None, "version": "10.0.2"}],
    ),
    "same-host": _with(name="a"),
}


def wrong(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        meeting(files, "meet")
    return caught.value


def write(path, value):
    text = value if isinstance(value, str) else json.dumps(value, indent=1)
    path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("name", CASES)
def test_mistake(name, tmp_path, monkeypatch, goldens):
    bad = host("b")
    CASES[name](bad)
    write(tmp_path / "a.json", host("a"))
    write(tmp_path / "b.json", bad)
    error = wrong(["a.json", "b.json"], tmp_path, monkeypatch)
    assert error.exit_status == 2
    goldens.check(f"meet/{name}.err", error_golden(error))


TEXTS = {
    "text-not-json": '{"format": "host-facts-1",\n "name": }',
    "text-two-values": '{"format": "host-facts-1"}\n{}',
    "text-a-list": "[1, 2]",
    "text-a-number": "5",
    "text-nothing": "",
    "text-yaml": "name: web\nplatform: debian-12\n",
    "text-deep": "[" * 20_000,
    "text-tab": '\t{"format": "host-facts-2"}',
}


@pytest.mark.parametrize("name", TEXTS)
def test_text_that_is_no_file_of_facts(name, tmp_path, monkeypatch, goldens):
    write(tmp_path / "b.json", TEXTS[name])
    error = wrong(["b.json"], tmp_path, monkeypatch)
    goldens.check(f"meet/{name}.err", error_golden(error))


def test_no_files_and_files_that_are_not_there(tmp_path, monkeypatch, goldens):
    none = wrong([], tmp_path, monkeypatch)
    goldens.check("meet/nothing.err", error_golden(none))
    write(tmp_path / "a.json", host("a"))
    missing = wrong(["b.json", "a.json", "."], tmp_path, monkeypatch)
    goldens.check("meet/missing.err", error_golden(missing))
    twice = wrong(["a.json", "a.json"], tmp_path, monkeypatch)
    goldens.check("meet/same-file.err", error_golden(twice))


def test_no_golden_file_is_unused():
    names = [*CASES, *TEXTS, "nothing", "missing", "same-file"]
    expected = {"meet/fleet.yaml", "meet/fleet.out.json", *(f"meet/{name}.err" for name in names)}
    assert orphans(expected, below="meet", endings=("",)) == []


def test_all_mistakes_are_told_at_once(tmp_path, monkeypatch):
    for name in ("a", "b", "c"):
        write(tmp_path / f"{name}.json", host(name, qemu=() if name != "b" else ("10.0.2",)))
    error = wrong(["c.json", "b.json", "a.json"], tmp_path, monkeypatch)
    assert [one.place.file for one in error.mistakes] == ["a.json", "c.json"]


# -- the command -----------------------------------------------------------------------------------


def test_the_command(tmp_path, monkeypatch, capsys):
    from launcher.cli.meet import meet as command
    from launcher.cli.parser import parse

    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.json", host("a", lacks=["tun-uso"]))
    write(tmp_path / "b.json", host("b"))
    options = parse("platform", ["meet", "a.json", "b.json", "--name", "ours"])
    assert options.run is command
    assert command(options) == 0
    text = capsys.readouterr().out
    assert 'name: "ours"' in text
    command(parse("platform", ["meet", "a.json", "b.json", "--name", "ours", "-o", "ours.yaml"]))
    assert (tmp_path / "ours.yaml").read_text() == text
    shown = capsys.readouterr().out
    assert "a: the kernel has no tun-uso" in shown
    command(parse("platform", ["meet", "b.json", "a.json", "--format", "json"]))
    assert json.loads(capsys.readouterr().out)["hosts"] == ["a", "b"]
    with pytest.raises(HostError, match="cannot be written"):
        command(parse("platform", ["meet", "a.json", "-o", "missing/ours.yaml"]))
    for name in ("a b", "x/y", "naïve"):
        with pytest.raises(InputError, match="a platform's name has"):
            parse("platform", ["meet", "a.json", "--name", name])
