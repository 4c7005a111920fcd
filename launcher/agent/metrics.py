"""What an agent counts, in the text form that Prometheus reads (exposition format 0.0.4). Pure.

By hand: the client library takes longer to import (60 ms) than asyncio does, brings a server of
threads, and keeps its figures in a registry of the process, where two agents of one test would
meet. The tests read this with that library's parser.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter

from launcher.agent.messages import VERBS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from launcher.agent.machines import Machines

#: Upper ends of the histogram's buckets, in seconds.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
#: What stands for words that a stranger made up: a label has as many values as this file knows.
_OTHER = "other"
_CODES = 100


class Figures:
    """Counters of one agent since it was started."""

    def __init__(self) -> None:
        self.connected = False
        self._answers: Counter[tuple[str, str]] = Counter()
        self._refusals: Counter[str] = Counter()
        self._seconds: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}

    def refused(self, verb: str, code: str) -> None:
        """A command was refused, with the code of its error."""
        if code not in self._refusals and len(self._refusals) >= _CODES:
            code = _OTHER
        self._refusals[code] += 1
        self._answers[_known(verb), "refused"] += 1

    def answered(self, verb: str, status: str, seconds: float) -> None:
        """A command that was accepted has its final answer, so many seconds after that."""
        self._answers[_known(verb), status] += 1
        counts = self._seconds.setdefault(_known(verb), [0] * (len(BUCKETS) + 1))
        counts[bisect_left(BUCKETS, seconds)] += 1
        self._sums[_known(verb)] = self._sums.get(_known(verb), 0.0) + seconds

    def text(self, machines: Machines, waiting: int, dropped: int) -> str:
        """All figures.

        Args:
            machines: of the agent; what is known of them is not asked for again.
            waiting: commands that were accepted and have no outcome yet.
            dropped: events that were never sent.
        """
        states = Counter(dict.fromkeys(("running", "paused", "starting"), 0))
        states.update(
            "starting" if one.phase == "starting" else one.wanted for one in machines.owned.values()
        )
        verdicts = Counter(dict.fromkeys(("match", "mismatch"), 0))
        verdicts.update(report.verdict for report in machines.reports.values())
        used = machines.used()
        lines = [
            *_family("machines", "gauge", "Machines of this agent.", _by("state", states)),
            *_family("machine_reports", "gauge", "Their last reports.", _by("verdict", verdicts)),
            *_family("cpus_used", "gauge", "vCPUs given to them.", {"": used["cpus"]}),
            *_family("memory_used_bytes", "gauge", "RAM given to them.", {"": used["memory"]}),
            *_family("connected", "gauge", "Whether the broker is there.", {"": self.connected}),
            *_family("commands_waiting", "gauge", "Accepted, not answered.", {"": waiting}),
            *_family("events_dropped_total", "counter", "Never sent.", {"": dropped}),
            *_family(
                "commands_total",
                "counter",
                "Final answers.",
                {_labels(verb=v, status=s): n for (v, s), n in sorted(self._answers.items())},
            ),
            *_family(
                "refused_total",
                "counter",
                "Refused by the code of the error.",
                _by("code", self._refusals),
            ),
            *self._histogram(),
        ]
        return "\n".join(lines) + "\n"

    def _histogram(self) -> Iterable[str]:
        name = "qemu_launcher_command_seconds"
        yield f"# HELP {name} From accepted to the final answer."
        yield f"# TYPE {name} histogram"
        for verb, counts in sorted(self._seconds.items()):
            total = 0
            for end, count in zip((*map(str, BUCKETS), "+Inf"), counts, strict=True):
                total += count
                yield f"{name}_bucket{_labels(verb=verb, le=end)} {total}"
            yield f"{name}_sum{_labels(verb=verb)} {self._sums[verb]:.6f}"
            yield f"{name}_count{_labels(verb=verb)} {total}"


def _known(verb: str) -> str:
    return verb if verb in VERBS else _OTHER


def _by(label: str, counts: Mapping[str, int]) -> dict[str, int]:
    return {_labels(**{label: value}): count for value, count in sorted(counts.items())}


def _labels(**labels: str) -> str:
    """Labels in braces; each value is a word of ours, without a quote or a line's end."""
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}"


def _family(name: str, kind: str, words: str, samples: Mapping[str, int]) -> Iterable[str]:
    name = f"qemu_launcher_{name}"
    yield f"# HELP {name} {words}"
    yield f"# TYPE {name} {kind}"
    for labels, value in samples.items():
        yield f"{name}{labels} {int(value)}"
