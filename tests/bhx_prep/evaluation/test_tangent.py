from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import expm, logm, sqrtm

from bhx_model.errors import DataError
from bhx_prep.evaluation.baselines import tangent

R, N = 5, 70
UPPER = np.triu_indices(R)


def covariances(rng: np.random.Generator) -> np.ndarray:
    return np.stack([np.cov(rng.standard_normal((R, R)) @ rng.standard_normal((R, 40))) for _ in range(N)])


def test_it_is_the_logarithm_of_what_the_mean_whitens() -> None:
    whole, train = covariances(np.random.default_rng(0)), np.arange(N) < 50
    mean = expm(np.mean([logm(c) for c in whole[train]], axis=0))
    whiten = np.linalg.inv(sqrtm(mean).real)
    wanted = np.stack([logm(whiten @ c @ whiten)[UPPER] for c in whole])
    found = tangent.project(whole[:, UPPER[0], UPPER[1]], train)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_subjects_outside_training_do_not_change_others() -> None:
    whole, train = covariances(np.random.default_rng(0))[:, UPPER[0], UPPER[1]], np.arange(N) < 50
    changed = whole.copy()
    changed[60] *= 3
    assert (tangent.project(changed, train)[:60] == tangent.project(whole, train)[:60]).all()


def test_a_lacking_roi_is_what_the_others_let_expect() -> None:
    whole, train = covariances(np.random.default_rng(0)), np.arange(N) < 50
    lacking = whole.copy()
    lacking[55, 2], lacking[55, :, 2] = np.nan, np.nan
    filled = tangent._without_gaps(lacking, train)
    assert (np.linalg.eigvalsh(filled[55]) > 0).all()
    known = np.delete(np.arange(R), 2)
    assert (filled[55][np.ix_(known, known)] == whole[55][np.ix_(known, known)]).all()
    mean = whole[train].mean(axis=0)
    slope = np.linalg.solve(mean[np.ix_(known, known)], mean[known, 2])
    np.testing.assert_allclose(filled[55][2, known], slope @ whole[55][np.ix_(known, known)])
    lacking[:50, 1], lacking[:50, :, 1] = np.nan, np.nan
    with pytest.raises(DataError, match="no training subject has values of all ROIs"):
        tangent._without_gaps(lacking, train)
