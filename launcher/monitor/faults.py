"""What a monitor's answers, silences and ends mean, in words and as errors."""

from __future__ import annotations

from qemu.qmp import ConnectError, QMPError
from qemu.qmp.message import DeserializationError, UnexpectedTypeError
from qemu.qmp.qmp_client import GreetingError, NegotiationError, ServerParseError

from launcher.errors import CommandError, MonitorError
from launcher.monitor.client import REPLY_LIMIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from qemu.qmp.message import Message


def result_of(command: str, reply: Message) -> Any:
    """What a reply says: the returned value, or a CommandError (not raised)."""
    error: Any = reply.get("error")
    if error is None and "return" in reply:
        return reply["return"]
    if not (isinstance(error, dict) and {"class", "desc"} <= error.keys()):
        raise MonitorError(
            f"{command}: QEMU's answer is neither a return nor an error",
            evidence={"command": command, "cause": "malformed reply"},
        )
    return CommandError(
        f"{command}: {error['desc']}",
        evidence={"command": command, "class": error["class"], "desc": error["desc"]},
    )


def silence(message: str, command: str) -> MonitorError:
    """The error of a QEMU that did not say what was waited for."""
    return MonitorError(
        message,
        hint="QEMU may be stopped (SIGSTOP), stuck in a system call, or overloaded",
        evidence={"command": command, "cause": "timeout"},
    )


def broken(error: Exception | None, command: str) -> MonitorError:
    """The error of a connection that is gone; `error` is what qemu.qmp raised."""
    while isinstance(error, ConnectError | GreetingError | NegotiationError):
        if isinstance(error.exc, AssertionError):  # how qemu.qmp says "answered with an error"
            break
        error = error.exc
    return MonitorError(
        f"QMP connection lost: {_explain(error)}",
        evidence={"command": command, "cause": type(error).__name__ if error else "closed"},
    )


def _explain(error: Exception | None) -> str:
    """One of the exceptions of qemu.qmp's disconnect, in words."""
    if error is None:
        return "it was closed"
    if isinstance(error, EOFError):
        return f"QEMU closed it {error}".rstrip()
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, DeserializationError):
        return f"QEMU sent what is not JSON: {error.raw[:80]!r}"
    if isinstance(error, UnexpectedTypeError):
        return "QEMU sent JSON that is not an object"
    if isinstance(error, UnicodeDecodeError):
        return "QEMU sent text that is not UTF-8"
    if isinstance(error, RecursionError):
        return "QEMU sent JSON that is nested too deep"
    if isinstance(error, ServerParseError):
        return f"QEMU did not understand a request: {error.msg.get('error')!r}"
    if isinstance(error, NegotiationError):
        return "QEMU refused qmp_capabilities"
    if isinstance(error, KeyError | TypeError):
        return f"QEMU sent no QMP greeting: {error}"
    if isinstance(error, ValueError) and "Separator" in str(error):
        return f"QEMU sent more than {REPLY_LIMIT >> 20} MiB in one message"
    if isinstance(error, QMPError):
        return str(error).partition("\n")[0]
    return f"{type(error).__name__}: {error}"
