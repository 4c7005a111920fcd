"""Platforms: what every non-device value was and is, release by release, and its resolution.

Pure: `build_catalogue` takes parsed files, nothing here touches the disk. README.md says how to
add a change.
"""

from __future__ import annotations

from launcher.platforms.build import build_catalogue
from launcher.platforms.catalogue import (
    FAMILIES,
    Catalogue,
    Hazard,
    Name,
    Observer,
    Removal,
    Rename,
    Row,
    Syntax,
)
from launcher.platforms.lookup import (
    fitting,
    has_option,
    hazardous,
    observer_for,
    reaches,
    removal_for,
    rename_for,
    renamed_from,
    since,
    takes_json,
    too_old,
)
from launcher.platforms.resolve import (
    NATIVE,
    Pin,
    Platform,
    find_platform,
    locked_pin,
    own_value,
    platform_from_file,
    resolve,
)
from launcher.platforms.spell import Impossible, Omitted, Written, applies, asker, spell
from launcher.platforms.versions import (
    Range,
    Version,
    parse_kernel,
    parse_qemu_version,
    parse_version,
    release_numbers,
)

__all__ = [
    "FAMILIES",
    "NATIVE",
    "Catalogue",
    "Hazard",
    "Impossible",
    "Name",
    "Observer",
    "Omitted",
    "Pin",
    "Platform",
    "Range",
    "Removal",
    "Rename",
    "Row",
    "Syntax",
    "Version",
    "Written",
    "applies",
    "asker",
    "build_catalogue",
    "find_platform",
    "fitting",
    "has_option",
    "hazardous",
    "locked_pin",
    "observer_for",
    "own_value",
    "parse_kernel",
    "parse_qemu_version",
    "parse_version",
    "platform_from_file",
    "reaches",
    "release_numbers",
    "removal_for",
    "rename_for",
    "renamed_from",
    "resolve",
    "since",
    "spell",
    "takes_json",
    "too_old",
]
