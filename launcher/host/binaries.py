"""The QEMU binaries of this host: where they are, their releases and builds."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

_TOOLS = ("qemu-storage-daemon", "qemu-img")
_SYSTEM = "qemu-system-"
#: RHEL and its kin keep the one binary that they support outside PATH.
ELSEWHERE = ("/usr/libexec/qemu-kvm",)
_DEADLINE = 5.0
"""Seconds for one `--version`."""


def qemu_binaries(named: Iterable[str] = ()) -> list[dict[str, Any]]:
    """Every qemu-system-*, qemu-kvm, qemu-storage-daemon and qemu-img, with version and build.

    Those that the user `named` come first, then those on PATH, then `ELSEWHERE`. A binary that
    two names lead to is listed once, by the first. `tool` is `qemu-system` or the tool's name;
    `target` the guest's architecture, null where the name does not tell. What a binary said is
    kept until its file changes.
    """
    from launcher.cache import identity
    from launcher.host import boot_cache

    paths = _paths(named)
    key = [[path, identity(path)] for path in paths]
    said = boot_cache.recall("qemu", key)
    if not isinstance(said, list):
        said = _ask(paths)
        if all(isinstance(version, str) for version, _build in said):
            boot_cache.remember("qemu", key, said)
    return [
        {"path": path, **_kind(path), "version": version, "build": build}
        for path, (version, build) in zip(paths, said, strict=True)
    ]


def _paths(named: Iterable[str]) -> list[str]:
    found: dict[str, str] = {}
    for path in (*map(os.path.abspath, named), *_on_path(), *ELSEWHERE):
        if os.path.isfile(path) and os.access(path, os.X_OK):
            found.setdefault(os.path.realpath(path), path)
    return list(found.values())


def _on_path() -> list[str]:
    found = []
    for folder in os.get_exec_path():
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            continue
        wanted = (n for n in names if n.startswith(_SYSTEM) or n in (*_TOOLS, "qemu-kvm"))
        found += [os.path.join(folder, name) for name in wanted]
    return found


def _kind(path: str) -> dict[str, str | None]:
    name = os.path.basename(path)
    if name in _TOOLS:
        return {"tool": name, "target": None}
    target = name.removeprefix(_SYSTEM) if name.startswith(_SYSTEM) else None
    # Debian calls a second build of the same target qemu-system-x86_64-microvm.
    return {"tool": "qemu-system", "target": target.partition("-")[0] if target else None}


def _ask(paths: Sequence[str]) -> list[Any]:
    """[version, build] of each, a few at a time; version is `{"unknown": why}` where none came."""
    at_once = os.cpu_count() or 1
    answers: list[Any] = []
    for start in range(0, len(paths), at_once):
        started = [_start(path) for path in paths[start : start + at_once]]
        answers += [_answer(one) for one in started]
    return answers


def _start(path: str) -> Any:
    import subprocess

    try:
        return subprocess.Popen(
            [path, "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            errors="replace",
        )
    except OSError as error:
        return str(error.strerror)


def _answer(started: Any) -> list[Any]:
    import re
    import subprocess

    if isinstance(started, str):
        return [{"unknown": started}, ""]
    try:
        text, _ = started.communicate(timeout=_DEADLINE)
    except subprocess.TimeoutExpired:
        started.kill()
        started.communicate()
        return [{"unknown": f"--version did not answer within {_DEADLINE:g} s"}, ""]
    said = re.search(r"version (\d+(?:\.\d+)+)(?: \(([^)\n]*)\))?", text)
    if said is None:
        return [{"unknown": f"--version ended with {started.returncode}"}, ""]
    return [said[1], said[2] or ""]
