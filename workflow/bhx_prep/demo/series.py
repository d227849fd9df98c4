"""Parcel series with a given connectivity and spectrum. Arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: Eigenvalues of a connectivity matrix are kept above this, so that it has a Cholesky factor.
_FLOOR = 1e-3
#: Degrees of freedom; the fewer, the more subjects differ. With 600 a correlation of 0 has a standard deviation of 0.04.
DEGREES = 600
#: White noise in the series, as a fraction of the spectrum's largest power: the packaged scan was low-passed,
#: real parcel means are not.
WHITE = 0.02


def as_correlation(matrix: np.ndarray) -> np.ndarray:
    """Nearest-by-eigenvalues positive definite matrix with ones on the diagonal, (R, R)."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    positive = (vectors * np.maximum(values, _FLOOR)) @ vectors.T
    scale = 1 / np.sqrt(np.diag(positive))
    return positive * scale[:, None] * scale[None, :]


def shift_coupling(matrix: np.ndarray, a: np.ndarray, b: np.ndarray, by: float) -> np.ndarray:
    """Add `by` to the correlations between the parcels of `a` and those of `b`, but not to the diagonal.

    Parameters
    ----------
    matrix : numpy.ndarray of shape (R, R)
        Correlations.
    a, b : numpy.ndarray of shape (R,)
        bool; the same for coupling within one network.
    by : float
        Change of correlation.
    """
    block = np.outer(a, b) | np.outer(b, a)
    np.fill_diagonal(block, False)
    return matrix + by * block


def individual(rng: np.random.Generator, matrix: np.ndarray) -> np.ndarray:
    """One subject's connectivity: a Wishart draw around `matrix`, (R, R), with `DEGREES` degrees of freedom."""
    draw = np.linalg.cholesky(matrix) @ rng.standard_normal((len(matrix), DEGREES))
    return as_correlation(draw @ draw.T)


def coloured(
    rng: np.random.Generator,
    n_rows: int,
    n_frames: int,
    tr_s: float,
    spectrum: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
    """Independent series with a spectrum given in Hz, so that any TR gives the same process.

    Returns
    -------
    numpy.ndarray of shape (n_rows, n_frames)
        Unit variance on average, zero mean.
    """
    # drawn longer than needed: the ends of a periodic series would be continuous
    length = n_frames + int(np.ceil(60 / tr_s))
    frequency = np.fft.rfftfreq(length, tr_s)
    power = np.interp(frequency, *spectrum) + WHITE
    power[0] = 0
    shaped = np.fft.irfft(
        np.fft.rfft(rng.standard_normal((n_rows, length)), axis=1) * np.sqrt(power), n=length, axis=1
    )
    return (shaped / shaped.std())[:, :n_frames]


def draw(
    rng: np.random.Generator,
    matrix: np.ndarray,
    n_frames: int,
    tr_s: float,
    spectrum: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
    """Series (R, n_frames) of unit variance whose expected correlations are `matrix` (positive definite)."""
    return np.linalg.cholesky(matrix) @ coloured(rng, len(matrix), n_frames, tr_s, spectrum)


def in_networks(names: Sequence[str], networks: Sequence[str]) -> np.ndarray:
    """Which ROIs belong to one of the networks, by CBIG's names: bool (R,).

    ``17Networks_LH_DefaultA_PFCd_1`` belongs to ``DefaultA`` and, by its beginning, to ``Default``.
    """
    return np.array([name.split("_")[2].startswith(tuple(networks)) for name in names])


def network_numbers(names: Sequence[str]) -> tuple[np.ndarray, int]:
    """Number of each ROI's network, by CBIG's names: int (R,), and how many there are."""
    found, number = np.unique([name.split("_")[2] for name in names], return_inverse=True)
    return number, len(found)
