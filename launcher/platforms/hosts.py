"""A host's facts as `platform meet` needs them: what `qemu-launcher host --format json` wrote."""

from __future__ import annotations

from launcher.display import printable
from launcher.errors import InputError, InputErrors
from launcher.platforms.versions import parse_kernel, parse_qemu_version
from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    from launcher.errors import Place
    from launcher.platforms.catalogue import Catalogue
    from launcher.platforms.versions import Version

    #: Where a value stands: file and keys → place.
    Where = Callable[[str, Sequence[str | int]], Place]

#: The format that is read; `launcher.host.facts` writes it.
FORMAT = "host-facts-1"
_FAMILY = FORMAT.rpartition("-")[0] + "-"
_AGAIN = "gather all facts with `qemu-launcher host --format json`"


@record
class Host:
    """One host. `flags` is None, and `vendor` empty, where its CPU is unknown.

    `features` maps a feature to yes, no or None for unknown, and the reason.
    """

    name: str
    file: str
    arch: str
    kernel: str
    linux: Version
    qemu: Version
    binary: str
    vendor: str
    flags: frozenset[str] | None
    features: Mapping[str, tuple[bool | None, str]]


class _Facts:
    """Typed access to one file's facts; mistakes know their place."""

    def __init__(self, file: str, facts: Any, where: Where) -> None:
        self.file, self.facts, self.where = file, facts, where

    def wrong(self, path: Sequence[str | int], message: str, hint: str = _AGAIN) -> InputError:
        return InputError(message, place=self.where(self.file, path), hint=hint, code="facts")

    def get(self, path: Sequence[str | int], kind: type, words: str) -> Any:
        """The value under `path`.

        Raises:
            InputError: it is not there, unknown to its host, or not a `kind`.
        """
        value, said = self.facts, ".".join(str(key) for key in path)
        for depth, key in enumerate(path):
            if not isinstance(value, dict) or key not in value:
                raise self.wrong(path[:depth], f"lacks the fact {said}")
            value = value[key]
            if isinstance(value, dict) and isinstance(value.get("unknown"), str):
                why = printable(value["unknown"])
                raise self.wrong(path[: depth + 1], f"{said} is unknown: {why}")
        if not isinstance(value, kind):
            raise self.wrong(path, f"{said} must be {words}")
        return value

    def text(self, *path: str) -> str:
        value: str = self.get(path, str, "text")
        return printable(value)


def read_hosts(
    files: Iterable[tuple[str, Any]], catalogue: Catalogue, where: Where
) -> tuple[Host, ...]:
    """The hosts of parsed fact files, by name: the order of the files does not matter.

    Args:
        files: name of the file and the JSON value in it.
        catalogue: for the oldest QEMU that the platform data know.
        where: gives the place of a value, for mistakes.

    Raises:
        InputErrors: everything that is wrong: no file of facts or one of another format, a fact
            that lacks, a host without a usable QEMU, a host twice, hosts of two architectures.
    """
    mistakes: list[InputError] = []
    found: dict[str, Host] = {}
    for file, value in files:
        facts = _Facts(file, value, where)
        try:
            host = _host(facts, catalogue)
            _fits(facts, host, found)
        except InputError as error:
            mistakes.append(error)
        else:
            found[host.name] = host
    if mistakes:
        raise InputErrors(mistakes)
    if not found:
        hint = "name the files that `qemu-launcher host --format json` wrote, one for each host"
        raise InputError("no file of host facts was given", hint=hint, code="facts")
    return tuple(found[name] for name in sorted(found))


def _fits(facts: _Facts, host: Host, others: Mapping[str, Host]) -> None:
    """Whether this host may stand beside the others.

    Raises:
        InputError: it is one of them, or of another architecture.
    """
    twin = others.get(host.name)
    if twin is not None:
        same = "the same file" if twin.file == host.file else twin.file
        hint = "leave one out, or name the other one with `qemu-launcher host --name NAME`"
        raise facts.wrong(("name",), f"the host {host.name} was given already, by {same}", hint)
    first = next(iter(others.values()), host)
    if host.arch != first.arch:
        words = f"{host.name} is {host.arch}, and {first.name} is {first.arch}"
        raise facts.wrong(("arch",), f"{words}: no accelerator runs a machine on both", "")


def _host(facts: _Facts, catalogue: Catalogue) -> Host:
    """One host.

    Raises:
        InputError: something that is needed is not there.
    """
    said = facts.facts.get("format") if isinstance(facts.facts, dict) else None
    if not isinstance(said, str) or not said.startswith(_FAMILY):
        raise facts.wrong((), "is not a file of host facts")
    if said != FORMAT:
        words = f"has the format {printable(said)}, and this release reads {FORMAT}"
        raise facts.wrong(("format",), words, "gather the facts with this release")
    name, arch = facts.text("name"), facts.text("arch")
    kernel = facts.text("kernel", "release")
    linux = parse_kernel(kernel)
    if linux is None:
        raise facts.wrong(("kernel", "release"), f"{kernel!r} is no release of Linux")
    qemu, binary = _newest(facts, name, arch, catalogue)
    vendor, flags = _cpu(facts)
    return Host(
        name, facts.file, arch, kernel, linux, qemu, binary, vendor, flags, _features(facts)
    )


def _newest(facts: _Facts, name: str, arch: str, catalogue: Catalogue) -> tuple[Version, str]:
    """The newest QEMU that a host offers for guests of its own architecture."""
    offered: list[tuple[Version, str]] = []
    for number, one in enumerate(facts.get(("qemu",), list, "a list")):
        if not isinstance(one, dict) or not isinstance(one.get("path"), str):
            raise facts.wrong(("qemu", number), "an entry of qemu must have a path")
        version = one.get("version")
        if one.get("tool") != "qemu-system" or one.get("target") not in (arch, None):
            continue
        if isinstance(version, str):
            try:
                offered.append((parse_qemu_version(version), printable(one["path"])))
            except InputError as error:
                raise facts.wrong(("qemu", number, "version"), error.message) from None
    if not offered:
        hint = "install one there, or name it with `qemu-launcher host --qemu BIN`"
        raise facts.wrong(("qemu",), f"{name} has no QEMU for {arch}", hint)
    newest = max(offered, key=lambda one: one[0].numbers)  # of equals the first on PATH
    if newest[0].series < catalogue.oldest.series:
        words = f"{name} has no QEMU newer than {newest[0]}"
        hint = f"the platform data begin with QEMU {catalogue.oldest}"
        raise facts.wrong(("qemu",), words, hint)
    return newest


def _cpu(facts: _Facts) -> tuple[str, frozenset[str] | None]:
    """Vendor and flags."""
    if isinstance(facts.facts.get("cpu"), dict) and "unknown" in facts.facts["cpu"]:
        return "", None
    flags = facts.get(("cpu", "flags"), list, "a list of text")
    if not all(isinstance(flag, str) for flag in flags):
        raise facts.wrong(("cpu", "flags"), "cpu.flags must be a list of text")
    return facts.text("cpu", "vendor"), frozenset(flags)


def _features(facts: _Facts) -> dict[str, tuple[bool | None, str]]:
    found: dict[str, tuple[bool | None, str]] = {}
    for name, one in facts.get(("features",), dict, "a mapping").items():
        present = one.get("present", "") if isinstance(one, dict) else ""
        if present not in (True, False, None) or not isinstance(one.get("reason"), str):
            words = f"features.{printable(name)} must have present (true, false, null) and reason"
            raise facts.wrong(("features", name), words)
        found[name] = (present, printable(one["reason"]))
    return found
