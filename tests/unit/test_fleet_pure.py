"""What a fleet makes of what it is told: pictures, answers, errors, portions, changes, its file."""

from __future__ import annotations

import asyncio
import json

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from launcher.bus import topics
from launcher.cli import broker_file, fleet_watch
from launcher.cli.fleet import WORDS
from launcher.cli.parser import parse
from launcher.errors import HostError, InputError, LauncherError
from launcher.fleet import picture
from launcher.fleet.asking import Answer, Asked
from launcher.fleet.faults import RemoteError, gone, late, nobody
from launcher.fleet.floor import common_floor
from launcher.fleet.looking import Looker, View
from launcher.fleet.picture import Picture

STATUS = {
    "status": "online",
    "version": "0.1.0",
    "boot_id": "b",
    "capacity": {"limits": {"machines": 64}, "used": {"machines": 2, "cpus": 2}},
}


def told(*levels: str) -> str:
    return topics.host_topic(*levels)


def as_bytes(value: object) -> bytes:
    return json.dumps(value).encode()


# -- pictures -------------------------------------------------------------------------------------


def test_what_hosts_publish_is_kept_until_it_is_emptied():
    seen = Picture()
    assert seen.take(told("h1", "status"), as_bytes(STATUS)) == ("h1", "", "status")
    assert seen.take(told("h1", "facts"), b'{"name": "n"}') == ("h1", "", "facts")
    state = told("h1", "machines", "web", "state")
    assert seen.take(state, b'{"pid": 1}') == ("h1", "web", "state")
    assert (seen.hosts["h1"].status, seen.hosts["h1"].used["machines"]) == ("online", 2)
    assert seen.machines_of("h1") == ["web"]
    assert seen.machines_of("h2") == []
    for topic in (state, told("h1", "facts"), told("h1", "status")):
        assert seen.take(topic, b"") is not None
        assert seen.take(topic, b"") is None
    assert (seen.hosts, seen.facts, seen.machines) == ({}, {}, {})


@pytest.mark.parametrize(
    "payload",
    [b"{", b"[]", b"\xff", b"[" * 100_000, b'{"status": "fine"}', b'{"status": ["online"]}'],
)
def test_nonsense_is_counted_and_left_out(payload):
    seen = Picture()
    assert seen.take(told("h1", "status"), payload) is None
    assert (seen.odd, seen.hosts) == (1, {})


def test_a_status_without_its_parts_is_still_one():
    seen = Picture()
    seen.take(told("h1", "status"), b'{"status": "lost", "capacity": {"used": {"machines": "x"}}}')
    assert seen.hosts["h1"].used == {}


def test_other_topics_change_nothing():
    seen = Picture()
    for topic in ("other", told("h1"), told("h1", "machines", "web", "report"), told("h1", "x")):
        assert seen.take(topic, b"{}") is None
    assert seen.odd == 0


def test_there_is_a_bound(monkeypatch):
    monkeypatch.setattr(picture, "MAX_MACHINES", 2)
    seen = Picture()
    for name in ("a", "b", "c"):
        seen.take(told("h1", "machines", name, "state"), b"{}")
    assert seen.machines_of("h1") == ["a", "b"]
    assert seen.left_out == 1
    assert seen.take(told("h1", "machines", "a", "state"), b'{"pid": 2}') is not None


# -- answers --------------------------------------------------------------------------------------


def test_the_first_final_answer_counts():
    heard: list[Answer] = []
    asked = Asked("h1", "1", b"", wait=False, progress=heard.append)
    for status in ("accepted", "running", "done", "failed"):
        asked.take({"id": "1", "status": status, "result": status, "error": None})
    assert [one.status for one in heard] == ["accepted", "running"]
    assert asked.outcome() == Answer("1", "done", "done")
    asked.fail(HostError("late"))
    assert asked.outcome().status == "done"


def test_a_mistake_in_the_callers_own_words_is_the_callers():
    def wrong(_answer: Answer) -> None:
        raise KeyError("mine")

    asked = Asked("h1", "1", b"", wait=False, progress=wrong)
    asked.take({"status": "accepted"})
    assert asked.bell.is_set()
    with pytest.raises(KeyError, match="mine"):
        asked.outcome()


@pytest.mark.parametrize("status", [None, 1, ["done"]])
def test_an_answer_without_a_status_is_none(status):
    asked = Asked("h1", "1", b"", wait=False, progress=None)
    asked.take({"status": status})
    assert not asked.over
    assert not asked.heard


@pytest.mark.parametrize(
    ("code", "status"),
    [("mismatch", 1), ("launch", 3), ("policy", 4), ("conflict", 4), ("member", 2), ("new", 2)],
)
def test_an_agents_error_keeps_its_words_and_an_exit_status(code, status):
    error = {"code": code, "message": "no", "hint": "do", "qemu_stderr": ["x"]}
    raised = RemoteError("h1", {"id": "1", "status": "failed", "result": {}, "error": error})
    assert (raised.exit_status, raised.code, str(raised)) == (status, code, "h1: no")
    assert raised.as_json() == {**error, "host": "h1"}
    assert raised.evidence["qemu_stderr"] == ["x"]


