"""What QEMU does by itself, where the platform data knows that this changes between releases."""

from __future__ import annotations

from launcher.errors import LauncherError
from launcher.prepare import host_facts
from launcher.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.plan import Plan
    from launcher.prepare import Loaded, Prepared
    from launcher.report import Report


def with_defaults(prepared: Prepared) -> Plan:
    """The plan with what QEMU does by itself where platform data knows that this changes.

    They are expectations, not written: what is read back is what is locked.
    """
    from launcher.plan import Origin, make_plan
    from launcher.platforms import Platform as Floor
    from launcher.platforms import parse_qemu_version

    loaded, plan = prepared.loaded, prepared.plan
    floor = Floor("qemu default", parse_qemu_version(plan.version), None)
    host = host_facts(())
    if plan.accel != "kvm":
        host = replace(host, kvm=(False, "was not chosen"))
    sources = (loaded.profile, floor, loaded.catalogue, prepared.capabilities, host)
    try:
        other = make_plan(*sources, binary=plan.binary, uuid=plan.uuid)
    except LauncherError:
        return plan
    known = {(v.id, v.property) for v in plan.values}
    origin = Origin("qemu default", plan.version)
    found = [
        replace(value, origin=origin)
        for value in other.values
        if value.origin.kind == "platform"
        and (value.id, value.property) not in known
        and not _may_go(loaded, (value.family, value.type, value.property))
    ]
    return replace(plan, values=(*plan.values, *found))


def _may_go(loaded: Loaded, key: tuple[str, str, str]) -> bool:
    """Whether the platform data lets a binary do without this property (`otherwise: omit`)."""
    return any(row.otherwise == "omit" for row in loaded.catalogue.rows(key))


def settled(report: Report) -> Report:
    """The report, in which QEMU's defaults are what was read back.

    One that cannot be read back is dropped where a machine type may have set it.
    """
    versioned = bool(report.plan.machine) and report.plan.machine.rpartition("-")[2][:1].isdigit()
    kept = []
    for one in report.judged:
        if one.value.origin.kind == "qemu default":
            if one.verdict == "absent" or (one.verdict == "unobservable" and versioned):
                continue
            if one.verdict == "mismatch":
                value = replace(one.value, value=one.observed, written=one.observed, note="")
                one = replace(one, value=value, verdict="match", reason="")
        kept.append(one)
    return replace(report, judged=tuple(kept))
