"""The platform that two hosts share, where one of them has an older kernel: true on both.

The older kernel is this one behind a seccomp filter: it refuses the tap offloads that Linux 6.2 and
6.17 brought, userfaultfd and io_uring, for the launcher's questions and for QEMU alike.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from integration.conftest import installed, needs, needs_tap

pytestmark = pytest.mark.integration

#: Runs in namespaces of its own: `OLD|NEW facts NAME BINARY` or `OLD|NEW start BINARY PLATFORM`.
SCRIPT = """
import asyncio, ctypes, errno, json, struct, sys

TUNSETOFFLOAD, NEW_OFFLOADS = 0x400454D0, 0x20 | 0x40 | 0x80 | 0x100
IOCTL, USERFAULTFD, IO_URING_SETUP = 16, 323, 425
ALLOW, ERRNO = 0x7FFF0000, 0x00050000

def age():
    program = (
        (0x20, 0, 0, 0),                           # the system call's number
        (0x15, 7, 0, USERFAULTFD),
        (0x15, 6, 0, IO_URING_SETUP),
        (0x15, 0, 4, IOCTL),
        (0x20, 0, 0, 24),                          # ioctl's second argument
        (0x15, 0, 2, TUNSETOFFLOAD),
        (0x20, 0, 0, 32),                          # and its third: the offloads, by value
        (0x45, 2, 0, NEW_OFFLOADS),
        (0x06, 0, 0, ALLOW),
        (0x06, 0, 0, ERRNO | errno.ENOSYS),
        (0x06, 0, 0, ERRNO | errno.EINVAL),
    )
    body = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in program))
    header = struct.pack("=H6xQ", len(program), ctypes.addressof(body))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.prctl(22, 2, ctypes.create_string_buffer(header)) == 0

if sys.argv[1] == "OLD":
    age()

def facts(name, binary):
    from launcher.cli import main
    raise SystemExit(main(["host", "--name", name, "--qemu", binary, "--format", "json"]))

async def start(binary, platform):
    import launcher
    from launcher.report import report_json
    profile = {
        "name": "tap", "platform": platform, "machine": "pc-q35-10.0", "accel": "tcg",
        "memory": "64MiB",
        "netdevs": {"n0": {"type": "tap", "ifname": "qltap0", "script": "no", "downscript": "no"}},
        "devices": {"nic": {"driver": "virtio-net-pci", "netdev": "n0"}},
    }
    async with launcher.launch(profile, qemu=binary) as machine:
        found = {"report": report_json(machine.report)}
        if found["report"]["qemu"]["version"].startswith("10.0"):  # others abort when asked
            path = "/machine/peripheral/nic/virtio-backend"
            status = await machine.qmp("x-query-virtio-status", {"path": path})
            words = status["host-features"]["dev-features"]
            found["features"] = sorted(word.partition(":")[0] for word in words)
        print(json.dumps(found))

if sys.argv[2] == "facts":
    facts(*sys.argv[3:])
asyncio.run(start(*sys.argv[3:]))
"""

ENTER = """
mount -t sysfs sysfs /sys
[ "$1" != OLD ] || [ ! -e /dev/userfaultfd ] || mount --bind /dev/null /dev/userfaultfd
python=$2 script=$3 age=$1
shift 3
exec "$python" -c "$script" "$age" "$@"
"""


class Fleet:
    """Two hosts, each with its own cache: what a host was asked is kept there."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def on(self, age: str, *words: str) -> dict:
        done = subprocess.run(
            [
                *("unshare", "--net", "--mount", "sh", "-ec", ENTER, "sh"),
                *(age, sys.executable, SCRIPT, *words),
            ],
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
                "XDG_CACHE_HOME": os.path.join(self.folder, age),
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            },
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def meet(self, facts: dict[str, dict]) -> tuple[str, dict]:
        """The path of the platform that hosts with these facts share, and what is told of it."""
        files = []
        for name, value in facts.items():
            files.append(os.path.join(self.folder, f"{name}.json"))
            with open(files[-1], "w", encoding="utf-8") as file:
                json.dump(value, file)
        path = os.path.join(self.folder, "meet.yaml")
        words = ["platform", "meet", *files, "-o", path, "--format", "json"]
        done = subprocess.run(
            [sys.executable, "-m", "launcher", *words], capture_output=True, check=True, timeout=90
        )
        return path, json.loads(done.stdout)


