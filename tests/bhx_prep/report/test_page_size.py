"""The page of a large study is one file below 15 MB: what grows with its cohorts, scans and subjects has an upper end."""

from __future__ import annotations

from typing import Any

import inside_files
import numpy as np
import pytest
from fake_results import CONFIG, NAMES

from bhx_prep.report import collect, figures, inside, page
from bhx_prep.report.collect import CohortSummary, Count, Example, Exclusion

ROIS = [f"17Networks_{'LR'[i // 500]}H_Vis_{i}" for i in range(1000)]


def cohort(name: str, frames: int = 1200) -> CohortSummary:
    """A cohort of noise, which no picture format makes small, in an atlas of 1000 parcels."""
    rng = np.random.default_rng(len(name))
    series = rng.standard_normal((len(ROIS), frames)).astype(np.float32)
    example = Example(series, ROIS, 0.72, rng.random(frames))
    correlations = rng.uniform(-1, 1, (len(ROIS), len(ROIS)))
    return CohortSummary(
        name, "fmriprep", False, example=example, names=ROIS, connectivity=correlations, n_runs_averaged=9
    )


def test_pictures_of_many_cohorts_stay_small():
    """Of whole arrays one of these cohorts alone would have 8 MB."""
    cohorts = [cohort(f"c{i}") for i in range(6)]
    pictures = page._carpets(cohorts) + page._connectivity(cohorts)
    assert len(pictures) == 12
    assert sum(len(picture.svg or "") for picture in pictures) < 9e6
    assert all("Every n-th row and column is drawn." in picture.caption for picture in pictures)


def test_pictures_of_a_small_study_are_whole():
    one = cohort("c", frames=150)
    assert "n-th" not in page._carpets([one])[0].caption


@pytest.mark.parametrize(
    ("shape", "pixels", "thin"),
    [((400, 490), 200_000, (400, 490)), ((1000, 1200), 120_000, (316, 379))],
)
def test_a_picture_is_thinned_alike_in_both_directions(shape, pixels, thin):
    values = np.arange(np.prod(shape)).reshape(shape)
    found = figures.thinned(values, pixels)
    assert found.shape == thin
    assert found.size <= pixels
    assert found[0, 0] == 0


def test_scatters_of_many_subjects_are_drawn_in_part(tmp_path, monkeypatch):
    monkeypatch.setattr(inside, "MOST_POINTS", 7)
    path = tmp_path / "results/experiments/demo/inspection/diagnosis.npz"
    inside_files.write_endpoint(path, NAMES, None)
    (part,) = inside.find(CONFIG, tmp_path / "results", None)
    with np.load(path) as stored:
        n = len(stored["plane"])
    assert n > 7
    assert f"7 of {n} subjects are drawn." in part.pictures[0].caption
    assert part.pictures[0].svg.count("<use ") >= 7
    assert part.pictures[0].svg.count("<use ") < n + 7


def test_labels_are_taken_out_of_the_reasons_of_a_large_cohort():
    """Hours, where each label is looked for in each sentence."""
    labels = {f"{1_000_000 + i}" for i in range(50_000)} | {"N+1"}
    said = [collect.anonymous(f"{label} and N+1 have no TR", labels) for label in sorted(labels)]
    assert set(said) == {"* and * have no TR"}


def test_reasons_have_an_upper_end(results, monkeypatch, drawing_once):
    monkeypatch.setattr(page, "MOST_REASONS", 2)
    summarise = collect.summarise

    def with_reasons(*args: Any) -> CohortSummary:
        out = summarise(*args)
        out.exclusions = [Exclusion("index", f"reason {c}", Count(1, 1, 0)) for c in "abcde"]
        return out

    monkeypatch.setattr(collect, "summarise", with_reasons)
    with drawing_once():
        text = page.render(CONFIG, results)
    table = text[text.index("Excluded scans by step and reason") :].partition("</table>")[0]
    assert "reason b" in table
    assert "reason c" not in table
    assert "3 more reasons of 3 scans" in table
