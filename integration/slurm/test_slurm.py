"""Machines as jobs of a real Slurm, with the scripts that are shipped; nothing of them is left."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from itertools import product

import pytest

from integration.conftest import ROOT, installed
from integration.slurm.cluster import NODES, Cluster

pytestmark = pytest.mark.integration

FULL = os.environ.get("QEMU_LAUNCHER_FULL") == "1"
SCRIPTS = os.path.join(ROOT, "packaging", "slurm")
#: Nothing runs in it that would heed a power button.
BARE = """\
name: bare
platform: debian-12
machine: {type: pc, acpi: on}
accel: tcg
memory: 32MiB
stop: {powerdown-seconds: 1}
"""


@pytest.fixture(scope="module")
def cluster():
    folder = tempfile.mkdtemp(
        prefix="slurm-"
    )  # pytest's own are closed to others, and munged minds
    made = Cluster(folder)
    bin_folder = os.path.join(folder, "bin")
    os.mkdir(bin_folder)
    launcher = os.path.join(bin_folder, "qemu-launcher")
    with open(launcher, "w") as file:
        file.write(f'#!/bin/sh\nexec "{sys.executable}" -m launcher "$@"\n')
    os.chmod(launcher, 0o755)
    made.environment["PATH"] = f"{bin_folder}:{os.environ['PATH']}"
    made.environment["PYTHONPATH"] = ROOT
    with made:
        yield made
        # A test that failed may have left some, whose keepers would wait for the controller, and
        # the rest of an array.
        made.run("scancel", "--me", "--state=PENDING", check=False)
        for pid in machines(made):
            os.kill(pid, signal.SIGKILL)
        made.wait(lambda: not made.run("squeue", "-h").stdout, "jobs do not end")
    shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def nothing_left(request):
    """After each test there is no QEMU and no runtime directory of a job."""
    if "cluster" not in request.fixturenames:
        yield
        return
    cluster = request.getfixturevalue("cluster")
    yield
    cluster.wait(lambda: not machines(cluster), "machines are left")
    cluster.wait(lambda: not folders(cluster), "folders are left")


def is_ours(cluster: Cluster, path: str) -> bool:
    """Whether that is a runtime directory of a job of this cluster."""
    found = re.fullmatch(r"/tmp/qemu-launcher-job-(\d+)", path)
    return found is not None and 0 <= int(found[1]) - cluster.first < 1000


def machines(cluster: Cluster) -> dict[int, str]:
    """Processes that live in the runtime directory of a job: launchers and QEMUs."""
    found = {}
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                variables = file.read().decode(errors="replace").split("\0")
            with open(f"/proc/{name}/cmdline", "rb") as file:
                words = file.read().decode(errors="replace").split("\0")
        except OSError:
            continue
        at = [v.partition("=")[2] for v in variables if v.startswith("XDG_RUNTIME_DIR=")]
        if at and is_ours(cluster, at[0]):
            found[int(name)] = os.path.basename(words[0])
    return found


def folders(cluster: Cluster) -> list[str]:
    """Runtime directories of the cluster's jobs."""
    names = [os.path.join("/tmp", name) for name in os.listdir("/tmp")]
    return [name for name in names if is_ours(cluster, name)]


def write_profile(cluster: Cluster, text: str = BARE) -> str:
    path = os.path.join(cluster.folder, "bare.yaml")
    with open(path, "w") as file:
        file.write(text)
    return path


def started(cluster: Cluster, *words: str, powerdown: int = 1) -> tuple[str, int]:
    """A machine as a job: the job's number and QEMU's pid, once it was verified and runs."""
    qemu = installed("11.1").binary
    more = ["--qemu", qemu, "--set", f"stop.powerdown-seconds={powerdown}"]
    script = f"{SCRIPTS}/machine.sbatch"
    job = cluster.submit("-o", "machine-%j.out", *words, script, write_profile(cluster), *more)
    cluster.wait_job(job, "RUNNING")
    cluster.wait(lambda: "verdict: match" in cluster.output(f"machine-{job}.out"), "no verdict")
    [pid] = [pid for pid, name in machines(cluster).items() if name.startswith("qemu-system")]
    return job, pid


