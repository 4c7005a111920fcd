"""The page of the matrix in a real Chromium: filters, counts, keyboard, addresses, no network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from urllib.parse import unquote

import pytest

from integration import chromium
from integration.conftest import needs
from launcher.cache import cache_folder
from launcher.drift.page import page as html_of

pytestmark = pytest.mark.integration

HOSTILE = "</script><img src=x onerror=\"document.title='owned'\">\u202e\x1b[31m/?#&\ud800"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    path = os.path.join(cache_folder(), "browser", "chromium")
    program = os.environ.get("QEMU_LAUNCHER_BROWSER") or path
    needs(os.path.exists(program), "Chromium is not there; scripts/browser brings it")
    with chromium.start(program, str(tmp_path_factory.mktemp("chromium"))) as one:
        yield one


def drift(*words: str) -> str:
    command = [sys.executable, "-m", "launcher", "drift", *words, "--format", "html"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> str:
    """The address of the page of all recorded releases."""
    path = tmp_path_factory.mktemp("page") / "releases.html"
    path.write_text(drift(), encoding="utf-8")
    return f"file://{path}"


@pytest.fixture
def shown(browser, written):
    """Opens the page at a fragment; what it did is looked at in the end."""
    opened = []

    def show(fragment: str = "", **how) -> chromium.Page:
        opened.append(browser.open(written + fragment, **how))
        return opened[-1]

    yield show
    for one in opened:
        assert one.of("Runtime.exceptionThrown") == []
        assert one.of("Runtime.consoleAPICalled") == []
        assert one.of("Log.entryAdded") == []
        asked = [r["request"]["url"] for r in one.of("Network.requestWillBeSent")]
        assert [url for url in asked if not url.startswith(("file://", "data:"))] == []


def status(page: chromium.Page) -> tuple[int, int, int]:
    """Rows that fit, rows that there are, changes in those that fit: as the page says."""
    said = page.ask("document.getElementById('status').textContent").replace("\u202f", "")
    return tuple(int(n) for n in re.findall(r"\d+", said))  # type: ignore[return-value]


def option(page: chromium.Page, group: str, word: str) -> int:
    """The number beside an option."""
    selector = f"#by-{group} button[value={word}] span:last-child"
    text = page.ask(f"document.querySelector('{selector}').textContent")
    return int(text.replace("\u202f", ""))


def pick(page: chromium.Page, group: str, word: str) -> None:
    page.click(f"#by-{group} button[value={word}]")


DATA = "JSON.parse(document.getElementById('data').textContent)"
CHOSEN = "document.querySelector('tr[aria-selected=true] th')?.title"
ADDRESS = "new Promise((done) => setTimeout(() => done(location.hash), 350))"


def counted(page: chromium.Page, fits: str) -> tuple[int, int]:
    """(rows, changes) for which `fits(row, step, words, causes)` holds, counted apart."""
    return tuple(  # type: ignore[return-value]
        page.ask(
            f"(() => {{ const d = {DATA}, fits = {fits}; let rows = 0, changes = 0;"
            "for (const r of d.rows) { const s = (r[5] || []).filter((s) => s && fits(r, s, d));"
            "if (s.length) rows++; changes += s.length; } return [rows, changes]; })()"
        )
    )


def test_it_opens_on_all_recorded_releases(shown):
    page = shown()
    heads = page.ask("[...document.querySelectorAll('#head th')].map((h) => h.innerText)")
    assert [h.split()[0] for h in heads[3:]] == ["5.2", "7.2", "10.0", "11.1"]
    rows, all_rows, changes = status(page)
    assert rows == all_rows > 5000
    data = page.ask(DATA)
    assert changes == sum(c[k] for c in data["counts"] for k in ("changed", "appeared", "gone"))
    # Only what is in sight is drawn, however long the table is.
    assert 20 < page.ask("document.querySelectorAll('#rows tr[id]').length") < 60


@pytest.mark.parametrize(
    ("group", "word", "fits"),
    [
        ("change", "changed", "(r, s) => s[0] === 0"),
        ("change", "appeared", "(r, s) => s[0] === 1"),
        ("change", "gone", "(r, s) => s[0] === 2"),
        ("cover", "covered", "(r, s) => s[1] === 1"),
        ("cover", "waived", "(r, s) => s[1] === 2"),
        (*("affects", "migration"), "(r, s, d) => d.causes[s[2]]?.affects === 'migration'"),
    ],
)
def test_an_option_shows_as_many_rows_as_it_says(shown, group, word, fits):
    page = shown()
    announced = option(page, group, word)
    pick(page, group, word)
    rows, _, changes = status(page)
    assert (rows, changes) == counted(page, fits)
    assert rows == announced > 0
    pick(page, group, word)
    assert status(page)[0] == status(page)[1]


def test_filters_narrow_each_other(shown):
    page = shown()
    pick(page, "family", "object")
    pick(page, "change", "changed")
    pick(page, "cover", "covered")
    fits = "(r, s, d) => d.words[r[0]] === 'object' && s[0] === 0 && s[1] === 1"
    rows, _, changes = status(page)
    assert (rows, changes) == counted(page, fits)
    assert 0 < rows < option(page, "cover", "covered") + 1
    page.click("#reset")
    assert status(page)[0] == status(page)[1]
    pick(page, "change", "same")
    rows, all_rows, changes = status(page)
    assert (rows, changes) == (all_rows - counted(page, "() => true")[0], 0)


def test_searching_and_walking_with_the_keyboard_alone(shown):
    page = shown()
    page.press("/")
    page.type("iothread poll-shrink")
    rows = status(page)[0]
    assert 0 < rows < 10
    page.press("ArrowDown", "ArrowDown")  # into the table, onto its first row
    assert page.ask(CHOSEN) == "object iothread poll-shrink: value"
    assert page.ask("document.getElementById('detail').hidden")
    page.press("Enter")
    detail = page.ask("document.getElementById('detail').innerText")
    assert "qemu/11.1.yaml:" in detail
    assert "QEMU commit 9fea80ddf0" in detail
    page.press("Escape")
    assert page.ask("document.getElementById('detail').hidden")
    assert page.ask("document.activeElement.id") == "grid"
    page.press("/", "Escape")
    assert status(page)[0] == status(page)[1]


def test_every_row_can_be_reached(shown):
    page = shown("#?sort=type")
    page.press("Tab")
    page.ask("document.getElementById('grid').focus()")
    page.press("End")
    last = page.ask(CHOSEN)
    assert last
    page.press("ArrowDown")
    assert page.ask(CHOSEN) == last
    page.press("Home")
    first = page.ask(CHOSEN)
    page.press("PageDown", "ArrowUp")
    assert page.ask(CHOSEN) not in (None, first, last)
    head = page.ask("document.querySelector('#head th').getBoundingClientRect().top")
    scroller = page.ask("document.getElementById('scroller').getBoundingClientRect().top")
    assert head == scroller  # the heads stay in sight


def test_columns_sort_up_down_and_not(shown):
    page = shown()
    names = "[...document.querySelectorAll('#rows tr[id] td:nth-child(2)')].map((c) => c.innerText)"
    page.click("#head th:nth-child(2) button")
    up = page.ask(names)
    assert up == sorted(up)
    assert page.ask("document.activeElement.textContent") == "Type"
    page.press("Enter")
    down = page.ask(names)
    assert down == sorted(down, reverse=True) != up
    page.press(" ")
    assert page.ask("document.querySelector('[aria-sort$=scending]')") is None


def test_the_address_holds_row_and_filters(shown):
    page = shown()
    pick(page, "change", "changed")
    pick(page, "family", "object")
    page.click("#rows tr[id]")
    chosen = page.ask(CHOSEN)
    address = page.ask(ADDRESS)
    assert unquote(address).startswith("#" + chosen.partition(":")[0].replace(" ", "/"))
    rows = status(page)
    again = shown(address)
    assert status(again) == rows
    assert again.ask(CHOSEN) == chosen
    assert not again.ask("document.getElementById('detail').hidden")


def test_a_row_that_the_filters_hide_is_shown_all_the_same(shown):
    page = shown("#object/iothread/poll-shrink?family=netdev&q=nothing")
    assert page.ask(CHOSEN) == "object iothread poll-shrink: value"
    assert shown("#object/iothread/nothing%ff?family=nothing&span=3-1&sort=r9").ask(CHOSEN) is None


def test_a_cell_says_what_covers_it(shown):
    page = shown("#object/iothread/poll-shrink")
    cells = page.ask(
        "[...document.querySelectorAll('tr[aria-selected=true] td')].map((c) =>"
        "[c.className, c.innerText])"
    )
    assert [name for name, _ in cells[2:]] == ["", "", "", "changed"]
    assert re.fullmatch(r"~ 2\nqemu/11\.1\.yaml:\d+ · 9fea80ddf0.*", cells[-1][1])


def test_a_chosen_pair_is_pointed_out(browser, tmp_path, shown):
    path = tmp_path / "pair.html"
    path.write_text(drift("qemu-7.2", "qemu-10.0"), encoding="utf-8")
    page = browser.open(f"file://{path}")
    marked = page.ask("[...document.querySelectorAll('#head .in button')].map((b) => b.innerText)")
    assert [text.splitlines()[0] for text in marked] == ["7.2 · old", "10.0 · new"]
    counts = page.ask(DATA)["counts"][1]
    assert status(page)[2] == sum(counts[k] for k in ("changed", "appeared", "gone"))
    page.click("#pairs button")  # another pair
    counts = page.ask(DATA)["counts"][0]
    assert status(page)[2] == sum(counts[k] for k in ("changed", "appeared", "gone"))


def test_all_that_fits_is_printed(shown):
    page = shown("#?change=changed")
    rows = status(page)[0]
    page.ask("window.dispatchEvent(new Event('beforeprint'))")
    assert page.ask("document.querySelectorAll('#rows tr[id]').length") == rows > 60
    page.ask("window.dispatchEvent(new Event('afterprint'))")
    assert page.ask("document.querySelectorAll('#rows tr[id]').length") < rows


def test_it_is_dark_where_the_reader_wants_it(shown):
    colour = "getComputedStyle(document.body).backgroundColor"
    assert shown().ask(colour) == "rgb(255, 255, 255)"
    assert shown(dark=True).ask(colour) == "rgb(18, 24, 30)"


def test_what_qemu_says_is_never_markup(browser, tmp_path):
    by = dict.fromkeys(("kind", "file", "why", "ref"), HOSTILE)
    by |= {"line": 1, "release": None, "was": HOSTILE, "now": None, "affects": HOSTILE}
    names = dict.fromkeys(("family", "type", "property", "facet"), HOSTILE)
    cells = [{"state": "here", "value": v} for v in (HOSTILE, {HOSTILE: [HOSTILE]})]
    steps = [{"change": "changed", "cover": "covered", "by": by}]
    releases = [dict.fromkeys(("name", "version", "build", "tool"), HOSTILE + n) for n in "12"]
    counts = dict.fromkeys(("changed", "appeared", "gone", "covered", "waived", "uncovered"), 1)
    found = {
        "releases": releases,
        "pairs": [{"old": "", "new": "", "counts": counts}],
        "rows": [{**names, "cells": cells, "steps": steps}],
    }
    path = tmp_path / "hostile.html"
    path.write_text(html_of(found, (releases[0]["name"], releases[1]["name"])), encoding="utf-8")
    page = browser.open(f"file://{path}")
    page.click("#rows tr[id]")
    address = page.ask(ADDRESS)
    assert page.ask("document.querySelectorAll('img').length") == 0
    assert "owned" not in page.ask("document.title").partition(":")[0]
    assert "onerror" in page.ask("document.getElementById('detail').innerText")
    assert not re.search("[\u202e\x1b]", page.ask("document.body.innerText.toWellFormed()"))
    again = browser.open(f"file://{path}{address}")
    assert again.ask(CHOSEN) is not None
    for one in (page, again):
        assert one.of("Runtime.exceptionThrown") == one.of("Log.entryAdded") == []
