"""Saliency of ROIs for a readout: gradient times input, at the series that the model reads."""

# Shapes: R ROIs, T frames, P features of the readout

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from bhx_model.data.batch import Batch
from bhx_model.nets.jepa import FunctionJEPA


def roi_saliency(
    function: FunctionJEPA, run: Batch, readout: Callable[[Tensor, int], Tensor], direction_P: Tensor
) -> np.ndarray:
    """How much each ROI adds to a readout along a direction.

    The gradient with respect to the normalised series times what of it moves (without the ROI's mean over the run), added
    up over time.

    Parameters
    ----------
    function : FunctionJEPA
        Its target encoder is used, as everywhere downstream.
    run : Batch
        One run: ``series`` (1, R, T).
    readout : callable
        Of function tokens (1, R * patches, D) and the number of patches: features (1, P).
    direction_P : Tensor, (P,)

    Returns
    -------
    ndarray, (R,) float64
        Signed; 0 for an ROI without coverage.
    """
    with torch.no_grad():
        scaled_BRT = function.normaliser(run.tensors["series"])
    scaled_BRT = scaled_BRT.detach().requires_grad_(True)
    with torch.enable_grad():
        tokens_BFD = function.target(scaled_BRT, run.patch_frames)
        # on the CPU: not every device has float64
        score = (readout(tokens_BFD, run.n_patches).cpu().double() @ direction_P.cpu().double()).sum()
        (gradient_BRT,) = torch.autograd.grad(score, scaled_BRT)
    moving_BRT = scaled_BRT - scaled_BRT.mean(dim=-1, keepdim=True)
    return (gradient_BRT * moving_BRT).sum(dim=(0, 2)).detach().cpu().double().numpy()
