"""The grammar of topics, all below `qemu-launcher/v1/`. Pure.

    hosts/HOST/status, facts, events, machines/NAME/state, report, lock, events, console
    hosts/HOST/command/VERB
    hosts/HOST/peer/OTHER/WORD
    pool/POOL/start
    reply/CLIENT/SESSION

A level that names something is an id. So nothing that a stranger sends can become a wildcard, a
level more, or a topic that belongs to somebody else.
"""

from __future__ import annotations

from launcher.errors import InputError

ROOT = "qemu-launcher/v1"
LONGEST = 63
_FIRST = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_LETTERS = _FIRST | {"-"}
ID_PATTERN = "^[a-z0-9][a-z0-9-]{0,62}$"


def is_id(text: object) -> bool:
    """Whether `text` can name a host, a machine, a profile, a client or a command."""
    if not isinstance(text, str) or not 0 < len(text) <= LONGEST:
        return False
    return text[0] in _FIRST and _LETTERS.issuperset(text)


def check_id(text: str, what: str) -> str:
    """`text`, when it is an id.

    Raises:
        InputError: it is not.
    """
    if not is_id(text):
        raise InputError(
            f"{text!r} cannot be {what}",
            hint="small letters, digits and '-', at most 63, starting with a letter or digit",
            code="id",
        )
    return text


def host_topic(host: str, *levels: str) -> str:
    """A topic of one host: `host_topic("h1", "status")`."""
    return "/".join((ROOT, "hosts", host, *levels))


def machine_topic(host: str, name: str, leaf: str) -> str:
    """A topic of one machine: `state`, `report` or `events`."""
    return host_topic(host, "machines", name, leaf)


def command_topic(host: str, verb: str) -> str:
    """Where a host takes commands of one verb; `+` for all of them."""
    return host_topic(host, "command", verb)


def peer_topic(host: str) -> str:
    """Where a host hears what other hosts say to it."""
    return host_topic(host, "peer", "+", "+")


def heard(host: str) -> tuple[str, ...]:
    """What an agent hears besides commands: what others say, and what it has retained itself."""
    own = (machine_topic(host, "+", leaf) for leaf in ("state", "report", "lock"))
    return (*own, peer_topic(host))


def parse_peer(topic: str, host: str) -> tuple[str, str] | None:
    """Who says what to a host: (the other host, a word); None for any other topic."""
    start = host_topic(host, "peer") + "/"
    levels = topic[len(start) :].split("/") if topic.startswith(start) else ()
    if len(levels) != 2 or not all(is_id(level) for level in levels):
        return None
    return levels[0], levels[1]


def pool_topic(pool: str) -> str:
    """Where hosts of a pool take starts, each of which one of them does."""
    return f"{ROOT}/pool/{pool}/start"


def reply_topic(client: str, session: str) -> str:
    """Where a client takes its answers."""
    return f"{ROOT}/reply/{client}/{session}"


def verb_of(topic: str, host: str) -> str | None:
    """The word where a command's topic has its verb, None when it is no such topic of this host.

    It may be no verb at all: who sent it is told so.
    """
    before, _, verb = topic.rpartition("/")
    return verb if before == host_topic(host, "command") and verb else None


def may_answer(topic: str | None) -> bool:
    """Whether a ResponseTopic is one: an answer must not become a command to another host."""
    if topic is None or not topic.startswith(f"{ROOT}/reply/"):
        return False
    levels = topic[len(ROOT) + len("/reply/") :].split("/")
    return len(levels) == 2 and all(is_id(level) for level in levels)


def kind_of(topic: str) -> str:
    """What one of our own topics is for, whoever it is to: its last word, or `reply`."""
    return "reply" if topic.startswith(f"{ROOT}/reply/") else topic.rpartition("/")[2]


def parse_state(topic: str) -> tuple[str, str, str] | None:
    """What a topic of a host is about: (host, machine or "", leaf); None for any other topic."""
    levels = topic.split("/")
    if levels[:3] != [*ROOT.split("/"), "hosts"]:
        return None
    rest = levels[3:]
    if len(rest) == 2 and is_id(rest[0]):
        return rest[0], "", rest[1]
    if len(rest) == 4 and rest[1] == "machines" and is_id(rest[0]) and is_id(rest[2]):
        return rest[0], rest[2], rest[3]
    return None
