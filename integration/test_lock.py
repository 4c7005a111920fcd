"""A lock made on one release replays on the others, or the refusal names the property."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from integration.conftest import RELEASES, installed
from integration.rawqmp import RawQMP
from integration.test_applied import agrees, ask, text
from launcher.errors import HostError

pytestmark = pytest.mark.integration

POLL = "object iothread io0 poll-shrink"
PROFILES = ("microvm-demo", "numa-memfd", "q35-disk-net", "native")
NATIVE = """\
name: native
platform: native
machine: pc-q35-5.2
accel: tcg
memory: 64MiB
objects:
  io0: {qom-type: iothread}
  ram1: {qom-type: memory-backend-file, mem-path: ram1.bin, size: 16MiB, share: on}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, project, disk):
    """Profiles, and locks of each on each release."""
    folder = tmp_path_factory.mktemp("locks")
    for name in PROFILES[:-1]:
        shutil.copy(os.path.join(project, "profiles", f"{name}.yaml"), folder)
    (folder / "native.yaml").write_text(NATIVE)
    shutil.copy(disk, folder / "disk.qcow2")
    return folder


def launcher(folder, *words: str, status: int | None = 0) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(__file__))}
    done = subprocess.run(
        [sys.executable, "-m", "launcher", *words],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    if status is not None:
        assert done.returncode == status, done.stdout + done.stderr
    return done


def locked(folder, profile: str, release: str) -> str:
    """The lock of a profile on a release, made once."""
    name = f"{profile}-{release}.lock.yaml"
    if not (folder / name).exists():
        binary = installed(release).binary
        launcher(folder, "lock", f"{profile}.yaml", "--qemu", binary, "-o", name)
    return name


def rows(folder, name: str) -> dict[tuple[str, str, str], dict]:
    """The values of a lock file, read by an independent YAML reader."""
    import yaml

    document = yaml.safe_load((folder / name).read_text())
    return {(r["family"], r["id"], r["property"]): r for r in document["values"]}


def alike(one: object, other: object) -> bool:
    return agrees(text(one), text(other)) or agrees(text(other), text(one))


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("old", RELEASES)
@pytest.mark.parametrize("new", RELEASES)
def test_every_pair(folder, profile, old, new):
    lock = locked(folder, profile, old)
    binary = installed(new).binary
    words = ("verify", f"{profile}.yaml", "--lock", lock, "--qemu", binary, "--format", "json")
    done = launcher(folder, *words, status=None)
    answer = json.loads(done.stdout)
    before = rows(folder, lock)
    # 11.1 alone has no way to say how the others shrink their polling time.
    refused = profile != "q35-disk-net" and new == "11.1" and old != "11.1"
    assert done.returncode == (4 if refused else 0), answer
    if refused:
        error = answer["error"]
        assert error["code"] == "lock"
        assert POLL in error["message"]
        assert "locked 0, possible 2" in error["message"]
        assert error["file"] == lock
        line = (folder / lock).read_text().splitlines()[error["line"] - 1]
        assert "poll-shrink" in line
        assert before["object", "io0", "poll-shrink"]["observed"] == 0
        return
    assert answer["verdict"] == "match"
    compared = 0
    for value in answer["values"]:
        row = before.get((value["family"], value["id"], value["property"]))
        if row is None:
            # Nothing the lock says is lost; what it does not know comes from the platform alone.
            assert not value["origin"].startswith(("profile", "qemu default"))
            continue
        assert value["origin"].startswith(f"lock {lock}:")
        # Where the releases need different words for one thing (poll-grow), values compare.
        plain = "written" not in row and value["planned"] == row["value"]
        if plain and "observed" in row and value["verdict"] == "match":
            assert alike(value["observed"], row["observed"]), (value, row)
            compared += 1
    assert compared >= 8
    said = {(v["family"], v["id"], v["property"]) for v in answer["values"]}
    left = {(o["family"], o["id"], o["property"]) for o in answer["omitted"]}
    assert set(before) <= said | left


@pytest.mark.parametrize("profile", PROFILES)
def test_locking_twice_gives_the_same_bytes(folder, profile, qemu, tmp_path):
    lock = (folder / locked(folder, profile, qemu.release)).read_bytes()
    second = str(folder / "second.lock.yaml")
    # The same from another folder, by other paths.
    path = os.path.relpath(folder / f"{profile}.yaml", tmp_path)
    launcher(tmp_path, "lock", path, "--qemu", qemu.binary, "-o", second)
    assert (folder / "second.lock.yaml").read_bytes() == lock
    text_ = lock.decode()
    assert str(folder) not in text_
    assert os.path.expanduser("~") not in text_


def test_qemu_has_what_the_lock_of_another_release_says(folder):
    """Asked by a client that knows nothing of the launcher, of a QEMU that nobody pinned."""
    lock = locked(folder, "native", "7.2")
    binary = installed("10.0").binary
    words = ("plan", "native.yaml", "--lock", lock, "--qemu", binary, "--format", "json")
    plan = json.loads(launcher(folder, *words).stdout)
    values = [v for v in plan["values"] if v["observer"] == "qom"]
    before = rows(folder, lock)
    defaults = [r for r in before.values() if r["origin"] == "qemu default 7.2.22"]
    assert {r["property"] for r in defaults} >= {"poll-grow", "poll-shrink", "poll-max-ns"}
    os.chdir(folder)
    with RawQMP(plan["argv"]) as qmp:
        for value in values:
            row = before[value["family"], value["id"], value["property"]]
            seen = ask(qmp, value)
            assert seen is not None
            assert alike(seen, row["observed"]), (value, row)


def test_the_machine_type_stays_what_the_alias_was(folder):
    (folder / "alias.yaml").write_text(NATIVE.replace("pc-q35-5.2", "q35"))
    launcher(folder, "lock", "alias.yaml", "--qemu", installed("7.2").binary)
    words = ("plan", "alias.yaml", "--locked", "--format", "argv", "--qemu")
    assert "pc-q35-7.2" in launcher(folder, *words, installed("10.0").binary).stdout
    refused = launcher(folder, *words, installed("5.2").binary, status=4)
    assert "machine type: locked pc-q35-7.2" in refused.stderr
    assert "alias.lock.yaml:" in refused.stderr


def test_a_locked_machine_runs(folder, guest):
    locked(folder, "microvm-demo", "10.0")
    shutil.copy(folder / "microvm-demo-10.0.lock.yaml", folder / "microvm-demo.lock.yaml")
    words = ("run", "--locked", "microvm-demo.yaml", "--qemu", installed("10.0").binary)
    done = launcher(folder, *words, "--until", "login:|# ", "--timeout", "80")
    assert "lock microvm-demo.lock.yaml:" in done.stderr


def test_check_tells_what_moved(folder):
    (folder / "moving.yaml").write_text(NATIVE)
    binary = installed("10.0").binary
    launcher(folder, "lock", "moving.yaml", "--qemu", binary)
    words = ("lock", "--check", "moving.yaml", "--format", "json", "--qemu")
    answer = json.loads(launcher(folder, *words, binary).stdout)
    assert answer == {"lock": "moving.lock.yaml", "moved": []}
    # White space and comments say nothing.
    spaced = NATIVE.replace("memory: 64MiB", "# a comment\nmemory:   64MiB").replace(", ", ",  ")
    (folder / "moving.yaml").write_text(spaced)
    assert json.loads(launcher(folder, *words, binary).stdout)["moved"] == []
    (folder / "moving.yaml").write_text(NATIVE.replace("64MiB", "128MiB"))
    moved = json.loads(launcher(folder, *words, installed("7.2").binary, status=1).stdout)["moved"]
    names = {(m["what"], m["name"]): (m["locked"], m["now"]) for m in moved}
    assert names["profile", "memory.size"] == ("64MiB", "128MiB")
    assert names["qemu", "version"] == ("10.0.2", "7.2.22")
    assert {("qemu", "build"), ("qemu", "answers"), ("qemu", "build-id")} <= set(names)
    assert names["value", "object memory-backend-memfd ram size"] == (64 << 20, 128 << 20)


def test_check_sees_a_platform_that_moved(folder):
    """A site's own platform: its file changes, the profile does not."""
    (folder / "site.yaml").write_text(
        "name: site\nextends: debian-12\nobject: {iothread: {poll-max-ns: {value: '1000'}}}\n"
    )
    (folder / "sited.yaml").write_text(NATIVE.replace("platform: native", "platform: ./site.yaml"))
    binary = installed("10.0").binary
    launcher(folder, "lock", "sited.yaml", "--qemu", binary)
    site = (folder / "site.yaml").read_text()
    (folder / "site.yaml").write_text(site.replace("1000", "2000"))
    words = ("lock", "--check", "sited.yaml", "--format", "json", "--qemu", binary)
    moved = json.loads(launcher(folder, *words, status=1).stdout)["moved"]
    names = {(m["what"], m["name"]): (m["locked"], m["now"]) for m in moved}
    assert ("platform", "digest") in names
    assert names["value", "object iothread io0 poll-max-ns"] == (1000, 2000)
    assert len(names) == 2
    # The lock wins over the platform's data of now.
    words = ("verify", "--locked", "sited.yaml", "--format", "json", "--qemu", binary)
    report = json.loads(launcher(folder, *words).stdout)
    polled = [v for v in report["values"] if v["property"] == "poll-max-ns"]
    assert [(v["planned"], v["observed"]) for v in polled] == [(1000, 1000)]
    assert polled[0]["origin"].startswith("lock sited.lock.yaml:")


def test_no_secret_is_in_a_lock(folder):
    profile = NATIVE + "  key0: {qom-type: secret, data: '${password}'}\n"
    (folder / "secret.yaml").write_text(profile + "vars: {password: null}\n")
    words = ("secret.yaml", "--qemu", installed("10.0").binary)
    given = ("--set", "password=hunter2-of-the-lock")
    launcher(folder, "lock", *words, *given)
    text_ = (folder / "secret.lock.yaml").read_text()
    assert "hunter2" not in text_
    refused = launcher(folder, "verify", "--locked", *words, status=2)
    assert "password is a secret, which a lock file does not hold" in refused.stderr
    launcher(folder, "verify", "--locked", *words, *given)


def test_diff_compares_two_machines(folder):
    one, two = locked(folder, "microvm-demo", "7.2"), locked(folder, "microvm-demo", "11.1")
    done = launcher(folder, "lock", "--diff", one, two, "--format", "json", status=1)
    found = {
        (d["what"], d["name"]): (d["old"], d["new"]) for d in json.loads(done.stdout)["differences"]
    }
    assert found["qemu", "version"] == ("7.2.22", "11.1.3")
    assert found["value", POLL] == (0, 2)
    assert found["observed", "object iothread io0 poll-grow"] == (0, 2)
    launcher(folder, "lock", "--diff", one, one, "--format", "json")
    shown = launcher(folder, "lock", "--diff", one, two, status=1).stdout
    assert POLL in shown


def test_a_locked_storage_daemon(folder, qemu):
    (folder / "daemon.yaml").write_text(
        "tool: qemu-storage-daemon\nplatform: debian-12\nobjects: {io0: {qom-type: iothread}}\n"
        "blockdevs: {d: {driver: null-co, size: 1048576}}\n"
    )
    words = ("daemon.yaml", "--qemu", qemu.storage_daemon)
    launcher(folder, "lock", *words)
    launcher(folder, "verify", "--locked", *words)
    assert (
        json.loads(launcher(folder, "lock", "--check", *words, "--format", "json").stdout)["moved"]
        == []
    )


async def test_from_python(folder, monkeypatch):
    import launcher

    monkeypatch.chdir(folder)
    shutil.copy("native.yaml", "python.yaml")
    written = await launcher.lock("python.yaml", qemu=installed("10.0").binary)
    assert written.file == "python.lock.yaml"
    async with launcher.launch("python.yaml", qemu=installed("7.2").binary, locked=True) as machine:
        assert machine.report.verdict == "match"
        kinds = {value.origin.kind for value in machine.plan.values}
        assert kinds == {"lock"}
    with pytest.raises(HostError) as caught:
        async with launcher.launch("python.yaml", qemu=installed("11.1").binary, locked=True):
            pass
    assert caught.value.evidence["values"][0]["property"] == POLL
