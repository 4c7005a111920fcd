"""What was learnt about this host and holds until it reboots."""

from __future__ import annotations

import os

from launcher.cache import cache_folder
from launcher.qapi import format_json, parse_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def boot_id() -> str:
    """The kernel's random id of this boot; empty where /proc has none."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return ""


def recall(name: str, key: list[Any]) -> Any:
    """The value remembered under `name` in this boot and for this `key`, or None."""
    try:
        with open(os.path.join(cache_folder(), f"host-{name}.json")) as file:
            kept = parse_json(file.read())
    except (OSError, ValueError):
        return None
    if not isinstance(kept, dict) or kept.get("boot_id") != boot_id() or kept.get("key") != key:
        return None
    return kept.get("value")


def remember(name: str, key: list[Any], value: Any) -> None:
    """Keep a JSON value for later launches; a cache that cannot be written is no error."""
    this_boot = boot_id()
    if not this_boot:
        return
    folder = cache_folder()
    path = os.path.join(folder, f"host-{name}.json")
    partial = f"{path}.{os.getpid()}"
    try:
        os.makedirs(folder, exist_ok=True)
        with open(partial, "w") as file:
            file.write(format_json({"boot_id": this_boot, "key": key, "value": value}))
        os.replace(partial, path)
    except OSError:
        try:
            os.unlink(partial)
        except OSError:
            return
