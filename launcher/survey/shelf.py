"""The records that come with the launcher, and the changes that it waives. Disk, read only."""

from __future__ import annotations

import json
import os

from launcher.errors import InputError
from launcher.platforms.versions import release_numbers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from launcher.drift import Waiver

_HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def folder() -> str:
    """Where the records are; README.md there says how to add one."""
    return os.path.join(_HERE, "recorded")


def recorded() -> dict[str, str]:
    """Name (`qemu-7.2`, `qsd-7.2`) → file of each record, oldest release first."""
    found = {}
    for file in os.listdir(folder()):
        name, underscore, _ = file.partition("_")
        if underscore and file.endswith(".json"):
            found[name] = os.path.join(folder(), file)
    return dict(sorted(found.items(), key=lambda item: _by_release(item[0])))


def _by_release(name: str) -> tuple[str, tuple[int, ...]]:
    """To sort by; nothing is decided by a release here."""
    return name.partition("-")[0], release_numbers(name)


def load_record(path: str) -> dict[str, Any]:
    """A record of the shelf, or one that `qemu-launcher record` wrote.

    Raises:
        InputError: it cannot be read, or is no record.
    """
    from launcher.errors import Place

    place = Place(path)
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", place=place, code="record") from None
    except ValueError:
        found = None
    if not isinstance(found, dict) or not {"readings", "query-version"} <= set(found):
        hint = "`qemu-launcher record QEMU` writes one"
        raise InputError("is no record of a QEMU", place=place, hint=hint, code="record")
    return found


def load_waivers() -> tuple[Waiver, ...]:
    """The changes that need no row of the platform data."""
    from launcher.drift import read_waivers
    from launcher.files import read_yaml

    return read_waivers(read_yaml(os.path.join(_HERE, "drift", "waivers.yaml")))
