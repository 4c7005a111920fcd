"""`preflight` at the terminal: profiles, lock files, JSON and host facts, with real binaries."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from integration import older_kernel
from integration.conftest import installed, needs_tap

pytestmark = pytest.mark.integration

MICROVM = """
name: moved
platform: native
machine: {type: microvm, acpi: off, pit: on, pic: on, rtc: on, isa-serial: on}
accel: tcg
memory: 64MiB
"""


def run(*words: str, prefix: tuple[str, ...] = (), **environment: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "launcher", *words],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
            **environment,
        },
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


def told(*words: str) -> tuple[int, dict]:
    status, out, err = run("preflight", *words, "--format", "json")
    assert out, err
    return status, json.loads(out)


@pytest.fixture
def profile(tmp_path) -> str:
    path = tmp_path / "moved.yaml"
    path.write_text(MICROVM)
    return str(path)


def ends(source: str, destination: str) -> list[str]:
    return ["--from", installed(source).binary, "--to", installed(destination).binary]


@pytest.mark.parametrize("observe", [[], ["--observe"]], ids=["planned", "observed"])
def test_a_profile_on_two_binaries(profile, observe):
    status, found = told(profile, *ends("10.0", "7.2"), *observe)
    assert (status, found["verdict"]) == (1, "breaks")
    finding = found["findings"][0]
    assert (finding["property"], finding["severity"]) == ("send-switchover-start", "breaks")
    assert finding["cures"][0]["platform"] == "debian-12"
    assert found["source"]["version"] == "10.0.2"

    # What it names is what cures it.
    cured = told(profile, *ends("10.0", "7.2"), *observe, "--platform", "debian-12")
    assert (cured[0], cured[1]["counts"]["breaks"]) == (0, 0)
    one_end = told(profile, *ends("10.0", "7.2"), *observe, "--from-platform", "debian-12")
    assert one_end[0] == 0
    assert told(profile, *ends("7.2", "10.0"), *observe)[0] == 0


def test_text_says_words_and_cures(profile):
    status, out, _ = run("preflight", profile, *ends("10.0", "7.2"))
    assert status == 1
    for words in ("MIG_CMD 0xb unknown", "cure: platform: debian-12 at both ends", "1 breaks"):
        assert words in out


def test_a_firmware_of_another_size_is_seen(profile):
    """Nobody's data knows this file: its size tells, and so do the two machines' RAM blocks."""
    firmware = os.path.join(os.path.dirname(profile), "firmware.bin")
    with open(firmware, "wb") as file:
        file.write(bytes(128 * 1024))
    here = ["--set", "machine=pc-q35-7.2", *ends("10.0", "10.0")]
    with open(profile, encoding="utf-8") as file:
        text = file.read()
    other = f"{profile}.other.yaml"
    with open(other, "w", encoding="utf-8") as file:
        file.write(f"{text}boot: {{firmware: {firmware}}}\n")
    for how in ((), ("--observe",)):
        status, found = told(profile, other, *here, *how)
        assert status == 1
        broken = [f for f in found["findings"] if f["severity"] == "breaks"]
        assert [(f["code"], "pc.bios" in f["message"]) for f in broken] == [("ram-size", True)]
    # Of a host whose facts say nothing of files nothing is known.
    facts = f"{profile}.facts.json"
    with open(facts, "w", encoding="utf-8") as file:
        file.write('{"format": "host-facts-1", "features": {}}')
    assert told(profile, other, *here, "--to-host", facts)[1]["counts"]["breaks"] == 0


def test_lock_files(profile):
    files = {}
    for release, platform in (("10.0", "native"), ("7.2", "native"), ("10.0", "debian-12")):
        files[release, platform] = path = f"{profile}.{release}.{platform}.lock.yaml"
        words = ["--qemu", installed(release).binary, "--platform", platform, "-o", path]
        status, _, err = run("lock", profile, *words)
        assert status == 0, err
    status, found = told(files["10.0", "native"], files["7.2", "native"])
    assert status == 1
    broken = [f["property"] for f in found["findings"] if f["severity"] == "breaks"]
    assert broken == ["send-switchover-start"]
    assert told(files["10.0", "debian-12"], files["7.2", "native"])[0] == 0
    assert told(files["7.2", "native"], files["10.0", "native"])[0] == 0
    # A lock file and a profile go together, too.
    mixed = told(files["10.0", "native"], profile, "--to", installed("7.2").binary)
    assert mixed[0] == 1


@pytest.mark.parametrize("verb", ["plan", "verify"])
def test_plans_and_reports(profile, verb):
    files = []
    for release in ("10.0", "7.2"):
        status, out, err = run(verb, profile, "--qemu", installed(release).binary,
                               "--format", "json")  # fmt: skip
        assert status == 0, err
        files.append(f"{profile}.{release}.json")
        with open(files[-1], "w", encoding="utf-8") as file:
            file.write(out)
    status, found = told(*files)
    assert (status, found["findings"][0]["property"]) == (1, "send-switchover-start")
    assert told(*reversed(files))[0] == 0


@pytest.fixture
def hosts(tmp_path) -> list[str]:
    """The facts of this host, and of one with an older kernel."""
    needs_tap()
    files = []
    for name, lacks in (("new", 0), ("old", older_kernel.USO | older_kernel.TUNNEL)):
        prefix = tuple(older_kernel.argv(lacks))
        status, out, err = run("host", "--format", "json", prefix=prefix,
                               XDG_CACHE_HOME=str(tmp_path / name))  # fmt: skip
        assert status == 0, err
        files.append(str(tmp_path / f"{name}.json"))
        with open(files[-1], "w", encoding="utf-8") as file:
            file.write(out)
    return files


def test_two_hosts_and_a_machine_between_them(hosts, tmp_path):
    status, found = told(*hosts)
    assert (status, found["verdict"]) == (0, "risks")
    assert "host_uso" in {f["property"] for f in found["findings"]}
    assert told(*reversed(hosts))[1]["counts"]["risks"] == 0

    profile = tmp_path / "tap.yaml"
    profile.write_text(
        "name: tap\nplatform: native\nmachine: pc-q35-10.0\naccel: tcg\nmemory: 64MiB\n"
        "netdevs: {n0: {type: tap, ifname: t0, script: no, downscript: no}}\n"
        "devices: {nic: {driver: virtio-net-pci, netdev: n0}}\n"
    )
    there = ["--from-host", hosts[0], "--to-host", hosts[1]]
    status, found = told(str(profile), *ends("10.0", "10.0"), *there)
    assert status == 1
    finding = found["findings"][0]
    assert (finding["code"], finding["property"]) == ("tap-feature", "host_uso")
    platform = finding["cures"][0]["platform"]
    assert told(str(profile), *ends("10.0", "10.0"), *there, "--platform", platform)[0] == 0


def test_a_machine_type_that_the_destination_lacks(profile):
    words = ["--set", "machine=pc-q35-10.0", *ends("10.0", "7.2")]
    status, found = told(profile, *words)
    assert status == 1
    assert [f["code"] for f in found["findings"]] == ["machine-missing"]
    assert found["findings"][0]["cures"][0]["value"] == "pc-q35-7.2"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{p}", "{p}", "{p}"], "there are two ends"),
        (["/nowhere.yaml"], "no such file"),
        (["{h}"], "there is no other"),
        (["{h}", "{p}"], "tells of a host"),
        (["{b}", "{h}"], "is not JSON"),
        (["{e}", "{h}"], "neither a plan nor a report nor a host's facts"),
        (["{p}", "--from-host", "{p}"], "holds no host's facts"),
        (["{p}", "--set", "memry=1"], "memry"),
        (["{d}"], "no guest that could migrate"),
        (["{l}", "{l}"], "is a lock file of format strange"),
    ],
)
def test_what_cannot_be_compared(profile, tmp_path, words, said):
    files = {
        "h": '{"format": "host-facts-1", "features": {}}',
        "b": "{",
        "e": "{}",
        "d": "name: d\nplatform: native\ntool: qemu-storage-daemon\n",
        "l": "digest: x\nformat: strange\n",
    }
    names = {"p": profile}
    for key, text in files.items():
        names[key] = str(tmp_path / f"{key}.yaml")
        with open(names[key], "w", encoding="utf-8") as file:
            file.write(text)
    binary = ["--from", installed("10.0").binary, "--to", installed("10.0").binary]
    daemon = installed("10.0").storage_daemon
    if words == ["{d}"]:
        binary = ["--from", daemon, "--to", daemon]
    status, out, err = run("preflight", *(w.format(**names) for w in words), *binary)
    assert (status, out) == (2, "")
    assert said in err
