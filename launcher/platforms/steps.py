"""The step from one release to a later one: what falls into it. Pure."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.platforms.versions import Version


def came(release: Version | None, old: Version, new: Version) -> bool:
    """Whether what `release` brought came on the way from `old` to `new`."""
    return release is not None and old.series < release.series <= new.series


def went(until: Version | None, new: Version) -> bool:
    """Whether `new` is past the last release that took a word."""
    return until is not None and until.series < new.series


def touches(from_: Version | None, until: Version | None, old: Version, new: Version) -> bool:
    """Whether a step may hold a change of a release between `from_` and the one after `until`."""
    if from_ is not None and new.series < from_.series:
        return False
    return until is None or old.series <= until.series


def following(release: Version) -> str:
    """The release after one, in whose file stands what it removed: QEMU has x.0, x.1 and x.2."""
    major, minor = release.series
    return f"{major}.{minor + 1}" if minor < 2 else f"{major + 1}.0"
