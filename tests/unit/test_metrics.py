"""What an agent counts for Prometheus, and where it serves that."""

from __future__ import annotations

import pytest

from launcher.agent import messages, metrics
from launcher.agent.scrape import parse_place
from launcher.errors import InputError


class NoMachines:
    """An agent's machines, of which there are none."""

    owned: dict[str, object] = {}
    reports: dict[str, object] = {}

    def used(self) -> dict[str, int]:
        return {"machines": 0, "cpus": 0, "memory": 0}


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("9105", ("127.0.0.1", 9105)),
        ("192.0.2.1:0", ("192.0.2.1", 0)),
        ("[::1]:9105", ("::1", 9105)),
        ("localhost:1", ("localhost", 1)),
    ],
)
def test_metrics_are_on_loopback_unless_an_address_is_given(text, place):
    assert parse_place(text) == place


@pytest.mark.parametrize("text", ["", "x", ":9105", "65536", "-1", "::1:9105", "1:", "²"])
def test_what_is_no_place_for_metrics_is_told(text):
    with pytest.raises(InputError, match="metrics"):
        parse_place(text)


def test_words_of_strangers_become_no_labels():
    figures = metrics.Figures()
    for number in range(1000):
        figures.refused(f'x"{number}', f"code-{number}")
    figures.answered("query", "done", 0.001)
    figures.answered("query", "done", 1e9)
    text = figures.text(NoMachines(), 0, 0)
    assert 'commands_total{verb="other",status="refused"} 1000' in text
    assert len(text.splitlines()) < 200
    assert 'command_seconds_bucket{verb="query",le="0.001"} 1' in text
    assert 'command_seconds_bucket{verb="query",le="60.0"} 1' in text
    assert 'command_seconds_bucket{verb="query",le="+Inf"} 2' in text


def test_the_status_of_an_answer_is_read_from_its_head():
    for status in (messages.DONE, messages.FAILED, messages.REFUSED):
        made = messages.answer("x" * 63, status, {"status": "other"})
        assert messages.status_of(made) == status
