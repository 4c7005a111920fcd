"""Plan and resources to argv."""

from __future__ import annotations

import pytest

from launcher.command import (
    fill,
    option_at,
    render_argv,
    render_helper,
    render_key,
    render_standalone,
)
from launcher.files import parse_yaml
from launcher.plan import Descriptor
from tests.support.records import plan_of, profile_from

pytestmark = pytest.mark.hermetic

TEXT = """
platform: native
machine: microvm
accel: tcg
serial: [console, console]
chardevs: {log: {backend: file, path: "${runtime}/log"}}
objects: {s0: {qom-type: secret, data: hunter2}}
extra-args: ["-msg", "timestamp=on"]
"""
FDS = {"qmp": 3, "console": 4, "console1": 5, "secret-s0": 6}


def planned(text: str = TEXT, release: str = "10.0"):
    return plan_of(profile_from(parse_yaml(text, "f.yaml")), release)


def after(argv: list[str], option: str) -> list[str]:
    return [argv[n + 1] for n, word in enumerate(argv[:-1]) if word == option]


def test_descriptors_are_numbers():
    argv = render_argv(planned(), FDS, "/run/x")
    assert after(argv, "-chardev") == [
        "file,id=log,path=/run/x/log",
        "socket,id=console,fd=4",
        "socket,id=console1,fd=5",
        "socket,id=qmp,fd=3",
    ]
    assert after(argv, "-object") == ['{"qom-type":"secret","id":"s0","file":"/dev/fd/6"}']
    assert argv[-2:] == ["-qmp", "chardev:qmp"]
    assert after(argv, "-msg") == ["timestamp=on"]


def test_a_secret_is_nowhere_in_argv():
    plan = planned()
    assert "hunter2" not in " ".join(render_argv(plan, FDS, "/run/x"))
    assert "hunter2" not in repr(plan)
    assert [want.content for want in plan.wants if want.kind == "secret"] == ["hunter2"]


def test_listening_for_a_machine_that_outlives_us():
    argv = render_argv(planned(), FDS, "/run/x", listening=True)
    assert after(argv, "-chardev")[1:] == [
        "socket,id=console,fd=4,server=on,wait=off",
        "socket,id=console1,fd=5,server=on,wait=off",
        "socket,id=qmp,fd=3,server=on,wait=off",
    ]


def test_further_monitors_listen():
    argv = render_argv(planned(), {**FDS, "qmp-control": 9, "other": 10}, "/run/x")
    assert after(argv, "-qmp") == ["chardev:qmp", "chardev:qmp-control"]
    assert after(argv, "-chardev")[-1] == "socket,id=qmp-control,fd=9,server=on,wait=off"


def test_a_key_is_the_monitors_chardev_and_not_among_the_words():
    plan = planned()
    argv = render_argv(plan, {**FDS, "qmp-control": 9}, "/run/x", keyed=True)
    assert argv[-8:] == [
        *("-readconfig", "/dev/fd/0", "-qmp", "chardev:qmp"),
        *("-chardev", "socket,id=qmp-control,fd=9,server=on,wait=off"),
        *("-qmp", "chardev:qmp-control"),
    ]
    assert "socket,id=qmp,fd=3" not in argv
    assert render_key(plan.tool, FDS) == b'[chardev "qmp"]\n  backend = "socket"\n  fd = "3"\n'
    assert render_key("qemu-storage-daemon", FDS) == b""


def test_the_storage_daemon_has_its_own_words():
    plan = planned("platform: native\ntool: qemu-storage-daemon\n")
    assert render_argv(plan, {"qmp": 3}, "/run/x") == [
        plan.binary,
        *("--chardev", "socket,id=qmp,fd=3", "--monitor", "chardev=qmp"),
    ]


def test_a_command_line_for_a_reader():
    argv = render_standalone(planned(), "/run/x")
    assert "stdio,id=console,signal=off" in argv
    assert "null,id=console1" in argv
    assert "-qmp" not in argv
    assert after(argv, "-object") == ['{"qom-type":"secret","id":"s0","file":"/dev/fd/secret-s0"}']


def test_a_helper_beside_it_listens_for_a_reader_and_is_connected_in_a_launch():
    plan = planned("platform: native\nmachine: q35\naccel: tcg\ntpm: state\n")
    (helper,) = plan.helpers
    assert render_helper(helper, 3, "/run/x")[-3:] == [
        "--ctrl",
        "type=unixio,clientfd=3",
        "--tpm2",
    ]
    assert render_helper(helper, None, "/run/x")[-2] == "type=unixio,path=/run/x/tpm0"
    assert after(render_standalone(plan, "/run/x"), "-chardev") == [
        "socket,id=tpm0,path=/run/x/tpm0"
    ]
    # Connected as well where the machine outlives us: it is no socket of ours that listens.
    argv = render_argv(plan, {"qmp": 3, "tpm0": 4}, "/run/x", listening=True)
    assert after(argv, "-chardev")[0] == "socket,id=tpm0,fd=4"


def test_the_option_of_each_word():
    plan = planned()
    argv = render_argv(plan, FDS, "/run/x")
    for index in range(1, len(argv)):
        option = option_at(plan, index)
        if option is None:
            assert index >= argv.index("-msg")
        else:
            assert option.name in (argv[index], argv[index - 1])


def test_fill_reaches_every_depth():
    value = {"a": [Descriptor("x"), {"b": "${runtime}/s"}], "n": 1}
    assert fill(value, {"x": 7}, "/r") == {"a": ["7", {"b": "/r/s"}], "n": 1}
    assert fill(Descriptor("y"), {}, "/r") == "@y@"


def test_a_reader_gets_the_console_and_no_guest_agent():
    """In whichever order they come, the streams are the console's."""
    text = "platform: native\nmachine: q35\nguest-agent: on\n"
    assert after(render_standalone(planned(text), "/run/x"), "-chardev") == ["null,id=guest-agent"]
    both = after(render_standalone(planned(f"{text}serial: console\n"), "/run/x"), "-chardev")
    assert both == ["stdio,id=console,signal=off", "null,id=guest-agent"]
