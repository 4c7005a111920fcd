"""Small frozen value classes."""

from __future__ import annotations

import pytest

from launcher.record import as_dict, record, replace

pytestmark = pytest.mark.hermetic


@record
class Point:
    x: int
    y: int = 2


@record
class Named(Point):
    name: str = ""


@record
class Secret:
    text: str

    def __repr__(self) -> str:
        return "Secret(…)"


def test_fields_by_position_and_name():
    assert (Point(1).x, Point(1).y) == (1, 2)
    assert Point(1, 3) == Point(y=3, x=1)
    assert Named(1, 2, "n").name == "n"


@pytest.mark.parametrize(
    ("args", "named"), [((), {}), ((1, 2, 3), {}), ((1,), {"x": 1}), ((1,), {"z": 1})]
)
def test_wrong_calls_are_refused(args, named):
    with pytest.raises(TypeError):
        Point(*args, **named)


def test_nothing_can_be_assigned():
    with pytest.raises(AttributeError, match="frozen"):
        Point(1).x = 2


def test_equality_and_hash():
    assert Point(1) == Point(1, 2)
    assert Point(1) != Point(2)
    assert Point(1) != Named(1)
    assert Point(1) != (1, 2)
    assert hash(Point(1)) == hash(Point(1, 2))
    assert len({Point(1), Point(1), Point(2)}) == 2


def test_repr_and_one_of_its_own():
    assert repr(Point(1)) == "Point(x=1, y=2)"
    assert repr(Secret("hunter2")) == "Secret(…)"


def test_replace_and_as_dict():
    assert replace(Named(1, 2, "n"), x=5) == Named(5, 2, "n")
    assert as_dict(Named(1, 2, "n")) == {"x": 1, "y": 2, "name": "n"}
    with pytest.raises(TypeError):
        replace(Point(1), z=1)


def test_a_mutable_default_is_refused():
    with pytest.raises(TypeError, match="mutable default"):

        @record
        class Wrong:
            items: list = []


def test_patterns_match_by_position():
    match Point(1, 5):
        case Point(x, y):
            assert (x, y) == (1, 5)
