"""What the recorded QEMU answers to QMP commands. No I/O."""

from __future__ import annotations

from launcher.verify.readers import qom_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from launcher.capabilities import Capabilities
    from launcher.plan import Plan

#: Families whose values stand in the QOM tree.
_IN_QOM = ("object", "chardev", "device", "audiodev", "machine")
#: Commands that move a machine, the runstate after them and the events that they cause.
_MOVES: dict[str, tuple[str, tuple[tuple[str, dict[str, Any]], ...]]] = {
    "stop": ("paused", (("STOP", {}),)),
    "cont": ("running", (("RESUME", {}),)),
    "system_reset": ("", (("RESET", {"guest": False, "reason": "host-qmp-system-reset"}),)),
    "system_powerdown": (
        "shutdown",
        (("POWERDOWN", {}), ("SHUTDOWN", {"guest": True, "reason": "guest-shutdown"})),
    ),
    "quit": ("shutdown", (("SHUTDOWN", {"guest": False, "reason": "host-qmp-quit"}),)),
}


class Refused(Exception):
    """An error that QEMU answers with.

    Args:
        kind: its class (QAPI: QapiErrorClass).
        desc: its words.
    """

    def __init__(self, kind: str, desc: str) -> None:
        super().__init__(desc)
        self.kind = kind
        self.desc = desc


class Answers:
    """The answers of one machine.

    Attributes:
        given: command → what a test wants it answered: a value, a function of the arguments, or
            an error to raise (`Refused`, or any LauncherError, whose message is told).
        runstate: QAPI: RunState.
        ended: it was told to end, or to power down.
    """

    def __init__(self, plan: Plan, capabilities: Capabilities) -> None:
        self.given: dict[str, Any] = {}
        self.runstate = "prelaunch"
        self.ended = False
        self._plan = plan
        self._replies = capabilities.replies
        schema = self._replies["query-qmp-schema"]
        self._commands = sorted(e["name"] for e in schema if e["meta-type"] == "command")

    def answer(
        self, command: str, arguments: dict[str, Any]
    ) -> tuple[Any, tuple[tuple[str, dict[str, Any]], ...]]:
        """What a command returns, and the events that it causes.

        Raises:
            Refused: this QEMU has no such command, or the answer is not recorded.
        """
        if command in self.given:
            return self._as_given(self.given[command], arguments), ()
        if command not in self._commands:
            raise Refused("CommandNotFound", f"The command {command} has not been found")
        if command in _MOVES:
            state, events = _MOVES[command]
            self.ended = self.ended or state == "shutdown"
            self.runstate = state or self.runstate
            return {}, events
        found = _KNOWN.get(command)
        if found is None:
            raise Refused(
                "GenericError",
                f"{command} is not recorded: this is no QEMU; answer it with machine.answer()",
            )
        return found(self, arguments), ()

    def _as_given(self, given: Any, arguments: dict[str, Any]) -> Any:
        value = given(arguments) if callable(given) else given
        if isinstance(value, Exception):
            raise value
        return value

    def _status(self, _arguments: dict[str, Any]) -> dict[str, Any]:
        return {"status": self.runstate, "running": self.runstate == "running"}

    def _types(self, arguments: dict[str, Any]) -> list[dict[str, Any]]:
        lists = {None: "qom-list-types", "device": "devices", "user-creatable": "user-creatable"}
        implements = arguments.get("implements")
        if implements not in lists:
            raise Refused("GenericError", f"the types that implement {implements} are not recorded")
        return [{"name": name} for name in self._replies[lists[implements]]]

    def _properties(self, command: str, arguments: dict[str, Any]) -> list[dict[str, Any]]:
        name = arguments.get("typename")
        found: list[dict[str, Any]] | None = self._replies[command].get(name)
        if found is None:
            known = name in self._replies["qom-list-types"]
            kind = "GenericError" if known else "DeviceNotFound"
            raise Refused(kind, f"the properties of {name} are not recorded")
        return found

    def _qom_get(self, arguments: dict[str, Any]) -> Any:
        path, name = arguments.get("path"), arguments.get("property")
        for value in self._plan.values:
            if value.family in _IN_QOM and value.spelled == name and qom_path(value) == path:
                return value.written
        raise Refused("GenericError", f"{path}.{name} is no planned value, and not recorded")


def _recorded(command: str) -> Any:
    return lambda self, _arguments: self._replies[command]


_KNOWN: dict[str, Any] = {
    "query-version": _recorded("query-version"),
    "query-qmp-schema": _recorded("query-qmp-schema"),
    "query-machines": _recorded("query-machines"),
    "query-command-line-options": _recorded("query-command-line-options"),
    "query-commands": lambda self, _: [{"name": name} for name in self._commands],
    "query-name": lambda self, _: {"name": self._plan.name},
    "query-uuid": lambda self, _: {"UUID": self._plan.uuid},
    "query-kvm": lambda self, _: {"enabled": self._plan.accel == "kvm", "present": True},
    "query-status": Answers._status,
    "qom-list-types": Answers._types,
    "qom-get": Answers._qom_get,
    "qom-list-properties": lambda self, a: self._properties("qom-list-properties", a),
    "device-list-properties": lambda self, a: self._properties("device-list-properties", a),
}
