"""Questions to the catalogue that depend on one binary's release."""

from __future__ import annotations

from launcher.platforms.catalogue import Observer
from launcher.platforms.versions import ALWAYS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from launcher.platforms.catalogue import Catalogue, Hazard, Name, Removal, Rename
    from launcher.platforms.versions import Version

_NONE_KNOWN = Observer(ALWAYS, None, unobservable="no way to read it back is known")


def rename_for(
    catalogue: Catalogue, family: str, type_: str, property_: str, version: Version
) -> Rename | None:
    """The rename to apply when `version` does not know today's word `property_` yet."""
    for one in (type_, "*"):
        found = catalogue.renames.get((family, one, property_))
        if found is not None and version.series < found.from_.series:
            knows = found.old_from is None or found.old_from.series <= version.series
            return found if knows else None
    return None


def renamed_from(catalogue: Catalogue, family: str, type_: str, old: str) -> Rename | None:
    """The rename whose old word this is: profiles are written in today's words."""
    return catalogue.old_words.get((family, type_, old)) or catalogue.old_words.get(
        (family, "*", old)
    )


def removal_for(
    catalogue: Catalogue, family: str, type_: str, property_: str, version: Version
) -> Removal | None:
    """The removal that makes `version` refuse this word (or its whole type), if one does."""
    for key in ((family, type_, property_), (family, type_, "*"), (family, "*", property_)):
        found = catalogue.removals.get(key)
        if found is not None and version.series > found.until.series:
            return found
    return None


def since(catalogue: Catalogue, family: str, type_: str, property_: str) -> str | None:
    """The first release whose command line knows the word, by today's name or an old one."""
    for key in ((family, type_, property_), (family, "*", property_), (family, type_, "*")):
        rename = catalogue.renames.get(key)
        if rename is not None:
            return str(rename.old_from) if rename.old_from is not None else None
        if key in catalogue.additions:
            return str(catalogue.additions[key])
        chain = catalogue.rows(key)
        if chain and chain[0].knows.from_ is not None:
            return str(chain[0].knows.from_)
    return None


def observer_for(
    catalogue: Catalogue, family: str, type_: str, property_: str, version: Version
) -> Observer:
    """How the property is read back from a QEMU of `version`: exact names before `*`."""
    for key in (
        (family, type_, property_),
        (family, type_, "*"),
        (family, "*", property_),
        (family, "*", "*"),
    ):
        for observer in catalogue.observers.get(key, ()):
            if observer.knows.contains(version):
                return observer
    return _NONE_KNOWN


def takes_json(catalogue: Catalogue, option: str, version: Version) -> bool:
    """Whether `-option` takes a JSON object on a QEMU of `version`."""
    found = catalogue.syntax.get(option)
    return found is not None and found.json is not None and found.json.contains(version)


def has_option(catalogue: Catalogue, option: str, version: Version) -> bool:
    """Whether a QEMU of `version` has `-option`; options that the data does not name are old."""
    found = catalogue.syntax.get(option)
    return found is None or found.exists.contains(version)


def hazardous(
    catalogue: Catalogue,
    command: str,
    version: Version,
    arguments: Mapping[str, object] | None = None,
) -> Hazard | None:
    """The hazard of sending `command` to a live QEMU of `version`.

    Without `arguments` any hazard of the command counts; with them only one that they fit.
    """
    for hazard in catalogue.hazards:
        if hazard.command == command and hazard.knows.contains(version):
            fits = arguments is None or all(
                str(arguments.get(name)) == value for name, value in hazard.arguments
            )
            if fits:
                return hazard
    return None


def too_old(catalogue: Catalogue, version: Version) -> bool:
    """Whether a binary is older than the data reaches back."""
    return version.series < catalogue.oldest.series


def reaches(floor: Version | None, version: Version) -> bool:
    """Whether `version` is at or above a floor; every version is where there is none."""
    return floor is None or floor.series <= version.series


def fitting(
    catalogue: Catalogue, qemu: Version, linux: Version | None, like: str = ""
) -> Name | None:
    """The newest named platform whose floors a binary and a kernel reach.

    Args:
        catalogue: the names.
        qemu: the binary's release.
        linux: the kernel's; None when it is not known, which any floor allows.
        like: a platform's name; among equals one of the same distribution is preferred.
    """
    family = like.partition("-")[0]
    fits = [
        name
        for name in catalogue.names.values()
        if reaches(name.qemu, qemu) and (linux is None or reaches(name.linux, linux))
    ]
    return max(
        fits,
        key=lambda n: (n.qemu.numbers, n.name.partition("-")[0] == family, n.name),
        default=None,
    )
