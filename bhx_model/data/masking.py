"""Masks of the encoders' inputs: pure functions of (seed, step, sample), in numpy.

Sizes depend on (seed, step) alone, so that the samples of a batch stack; places depend on the sample as well.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bhx_model.config import FunctionConfig
from bhx_model.errors import DataError

# Streams of random numbers that must not meet although seed, step and sample are equal.
_MAE: Final = 1
_JEPA_SIZES: Final = 2
_JEPA_PLACES: Final = 3


def mae_visible(
    n_tokens: int, mask_ratio: float, seed: int, step: int, samples: Sequence[int]
) -> NDArray[np.int64]:
    """Draw the patches that the structure encoder sees.

    Parameters
    ----------
    n_tokens
        Patches of a volume, at least 2.
    mask_ratio
        Share that is hidden; at least one patch is seen and one hidden.
    seed, step
        Of the run and of the optimiser step.
    samples
        One number per sample of the batch that names it in the cohorts.

    Returns
    -------
    (B, n_visible) int64
        Sorted token indices.
    """
    n_visible = min(max(round(n_tokens * (1 - mask_ratio)), 1), n_tokens - 1)
    return np.stack([
        np.sort(np.random.default_rng([_MAE, seed, step, s]).permutation(n_tokens)[:n_visible]) for s in samples
    ])  # fmt: skip


@dataclasses.dataclass(frozen=True)
class JepaMasks:
    """Token indices (roi * n_patches + patch), sorted; context and target of a sample share none."""

    context: NDArray[np.int64]
    """(B, C) what the encoder sees."""
    target: NDArray[np.int64]
    """(B, K) what the predictor predicts."""


def jepa_masks(
    n_rois: int, n_patches: int, config: FunctionConfig, seed: int, step: int, samples: Sequence[int]
) -> JepaMasks:
    """Draw a context block and the three kinds of targets of Brain-JEPA (arXiv 2409.19407), for any grid.

    The encoder sees a random set of ROIs in a contiguous window of time. It predicts Cross-ROI tokens (held-out
    ROIs in the window), Cross-Time tokens (seen ROIs outside the window) and Double-Cross tokens (held-out ROIs
    outside the window). With a single patch only Cross-ROI is left.

    Parameters
    ----------
    n_rois, n_patches
        Grid of valid tokens; at least 2 ROIs.
    config
        Its ``mask_`` fields are the shares.
    seed, step, samples
        As in `mae_visible`.

    Raises
    ------
    DataError
        If there are fewer than 2 ROIs: none could be held out.
    """
    if n_rois < 2:
        msg = f"masks need at least 2 ROIs, one to see and one to predict, got {n_rois}"
        raise DataError(msg)
    size = np.random.default_rng([_JEPA_SIZES, seed, step])

    def count(of: int, bounds: tuple[float, float], least: int, most: int) -> int:
        return min(max(round(of * size.uniform(*bounds)), least), most)

    held = count(n_rois, config.mask_target_rois, 1, n_rois - 1)
    seen = count(n_rois - held, config.mask_context_rois, 1, n_rois - held)
    window = count(n_patches, config.mask_context_times, 1, max(n_patches - 1, 1))
    outside = count(n_patches, config.mask_target_times, min(1, n_patches - window), n_patches - window)
    time_rois = count(seen, config.mask_time_rois, 1, seen)

    contexts, targets = [], []
    for sample in samples:
        place = np.random.default_rng([_JEPA_PLACES, seed, step, sample])
        rois = place.permutation(n_rois)
        held_rois, seen_rois = rois[:held], rois[held : held + seen]
        start = int(place.integers(n_patches - window + 1))
        beyond = np.concatenate([np.arange(start), np.arange(start + window, n_patches)])
        others = place.permutation(beyond)[:outside]
        # marked in the grid, tokens come out in order
        context = np.zeros((n_rois, n_patches), bool)
        context[seen_rois, start : start + window] = True
        target = np.zeros((n_rois, n_patches), bool)
        target[held_rois, start : start + window] = True
        predicted = np.concatenate([held_rois, seen_rois[:time_rois]])
        target[predicted[:, None], others] = True
        contexts.append(np.flatnonzero(context))
        targets.append(np.flatnonzero(target))
    return JepaMasks(np.stack(contexts), np.stack(targets))
