"""Host facts, asked of this host's kernel; refusals are made by a real seccomp filter."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import select
import signal
import struct
import subprocess
import time

import pytest

from launcher.errors import InputError
from launcher.host import binaries, facts, readings, syscalls, tap, vhost
from launcher.host.child import in_child

SYSCALLS = {"io_uring_setup": 425, "io_uring_enter": 426, "io_setup": 206, "userfaultfd": 323}
SYSCALLS |= {"memfd_create": 319}
only_x86 = pytest.mark.skipif(
    os.uname().machine != "x86_64", reason="the filter knows x86_64's system calls"
)
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "qemu-launcher"


def as_nobody(ask):
    """What `ask` returns in a process without privileges."""

    def asked():
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        return ask()

    return in_child(asked, 20)


def without_syscall(name, code, ask):
    """What `ask` returns in a process where a system call fails, as on an older kernel."""
    libc = ctypes.CDLL(None, use_errno=True)

    def asked():
        program = b"".join(
            struct.pack("=HBBI", *instruction)
            for instruction in (
                (0x20, 0, 0, 0),  # load the number
                (0x15, 0, 1, SYSCALLS[name]),
                (0x06, 0, 0, 0x00050000 | code),  # SECCOMP_RET_ERRNO
                (0x06, 0, 0, 0x7FFF0000),  # SECCOMP_RET_ALLOW
            )
        )
        body = ctypes.create_string_buffer(program)
        header = ctypes.create_string_buffer(struct.pack("=H6xQ", 4, ctypes.addressof(body)))
        assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
        assert libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0) == 0
        return ask()

    return in_child(asked, 20)


def test_everything_is_json():
    found = facts.gather()
    assert set(found) == {*facts.FACTS, "features"}
    assert set(found["features"]) == set(facts.FEATURES)
    assert json.loads(json.dumps(found)) == found
    for name, judged in found["features"].items():
        assert judged["present"] in (True, False, None), name
        assert judged["reason"], name


def test_what_is_not_asked_is_not_gathered(cache):
    assert facts.gather({"arch"}) == {"arch": os.uname().machine}
    assert not cache.exists()  # neither KVM nor a tap was touched
    found = facts.gather(features=["memfd-sealing"])
    assert set(found) == {"memfd-sealing", "features"}
    assert set(found["features"]) == {"memfd-sealing"}
    assert facts.gather([]) == {}


def test_names_that_do_not_exist():
    with pytest.raises(InputError, match="no host fact 'kernal'") as wrong:
        facts.gather(["kernal"])
    assert "kernel" in wrong.value.hint
    with pytest.raises(InputError, match="no host feature 'tun-usb'") as wrong:
        facts.feature("tun-usb")
    assert "tun-uso" in wrong.value.hint


def _says(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_against_the_system_s_own_tools():
    found = facts.gather(["kernel", "cpus", "memory", "ulimits", "arch"])
    assert found["kernel"]["release"] == _says("uname", "-r")
    assert _says("uname", "-r").startswith(found["kernel"]["series"] + ".")
    assert found["cpus"]["usable"] == int(_says("nproc"))
    assert found["memory"]["total"] == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for name, option in (("open-files", "n"), ("locked-memory", "l"), ("core", "c")):
        for value, kind in zip(found["ulimits"][name], "SH", strict=True):
            said = _says("bash", "-c", f"ulimit -{kind}{option}")
            unit = 1 if name == "open-files" else 1024
            if said == "unlimited":
                assert value is None
            else:
                assert value is not None
                assert value // unit * unit == int(said) * unit or name == "core"


def test_cpu_flags_are_those_of_every_cpu():
    flags = set(readings.cpu()["flags"])
    lines = readings.read("/proc/cpuinfo").splitlines()
    per_cpu = [set(x.split(":")[1].split()) for x in lines if x.startswith(("flags", "Features"))]
    assert flags == set.intersection(*per_cpu)
    assert flags


def test_io_uring_and_memfd_here():
    for name in ("io_uring", "memfd-sealing"):
        judged = facts.feature(name)
        assert judged.present in (True, False)
        assert judged.reason


@only_x86
@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EPERM])
@pytest.mark.parametrize(
    ("feature", "syscall"),
    [
        ("io_uring", "io_uring_setup"),
        ("io_uring", "io_uring_enter"),  # a ring that can be made and not used
        ("aio", "io_setup"),
        ("memfd-sealing", "memfd_create"),
    ],
)
def test_a_refused_system_call_is_a_no(feature, syscall, code):
    found = without_syscall(syscall, code, lambda: facts.gather(features=[feature]))
    judged = found["features"][feature]
    assert judged["present"] is False
    assert os.strerror(code) in judged["reason"]


@only_x86
def test_userfaultfd_without_its_system_call():
    found = without_syscall("userfaultfd", errno.ENOSYS, syscalls.userfaultfd)
    assert found["syscall"] == found["user-mode-only"] == os.strerror(errno.ENOSYS)
    assert found["device"] is True or isinstance(found["device"], str)
    if found["device"] is not True:
        assert found["features"] == []


@pytest.mark.parametrize(
    ("syscall", "device", "present"),
    [(True, "no such file", True), ("denied", True, True), ("denied", "denied", False)],
)
def test_either_way_to_a_userfaultfd_will_do(syscall, device, present):
    value = {"syscall": syscall, "user-mode-only": True, "device": device}
    assert facts.feature("userfaultfd", {"userfaultfd": value}).present is present


def test_a_tap_is_asked_and_leaves_no_trace(cache):
    before = os.listdir("/sys/class/net")
    found = facts.gather(["tun", "tap-offloads", "kernel"])
    assert os.listdir("/sys/class/net") == before
    if "unknown" in found["tap-offloads"]:
        pytest.skip(f"no tap may be made here: {found['tap-offloads']['unknown']}")
    assert found["tun"]["vnet-hdr"] is True  # since Linux 2.6.27
    assert found["tap-offloads"]["csum"] is True
    assert found["tap-offloads"]["tso4"] is True
    release = tuple(int(n) for n in found["kernel"]["series"].split("."))
    if release >= (6, 2):
        assert found["tap-offloads"]["uso"] is True
    if release >= (6, 17):
        assert found["tap-offloads"]["tunnel"] is True
    # Once per boot: the second answer is the kept one.
    kept = json.loads((cache / "host-tap.json").read_text())
    kept["value"]["uso"] = "as kept"
    (cache / "host-tap.json").write_text(json.dumps(kept))
    assert facts.gather(["tap-offloads"])["tap-offloads"]["uso"] == "as kept"


@pytest.mark.skipif(os.geteuid() != 0, reason="the device opens for root alone only as root")
def test_what_may_not_be_asked_is_unknown():
    if os.stat(tap.DEVICE).st_mode & 0o006:
        pytest.skip("everybody may open /dev/net/tun here")
    found = as_nobody(lambda: facts.gather(features=["tun-uso", "tun-vnet-hdr"]))
    for name in ("tun-uso", "tun-vnet-hdr"):
        assert found["features"][name]["present"] is None
        assert "Permission denied" in found["features"][name]["reason"]
    assert "unknown" in found["tap-offloads"]


@pytest.mark.parametrize(
    ("name", "value", "present"),
    [
        ("tun-uso", {"present": False}, False),
        ("tun-uso", {"present": True, "uso": True}, True),
        ("tun-uso", {"unknown": "not allowed"}, None),
        ("tun-uso", {"present": True}, None),  # a form of another release
        ("tun-uso", None, None),
        ("kvm", {"ok": None, "reason": "not probed on s390x"}, None),
        ("kvm", {"ok": False, "reason": "slow"}, False),
        ("sev", {"sev": True, "device": False}, False),
        ("sev", {"sev": True, "device": True}, True),
        ("sev-snp", {"sev": True, "sev-snp": False, "device": True}, False),
        ("tdx", {"tdx": True}, True),
        ("vhost-net", {"works": False, "reason": "/dev/vhost-net is not there"}, False),
        ("io_uring", {"works": True, "reason": "works"}, True),
    ],
)
def test_features_of_another_host(name, value, present):
    source = facts.FEATURES[name][0]
    judged = facts.feature(name, {source: value})
    assert judged.present is present
    assert judged.reason


def test_vhost_devices():
    """Opening is not enough: it must answer as a vhost device does."""
    null = vhost.device("/dev/null")
    assert (null["present"], null["works"]) == (True, False)
    assert "is no vhost device" in null["reason"]
    missing = vhost.device("/dev/vhost-nothing")
    assert (missing["present"], missing["works"]) == (False, False)
    assert "is not there" in missing["reason"]
    folder = vhost.device("/dev")
    assert (folder["present"], folder["works"]) == (True, False)
    assert "does not open" in folder["reason"]


@pytest.mark.skipif(not os.path.exists("/dev/vhost-net"), reason="no /dev/vhost-net here")
def test_vhost_net_answers_with_features():
    found = vhost.device("/dev/vhost-net")
    if found["works"]:
        assert int(found["features"], 16) & 1 << 32  # VIRTIO_F_VERSION_1


def test_vdpa_devices_are_listed_and_not_opened(tmp_path):
    assert vhost.vdpa(str(tmp_path))["reason"] == "there is no device"
    os.mkfifo(tmp_path / "vhost-vdpa-0")  # to open this one would wait for ever
    found = vhost.vdpa(str(tmp_path))
    assert found["devices"] == [f"{tmp_path}/vhost-vdpa-0"]
    assert found["works"] is True


def test_the_distribution_is_what_os_release_says(tmp_path):
    with pytest.raises(FileNotFoundError):
        readings.distribution(str(tmp_path))
    (tmp_path / "usr" / "lib").mkdir(parents=True)
    (tmp_path / "etc").mkdir()
    (tmp_path / "usr" / "lib" / "os-release").write_text("ID=arch\nPRETTY_NAME='Arch \\\" Linux'\n")
    rolling = {"id": "arch", "version": "", "name": 'Arch \\" Linux'}
    assert readings.distribution(str(tmp_path)) == rolling
    (tmp_path / "etc" / "os-release").write_text(
        '# a comment\nPRETTY_NAME="A \\"B\\" \\$5"\nVERSION_ID="12"\nID=debian\n\nnothing\n'
    )
    found = readings.distribution(str(tmp_path))
    assert found == {"id": "debian", "version": "12", "name": 'A "B" $5'}
    said = _says("sh", "-c", ". /etc/os-release; echo $ID; echo $VERSION_ID; echo $PRETTY_NAME")
    assert list(readings.distribution().values()) == said.split("\n")


def test_numa_nodes_and_memory():
    found = facts.gather(["numa", "memory", "cpus"])
    if "unknown" in found["numa"]:
        pytest.skip(found["numa"]["unknown"])
    assert [node["node"] for node in found["numa"]] == sorted(n["node"] for n in found["numa"])
    # Not the sum of their memory: a kernel whose memory was grown may count it in no node.
    ends = [part.split("-") for node in found["numa"] for part in node["cpus"].split(",") if part]
    assert sum(int(e[-1]) - int(e[0]) + 1 for e in ends) == found["cpus"]["online"]
    assert all(node["memory"] > 0 for node in found["numa"])
    assert 0 < found["memory"]["available"] <= found["memory"]["total"]


def test_mounts_of_huge_pages(tmp_path):
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "sysfs /sys sysfs rw 0 0\n"
        f"hugetlbfs {tmp_path} hugetlbfs rw,relatime,pagesize=2M 0 0\n"
        "none /mnt/huge\\0401G hugetlbfs rw,pagesize=1024M 0 0\n"
    )
    assert readings.hugetlbfs(str(mounts)) == [
        {"path": str(tmp_path), "page-size": 2 << 20, "writable": True},
        {"path": "/mnt/huge 1G", "page-size": 1 << 30, "writable": False},
    ]


def test_huge_memfds_need_a_pool_of_their_size():
    found = facts.gather(["memfd-hugetlb", "hugepages"])
    assert set(found["memfd-hugetlb"]["sizes"]) == set(found["hugepages"])
    with pytest.raises(OSError):  # no architecture has such huge pages
        syscalls.huge_memfd(8192)


def test_the_tightest_cgroup_limit_counts(tmp_path):
    deep = tmp_path / "user.slice" / "web.scope"
    deep.mkdir(parents=True)
    (tmp_path / "user.slice" / "memory.max").write_text("4096\n")
    (deep / "memory.max").write_text("max\n")
    (deep / "cpu.max").write_text("150000 100000\n")
    root = str(tmp_path)
    assert readings._tightest(root, "/user.slice/web.scope", "memory.max") == 4096
    assert readings._tightest(root, "/user.slice/web.scope", "cpu.max") == 1.5
    assert readings._tightest(root, "/user.slice/web.scope", "pids.max") is None
    assert readings._limit("9223372036854771712") is None
    assert "is not below" in readings._tightest(root, "/docker/web", "memory.max")["unknown"]


def test_the_quota_of_the_first_cgroups(tmp_path):
    (tmp_path / "cpu.cfs_quota_us").write_text("-1\n")
    web = tmp_path / "web"
    web.mkdir()
    (web / "cpu.cfs_quota_us").write_text("50000\n")
    (web / "cpu.cfs_period_us").write_text("100000\n")
    assert readings._tightest(str(tmp_path), "/web", "cpu.cfs_quota_us") == 0.5
    assert readings._tightest(str(tmp_path), "/", "cpu.cfs_quota_us") is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up the right to read")
def test_a_file_that_may_not_be_read_is_not_an_absent_one(tmp_path):
    (tmp_path / "sev").write_text("Y")
    (tmp_path / "sev").chmod(0)

    def ask():
        try:
            return readings._read_or(str(tmp_path / "sev"), "N")
        except PermissionError:
            return "not allowed"

    tmp_path.chmod(0o755)
    for folder in list(tmp_path.parents)[:3]:
        folder.chmod(folder.stat().st_mode | 0o011)
    assert as_nobody(ask) == "not allowed"
    assert readings._read_or(str(tmp_path / "absent"), "N") == "N"


def _program(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_qemu_binaries_on_path(tmp_path, monkeypatch):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    _program(first / "qemu-system-x86_64", "echo 'QEMU emulator version 7.2.22 (Debian 1:7.2)'")
    _program(second / "qemu-storage-daemon", "echo qemu-storage-daemon version 10.0.2")
    _program(second / "qemu-system-broken", "exit 3")
    (second / "qemu-system-i386").symlink_to(first / "qemu-system-x86_64")
    (second / "qemu-system-notes").write_text("not a program")
    named = tmp_path / "qemu-kvm"
    _program(named, f"echo x >>{tmp_path}/asked; echo QEMU emulator version 9.1.0 '(qemu-kvm-9.1)'")
    monkeypatch.setenv("PATH", f"{first}:{tmp_path}/missing:{second}")
    monkeypatch.setattr(binaries, "ELSEWHERE", (str(named), "/usr/libexec/missing"))
    broken = {"unknown": "--version ended with 3"}
    system = {"tool": "qemu-system", "target": "x86_64"}
    daemon = {"tool": "qemu-storage-daemon", "target": None}
    kvm = {
        "path": str(named),
        "tool": "qemu-system",
        "target": None,
        "version": "9.1.0",
        "build": "qemu-kvm-9.1",
    }
    first_on_path = {
        "path": f"{first}/qemu-system-x86_64",
        **system,
        "version": "7.2.22",
        "build": "Debian 1:7.2",
    }
    others = [
        {"path": f"{second}/qemu-storage-daemon", **daemon, "version": "10.0.2", "build": ""},
        {
            "path": f"{second}/qemu-system-broken",
            **system,
            "target": "broken",
            "version": broken,
            "build": "",
        },
    ]
    assert binaries.qemu_binaries() == [first_on_path, *others, kvm]
    assert binaries.qemu_binaries([str(named)]) == [kvm, first_on_path, *others]
    assert (tmp_path / "asked").read_text() == "x\nx\n"
    # What all of them said is kept until one of them changes.
    (second / "qemu-system-broken").unlink()
    for _ in range(2):
        assert facts.gather(["qemu"], binaries=[str(named)])["qemu"][0] == kvm
    # Once for where it looks for its option ROMs, too.
    assert (tmp_path / "asked").read_text() == "x\nx\nx\nx\n"
    _program(named, "echo QEMU emulator version 9.1.1")
    assert facts.gather(["qemu"], binaries=[str(named)])["qemu"][0]["version"] == "9.1.1"


def test_a_name_of_ones_own():
    assert facts.gather(["name", "arch"], name="web")["name"] == "web"


def test_a_probe_s_process_that_hangs_is_ended():
    started = time.monotonic()
    with pytest.raises(OSError, match=r"did not answer within 0\.1 s"):
        in_child(lambda: select.select([], [], []), 0.1)
    assert time.monotonic() - started < 30  # and not for ever
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@pytest.mark.parametrize(
    "end", [lambda: os._exit(1), lambda: os.kill(os.getpid(), signal.SIGKILL), lambda: 1 // 0]
)
def test_a_probe_s_process_that_dies_is_no_answer(end):
    fds = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="ended without an answer"):
        in_child(end, 60)
    assert len(os.listdir("/proc/self/fd")) == fds


def test_a_probe_s_long_answer_arrives_whole():
    assert in_child(lambda: "x" * 300_000, 60) == "x" * 300_000
