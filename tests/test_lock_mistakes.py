"""What a user reads when a lock cannot be kept: `tests/golden/locks/NAME.err`.

`web.yaml` and its lock file, which was made on QEMU 7.2, are changed by one edit for each case.
"""

from __future__ import annotations

import os
import shutil

import pytest

from launcher.errors import HostError, InputErrors, LauncherError
from launcher.lock_files import load_lock, lock_path, locked_profile, replayed
from launcher.locks.replay import keep_lock
from launcher.plan import make_plan
from launcher.prepare import choose_platform
from tests.support.goldens import FOLDER, Goldens, orphans
from tests.support.records import BINARY, UUID, capabilities_of, catalogue, host, profile_from
from tests.support.render import error_golden

pytestmark = pytest.mark.hermetic

LOCKS = os.path.join(FOLDER, "locks")

#: Case → (file, what stands there, what stands there instead).
EDITS: dict[str, tuple[str, str, str]] = {
    "another-profile": ("web.yaml", "name: web", "name: db"),
    "changed-boot": ("web.yaml", "smp: 2", "smp: {cpus: 2, cores: 2}"),
    "changed-value": ("web.yaml", "poll-max-ns: 20000", "poll-max-ns: 30000"),
    "gained-device": (
        "web.yaml",
        "devices:\n",
        "devices:\n  rng0: {driver: virtio-rng-pci}\n",
    ),
    "lost-device": ("web.yaml", "blockdevs:", "x-note: none\nblockdevs:"),
    "moved-devices": (
        "web.yaml",
        "  dump: {qom-type: memory-backend-file, mem-path: dump.bin, size: 16MiB, reserve: off}\n"
        "  key0: {qom-type: secret, data: not-to-be-told}\n",
        "  key0: {qom-type: secret, data: not-to-be-told}\n"
        "  dump: {qom-type: memory-backend-file, mem-path: dump.bin, size: 16MiB, reserve: off}\n",
    ),
    "other-platform": ("web.yaml", "platform: debian-12", "platform: debian-11"),
    "empty": ("web.lock.yaml", "", ""),
    "edited": ("web.lock.yaml", "property: poll-grow, value: 0", "property: poll-grow, value: 4"),
    "future": ("web.lock.yaml", "format: 1", "format: 2"),
    "future-shape": ("web.lock.yaml", "format: 1", "format: {major: 2}"),
    "missing-part": ("web.lock.yaml", "platform:\n  name: debian-12\n", "platform:\n"),
    "not-yaml": ("web.lock.yaml", "values:\n", "values: {\n"),
    "twice": ("web.lock.yaml", "host:\n", "profile: {}\nhost:\n"),
    "unknown-part": ("web.lock.yaml", "qemu:\n", "qemu:\n  releas: seven\n"),
    "wrong-type": ("web.lock.yaml", "omitted:\n", "omitted: none\nomitting:\n"),
    "no-lock": ("web.yaml", "name: web", "name: web"),
    "on-5.2": ("web.yaml", "name: web", "name: web"),
    "on-11.1": ("web.yaml", "name: web", "name: web"),
    "platform-asked": ("web.yaml", "name: web", "name: web"),
}
_DISK = "devices:\n  disk0: {driver: virtio-blk-pci, drive: root, iothread: io0}\n"


def _run(case: str) -> LauncherError:
    """The error of a run on the release that the case names, in the folder of both files."""
    release = case.partition("on-")[2] if case.startswith("on-") else "7.2"
    try:
        lock = load_lock(lock_path("web.yaml"))
        asked = "qemu-8.0" if case == "platform-asked" else ""
        platform, settings = replayed(lock, asked, ())
        profile = locked_profile(lock, profile_from("web.yaml", settings, platform))
        floor = choose_platform(catalogue(), profile.platform)
        able, facts = capabilities_of(release), host(profile, floor)

        def made():
            return make_plan(
                *(profile, floor, catalogue(), able, facts),
                binary=BINARY,
                uuid=UUID,
                locked=lock.locked(),
            )

        keep_lock(lock, profile, able.version, catalogue(), made)
    except LauncherError as error:
        return error
    pytest.fail("the lock is kept")


@pytest.fixture(scope="module")
def goldens(request):
    return Goldens(request.config)


@pytest.mark.parametrize("case", EDITS)
def test_mistake(case, goldens, tmp_path, monkeypatch):
    for name in ("web.yaml", "web.lock.yaml"):
        shutil.copy(os.path.join(LOCKS, name), tmp_path)
    file, old, new = EDITS[case]
    text = (tmp_path / file).read_text()
    if case == "no-lock":
        (tmp_path / "web.lock.yaml").unlink()
    elif case == "empty":
        (tmp_path / file).write_text("# nothing\n")
    elif case == "lost-device":
        (tmp_path / file).write_text(text.replace(_DISK, ""))
    else:
        assert text.count(old) == 1
        (tmp_path / file).write_text(text.replace(old, new))
    monkeypatch.chdir(tmp_path)
    error = _run(case)
    assert isinstance(error, HostError) is case.startswith("on-")
    for one in error.mistakes if isinstance(error, InputErrors) else [error]:
        assert one.place is not None
        assert one.hint
        assert one.code in ("lock", "yaml", "file")
    goldens.check(f"locks/{case}.err", error_golden(error))


def test_every_golden_has_its_case():
    assert orphans({f"locks/{c}.err" for c in EDITS}, below="locks", endings=(".err",)) == []
