"""The agent for those who write another language: an AsyncAPI 3.0 document, from our own tables.

<https://www.asyncapi.com/docs/reference/specification/v3.0.0>. The document speaks as the agent:
it receives commands, and sends everything else. Schemas are JSON Schema, draft 7.
"""

from __future__ import annotations

from launcher.agent import shapes
from launcher.agent.messages import MAX_CORRELATION, MAX_DEPTH, MAX_PAYLOAD
from launcher.agent.vocabulary import VERBS
from launcher.bus import topics

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from launcher.agent.vocabulary import Verb

    Json = dict[str, Any]

_SUMMARY = """\
Machines of one host behind an MQTT 5 broker. Send a command to its topic with QoS 1, with a
ResponseTopic below reply/ to which you are subscribed, and an id of your own. First it is
`accepted` or `refused`; the last answer is `done`, `failed` or `refused`. The same id again gets
the same answer and has no second effect: send a command again until its last answer has come.
Never publish a command as retained. docs/agent.md says what is promised.
"""
#: Topic → (levels after the host, schema, retained, what it is).
_TOLD: dict[str, tuple[tuple[str, ...], str, bool, str]] = {
    "hostStatus": (("status",), "status", True, "Whether the agent is there; `lost` is its Will."),
    "hostFacts": (("facts",), "facts", True, "What the host can do."),
    "hostEvents": (("events",), "event", False, "Commands that were refused."),
    "machineState": (
        ("machines", "{machine}", "state"),
        *("state", True, "Emptied when the machine is gone."),
    ),
    "machineReport": (
        ("machines", "{machine}", "report"),
        *("report", True, "What was read back last; emptied when the machine is gone."),
    ),
    "machineLock": (
        ("machines", "{machine}", "lock"),
        *("lock", True, "What the machine was started from; emptied when it is gone."),
    ),
    "machineConsole": (
        ("machines", "{machine}", "console"),
        *("", False, "What a guest writes, as it writes it, while `console` listens."),
    ),
    "machineEvents": (
        ("machines", "{machine}", "events"),
        *("event", False, "What happened to a machine."),
    ),
}
_PARAMETERS = {
    "host": "The host's id.",
    "machine": "The machine's name.",
    "pool": "Hosts that take each other's starts.",
    "other": "The id of the host that speaks.",
    "word": "What it says.",
    "client": "Who asks, an id; the broker's rules may bind you to your own.",
    "session": "An id of your own, another one for each session.",
}
_MQTT = "0.2.0"
_BYTES = "application/octet-stream"
_PEER = ("peer", "{other}", "{word}")
_APART = "Between the agents of a migration; nothing here is for clients."
_PEER_MESSAGE = {"name": "peer", "summary": _APART, "payload": {"type": "object"}}
_POOL = (
    "A `start` that one host of a pool does (a shared subscription). The same id sent again may "
    "reach another host: look at machines before you send it again."
)


def document() -> Json:
    """All of it, ready for YAML or JSON."""
    from launcher import __version__

    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "qemu-launcher agent",
            "version": __version__,
            "description": _SUMMARY,
            "license": {"name": "LGPL-2.1-or-later"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "broker": {
                "host": "broker.example:8883",
                "protocol": "secure-mqtt",
                "protocolVersion": "5.0",
                "description": "Yours; `mqtt` without TLS on a host's own loopback.",
            }
        },
        "channels": {
            **_told_channels(),
            **_command_channels(),
            "pool-start": _channel(topics.pool_topic("{pool}"), "start"),
            "reply": _reply_channel(),
            "peer": {
                **_channel(topics.host_topic("{host}", *_PEER), "peer"),
                "description": _APART,
            },
        },
        "operations": {
            **_told_operations(),
            **_command_operations(),
            "pool-start": _answered("start", "pool-start", _POOL),
        },
        "components": {
            "parameters": {name: {"description": doc} for name, doc in _PARAMETERS.items()},
            "messages": {**_told_messages(), **_command_messages(), "peer": _PEER_MESSAGE},
            "schemas": shapes.schemas(),
        },
    }


def _pointer(*levels: str) -> Json:
    return {"$ref": "#/" + "/".join(levels)}


