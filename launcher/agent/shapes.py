"""JSON Schemas (draft 7) of what an agent publishes and answers. Pure but for one file of ours.

Members may be added to any of them, as to all JSON of the launcher; none is renamed or removed.
"""

from __future__ import annotations

from launcher.agent.messages import MAX_ANSWER
from launcher.bus.topics import ID_PATTERN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

_TEXT: Json = {"type": "string"}
_MAYBE: Json = {"type": ["string", "null"]}
_COUNT: Json = {"type": "integer", "minimum": 0}
_SWITCH: Json = {"type": "boolean"}
_ANY: Json = {}
ID: Json = {"type": "string", "pattern": ID_PATTERN}
UUID: Json = {"type": "string", "pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"}
VERDICT: Json = {"enum": ["match", "mismatch"]}
RUNG: Json = {"enum": ["powerdown", "quit", "SIGTERM", "SIGKILL", "exited", "unknown"]}


def ref(name: str) -> Json:
    """A schema of this document, by name."""
    return {"$ref": f"#/components/schemas/{name}"}


def thing(members: Json, *optional: str) -> Json:
    """An object that has all of `members` but the optional ones, and perhaps more."""
    needed = [name for name in members if name not in optional]
    return {"type": "object", "required": needed, "properties": members}


def either(*kinds: Json) -> Json:
    """A value of one of these kinds."""
    return {"anyOf": list(kinds)}


def listed(item: Json) -> Json:
    """A list."""
    return {"type": "array", "items": item}


_EVENT = r"^qemu-launcher\.(machine|command)\.(qmp\.[A-Z0-9_]+|[a-z][a-z-]*)$"
_NULL: Json = {"type": "null"}
_NUMBERS: Json = {"type": "object", "additionalProperties": _COUNT}
_CHANGED: Json = thing({"name": ID, "changed": _SWITCH})
_HEAD: Json = {
    "name": _TEXT,
    "qemu": thing({"binary": _TEXT, "version": _TEXT, "build": _TEXT}),
    "platform": _TEXT,
    "machine": _TEXT,
    "accel": _TEXT,
    "accel_reason": _MAYBE,
}
_VALUE: Json = {
    "family": _TEXT,
    "type": _TEXT,
    "id": _TEXT,
    "property": _TEXT,
    "origin": {**_TEXT, "description": "Who set it: profile:LINE, platform NAME, machine type."},
}

SCHEMAS: dict[str, Json] = {
    "id": {**ID, "description": "Of a host, machine, client or command."},
    "error": {
        **thing(
            {
                "code": {**_TEXT, "description": "One word for programs."},
                "message": {**_TEXT, "description": "What is wrong, a sentence."},
                "file": _MAYBE,
                "line": {"type": ["integer", "null"]},
                "column": {"type": ["integer", "null"]},
                "hint": {**_MAYBE, "description": "What to do about it."},
                "qemu_stderr": either(_NULL, listed(_TEXT)),
                "mistakes": listed(ref("error")),
            },
            "mistakes",
        ),
        "description": "The error of every JSON that the launcher writes.",
    },
    "status": thing(
        {
            "status": {"enum": ["online", "offline", "lost"]},
            "version": {**_TEXT, "description": "Of the agent."},
            "boot_id": {**_TEXT, "description": "Another one after each boot of the host."},
            "capacity": thing({"limits": _NUMBERS, "used": _NUMBERS}),
        }
    ),
    "counts": {
        "type": "object",
        "properties": dict.fromkeys(("match", "mismatch", "absent", "unobservable"), _COUNT),
        "description": "How many values have each verdict. Unobservable is no match.",
    },
    "state": thing(
        {
            "name": ID,
            "uuid": UUID,
            "wanted": {"enum": ["running", "paused"]},
            "actual": {
                **_TEXT,
                "description": "running, paused, migrating, ended, or where it is on its way.",
            },
            "moving": {**_MAYBE, "description": "The host that it goes to."},
            "pid": {"type": ["integer", "null"]},
            "profile": {**_MAYBE, "description": "Null for one that was sent whole."},
            "platform": _MAYBE,
            "digest": {**_TEXT, "description": "Equal for two starts of the same."},
            "verdict": either(_NULL, VERDICT),
            "counts": either(_NULL, ref("counts")),
            "memory": {**_COUNT, "description": "Bytes."},
            "cpus": _COUNT,
            "since": {"type": "number", "description": "Seconds since 1970."},
        }
    ),
    "report": thing(
        {
            **_HEAD,
            "verdict": VERDICT,
            "counts": ref("counts"),
            "values": listed(
                thing(
                    {
                        **_VALUE,
                        "planned": _ANY,
                        "observed": {"description": "Null when it was not read."},
                        "observer": _TEXT,
                        "verdict": {"enum": ["match", "mismatch", "absent", "unobservable"]},
                        "reason": _MAYBE,
                    }
                )
            ),
            "complaints": {**listed(_TEXT), "description": "Lines of QEMU's stderr."},
            "speed": either(_NULL, thing({"native": _ANY, "reason": _TEXT})),
            "unplanned": listed(_TEXT),
            "omitted": listed(_ANY),
            "stats": thing({"commands": _COUNT, "request_bytes": _COUNT}),
        }
    ),
    "plan": thing(
        {
            **_HEAD,
            "argv": listed(_TEXT),
            "setup": listed(thing({"command": _TEXT, "arguments": _ANY})),
            "values": listed(thing({**_VALUE, "value": _ANY, "observer": _TEXT})),
            "omitted": listed(thing({**_VALUE, "value": _ANY, "reason": _TEXT})),
            "unplanned": listed(_TEXT),
            "notes": listed(_TEXT),
            "digest": _TEXT,
        }
    ),
    "finding": thing(
        {
            "code": _TEXT,
            "severity": {"enum": ["breaks", "risks", "harmless"]},
            "message": _TEXT,
            "cures": listed({"type": "object"}),
        }
    ),
    "event": {
        **thing(
            {
                "specversion": {"const": "1.0"},
                "id": UUID,
                "source": _TEXT,
                "type": {
                    **_TEXT,
                    "pattern": _EVENT,
                },
                "time": {**_TEXT, "format": "date-time"},
                "datacontenttype": {"const": "application/json"},
                "data": {"type": "object"},
            }
        ),
        "description": "A CloudEvent, 1.0, in the JSON format.",
    },
}

