"""Numbers of quality tell what was planted: cuts, gaps, other contrasts, other heads, left for right."""

from __future__ import annotations

import numpy as np
import pytest
from planted_heads import BRAIN, PLACE, SHAPE, TEMPLATE, folds, person, run_of
from scipy import ndimage

from bhx_prep.quality import bold, limits, masks, t1w


def measure(picture: np.ndarray, head: np.ndarray, voxel_mm: float = bold.STEP_MM) -> dict:
    anatomy = bold.Anatomy(head, BRAIN, TEMPLATE, BRAIN, bold.AFFINE)
    return bold.of_standard(picture, None, bold.AFFINE, anatomy, voxel_mm)


LEAST = limits.limit("bold", "coreg_likeness").least or 0.0


def test_a_run_is_known_by_the_anatomy_that_is_its_heads_alone():
    own = measure(run_of(person(1)), person(1))
    assert own["coreg_likeness"] > 3 * LEAST
    limits.check(own, "bold")
    other = measure(run_of(person(2)), person(1))
    assert abs(other["coreg_likeness"]) < LEAST
    assert other["coreg_dice"] > 0.95  # which does not see it
    assert measure(run_of(person(1))[::-1], person(1))["coreg_likeness"] < -LEAST


def test_contrast_and_size_of_the_values_change_nothing():
    own = measure(run_of(person(1)), person(1))["coreg_likeness"]
    assert measure(1e4 * run_of(person(1)), 1e-3 * person(1))["coreg_likeness"] == pytest.approx(
        own, rel=1e-3
    )
    dark = run_of(200 - person(1))  # white matter and fluid exchanged
    assert measure(dark, person(1))["coreg_likeness"] > 3 * LEAST


def test_a_run_beside_its_head_and_one_of_half_a_head():
    beside = measure(np.roll(run_of(person(1)), 12, axis=1), person(1))  # 36 mm
    assert beside["coreg_dice"] < 0.75
    half = run_of(person(1))
    half[:, :, 30:] = 0
    found = measure(half, person(1))
    assert found["coreg_dice"] > 0.9
    assert 0.3 < found["field_of_view"] < 0.7
    sliver = np.where(np.abs(PLACE[..., 2]) < 4, run_of(person(1)), 0)
    assert measure(sliver, person(1))["coreg_likeness"] is None
    assert measure(run_of(person(1)), person(1), voxel_mm=7.0)["coreg_likeness"] is None  # folds do not show


def test_the_brain_of_an_epi_is_its_bright_piece():
    picture = run_of(person(1))
    picture[0:6, 30:36, 30:36] = 900  # an eye
    found = bold.brain_of(picture, np.full(3, bold.STEP_MM))
    assert masks.agreement(found, BRAIN, "coreg")["coreg_dice"] > 0.95
    assert not found[:6].any()
    assert not bold.brain_of(np.zeros(SHAPE), np.full(3, 3.0)).any()


def test_agreement_of_masks():
    first, second = np.zeros((2, 10, 10, 10), bool)
    first[:4], second[2:4] = True, True
    found = masks.agreement(first, second, "norm")
    assert found["norm_dice"] == pytest.approx(2 / 3)
    assert found["norm_overlap"] == 1
    assert found["norm_correlation"] == pytest.approx(np.corrcoef(first.ravel(), second.ravel())[0, 1])
    assert set(masks.agreement(first, np.zeros_like(first), "norm").values()) == {0.0}


def test_a_cut_brain_meets_the_end_of_what_was_measured():
    head = np.where(BRAIN, 100.0, 5.0)
    whole = t1w.cut_cm2(head, BRAIN, bold.AFFINE)
    assert whole < 5
    upper = 40
    section = np.count_nonzero(BRAIN[:, :, upper]) * bold.STEP_MM**2 / 100
    cropped = t1w.cut_cm2(head[:, :, :upper], BRAIN[:, :, :upper], bold.AFFINE)
    assert cropped == pytest.approx(section, rel=0.1)
    zeroed, mask = head.copy(), BRAIN.copy()
    zeroed[:, :, upper:], mask[:, :, upper:] = 0, False
    assert t1w.cut_cm2(zeroed, mask, bold.AFFINE) == pytest.approx(section, rel=0.1)


