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


@record
class Sample:
    values: tuple[int, ...]
    name: str = "n"
    own: int = 3


def test_the_hundredth_is_made_as_the_first():
    made = [Sample((number,), own=4) for number in range(100)] + [Sample((0,)), Sample((1,), "m")]
    assert [one.values for one in made] == [*((number,) for number in range(100)), (0,), (1,)]
    assert {(one.name, one.own) for one in made} == {("n", 4), ("n", 3), ("m", 3)}
    assert made[0] == made[-2].__class__((0,), "n", 4)
    for args, named in [((), {}), ((1, 2, 3, 4), {}), ((1,), {"values": 1}), ((1,), {"z": 1})]:
        with pytest.raises(TypeError):
            Sample(*args, **named)
    with pytest.raises(AttributeError, match="frozen"):
        made[50].name = "x"


def test_what_follows_a_default_needs_one():
    with pytest.raises(TypeError, match="needs a default"):

        @record
        class Wrong:
            a: int = 1
            b: int


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
