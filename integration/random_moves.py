"""What the preflight says of a random pair, what really happens, and whether the cures cure."""

from __future__ import annotations

import contextlib
import copy
import os
import re
import select
import subprocess
import tempfile
import time
from typing import Any, NamedTuple

from integration import pair
from integration.conftest import installed, matrix_folder
from integration.pair import Outcome
from integration.random_pairs import Draw, tidy
from integration.test_preflight import End, cured, predict, told
from launcher.errors import LauncherError
from launcher.preflight import Cure, Finding, breaks, explain
from launcher.record import replace

#: What loads and is wrong all the same, or needs a guest that does more than a firmware:
#: (code, property); a star stands for any.
SILENT = {
    ("setting", "zero-page-detection"), ("cpu-programs", "avx"), ("property", "avx"),
    ("setting", "x-preempt-pre-7-2"), ("setting", "postcopy-preempt"), ("property", "queue_reset"),
    ("setting", "multifd-flush-after-each-section"), ("setting", "x-colo"), ("property", "share"),
    ("setting", "background-snapshot"), ("property", "maxcpus"),
}  # fmt: skip
VIA = "unix"
#: Verdicts that are a fault of the preflight's.
DISAGREEMENTS = ("alarm", "miss", "words", "cure")
#: How often cures are applied before a case is given up.
ROUNDS = 5
_UP = ("No bootable device", "Booting from")


class Judged(NamedTuple):
    """`works`, `breaks`, `silent`, `invalid`, or one of DISAGREEMENTS."""

    verdict: str
    detail: str = ""
    outcome: Outcome | None = None


def needs_guest(finding: Finding) -> bool:
    if (finding.code, finding.property) in SILENT:
        return True
    # A firmware takes few features, and gives addresses that fit more often than not.
    if finding.words.startswith(("Features 0x", "get_pci_config_device: Bad config data: i=0x10")):
        return True
    return finding.code == "releases" and "offered 1024" in finding.message


def images(end: End) -> None:
    """The files of a profile's block nodes."""
    for one in end.profile.get("blockdevs", {}).values():
        file = one.get("file")
        if isinstance(file, dict) and "filename" in file and not os.path.exists(file["filename"]):
            tool = installed("10.0").image_tool
            words = [tool, "create", "-q", "-f", one["driver"], file["filename"], "4M"]
            subprocess.run(words, check=True, timeout=60)


def move(source: End, destination: End, *, runs: bool, hung: float) -> Outcome:
    """The migration, by bare QEMUs; with `runs` the source's firmware is through with its start."""
    plans = [end.prepared() for end in (source, destination)]
    words = [e.argv(p) for e, p in zip((source, destination), plans, strict=True)]
    setup = [[(s.command, s.arguments) for s in p.plan.setup] for p in plans]
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ql-move-"))
        log = os.path.join(folder, "firmware")
        listens = runs and "microvm" not in str(source.profile["machine"])
        for n, end in enumerate(words):
            if listens:
                end += ["-chardev", f"file,id=fw,path={log}{n or ''}"]
                end += ["-device", "isa-debugcon,iobase=0x402,chardev=fw"]
        for end in (source, destination):
            for backend in end.profile.get("objects", {}).values():
                if "mem-path" in backend:
                    stack.callback(_remove, backend["mem-path"])
        try:
            first = pair.End([*words[0], "-S"])
            stack.callback(first.raw.close)
        except (AssertionError, ValueError, OSError) as error:
            return Outcome("refused", f"source: {error}", "")
        try:
            second = pair.End([*words[1], "-S", "-incoming", "defer"])
            stack.callback(second.raw.close)
        except (AssertionError, ValueError, OSError) as error:
            return Outcome("refused", f"destination: {error}", "")
        for name, end, steps in zip(("source", "destination"), (first, second), setup, strict=True):
            refused = end.set_up(steps)
            if refused:
                return Outcome("refused", f"{name}: {refused}", "")
        if runs:
            first.do("cont")
            _wait_for_firmware(first, log if listens else "")
        uri = f"unix:{os.path.join(folder, 's')}"
        return pair._migrate(first, second, uri, False, hung=hung)


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.remove(path)


