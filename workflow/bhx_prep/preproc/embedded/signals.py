"""Confounds of a run, in fMRIPrep's names. Arrays in, columns out; ``T`` frames, ``V`` voxels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bhx_prep.io import motion

Floats = NDArray[np.floating]

#: Slower drifts than this (s) are taken out before the components are computed, as in fMRIPrep.
CUTOFF_S = 128.0
COMPONENTS = 5


def cosines(n_frames: int, tr_s: float, cutoff_s: float = CUTOFF_S) -> Floats:
    """Discrete cosines slower than a cutoff, (T, N): fMRIPrep's ``cosine00`` ...; none for short runs."""
    n = int(np.floor(2 * n_frames * tr_s / cutoff_s))
    t = np.arange(n_frames)[:, None] + 0.5
    return np.sqrt(2 / n_frames) * np.cos(np.pi * t * np.arange(1, n + 1) / n_frames)


def dvars(values: Floats) -> tuple[Floats, Floats]:
    """Rate of change of the signal over a brain, plain and standardised.

    Parameters
    ----------
    values : array, (V, T)
        Series of the brain's voxels.

    Returns
    -------
    dvars, std_dvars : arrays, (T,)
        Root mean square of the change from the frame before, of series scaled to a median of 1000; and the same
        over what it would be by chance. NaN in the first frame.

    Notes
    -----
    Power et al. (2012); Nichols (2013): the chance level is ``sqrt(2 (1 - ar1))`` times the robust deviation.
    """
    scaled = values.astype(np.float64) * (1000.0 / np.median(values))
    low, high = np.percentile(scaled, [25, 75], axis=1, method="lower")
    spread = (high - low) / 1.349
    scaled, spread = scaled[spread > 0], spread[spread > 0]
    centred = scaled - scaled.mean(axis=1, keepdims=True)
    ar1 = (centred[:, 1:] * centred[:, :-1]).sum(axis=1) / (centred**2).sum(axis=1)
    by_chance = (np.sqrt(2 * (1 - ar1)) * spread).mean()
    plain = np.sqrt((np.diff(scaled, axis=1) ** 2).mean(axis=0))
    return np.concatenate([[np.nan], plain]), np.concatenate([[np.nan], plain / by_chance])


def components(values: Floats, drifts: Floats, n: int = COMPONENTS) -> tuple[Floats, Floats]:
    """Principal components of noise (aCompCor).

    Parameters
    ----------
    values : array, (V, T)
        Series of voxels that hold no signal of interest.
    drifts : array, (T, N)
        Taken out first, with the mean.
    n : int
        Most components; fewer where there are fewer voxels or frames.

    Returns
    -------
    series : array, (T, n)
        Unit length, signed so that the component rises with the voxels' sum.
    variance : array, (n,)
        Share of the variance that each explains.

    Notes
    -----
    Behzadi et al. (2007), doi:10.1016/j.neuroimage.2007.04.042.
    """
    design = np.column_stack([np.ones(values.shape[1]), drifts])
    basis = np.linalg.qr(design)[0]
    left = values.astype(np.float64).T
    left -= basis @ (basis.T @ left)
    deviation = left.std(axis=0)
    left = left[:, deviation > 0] / deviation[deviation > 0]
    if left.shape[1] == 0:
        return np.empty((values.shape[1], 0)), np.empty(0)
    power, series = np.linalg.eigh(left @ left.T)
    power, series = power[::-1], series[:, ::-1]
    share = power / power.sum()
    kept = min(n, left.shape[1], int((share > 1e-9).sum()))
    series = series[:, :kept]
    sign = np.sign(series.T @ left.sum(axis=1))
    return series * np.where(sign == 0, 1.0, sign), share[:kept]


def confounds(
    brain: Floats, white: Floats, fluid: Floats, movement: Floats, tr_s: float, n_dummies: int
) -> tuple[dict[str, Floats], dict[str, dict[str, object]]]:
    """All columns of a run's confounds table.

    Parameters
    ----------
    brain, white, fluid : arrays, (V, T)
        Series of the voxels of the brain, of deep white matter, of cerebrospinal fluid.
    movement : array, (T, 6)
        In the order of `motion.NAMES`: mm, rad.
    tr_s : float
        Repetition time, s.
    n_dummies : int
        Frames at the start before the signal is steady. They stay in the series, and each has a column that is 1
        in it; components and drifts are 0 there, as in fMRIPrep.

    Returns
    -------
    columns : dict of arrays, (T,)
    metadata : dict
        What the sidecar says of the components.
    """
    n_frames = len(movement)
    averages = {
        "global_signal": brain.mean(axis=0),
        "csf": fluid.mean(axis=0),
        "white_matter": white.mean(axis=0),
    }
    columns = motion.expand({name: np.asarray(series, np.float64) for name, series in averages.items()})
    columns["dvars"], columns["std_dvars"] = dvars(brain)
    columns["framewise_displacement"] = motion.framewise_displacement(movement)

    metadata: dict[str, dict[str, object]] = {}
    steady = slice(n_dummies, n_frames)
    drifts = cosines(n_frames - n_dummies, tr_s)
    masks = {"a": ("combined", [white, fluid]), "c": ("CSF", [fluid]), "w": ("WM", [white])}
    for letter, (mask, parts) in masks.items():
        series, share = components(np.concatenate(parts)[:, steady], drifts)
        for i in range(series.shape[1]):
            name = f"{letter}_comp_cor_{i:02d}"
            columns[name] = _from(n_dummies, series[:, i])
            metadata[name] = {
                "Method": "aCompCor", "Mask": mask, "Retained": True, "VarianceExplained": round(float(share[i]), 6)
            }  # fmt: skip
    columns |= {f"cosine{i:02d}": _from(n_dummies, column) for i, column in enumerate(drifts.T)}
    for i in range(n_dummies):
        columns[f"non_steady_state_outlier{i:02d}"] = np.eye(n_frames)[i]
    columns |= motion.expand({name: movement[:, i] for i, name in enumerate(motion.NAMES)})
    return columns, metadata


def _from(first: int, series: Floats) -> Floats:
    return np.concatenate([np.zeros(first), series])
