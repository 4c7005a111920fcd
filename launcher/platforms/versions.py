"""Releases of QEMU and Linux as numbers, and ranges of them."""

from __future__ import annotations

from launcher.errors import InputError
from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.errors import Place


@record
class Version:
    """A release such as `7.2` (the floor of a platform) or `7.2.22` (one binary).

    Compared by its numbers, so that 9.10 is newer than 9.2; the text is kept for messages.
    """

    text: str
    numbers: tuple[int, ...]

    @property
    def series(self) -> tuple[int, int]:
        """The first two numbers: QEMU's and Linux's stable updates change no default on purpose."""
        return (self.numbers[0], self.numbers[1])

    def __str__(self) -> str:
        return self.text

    def __lt__(self, other: Version) -> bool:
        return self.numbers < other.numbers

    def __le__(self, other: Version) -> bool:
        return self.numbers <= other.numbers


def parse_version(text: str, place: Place | None = None) -> Version:
    """`7.2` or `7.2.22` as a Version.

    Raises:
        InputError: not two to four numbers with dots between them.
    """
    parts = text.split(".")
    if not 2 <= len(parts) <= 4 or not all(p.isascii() and p.isdigit() for p in parts):
        raise InputError(
            f"{text!r} is not a release", place=place, hint="write it as 7.2", code="version"
        )
    numbers = tuple(int(p) for p in parts)
    if numbers[2:] == (0,):
        numbers = numbers[:2]
    return Version(".".join(str(n) for n in numbers), numbers)


def parse_qemu_version(text: str) -> Version:
    """The version of a QEMU binary, where `query-version` says 11.0.92 for 11.1.0-rc2.

    QEMU counts micro 50 for the development tree and 91 upwards for release candidates (its
    VERSION file), so such a binary is taken as the release that it becomes. Linux stable kernels
    do reach x.y.50: never use this for a kernel.
    """
    version = parse_version(text.partition(" ")[0].partition("-")[0].partition("+")[0])
    if len(version.numbers) < 3 or version.numbers[2] < 50:
        return version
    major, minor = version.series
    following = (major, minor + 1) if minor < 2 else (major + 1, 0)
    return Version(text, following)


def parse_kernel(release: str) -> Version | None:
    """The release of a Linux kernel, where `uname -r` says 6.1.0-18-amd64; None if unreadable."""
    digits = release.partition("-")[0].partition("+")[0].split(".")
    try:
        return parse_version(".".join(digits[:3]))
    except InputError:
        return None


def release_numbers(name: str) -> tuple[int, ...]:
    """The numbers of a name's last word, to sort by: (5, 2) of `pc-q35-5.2` and of `5.2`.

    What is not a number there counts as -1, so `pc-q35-jammy` comes before every release.
    """
    return tuple(int(n) if n.isdecimal() else -1 for n in name.rpartition("-")[2].split("."))


def _as_far(version: Version, bound: Version) -> tuple[int, ...]:
    """A version's numbers, as many as a bound has."""
    return version.numbers[: len(bound.numbers)]


@record
class Range:
    """Releases from `from_` to `until`, both included; None is open.

    A bound of two numbers stands for the whole series, a bound of three for one stable update:
    10.0.13 is within `from 10.0.13 until 10.0`, and 10.0.2 is not.
    """

    from_: Version | None = None
    until: Version | None = None

    def contains(self, version: Version) -> bool:
        """Whether a binary of `version` is in the range: 7.2.22 is within until 7.2."""
        if self.from_ is not None and _as_far(version, self.from_) < self.from_.numbers:
            return False
        return self.until is None or _as_far(version, self.until) <= self.until.numbers

    @property
    def backwards(self) -> bool:
        """Whether it ends before it begins."""
        if self.from_ is None or self.until is None:
            return False
        return _as_far(self.from_, self.until) > self.until.numbers

    def __str__(self) -> str:
        if self.from_ is None:
            return f"until {self.until}" if self.until else "every release"
        return f"from {self.from_}" + (f" until {self.until}" if self.until else "")


ALWAYS = Range()
