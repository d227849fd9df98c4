"""The page in a browser: what axe-core says at three widths, dark and printed; what paper shows; no script of the data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import browser
import pytest

#: Pixels of A4 on its side and upright between margins of 12 mm.
PAPER = (1032, 703)
#: axe-core reads no drawings, rows of a table are alike, and so are figures: without them it takes a tenth of the time.
BARE = """
document.querySelectorAll("svg").forEach(drawing => drawing.replaceChildren());
document.querySelectorAll("tbody tr:nth-child(n+3), figure:nth-child(n+2)").forEach(one => one.remove());
"""
#: Rules whose answer depends on width, colours and medium; all others are asked once.
SEEN = ["color-contrast", "link-in-text-block", "scrollable-region-focusable", "target-size"]
TOO_WIDE = """
[...document.querySelectorAll("main *")].filter(one => !one.closest("svg") && one.checkVisibility()
  && one.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map(one => `${one.tagName} ${one.textContent.trim().slice(0, 40)}`)
"""
HIDDEN = """
[...document.querySelectorAll("th, td, details p, pre")].filter(one => !one.checkVisibility({contentVisibilityAuto: true}))
  .map(one => one.textContent.trim().slice(0, 40))
"""


@pytest.fixture(scope="module")
def tab(text: str, tmp_path_factory) -> Iterator[browser.Tab]:
    """The page, opened once."""
    file = tmp_path_factory.mktemp("page") / "index.html"
    file.write_text(text, encoding="utf-8")
    with browser.browser() as tab:
        tab.open(file)
        yield tab
    Path(file).unlink()


@pytest.mark.parametrize("width", [*PAPER])
def test_paper_shows_every_column_and_what_is_folded(tab: browser.Tab, width: int):
    tab.show(width, media="print")
    assert tab.run(TOO_WIDE) == []
    assert tab.run(HIDDEN) == []


def test_a_phone_scrolls_tables_not_the_page(tab: browser.Tab):
    tab.show(400)
    assert tab.run("document.documentElement.scrollWidth") == 400


def test_the_page_raises_no_error(tab: browser.Tab):
    assert tab.errors == []


def test_axe_finds_nothing(tab: browser.Tab):
    """Last: it takes the drawings out."""
    tab.run(browser.axe() + "; 0")
    tab.run(BARE)
    tab.show(1600)
    assert browser.violations(tab) == []
    for width, dark, media in ((400, False, "screen"), (900, True, "screen"), (PAPER[0], True, "print")):
        tab.show(width, dark=dark, media=media)
        assert browser.violations(tab, SEEN) == [], (width, dark, media)
