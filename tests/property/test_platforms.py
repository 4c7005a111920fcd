"""Resolution over generated chains of changes, and the reader over trees of every shape."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.errors import InputError, InputErrors, Place
from launcher.nodes import Mapping, from_python
from launcher.platforms import (
    FAMILIES,
    Catalogue,
    Range,
    build_catalogue,
    find_platform,
    parse_version,
    platform_from_file,
    resolve,
    spell,
)

pytestmark = pytest.mark.property

RELEASES = [f"{major}.{minor}" for major in range(5, 12) for minor in range(3)]
KEYS = [("object", "iothread"), ("object", "rng-random"), ("netdev", "tap"), ("chardev", "vc")]
OBSERVERS = {f: {"*": {"*": [{"unobservable": "not read in these tests"}]}} for f in FAMILIES}


@st.composite
def histories(draw: st.DrawFn) -> dict[tuple[str, str, str], dict[str, tuple[Any, Any]]]:
    """Property → release → (was, now), chained as the data must be."""
    found = {}
    for family, type_ in KEYS:
        for name in draw(st.lists(st.sampled_from("abcd"), max_size=3, unique=True)):
            releases = draw(
                st.lists(st.sampled_from(RELEASES), min_size=1, max_size=5, unique=True)
            )
            steps: dict[str, tuple[Any, Any]] = {}
            value = draw(st.none() | st.sampled_from(["0", "1"]))
            for release in sorted(releases, key=lambda r: parse_version(r).numbers):
                options = [v for v in (None, "0", "1", "2") if v != value]
                following = draw(st.sampled_from(options))
                steps[release] = (value, following)
                value = following
            found[family, type_, name] = steps
    return found


def files_of(histories: dict[tuple[str, str, str], dict[str, tuple[Any, Any]]]) -> dict[str, Any]:
    files: dict[str, Any] = {f"qemu/{RELEASES[0]}.yaml": {}}
    for (family, type_, name), steps in histories.items():
        for release, (was, now) in steps.items():
            row = {"was": was, "now": now, "affects": "guest", "why": "w.", "ref": "r"}
            types = files.setdefault(f"qemu/{release}.yaml", {}).setdefault(family, {})
            types.setdefault(type_, {})[name] = row
    files["names.yaml"] = {"ours": {"qemu": RELEASES[-1], "linux": "6.1", "ref": "r"}}
    files["observers.yaml"] = OBSERVERS
    files["syntax.yaml"] = {}
    files["hazards.yaml"] = {"hazards": []}
    return files


def built(files: dict[str, Any]) -> Catalogue:
    trees = {}
    for name, value in files.items():
        tree = from_python(value, Place(name))
        assert isinstance(tree, Mapping)
        trees[name] = tree
    return build_catalogue(trees)


def values(catalogue: Catalogue, release: str) -> dict[tuple[str, str, str], str]:
    pins = resolve(catalogue, find_platform(catalogue, f"qemu-{release}"))
    return {key: pin.value for key, pin in pins.items()}


@given(histories())
@settings(deadline=None, max_examples=25)
def test_each_release_changes_exactly_what_its_file_says(histories: Any) -> None:
    catalogue = built(files_of(histories))
    for older, newer in pairwise(RELEASES):
        before, after = values(catalogue, older), values(catalogue, newer)
        changed = {
            key: (before.get(key), after.get(key))
            for key in before.keys() | after.keys()
            if before.get(key) != after.get(key)
        }
        said = {key: steps[newer] for key, steps in histories.items() if newer in steps}
        assert changed == said


@given(histories(), st.randoms())
@settings(deadline=None, max_examples=25)
def test_the_order_in_which_files_are_read_does_not_matter(histories: Any, random: Any) -> None:
    files = files_of(histories)
    names = list(files)
    random.shuffle(names)
    shuffled = {name: files[name] for name in names}
    one, other = built(files), built(shuffled)
    for release in RELEASES:
        assert values(one, release) == values(other, release)


@given(histories(), st.sampled_from(RELEASES))
@settings(deadline=None, max_examples=25)
def test_below_a_release_its_later_changes_cannot_be_seen(histories: Any, floor: str) -> None:
    """Cutting the history off above a floor changes nothing but what would have been pinned to
    the value before a first change.
    """
    limit = parse_version(floor).series
    cut = {
        key: {r: step for r, step in steps.items() if parse_version(r).series <= limit}
        for key, steps in histories.items()
    }
    whole = values(built(files_of(histories)), floor)
    early = values(built(files_of(cut)), floor)
    assert {k: v for k, v in whole.items() if cut[k]} == early


@given(histories(), st.sampled_from(RELEASES), st.sampled_from(RELEASES), st.integers(1, 64))
@settings(deadline=None, max_examples=25)
def test_every_pin_can_be_spelled_for_every_binary(
    histories: Any, floor: str, binary: str, smp: int
) -> None:
    catalogue = built(files_of(histories))
    for pin in resolve(catalogue, find_platform(catalogue, f"qemu-{floor}")).values():
        spelled = spell(pin, parse_version(binary), smp)
        assert getattr(spelled, "value", None) == pin.value, "no range is given: all know it"


@given(histories())
@settings(deadline=None, max_examples=25)
def test_a_broken_chain_is_refused(histories: Any) -> None:
    long = [(key, steps) for key, steps in histories.items() if len(steps) > 1]
    if not long:
        return
    key, steps = long[0]
    first = min(steps, key=lambda r: parse_version(r).numbers)
    broken = {**histories, key: {**steps, first: (steps[first][0], "another")}}
    with pytest.raises(InputErrors):
        built(files_of(broken))


numbers = st.lists(st.integers(0, 60), min_size=2, max_size=4)


@given(numbers, numbers)
def test_versions_order_as_their_numbers_do(one: list[int], other: list[int]) -> None:
    left, right = (parse_version(".".join(map(str, n))) for n in (one, other))
    assert (left < right) == (left.numbers < right.numbers)
    assert (left <= right) == (left.numbers <= right.numbers)
    assert Range(left, left).contains(left)


@given(st.text(max_size=20))
def test_any_text_is_a_platform_or_an_input_error(text: str) -> None:
    catalogue = built(files_of({}))
    try:
        platform = find_platform(catalogue, text)
    except InputError:
        return
    assert platform.name == text


WORDS = "object iothread now was qemu from renamed added removed translate when migration * read"
words = st.sampled_from([*WORDS.split(), "hazards", "command-line", "7.2", "x y", "", "value"])
trees = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=4),
    max_leaves=12,
)


def told(error: InputErrors) -> None:
    assert error.mistakes
    assert all(m.message and m.place for m in error.mistakes)


@given(
    st.sampled_from(["qemu/7.2.yaml", "linux/6.2.yaml", "names.yaml", "observers.yaml"])
    | st.sampled_from(["syntax.yaml", "hazards.yaml", "qemu/x.yaml", "other.yaml"]),
    st.dictionaries(words, trees, max_size=4),
)
@settings(deadline=None, max_examples=25)
def test_a_data_file_of_any_shape_is_read_or_refused_in_words(name: str, tree: Any) -> None:
    files = files_of({})
    files[name] = tree
    try:
        built(files)
    except InputErrors as error:
        told(error)


@given(st.dictionaries(words | st.sampled_from(["name", "extends", "linux"]), trees, max_size=5))
@settings(deadline=None, max_examples=25)
def test_a_site_file_of_any_shape_is_read_or_refused_in_words(tree: Any) -> None:
    catalogue = built(files_of({}))
    node = from_python(tree, Place("site.yaml"))
    assert isinstance(node, Mapping)
    try:
        platform = platform_from_file(catalogue, node)
    except InputErrors as error:
        told(error)
    else:
        resolve(catalogue, platform)
