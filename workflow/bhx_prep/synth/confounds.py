"""Confounds in fMRIPrep's names, computed from a synthetic scan as fMRIPrep would from a real one."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage

from bhx_prep.synth.bold import displaced_mm

_CUTOFF_S = 128.0
_FD_OUTLIER_MM, _DVARS_OUTLIER = 0.5, 1.5


def confounds_of(
    frames: np.ndarray, kind: np.ndarray, motion: np.ndarray, tr_s: float, n_components: int = 5
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Confounds table and its sidecar.

    Parameters
    ----------
    frames : numpy.ndarray of shape (X, Y, Z, T)
        The scan.
    kind : numpy.ndarray of shape (X, Y, Z)
        As `Anatomy.sources`: 0 outside, 1 CSF, 2 white matter, above that grey matter.
    motion : numpy.ndarray of shape (T, 6)
        Translations (mm) and rotations (rad).
    tr_s : float
        Repetition time in seconds.
    n_components : int
        aCompCor components of CSF and white matter together.

    Returns
    -------
    columns : dict of str to numpy.ndarray of shape (T,)
        fMRIPrep's names; NaN where there is no value.
    described : dict
        The JSON beside the table.
    """
    n_frames = frames.shape[-1]
    cosines = cosine_basis(n_frames, tr_s)
    brain = frames[kind > 0].astype(np.float64)
    white = frames[ndimage.binary_erosion(kind == 2)].astype(np.float64)
    csf = frames[kind == 1].astype(np.float64)
    base = {
        "global_signal": brain.mean(axis=0),
        "csf": csf.mean(axis=0),
        "white_matter": white.mean(axis=0),
        **{
            f"{w}_{a}": motion[:, i]
            for i, (w, a) in enumerate((w, a) for w in ("trans", "rot") for a in "xyz")
        },
    }
    columns = {}
    for name, values in base.items():
        derivative = np.concatenate([[np.nan], np.diff(values)])
        columns |= {
            name: values,
            f"{name}_derivative1": derivative,
            f"{name}_power2": values**2,
            f"{name}_derivative1_power2": derivative**2,
        }
    fd, (dvars, std_dvars) = displaced_mm(motion), dvars_of(brain)
    columns |= {"framewise_displacement": fd, "dvars": dvars, "std_dvars": std_dvars}

    components, singular, explained = compcor(np.concatenate([white, csf]), cosines, n_components)
    columns |= {f"a_comp_cor_{i:02d}": c for i, c in enumerate(components)}
    columns |= {f"cosine{i:02d}": c for i, c in enumerate(cosines)}
    outliers = np.flatnonzero(
        (np.nan_to_num(fd) > _FD_OUTLIER_MM) | (np.nan_to_num(std_dvars) > _DVARS_OUTLIER)
    )
    columns |= {
        f"motion_outlier{i:02d}": (np.arange(n_frames) == t).astype(int) for i, t in enumerate(outliers)
    }

    described: dict[str, Any] = {"Synthetic": True}
    cumulative = np.cumsum(explained)
    for i in range(n_components):
        described[f"a_comp_cor_{i:02d}"] = {
            "Method": "aCompCor",
            "Mask": "combined",
            "Retained": True,
            "SingularValue": float(singular[i]),
            "VarianceExplained": float(explained[i]),
            "CumulativeVarianceExplained": float(cumulative[i]),
        }
    return columns, described


def cosine_basis(n_frames: int, tr_s: float) -> np.ndarray:
    """Cosines slower than 128 s, (K, T), unit norm: fMRIPrep's high-pass regressors."""
    count = int(np.floor(2 * n_frames * tr_s / _CUTOFF_S))
    time = np.arange(n_frames) + 0.5
    return np.stack(
        [np.sqrt(2 / n_frames) * np.cos(np.pi / n_frames * k * time) for k in range(1, count + 1)]
    )


def compcor(series: np.ndarray, cosines: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First principal components of a noise region after its slow drifts are taken out.

    Parameters
    ----------
    series : numpy.ndarray of shape (V, T)
        Voxels of the region.
    cosines : numpy.ndarray of shape (K, T)
        Orthonormal, orthogonal to a constant.

    Returns
    -------
    components : numpy.ndarray of shape (n, T)
        Unit norm.
    singular, explained : numpy.ndarray of shape (n,)
        Singular values and shares of the variance.
    """
    clean = series - series.mean(axis=1, keepdims=True)
    clean -= (clean @ cosines.T) @ cosines
    clean /= np.maximum(clean.std(axis=1, keepdims=True), 1e-12)
    values, vectors = np.linalg.eigh(clean.T @ clean)
    values, vectors = values[::-1], vectors[:, ::-1]
    signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(len(values))])  # eigh leaves them open
    return (vectors * signs).T[:n], np.sqrt(values[:n]), values[:n] / values.sum()


def dvars_of(brain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """DVARS and its standardised form (Nichols 2013) of voxels (V, T); NaN in the first frame.

    The expected value of the difference comes from each voxel's robust spread and lag-one autocorrelation.
    """
    dvars = np.sqrt((np.diff(brain, axis=1) ** 2).mean(axis=0))
    low, high = np.percentile(brain, [25, 75], axis=1)
    centred = brain - brain.mean(axis=1, keepdims=True)
    lag_one = (centred[:, 1:] * centred[:, :-1]).sum(axis=1) / np.maximum((centred**2).sum(axis=1), 1e-12)
    expected = np.sqrt(2 * (1 - lag_one)) * (high - low) / 1.349
    return np.concatenate([[np.nan], dvars]), np.concatenate([[np.nan], dvars / expected.mean()])
