"""Which binaries and platforms a test runs on, and what these are called in its id."""

from __future__ import annotations

import os

from launcher.cache import cache_folder
from launcher.errors import InputError
from launcher.platforms.versions import release_numbers
from launcher.probe import find_binary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MATRIX = "matrix"


class Binary(str):
    """The path of a QEMU binary.

    Attributes:
        chosen: it was named by an option, and so wins over the profile's own.
    """

    __slots__ = ("chosen",)
    chosen: bool

    @classmethod
    def of(cls, path: str, *, chosen: bool) -> Binary:
        """A path with the word whether it was chosen."""
        made = cls(path)
        made.chosen = chosen
        return made


def binaries(named: Iterable[str]) -> list[str]:
    """The paths of what `--qemu` named, `matrix` being all releases of `scripts/qemu-matrix`.

    Raises:
        InputError: one is not there.
    """
    found: list[str] = []
    for name in named:
        found += _matrix() if name == MATRIX else [find_binary(name)]
    return list(dict.fromkeys(found))


def _matrix() -> list[str]:
    folder = os.environ.get("QEMU_LAUNCHER_MATRIX") or os.path.join(cache_folder(), "matrix")
    program = f"qemu-system-{os.uname().machine}"
    numbers = {}
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        path = os.path.join(folder, name, "bin", program)
        if name.replace(".", "").isdecimal() and os.path.exists(path):
            numbers[release_numbers(name)] = path
    if not numbers:
        raise InputError(
            f"no QEMU release in {folder}",
            hint="scripts/qemu-matrix brings them; QEMU_LAUNCHER_MATRIX names another folder",
            code="binary",
        )
    return [numbers[key] for key in sorted(numbers)]


def binary_ids(paths: Sequence[str]) -> list[str]:
    """What the binaries are called: `qemu-11.1`, with more numbers where two would be the same."""
    from launcher.host.binaries import qemu_binaries

    versions = {row["path"]: row["version"] for row in qemu_binaries(paths)}
    whole = [v if isinstance(v := versions.get(os.path.abspath(p)), str) else "" for p in paths]
    ids = [".".join(v.split(".")[:2]) for v in whole]
    ids = [v if ids.count(v) == 1 else whole[n] for n, v in enumerate(ids)]
    named = [f"qemu-{v}" if v else os.path.basename(paths[n]) for n, v in enumerate(ids)]
    return [v if named.count(v) == 1 else f"{v}-{n}" for n, v in enumerate(named)]
