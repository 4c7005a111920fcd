"""One command that is being done, with all that doing it needs."""

from __future__ import annotations

from launcher.errors import InputError, LauncherError
from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from launcher.agent.machines import Machines
    from launcher.agent.messages import Command
    from launcher.agent.moves.moves import Moves


@record
class Work:
    """One command.

    Attributes:
        again: an agent that is no more began it.
        tell: publishes how far it is, as an answer with the status `running`.
        show: publishes bytes of a machine's console.
    """

    machines: Machines
    moves: Moves
    command: Command
    again: bool
    tell: Callable[[Any], None]
    show: Callable[[str, bytes], None]

    @property
    def arguments(self) -> dict[str, Any]:
        """What the command says."""
        return self.command.arguments

    @property
    def name(self) -> str:
        """The machine that it is about."""
        return str(self.arguments["machine"])

    def refuse_again(self) -> None:
        """Refuse to do twice what may not be.

        Raises:
            LauncherError: an agent that is no more began it.
        """
        if self.again:
            raise LauncherError(
                f"the agent ended while it did {self.command.verb}; whether it took effect is not "
                "known",
                hint="look at the machine, and send it again under another id if it has to be",
                code="interrupted",
            )

    def refuse_unsettled(self) -> None:
        """Refuse what would let a guest run, or change, that may run at another host.

        Raises:
            InputError: it may.
        """
        owned = self.machines.owned.get(self.name)
        if owned is not None and owned.phase == "unsettled":
            raise InputError(
                f"{self.name} may run on {owned.moving} instead of here",
                hint="when you have seen that it does not: resume with `force`",
                code="unsettled",
            )