def _wait_for_firmware(end: pair.End, log: str, most: float = 15.0) -> None:
    deadline = time.monotonic() + (most if log else 0.4)
    while time.monotonic() < deadline and not end.dead:
        select.select([], [], [], 0.05)
        if log and os.path.exists(log):
            with open(log, errors="replace") as file:
                text = file.read()
            if any(words in text for words in _UP):
                return


def compare(draw: Draw, *, hung: float = pair.HUNG, cures: bool = True) -> Judged:
    """One pair: predicted, tried, and where it breaks cured and tried again."""
    try:
        findings = predict(draw.source, draw.destination, VIA)
    except LauncherError as error:
        return Judged("invalid", f"plan: {error}")
    for end in (draw.source, draw.destination):
        images(end)
    broken = breaks(findings)
    outcome = move(draw.source, draw.destination, runs=draw.runs, hung=hung if broken else 30.0)
    said = f"{outcome.said}\n{outcome.source}"
    if outcome.result == "refused" and not explain(broken, said):
        return Judged("invalid", said, outcome)
    if outcome.result == "completed":
        if _without_footers(draw):
            return Judged("silent", "without footers what does not fit is not noticed", outcome)
        real = [f for f in broken if not needs_guest(f)]
        if real:
            return Judged("alarm", told(tuple(real)), outcome)
        return Judged("silent" if broken else "works", told(broken), outcome)
    if not broken:
        return Judged("miss", said, outcome)
    # Where the ends disagree about channels, what they say first is a matter of luck.
    racing = any(f.property.startswith("multifd") for f in broken)
    if outcome.result == "failed" and not racing and not explain(broken, said):
        return Judged("words", f"{said}\n{told(broken)}", outcome)
    return _cured(draw, hung) if cures else Judged("breaks", told(broken), outcome)


def _without_footers(draw: Draw) -> bool:
    return all("send-section-footer': False" in str(e) for e in (draw.source, draw.destination))


def _cured(draw: Draw, hung: float) -> Judged:
    """Apply a cure of each finding until nothing breaks, and try."""
    ends = [draw.source, draw.destination]
    done: list[str] = []
    for _ in range(ROUNDS):
        broken = breaks(predict(*ends, VIA))
        if not broken:
            break
        for finding in broken:
            if not finding.cures:
                return Judged("breaks", f"nothing cures {finding.message}")
            cure = finding.cures[draw.seed % len(finding.cures)]
            try:
                ends = apply(ends, finding, cure)
            except (LookupError, LauncherError) as error:
                return Judged("breaks", f"told in words: {cure.text} {error}")
            done.append(cure.text)
            try:
                predict(*ends, VIA)
            except LauncherError as error:
                return Judged("cure", f"cannot be planned: {done} {error}")
    else:
        return Judged("cure", f"never ends: {done}\n{told(broken)}")
    outcome = move(ends[0], ends[1], runs=draw.runs, hung=30.0)
    if outcome.result != "completed":
        return Judged("cure", f"{done}: {outcome.said}\n{outcome.source}", outcome)
    return Judged("breaks", f"cured by {done}")


