"""The JSON shapes of a comparison: one pair of binaries, and the matrix of several releases."""

from __future__ import annotations

from itertools import pairwise

from launcher.drift.compare import compare
from launcher.drift.cover import Covering
from launcher.record import as_dict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from launcher.drift.compare import Change, Comparison
    from launcher.drift.cover import Cover
    from launcher.drift.entries import Key, Surveyed
    from launcher.drift.waivers import Waiver
    from launcher.platforms import Catalogue

FORMAT = 1
_COUNTS = ("same", "changed", "appeared", "gone", "covered", "waived", "uncovered")


def drift_json(
    comparison: Comparison, catalogue: Catalogue, waivers: Sequence[Waiver], platform: str = ""
) -> dict[str, Any]:
    """One pair: heads, counts, counts by family, what was not compared, and every change.

    Args:
        comparison: of two binaries.
        catalogue: the platform data that may cover a change.
        waivers: the changes that need no cover.
        platform: whose pins both binaries were given; empty for none.
    """
    covering = Covering(catalogue, waivers, comparison)
    judged = [(change, covering.cover(change)) for change in comparison.changes]
    families = _families(comparison, judged)
    return {
        "format": FORMAT,
        "old": as_dict(comparison.old.head),
        "new": as_dict(comparison.new.head),
        "machine": comparison.new.machine or None,
        "platform": platform or None,
        "counts": {name: sum(f[name] for f in families.values()) for name in _COUNTS},
        "families": families,
        "unseen": [
            {"family": family, "type": type_, "side": side, "reason": why}
            for family, type_, side, why in comparison.unseen
        ],
        "changes": [{**as_dict(change), **_cover_json(cover)} for change, cover in judged],
    }


def _families(
    comparison: Comparison, judged: list[tuple[Change, Cover]]
) -> dict[str, dict[str, int]]:
    found = {family: dict.fromkeys(_COUNTS, 0) for family in sorted(_named(comparison))}
    for family, number in comparison.same.items():
        found[family]["same"] = number
    for change, cover in judged:
        found[change.family][change.change] += 1
        found[change.family][cover.verdict] += 1
    return found


def _named(comparison: Comparison) -> set[str]:
    return {*comparison.same, *(change.family for change in comparison.changes)}


def _cover_json(cover: Cover) -> dict[str, Any]:
    return {"cover": cover.verdict, "by": None if cover.by is None else as_dict(cover.by)}


def matrix(
    surveys: Sequence[Surveyed], catalogue: Catalogue, waivers: Sequence[Waiver]
) -> dict[str, Any]:
    """All releases side by side, oldest first: a row for each facet of each property.

    Args:
        surveys: at least two, oldest first.
        catalogue: the platform data.
        waivers: the changes that need no cover.
    """
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for number, one in enumerate(surveys):
        for key, facets in one.entries.items():
            for facet, value in facets.items():
                if facet != "word" or len(facets) == 1:
                    row = _row(rows, (*key, facet), surveys)
                    row["cells"][number] = {"state": "here", "value": value}
    pairs = []
    for number, (old, new) in enumerate(pairwise(surveys)):
        comparison = compare(old, new)
        covering = Covering(catalogue, waivers, comparison)
        judged = [(change, covering.cover(change)) for change in comparison.changes]
        for change, cover in judged:
            key = (change.family, change.type, change.property)
            step = {"change": change.change, **_cover_json(cover)}
            _row(rows, (*key, _facet(change, old, new, key)), surveys)["steps"][number] = step
        families = _families(comparison, judged)
        counts = {name: sum(f[name] for f in families.values()) for name in _COUNTS}
        pairs.append({"old": old.head.name, "new": new.head.name, "counts": counts})
    return {
        "format": FORMAT,
        "releases": [as_dict(one.head) for one in surveys],
        "pairs": pairs,
        "rows": [rows[key] for key in sorted(rows)],
    }


def _facet(change: Change, old: Surveyed, new: Surveyed, key: Key) -> str:
    """The row of a change: that a word came or went is shown where its value stands."""
    if change.facet != "word":
        return change.facet
    facets = (old if change.change == "gone" else new).entries[key]
    for facet in ("value", "default", "type", "instance"):
        if facet in facets:
            return facet
    return next((facet for facet in facets if facet != "word"), "word")


def _row(
    rows: dict[tuple[str, ...], dict[str, Any]], at: tuple[str, ...], surveys: Sequence[Surveyed]
) -> dict[str, Any]:
    found = rows.get(at)
    if found is None:
        family, type_, name, facet = at
        found = rows[at] = {
            "family": family,
            "type": type_,
            "property": name,
            "facet": facet,
            "cells": [_empty(one, family, type_, name, facet) for one in surveys],
            "steps": [None] * (len(surveys) - 1),
        }
    return found


def _empty(one: Surveyed, family: str, type_: str, name: str, facet: str) -> dict[str, Any]:
    """A cell without a value: the property is not there, or this release does not show it."""
    hidden = (family, "*") in one.unseen or (name != "*" and (family, type_) in one.unseen)
    known = (family, type_, name) in one.entries
    partial = known and not facet.startswith(("takes ", "feature "))
    return {"state": "unseen" if hidden or partial else "absent", "value": None}