def test_an_error_without_words_is_still_one():
    raised = RemoteError("h1", {"status": "refused", "error": "what"})
    assert raised.as_json()["host"] == "h1"
    assert "does not say why" in str(raised)


def test_errors_of_our_own_say_what_to_do():
    assert gone("h1", "lost").code == "lost"
    assert "not known" in str(gone("h1", "offline", "7"))
    assert nobody("h3", ["h1", "h2"]).code == "absent"
    assert "h1" in nobody("hh1", ["h1"]).hint
    assert late("h1", "start", 5, "7").evidence == {"id": "7"}
    assert all(isinstance(one, LauncherError) for one in (gone("h", "lost"), nobody("h", [])))


# -- portions -------------------------------------------------------------------------------------


class Recorder:
    """Stands for a connection: what is subscribed to, and what is published comes back at once."""

    def __init__(self) -> None:
        self.subscribed: list[list[str]] = []
        self.looker: Looker | None = None

    async def subscribe(self, wanted: list[tuple[str, object]]) -> list[ReasonCode]:
        self.subscribed.append([topic for topic, _options in wanted])
        return [ReasonCode(PacketTypes.SUBACK, identifier=1)] * len(wanted)

    async def deliver(self, _topic: str, _payload: bytes, _retain: bool, more: object) -> None:
        assert self.looker is not None
        self.looker.mark_came(more.CorrelationData)


def looked(view: View, seen: Picture) -> list[list[str]]:
    connection = Recorder()
    looker = connection.looker = Looker(connection, view, seen, "reply")
    asyncio.run(looker.look())
    return connection.subscribed


def test_hosts_are_looked_at_in_portions_by_what_they_told_of_themselves():
    seen = Picture()
    for number in range(20):
        used = {"used": {"machines": 98}}
        payload = as_bytes({"status": "online", "capacity": used})
        seen.take(told(f"h{number}", "status"), payload)
    first, *rest = looked(View(facts=False), seen)
    assert first == [told("+", "status")]
    assert [len(one) for one in rest] == [5, 5, 5, 5]
    assert rest[0][0] == told("h0", "machines", "+", "state")


def test_named_hosts_are_looked_at_whatever_they_told():
    view = View(("h1", "h2"), facts=True, machines=False, events=False)
    assert looked(view, Picture()) == [
        [told("h1", "status"), told("h2", "status")],
        [told("h1", "facts"), told("h2", "facts")],
    ]


def test_nothing_more_is_subscribed_to_than_is_looked_at():
    view = View(("h1",), facts=False, machines=False)
    assert looked(view, Picture()) == [[told("h1", "status")]]


# -- the floor ------------------------------------------------------------------------------------


def test_facts_that_are_none_are_told_with_their_host():
    with pytest.raises(InputError, match="is not a file of host facts") as caught:
        common_floor({"h1": {"name": "x"}})
    assert str(caught.value.place) == "the facts of h1"


# -- the command line -----------------------------------------------------------------------------


def test_changes_are_told_once_each():
    before = {("", ""): 1, ("h1", ""): 1, ("h1", "web"): 1}
    now = {("", ""): 1, ("h1", ""): 2, ("h1", "db"): 1}
    assert list(fleet_watch.changes(before, now)) == [
        ("h1", "", 1, 2),
        ("h1", "db", None, 1),
        ("h1", "web", 1, None),
    ]


@pytest.mark.parametrize("word", WORDS)
def test_every_verb_has_an_example_that_is_one(word):
    example = WORDS[word][2].split()
    assert example[:2] == ["fleet", word]
    options = parse("fleet", example[1:])
    module = __import__(f"launcher.cli.fleet_{WORDS[word][0]}", fromlist=["VERBS"])
    assert word in module.VERBS
    assert module.VIEWS[word](options) is not None


@pytest.fixture
def own_file(tmp_path, monkeypatch):
    path = tmp_path / "broker.yaml"
    monkeypatch.setenv("QEMU_LAUNCHER_BROKER_FILE", str(path))
    monkeypatch.delenv("QEMU_LAUNCHER_BROKER", raising=False)
    return path


def test_the_file_says_what_the_options_do_not(own_file):
    own_file.write_text("broker: mqtt://a\nusername: me\npassword-file: /p\n")
    options = parse("fleet", ["ls", "--username", "you"])
    broker_file.fill(options)
    assert (options.broker, options.username) == ("mqtt://a", "you")
    assert options.password_file == "/p"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("password: secret\n", "there is no 'password'"),
        ("brocker: x\n", "there is no 'brocker'"),
        ("broker: [a]\n", "must be a text"),
        ("broker:\n", "must be a text"),
    ],
)
def test_a_wrong_file_is_told_with_its_place(own_file, text, words):
    own_file.write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        broker_file.fill(parse("fleet", ["ls"]))
    assert caught.value.place.line == 1
    assert "secret" not in str(caught.value)


def test_a_file_that_was_named_must_be_there_and_the_usual_one_need_not(own_file, monkeypatch):
    with pytest.raises(InputError):
        broker_file.fill(parse("fleet", ["ls"]))
    monkeypatch.delenv("QEMU_LAUNCHER_BROKER_FILE")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(own_file.parent / "nowhere"))
    options = parse("fleet", ["ls"])
    broker_file.fill(options)
    assert options.broker == ""
