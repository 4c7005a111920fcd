"""What is shown of others' text cannot steer a terminal or forge a line."""

from __future__ import annotations

import pytest

from launcher.display import printable

pytestmark = pytest.mark.hermetic


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, ünïcode, 漢字", "plain, ünïcode, 漢字"),
        ("\x1b]0;pwn\a", "\\x1b]0;pwn\\x07"),
        ("a\nb\r\tc\x7f", "a\\nb\\r\\tc\\x7f"),
        ("c1 \x9b31m", "c1 \\x9b31m"),
        ("\u202egnp.exe\u2066\u200f", "\\u202egnp.exe\\u2066\\u200f"),
        ("line\u2028separator", "line\\u2028separator"),
        ("\udcff", "\\udcff"),
    ],
)
def test_nothing_that_steers_a_terminal_is_shown(text, shown):
    assert printable(text) == shown
    assert printable(text).isprintable()