def apply(ends: list[End], finding: Finding, cure: Cure) -> list[End]:
    """The ends with a cure; LookupError where it is told in words that no program follows."""
    at = {"source": 0, "destination": 1, "both": 1}[cure.end]
    words = cure.text.split()
    if cure.platform:
        return [end._replace(platform=cure.platform) for end in ends]
    if words[0] == "leave" and cure.property:
        return _with(ends, at, lambda p: p["devices"][cure.id].pop(cure.property))
    if words[0] == "leave" and cure.family == "device":
        for n in (0, 1) if cure.end == "both" else (at,):
            if cure.id not in ends[n].profile.get("devices", {}):
                raise LookupError
            ends = _with(ends, n, lambda p: p["devices"].pop(cure.id))
        return ends
    ordered = any(order in cure.text for order in ("same order", "order of the source"))
    named = (cure.family, cure.property)
    if words[0] in ("add", "plug", "put") or ordered:
        return _with(ends, at, lambda p: _copy(ends[1 - at].profile, p))
    if named in (("device", "driver"), ("netdev", "type")):
        return _with(ends, at, lambda p: _copy(ends[1 - at].profile, p))
    if cure.family == "transport" or cure.text.startswith("call the"):
        raise LookupError
    if cure.text.startswith("smp: {"):
        return cured(ends, replace(finding, cures=(cure,)), 0)
    if cure.text.startswith("memory.slots") and not cure.property:
        more = ends[0].profile["memory"]
        return _with(
            ends, 1, lambda p: p["memory"].update({k: more[k] for k in ("slots", "maxmem")})
        )
    for name in ("ioapic2", "acpi"):
        for word, value in (("on", True), ("off", False)):
            if cure.text.startswith(f"machine.{name}: {word}") and not cure.property:
                return _with(ends, at, lambda p, n=name, v=value: p["machine"].update({n: v}))
    if cure.text.startswith("migration.capabilities.block"):
        return _with(ends, at, lambda p: p["migration"]["capabilities"].update(block=False))
    if cure.text.startswith("boot.firmware"):
        name = f"{matrix_folder()}/10.0/root/usr/share/qemu/bios-microvm.bin"
        for n in (0, 1):
            ends = _with(ends, n, lambda p: p.update(boot={"firmware": os.path.realpath(name)}))
        return ends
    for name, value in (("msix", True), ("max_outputs", 1)):
        if not cure.property and f"{cure.id}.{name}: " in cure.text:
            for n in (0, 1):
                ends = _with(
                    ends, n, lambda p, n=name, v=value: p["devices"][cure.id].update({n: v})
                )
            return ends
    two = re.search(r" \((\S+) is (\S+) at the source\)$", cure.text)
    if two is not None:
        plain = cure.text[: two.start()]
        halves = [
            replace(cure, end="source", id=two[2], text=plain),
            replace(cure, end="destination", text=plain),
        ]
        for half in halves:
            ends = apply(ends, finding, half)
        return ends
    if (cure.family, cure.property) != ("cpu", "model") and "cpu: {model: " in cure.text:
        usual = {"model": "qemu64"}
        for n in {"source": (0,), "destination": (1,), "both": (0, 1)}[cure.end]:
            ends = _with(ends, n, lambda p: p.update(cpu={**usual, **p.get("cpu", {})}))
    if not cure.property or (not cure.value and cure.property not in ("romfile", "tls-creds")):
        raise LookupError
    if "." in cure.id or cure.property in ("memory-backend", "id") or cure.family == "icount":
        raise LookupError
    if (cure.family, cure.id) == ("object", "ram"):
        cure = replace(cure, family="memory")
    return cured(ends, replace(finding, cures=(cure,)), 0)


def _with(ends: list[End], at: int, change: Any) -> list[End]:
    profile = copy.deepcopy(ends[at].profile)
    change(profile)
    tidy(profile)
    return [end._replace(profile=profile) if n == at else end for n, end in enumerate(ends)]


def _copy(source: dict[str, Any], profile: dict[str, Any]) -> None:
    """All devices of the other end, with what is behind them."""
    profile["devices"] = copy.deepcopy(source.get("devices", {}))
    for family in ("netdevs", "chardevs", "blockdevs", "audiodevs", "objects"):
        more = copy.deepcopy(source.get(family, {}))
        if family == "netdevs":
            profile[family] = more
        elif more:
            profile[family] = {**more, **profile.get(family, {})}
