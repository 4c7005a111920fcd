"""What decides whether a machine can migrate: its effective settings, CPU and RAM blocks."""

from __future__ import annotations

from launcher.errors import LauncherError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from launcher.capabilities import Capabilities
    from launcher.monitor import Monitor
    from launcher.plan import Plan


async def migration_of(monitor: Monitor, plan: Plan, capabilities: Capabilities) -> dict[str, Any]:
    """The section `migration` of a lock file, read from a machine.

    Args:
        monitor: the machine's.
        plan: what was decided for it.
        capabilities: of its binary.

    Raises:
        MonitorError: QEMU went away.
    """
    from launcher.verify.hmp import parse_migrate, parse_ram_blocks

    if plan.tool != "qemu-system":
        return {}
    kind = capabilities.machine(plan.machine)
    compat = (
        {name: text for (type_, name), text in kind.compat.items() if type_ == "migration"}
        if kind is not None
        else {}
    )
    answers = await monitor.execute_all(
        [
            ("query-migrate-capabilities", None),
            ("query-migrate-parameters", None),
            ("human-monitor-command", {"command-line": "info migrate"}),
            ("human-monitor-command", {"command-line": "info migrate -a"}),
            ("human-monitor-command", {"command-line": "info ramblock"}),
            ("query-cpus-fast", None),
        ]
    )
    states, parameters, brief, full, blocks, cpus = (
        None if isinstance(answer, LauncherError) else answer for answer in answers
    )
    told = {**parse_migrate(brief or "")[""], **parse_migrate(full or "")[""]}
    known = capabilities.properties("migration") or {}
    found = {
        "cpu": await _cpu_type(monitor, cpus),
        "compat": compat,
        "capabilities": {entry["capability"]: entry["state"] for entry in states or ()},
        "parameters": dict(sorted((parameters or {}).items())),
        "properties": {
            name: text
            for name, text in sorted(told.items())
            if name in known and name not in (parameters or {})
        },
        "ram-blocks": parse_ram_blocks(blocks or ""),
    }
    return {key: part for key, part in found.items() if part}


async def _cpu_type(monitor: Monitor, cpus: Any) -> str:
    if not cpus:
        return ""
    arguments = {"path": cpus[0]["qom-path"], "property": "type"}
    return str(await monitor.execute("qom-get", arguments))
