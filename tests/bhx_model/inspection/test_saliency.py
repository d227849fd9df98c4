"""Gradient times input."""

from __future__ import annotations

import numpy as np
import torch

from bhx_model.data.batch import Batch
from bhx_model.inspection.saliency import roi_saliency
from bhx_model.nets.jepa import FunctionJEPA


def test_it_is_the_change_that_a_small_scaling_of_an_roi_makes(make_rois, make_series, function_config):
    rois = make_rois()
    model = FunctionJEPA(function_config, rois).eval().requires_grad_(False)
    series = make_series(rois, 1, 2 * 12)
    series[0, 5] = float("nan")  # no coverage
    run = Batch(["x"], {"series": series}, 12, 2)
    direction = torch.linspace(-1, 1, 16)

    def readout(tokens, n_patches):
        assert n_patches == 2
        return tokens.mean(dim=1)

    found = roi_saliency(model, run, readout, direction)
    scaled = model.normaliser(series).double()
    model.double()
    moving = scaled - scaled.mean(dim=-1, keepdim=True)
    for roi in (0, 3, 5):
        step = torch.zeros_like(scaled)
        step[0, roi] = 1e-4 * moving[0, roi]
        ends = [readout(model.target(scaled + s * step, 12), 2) @ direction.double() for s in (-1, 1)]
        np.testing.assert_allclose(found[roi], float(ends[1] - ends[0]) / 2e-4, atol=1e-5)
    assert found[5] == 0
    assert np.abs(found).max() > 0
