"""The JEPA's loss on a scale: 0 is the mean predictor, 1 a ridge regression from the same context; and changes of tokens.

The ridge regression has subjects for samples: it reads all context tokens beside each other, so it knows which ROI and
which time is which, and predicts all target tokens, for one mask at a time. It is fitted on the unlabelled subjects whom
the model was trained on, its penalty is chosen on a quarter of them, and it is scored on subjects held out, with the
masks, the target encoder and the weights of partial patches that the model is scored with. With few subjects it is weak.
Part of `learning.py`.
"""

# Shapes: P subjects, F of them fitted on, R ROIs, N time patches, T frames, C context tokens, U target tokens, D width

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.kernel_ridge import KernelRidge
from torch import Tensor

from bhx_model.config import FunctionConfig
from bhx_model.data import augment, masking
from bhx_model.data.batch import plan_series, read_series
from bhx_model.data.rois import RoiMetadata
from bhx_model.data.shards import Sample
from bhx_model.nets.jepa import FunctionEncoder, FunctionJEPA

#: Masks that the scale is a mean over, and subjects encoded at once.
MASKS, BATCH = 3, 8
#: Penalties of the ridge regression, as multiples of the mean squared length of what it reads.
PENALTIES = np.logspace(-5, 2, 15)
#: The penalty is chosen on every so many-th target token, the solution is of all.
CHOSEN_ON = 4
CONTEXTS = ("the target encoder's context tokens", "the trained encoder's context tokens")


@dataclass(frozen=True)
class LossScale:
    """Losses of subjects held out, at one target encoder."""

    model: float
    mean: float
    """Of predicting the mean token."""
    place: float
    """Of predicting the mean token of every ROI and time."""
    ridge: float
    context: str
    """What the ridge regression reads."""
    penalty: float
    fitted_on: int
    """Subjects the ridge regression is fitted on."""

    @property
    def place_on_scale(self) -> float:
        """Where knowing the mean of every ROI and time lies, which is nothing of the subject or the moment."""
        return on_scale(self.place, self.mean, self.ridge)

    @property
    def on_scale(self) -> float:
        """0: no better than the mean token, 1: as good as the ridge regression; beyond 1: better than it."""
        return on_scale(self.model, self.mean, self.ridge)


def on_scale(loss: float, zero: float, one: float) -> float:
    """Where a loss lies between that which is 0 and that which is 1; not clipped, NaN if these are equal."""
    return (zero - loss) / (zero - one) if zero != one else float("nan")


def smooth_l1(predicted_PUD: np.ndarray, wanted_PUD: np.ndarray, weight_PU: np.ndarray) -> float:
    """The loss of `FunctionJEPA.sample_losses`, a mean over subjects."""
    arrays = (np.broadcast_to(predicted_PUD, wanted_PUD.shape), wanted_PUD, weight_PU)
    losses = FunctionJEPA.sample_losses(*(torch.from_numpy(np.array(a, np.float32)) for a in arrays))
    return losses.mean().item()


def kernel_ridge(
    x_FK: np.ndarray, y_FUD: np.ndarray, weight_FU: np.ndarray, x_PK: np.ndarray
) -> tuple[np.ndarray, float, float]:
    """Predict targets of new subjects, by the penalty that is best on the last quarter of those fitted on.

    Parameters
    ----------
    x_FK, y_FUD, weight_FU
        What is read and what is predicted, of the subjects fitted on, and weights of the latter.
    x_PK
        What is read of the new subjects.

    Returns
    -------
    predicted : ndarray, (P, U, D)
    loss : float
        Smooth-L1 on the last quarter, fitted on the others.
    penalty : float
        See `PENALTIES`.
    """
    n, n_kept = len(x_FK), len(x_FK) - len(x_FK) // 4
    centre = x_FK.mean(axis=0)
    x = np.concatenate([x_FK, x_PK]) - centre
    gram = (x @ x[:n].T).astype(np.float64)
    gram /= np.trace(gram[:n]) / n

    def fitted(targets: np.ndarray, on: slice, of: slice, penalty: float) -> np.ndarray:
        # an intercept: of the targets, and in the kernel by taking off the mean of those fitted on
        k, y = gram[on, on], targets[on]
        to = gram[of, on]
        to = to - to.mean(axis=1, keepdims=True) - k.mean(axis=0) + k.mean()
        k = k - k.mean(axis=1, keepdims=True) - k.mean(axis=0) + k.mean()
        mean = y.mean(axis=0)
        model = KernelRidge(alpha=penalty * len(k), kernel="precomputed").fit(
            k, (y - mean).reshape(len(k), -1)
        )
        return model.predict(to).reshape(-1, *mean.shape) + mean

    quarter, all_ = slice(n_kept, n), slice(0, n)
    few, weight = y_FUD[:, ::CHOSEN_ON], weight_FU[:, ::CHOSEN_ON]
    losses = [
        smooth_l1(fitted(few, slice(0, n_kept), quarter, p), few[quarter], weight[quarter]) for p in PENALTIES
    ]
    best = int(np.argmin(losses))
    return fitted(y_FUD, all_, slice(n, len(x)), PENALTIES[best]), losses[best], float(PENALTIES[best])


