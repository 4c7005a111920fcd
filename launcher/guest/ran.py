"""What a command in the guest gave, and the error of this room."""

from __future__ import annotations

from launcher.display import printable
from launcher.errors import LauncherError
from launcher.record import record

#: Bytes of output that are kept of a command, each of stdout and stderr, unless told otherwise.
LIMIT = 1 << 20
#: What a file may have that is read, unless told otherwise.
FILE_LIMIT = 64 << 20


class GuestError(LauncherError):
    """The guest did not do what it was told to, or did not say; the machine goes on.

    `code` is `guest-agent` or `guest-shell` when the way to the guest failed, `guest-command` when
    the command did; `evidence` has `console` lines or the agent's own words where there are any.
    """

    code = "guest"
    exit_status = 3


@record
class Ran:
    """What a command in the guest gave.

    Attributes:
        command: as it was given.
        status: its exit status; 128 and the signal's number for one that a signal ended.
        output: what it wrote on stdout; over the shell, on stderr too.
        errors: what it wrote on stderr; None over the shell, where both are one stream.
        truncated: it wrote more, which is not here.
        via: what it went over, `agent` or `shell`.
    """

    command: str
    status: int
    output: bytes
    errors: bytes | None
    truncated: bool
    via: str

    @property
    def stdout(self) -> str:
        """`output` as text; bytes that are not UTF-8 become U+FFFD."""
        return self.output.decode("utf-8", "replace")

    @property
    def stderr(self) -> str | None:
        """`errors` as text; None over the shell."""
        return None if self.errors is None else self.errors.decode("utf-8", "replace")

    def check(self) -> Ran:
        """Return this, if the command succeeded.

        Raises:
            GuestError: its exit status is not 0.
        """
        if self.status:
            said = (self.stderr or self.stdout).strip().splitlines()[-1:]
            words = f": {printable(said[0])[:200]}" if said else ""
            raise GuestError(
                f"{printable(self.command)[:200]!r} ended with status {self.status} in the guest"
                f"{words}",
                evidence={"status": self.status, "stdout": self.stdout, "stderr": self.stderr},
                code="guest-command",
            )
        return self
