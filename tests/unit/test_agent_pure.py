"""What an agent reads and lets through: topics, payloads, policy, and its journal."""

from __future__ import annotations

import json
import os

import pytest

from launcher.agent import messages
from launcher.agent.journal import Entry, Journal, Owned
from launcher.agent.links import Budget
from launcher.agent.moves.model import (
    ABORTED,
    COMMITTED,
    DESTINATION,
    KEPT,
    SENDING,
    SOURCE,
    WAITING,
    Move,
)
from launcher.agent.moves.post import peer_error
from launcher.agent.policy import (
    Policy,
    PolicyError,
    check_binary,
    check_request,
    parse_policy,
)
from launcher.agent.rules import judge_helper, judge_option
from launcher.bus import topics
from launcher.errors import HostError, InputError
from launcher.files import parse_yaml
from launcher.plan import Helper, Option
from launcher.record import replace


@pytest.mark.parametrize("text", ["a", "0", "a-b", "x" * 63])
def test_ids(text):
    assert topics.is_id(text)


@pytest.mark.parametrize("text", ["", "-a", "A", "a/b", "+", "#", "a.b", "x" * 64, "é", None, 1])
def test_no_ids(text):
    assert not topics.is_id(text)


def test_a_verb_is_read_of_the_own_hosts_topics_only():
    assert topics.verb_of("qemu-launcher/v1/hosts/h1/command/start", "h1") == "start"
    for topic in ("hosts/h2/command/start", "hosts/h1/command/a/b", "hosts/h1/start", "command"):
        assert topics.verb_of(f"qemu-launcher/v1/{topic}", "h1") is None


@pytest.mark.parametrize(
    ("topic", "may"),
    [
        ("qemu-launcher/v1/reply/c/s", True),
        ("qemu-launcher/v1/hosts/h2/command/stop", False),
        ("qemu-launcher/v1/reply/c", False),
        ("qemu-launcher/v1/reply/+/#", False),
        (None, False),
    ],
)
def test_answers_go_to_reply_topics_only(topic, may):
    assert topics.may_answer(topic) is may


def test_states_are_told_apart():
    assert topics.parse_state("qemu-launcher/v1/hosts/h/status") == ("h", "", "status")
    machine = topics.machine_topic("h", "web", "state")
    assert topics.parse_state(machine) == ("h", "web", "state")
    assert topics.parse_state("qemu-launcher/v1/reply/c/s") is None
    assert topics.parse_state("qemu-launcher/v1/hosts/h/a/b/c/d") is None


def test_a_command_is_read():
    payload = b'{"id": "1", "profile": "web", "settings": ["memory=1GiB"], "locked": true}'
    command = messages.read_command("start", payload)
    assert (command.id, command.verb, command.machine) == ("1", "start", "web")


@pytest.mark.parametrize(
    ("arguments", "machine"),
    [
        ({"machine": "a"}, "a"),
        ({"name": "b", "profile": "p"}, "b"),
        ({"profile": {"name": "c"}}, "c"),
        ({"profile": {}}, ""),
        ({}, ""),
    ],
)
def test_a_commands_machine(arguments, machine):
    assert messages.Command("1", "start", arguments).machine == machine


@pytest.mark.parametrize(
    ("verb", "payload", "code"),
    [
        ("start", b" " * 70000, "size"),
        ("start", b"[" * 40, "depth"),
        ("strat", b"{}", "verb"),
        ("zzzzz", b"{}", "verb"),
        ("start", b"{", "json"),
        ("start", b"[]", "json"),
        ("start", b"\xff", "json"),
        ("start", b'{"id": NaN}', "json"),
        ("start", b'{"id": "1", "id": "2"}', "json"),
        ("start", b'{"id": "\\u0000"}', "character"),
        ("start", b'{"id": "1", "profile": {"a": ["\\ud800"]}}', "character"),
        ("start", b'{"profile": "web"}', "id"),
        ("start", b'{"id": "1"}', "member"),
        ("start", b'{"id": "1", "profil": "web"}', "member"),
        ("start", b'{"id": "1", "profile": "../x"}', "member"),
        ("start", b'{"id": "1", "profile": "x", "settings": "a"}', "member"),
        ("start", b'{"id": "1", "profile": "x", "verify": "no"}', "member"),
        ("start", b'{"id": "1", "profile": "x", "locked": 1}', "member"),
        ("qmp", b'{"id": "1", "machine": "x", "command": 1}', "member"),
    ],
)
def test_what_is_no_command(verb, payload, code):
    with pytest.raises(InputError) as caught:
        messages.read_command(verb, payload)
    assert caught.value.code == code


