"""What cannot be read back, per release, with the reason: golden files that should only shrink."""

from __future__ import annotations

import os

import pytest

from launcher.platforms import observer_for, parse_version
from tests.support.goldens import Goldens, orphans
from tests.support.records import RELEASES

pytestmark = pytest.mark.hermetic
FOLDER = "unobservable"


def unobservable(catalogue, release: str) -> str:
    """A line for each property of the data, and each kind as a whole, that nothing shows."""
    version = parse_version(release)
    keys = {*catalogue.qemu, *catalogue.linux, *catalogue.observers}
    lines = []
    for key in sorted(keys):
        rows = catalogue.rows(key)
        if rows and not any(row.knows.contains(version) for row in rows):
            continue  # this release does not have the property
        observer = observer_for(catalogue, *key, version)
        if observer.read is None:
            lines.append(f"{' '.join(key)}: {observer.unobservable}")
            assert len(observer.unobservable) > 20, f"{key}: a reason, please"
    return "\n".join([*lines, ""])


@pytest.mark.parametrize("release", RELEASES)
def test_what_is_unobservable_and_why(request, platform_data, release):
    goldens = Goldens(request.config)
    goldens.check(os.path.join(FOLDER, f"{release}.txt"), unobservable(platform_data, release))


def test_each_file_is_of_a_release():
    wanted = {os.path.join(FOLDER, f"{release}.txt") for release in RELEASES}
    assert orphans(wanted, below=FOLDER, endings=(".txt",)) == []
