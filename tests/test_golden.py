"""Golden plans: profiles x platforms x recorded QEMUs.

`NAME.pPLATFORM.RELEASE.argv` is the command line, one option a line; `.plan` adds every value with
its origin and its observer; `.err` stands where there is no plan. `--update-golden` writes them.
"""

from __future__ import annotations

import os

import pytest

from launcher.errors import LauncherError
from tests.support.goldens import Goldens, orphans
from tests.support.records import RELEASES, ROOT, plan_of, profile_from, replies_of
from tests.support.render import argv_golden, argv_of, error_golden, plan_golden
from tests.support.schema import problems

pytestmark = pytest.mark.hermetic

PLATFORMS = ("debian-11", "debian-12", "debian-13", "native")
#: The samples that meet every platform; the others meet their own.
WIDE = ("microvm-demo", "numa-memfd", "q35-disk-net", "storage-daemon")


def _names(folder: str) -> list[str]:
    return sorted(n.removesuffix(".yaml") for n in os.listdir(folder) if n.endswith(".yaml"))


SAMPLES = _names(os.path.join(ROOT, "profiles"))
FEATURES = _names(os.path.join(ROOT, "tests", "golden", "profiles"))


def _cases() -> list[tuple[str, str, str]]:
    """(profile path, platform or empty for its own, release)."""
    found = []
    for name in SAMPLES:
        for platform in PLATFORMS if name in WIDE else ("",):
            found += [(f"profiles/{name}.yaml", platform, release) for release in RELEASES]
    for name in FEATURES:
        found += [(f"tests/golden/profiles/{name}.yaml", "", release) for release in RELEASES]
    return found


def _stem(case: tuple[str, str, str]) -> str:
    path, platform, release = case
    name = os.path.basename(path).removesuffix(".yaml")
    folder = "plans" if path.startswith("profiles/") else "features"
    return f"{folder}/{name}.p{platform or 'own'}.{release}"


CASES = _cases()


@pytest.fixture(scope="module")
def goldens(request):
    return Goldens(request.config)


@pytest.mark.parametrize("case", CASES, ids=_stem)
def test_plan(case, goldens):
    path, platform, release = case
    stem = _stem(case)
    try:
        plan = plan_of(profile_from(path, (), platform), release)
    except LauncherError as error:
        goldens.check(f"{stem}.err", error_golden(error))
        _gone(stem, ("argv", "plan"), goldens)
        return
    argv = argv_of(plan)
    goldens.check(f"{stem}.argv", argv_golden(argv))
    goldens.check(f"{stem}.plan", plan_golden(plan))
    _gone(stem, ("err",), goldens)
    setup = [(step.command, step.arguments) for step in plan.setup]
    assert problems(replies_of(release, plan.tool), argv, setup) == []


def _gone(stem: str, endings: tuple[str, ...], goldens: Goldens) -> None:
    """No file says that this case has the other outcome."""
    for ending in endings:
        path = os.path.join(ROOT, "tests", "golden", f"{stem}.{ending}")
        if goldens.update and os.path.exists(path):
            os.unlink(path)
        assert not os.path.exists(path), f"{stem}.{ending} stands for another outcome"


def test_no_golden_is_unused():
    expected = {f"{_stem(c)}.{end}" for c in CASES for end in ("argv", "plan", "err")}
    for folder in ("plans", "features"):
        assert orphans(expected, below=folder, endings=("",)) == []


def test_no_two_cases_are_the_same():
    stems = [_stem(case) for case in CASES]
    assert len(stems) == len(set(stems))
    contents: dict[str, str] = {}
    for name in FEATURES:
        path = os.path.join(ROOT, "tests", "golden", "profiles", f"{name}.yaml")
        with open(path, encoding="utf-8") as file:
            text = file.read()
        assert text not in contents, f"{name} repeats {contents.get(text)}"
        contents[text] = name


def test_the_check_of_command_lines_finds_mistakes():
    """The independent check is itself checked: each line holds one mistake."""
    replies = replies_of("10.0")
    for argv in (
        ["-object", '{"qom-type":"iothread","id":"io0","poll-max-nanoseconds":1}'],
        ["-object", '{"qom-type":"iothread","id":"io0","poll-max-ns":"1"}'],
        ["-object", '{"qom-type":"memory-backend-ram","id":"m"}'],
        ["-object", '{"qom-type":"no-such-object","id":"io0"}'],
        ["-netdev", '{"type":"user","id":"n","restricted":true}'],
        ["-blockdev", '{"driver":"raw","node-name":"d","file":{"driver":"file"}}'],
        ["-device", '{"driver":"virtio-blk-pci","id":"d","write-cash":"on"}'],
        ["-device", '{"driver":"virtio-blk-pci","id":"d","num-queues":true}'],
        ["-device", "virtio-blk-pci,id=d,write-cash=on"],
        ["-chardev", "socket,id=c,fildes=3"],
        ["-machine", "pc-q35-7.2,acpy=on"],
        ["-accel", "tcg,threads=multi"],
        ["-global", "migration.no-such=on"],
        ["-global", "virtio-net-pci.mrg_rxbuf=off"],
        ["-netdev", "user,id=n,restricted=on"],
    ):
        assert len(problems(replies, ["qemu", *argv], [])) == 1, argv
    assert problems(replies, ["qemu"], [("migrate-set-parameters", {"multifd-chanels": 2})])
    assert problems(replies, ["qemu"], [("no-such-command", {})])
