"""The viewers: NiiVue as it was released, in a page that needs no network; what is chosen is what is drawn."""

from __future__ import annotations

import gzip
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import browser
import example_study
import numpy as np
import pytest
from PIL import Image

from bhx_prep.report import page, viewer


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """The page of a small study with maps and an example scan."""
    root = tmp_path_factory.mktemp("viewer")
    file = root / "index.html"
    file.write_text(page.render(*example_study.write(root)), encoding="utf-8")
    return file


def test_the_library_is_the_one_that_was_released():
    niivue = viewer.NiiVue.load()
    assert hashlib.sha256(gzip.decompress(niivue.packed)).hexdigest() == niivue.sha256
    assert niivue.licence.startswith("BSD 2-Clause License\n\nCopyright (c) 2021, Niivue")


def test_the_page_is_one_small_file_with_the_licence_of_what_it_holds(written: Path):
    text = written.read_text()
    assert len(text) < 15e6
    assert f"NiiVue {viewer.NiiVue.load().version}, BSD-2-Clause" in text
    assert "Redistributions in binary form must reproduce" in text
    assert "sub-01" not in text


@pytest.fixture(scope="module")
def tab(written: Path) -> Iterator[browser.Tab]:
    with browser.browser(*browser.WEBGL) as tab:
        tab.show(400, height=400)  # every pixel is drawn by the CPU
        tab.open(written)
        yield tab


def pixels(tab: browser.Tab) -> np.ndarray:
    """What a canvas in sight shows."""
    tab.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return np.asarray(Image.open(io.BytesIO(tab.picture(whole=False))).convert("RGB")).astype(int)


def see(tab: browser.Tab, name: str) -> np.ndarray:
    """Bring a viewer into sight, and wait until it has drawn."""
    tab.run(f"document.getElementById('{name}-viewer').scrollIntoView({{block: 'center'}})")
    tab.wait_for(f"'ready' in document.getElementById('{name}-viewer').dataset")
    return pixels(tab)


def choose(tab: browser.Tab, name: str, value: str) -> None:
    tab.run(f"(made => {{ made.value = '{value}'; made.dispatchEvent(new Event('input')); }})"
            f"(document.getElementById('{name}'))")  # fmt: skip


def test_a_browser_shows_maps_that_turn_and_scans(tab: browser.Tab):
    if not tab.run("!!document.createElement('canvas').getContext('webgl2')"):
        pytest.skip("this browser draws no WebGL 2, not by the CPU either")
    first = see(tab, "surface")
    options = tab.run("[...document.getElementById('surface-map').options].map(option => option.textContent)")
    assert options[0].startswith("Harmonic 2")
    choose(tab, "surface-map", "1")
    second = pixels(tab)
    assert (np.abs(first - second).max(axis=2) > 30).mean() > 0.02
    choose(tab, "surface-from", "0,90")
    assert (np.abs(second - pixels(tab)).max(axis=2) > 30).mean() > 0.02
    scan = see(tab, "volume")
    assert (
        tab.run("document.getElementById('volume-canvas').getAttribute('aria-label')")
        == "T1w of town, parcels on it"
    )
    colourful = np.ptp(scan, axis=2) > 40
    assert 0.01 < colourful.mean() < 0.6  # parcels in colour, the head grey, the rest black
    choose(tab, "volume-overlay", "")
    tab.wait_for("document.getElementById('volume-canvas').getAttribute('aria-label') === 'T1w of town'")
    assert (np.ptp(pixels(tab), axis=2) > 40).mean() < colourful.mean() / 2
    assert tab.errors == []


def test_without_webgl_there_are_still_pictures(written: Path):
    with browser.browser("--disable-gpu", "--disable-3d-apis") as tab:
        tab.show(500)
        tab.open(written)
        assert tab.run("document.getElementById('surface-viewer').checkVisibility()") is False
        assert tab.run("document.querySelector('#scans .no-viewer').checkVisibility()") is True
        assert (
            tab.run("[...document.querySelectorAll('#scans figure img')].every(i => i.naturalWidth > 0)")
            is True
        )
        assert tab.errors == []