#: What `done` brings, by verb; a verb that is not here brings any JSON.
RESULTS: dict[str, Json] = {
    "start": {"allOf": [ref("state"), thing({"changed": _SWITCH})]},
    "stop": thing({"name": ID, "changed": _SWITCH, "by": RUNG}),
    "pause": _CHANGED,
    "resume": _CHANGED,
    "reset": _CHANGED,
    "verify": ref("report"),
    "query": either(
        thing({"machines": listed(ref("state"))}),
        {"allOf": [ref("state"), thing({"status": {**_TEXT, "description": "As QMP has it."}})]},
    ),
    "plan": ref("plan"),
    "lock": thing({"lock": ref("lock")}),
    "adopt": {"allOf": [ref("state"), thing({"changed": _SWITCH})]},
    "forget": _CHANGED,
    "facts": ref("facts"),
    "preflight": thing({"findings": listed(ref("finding")), "counts": _NUMBERS}),
    "migrate": thing(
        {"result": {"const": "completed"}, "name": ID, "from": ID, "to": ID, "tls": _SWITCH}
    ),
    "snapshot": thing({"name": ID, "tag": ID, "changed": _SWITCH, "tags": listed(ID)}),
    "restore": thing({"name": ID, "tag": ID, "changed": _SWITCH}),
    "screendump": thing(
        {
            "name": ID,
            "width": _COUNT,
            "height": _COUNT,
            "png": {**_TEXT, "description": "A PNG in base64."},
        }
    ),
    "console": thing({"name": ID, "text": _TEXT, "dropped": _COUNT}),
}


def schemas() -> dict[str, Json]:
    """All of them, with the two that have an owner elsewhere: facts and lock files."""
    import json
    import os

    from launcher.host import facts
    from launcher.locks.shape import lock_schema

    path = os.path.join(os.path.dirname(facts.__file__), "facts.schema.json")
    with open(path, encoding="utf-8") as file:
        return {
            **SCHEMAS,
            **_adopted("facts", json.load(file), "$defs"),
            **_adopted("lock", lock_schema(), "definitions"),
        }


def _adopted(name: str, schema: Json, parts: str) -> dict[str, Json]:
    """A schema that stands alone, as schemas of this document: its parts get names of their own."""
    schema = {key: value for key, value in schema.items() if key != "$schema"}
    inner = schema.pop(parts)
    before = f"#/{parts}/"

    def moved(value: Any) -> Any:
        if isinstance(value, list):
            return [moved(one) for one in value]
        if not isinstance(value, dict):
            return value
        return {
            key: f"#/components/schemas/{name}-{one.removeprefix(before)}"
            if key == "$ref"
            else moved(one)
            for key, one in value.items()
        }

    return {name: moved(schema), **{f"{name}-{key}": moved(one) for key, one in inner.items()}}


def answer(verb: str) -> Json:
    """What may be answered to a verb: on the way, and once at last."""

    def one(statuses: list[str], result: Json, error: Json) -> Json:
        return thing(
            {
                "id": either(ref("id"), _NULL),
                "status": {"enum": statuses},
                "result": result,
                "error": error,
            }
        )

    return {
        "description": f"At most {MAX_ANSWER} bytes. `done`, `failed` and `refused` are final; "
        "an id that was not readable is null.",
        "anyOf": [
            one(["accepted", "running"], _ANY, _NULL),
            one(["done"], RESULTS.get(verb, _ANY), _NULL),
            one(["failed", "refused"], _ANY, ref("error")),
        ],
    }
