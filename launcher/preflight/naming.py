"""Cures in the words of the end that they are for: its own ids, and what it has not written yet."""

from __future__ import annotations

from launcher.preflight.seats import seats
from launcher.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from launcher.preflight.agree import Pair
    from launcher.preflight.findings import Cure, Finding
    from launcher.preflight.side import Side

#: The CPU of a PC for which a profile names none (target/i386/cpu.c; hw/i386/pc.c).
_USUAL_CPU = "qemu64"


def named_at_their_ends(pair: Pair, findings: Iterable[Finding]) -> Iterator[Finding]:
    """The findings, each cure as the end that it is for has to write it."""
    places = None
    for finding in findings:
        if any(cure.family == "device" and cure.id for cure in finding.cures) and not pair.partial:
            places = places or _ids(pair)
            finding = replace(finding, cures=tuple(_renamed(c, places) for c in finding.cures))
        if any(cure.family == "cpu" for cure in finding.cures):
            finding = replace(finding, cures=tuple(_with_model(pair, c) for c in finding.cures))
        yield finding


def _ids(pair: Pair) -> dict[str, tuple[dict[str, str], dict[str, str]]]:
    """By end: its devices' ids by their places, and the other end's places by their ids."""
    ends = [
        {place: device.id for place, device in seats(pair, side).items() if device.id}
        for side in (pair.source, pair.destination)
    ]
    back = [{key: place for place, key in one.items()} for one in ends]
    return {"source": (ends[0], back[1]), "destination": (ends[1], back[0])}


def _renamed(cure: Cure, places: dict[str, tuple[dict[str, str], dict[str, str]]]) -> Cure:
    """A device may have one id at the source and another at the destination."""
    own, other = places["source" if cure.end == "both" else cure.end]
    mine = own.get(other.get(cure.id, ""), "")
    if cure.family != "device" or not cure.property or not mine or cure.id in own.values():
        return cure
    if cure.end == "both":
        return replace(cure, text=f"{cure.text} ({cure.id} is {mine} at the source)")
    text = cure.text.replace(f"devices.{cure.id}.", f"devices.{mine}.")
    return replace(cure, text=text, id=mine)


def _with_model(pair: Pair, cure: Cure) -> Cure:
    """A profile that gives its CPU a property names the model, too."""
    ends: dict[str, tuple[Side, ...]] = {
        "source": (pair.source,),
        "destination": (pair.destination,),
        "both": (pair.source, pair.destination),
    }
    named = cure.family != "cpu" or cure.property in ("", "model")
    if named or all(side.one("cpu").type for side in ends[cure.end]):
        return cure
    written = f"cpu.{cure.property}: {cure.value}"
    whole = f"cpu: {{model: {_USUAL_CPU}, {cure.property}: {cure.value}}}"
    return replace(cure, text=cure.text.replace(written, whole))
