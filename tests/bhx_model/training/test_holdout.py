"""The loss on held-out subjects."""

from __future__ import annotations

import pytest
from training_runs import SIX, run_folder, train_here

from bhx_model.training import checkpoint


def test_a_holdout_loss_that_is_not_finite_names_step_and_samples(house, tmp_path):
    """The step before went well, but left weights with which nothing can be computed."""
    changes = {**SIX, "train.warmup_steps": 0, "train.lr": 1e18, "train.clip": None, "train.save_every": 1}
    named = r"the holdout's loss of step 1 is not finite, samples: (town|ward)_sub-\d+, "
    with pytest.raises(ValueError, match=named):
        train_here(house, tmp_path, "structure", changes)
    assert checkpoint.steps(run_folder(tmp_path)) == []
