"""The verbs, and what each of them takes. Pure.

The members are written in a part of JSON Schema (see `messages.fits`), from which a document for
other languages can be made.
"""

from __future__ import annotations

from launcher.bus.topics import ID_PATTERN
from launcher.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_ID = {"type": "string", "pattern": ID_PATTERN}
_TEXT = {"type": "string", "maxLength": 4096}
_SETTINGS = {"type": "array", "items": _TEXT, "maxItems": 64}
_MACHINE = {"machine": {**_ID, "description": "Name of a machine of this agent."}}
_REQUEST = {
    "profile": {
        "description": "A profile of the host by its name, or where policy has it a whole one.",
        "anyOf": [_ID, {"type": "object"}],
    },
    "name": {**_ID, "description": "What to call the machine; by default the profile's name."},
    "platform": {**_TEXT, "description": "Wins over the profile's own."},
    "qemu": {**_TEXT, "description": "The binary, by name or path."},
    "settings": {**_SETTINGS, "description": "path=value texts, as --set takes them."},
}
_TAG = {"tag": {**_ID, "description": "Name of the snapshot."}}
_TO = {"to": {**_ID, "description": "The other host's id."}}
_LOCKED = {"type": "boolean", "description": "Keep the lock file beside the profile, or refuse."}


@record
class Verb:
    """What one verb takes: members by name, which of them must be there, and what it does.

    `effect` is whether it changes something: then it is in the journal before it is begun. `apart`
    is whether it may take minutes: then it takes no slot of those that do not. `aside` is whether
    it need not wait for other commands to its machine.
    """

    doc: str
    members: Mapping[str, Any]
    needs: tuple[str, ...]
    effect: bool
    apart: bool = False
    aside: bool = False


VERBS: dict[str, Verb] = {
    "start": Verb(
        "Start a machine, prove it, and let the guest run.",
        {
            **_REQUEST,
            "locked": _LOCKED,
            "verify": {"enum": ["strict", "warn"], "description": "By default the profile's."},
        },
        ("profile",),
        effect=True,
    ),
    "stop": Verb(
        "End a machine: powerdown, quit, SIGTERM, SIGKILL, from the kindest that is asked for.",
        {
            **_MACHINE,
            "first": {"enum": ["powerdown", "quit", "SIGKILL"], "description": "Where to begin."},
        },
        ("machine",),
        effect=True,
    ),
    "pause": Verb("Hold the guest (QMP stop).", _MACHINE, ("machine",), effect=True),
    "resume": Verb(
        "Let the guest go on (QMP cont).",
        {
            **_MACHINE,
            "force": {
                "type": "boolean",
                "description": "Also where another host may run it; you know that it does not.",
            },
        },
        ("machine",),
        effect=True,
    ),
    "reset": Verb("Reset the guest (QMP system_reset).", _MACHINE, ("machine",), effect=True),
    "qmp": Verb(
        "Send one QMP command that policy allows.",
        {**_MACHINE, "command": _TEXT, "arguments": {"type": "object"}},
        ("machine", "command"),
        effect=True,
    ),
    "verify": Verb("Read every planned value back, now.", _MACHINE, ("machine",), effect=False),
    "query": Verb("What is known of one machine, or of all.", _MACHINE, (), effect=False),
    "plan": Verb("What would be started, and who set each value.", _REQUEST, ("profile",), False),
    "lock": Verb(
        "Start paused, read back, end, and answer the lock file's content.",
        _REQUEST,
        ("profile",),
        effect=True,
    ),
    "adopt": Verb(
        "Take over a detached machine of this host's user.", _MACHINE, ("machine",), effect=True
    ),
    "forget": Verb("Let go of a machine, which runs on.", _MACHINE, ("machine",), effect=True),
    "snapshot": Verb(
        "Keep disks, RAM and devices as they are, in memory, for as long as the machine runs.",
        {**_MACHINE, **_TAG},
        ("machine", "tag"),
        effect=True,
        apart=True,
    ),
    "restore": Verb(
        "Go back to a snapshot.", {**_MACHINE, **_TAG}, ("machine", "tag"), effect=True, apart=True
    ),
    "screendump": Verb("The first display, as PNG in base64.", _MACHINE, ("machine",), False),
    "console": Verb(
        "Listen to the first serial console, and publish on machines/NAME/console meanwhile.",
        {
            **_MACHINE,
            "seconds": {"type": "number", "minimum": 0, "maximum": 60},
            "input": {**_TEXT, "description": "What is typed first."},
        },
        ("machine",),
        effect=False,
        apart=True,
        aside=True,
    ),
    "preflight": Verb(
        "What would break if a machine went to another host.",
        {**_MACHINE, **_TO},
        ("machine", "to"),
        effect=False,
        apart=True,
        aside=True,
    ),
    "migrate": Verb(
        "Move a machine to another host; its guest goes on there.",
        {
            **_MACHINE,
            **_TO,
            "force": {"type": "boolean", "description": "Although the preflight says it breaks."},
        },
        ("machine", "to"),
        effect=True,
        apart=True,
    ),
    "facts": Verb("Gather the host's facts and publish them again.", {}, (), effect=False),
}
