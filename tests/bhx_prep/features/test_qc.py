"""Thresholds: every one that a run fails is a reason, and none that it meets."""

from __future__ import annotations

import pytest

from bhx_model.errors import DataError
from bhx_prep.config.features import FeaturesSection
from bhx_prep.features import qc

SETTINGS = FeaturesSection(min_rois=0.9, max_mean_fd_mm=0.5, min_seconds=100)


@pytest.mark.parametrize(("covered", "fd_mm"), [(90, 0.5), (100, None), (100, 0.0)])
def test_a_run_at_the_thresholds_passes(covered, fd_mm):
    qc.check_run(covered, 100, fd_mm, SETTINGS)
    qc.check_length(50, 60, 2.0, SETTINGS)


def test_every_threshold_that_fails_is_a_reason():
    with pytest.raises(DataError) as error:
        qc.check_run(89, 100, 0.51, SETTINGS)
    assert str(error.value) == (
        "89 of 100 parcels are covered, features.min_rois (0.9) asks for 90; "
        "mean framewise displacement 0.51 mm is above features.max_mean_fd_mm, 0.5"
    )
    with pytest.raises(
        DataError, match=r"^49 of 60 frames are kept, 98 s: less than features\.min_seconds, 100$"
    ):
        qc.check_length(49, 60, 2.0, SETTINGS)
