"""The attentive probe."""

from __future__ import annotations

import numpy as np
import pytest
from endpoint_labels import labels_of, split_of

from bhx_model.config import EvaluationConfig
from bhx_model.evaluation.attentive import attentive_probe
from bhx_model.evaluation.results import summarise


@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_the_attentive_probe_finds_the_informative_token(kind):
    random = np.random.default_rng(2)
    n = 160
    target = random.integers(0, 2, n) if kind == "binary" else random.normal(5, 3, n)
    labels = labels_of(target, split_of(100, 30, 30))
    tokens = random.normal(size=(n, 16, 12))
    tokens[:, 3, :4] += 6  # it can be distinguished from the others
    tokens[:, 3, 4:] += 2 * ((target - target.mean()) / target.std())[:, None]
    settings = EvaluationConfig(epochs=40, lr=5e-3)
    scores, chosen = attentive_probe(labels, tokens, 2, settings, 0)
    assert 1 <= chosen["epoch"] <= 40
    found = summarise(labels, scores)[0]["metrics"]
    assert found["auroc" if kind == "binary" else "pearson_r"] > 0.9
    again, _ = attentive_probe(labels, tokens, 2, settings, 0)
    np.testing.assert_array_equal(scores, again)
