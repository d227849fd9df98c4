"""Confounds of a run, in fMRIPrep's names. Arrays in, columns out; ``T`` frames, ``V`` voxels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bhx_model.errors import DataError
from bhx_prep.io import motion
from bhx_prep.preproc.embedded.frames import PART_BYTES

Floats = NDArray[np.floating]

#: Slower drifts than this (s) are taken out before the components are computed, as in fMRIPrep.
CUTOFF_S = 128.0
COMPONENTS = 5
#: Share of the voxels that tCompCor takes.
VARIABLE_SHARE = 0.02
#: Frames above either are ``motion_outlierXX``: framewise displacement (mm), standardised DVARS.
MOST_FD_MM = 0.5
MOST_STD_DVARS = 1.5
#: Voxels of a tissue: above the first of these probabilities that so many have. Else so many that are likeliest, if there
#: are the least number that are above the least probability.
PURE, ENOUGH = (0.95, 0.8, 0.5), 50
LEAST_PROBABILITY, LEAST_VOXELS = 0.05, 10


def pure_tissue(probability: Floats, inside: NDArray[np.bool_], name: str) -> NDArray[np.bool_]:
    """Voxels that hold one tissue alone, as far as a grid has any, bool (X, Y, Z).

    Parameters
    ----------
    probability : array, (X, Y, Z)
        Of the tissue.
    inside : array of bool, (X, Y, Z)
        Brain that the run shows.
    name : str
        Of the tissue, for the message.

    Raises
    ------
    DataError
        If the run shows too little of it.
    """
    for least in PURE:
        mask = inside & (probability > least)
        if np.count_nonzero(mask) >= ENOUGH:
            return mask
    likely = np.sort(probability[inside & (probability > LEAST_PROBABILITY)])[-ENOUGH:]
    if likely.size < LEAST_VOXELS:
        msg = f"{likely.size} of the run's voxels are {name}, too few for its confounds: is a part of the brain cut off?"
        raise DataError(msg)
    return np.asarray(inside & (probability >= likely[0]))


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
    scale = 1000.0 / float(np.median(values))
    chances, squares, n = 0.0, np.zeros(values.shape[1] - 1), 0
    for part in _parts(values):
        scaled = part * scale
        low, high = np.percentile(scaled, [25, 75], axis=1, method="lower")
        spread = (high - low) / 1.349
        scaled, spread = scaled[spread > 0], spread[spread > 0]
        centred = scaled - scaled.mean(axis=1, keepdims=True)
        ar1 = (centred[:, 1:] * centred[:, :-1]).sum(axis=1) / (centred**2).sum(axis=1)
        chances += float((np.sqrt(2 * (1 - ar1)) * spread).sum())
        squares += (np.diff(scaled, axis=1) ** 2).sum(axis=0)
        n += len(scaled)
    plain = np.sqrt(squares / max(n, 1))
    by_chance = chances / n if n else np.nan
    return np.concatenate([[np.nan], plain]), np.concatenate([[np.nan], plain / by_chance])


def _parts(values: Floats) -> Iterator[Floats]:
    """Series in float64, so many voxels at a time that they need little memory."""
    step = max(1, PART_BYTES // (8 * values.shape[1]))
    for first in range(0, len(values), step):
        yield np.array(values[first : first + step], np.float64, order="C")


def most_variable(values: Floats, share: float = VARIABLE_SHARE) -> NDArray[np.bool_]:
    """Voxels that vary most once slow drifts are taken out: the mask of tCompCor.

    Parameters
    ----------
    values : array, (V, T)
        Series of voxels inside the brain.
    share : float
        Of the voxels.

    Returns
    -------
    array of bool, (V,)

    Notes
    -----
    Behzadi et al. (2007): the standard deviation after removal of linear and quadratic drifts; 2 % as in fMRIPrep.
    """
    basis = np.linalg.qr(np.vander(np.linspace(-1, 1, values.shape[1]), 3))[0]
    deviation = np.concatenate(
        [(part - part @ basis @ basis.T).std(axis=1) for part in _parts(values)] or [np.empty(0)]
    )
    if not deviation.size:
        return np.zeros(0, bool)
    return (deviation >= np.percentile(deviation, 100 * (1 - share))) & (deviation > 0)


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
    gram, total, varying = np.zeros((values.shape[1],) * 2), np.zeros(values.shape[1]), 0
    for part in _parts(values):
        part -= part @ basis @ basis.T
        deviation = part.std(axis=1)
        left = part[deviation > 0] / deviation[deviation > 0, None]
        gram += left.T @ left
        total += left.sum(axis=0)
        varying += len(left)
    if not varying:
        return np.empty((values.shape[1], 0)), np.empty(0)
    power, series = np.linalg.eigh(gram)
    power, series = power[::-1], series[:, ::-1]
    share = power / power.sum()
    kept = min(n, varying, int((share > 1e-9).sum()))
    series = series[:, :kept]
    sign = np.sign(series.T @ total)
    return series * np.where(sign == 0, 1.0, sign), share[:kept]


def outliers(displacement: Floats, std_dvars: Floats) -> NDArray[np.intp]:
    """Frames of much motion or change, as fMRIPrep's ``motion_outlierXX`` have them.

    Parameters
    ----------
    displacement, std_dvars : arrays, (T,)
        Framewise displacement (mm) and standardised DVARS; NaN is no outlier.

    Returns
    -------
    array of int
        Numbers of the frames above `MOST_FD_MM` or `MOST_STD_DVARS`, in order.
    """
    return np.flatnonzero((displacement > MOST_FD_MM) | (std_dvars > MOST_STD_DVARS))


@dataclass(frozen=True)
class Masks:
    """Voxels among those of the brain, as arrays of bool, (V,).

    Attributes
    ----------
    white, fluid : arrays
        Deep white matter, cerebrospinal fluid.
    inner : array
        Not at the brain's border, where motion changes most.
    """

    white: NDArray[np.bool_]
    fluid: NDArray[np.bool_]
    inner: NDArray[np.bool_]


def confounds(
    brain: Floats, masks: Masks, movement: Floats, rmsd: Floats | None, tr_s: float, n_dummies: int
) -> tuple[dict[str, Floats], dict[str, dict[str, object]]]:
    """All columns of a run's confounds table.

    Parameters
    ----------
    brain : array, (V, T)
        Series of the voxels of the brain.
    masks : Masks
        Which of them are of which tissue.
    movement : array, (T, 6)
        In the order of `motion.NAMES`: mm, rad.
    rmsd : array, (T,), or None
        From `motion.rms_deviation`, mm; None where there are no transforms.
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
    both = masks.white | masks.fluid
    averages = {"global_signal": brain, "csf": brain[masks.fluid], "white_matter": brain[masks.white]}
    columns = motion.expand(
        {name: series.mean(axis=0, dtype=np.float64) for name, series in averages.items()}
    )
    columns["csf_wm"] = brain[both].mean(axis=0, dtype=np.float64)
    columns["dvars"], columns["std_dvars"] = dvars(brain)
    columns["framewise_displacement"] = motion.framewise_displacement(movement)
    if rmsd is not None:
        columns["rmsd"] = rmsd

    steady = brain[:, n_dummies:]
    drifts = cosines(n_frames - n_dummies, tr_s)
    inner = masks.inner if masks.inner.any() else np.ones(len(brain), bool)
    most = np.flatnonzero(inner)[most_variable(steady[inner])]
    metadata: dict[str, dict[str, object]] = {}
    for letter, method, mask, chosen in (
        ("t", "tCompCor", None, most), ("a", "aCompCor", "combined", both),
        ("c", "aCompCor", "CSF", masks.fluid), ("w", "aCompCor", "WM", masks.white),
    ):  # fmt: skip
        series, share = components(steady[chosen], drifts)
        names = [f"{letter}_comp_cor_{i:02d}" for i in range(series.shape[1])]
        columns |= {name: _from(n_dummies, column) for name, column in zip(names, series.T, strict=True)}
        about = {"Method": method} | ({"Mask": mask} if mask else {})
        metadata |= dict(zip(names, _described(about, share), strict=True))
    columns |= {f"cosine{i:02d}": _from(n_dummies, column) for i, column in enumerate(drifts.T)}
    for i in range(n_dummies):
        columns[f"non_steady_state_outlier{i:02d}"] = np.eye(n_frames)[i]
    columns |= motion.expand({name: movement[:, i] for i, name in enumerate(motion.NAMES)})
    for i, t in enumerate(outliers(columns["framewise_displacement"], columns["std_dvars"])):
        columns[f"motion_outlier{i:02d}"] = np.eye(n_frames)[t]
    return columns, metadata


def _described(about: Mapping[str, object], share: Floats) -> list[dict[str, object]]:
    """What the sidecar says of each component, whose shares of the variance are given, (K,)."""
    return [
        {
            **about,
            "Retained": True,
            "VarianceExplained": round(float(share[i]), 6),
            "CumulativeVarianceExplained": round(float(share[: i + 1].sum()), 6),
        }
        for i in range(len(share))
    ]


def _from(first: int, series: Floats) -> Floats:
    return np.concatenate([np.zeros(first), series])
