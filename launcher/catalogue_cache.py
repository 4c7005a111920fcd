"""The launcher's platform data, read once. Disk, read only."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from launcher.platforms import Catalogue

_loaded: Catalogue | None = None


def folder() -> str:
    """Where the data files are."""
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "platforms")


def data_files(root: str) -> Iterator[str]:
    """The data files below `root`, by their paths relative to it, in order."""
    for sub in ("", "qemu", "linux"):
        for name in sorted(os.listdir(os.path.join(root, sub))):
            if name.endswith(".yaml"):
                yield os.path.join(sub, name)


def load() -> Catalogue:
    """The catalogue; parsed once per process."""
    global _loaded
    if _loaded is None:
        from launcher.files import read_yaml
        from launcher.platforms import build_catalogue

        root = folder()
        _loaded = build_catalogue(
            {name: read_yaml(os.path.join(root, name)) for name in data_files(root)}
        )
    return _loaded
