"""Observations, verdicts, and the report of one start. Pure."""

from __future__ import annotations

from launcher.record import record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from launcher.plan import Plan, Value

    #: (family, id, property): what an expectation and its observation share.
    Key = tuple[str, str, str]

#: The four verdicts. Nothing that was not read back is ever called a match.
VERDICTS = ("match", "mismatch", "absent", "unobservable")


@record
class Observation:
    """What reading one value back gave.

    `state` is `read`, `absent` (QEMU has no such property there) or `unreadable` (it would not
    say; `reason` has its words).
    """

    state: str
    value: Any = None
    reason: str = ""


@record
class Judged:
    """One expectation with its verdict."""

    value: Value
    verdict: str
    observed: Any
    reason: str


@record
class Report:
    """What was planned, what was observed, and whether they agree."""

    plan: Plan
    judged: tuple[Judged, ...]
    #: lines of QEMU's stderr that say a value was not applied, and what is wrong with a helper
    complaints: tuple[str, ...]
    #: QMP commands and request bytes of the verification
    commands: int = 0
    request_bytes: int = 0
    #: under KVM, whether the guest runs natively, and why that is the verdict; None when nobody
    #: has looked, as before the guest runs
    speed: tuple[bool | None, str] | None = None

    @property
    def counts(self) -> dict[str, int]:
        """How many values got each verdict."""
        counted = dict.fromkeys(VERDICTS, 0)
        for one in self.judged:
            counted[one.verdict] += 1
        return counted

    @property
    def verdict(self) -> str:
        """`match` only when no value is off, none is missing, and QEMU did not complain."""
        counts = self.counts
        bad = counts["mismatch"] + counts["absent"] + len(self.complaints)
        return "mismatch" if bad else "match"

    @property
    def wrong(self) -> tuple[Judged, ...]:
        """The values that stop a strict launch."""
        return tuple(j for j in self.judged if j.verdict in ("mismatch", "absent"))


#: What QEMU says on stderr when it starts all the same without what was planned. Its warnings of
#: missing CPU features are not among them: those are the CPU model's affair, and qemu64 draws one
#: on nearly every host.
_COMPLAINTS = (
    "has invalid class name",
    "vhost-net requested but could not be initialized",
    "tap: open vhost char device failed",
)


def find_complaints(lines: Sequence[str]) -> tuple[str, ...]:
    """The lines of QEMU's stderr that mean a value was silently not applied."""
    return tuple(line for line in lines if any(words in line for words in _COMPLAINTS))


def judge(
    plan: Plan,
    observations: Mapping[Key, Observation],
    stderr: Sequence[str] = (),
    commands: int = 0,
    request_bytes: int = 0,
    troubles: tuple[str, ...] = (),
) -> Report:
    """Every expectation of `plan` against what was observed. Total: each gets one verdict."""
    judged = tuple(
        _verdict(value, observations.get((value.family, value.id, value.property)))
        for value in plan.values
    )
    return Report(plan, judged, (*find_complaints(stderr), *troubles), commands, request_bytes)


def _verdict(value: Value, seen: Observation | None) -> Judged:
    if value.observer.read is None:
        return Judged(value, "unobservable", None, value.observer.unobservable)
    if seen is None:
        return Judged(value, "unobservable", None, f"{value.observer.read} was not asked")
    if seen.state == "absent":
        return Judged(value, "absent", None, seen.reason or "QEMU has no such value")
    if seen.state == "unreadable":
        return Judged(value, "unobservable", None, seen.reason)
    kept_as = value.observer.reads_as
    wanted = dict(kept_as).get(as_text(value.written)) if kept_as else None
    if wanted is not None:
        agree, reason = as_text(seen.value) == wanted, f"QEMU keeps it as {wanted}"
    else:
        planned = value.written
        if (value.family, value.property) == ("device", "addr"):
            planned, seen = _devfn(planned), replace(seen, value=_devfn(seen.value))
        agree, reason = same(planned, seen.value), value.note
    return Judged(value, "match" if agree else "mismatch", seen.value, reason)


def same(planned: Any, observed: Any) -> bool:
    """Whether QEMU's answer means what was planned.

    QEMU spells booleans on/off or true/false, numbers as text, and links to objects as QOM
    paths (`/objects/ram` since 7.2, `ram` before).
    """
    if planned is observed:
        return True
    if isinstance(planned, dict) and isinstance(observed, dict):
        return all(k in observed and same(v, observed[k]) for k, v in planned.items())
    if isinstance(planned, (list, tuple)):
        return (
            isinstance(observed, (list, tuple))
            and len(planned) == len(observed)
            and all(same(p, o) for p, o in zip(planned, observed, strict=True))
        )
    wanted, got = as_text(planned), as_text(observed)
    if wanted == got:
        return True
    if isinstance(observed, str) and got.startswith("/"):
        return wanted == got.rpartition("/")[2]
    return _number(wanted) is not None and _number(wanted) == _number(got)


def as_text(value: Any) -> str:
    """A value in QEMU's keyval spelling."""
    if value is True or value == "true":
        return "on"
    if value is False or value == "false":
        return "off"
    return "" if value is None else str(value)


def _devfn(address: Any) -> Any:
    """A PCI slot and function as one number: `06.1` is 0x31 (hw/core/qdev-properties-system.c)."""
    slot, _, function = str(address).partition(".")
    if not isinstance(address, str):
        return address
    try:
        return int(slot, 16) << 3 | int(function or "0", 16)
    except ValueError:
        return address


def _number(text: str) -> int | None:
    try:
        return int(text, 0) if len(text) <= 24 else None
    except ValueError:
        return None
