"""Random pairs for a migration: two machines that are alike, or that differ in a thing or two.

`draw(seed)` makes the same pair each time.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from integration.conftest import RELEASES
from integration.random_devices import DEVICES, SETTINGS
from integration.random_profiles import (
    Maker,
    device,
    fitting,
    numbers,
    over_mmio,
    repaired,
    set_migration,
)
from integration.test_preflight import UUIDS, End, Profile


class Draw(NamedTuple):
    """A pair of ends; `runs`: the source's firmware runs while it is sent."""

    seed: int
    source: End
    destination: End
    runs: bool
    changes: tuple[str, ...]


def draw(seed: int, folder: str, releases: Sequence[str] = RELEASES) -> Draw:
    """The pair of a seed. Files that it names are below `folder`."""
    chance = random.Random(seed)
    pair = (chance.choice(releases), chance.choice(releases))
    low, high = sorted(pair, key=numbers)
    m = Maker(chance, low, high, folder)
    m.machine()
    m.processors()
    m.memory()
    for _ in range(chance.choice((0, 1, 2, 3, 4, 6, 8))):
        device(m)
    m.migration()
    ends = [m.profile, copy.deepcopy(m.profile)]
    changes = []
    for _ in range(chance.choice((0, 0, 1, 1, 1, 2, 3))):
        at = chance.randrange(2)
        said = chance.choice(CHANGES)(m, ends[at])
        if said:
            changes.append(f"{('source', 'destination')[at]}: {said}")
    platform = chance.choice(("native", "native", "native", "debian-11"))
    if any(numbers(r) < (5, 2) for r in pair):
        platform = "native"
    made = [End(_plain(p), r, platform) for p, r in zip(ends, pair, strict=True)]
    return Draw(seed, made[0], made[1], chance.random() < 0.35, tuple(changes))


def _plain(value: Any) -> Any:
    """With real booleans: in a profile that a program makes, `on` is a text."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return {"on": True, "off": False}.get(value, value) if isinstance(value, str) else value


# -- differences ----------------------------------------------------------------------------------


def _users(profile: Profile, key: str) -> int:
    return sum(key in map(str, d.values()) for d in profile.get("devices", {}).values())


def tidy(profile: Profile) -> None:
    """Without netdevs that nothing uses, which a profile must not have."""
    for key in list(profile.get("netdevs", {})):
        if not _users(profile, key):
            del profile["netdevs"][key]


def _drop(m: Maker, profile: Profile) -> str:
    devices = profile.get("devices", {})
    free = [k for k in devices if not any(d.get("bus", "").partition(".")[0] == k
                                          for d in devices.values())]  # fmt: skip
    if not free:
        return ""
    key = m.one(free)
    gone = devices.pop(key)
    tidy(profile)
    return f"without {gone['driver']} {key}"


def _add(m: Maker, profile: Profile) -> str:
    before, m.profile = m.profile, profile
    known = set(profile.get("devices", {}))
    device(m)
    m.profile = before
    more = {k: d["driver"] for k, d in profile.get("devices", {}).items() if k not in known}
    return f"with {more}" if more else ""


def _order(m: Maker, profile: Profile) -> str:
    devices = profile.get("devices", {})
    if len(devices) < 2:
        return ""
    keys = list(devices)
    at = m.chance.randrange(len(keys) - 1)
    keys[at], keys[at + 1] = keys[at + 1], keys[at]
    if devices[keys[at]].get("bus", "").partition(".")[0] == keys[at + 1]:
        return ""
    profile["devices"] = {key: devices[key] for key in keys}
    return f"{keys[at + 1]} after {keys[at]}"


def _property(m: Maker, profile: Profile) -> str:
    devices = profile.get("devices", {})
    if not devices:
        return ""
    key = m.one(devices)
    kind = next((k for k in DEVICES if k.driver == devices[key]["driver"].replace(
        "-non-transitional", "").replace("-transitional", "")), None)  # fmt: skip
    if kind is None:
        return ""
    made = fitting(m.some(kind.properties, 0.3), devices[key])
    if devices[key]["driver"].endswith("-device"):
        made = over_mmio(kind, made)
    changed = {n: v for n, v in made.items() if devices[key].get(n) != v}
    devices[key] |= changed
    return f"{devices[key]['driver']} {key} {changed}" if changed else ""


def _rename(m: Maker, profile: Profile) -> str:
    devices = profile.get("devices", {})
    if not devices:
        return ""
    key = m.one(devices)
    if any(d.get("bus", "").partition(".")[0] == key for d in devices.values()):
        return ""
    profile["devices"] = {f"{k}x" if k == key else k: d for k, d in devices.items()}
    return f"{key} is {key}x"


def _setting(m: Maker, profile: Profile) -> str:
    name, value = m.one(SETTINGS)
    done = set_migration(m, profile, name, value)
    repaired(profile)
    return f"migration {name}" if done else ""


def _redrawn(what: str) -> Callable[[Maker, Profile], str]:
    """The machine's CPUs, memory or properties drawn again."""

    def change(m: Maker, profile: Profile) -> str:
        before, m.profile = m.profile, profile
        old = {k: copy.deepcopy(profile.get(k)) for k in (what, "cpu", "smp", "machine", "accel")}
        if what == "cpu":
            profile.pop("cpu", None)
            profile.pop("smp", None)
            m.processors()
        elif what == "memory" and "numa" not in profile:
            profile.pop("extra-args", None)
            profile.pop("memory", None)
            profile["machine"].pop("memory-backend", None)
            m.memory()
        elif what == "machine":
            buses, keeps = dict(m.buses), ("type", "memory-backend", "pcie", "usb")
            kept = {k: v for k, v in profile["machine"].items() if k in keeps}
            m.machine(m.family)
            made = {k: v for k, v in profile["machine"].items() if k not in keeps}
            profile["machine"] = {**made, **kept}
            if "pcie" in kept or ("usb" in kept and m.family == "microvm"):
                profile["machine"]["acpi"] = "on"
            m.buses = buses
        elif what == "uuid":
            profile["uuid"] = UUIDS[1]
        m.profile = before
        return what if any(profile.get(k) != v for k, v in old.items()) else ""

    return change


CHANGES: tuple[Callable[[Maker, Profile], str], ...] = (
    *(_drop, _add, _add, _order, _property, _property, _property, _rename, _setting, _setting),
    *(_setting, _redrawn("cpu"), _redrawn("memory"), _redrawn("machine"), _redrawn("uuid")),
)
