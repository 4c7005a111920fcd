"""The guest's own proof: its counter on the console goes on, with no gap and no repeat. Pure."""

from __future__ import annotations

import re
from itertools import pairwise

from launcher.record import record

#: What the guest of scripts/guest prints when its kernel command line has `tick`.
TICK = r"tick (\d+)"


@record
class Counter:
    """What a guest's counter shows across a migration.

    Attributes:
        verdict: `continues`; `broken` (a number is missing, repeated, or out of order); `stopped`
            (none came at the destination); `absent` (none came at the source, so nothing is
            proved).
        first, last: the first number that was seen and the last.
        moved: the first number whose line ended at the destination.
        faults: what is wrong, `12 is followed by 14`.
    """

    verdict: str
    first: int | None = None
    moved: int | None = None
    last: int | None = None
    faults: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.verdict == "absent":
            return "the guest's console showed no counter: that it went on is not proved"
        span = f"the guest's counter went from {self.first} to {self.last}"
        if self.verdict == "stopped":
            return f"{span} and stopped there: the guest does not run at the destination"
        if self.verdict == "broken":
            return f"{span} and broke: {'; '.join(self.faults)}"
        return f"{span} without a gap or a repeat; {self.moved} was the first at the destination"


def pattern_of(counter: str) -> re.Pattern[str]:
    """The counter's regular expression on a whole line: half a number is another number.

    Raises:
        re.error: it is not one.
        ValueError: it does not have exactly one group, which is the number.
    """
    compiled = re.compile(f"(?:{counter})[ \t]*\r?\n")
    if compiled.groups != 1:
        raise ValueError(f"{counter!r} must have one group, around the number")
    return compiled


def follow(before: str, after: str, counter: str = TICK) -> Counter:
    """Follow a guest's counter from the source's console to the destination's.

    Args:
        before: what the source's console showed.
        after: what the destination's did. A line may begin in one and end in the other.
        counter: a regular expression with the number as its group.
    """
    numbers: list[int] = []
    moved: int | None = None
    for match in pattern_of(counter).finditer(before + after):
        number = int(match.group(1))
        if moved is None and match.end() > len(before):
            moved = number
            if not numbers:
                # What came only there may have been counted from anything.
                return Counter("absent")
        numbers.append(number)
    if not numbers:
        return Counter("absent")
    faults = tuple(
        f"{one} is followed by {two}" for one, two in pairwise(numbers) if two != one + 1
    )
    verdict = "broken" if faults else "stopped" if moved is None else "continues"
    return Counter(verdict, numbers[0], moved, numbers[-1], faults)
