"""The launcher's own platform data, read and checked once. Disk, read only, and the cache."""

from __future__ import annotations

import os

from launcher.cache import kept

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from launcher.platforms import Catalogue
    from launcher.platforms.cpus import Kinds
    from launcher.platforms.rules import Knowledge, Rules

_loaded: Catalogue | None = None

#: The rules of migrations: only a preflight looks at them, so they are kept apart.
_RULES = "migration.yaml"


def folder() -> str:
    """Where the data files are."""
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "platforms")


def data_files(root: str) -> Iterator[str]:
    """The data files below `root`, by their paths relative to it, in order."""
    for sub in ("", "qemu", "linux"):
        for name in sorted(os.listdir(os.path.join(root, sub))):
            if name.endswith(".yaml") and name != _RULES:
                yield os.path.join(sub, name)


def load_catalogue() -> Catalogue:
    """The catalogue of everything in `launcher/platforms`."""
    global _loaded
    if _loaded is None:
        root = folder()
        names = list(data_files(root))
        code = [name for name in sorted(os.listdir(root)) if name.endswith(".py")]
        sources = [os.path.join(root, name) for name in (*names, *code)]
        _loaded = kept("catalogue", "catalogue", sources, lambda: _read(root, names))
    return _loaded


def _read(root: str, names: list[str]) -> Catalogue:
    from launcher.files import read_yaml
    from launcher.platforms import build_catalogue

    return build_catalogue({name: read_yaml(os.path.join(root, name)) for name in names})


def load_cpus(arch: str) -> Kinds:
    """The CPU models and levels of an architecture; none where no file has any."""
    from launcher.platforms.cpus import Kinds, read_kinds

    path = os.path.join(folder(), "cpu", f"{os.path.basename(arch)}.yaml")
    if not os.path.exists(path):
        return Kinds()
    code = [os.path.join(folder(), name) for name in ("cpus.py", "versions.py", "reader.py")]

    def read() -> Kinds:
        from launcher.files import read_yaml

        return read_kinds(read_yaml(path))

    return kept("catalogue", f"cpus-{os.path.basename(arch)}", [path, *code], read)


def load_rules() -> Knowledge:
    """The catalogue with the rules of migrations."""
    from launcher.platforms.rules import Knowledge

    root = folder()
    code = [name for name in sorted(os.listdir(root)) if name.endswith(".py")]
    sources = [os.path.join(root, name) for name in (_RULES, *code)]
    return Knowledge(
        load_catalogue(), kept("catalogue", "migration", sources, lambda: _rules(root))
    )


def _rules(root: str) -> Rules:
    from launcher.files import read_yaml
    from launcher.platforms.migration import read_rules

    return read_rules(read_yaml(os.path.join(root, _RULES)))
