"""Mean, spread and interval of a row's scores."""

from __future__ import annotations

import math
from collections.abc import Sequence


def interval(
    values: Sequence[float], test_share: float
) -> tuple[float, float | None, float | None, float | None]:
    """Mean, standard deviation and the mean's 95 % confidence interval over random splits of one set of subjects.

    Splits share most of their subjects, so their scores are correlated and sd / sqrt(n) is too small: the variance of the
    mean is sd^2 (1 / n + n_test / n_others), with Student's t of n - 1 degrees of freedom (the corrected
    resampled t of Nadeau and Bengio, Machine Learning 52, 2003).

    Parameters
    ----------
    values : Sequence[float]
        One value per seed, at least one. With a single one there is neither spread nor interval (None).
    test_share : float
        Test subjects over all others of the split (training and validation).
    """
    from scipy.stats import t  # here: slow to import, and the report reads tables without it

    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return mean, None, None, None
    sd = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    half = float(t.ppf(0.975, n - 1)) * sd * math.sqrt(1 / n + test_share)
    return mean, sd, mean - half, mean + half
