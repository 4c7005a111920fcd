"""The tree of errors: exit status, places, JSON."""

from __future__ import annotations

import pytest

from launcher.errors import (
    CommandError,
    HostError,
    InputError,
    InputErrors,
    LauncherError,
    LaunchError,
    MonitorError,
    Place,
    QEMUError,
    VerdictError,
)

pytestmark = pytest.mark.hermetic


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        (LauncherError, 1, "error"),
        (VerdictError, 1, "mismatch"),
        (InputError, 2, "input"),
        (QEMUError, 3, "qemu"),
        (LaunchError, 3, "launch"),
        (MonitorError, 3, "monitor"),
        (CommandError, 3, "command"),
        (HostError, 4, "host"),
    ],
)
def test_exit_status_and_code(kind, status, code):
    error = kind("words")
    assert (error.exit_status, error.code) == (status, code)
    assert isinstance(error, LauncherError)
    assert str(error) == "words"


def test_code_can_be_narrowed():
    assert HostError("words", code="accel").code == "accel"
    assert HostError.code == "host"


def test_place_as_text():
    assert str(Place("web.yaml", 3, 7)) == "web.yaml:3:7"
    assert str(Place("web.yaml")) == "web.yaml"


def test_json_of_an_error_with_everything():
    error = LaunchError(
        "did not start",
        place=Place("web.yaml", 3, 7),
        hint="look",
        evidence={"qemu_stderr": ["qemu: bad"]},
    )
    assert error.as_json() == {
        "code": "launch",
        "message": "did not start",
        "file": "web.yaml",
        "line": 3,
        "column": 7,
        "hint": "look",
        "qemu_stderr": ["qemu: bad"],
    }


def test_json_of_a_bare_error():
    assert set(InputError("words").as_json().values()) == {"input", "words", None}
    bare = InputError("words", place=Place("web.yaml")).as_json()
    assert (bare["file"], bare["line"], bare["column"]) == ("web.yaml", None, None)


def test_verdict_keeps_its_report():
    error = VerdictError("off", report=[1], hint="h")
    assert (error.report, error.hint) == ([1], "h")


def test_one_mistake_speaks_for_itself():
    only = InputError("words", place=Place("a", 1, 1), hint="h", code="c")
    error = InputErrors([only])
    assert (error.message, error.hint, error.code, error.place) == ("words", "h", "c", only.place)


def test_mistakes_stand_in_file_order():
    late = InputError("late", place=Place("a", 9, 1))
    early = InputError("early", place=Place("a", 2, 4))
    nowhere = InputError("nowhere")
    error = InputErrors([late, nowhere, early])
    assert [m.message for m in error.mistakes] == ["nowhere", "early", "late"]
    assert error.message == "3 mistakes"
    assert [m["message"] for m in error.as_json()["mistakes"]] == ["nowhere", "early", "late"]


def test_a_traceback_shows_every_mistake_and_where_it_is():
    one = InputError("one", place=Place("a.yaml", 2, 3))
    assert str(InputErrors([one])) == "a.yaml:2:3: one"
    assert str(InputErrors([InputError("none"), one])) == "2 mistakes:\n  none\n  a.yaml:2:3: one"
