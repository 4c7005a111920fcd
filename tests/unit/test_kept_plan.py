"""A plan survives its way through a machine's state file."""

from __future__ import annotations

import json

import pytest

from launcher.plan.kept import FORM, changes_of, keep_plan, restore_plan
from launcher.record import replace
from launcher.report import Observation, judge, report_json
from tests.support.records import RELEASES, ROOT, plan_of, profile_from

SAMPLES = ("microvm-demo", "numa-memfd", "i440fx-legacy", "storage-daemon")


@pytest.fixture(params=RELEASES)
def release(request):
    return request.param


def plan_for(name: str, release: str):
    return plan_of(profile_from(f"{ROOT}/profiles/{name}.yaml"), release)


@pytest.mark.parametrize("name", SAMPLES)
def test_what_is_expected_survives(name, release):
    plan = plan_for(name, release)
    again = restore_plan(json.loads(json.dumps(keep_plan(plan))))
    assert again is not None
    assert len(again.values) == len(plan.values) > 0
    seen = {
        (v.family, v.id, v.property): Observation("read", v.written)
        for v in plan.values
        if v.observer.read
    }
    first, second = report_json(judge(plan, seen)), report_json(judge(again, seen))
    # What was omitted is nothing that a running machine can be asked.
    assert {**first, "omitted": []} == second
    for name_ in ("uuid", "tool", "verify", "powerdown_seconds", "consoles", "unplanned"):
        assert getattr(again, name_) == getattr(plan, name_)
    for before, after in zip(plan.values, again.values, strict=True):
        # The range of releases was asked when the plan was made.
        assert replace(before.observer, knows=after.observer.knows) == after.observer
        assert replace(before, observer=after.observer) == after


def test_what_came_and_went_is_kept(release):
    plan = plan_for("microvm-demo", release)
    kept = json.loads(json.dumps(keep_plan(plan, ["objects.io1"])))
    assert changes_of(kept) == ["objects.io1"]
    assert restore_plan(kept) is not None
    assert changes_of(keep_plan(plan)) == changes_of({}) == changes_of(None) == []


def test_no_option_and_no_secret_is_kept():
    plan = plan_for("microvm-demo", "10.0")
    again = restore_plan(keep_plan(plan))
    assert plan.options
    assert again.options == again.setup == again.wants == ()


@pytest.mark.parametrize(
    "kept",
    [None, [], "x", {}, {"form": FORM}, {"form": FORM + 1}],
)
def test_another_form_is_not_read(kept):
    assert restore_plan(kept) is None


@pytest.mark.parametrize("broken", [{"values": 7}, {"values": [{}]}, {"consoles": None}])
def test_a_broken_form_is_not_read(broken):
    kept = keep_plan(plan_for("microvm-demo", "10.0"))
    assert restore_plan({**kept, **broken}) is None
