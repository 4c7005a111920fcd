"""What a process said on stderr and how it ended, as words for a user."""

from __future__ import annotations

from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# A line of QEMU that is not about an error, by what follows the program's name.
_NOT_ERRORS = ("warning: ", "info: ", "terminating on signal ")
# QEMU 11.1 says this about every `-mon`, which is the only spelling that older releases take.
_IGNORED = ("'-mon' is deprecated",)
# Lines that explain the error in the line before (error_append_hint, error_printf in QEMU).
_HINTS = ("Identifiers consist of", "Use -", "Try ", "Valid ", "Supported ", "Is another process")


class StderrTail:
    """The first 16 KiB and the last 48 KiB of a stream; what fell out in between is counted.

    Both ends matter: what is wrong is said at the start, and why it ended at the end.
    """

    HEAD = 16 * 1024
    TAIL = 48 * 1024

    def __init__(self) -> None:
        self._head = bytearray()
        self._tail = bytearray()
        self.dropped_lines = 0
        self.dropped_bytes = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        room = self.HEAD - len(self._head)
        self._head += data[:room]
        self._tail += data[room:] if room else data
        excess = len(self._tail) - self.TAIL
        if excess > 0:
            # Whole lines, if there is an end of a line at all.
            cut = self._tail.find(b"\n", excess - 1) + 1 or excess
            self.dropped_lines += self._tail.count(b"\n", 0, cut)
            self.dropped_bytes += cut
            del self._tail[:cut]

    @property
    def lines(self) -> list[str]:
        """The lines that were kept, undecodable bytes escaped, the rest raw (`printable`)."""
        if self.dropped_bytes:
            return _lines(self._head) + _lines(self._tail)
        return _lines(self._head + self._tail)


def _lines(data: bytes | bytearray) -> list[str]:
    text = data.decode("utf-8", "backslashreplace")
    return [line.rstrip("\r") for line in text.removesuffix("\n").split("\n")] if text else []


@record
class Complaint:
    """One error of a program, taken apart.

    `line` is all of it; `message` is it without the program's name and the option. `option` and
    `value` are the words of the command line that QEMU names ("-device", "e1000,netdev=n0"), and
    `index` is where `option` stands in argv (-1: not known). `hints` are the lines that follow.
    """

    line: str
    message: str
    option: str = ""
    value: str = ""
    index: int = -1
    hints: tuple[str, ...] = ()


def meaningful_lines(lines: Iterable[str], argv: Sequence[str] = ()) -> list[Complaint]:
    """The errors among the lines of stderr, first one first.

    When there is no line that reads like an error, other lines stand in: those without a
    program's name, then warnings; a process that said nothing gives an empty list.

    Args:
        lines: as `StderrTail.lines` has them.
        argv: the command line; with it the option is found exactly, whatever text it contains
            (QEMU repeats the words of the command line: loc_print in util/qemu-error.c).
    """
    errors: list[Complaint] = []
    plain: list[Complaint] = []
    warnings: list[Complaint] = []
    for line in lines:
        rest = _without_program(line, argv)
        if not line.strip() or any(words in line for words in _IGNORED):
            continue
        if errors and line.startswith(_HINTS):
            errors[-1] = _with_hint(errors[-1], line)
        elif rest is None:
            plain.append(Complaint(line, line))
        else:
            found = _taken_apart(line, rest, argv)
            # In "prog: -netdev user,id=a: warning: ..." the word stands after the option.
            calm = found.message.startswith(_NOT_ERRORS)
            (warnings if calm else errors).append(found)
    return errors or plain or warnings


def _with_hint(complaint: Complaint, hint: str) -> Complaint:
    c = complaint
    return Complaint(c.line, c.message, c.option, c.value, c.index, (*c.hints, hint))


def _without_program(line: str, argv: Sequence[str]) -> str | None:
    """What follows "qemu-system-x86_64: ", or None when the line does not begin with a name.

    The name varies: a distribution's wrapper gives qemu-system-x86_64.real, some messages begin
    with "qemu: ".
    """
    name, colon, rest = line.partition(": ")
    if not colon or " " in name:
        return None
    base = name.rpartition("/")[2]
    ours = argv[0].rpartition("/")[2] if argv else ""
    return rest if base.startswith(("qemu", "kvm")) or (ours and base == ours) else None


def _taken_apart(line: str, rest: str, argv: Sequence[str]) -> Complaint:
    for index, option in enumerate(argv[1:], start=1):
        if not option.startswith("-") or not rest.startswith(option):
            continue
        value = argv[index + 1] if index + 1 < len(argv) else ""
        if rest.startswith(f"{option} {value}: "):
            return Complaint(line, rest[len(option) + len(value) + 3 :], option, value, index)
        if rest.startswith(f"{option}: "):
            return Complaint(line, rest[len(option) + 2 :], option, "", index)
    if not rest.startswith("-"):
        return Complaint(line, rest)
    # An option that is not in argv word by word. No colon ends JSON for certain: take the last
    # brace that a colon follows.
    option, _, after = rest.partition(" ")
    if option.endswith(":"):
        return Complaint(line, after, option[:-1])
    value, colon, message = after.partition("}: " if after.startswith("{") else ": ")
    if not colon:
        return Complaint(line, rest)
    return Complaint(line, message, option, value + colon[:-2])


# Signals that mean a bug in the program or a fault of the host, not somebody's wish.
_CRASHES = ("SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV", "SIGSYS", "SIGTRAP")


def describe_exit(returncode: int, program: str = "QEMU") -> str:
    """How a process ended: "exit status 1", "QEMU crashed (SIGABRT)", "killed by SIGKILL".

    Args:
        returncode: as `Process.returncode`: negative for a signal.
        program: what to call it.
    """
    if returncode >= 0:
        return f"exit status {returncode}"
    import signal

    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    if name in _CRASHES:
        return f"{program} crashed ({name})"
    return f"killed by {name}"