def test_brackets_in_texts_are_no_depth():
    payload = json.dumps({"id": "1", "profile": "x", "platform": '["\\' * 100}).encode()
    assert messages.read_command("start", payload).arguments["profile"] == "x"


def test_an_id_is_found_where_the_rest_is_wrong():
    assert messages.id_of(b'{"id": "1", "x": 2}') == "1"
    assert messages.id_of(b'{"id": 1}') is None
    assert messages.id_of(b"{") is None


def test_an_answer_that_is_too_long_says_so():
    value = json.loads(messages.answer("1", messages.DONE, "x" * messages.MAX_ANSWER))
    assert (value["status"], value["result"], value["error"]["code"]) == ("done", None, "size")


def _policy(text: str) -> Policy:
    return parse_policy(parse_yaml(text, "policy.yaml"))


def test_a_policy_is_read():
    policy = _policy("images: [/srv]\nmemory: 1GiB\ncpus: 2\nsandbox: off\nqmp: [query-x]\n")
    assert (policy.images, policy.memory, policy.cpus) == (("/srv",), 1 << 30, 2)
    assert not policy.sandbox
    policy.check_qmp("query-x")
    policy.check_qmp("query-status")  # a list of commands adds to what is harmless
    with pytest.raises(PolicyError):
        policy.check_qmp("quit")


@pytest.mark.parametrize(
    "text", ["image: [a]", "zzz: 1", "images: a", "memory: x", "cpus: -1", "sandbox: maybe"]
)
def test_a_policy_with_mistakes(text):
    with pytest.raises(InputError):
        _policy(text)


@pytest.mark.parametrize(
    "arguments",
    [
        {"profile": {}},
        {"profile": "web", "platform": "/etc/x"},
        {"profile": "web", "settings": ["extends=/etc/x"]},
        {"profile": "web", "settings": ["platform=x.yaml"]},
        {"profile": "db"},
    ],
)
def test_requests_that_policy_refuses(arguments):
    with pytest.raises(PolicyError):
        check_request(Policy(profiles=("web*",)), arguments)


def test_requests_with_profiles_of_the_senders_own():
    policy = Policy(inline_profiles=True)
    check_request(policy, {"profile": {"name": "a", "platform": "debian-12"}})
    for profile in ({"name": "a", "extends": "x"}, {"name": "A"}, {"name": "a", "platform": [1]}):
        with pytest.raises(PolicyError):
            check_request(policy, {"profile": profile})


def test_binaries():
    policy = Policy(binaries=("/usr/bin", "/opt/q/qemu"))
    links = {"/usr/bin/evil": "/tmp/evil"}

    def resolve(path: str) -> str:
        return links.get(path, path)

    check_binary(policy, "/usr/bin/qemu-system-x86_64", resolve)
    check_binary(policy, "/opt/q/qemu", resolve)
    for binary in ("/usr/bin/evil", "/usr/bin/a/b", "/opt/q/other"):
        with pytest.raises(PolicyError):
            check_binary(policy, binary, resolve)


_POLICY = Policy(
    images=("/srv",),
    tpms=("/tpms",),
    image_formats=("raw", "qcow2"),
    netdevs=("user", "bridge", "tap"),
    bridges=("br1",),
    taps=("t0",),
)


def _reasons(name: str, head: str = "", form: str = "json", **members: object) -> list[str]:
    named = {key.replace("_", "-"): value for key, value in members.items()}
    option = Option(name, form, head, named, "")
    return list(judge_option(option, _POLICY, lambda path: path))


def _file(path: str) -> dict[str, object]:
    return {"driver": "file", "filename": path}


@pytest.mark.parametrize(
    ("name", "head", "form", "members"),
    [
        ("-blockdev", "", "json", {"driver": "raw", "file": _file("/srv/a")}),
        ("-blockdev", "", "json", {"driver": "qcow2", "backing": None, "file": _file("/srv/a")}),
        ("-blockdev", "", "json", {"driver": "null-co"}),
        ("-kernel", "/srv/vmlinuz", "word", {}),
        ("-netdev", "", "json", {"type": "user"}),
        ("-netdev", "", "json", {"type": "bridge", "br": "br1"}),
        ("-netdev", "tap", "keyval", {"ifname": "t0", "script": "no", "downscript": "no"}),
        ("-object", "", "json", {"qom_type": "rng-random", "filename": "/dev/urandom"}),
        ("-device", "", "json", {"driver": "virtio-net-pci"}),
        ("-chardev", "null", "keyval", {"id": "c"}),
        ("-machine", "q35", "keyval", {"kernel": "/srv/k"}),
        ("-global", "migration.x=on", "word", {}),
        ("-serial", "chardev:c", "word", {}),
        ("-display", "none", "word", {}),
        ("-tpmdev", "", "json", {"type": "emulator", "chardev": "tpm0"}),
        ("-tpmdev", "emulator", "keyval", {"chardev": "tpm0"}),
        ("-device", "", "json", {"driver": "tpm-crb"}),
    ],
)
def test_options_that_pass(name, head, form, members):
    assert _reasons(name, head, form, **members) == []


