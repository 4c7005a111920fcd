"""Host facts that are read from /proc, /sys and PATH."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_UNLIMITED_V1 = 1 << 62  # cgroup v1 writes the largest page multiple below 2^63


def read(path: str) -> str:
    """The stripped text of a small file.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read().strip()


def _read_or(path: str, otherwise: str) -> str:
    """The text of a file that need not be there; one that may not be read is not `otherwise`."""
    try:
        return read(path)
    except (FileNotFoundError, NotADirectoryError):
        return otherwise


def kernel() -> dict[str, str]:
    """Release as uname has it, and its series (`6.1` of `6.1.0-18-amd64`)."""
    release = os.uname().release
    numbers = release.split("-")[0].split("+")[0].split(".")
    return {"release": release, "series": ".".join(numbers[:2])}


def distribution(root: str = "/") -> dict[str, str]:
    """What os-release(5) says: `id` (debian), `version` (12, empty for rolling ones) and `name`."""
    try:
        text = read(os.path.join(root, "etc/os-release"))
    except FileNotFoundError:
        text = read(os.path.join(root, "usr/lib/os-release"))
    words = {}
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and not name.startswith("#"):
            words[name] = _unquoted(value)
    ident = words.get("ID", "linux")
    return {
        "id": ident,
        "version": words.get("VERSION_ID", ""),
        "name": words.get("PRETTY_NAME", ident),
    }


def _unquoted(value: str) -> str:
    """A value as a shell would read it; shlex would cost an import of re."""
    if value[:1] not in ("'", '"') or value[-1:] != value[:1]:
        return value
    inner = value[1:-1]
    if value[0] == '"':
        for mark in ('\\"', "\\$", "\\`", "\\\\"):
            inner = inner.replace(mark, mark[1])
    return inner


def cpus() -> dict[str, int]:
    """CPUs online, and those that this process may run on."""
    return {"online": os.cpu_count() or 1, "usable": len(os.sched_getaffinity(0))}


def memory() -> dict[str, int]:
    """Bytes of RAM and swap, and of RAM that is available at this moment.

    Raises:
        ValueError: the kernel's list lacks the total.
    """
    names = {"MemTotal": "total", "MemAvailable": "available", "SwapTotal": "swap"}
    sizes = {}
    for line in read("/proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        if name in names:
            sizes[names[name]] = int(rest.split()[0]) * 1024
    if "total" not in sizes:
        raise ValueError("/proc/meminfo has no MemTotal")
    return sizes


def numa(root: str = "/sys/devices/system/node") -> list[dict[str, Any]]:
    """NUMA nodes: number, CPUs as the kernel lists them (`0-3,8`), bytes of memory."""
    found = []
    for name in os.listdir(root):
        number = name.removeprefix("node")
        if name.startswith("node") and number.isdigit():
            size = 0
            for line in read(f"{root}/{name}/meminfo").splitlines():
                if "MemTotal:" in line:
                    size = int(line.split()[-2]) * 1024
            cpulist = read(f"{root}/{name}/cpulist")
            found.append({"node": int(number), "cpus": cpulist, "memory": size})
    return sorted(found, key=lambda node: int(node["node"]))


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


def hugetlbfs(mounts: str = "/proc/self/mounts") -> list[dict[str, Any]]:
    """Where huge pages are mounted: path, page size in bytes, whether this user may write there."""
    found = []
    for line in read(mounts).splitlines():
        _device, path, kind, options, *_rest = line.split(" ")
        if kind == "hugetlbfs":
            # The kernel writes blanks and the like in octal.
            path = path.encode("latin-1", "replace").decode("unicode_escape")
            words = (
                one.removeprefix("pagesize=") for one in options.split(",") if "pagesize" in one
            )
            size = _bytes(next(words, "0"))
            found.append({"path": path, "page-size": size, "writable": os.access(path, os.W_OK)})
    return found


def _bytes(text: str) -> int:
    unit = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1:], 0)
    return int(text[:-1]) * unit if unit else int(text)


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


def cgroup() -> dict[str, Any]:
    """The version, this process's group, and the tightest limits on the way to the root.

    `memory-max` is in bytes, `pids-max` in tasks, `cpu-max` in CPUs; null is no limit. Where the
    group's folder is not to be seen (a container shows only its own) its limits are unknown.
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
        limits: dict[str, Any] = {k: _tightest(root, path, file) for k, file in files.items()}
        return {"version": 2, "path": path, **limits}
    found: dict[str, Any] = {"version": 1, "path": groups.get("memory", "/")}
    for key, controller, file in (
        ("memory-max", "memory", "memory.limit_in_bytes"),
        ("pids-max", "pids", "pids.max"),
        ("cpu-max", "cpu", "cpu.cfs_quota_us"),
    ):
        root = f"/sys/fs/cgroup/{controller}"
        if controller in groups and os.path.isdir(root):
            found[key] = _tightest(root, groups[controller], file)
        else:
            found[key] = {"unknown": f"the {controller} controller is not mounted"}
    return found


def _tightest(root: str, path: str, file: str) -> Any:
    limits: list[float] = []
    parts = [part for part in path.split("/") if part]
    if not os.path.isdir("/".join([root, *parts])):
        return {"unknown": f"{path} is not below {root}"}
    for depth in range(len(parts) + 1):
        folder = "/".join([root, *parts[:depth]])
        text = _read_or(f"{folder}/{file}", "max")
        if file == "cpu.cfs_quota_us" and text != "max":
            text = "max" if int(text) < 0 else f"{text} {read(f'{folder}/cpu.cfs_period_us')}"
        limit = _limit(text)
        if limit is not None:
            limits.append(limit)
    return min(limits, default=None)


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