@pytest.fixture
def fleet(tmp_path):
    needs_tap()
    return Fleet(str(tmp_path))


def effective(started: dict) -> set[str]:
    """The features that QEMU offers the guest."""
    return set(started["features"])


def test_a_machine_starts_alike_on_a_newer_and_an_older_kernel(fleet):
    old_qemu, new_qemu = (installed(release).binary for release in ("10.0", "11.1"))
    facts = {
        "old": fleet.on("OLD", "facts", "old", old_qemu),
        "new": fleet.on("NEW", "facts", "new", new_qemu),
    }
    told = {name: one["features"] for name, one in facts.items()}
    there = told["new"]["tun-uso"]["present"]
    needs(there, "this kernel has no USO that an older one could lack")
    for feature in ("tun-uso", "tun-tunnel", "io_uring", "userfaultfd"):
        assert told["old"][feature]["present"] is False, feature
    assert told["old"]["tun-ufo"] == told["new"]["tun-ufo"]

    path, found = fleet.meet(facts)
    assert (found["qemu"]["floor"], found["qemu"]["limited_by"]) == ("10.0", ["old"])
    assert found["features"]["tun-uso"]["limited_by"] == ["old"]

    # Without it the same machine differs between the kernels, and silently so.
    apart = [effective(fleet.on(age, "start", old_qemu, "native")) for age in ("OLD", "NEW")]
    assert any("USO" in word for word in apart[1] - apart[0])

    started = {
        (age, release): fleet.on(age, "start", binary, path)
        for age in ("OLD", "NEW")
        for release, binary in (("10.0", old_qemu), ("11.1", new_qemu))
    }
    assert effective(started["OLD", "10.0"]) == effective(started["NEW", "10.0"])
    for (age, release), one in started.items():
        assert one["report"]["verdict"] == "match", (age, release)
        values = {value["property"]: value for value in one["report"]["values"]}
        for name in ("host_uso", "guest_uso4", "guest_uso6", "postcopy-ram"):
            assert values[name]["observed"] is False, (age, release, name)
            assert values[name]["origin"] == "platform meet"
        assert ("host_tunnel" in values) is (release == "11.1")


def test_hosts_with_the_same_kernel_keep_its_offloads(fleet):
    """What all have is not pinned: the intersection takes away nothing that is shared."""
    binary = installed("10.0").binary
    facts = {name: fleet.on("NEW", "facts", name, binary) for name in ("a", "b")}
    path, found = fleet.meet(facts)
    assert found["features"]["tun-uso"]["everywhere"] is True
    shared, native = (fleet.on("NEW", "start", binary, one) for one in (path, "native"))
    assert effective(shared) == effective(native)


def test_models_have_the_flags_that_the_data_say(qemu):
    """The recorded flags are a part of what each release answers of its models."""
    from integration.rawqmp import RawQMP
    from launcher.data import load_cpus

    words = {"sse4.1": "sse4_1", "sse4.2": "sse4_2", "spec-ctrl": "ibrs", "amd-ssbd": "ssbd"}
    words |= {"amd-stibp": "stibp", "avx512vnni": "avx512_vnni", "avx512bitalg": "avx512_bitalg"}
    words |= {"avx512vbmi2": "avx512_vbmi2", "tsx-ldtrk": "tsxldtrk", "cr8legacy": "cr8_legacy"}
    words |= {"core-capability": "core_capabilities"}
    argv = [qemu.binary, "-nodefaults", "-display", "none", "-machine", "none", "-S"]
    monitor = RawQMP(argv)
    try:
        known = {one["name"] for one in monitor.execute("query-cpu-definitions")}
        for model in load_cpus("x86_64").models:
            since = tuple(int(n) for n in str(model.qemu).split("."))
            assert (model.name in known) is (since <= tuple(map(int, qemu.release.split("."))))
            if model.name in known:
                answer = monitor.execute(
                    "query-cpu-model-expansion", type="static", model={"name": model.name}
                )
                properties = answer["model"]["props"]
                on = {name for name, value in properties.items() if value is True}
                kernel = {words.get(name, name.replace("-", "_")) for name in on}
                assert model.flags <= kernel, model.name
                assert model.vendor == properties.get("vendor", model.vendor)
    finally:
        monitor.close()
