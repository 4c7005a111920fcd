"""Host facts as data: each gathered by its name, none that nobody asked for.

A fact is a JSON value, or `{"unknown": reason}`: a fact that may not be asked here is never
guessed. A feature is a yes, a no or an unknown that platform rows name (`needs`).
"""

from __future__ import annotations

import os

from launcher.errors import InputError
from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    _Judge = Callable[[Any], tuple[bool | None, str]]


FORMAT = "host-facts-1"
"""What a file of facts says under `format`; the number rises when a fact changes its meaning."""


@record
class Feature:
    """Whether this host has a feature: True, False, or None for unknown; and why."""

    present: bool | None
    reason: str


def _reading(name: str) -> Callable[[], Any]:
    def read() -> Any:
        from launcher.host import readings

        return getattr(readings, name)()

    return read


def _vhost(path: str) -> Callable[[], Any]:
    def ask() -> Any:
        from launcher.host import vhost

        return vhost.device(path)

    return ask


def _vdpa() -> Any:
    from launcher.host import vhost

    return vhost.vdpa()


def _works(module: str, name: str, what: str) -> Callable[[], Any]:
    """A kernel service that either works for this process or says why not."""

    def ask() -> Any:
        probe = getattr(__import__(f"launcher.host.{module}", fromlist=[name]), name)
        try:
            probe()
        except OSError as error:
            return {"works": False, "reason": f"{what}: {error.strerror}"}
        return {"works": True, "reason": f"{what} works"}

    return ask


def _huge_memfd() -> Any:
    from launcher.host import readings, syscalls

    sizes: dict[str, Any] = {}
    for size in readings.hugepages():
        try:
            syscalls.huge_memfd(int(size))
        except OSError as error:
            sizes[size] = error.strerror
        else:
            sizes[size] = True
    works = [size for size, answer in sizes.items() if answer is True]
    said = f"a sealed memfd of {' and '.join(works)} byte pages works" if works else ""
    refused = next(iter(sizes.values()), "this kernel has no huge pages")
    return {
        "works": bool(works),
        "reason": said or f"a sealed memfd of huge pages: {refused}",
        "sizes": sizes,
    }


def _kvm() -> Any:
    from launcher.host.kvm import climb_cached
    from launcher.record import as_dict

    return as_dict(climb_cached())


def _userfaultfd() -> Any:
    from launcher.host import syscalls

    return syscalls.userfaultfd()


def _tun() -> Any:
    from launcher.host import tap

    if not os.path.exists(tap.DEVICE):
        return {"present": False}
    return {"present": True, **tap.tun_features()}


def _tap_offloads() -> Any:
    """Asked once per boot: the throw-away tap costs tens of milliseconds."""
    from launcher.host import boot_cache, tap

    try:
        node = os.stat(tap.DEVICE)
    except FileNotFoundError:
        return {"present": False}
    key = [node.st_ino, node.st_rdev, node.st_ctime_ns, os.uname().release, *tap.OFFLOADS]
    kept = boot_cache.recall("tap", key)
    if isinstance(kept, dict):
        return kept
    found = {"present": True, **tap.tap_offloads()}
    boot_cache.remember("tap", key, found)
    return found


def _binaries() -> Any:
    return _with_roms()


def _with_roms(named: Iterable[str] = ()) -> list[dict[str, Any]]:
    """The binaries, and of those that run PCs the firmware and option ROMs that they find."""
    from launcher.host.binaries import qemu_binaries
    from launcher.host.rom_files import data_folders, rom_sizes

    rows = qemu_binaries(named)
    for row in rows:
        if row["tool"] == "qemu-system" and row["target"] in ("x86_64", "i386", None):
            roms = rom_sizes(data_folders(row["path"]))
            row |= {"roms": roms} if roms else {}
    return rows


FACTS: dict[str, Callable[[], Any]] = {
    "name": lambda: os.uname().nodename,
    "arch": lambda: os.uname().machine,
    "kernel": _reading("kernel"),
    "distribution": _reading("distribution"),
    "cpus": _reading("cpus"),
    "cpu": _reading("cpu"),
    "numa": _reading("numa"),
    "memory": _reading("memory"),
    "hugepages": _reading("hugepages"),
    "hugetlbfs": _reading("hugetlbfs"),
    "kvm": _kvm,
    "tun": _tun,
    "tap-offloads": _tap_offloads,
    "vhost-net": _vhost("/dev/vhost-net"),
    "vhost-vsock": _vhost("/dev/vhost-vsock"),
    "vhost-vdpa": _vdpa,
    "io_uring": _works("ring", "round_trip", "an io_uring round trip"),
    "aio": _works("syscalls", "aio_context", "io_setup"),
    "memfd-sealing": _works("syscalls", "sealed_memfd", "a sealed memfd"),
    "memfd-hugetlb": _huge_memfd,
    "userfaultfd": _userfaultfd,
    "sev": _reading("sev"),
    "tdx": _reading("tdx"),
    "cgroup": _reading("cgroup"),
    "ulimits": _reading("ulimits"),
    "qemu": _binaries,
}


def _judge_works(value: Any) -> tuple[bool | None, str]:
    return bool(value["works"]), str(value["reason"])


def _judge_kvm(value: Any) -> tuple[bool | None, str]:
    ok: bool | None = value["ok"]
    return ok, str(value["reason"])


