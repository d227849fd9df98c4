"""Scores of a data set as a whole, and as the published code averages them."""

from __future__ import annotations

import numpy as np
import pytest
from endpoint_labels import labels_of

from bhx_model.errors import DataError
from bhx_model.evaluation.results import summarise


def test_scores_of_batches_are_not_those_of_the_data_set():
    target, predicted = np.array([1, 1, 1, 0, 0, 0]), np.array([1, 1, 0, 1, 0, 0])
    labels = labels_of(np.tile(target, 2), np.repeat(["train", "test"], 6))
    scores = np.eye(2)[np.tile(predicted, 2)]
    whole, batched = (summarise(labels, scores, batch_size=n)[0]["metrics"] for n in (None, 4))
    assert whole["f1"] == pytest.approx(2 * 2 / (3 + 3))
    # four subjects: 2 hits, 3 + 3 named; two subjects: nothing to find
    assert batched["f1"] == pytest.approx((4 * 2 * 2 / (3 + 3) + 2 * 0) / 6)
    assert batched["accuracy"] == pytest.approx(whole["accuracy"])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_refused(bad):
    scores = np.full((4, 1), 2.0)
    scores[1] = bad
    labels = labels_of(np.array([1.0, 2, 3, 4]), np.array(["train", "train", "test", "test"]))
    with pytest.raises(DataError, match=r"the scores of 1 of 4 subjects of .* are not finite"):
        summarise(labels, scores)
