"""The kept form of a binary's answers gives the same plans as the answers themselves."""

from __future__ import annotations

import glob
import os

import pytest

from launcher.capabilities import Capabilities
from launcher.errors import LauncherError
from launcher.index import fold, unfold, whole
from launcher.plan import make_plan
from launcher.prepare import choose_platform
from tests.support.records import (
    BINARY,
    RELEASES,
    ROOT,
    UUID,
    catalogue,
    host,
    profile_from,
    replies_of,
)

pytestmark = pytest.mark.hermetic

PROFILES = sorted(
    os.path.relpath(path, ROOT)
    for folder in ("profiles", "tests/golden/profiles")
    for path in glob.glob(os.path.join(ROOT, folder, "*.yaml"))
)


def test_the_same_answers():
    replies = replies_of("10.0")
    found = unfold(fold(replies))
    assert found is not None
    assert set(found) == set(replies)
    assert found["query-version"] == replies["query-version"]
    assert dict(found["query-machines"].items())["microvm"]["name"] == "microvm"
    assert len(found["query-qmp-schema"].values()) == len(replies["query-qmp-schema"])
    assert found["qom-list-properties"]["iothread"] == replies["qom-list-properties"]["iothread"]
    assert found.get("no-such-command", 1) == 1


@pytest.mark.parametrize("release", RELEASES)
def test_all_of_it_comes_back(release):
    # Twice, as when a type's properties are added: the schema has an entity called query-machines.
    replies = replies_of(release)
    found = whole(unfold(fold(replies)))
    assert found == replies
    assert whole(unfold(fold(found))) == replies


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"\x00", b"i\x01\x00\x00\x00", b"garbage" * 9, fold({"a": 1})[:-1]]
)
def test_something_else_is_nothing(data):
    assert unfold(data) is None


@pytest.mark.parametrize("release", RELEASES)
def test_the_same_plans(release):
    def outcome(profile, capabilities):
        platform = choose_platform(catalogue(), profile.platform)
        facts = host(profile, platform)
        named = {"binary": BINARY, "uuid": UUID}
        try:
            return make_plan(profile, platform, catalogue(), capabilities, facts, **named)
        except LauncherError as error:
            return error.as_json()

    for path in PROFILES:
        profile = profile_from(path)
        replies = replies_of(release, profile.tool)
        folded = Capabilities(unfold(fold(replies)))
        assert outcome(profile, folded) == outcome(profile, Capabilities(replies)), path
