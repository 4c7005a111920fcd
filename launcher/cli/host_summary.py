"""A host in a dozen lines, for `host` without names: the facts that people ask for first."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

_UNITS = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def host_summary(facts: Mapping[str, Any]) -> str:
    """The lines of an overview; `host FACT` shows a fact in full."""
    from launcher.display import printable

    lines = [
        ("host", f"{facts['name']}, {facts['arch']}"),
        ("system", _system(facts)),
        ("CPUs", _cpus(facts)),
        ("memory", _memory(facts)),
        ("huge pages", _huge_pages(facts)),
        ("limits", _limits(facts)),
        *(("QEMU", text) for text in _binaries(facts["qemu"])),
    ]
    width = max(len(name) for name, _ in lines) + 2
    shown, before = [], ""
    for name, text in lines:
        shown.append(f"{'' if name == before else name:<{width}}{printable(text)}".rstrip())
        before = name
    return "\n".join(shown)


def size(number: float) -> str:
    """Bytes for people: `23.5 GiB`."""
    for unit, name in _UNITS:
        if number >= unit:
            return f"{number / unit:.1f}".removesuffix(".0") + f" {name}"
    return f"{number:.0f} bytes"


def _unknown(fact: Any) -> str:
    """Why nothing is known of a fact, else empty."""
    return str(fact["unknown"]) if isinstance(fact, dict) and "unknown" in fact else ""


def _system(facts: Mapping[str, Any]) -> str:
    where = facts["distribution"]
    name = f"unknown distribution ({_unknown(where)})" if _unknown(where) else where["name"]
    return f"{name}, Linux {facts['kernel']['release']}"


def _cpus(facts: Mapping[str, Any]) -> str:
    cpu, cpus, numa = facts["cpu"], facts["cpus"], facts["numa"]
    model = f"unknown ({_unknown(cpu)})" if _unknown(cpu) else cpu["model"] or cpu["vendor"]
    nodes = "" if _unknown(numa) else f", {len(numa)} NUMA node{'s' * (len(numa) != 1)}"
    return f"{model}, {cpus['usable']} of {cpus['online']} usable{nodes}"


def _memory(facts: Mapping[str, Any]) -> str:
    memory = facts["memory"]
    if _unknown(memory):
        return f"unknown ({_unknown(memory)})"
    text = size(memory["total"])
    if "available" in memory:
        text += f", {size(memory['available'])} available"
    return text + (f", {size(memory['swap'])} of swap" if memory.get("swap") else ", no swap")


def _huge_pages(facts: Mapping[str, Any]) -> str:
    pools, mounts = facts["hugepages"], facts["hugetlbfs"]
    if _unknown(pools):
        return f"unknown ({_unknown(pools)})"
    parts = [
        f"{size(int(name))}: {pool['free']} of {pool['total']} free" for name, pool in pools.items()
    ]
    if not _unknown(mounts):
        parts += [f"mounted at {mount['path']}" for mount in mounts]
    return "; ".join(parts) or "none"


def _limits(facts: Mapping[str, Any]) -> str:
    ulimits, group = facts["ulimits"], facts["cgroup"]
    words = {"open-files": "open files", "processes": "processes"}
    parts = [
        f"{text} {'unlimited' if ulimits[name][0] is None else ulimits[name][0]}"
        for name, text in words.items()
    ]
    locked = ulimits["locked-memory"][0]
    parts.append(f"locked memory {'unlimited' if locked is None else size(locked)}")
    if _unknown(group):
        return ", ".join([*parts, f"cgroup unknown ({_unknown(group)})"])
    parts.append(f"cgroup v{group['version']}")
    for name, text in (("memory-max", "memory"), ("cpu-max", "CPUs"), ("pids-max", "tasks")):
        limit = group[name]
        if isinstance(limit, dict):
            parts.append(f"{text} unknown")
        elif limit is not None:
            parts.append(f"{text} {size(limit) if name == 'memory-max' else f'{limit:g}'}")
    return ", ".join(parts)


def _binaries(binaries: Any) -> Iterator[str]:
    if not binaries or _unknown(binaries):
        yield _unknown(binaries) or "none found on PATH"
        return
    width = max(len(one["path"]) for one in binaries)
    for one in binaries:
        known = not isinstance(one["version"], dict)
        version = one["version"] if known else f"unknown ({_unknown(one['version'])})"
        build = f"  {one['build']}" if one["build"] else ""
        yield f"{one['path']:<{width}}  {version}{build}"