def booted(guest: str) -> list[str]:
    settings = (f"kernel={guest}/vmlinuz", f"initrd={guest}/initrd.img", "accel=tcg")
    return [word for one in settings for word in ("--set", one)]


def test_srun_starts_a_verified_machine_and_shows_its_console(cluster, guest):
    words = [f"{ROOT}/profiles/microvm-demo.yaml", "--qemu", installed("11.1").binary]
    words += [*booted(guest), "--until", "guest is up", "--format", "text"]
    done = cluster.run("srun", "-w", "n2", f"{SCRIPTS}/machine.sbatch", *words, check=False)
    assert done.returncode == 0, done.stderr
    assert "verdict: match" in done.stderr
    assert "guest is up" in done.stdout


@pytest.mark.parametrize("case", ["input", "mismatch", "qemu", "host"])
def test_exit_codes_arrive(cluster, case, tmp_path):
    qemu = installed("10.0").binary
    path = write_profile(cluster)
    words = {
        "input": ["--set", "memory=lots", "--qemu", qemu],
        "mismatch": ["--qemu", str(tmp_path / "meddled" / "qemu-system-x86_64")],
        "qemu": ["--qemu", qemu, "--set", "extra-args=[-device, no-such-device]"],
        "host": ["--qemu", qemu, "--set", "accel=hvf"],  # what no QEMU on Linux has
    }[case]
    if case == "mismatch":
        (tmp_path / "meddled").mkdir()
        meddled = tmp_path / "meddled" / "qemu-system-x86_64"
        more = "-global migration.send-switchover-start=on"
        meddled.write_text(f'#!/bin/sh\nexec {qemu} "$@" {more}\n')
        meddled.chmod(0o755)
        words += ["--platform", "debian-11"]
    job = cluster.submit("-o", "exit-%j.out", f"{SCRIPTS}/machine.sbatch", path, *words)
    status = {"mismatch": 1, "input": 2, "qemu": 3, "host": 4}[case]
    found = cluster.wait_job(job, "FAILED", "COMPLETED")
    shown = cluster.output(f"exit-{job}.out")
    assert (found["JobState"], found["ExitCode"]) == ("FAILED", f"{status}:0"), shown
    # What sacct has is written when the job has been cleaned up after.
    cluster.wait(lambda: f"|{job}|" in completed(cluster), "sacct does not know the job")
    assert f"|{job}|FAILED|" in completed(cluster)


def completed(cluster: Cluster) -> str:
    words = ("--completion", "--parsable", "--noheader", "--format=jobid,state")
    return "\n".join(f"|{line}" for line in cluster.run("sacct", *words).stdout.splitlines())


def test_scancel_ends_a_machine_at_once_and_leaves_nothing_behind(cluster):
    # The launcher would wait longer than this test, and so would Slurm with SIGKILL (KillWait).
    job, pid = started(cluster, powerdown=200)
    fd = os.pidfd_open(pid)
    try:
        cluster.run("scancel", job)
        assert select.select([fd], [], [], 60)[0]
    finally:
        os.close(fd)
    assert cluster.wait_job(job, "CANCELLED")["JobState"] == "CANCELLED"


def test_a_signal_to_the_batch_step_alone_is_an_orderly_end(cluster):
    job, _pid = started(cluster)
    cluster.run("scancel", "--batch", "--signal=TERM", job)
    found = cluster.wait_job(job, "COMPLETED", "FAILED", "CANCELLED")
    assert (found["JobState"], found["ExitCode"]) == ("COMPLETED", "0:0")


def test_a_machine_that_crashes_is_a_failed_job(cluster):
    job, pid = started(cluster)
    os.kill(pid, signal.SIGKILL)
    found = cluster.wait_job(job, "FAILED", "COMPLETED")
    assert (found["JobState"], found["ExitCode"]) == ("FAILED", "3:0")


def test_a_node_that_fails_leaves_nothing_behind(cluster):
    job, pid = started(cluster, "-w", "n1")
    cluster.end("n1")
    cluster.fail_node("n1")
    assert cluster.wait_job(job, "NODE_FAIL")["JobState"] == "NODE_FAIL"
    assert pid in machines(cluster)  # Slurm cannot reach it while nobody listens there
    cluster.bring_back("n1")
    cluster.wait(lambda: not machines(cluster), "the node is back, and its machine still runs")