@dataclass(frozen=True)
class Runs:
    """Series of subjects in batches that share the frames of a patch, all with one number of patches."""

    batches: list[tuple[Tensor, int]]
    n_patches: int

    @classmethod
    def read(cls, runs: Sequence[Sample], rois: RoiMetadata, config: FunctionConfig) -> Runs:
        """Read runs whole; those of another number of patches than most have are left out."""
        plans = {run.key: plan_series(run, config) for run in runs}
        numbers = [plan.n_patches for plan in plans.values()]
        most = max(sorted(set(numbers)), key=numbers.count)
        batches = []
        for frames in sorted({plan.patch_frames for plan in plans.values()}):
            alike = [run for run in runs if plans[run.key].bucket == (frames, most)]
            for first in range(0, len(alike), BATCH):
                series = [
                    augment.apply_plan(read_series(run, rois, config), plans[run.key], config)
                    for run in alike[first : first + BATCH]
                ]
                batches.append((torch.from_numpy(np.stack(series)), frames))
        return cls(batches, most)


@torch.no_grad()
def loss_scale(model: FunctionJEPA, fit: Runs, held_out: Runs) -> LossScale:
    """Place the loss on subjects held out between the mean predictor's and the ridge regression's.

    Of the context as the target encoder sees it and as the trained one does, the ridge regression reads that which
    predicts better on the last quarter of the subjects it is fitted on.
    """
    assert fit.n_patches == held_out.n_patches
    tokens = [targets(model, runs) for runs in (fit, held_out)]
    order = np.random.default_rng(0).permutation(len(tokens[0][0]))  # repetition times mixed
    found = []
    for number in range(MASKS):
        masks = masking.jepa_masks(model.n_rois, fit.n_patches, model.config, 0, number, [0])
        context, target = (torch.from_numpy(a) for a in (masks.context, masks.target))
        y_fit, y = (wanted[:, masks.target[0]] for wanted, _ in tokens)
        w_fit, w = (weight[:, masks.target[0]] for _, weight in tokens)
        y_fit, w_fit = y_fit[order], w_fit[order]
        ridges = []
        for name, encoder in zip(CONTEXTS, (model.target, model.encoder), strict=True):
            x_fit, x = (contexts(model, encoder, runs, context) for runs in (fit, held_out))
            flat_fit, flat = (a.reshape(len(a), -1) for a in (x_fit[order], x))
            predicted, loss, penalty = kernel_ridge(flat_fit, y_fit, w_fit, flat)
            ridges.append((loss, smooth_l1(predicted, y, w), name, penalty))
        seen = torch.from_numpy(x)  # of the trained encoder, which is what the predictor reads
        own = predictions(model, seen, context, target, fit.n_patches)
        token = np.average(y_fit.reshape(-1, y.shape[-1]), axis=0, weights=w_fit.ravel())
        found.append(
            (
                smooth_l1(own, y, w),
                smooth_l1(token, y, w),
                smooth_l1(y_fit.mean(axis=0), y, w),
                ridges,
            )
        )
    # one context for all masks, chosen where the ridge regression was not fitted
    chosen = int(np.argmin([np.mean([ridges[i][0] for *_, ridges in found]) for i in range(len(CONTEXTS))]))
    model_loss, mean, place = (float(np.mean([losses[i] for losses in found])) for i in range(3))
    ridge = float(np.mean([ridges[chosen][1] for *_, ridges in found]))
    penalty = float(np.median([ridges[chosen][3] for *_, ridges in found]))
    return LossScale(model_loss, mean, place, ridge, CONTEXTS[chosen], penalty, len(order))


def targets(model: FunctionJEPA, runs: Runs) -> tuple[np.ndarray, np.ndarray]:
    """Normalised target tokens of whole runs, (P, R * N, D), and their weights, (P, R * N)."""
    tokens, weights = [], []
    for series, frames in runs.batches:
        one = model.target(model.normaliser(series), frames).float()
        tokens.append(F.layer_norm(one, one.shape[-1:]))
        weights.append(model.token_weights(series, frames))
    return torch.cat(tokens).numpy(), torch.cat(weights).numpy()


def contexts(model: FunctionJEPA, encoder: FunctionEncoder, runs: Runs, context_1C: Tensor) -> np.ndarray:
    """Tokens of the context alone, (P, C, D)."""
    return torch.cat([
        encoder(model.normaliser(series), frames, context_1C.expand(len(series), -1)).float()
        for series, frames in runs.batches
    ]).numpy()  # fmt: skip


def predictions(
    model: FunctionJEPA, seen_PCD: Tensor, context_1C: Tensor, target_1U: Tensor, n_patches: int
) -> np.ndarray:
    """What the model's predictor makes of the context, (P, U, D)."""
    position = model.encoder.roi_position()
    return torch.cat([
        model.predictor(
            one, context_1C.expand(len(one), -1), target_1U.expand(len(one), -1), position, n_patches
        )
        for one in seen_PCD.split(BATCH)
    ]).float().numpy()  # fmt: skip


def subject_share(tokens_PRND: Tensor) -> tuple[float, float]:
    """How much of the tokens' variance is between subjects, and how much of that stays from one half of a run to the other.

    Parameters
    ----------
    tokens_PRND
        Of subjects of one repetition time.

    Returns
    -------
    share : float
        Variance between subjects at a given ROI and time, as a share of that over subjects, ROIs and times.
    reliability : float
        Correlation over subjects of what the means of the first and of the last patches differ in from the subjects' mean,
        pooled over ROIs and channels; NaN with a single patch.
    """
    total = tokens_PRND.flatten(0, 2).var(dim=0, correction=0).sum()
    share = tokens_PRND.var(dim=0, correction=0).mean(dim=(0, 1)).sum() / total
    half = tokens_PRND.shape[2] // 2
    if not half:
        return share.item(), float("nan")
    parts = [tokens_PRND[:, :, :half].mean(dim=2), tokens_PRND[:, :, -half:].mean(dim=2)]
    a, b = (part - part.mean(dim=0) for part in parts)
    return share.item(), ((a * b).sum() / (a.square().sum() * b.square().sum()).sqrt()).item()
