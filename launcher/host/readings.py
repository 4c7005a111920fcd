"""Host facts that are read from /proc, /sys and PATH."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_UNLIMITED_V1 = 1 << 62  # cgroup v1 writes the largest page multiple below 2^63
_TOOLS = ("qemu-storage-daemon", "qemu-img")


def read(path: str) -> str:
    """The stripped text of a small file.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read().strip()


def _read_or(path: str, otherwise: str) -> str:
    try:
        return read(path)
    except OSError:
        return otherwise


def kernel() -> dict[str, str]:
    """Release as uname has it, and its series (`6.1` of `6.1.0-18-amd64`)."""
    release = os.uname().release
    numbers = release.split("-")[0].split("+")[0].split(".")
    return {"release": release, "series": ".".join(numbers[:2])}


def cpus() -> dict[str, int]:
    """CPUs online, and those that this process may run on."""
    return {"online": os.cpu_count() or 1, "usable": len(os.sched_getaffinity(0))}


def memory() -> dict[str, int]:
    """Bytes of RAM and swap. What is free changes by the second and is no fact."""
    sizes = {}
    for line in read("/proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        if name in ("MemTotal", "SwapTotal"):
            sizes[name] = int(rest.split()[0]) * 1024
    return {"total": sizes["MemTotal"], "swap": sizes.get("SwapTotal", 0)}


def cpu() -> dict[str, Any]:
    """Vendor, model, and the flags that all CPUs have, in the kernel's names and sorted."""
    vendor = model = ""
    common: set[str] | None = None
    seen: set[str] = set()
    for line in read("/proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        name, value = name.strip(), value.strip()
        if name in ("vendor_id", "CPU implementer"):
            vendor = vendor or value
        elif name in ("model name", "CPU part"):
            model = model or value
        elif name in ("flags", "Features") and value not in seen:  # mostly all CPUs are alike
            seen.add(value)
            flags = set(value.split())
            common = flags if common is None else common & flags
    return {"vendor": vendor, "model": model, "flags": sorted(common or ())}


def hugepages() -> dict[str, dict[str, int]]:
    """By page size in bytes (as text): pages reserved and free."""
    folder = "/sys/kernel/mm/hugepages"
    found = {}
    for name in os.listdir(folder):
        size = str(int(name.removeprefix("hugepages-").removesuffix("kB")) * 1024)
        total, free = (read(f"{folder}/{name}/{kind}_hugepages") for kind in ("nr", "free"))
        found[size] = {"total": int(total), "free": int(free)}
    return dict(sorted(found.items(), key=lambda item: int(item[0])))


def sev() -> dict[str, bool]:
    """AMD SEV as kvm_amd offers it, and whether its device is there."""
    found = {}
    for name in ("sev", "sev-es", "sev-snp"):
        path = f"/sys/module/kvm_amd/parameters/{name.replace('-', '_')}"
        found[name] = _read_or(path, "N") in ("Y", "1")
    return {**found, "device": os.path.exists("/dev/sev")}


def tdx() -> dict[str, bool]:
    """Intel TDX as kvm_intel offers it."""
    return {"tdx": _read_or("/sys/module/kvm_intel/parameters/tdx", "N") in ("Y", "1")}


def device(path: str) -> dict[str, Any]:
    """Whether a device node is there and opens for reading and writing."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK))
    except OSError as error:
        present = os.path.exists(path)
        why = f"{path} does not open: {error.strerror}" if present else f"{path} is not there"
        return {"present": present, "works": False, "reason": why}
    return {"present": True, "works": True, "reason": f"{path} opens"}


def cgroup() -> dict[str, Any]:
    """The version, this process's group, and the tightest limits on the way to the root.

    `memory-max` is in bytes, `pids-max` in tasks, `cpu-max` in CPUs; null is no limit.
    """
    groups = {}
    for line in read("/proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        for name in controllers.split(",") if number != "0" else ["unified"]:
            groups[name] = path
    if os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        path = groups.get("unified", "/")
        root = "/sys/fs/cgroup"
        files = {"memory-max": "memory.max", "pids-max": "pids.max", "cpu-max": "cpu.max"}
        limits = {key: _tightest(root, path, file) for key, file in files.items()}
        return {"version": 2, "path": path, **limits}
    return {
        "version": 1,
        "path": groups.get("memory", "/"),
        "memory-max": _tightest(
            "/sys/fs/cgroup/memory", groups.get("memory", "/"), "memory.limit_in_bytes"
        ),
        "pids-max": _tightest("/sys/fs/cgroup/pids", groups.get("pids", "/"), "pids.max"),
        "cpu-max": None,
    }


def _tightest(root: str, path: str, file: str) -> float | None:
    found: list[float] = []
    parts = [part for part in path.split("/") if part]
    for depth in range(len(parts) + 1):
        limit = _limit(_read_or("/".join([root, *parts[:depth], file]), "max"))
        if limit is not None:
            found.append(limit)
    return min(found, default=None)


def _limit(text: str) -> float | None:
    """A limit file's text: `max`, `4096`, or cpu.max's `quota period`."""
    quota, _, period = text.partition(" ")
    if quota == "max" or int(quota) >= _UNLIMITED_V1:
        return None
    return int(quota) / int(period) if period else int(quota)


def ulimits() -> dict[str, list[int | None]]:
    """Soft and hard limit of this process by ulimit's names; null is unlimited."""
    import resource

    names = {
        "address-space": resource.RLIMIT_AS,
        "core": resource.RLIMIT_CORE,
        "locked-memory": resource.RLIMIT_MEMLOCK,
        "open-files": resource.RLIMIT_NOFILE,
        "processes": resource.RLIMIT_NPROC,
    }
    return {
        name: [None if value == resource.RLIM_INFINITY else value for value in getrlimit]
        for name, getrlimit in ((n, resource.getrlimit(limit)) for n, limit in names.items())
    }


def qemu_binaries() -> list[dict[str, Any]]:
    """Every qemu-system-*, qemu-storage-daemon and qemu-img on PATH, with its version.

    A binary that two folders of PATH lead to is listed once, by the first.
    """
    found: dict[str, str] = {}
    for folder in os.get_exec_path():
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            continue
        for name in names:
            if name.startswith("qemu-system-") or name in _TOOLS:
                path = os.path.join(folder, name)
                if os.path.isfile(path) and os.access(path, os.X_OK):
                    found.setdefault(os.path.realpath(path), path)
    paths = list(found.values())
    at_once = os.cpu_count() or 1
    versions: list[Any] = []
    for start in range(0, len(paths), at_once):
        versions += _versions(paths[start : start + at_once])
    return [{"path": p, "version": v} for p, v in zip(paths, versions, strict=True)]


def _versions(paths: list[str]) -> list[Any]:
    import subprocess

    started: list[subprocess.Popen[str] | str] = []
    for path in paths:
        try:
            started.append(
                subprocess.Popen(
                    [path, "--version"],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                    errors="replace",
                )
            )
        except OSError as error:
            started.append(str(error.strerror))
    return [p if isinstance(p, dict) else _version(p) for p in started]


def _version(started: Any) -> Any:
    import re
    import subprocess

    if isinstance(started, str):
        return {"unknown": started}
    try:
        text, _ = started.communicate(timeout=5)
    except subprocess.TimeoutExpired:
        started.kill()
        started.communicate()
        return {"unknown": "--version did not answer within 5 s"}
    said = re.search(r"version (\d+(?:\.\d+)+)", text)
    return said[1] if said else {"unknown": f"--version ended with {started.returncode}"}
