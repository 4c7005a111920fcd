"""Rules that hold for every plan."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.errors import HostError, Place
from launcher.files import parse_yaml, read_yaml
from launcher.nodes import Mapping, Scalar
from launcher.plan import Origin, Value
from launcher.platforms import Observer, applies, find_platform, resolve
from launcher.platforms.versions import ALWAYS
from launcher.profiles import parse_profile
from launcher.record import replace
from launcher.report import (
    VERDICTS,
    Observation,
    as_text,
    judge,
    plan_json,
    report_json,
    report_text,
    same,
)
from tests.property.strategies import json_values
from tests.support.records import CACHE, RELEASES, ROOT, catalogue, plan_of, profile_from
from tests.support.render import argv_of

pytestmark = [pytest.mark.property, pytest.mark.hermetic]

SAMPLES = sorted(
    os.path.join("profiles", name)
    for name in os.listdir(os.path.join(ROOT, "profiles"))
    if name.endswith(".yaml")
)
PLATFORMS = ("debian-11", "debian-12", "qemu-6.2", "rhel-9.2", "native")
samples = st.sampled_from([s for s in SAMPLES if "sev" not in s])
platforms = st.sampled_from(PLATFORMS)
releases = st.sampled_from(RELEASES)


def shuffled(node, order, *, top: bool = True):
    """The same tree with the keys of maps in another order, but for maps keyed by id."""
    if not isinstance(node, Mapping):
        return node
    names = list(node.items)
    order.shuffle(names)
    items = {}
    for name in names:
        item = node.items[name]
        by_id = top and name in ("objects", "netdevs", "chardevs", "blockdevs", "devices")
        if by_id and isinstance(item, Mapping):
            inner = {k: shuffled(v, order, top=False) for k, v in item.items.items()}
            items[name] = Mapping(inner, item.place, item.keys)
        else:
            items[name] = shuffled(item, order, top=False)
    return Mapping(items, node.place, node.keys)


@given(samples, releases, st.randoms(use_true_random=False))
def test_the_order_of_keys_never_changes_values(path, release, order):
    tree = read_yaml(os.path.join(ROOT, path))

    def decided(root: Mapping):
        plan = plan_of(parse_profile(root, read_yaml, (), "", CACHE), release)
        names = [option.name for option in plan.options]
        return names, {(v.family, v.id, v.property): as_text(v.written) for v in plan.values}

    assert decided(shuffled(tree, order)) == decided(tree)


@given(samples, platforms, releases)
def test_every_value_is_read_back_or_says_why_not(path, platform, release):
    try:
        plan = plan_of(profile_from(path, (), platform), release)
    except HostError:
        return
    for value in plan.values:
        assert value.observer.read or value.observer.unobservable
        assert str(value.origin)
    assert all(omission.reason for omission in plan.omitted)
    decided = [(v.family, v.id, v.property) for v in plan.values]
    assert len(decided) == len(set(decided))


@given(samples, platforms, releases)
def test_every_pin_is_decided_or_left_out_for_a_reason(path, platform, release):
    profile = profile_from(path, (), platform)
    try:
        plan = plan_of(profile, release)
    except HostError:
        return
    decided = {(v.family, v.id, v.property) for v in plan.values}
    decided |= {(o.family, o.id, o.property) for o in plan.omitted}
    for pin in resolve(catalogue(), find_platform(catalogue(), platform)).values():
        if pin.family != "object":
            continue
        for key, node in profile.objects.items():
            texts = {n: as_text(i.text) for n, i in node.items.items() if isinstance(i, Scalar)}
            if texts["qom-type"] == pin.type and applies(pin, texts):
                assert ("object", key, pin.property) in decided


#: Pinned properties of objects, and what a profile may say instead.
GIVEN = [
    ("iothread", "poll-max-ns", "5"),
    ("iothread", "poll-grow", "3"),
    ("iothread", "poll-shrink", "4"),
    ("memory-backend-memfd", "share", "off"),
    ("memory-backend-memfd", "hugetlb", "off"),
    ("memory-backend-memfd", "prealloc-threads", "3"),
    ("memory-backend-ram", "share", "on"),
]


@given(st.sampled_from(GIVEN), platforms, releases, st.booleans())
def test_the_profile_always_wins_over_the_platform(given_value, platform, release, by_set):
    kind, name, text = given_value
    size = "" if kind == "iothread" else ", size: 64M"
    own = "" if by_set else f", {name}: {text}"
    profile = profile_from(
        parse_yaml(
            f"platform: {platform}\nmachine: microvm\naccel: tcg\n"
            f"objects: {{o: {{qom-type: {kind}{size}{own}}}}}\n",
            "f.yaml",
        ),
        (f"objects.o.{name}={text}",) if by_set else (),
    )
    plan = plan_of(profile, release)
    found = [v for v in plan.values if (v.id, v.property) == ("o", name)]
    assert [as_text(v.written) for v in found] == [text]
    assert found[0].origin.kind == ("command line" if by_set else "profile")
    assert not [o for o in plan.omitted if (o.id, o.property) == ("o", name)]


@given(samples, platforms, releases)
def test_a_plan_is_the_same_twice(path, platform, release):
    profile = profile_from(path, (), platform)
    try:
        first = plan_of(profile, release)
    except HostError:
        return
    second = plan_of(profile, release)
    assert first == second
    assert argv_of(first) == argv_of(second)
    assert plan_json(first, argv_of(first))["argv"] == argv_of(second)


OBSERVERS = st.sampled_from(
    [
        Observer(ALWAYS, "qom"),
        Observer(ALWAYS, "qom", reads_as=(("auto", "off"), ("1", "2"))),
        Observer(ALWAYS, None, unobservable="no way"),
    ]
)
STATES = st.sampled_from(["read", "absent", "unreadable"])


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["object", "device", "migration-property"]),
            st.sampled_from(["a", "addr"]),
            json_values,
            OBSERVERS,
            st.one_of(st.none(), st.tuples(STATES, json_values)),
        ),
        max_size=5,
    )
)
def test_judging_is_total(rows):
    values, seen = [], {}
    for number, (family, name, written, observer, state) in enumerate(rows):
        key = (family, str(number), name)
        origin = Origin("profile", "", Place("f", 1, 1))
        fields = (family, "t", str(number), name, written, origin, observer, written, name)
        values.append(Value(*fields))
        if state is not None:
            seen[key] = Observation(state[0], state[1])
    text = "platform: native\nmachine: microvm\naccel: tcg\n"
    plan = replace(plan_of(profile_from(parse_yaml(text, "f")), "10.0"), values=tuple(values))
    report = judge(plan, seen)
    assert [one.value for one in report.judged] == values
    assert all(one.verdict in VERDICTS for one in report.judged)
    for one in report.judged:
        if one.verdict == "match":
            assert one.value.observer.read is not None
            assert seen[one.value.family, one.value.id, one.value.property].state == "read"
    assert sum(report.counts.values()) == len(rows)
    report_text(report)
    report_json(report)


@given(json_values)
def test_a_value_is_the_same_as_itself(value):
    assert same(value, value)