@pytest.mark.parametrize(
    ("name", "head", "form", "members"),
    [
        ("-blockdev", "", "json", {"driver": "raw", "file": _file("/etc/shadow")}),
        ("-blockdev", "", "json", {"driver": "raw", "file": _file("/srvx/a")}),
        ("-blockdev", "", "json", {"driver": "qcow2", "file": _file("/srv/a")}),
        ("-blockdev", "", "json", {"driver": "qcow2", "backing": None, "data_file": "x"}),
        ("-blockdev", "", "json", {"driver": "host_device", "filename": "/dev/sda"}),
        ("-blockdev", "", "json", {"driver": "nbd"}),
        ("-kernel", "/boot/vmlinuz", "word", {}),
        ("-netdev", "", "json", {"type": "user", "hostfwd": []}),
        ("-netdev", "", "json", {"type": "bridge", "br": "br0"}),
        ("-netdev", "tap", "keyval", {"ifname": "t0", "script": "/x", "downscript": "no"}),
        ("-netdev", "tap", "keyval", {"ifname": "t1", "script": "no", "downscript": "no"}),
        ("-netdev", "", "json", {"type": "stream"}),
        ("-object", "", "json", {"qom_type": "filter-dump"}),
        ("-object", "", "json", {"qom_type": "secret", "file": "/etc/shadow"}),
        ("-device", "", "json", {"driver": "vfio-pci"}),
        ("-device", "", "json", {"driver": "virtio-net-pci", "romfile": "/etc/shadow"}),
        ("-chardev", "file", "keyval", {"path": "/tmp/x"}),
        ("-machine", "virt", "keyval", {"dumpdtb": "/tmp/x"}),
        ("-machine", "virt", "keyval", {"initrd": "/etc/shadow"}),
        ("-global", "virtio-net-pci.romfile=/etc/shadow", "word", {}),
        ("-serial", "file:/tmp/x", "word", {}),
        ("-display", "vnc=:0", "word", {}),
        ("-boot", "", "keyval", {"splash": "/etc/shadow"}),
        ("-fsdev", "local", "keyval", {}),
        ("-tpmdev", "passthrough", "keyval", {"path": "/dev/tpm0"}),
    ],
)
def test_options_that_do_not_pass(name, head, form, members):
    assert _reasons(name, head, form, **members)


@pytest.mark.parametrize(
    ("folder", "allowed"),
    [
        ("/tpms/web", True),
        ("${runtime}/tpm", True),
        ("/tpms", False),
        ("/tpmsx/web", False),
        ("/tpms/../etc", False),
        ("${runtime}/../other/tpm", False),
        ("${runtime}", False),
        ("${runtime}x/tpm", False),
    ],
)
def test_where_the_state_of_a_tpm_may_be(folder, allowed):
    helper = Helper("tpm0", "swtpm", (), "", "", folder, "tpm")
    assert (list(judge_helper(helper, _POLICY, os.path.normpath)) == []) is allowed


def test_the_journal_remembers(tmp_path):
    path = str(tmp_path / "state" / "journal.sqlite")
    journal = Journal(path)
    command = messages.Command("1", "start", {"profile": "web"})
    journal.accept(Entry(command, "r", b"c", 5.0))
    journal.begin("1")
    machine = Owned("web", "u", "d", "running", "starting", 1.0, 2, 3)
    journal.keep(machine)
    with pytest.raises(HostError, match="cannot be had"):
        Journal(path)
    journal.close()
    journal = Journal(path)
    assert journal.unfinished() == [Entry(command, "r", b"c", 5.0, begun=True)]
    assert journal.machines() == {"web": machine}
    journal.finish("1", b"out")
    assert journal.unfinished() == []
    assert [entry.outcome for entry in journal.untold()] == [b"out"]
    journal.told("1")
    assert journal.untold() == []
    assert journal.find("1") is not None
    assert journal.find("2") is None
    journal.forget("web")
    assert journal.machines() == {}
    journal.close()


# -- migrations between hosts ---------------------------------------------------------------------


