"""Commands and files over a POSIX shell at the serial console."""

from __future__ import annotations

import shlex

from launcher.guest.ran import FILE_LIMIT, LIMIT, GuestError, Ran
from launcher.guest.terminal import Encoded, in_base64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from launcher.guest.terminal import Terminal

# The shell's variables for what is run, what it reads, and the file that is written.
_COMMAND, _INPUT, _FILE = "launcher_c", "launcher_i", "launcher_f"


class Shell:
    """Commands and files in a guest that has a shell at its console."""

    name = "shell"

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    async def ping(self, seconds: float) -> None:
        """As `Guest.ping`."""
        await self._terminal.typed(["true"], seconds)

    async def run(
        self, command: str | Sequence[str], seconds: float, limit: int = LIMIT, given: bytes = b""
    ) -> Ran:
        """As `Guest.run`: in a subshell of the shell that is there."""
        shown = command if isinstance(command, str) else shlex.join(command)
        output = Encoded(limit + 1)
        lines = [*_variable(_COMMAND, shown.encode("utf-8", "surrogateescape"))]
        # All on the subshell: dash forgets a redirection of one in braces that have others.
        run = f'(eval "$({_decoded(_COMMAND)})") 2>&1 3>&- 4>&-'
        if given:
            lines += _variable(_INPUT, given)
            run = f"{_decoded(_INPUT)} | {run}"
        else:
            run += " </dev/null"
        # The command has the pipe as 1 and 2; its exit status goes to 3, which is what $( ) reads,
        # and what was encoded to 4, the terminal.
        lines.append(
            f"{{ launcher_s=$({{ {{ {run}; echo $? >&3; }} | "
            f'{{ {output.shell}; }} >&4; }} 3>&1); }} 4>&1; (exit "$launcher_s")'
        )
        status, data = await self._terminal.typed(lines, seconds, output)
        return Ran(shown, status, data[:limit], None, len(data) > limit, self.name)

    async def read(self, path: str, seconds: float, limit: int = FILE_LIMIT) -> bytes:
        """As `Guest.read`."""
        found = (await self.run(["cat", "--", path], seconds, limit)).check()
        if found.truncated:
            raise GuestError(
                f"{path} has more than {limit} bytes", hint="raise `limit`", code="guest-command"
            )
        return found.output

    async def write(self, path: str, data: bytes, seconds: float) -> None:
        """As `Guest.write`."""
        lines = [
            *_variable(_FILE, path.encode("utf-8", "surrogateescape")),
            f'{_FILE}="$({_decoded(_FILE)})"; (: >"${_FILE}")',
            *(f'printf %s {text} | base64 -d >>"${_FILE}"' for text in in_base64(data)),
        ]
        status, _ = await self._terminal.typed(lines, seconds)
        if status:
            raise GuestError(f"{path} could not be written in the guest", code="guest-command")

    async def shutdown(self, seconds: float) -> None:
        """As `Guest.shutdown`, without waiting for the end."""
        await self._terminal.tell("poweroff || shutdown -h now", seconds)


def _variable(name: str, data: bytes) -> list[str]:
    """Lines of shell after which the variable `name` holds `data` in base64."""
    pieces = in_base64(data)
    return [f"{name}={''.join(pieces[:1])}", *(f"{name}=${{{name}}}{text}" for text in pieces[1:])]


def _decoded(name: str) -> str:
    return f'printf %s "${name}" | base64 -d'
