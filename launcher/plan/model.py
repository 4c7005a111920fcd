"""The nouns between a profile and QEMU: option, setup, value (what is expected), plan."""

from __future__ import annotations

from launcher.errors import Place
from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from launcher.platforms import Observer


@record
class Origin:
    """Who set a value.

    `kind` is one of `qemu default`, `machine type`, `platform`, `profile`, `command line`, `lock`
    and `launcher`; `detail` names the platform, the machine type or the lock file.
    """

    kind: str
    detail: str = ""
    place: Place | None = None

    def __str__(self) -> str:
        if self.kind == "profile" and self.place is not None:
            return f"profile:{self.place.line}" if self.place.line else "profile"
        if self.kind == "lock" and self.place is not None:
            return f"lock {self.detail}:{self.place.line}"
        return f"{self.kind} {self.detail}".rstrip()


def origin_of(place: Place) -> Origin:
    """The origin of something that was written at `place`."""
    return Origin("command line" if place.file.startswith("--") else "profile", "", place)


LAUNCHER = Origin("launcher")


@record
class Descriptor:
    """The place of a number that only the launch knows; `name` is an `InheritedFd`'s, or "qmp"."""

    name: str


@record
class Option:
    """One command-line option of QEMU.

    `form` is `json`, `keyval` (`head,key=value`), `word` (head alone) or `flag` (no argument).
    `path` and `place` say which part of the profile it came from, so that QEMU's complaint about
    it can name the profile's line.
    """

    name: str
    form: str
    head: str
    members: dict[str, Any]
    path: str
    place: Place | None = None


@record
class Setup:
    """One QMP command to send while the guest is paused."""

    command: str
    arguments: dict[str, Any]
    path: str = ""
    place: Place | None = None


@record
class Value:
    """One value that was decided, and how it is read back: an expectation.

    `value` is typed as QEMU's JSON is. `written` differs where the binary needs another word or
    number for the same effect; it is what the argv holds and what is compared.
    """

    family: str
    type: str
    id: str
    property: str
    value: Any
    origin: Origin
    observer: Observer
    written: Any
    #: the property's name in the binary's own words (an older name, when it was renamed)
    spelled: str
    note: str = ""


@record
class Omission:
    """A pinned value that is not written, and why that is right."""

    family: str
    type: str
    id: str
    property: str
    value: Any
    origin: Origin
    reason: str


@record
class InheritedFd:
    """A descriptor that QEMU inherits from the launch; a `Descriptor` in an option is its place.

    `kind` says what the host makes it of: see `launcher.host.resources.FdSource`. `content` is a
    secret's, and is never shown.
    """

    kind: str
    name: str
    content: str = ""

    def __repr__(self) -> str:
        return f"InheritedFd({self.kind!r}, {self.name!r})"


@record
class Helper:
    """A program beside QEMU, which serves one of its chardevs through a pair of sockets.

    Attributes:
        chardev: its id, and the name of the pair.
        program: to be found on PATH.
        words: its arguments; `{end}` stands for its end of the pair.
        connected, listening: that end in its words, as the descriptor `{fd}`, or for a reader as
            a socket that it makes at `{path}`.
        folder: what it works in, and keeps its files in; made when it does not exist.
        path, place: the part of the profile that needs it.
    """

    chardev: str
    program: str
    words: tuple[str, ...]
    connected: str
    listening: str
    folder: str
    path: str
    place: Place | None = None


@record
class HostFacts:
    """What a plan needs to know about the host; gathered by `launcher.host`.

    `features` maps the names used by platform rows (`tun-uso`, …) to (True, False or None when
    it could not be asked, and the reason). `kvm` is the ladder's verdict in the same form.
    """

    linux: str
    arch: str
    kvm: tuple[bool | None, str]
    features: dict[str, tuple[bool | None, str]]


@record
class Plan:
    """Everything that was decided for one start of one profile on one binary."""

    name: str
    uuid: str
    tool: str
    binary: str
    version: str
    build: str
    platform: str
    machine: str
    accel: str
    accel_reason: str
    options: tuple[Option, ...]
    setup: tuple[Setup, ...]
    values: tuple[Value, ...]
    omitted: tuple[Omission, ...]
    wants: tuple[InheritedFd, ...]
    unplanned: tuple[str, ...]
    verify: str
    powerdown_seconds: int
    consoles: tuple[str, ...] = ()
    #: chardev of the guest agent's port; "" without one
    agent: str = ""
    notes: tuple[str, ...] = ()
    helpers: tuple[Helper, ...] = ()
