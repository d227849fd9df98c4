"""Reconstructions of the masked autoencoder of T1 volumes: means over subjects, and a correlation per subject.

Nobody's volume leaves here: volumes are skull-stripped, but the shape of a brain alone tells people apart. Pictures are
of the mean over subjects, with one mask for all; how well it does with each subject is a correlation.
"""

# Shapes: B batch, N patches, V visible, U hidden patches, P^3 voxels of a patch, X Y Z voxels

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bhx_model.data.masking import mae_visible
from bhx_model.nets.mae import StructureMAE, complement
from bhx_model.nets.vit import gather_tokens


@dataclass(frozen=True)
class Reconstruction:
    """Mean slices of what was given, seen and filled in.

    Attributes
    ----------
    original, masked, filled : ndarray, (3, .., ..) float16 in a list
        Middle slices across x, y and z; hidden patches are NaN in `masked` and filled in in `filled`.
    correlation : float
        Median over subjects of the correlation of what was filled in with the subject's own hidden voxels, the mean over
        subjects taken off both: above 0 only if a subject's own anatomy is filled in.
    n : int
        Subjects.
    """

    original: list[np.ndarray]
    masked: list[np.ndarray]
    filled: list[np.ndarray]
    correlation: float
    n: int


def reconstruct(model: StructureMAE, volumes: Iterable[Tensor], seed: int = 0) -> Reconstruction:
    """Fill in the hidden patches of volumes, all with one mask.

    With `norm_pix_loss` patches are filled in but for their mean and spread, which are taken from the hidden patch.

    Parameters
    ----------
    model : StructureMAE
    volumes : iterable of Tensor
        (B, X, Y, Z) normalised volumes; at least two in all.
    seed : int
        Of the mask.

    Raises
    ------
    ValueError
        If there are fewer than two volumes.
    """
    visible_V = mae_visible(model.n_tokens, model.config.mask_ratio, seed, 0, [0])
    visible_1V = torch.from_numpy(visible_V)
    hidden = complement(visible_1V, model.n_tokens)[0].numpy()
    given, filled = [], []
    for volume_BXYZ in volumes:
        visible_BV = visible_1V.to(volume_BXYZ.device).expand(len(volume_BXYZ), -1)
        patches_BNV, filled_BUV = _fill(model, volume_BXYZ, visible_BV)
        given.append(patches_BNV.float().cpu().numpy().astype(np.float32))
        filled.append(filled_BUV.float().cpu().numpy().astype(np.float32))
    if sum(map(len, given)) < 2:
        raise ValueError("a mean over subjects needs two at least")
    patches, guess = np.concatenate(given), np.concatenate(filled)
    mean = patches.mean(axis=0)
    seen = np.full_like(mean, np.nan)
    seen[visible_V[0]] = mean[visible_V[0]]
    whole = mean.copy()
    whole[hidden] = guess.mean(axis=0)
    own, said = patches[:, hidden] - mean[hidden], guess - guess.mean(axis=0)
    r = [_correlation(a.ravel(), b.ravel()) for a, b in zip(own, said, strict=True)]
    return Reconstruction(
        *(_slices(part, model) for part in (mean, seen, whole)),
        correlation=float(np.median(r)),
        n=len(patches),
    )


def _fill(model: StructureMAE, volume_BXYZ: Tensor, visible_BV: Tensor) -> tuple[Tensor, Tensor]:
    """All patches as given, (B, N, P^3), and the hidden ones as filled in, (B, U, P^3)."""
    found: list[Tensor] = []

    def note(_module: Any, _entered: Any, left: Tensor) -> None:
        found.append(left)

    hook = model.decoder_pred.register_forward_hook(note)
    try:
        with torch.no_grad():
            model(volume_BXYZ, visible_BV)
    finally:
        hook.remove()
    patches_BNV = model.encoder.patch_embed.cut(volume_BXYZ).float()
    filled_BUV = found[0].float()
    if model.config.norm_pix_loss:
        hidden_BUV = gather_tokens(patches_BNV, complement(visible_BV, model.n_tokens))
        mean, var = hidden_BUV.mean(dim=-1, keepdim=True), hidden_BUV.var(dim=-1, keepdim=True)
        filled_BUV = filled_BUV * (var + 1e-6).sqrt() + mean
    return patches_BNV, filled_BUV


def _slices(patches_NV: np.ndarray, model: StructureMAE) -> list[np.ndarray]:
    """Middle slices of a volume that was cut into patches, float16."""
    (x, y, z), p = model.patches, model.config.patch
    volume = patches_NV.reshape(x, y, z, p, p, p).transpose(0, 3, 1, 4, 2, 5).reshape(x * p, y * p, z * p)
    half = [n // 2 for n in volume.shape]
    return [s.astype(np.float16) for s in (volume[half[0]], volume[:, half[1]], volume[:, :, half[2]])]


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / scale if scale > 0 else 0.0
