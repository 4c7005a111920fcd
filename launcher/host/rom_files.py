"""Files that QEMU copies into RAM blocks: where a binary looks for them, and how large they are."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: In front of an image whose guest sees another size than its file has.
QCOW2 = "qcow2:"
_MAGIC, _SIZE_AT, _HEADER = b"QFI\xfb", 24, 32
#: Seconds for `-L help`; measured 20 to 55 ms on 5.2, 7.2, 10.0 and 11.1.
_DEADLINE = 5.0


def data_folders(binary: str, more: Sequence[str] = ()) -> list[str]:
    """The folders in which a binary looks for its data, the first one first; none when it fails.

    What it said is kept until its file changes.

    Args:
        binary: its path.
        more: folders of the command line's own, `-L`. Where a binary is a script, its own `-L`
            may come before them, so only the binary knows the order.
    """
    from launcher.cache import identity, short_name
    from launcher.host import boot_cache

    key = [binary, identity(os.path.realpath(binary)), *more]
    name = f"folders-{short_name(binary)}"
    kept = boot_cache.recall(name, key)
    if isinstance(kept, list):
        return kept
    found = _ask(binary, more)
    if found:
        boot_cache.remember(name, key, found)
    return found


def _ask(binary: str, more: Sequence[str]) -> list[str]:
    import subprocess

    words = [word for folder in more for word in ("-L", folder)]
    try:
        done = subprocess.run(
            [binary, *words, "-L", "help"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_DEADLINE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return os.fsdecode(done.stdout).splitlines() if done.returncode == 0 else []


def file_sizes(names: Iterable[str], folders: Sequence[str]) -> dict[str, int | None]:
    """How large files are by their names; None for one that is nowhere.

    A name is tried as a path first, from here, and then in each folder (util/datadir.c,
    qemu_find_file). What cannot be told is left out: a file that another user may see, and without
    folders all that would have been looked for in them.
    """
    found: dict[str, int | None] = {}
    for name in names:
        if name.startswith(QCOW2):
            size = qcow2_size(name.removeprefix(QCOW2))
            if size is not None:
                found[name] = size
            continue
        places = [name] if os.path.isabs(name) else [name, *_inside(folders, name)]
        sizes = [size for size in map(_size, places) if size is not None]
        if sizes:
            found[name] = sizes[0]
        elif folders and not any(map(_may_be, places)):
            found[name] = None
    return found


def _inside(folders: Iterable[str], name: str) -> list[str]:
    return [os.path.join(folder, name) for folder in folders]


def _size(path: str) -> int | None:
    """Of a file that can be read; QEMU passes over one that cannot."""
    from stat import S_ISREG

    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size if S_ISREG(found.st_mode) and os.access(path, os.R_OK) else None


def _may_be(path: str) -> bool:
    """Whether something is there that is no file that we can read, or nobody tells us."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def qcow2_size(path: str) -> int | None:
    """The size that a guest sees (docs/interop/qcow2.txt, bytes 24 to 31 of the header)."""
    try:
        with open(path, "rb") as file:
            head = file.read(_HEADER)
    except OSError:
        return None
    if len(head) < _HEADER or not head.startswith(_MAGIC):
        return None
    return int.from_bytes(head[_SIZE_AT:_HEADER], "big")


def rom_sizes(folders: Iterable[str]) -> dict[str, int]:
    """The firmware and the option ROMs in a binary's folders by their names, with their sizes."""
    found: dict[str, int] = {}
    for folder in folders:
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            continue
        for name in filter(_is_rom, names):
            size = _size(os.path.join(folder, name)) if name not in found else None
            if size is not None:
                found[name] = size
    return found


def _is_rom(name: str) -> bool:
    return name.endswith(".rom") or (name.endswith(".bin") and name.startswith(("bios", "vgabios")))