def _channel(address: str, *messages: str) -> Json:
    named = [name for name in _PARAMETERS if f"{{{name}}}" in address]
    return {
        "address": address,
        "messages": {name: _pointer("components", "messages", name) for name in messages},
        "parameters": {name: _pointer("components", "parameters", name) for name in named},
    }


def _operation(action: str, doc: str, channel: str, message: str, *, retain: bool) -> Json:
    return {
        "action": action,
        "summary": doc,
        "channel": _pointer("channels", channel),
        "messages": [_pointer("channels", channel, "messages", message)],
        "bindings": {"mqtt": {"qos": 1, "retain": retain, "bindingVersion": _MQTT}},
    }


# -- what an agent tells of its own accord ---------------------------------------------------------


def _told_channels() -> Json:
    return {
        name: _channel(topics.host_topic("{host}", *levels), name)
        for name, (levels, _schema, _retain, _doc) in _TOLD.items()
    }


def _told_messages() -> Json:
    return {
        name: {
            "name": name,
            "summary": doc,
            **({"payload": shapes.ref(schema)} if schema else {"contentType": _BYTES}),
        }
        for name, (_levels, schema, _retain, doc) in _TOLD.items()
    }


def _told_operations() -> Json:
    return {
        name: _operation("send", doc, name, name, retain=retain)
        for name, (_levels, _schema, retain, doc) in _TOLD.items()
    }


# -- commands, and answers to them -----------------------------------------------------------------


def _command_channels() -> Json:
    return {
        f"command-{verb}": _channel(topics.command_topic("{host}", verb), verb) for verb in VERBS
    }


def _reply_channel() -> Json:
    answers = [f"{verb}-answer" for verb in VERBS]
    return _channel(topics.reply_topic("{client}", "{session}"), *answers)


def command_schema(verb: Verb) -> Json:
    """The payload of one verb's command."""
    return {
        "type": "object",
        "description": f"At most {MAX_PAYLOAD} bytes and {MAX_DEPTH} levels.",
        "required": ["id", *verb.needs],
        "properties": {
            "id": {**shapes.ID, "description": "Chosen by who sends it; a UUID for instance."},
            **verb.members,
        },
        "additionalProperties": False,
    }


def _command_messages() -> Json:
    reply = "^" + topics.reply_topic("[a-z0-9-]+", "[a-z0-9-]+") + "$"
    bindings = {
        "responseTopic": {"type": "string", "pattern": reply},
        "correlationData": {"type": "string", "maxLength": MAX_CORRELATION},
        "bindingVersion": _MQTT,
    }
    found: Json = {}
    for name, verb in VERBS.items():
        found[name] = {
            "name": name,
            "summary": verb.doc,
            "payload": command_schema(verb),
            "bindings": {"mqtt": bindings},
        }
        found[f"{name}-answer"] = {
            "name": f"{name}-answer",
            "summary": f"Comes on the ResponseTopic of `{name}`, with its CorrelationData.",
            "payload": shapes.answer(name),
        }
    return found


def _command_operations() -> Json:
    return {name: _answered(name, f"command-{name}", verb.doc) for name, verb in VERBS.items()}


def _answered(verb: str, channel: str, doc: str) -> Json:
    """The operation of one verb on one channel, with where its answers go."""
    return {
        **_operation("receive", doc, channel, verb, retain=False),
        "reply": {
            "address": {
                "location": "$message.header#/responseTopic",
                "description": "The MQTT 5 property ResponseTopic.",
            },
            "channel": _pointer("channels", "reply"),
            "messages": [_pointer("channels", "reply", "messages", f"{verb}-answer")],
        },
    }


def document_yaml() -> str:
    """The document as YAML, the same bytes each time."""
    import yaml

    class Plain(yaml.SafeDumper):
        """Without anchors: not every reader of AsyncAPI knows them."""

        def ignore_aliases(self, _data: Any) -> bool:
            return True

    text: str = yaml.dump(document(), Dumper=Plain, sort_keys=False, width=100, allow_unicode=True)
    return "# Written by `qemu-launcher schema --asyncapi`.\n" + text
