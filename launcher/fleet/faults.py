"""An agent's error as one of ours: its own words, and an exit status as the command line has it."""

from __future__ import annotations

from launcher.display import printable
from launcher.errors import HostError, LauncherError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from launcher.bus.broker import PublishError

#: Codes by exit status (launcher.errors); all others are bad input, 2.
_STATUSES = {
    1: ("mismatch", "error", "interrupted"),
    3: ("qemu", "launch", "monitor", "command", "internal", "migration", "unsettled", "lost"),
    4: (
        *("host", "busy", "conflict", "room", "policy", "journal", "runability", "accel"),
        *(
            "output",
            "path",
            "tls",
            "missing",
            "timeout",
            "broker",
            "access",
            "peer",
            "silent",
            "aborted",
            "certificate",
        ),
    ),
}
_STATUS_OF = {code: status for status, codes in _STATUSES.items() for code in codes}


class RemoteError(LauncherError):
    """A command that an agent refused, or could not do.

    Attributes:
        host: whose agent.
        id: the command's.
        status: `refused` or `failed`.
        result: what it had come to, where it says; the report of a failed verification.
    """

    def __init__(self, host: str, answer: dict[str, Any]) -> None:
        error = answer.get("error")
        self.said: dict[str, Any] = error if isinstance(error, dict) else {}
        message = str(self.said.get("message") or "its agent does not say why")
        lines = self.said.get("qemu_stderr")
        evidence = {"qemu_stderr": [str(one) for one in lines]} if isinstance(lines, list) else {}
        hint, code = (str(self.said.get(word) or "") for word in ("hint", "code"))
        super().__init__(f"{host}: {message}", hint=hint, evidence=evidence, code=code)
        self.exit_status = _STATUS_OF.get(self.code, 2)
        self.host = host
        self.id = answer.get("id")
        self.status = str(answer.get("status"))
        self.result = answer.get("result")

    def as_json(self) -> dict[str, Any]:
        """The agent's own error object, and whose it is."""
        return {**(self.said or super().as_json()), "host": self.host}


def gone(host: str, status: str, number: str = "") -> HostError:
    """A host whose agent is not there; with a command's id when one was under way."""
    words = "went offline" if status == "offline" else "was lost"
    if number:
        words = f"{host} {words} before it answered; whether {number} took effect is not known"
        hint = "the same id again is answered with what became of it"
    else:
        words = f"{host} is {status}"
        hint = "--wait (in Python wait=True) waits until its agent is back"
    return HostError(words, hint=hint, evidence={"id": number}, code=status)


def nobody(host: str, others: list[str]) -> HostError:
    """A host of which the broker knows nothing."""
    from launcher.qapi import nearest

    near = nearest(host, others)
    hint = f"did you mean {' or '.join(near)}?" if near else "`qemu-launcher fleet ls` lists hosts"
    return HostError(f"no agent has told of a host {printable(host)}", hint=hint, code="absent")


def late(host: str, verb: str, seconds: float, number: str) -> HostError:
    """No final answer in time."""
    return HostError(
        f"{host}: no final answer to {verb} within {seconds:g} s",
        hint=f"it may still be done; {number} sent again is answered with what became of it",
        evidence={"id": number},
        code="timeout",
    )


def forbidden(host: str, verb: str, error: PublishError) -> HostError:
    """A command that the broker does not take of us."""
    words = f"{host}: the broker does not take the command {verb} of us: {error.code}"
    hint = f"its rules must let us write {error.topic}: packaging/agent/acl.conf"
    return HostError(words, hint=hint, code="access")
