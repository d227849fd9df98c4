"""Thresholds: every one that a run fails is a reason, and none that it meets."""

from __future__ import annotations

import numpy as np
import pytest

from bhx_model.data import segments
from bhx_model.errors import DataError
from bhx_prep.config.features import FeaturesSection
from bhx_prep.features import qc

SETTINGS = FeaturesSection(min_rois=0.9, max_mean_fd_mm=0.5, min_seconds=100)


@pytest.mark.parametrize(("covered", "fd_mm"), [(90, 0.5), (100, None), (100, 0.0)])
def test_a_run_at_the_thresholds_passes(covered, fd_mm):
    qc.check_run(covered, 100, fd_mm, SETTINGS)
    qc.check_length(np.arange(60) < 50, None, 2.0, SETTINGS)


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
        qc.check_length(np.arange(60) < 49, None, 2.0, SETTINGS)


def test_a_run_with_cuts_is_as_long_as_its_whole_patches():
    kept = np.ones(200, bool)
    kept[[60, 80, 150]] = False  # pieces of 60, 19, 69 and 49 frames: 3, 1, 3 and 2 patches of 18
    cuts = [[0, 60], [61, 80], [81, 150], [151, 200]]
    qc.check_length(kept, cuts, 2.0, FeaturesSection(min_seconds=324))
    with pytest.raises(DataError) as error:
        qc.check_length(kept, cuts, 2.0, FeaturesSection(min_seconds=325))
    assert str(error.value) == (
        "197 of 200 frames are kept, 394 s in 4 pieces, the longest 138 s; in whole patches of 36 s that is 324 s: less"
        " than features.min_seconds, 325"
    )
    kept = np.arange(200) % 18 > 0
    with pytest.raises(DataError, match="the longest 34 s; in whole patches of 36 s that is 0 s"):
        qc.check_length(kept, segments.of_kept(kept), 2.0, FeaturesSection(min_seconds=1))


@pytest.mark.parametrize(
    ("dice", "correlation", "hint"), [(0.3, 0.9, "in MNI space"), (0.97, 0.1, "a T1w image of a head")]
)
def test_a_t1w_that_does_not_match_the_template_is_asked_for_what_it_fails(dice, correlation, hint):
    with pytest.raises(DataError, match=f"it does not match the template: Dice {dice:.2f}.*is it {hint}"):
        qc.check_template(dice, correlation, FeaturesSection())