def test_a_peers_words_are_read_of_the_own_hosts_topics_only():
    base = "qemu-launcher/v1/hosts/h1/peer"
    assert topics.parse_peer(f"{base}/h2/commit", "h1") == ("h2", "commit")
    for topic in (f"{base}/h2", f"{base}/h2/a/b", f"{base}//x", f"{base}/H/x", f"{base}/+/#"):
        assert topics.parse_peer(topic, "h1") is None
    assert topics.parse_peer(f"{base}/h2/commit", "h2") is None
    assert topics.parse_peer("qemu-launcher/v1/hosts/h1/command/start", "h1") is None


def test_a_move_is_found_by_its_own_id_and_not_by_the_guest(tmp_path):
    """A guest may come back with the UUID with which it went."""
    journal = Journal(str(tmp_path / "journal"))
    try:
        first = Move("m1", SOURCE, "web", "u", "h2", SENDING)
        back = Move("m1", DESTINATION, "web", "u", "h2", WAITING)
        journal.keep_move(first)
        journal.keep_move(back)
        journal.keep_move(replace(first, phase=KEPT, result={"a": 1}))
        assert journal.find_move(SOURCE, "h2", "m1") == replace(first, phase=KEPT, result={"a": 1})
        assert journal.find_move(DESTINATION, "h2", "m1") == back
        assert journal.find_move(DESTINATION, "h3", "m1") is None
        journal.keep_move(replace(back, id="m2", phase=COMMITTED))
        assert [m.id for m in journal.moves(DESTINATION)] == ["m1", "m2"]
        assert [m.phase for m in journal.moves(SOURCE)] == [KEPT]
        journal.keep_move(Move("m3", DESTINATION, "", "", "h9", ABORTED))
    finally:
        journal.close()


def test_what_is_kept_of_a_machine_goes_with_it(tmp_path):
    journal = Journal(str(tmp_path / "journal"))
    try:
        owned = Owned("web", "u", "d", "running", "running", 1.0, 1, 1, request={"profile": "web"})
        journal.keep(owned)
        journal.keep_paper("web", "snapshot", "b", {"tag": "b"})
        journal.keep_paper("web", "snapshot", "a", {"tag": "a"})
        journal.keep_paper("other", "lock", "", {"x": [1]})
        assert journal.paper_keys("web", "snapshot") == ["a", "b"]
        assert journal.paper("web", "snapshot", "b") == {"tag": "b"}
        assert journal.machines() == {"web": owned}
        journal.forget("web")
        assert journal.paper_keys("web", "snapshot") == []
        assert journal.paper("web", "snapshot", "b") is None
        assert journal.paper("other", "lock") == {"x": [1]}
    finally:
        journal.close()


def test_a_budget_lets_a_burst_through_and_then_so_many_a_second():
    now = [0.0]
    budget = Budget(3.0, 2.0, lambda: now[0])
    assert [budget.admits() for _ in range(5)] == [True, True, True, False, False]
    assert budget.dropped == 2
    now[0] = 0.6
    assert [budget.admits(), budget.admits()] == [True, False]
    now[0] = 1000.0
    assert [budget.admits() for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize("told", [None, [], {"message": 1}, {}])
def test_an_error_of_another_host_that_says_nothing(told):
    error = peer_error("h2", told)
    assert error.message == "h2: no reason was given"
    assert error.code == "peer"


def test_an_error_of_another_host_keeps_its_words():
    error = peer_error("h2", {"message": "no room", "hint": "stop one", "code": "room"})
    assert (error.message, error.hint, error.code) == ("h2: no room", "stop one", "room")


@pytest.mark.parametrize(("seconds", "good"), [(0, True), (2.5, True), (60, True), (61, False)])
def test_numbers_have_bounds(seconds, good):
    payload = json.dumps({"id": "1", "machine": "web", "seconds": seconds}).encode()
    if good:
        assert messages.read_command("console", payload).arguments["seconds"] == seconds
    else:
        with pytest.raises(InputError, match="wrong form"):
            messages.read_command("console", payload)
    with pytest.raises(InputError, match="wrong form"):
        messages.read_command("console", b'{"id": "1", "machine": "web", "seconds": true}')


def test_the_keys_of_a_policy_about_migrations():
    tree = parse_yaml(
        "migration-address: 192.0.2.1\nmigration-tls: /etc/tls\nmigration-plaintext: on\n"
        "migrate-from: [a, 'b-*']\ncommands-per-second: 5\n",
        "p.yaml",
    )
    policy = parse_policy(tree)
    assert (policy.migration_address, policy.migration_tls) == ("192.0.2.1", "/etc/tls")
    assert (policy.migration_plaintext, policy.migrate_from) == (True, ("a", "b-*"))
    assert policy.commands_per_second == 5
    with pytest.raises(InputError, match="a text"):
        parse_policy(parse_yaml("migration-tls: ''\n", "p.yaml"))
    assert Policy().migrate_from == ("*",)
