"""Whatever a profile holds, the answer is a plan or an error with its place, and soon.

A thousand inputs in every run; scripts/fuzz runs a hundred thousand (QEMU_LAUNCHER_FULL=1).
"""

from __future__ import annotations

import gc
import os
import time

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from launcher.errors import InputError, InputErrors, LauncherError, Place
from launcher.files import parse_yaml
from launcher.nodes import Mapping, from_python
from launcher.prepare import parse_setting
from launcher.profiles import parse_profile
from launcher.report import plan_json, plan_text
from tests.property.strategies import (
    any_text,
    damaged_profiles,
    hostile_text,
    junk,
    profiles,
)
from tests.support.records import CACHE, RELEASES, plan_of
from tests.support.render import argv_of, error_golden

pytestmark = [pytest.mark.property, pytest.mark.hermetic]

FULL = bool(os.environ.get("QEMU_LAUNCHER_FULL"))
TOTAL = int(os.environ.get("QEMU_LAUNCHER_FUZZ", "100000" if FULL else "1000"))
#: Seconds of processor time for one input.
LIMIT = 1.0

releases = st.sampled_from(RELEASES)


def fuzz(share: float):
    """A part of all inputs."""
    return settings(
        max_examples=max(int(TOTAL * share), 10),
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=not FULL,
        database=None,
    )


def read(path: str) -> Mapping:
    if path.endswith("base.yaml"):
        return parse_yaml("platform: debian-12\nmachine: microvm\nvars: {a: x}\n", path)
    raise InputError("there is no such file", place=Place(path))


def attempt(tree, release: str, pairs=()) -> None:
    """Plan it; anything but a plan or a told error is a failure of the test."""
    # What Hypothesis remembers of a hundred thousand inputs takes a second to collect.
    gc.disable()
    try:
        started = time.process_time()
        _plan(tree, release, pairs)
        assert time.process_time() - started < LIMIT
    finally:
        gc.enable()


def _plan(tree, release: str, pairs) -> None:
    try:
        root = tree() if callable(tree) else tree
        profile = parse_profile(root, read, pairs, "", CACHE)
        plan = plan_of(profile, release)
    except LauncherError as error:
        error_golden(error)
        error.as_json()
        mistakes = error.mistakes if isinstance(error, InputErrors) else [error]
        assert mistakes
        for one in mistakes:
            assert one.message
            assert one.place is not None
            assert "\n" not in one.hint
    else:
        argv = argv_of(plan)
        assert all(isinstance(word, str) for word in argv)
        assert not any("\n" in word or "\0" in word for word in argv)
        plan_text(plan, argv, explain=True)
        plan_json(plan, argv)


@fuzz(0.15)
@given(any_text, releases)
@example("a: [\ud7ff]", "10.0")
def test_any_text(text, release):
    attempt(lambda: parse_yaml(text, "fuzz.yaml"), release)


@fuzz(0.3)
@given(damaged_profiles(), releases)
def test_damaged_profiles(text, release):
    attempt(lambda: parse_yaml(text, "fuzz.yaml"), release)


@fuzz(0.35)
@given(profiles(), releases)
def test_profiles_that_are_nearly_right(text, release):
    attempt(lambda: parse_yaml(text, "fuzz.yaml"), release)


@fuzz(0.1)
@given(st.dictionaries(hostile_text, junk, max_size=4), releases)
def test_mappings_of_a_program(value, release):
    tree = from_python({"platform": "native", "machine": "microvm", **value}, Place("<profile>"))
    attempt(tree, release)


@fuzz(0.1)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [*("machine", "machine.acpi", "memory.size", "devices.d0.driver", "smp", "disk")]
            ),
            hostile_text,
        ),
        max_size=3,
    ),
    any_text,
    releases,
)
def test_settings(made, text, release):
    def tree():
        pairs = [parse_setting(f"{path}={value}") for path, value in made]
        pairs += [parse_setting(text)] if text else []
        root = parse_yaml("platform: native\nmachine: microvm\naccel: tcg\n", "fuzz.yaml")
        attempt(root, release, pairs)
        return root

    attempt(tree, release)