def test_a_machine_ends_with_the_keeper_of_its_step(cluster):
    job, pid = started(cluster, "-w", "n2")
    launcher = parent_of(pid)
    keeper = parent_of(launcher)
    with open(f"/proc/{keeper}/cmdline") as file:
        assert "slurmstepd" in file.read()
    cluster.end("n2")
    os.kill(keeper, signal.SIGKILL)
    cluster.wait(lambda: not machines(cluster), "it runs without a keeper")
    cluster.fail_node("n2")
    assert cluster.wait_job(job, "NODE_FAIL")["JobState"] == "NODE_FAIL"
    cluster.bring_back("n2")


def parent_of(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def known_platforms() -> dict[str, tuple[int, ...]]:
    """Every distribution release that the launcher knows with its QEMU, and `native` with none."""
    words = [sys.executable, "-m", "launcher", "platform", "list"]
    listed = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout
    rows = [line.split() for line in listed.splitlines()[1:]]
    found = {row[0]: release_of(row[1]) for row in rows if row[1][0].isdigit()}
    return {**found, "native": ()}


def release_of(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def sample(cluster: Cluster, name: str, guest: str) -> str:
    """A profile of `profiles/` for this host, with the guest of the tests."""
    path = os.path.join(cluster.folder, f"{name}.yaml")
    with open(f"{ROOT}/profiles/{name}.yaml") as file, open(path, "w") as copy:
        text = file.read().replace("${cache}/guest", guest)
        copy.write(text.replace("accel: [kvm, tcg]", "accel: tcg"))
    return path


@pytest.mark.timeout(1800 if FULL else 120)
@pytest.mark.parametrize(
    "until", ["", "guest is up"][: 1 + FULL], ids=["verified", "booted"][: 1 + FULL]
)
def test_a_job_array_runs_a_matrix(cluster, guest, until):
    """Each profile on each platform with each QEMU; `QEMU_LAUNCHER_FULL=1` takes all of them."""
    releases = ("5.2", "7.2", "10.0", "11.1") if FULL else ("7.2", "11.1")
    known = known_platforms()
    platforms = list(known) if FULL else ["debian-11", "debian-12"]
    profiles = [sample(cluster, "microvm-demo", guest)]
    if not until:
        more = ("numa-memfd", "migration-pair") if FULL else ()
        profiles += [write_profile(cluster), *(sample(cluster, name, guest) for name in more)]
    fields = [profiles, platforms, [installed(r).binary for r in releases]]
    names = ("PROFILES", "PLATFORMS", "QEMUS")
    words = {name: " ".join(field) for name, field in zip(names, fields, strict=True)}
    if until:
        words["UNTIL"] = until
    count = len(profiles) * len(platforms) * len(releases)
    before, began = dict(cluster.environment), time.monotonic()
    cluster.environment |= words
    try:
        job = cluster.submit(f"--array=0-{count - 1}", f"{SCRIPTS}/matrix.sbatch")
    finally:
        cluster.environment = before
    used, values, newer = set(), 0, 0
    for number, (_, platform, release) in enumerate(product(profiles, platforms, releases)):
        found = cluster.wait_job(f"{job}_{number}", "COMPLETED", "FAILED", seconds=110)
        shown = cluster.output(f"matrix-{job}_{number}.out")
        used.add(found["NodeList"])
        if known[platform] > release_of(release) and found["JobState"] == "FAILED":
            # A floor that this binary is older than.
            assert found["ExitCode"] == "4:0", shown
            assert "stands for QEMU" in shown
            newer += 1
            continue
        assert (found["JobState"], found["ExitCode"]) == ("COMPLETED", "0:0"), shown
        report = ET.parse(os.path.join(cluster.folder, f"report-{job}_{number}.xml")).getroot()
        cases = report.findall(".//testcase")
        assert cases
        assert not report.findall(".//failure")
        values += len(cases)
    assert used == set(NODES)
    took = time.monotonic() - began
    print(f"{count} fields, {newer} of them refused, {values} values read back, {took:.0f} s")
