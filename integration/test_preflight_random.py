"""The preflight against QEMU for machines that nobody listed: random pairs of fixed seeds.

What is called broken must break, what breaks must have been called so, in QEMU's words where they
are known, and a cure that is named must cure. A seed makes the same pair each time:

    python -m integration.test_preflight_random 1234
"""

from __future__ import annotations

import pprint
import sys
import tempfile

import pytest

from integration.random_moves import DISAGREEMENTS, compare
from integration.random_pairs import Draw, draw
from integration.test_preflight import FULL

pytestmark = pytest.mark.integration

#: Pairs that are tried by one test, and how many tests there are.
EACH = 10
BLOCKS = 80 if FULL else 3


def told(pair: Draw, verdict: str, detail: str) -> str:
    """A disagreement for a reader, with what makes it again."""
    ends = f"{pair.source.release} to {pair.destination.release}"
    again = f"python -m integration.test_preflight_random {pair.seed}"
    changes = "; ".join(pair.changes) or "two ends that are alike"
    return f"seed {pair.seed}: {verdict}, {ends}, {changes}\n  {again}\n{detail}"


@pytest.mark.parametrize("block", range(BLOCKS))
def test_random_pairs(block):
    wrong, started = [], 0
    for seed in range(block * EACH, (block + 1) * EACH):
        with tempfile.TemporaryDirectory(prefix="ql-random-") as folder:
            pair = draw(seed, folder)
            verdict, detail, _ = compare(pair)
        started += verdict != "invalid"
        if verdict in DISAGREEMENTS:
            wrong.append(told(pair, verdict, detail))
    assert not wrong, "\n\n".join(wrong)
    assert started >= EACH - 3, "most of what is drawn should start"


def main(seeds: list[str]) -> None:
    """Try the pairs of these seeds again and say what there was."""
    for seed in map(int, seeds):
        with tempfile.TemporaryDirectory(prefix="ql-random-") as folder:
            pair = draw(seed, folder)
            for end in (pair.source, pair.destination):
                print(end.release, end.platform)
                pprint.pprint(end.profile, sort_dicts=False, width=120)
            print("the firmware runs" if pair.runs else "paused", pair.changes)
            verdict, detail, _ = compare(pair)
        print(f"{seed}: {verdict}\n{detail}")


if __name__ == "__main__":
    main(sys.argv[1:])
