"""Standardise features on the training subjects, and reduce them to what a penalised fit needs.

With an L2 penalty the weights lie in the span of the training subjects, so that a fit in those few dimensions is the
same as one of all features.
"""

from __future__ import annotations

from typing import Final

import numpy as np

#: Spread, as a share of the mean, that float32 leaves of equal values.
_ROUNDING: Final = 1e-6


def standardised(features: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Features in units of their spread over the training subjects; what is missing gets their mean.

    Parameters
    ----------
    features : ndarray, (N, P)
        NaN for what is missing.
    train : ndarray, (N,) bool

    Returns
    -------
    ndarray, (N, P)
        Centred on the training subjects; 0 for all where these are the same up to rounding.
    """
    known = features[train]
    count = np.isfinite(known).sum(axis=0)
    mean = np.divide(
        np.nansum(known, axis=0), count, out=np.zeros(features.shape[1], np.float32), where=count > 0
    )
    centred = np.nan_to_num(features - mean)
    sd = centred[train].std(axis=0)
    same = sd <= _ROUNDING * np.abs(mean)
    centred /= np.where(same, 1, sd)
    centred[:, same] = 0
    return centred


def coordinates(centred: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Coordinates of all subjects in the span of the training subjects: (N, n_train or less), one of zeros if none differ.

    Parameters
    ----------
    centred : ndarray, (N, P)
        From `standardised`.
    train : ndarray, (N,) bool
    """
    # the vectors of the training subjects' kernel span them; one is zero, which centring took away
    kernel = (centred @ centred[train].T).astype(np.float64)
    values, vectors = np.linalg.eigh(kernel[train])
    if values[-1] <= 0:
        return np.zeros((len(centred), 1))
    used = values > values[-1] * 1e-6
    return kernel @ (vectors[:, used] / np.sqrt(values[used]))