@pytest.mark.parametrize("axis", range(3))
def test_a_brain_ends_where_slices_are_missing(axis):
    head, mask = np.where(BRAIN, 100.0, 5.0), BRAIN.copy()
    middle = SHAPE[axis] // 2
    gap = np.moveaxis(head, axis, 0)[middle : middle + 6]
    gap[...] = 0  # 18 mm
    np.moveaxis(mask, axis, 0)[middle:] = False  # masks are one piece
    section = np.count_nonzero(np.moveaxis(BRAIN, axis, 0)[middle - 1]) * bold.STEP_MM**2 / 100
    assert t1w.cut_cm2(head, mask, bold.AFFINE) == pytest.approx(section, rel=0.1)
    thin = np.where(BRAIN, 100.0, 5.0)
    np.moveaxis(thin, axis, 0)[middle] = 0  # one slice, which masks bridge
    assert t1w.cut_cm2(thin, BRAIN, bold.AFFINE) == pytest.approx(section, rel=0.1)


def oblique(offset_mm):
    """Voxels in front of a plane that lies this far (mm) behind the frontal pole, and leans."""
    _, y, z = np.indices(SHAPE) * bold.STEP_MM
    front = (np.flatnonzero(BRAIN.any(axis=(0, 2)))[-1] + 1) * bold.STEP_MM
    return y - 0.4 * (z - z.mean()) > front - offset_mm


def test_a_removed_face_may_take_a_part_of_the_brain():
    head = np.where(BRAIN | ndimage.binary_dilation(BRAIN, iterations=5), 100.0, 0.0)
    assert t1w.cut_cm2(head, BRAIN, bold.AFFINE) < 1
    before, behind = oblique(-60), oblique(15)
    assert not (before & BRAIN).any()
    assert t1w.cut_cm2(np.where(before, 0, head), BRAIN, bold.AFFINE) < 1
    assert t1w.cut_cm2(np.where(behind, 0, head), BRAIN & ~behind, bold.AFFINE) > 25


def test_a_skull_stripped_brain_is_cut_by_planes_alone():
    brain = np.where(BRAIN, 100.0, 0.0)
    assert t1w.cut_cm2(brain, BRAIN, bold.AFFINE) < 12  # its outermost plane
    smaller = BRAIN & ndimage.binary_erosion(BRAIN)
    smaller[: SHAPE[0] // 2] = BRAIN[: SHAPE[0] // 2]  # a mask that finds less of it on one side
    assert t1w.cut_cm2(brain, smaller, bold.AFFINE) < 12
    upper = 40
    section = np.count_nonzero(BRAIN[:, :, upper - 1]) * bold.STEP_MM**2 / 100
    mask = BRAIN.copy()
    brain[:, :, upper:], mask[:, :, upper:] = 0, False
    assert t1w.cut_cm2(brain, mask, bold.AFFINE) == pytest.approx(section, rel=0.1)


def test_nothing_is_cut_of_an_empty_image():
    nothing = np.zeros(SHAPE, bool)
    assert t1w.cut_cm2(np.zeros(SHAPE), nothing, bold.AFFINE) == 0
    assert t1w.cut_cm2(np.ones(SHAPE), nothing, bold.AFFINE) == 0


def test_gaps_in_a_brain():
    head = np.where(BRAIN, 100.0, 0.0)
    assert t1w.missing(head, BRAIN) == 0
    head[:, :, 28:32] = 0
    assert 0.05 < t1w.missing(head, BRAIN) < 0.2
    hollow = BRAIN & (head > 0)
    hollow[:, :, 28:32] = BRAIN[:, :, 28:32] & ~ndimage.binary_erosion(BRAIN, iterations=3)[:, :, 28:32]
    assert t1w.missing(head, hollow) > 0.05  # also where the mask leaves the gap out
    assert t1w.missing(head, np.zeros(SHAPE, bool)) == 1


def test_other_contrasts_than_t1():
    template = t1w.Template(TEMPLATE, BRAIN, bold.AFFINE)
    found = t1w.of_standard(person(1), BRAIN, template)
    assert found["tissue_contrast"] > 0.6
    assert found["template_correlation"] > 0.5
    inverted = t1w.of_standard(np.where(BRAIN, 300 - person(1), 0), BRAIN, template)
    assert inverted["tissue_contrast"] < -0.6
    assert inverted["template_correlation"] < -0.5
    water = np.where(BRAIN, 100 + folds(5), 0)
    assert abs(t1w.of_standard(water, BRAIN, template)["tissue_contrast"]) < 0.2
    nothing = t1w.of_standard(water, np.zeros(SHAPE, bool), template)
    assert nothing["template_correlation"] == nothing["norm_dice"] == 0
