"""A command on its way to its final answer: what was sent, what was heard."""

from __future__ import annotations

import asyncio

from launcher.fleet.faults import RemoteError
from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

ACCEPTED, RUNNING, DONE = "accepted", "running", "done"
FINAL = (DONE, "failed", "refused")


@record
class Answer:
    """What an agent answered: `result` is what the verb gives, or how far it is."""

    id: str
    status: str
    result: Any


class Asked:
    """One command that waits.

    Attributes:
        bell: rings when there is an outcome, or when it has to be sent again.
        heard: whether its agent has answered at all.
    """

    def __init__(
        self,
        host: str,
        number: str,
        payload: bytes,
        wait: bool,
        progress: Callable[[Answer], None] | None,
    ) -> None:
        self.host = host
        self.id = number
        self.payload = payload
        self.wait = wait
        self.bell = asyncio.Event()
        self.heard = False
        self._progress = progress
        self._outcome: Answer | Exception | None = None

    def take(self, value: dict[str, Any]) -> None:
        """An answer to it; the first final one counts."""
        status = value.get("status")
        if not isinstance(status, str) or self._outcome is not None:
            return
        self.heard = True
        answer = Answer(self.id, status, value.get("result"))
        if status not in FINAL:
            self._tell(answer)
            return
        self._outcome = answer if status == DONE else RemoteError(self.host, value)
        self.bell.set()

    def _tell(self, answer: Answer) -> None:
        if self._progress is None:
            return
        try:
            self._progress(answer)
        except Exception as error:  # noqa: BLE001 (the caller's own: raised to the caller)
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """There will be no answer."""
        if self._outcome is None:
            self._outcome = error
            self.bell.set()

    @property
    def over(self) -> bool:
        """Whether there is an outcome."""
        return self._outcome is not None

    def outcome(self) -> Answer:
        """The final answer.

        Raises:
            LauncherError: it was refused, it failed, or nobody is there to do it.
        """
        assert self._outcome is not None
        if isinstance(self._outcome, Answer):
            return self._outcome
        raise self._outcome
