"""What is kept as bytes comes back as it was, or not at all."""

from __future__ import annotations

from marshal import dumps

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.errors import Place
from launcher.flat import flatten, restore
from launcher.nodes import Mapping, Scalar
from launcher.plan import Descriptor, HostFacts, Origin

pytestmark = pytest.mark.hermetic

PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
RECORDS = st.builds(Place, st.text(), st.integers()) | st.builds(Origin, st.text(), st.text())
VALUES = st.recursive(
    PLAIN | RECORDS,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text(), inner)
        | st.builds(Descriptor, inner)
    ),
)


@pytest.mark.property
@given(VALUES)
def test_it_comes_back_as_it_was(value):
    found = restore(flatten(value))
    assert found == value
    assert repr(found) == repr(value)  # 1 and True are equal, too


def test_what_stands_in_several_places_is_kept_once():
    place = Place("web.yaml", 3, 4)
    tree = Mapping({"a": Scalar("1", place), "b": Scalar("2", place)}, place, {"a": place})
    found = restore(flatten(tree))
    assert found == tree
    assert found.items["a"].place is found.items["b"].place is found.keys["a"]


@pytest.mark.parametrize("value", [object(), {1, 2}, [b"", {"a": iter(())}]])
def test_what_cannot_be_kept_is_refused(value):
    with pytest.raises(ValueError, match="cannot be kept"):
        flatten(value)


def test_none_for_no_bytes():
    assert restore(None) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"garbage",
        flatten(HostFacts("6.1", "x86_64", (None, ""), {}))[:-3],
        dumps(1),
        dumps(([], (0, "file", 1, 2))),
        dumps(([("launcher.errors", "Place", ("file", "row"))], (0, "web.yaml", 1))),
        dumps(([("launcher.errors", "Position", ("file",))], (0, "web.yaml"))),
        dumps(([("launcher.no_such_room", "Place", ("file",))], (0, "web.yaml"))),
    ],
)
def test_other_bytes_and_other_records_are_nothing(data):
    assert restore(data) is None