def _judge_userfaultfd(value: Any) -> tuple[bool | None, str]:
    if value["syscall"] is True:
        return True, "the userfaultfd system call works"
    if value["device"] is True:
        return True, "/dev/userfaultfd works (the system call alone: " + value["syscall"] + ")"
    return False, f"userfaultfd: {value['syscall']}; /dev/userfaultfd: {value['device']}"


def _judge_tun(flag: str, asked: str) -> _Judge:
    def judge(value: Any) -> tuple[bool | None, str]:
        if not value["present"]:
            return False, "/dev/net/tun is not there"
        has = bool(value[flag])
        return has, f"{asked} says {'yes' if has else 'no'} to {flag}"

    return judge


def _judge_flag(flag: str, what: str, *also: str) -> _Judge:
    def judge(value: Any) -> tuple[bool | None, str]:
        missing = [name for name in (flag, *also) if not value[name]]
        if missing:
            return False, f"{what} does not offer {', '.join(missing)}"
        return True, f"{what} offers {flag}"

    return judge


FEATURES: dict[str, tuple[str, _Judge]] = {
    "kvm": ("kvm", _judge_kvm),
    "tun-vnet-hdr": ("tun", _judge_tun("vnet-hdr", "TUNGETFEATURES")),
    "tun-multi-queue": ("tun", _judge_tun("multi-queue", "TUNGETFEATURES")),
    "tun-ufo": ("tap-offloads", _judge_tun("ufo", "TUNSETOFFLOAD")),
    "tun-uso": ("tap-offloads", _judge_tun("uso", "TUNSETOFFLOAD")),
    "tun-tunnel": ("tap-offloads", _judge_tun("tunnel", "TUNSETOFFLOAD")),
    "tun-tunnel-csum": ("tap-offloads", _judge_tun("tunnel-csum", "TUNSETOFFLOAD")),
    "vhost-net": ("vhost-net", _judge_works),
    "vhost-vsock": ("vhost-vsock", _judge_works),
    "vhost-vdpa": ("vhost-vdpa", _judge_works),
    "io_uring": ("io_uring", _judge_works),
    "aio": ("aio", _judge_works),
    "memfd-sealing": ("memfd-sealing", _judge_works),
    "memfd-hugetlb": ("memfd-hugetlb", _judge_works),
    "userfaultfd": ("userfaultfd", _judge_userfaultfd),
    "sev": ("sev", _judge_flag("sev", "kvm_amd", "device")),
    "sev-es": ("sev", _judge_flag("sev-es", "kvm_amd", "device")),
    "sev-snp": ("sev", _judge_flag("sev-snp", "kvm_amd", "device")),
    "tdx": ("tdx", _judge_flag("tdx", "kvm_intel")),
}
"""Feature → the fact it follows from, and how."""


def gather(
    wanted: Iterable[str] | None = None,
    features: Iterable[str] | None = None,
    *,
    name: str = "",
    binaries: Iterable[str] = (),
) -> dict[str, Any]:
    """Host facts by name, and under `features` each `{"present", "reason"}`, ready for JSON.

    facts.schema.json describes what they look like.

    Args:
        wanted: names of FACTS; None for all, unless `features` are given.
        features: names of FEATURES; None for all, unless facts are given.
        name: what to call this host instead of its node name.
        binaries: paths of QEMU binaries that the user names besides those on PATH.

    Raises:
        InputError: a name that no fact or feature has.
    """
    if wanted is None and features is None:
        wanted, features = FACTS, FEATURES
    given: dict[str, Callable[[], Any]] = {"name": lambda: name} if name else {}
    if binaries:
        given["qemu"] = lambda: _with_roms(binaries)
    facts = {one: _gather_one(one, given) for one in (wanted or ())}
    if features is None:
        return facts
    # A fact that only a feature needs is asked once too, and shown: it is the evidence.
    names = list(features)
    for one in names:
        source = _source(one)
        if source not in facts:
            facts[source] = _gather_one(source)
    judged = {one: feature(one, facts) for one in names}
    shown = {n: {"present": f.present, "reason": f.reason} for n, f in judged.items()}
    return {**facts, "features": shown}


def feature(name: str, facts: Mapping[str, Any] | None = None) -> Feature:
    """Judge one feature from gathered facts (another host's too), or from this host now.

    Raises:
        InputError: no such feature.
    """
    source = _source(name)
    value = _gather_one(source) if facts is None else facts.get(source)
    if value is None:
        return Feature(None, f"the fact {source} was not gathered")
    if isinstance(value, dict) and "unknown" in value:
        return Feature(None, str(value["unknown"]))
    try:
        present, reason = FEATURES[name][1](value)
    except (KeyError, TypeError):
        return Feature(None, f"the fact {source} has another form than this release writes")
    return Feature(present, reason)


def _source(name: str) -> str:
    try:
        return FEATURES[name][0]
    except KeyError:
        hint = f"known are {', '.join(sorted(FEATURES))}"
        raise InputError(f"there is no host feature {name!r}", hint=hint) from None


def _gather_one(name: str, given: Mapping[str, Callable[[], Any]] | None = None) -> Any:
    try:
        ask = (given or {}).get(name) or FACTS[name]
    except KeyError:
        hint = f"known are {', '.join(sorted(FACTS))}"
        raise InputError(f"there is no host fact {name!r}", hint=hint) from None
    try:
        return ask()
    except (OSError, ValueError, KeyError) as error:
        # /proc and /sys may lack anything in a container; a fact less must not end a launch.
        what = error.strerror if isinstance(error, OSError) else None
        where = getattr(error, "filename", None)
        return {"unknown": f"{where}: {what}" if what and where else what or str(error)}
