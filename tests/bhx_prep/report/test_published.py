"""Numbers that are not this run's: the paper's, what others measured, and what follows of the positive class."""

from __future__ import annotations

import re

import numpy as np
import pytest
from fake_results import CONFIG
from sklearn.metrics import f1_score

from bhx_model.evaluation.metrics import METRICS
from bhx_prep.report import positive_class, published


def test_every_published_number_has_a_source_and_fits_its_metric():
    tags = set(published.sources())
    for name in published.names():
        block = published.endpoint(name)
        assert any(row.method == "BrainHarmonix" for row in block.rows)
        for row in block.rows:
            assert bool(row.source) == bool(row.values) or row.note != published.NOT_RECOVERED
            assert not row.source or any(tag in row.source for tag in tags)
            for metric, printed in row.values.items():
                value = float(printed)
                assert 40 < value < 80 if METRICS[metric].unit == "percent" else 0 < value < 10


def test_every_independent_number_has_a_source_with_its_trust():
    sources = published.sources()
    assert all(source.text and source.trust for source in sources.values())
    for name in published.names():
        rows = published.independent(name)
        assert len({(row.method, row.task) for row in rows}) == len(rows)
        for row in rows:
            assert row.source in sources
            assert row.values
            for metric, printed in row.values.items():
                assert METRICS[metric].unit == "percent"
                assert re.fullmatch(r"\d\d(\.\d+)?( to \d\d)?", printed)


def test_config_names_the_papers_endpoints():
    annotation = str(type(CONFIG.endpoints["diagnosis"]).model_fields["paper"].annotation)
    assert all(repr(name) in annotation for name in published.names())


def test_constant_of_abide_is_not_mistaken_for_a_result():
    """The paper's F-only row on ABIDE-I is near 54.3 / 70.4, what "all patients" scores; it must stand as published."""
    row = next(r for r in published.endpoint("ABIDE-I").rows if r.method == "BrainHarmonix-F")
    assert row.values == {"accuracy": "57.39", "f1": "71.24"}


@pytest.mark.parametrize("positive", [0, 1])
def test_the_positive_class_follows_from_accuracy_and_f1(positive):
    rng = np.random.default_rng(positive)
    truth = rng.random(500) < 0.4
    predicted = np.where(rng.random(500) < 0.7, truth, ~truth)
    found = positive_class.invert(
        float((truth == predicted).mean()), float(f1_score(truth, predicted, pos_label=positive))
    )
    assert found is not None
    assert found.true_positives == pytest.approx(((truth == positive) & (predicted == positive)).mean())
    assert found.f1_other == pytest.approx(f1_score(truth, predicted, pos_label=1 - positive))
    assert found.fits((truth == positive).mean())


def test_of_the_papers_rows_on_abide_the_controls_are_too_few_to_be_the_positive_class():
    found = positive_class.invert(0.5739, 0.7124)
    assert found is not None
    assert found.true_positives == pytest.approx(0.528, abs=0.0005)
    people = published.endpoint("ABIDE-I").people
    assert sum(people.values()) == 700
    assert positive_class.readings(found, people) == "control (45.7 %): too few; autism (54.3 %): possible"


@pytest.mark.parametrize(("accuracy", "f1"), [(0.9, 1.0), (0.2, 0.9), (1.0, 0.5), (0.5, -0.1)])
def test_numbers_that_no_subjects_can_have_give_nothing(accuracy, f1):
    assert positive_class.invert(accuracy, f1) is None
