"""Labels of an axis: names, or what only counts."""

from __future__ import annotations

import pytest

from bhx_prep.io import axis_labels
from bhx_prep.io.axis_labels import Axis


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        (["LH_Vis_1", "LH_Vis_2"], Axis.NAMES),
        (["CC200_001", "CC200_002"], Axis.NAMES),
        (["#1", "#2"], Axis.ROIS),
        (["component_0", "component_1"], Axis.ROIS),
        (["Mean_1", "Mean_2"], Axis.ROIS),
        (["timepoint_0", "timepoint_1"], Axis.FRAMES),
        (["t1", "t2"], Axis.FRAMES),
        (["0", "1"], Axis.NUMBERS),
        (["V1", "V2"], Axis.NUMBERS),
        (["0.72", "1.44"], Axis.NUMBERS),
        (["t1", "n_voxels"], Axis.NAMES),
    ],
)
def test_kinds(labels, kind):
    assert axis_labels.kind(labels) is kind


@pytest.mark.parametrize(
    ("label", "clean"),
    [(" a ", "a"), ("b'17Networks_LH'", "17Networks_LH"), (b"x", "x"), ("'q'", "q"), ('"q"', "q"), (3, "3")],
)
def test_labels_are_cleaned(label, clean):
    assert axis_labels.clean(label) == clean


@pytest.mark.parametrize(
    ("values", "counts", "steps"),
    [
        ([0, 1, 2, 3], True, True),
        ([1.0, 2.0, 3.0], True, True),
        ([0, 0.72, 1.44], False, True),
        ([51, 52, 53], False, True),
        ([10, 11, 17, 18, 26], False, True),
        ([10, 11, 17, 18], False, False),
        ([1.5, 1.2, 7.1], False, False),
        ([0, 1], False, False),
    ],
)
def test_numbers_that_only_count(values, counts, steps):
    assert (axis_labels.counts(values), axis_labels.steps(values)) == (counts, steps)


def test_order_of_counted_labels():
    assert axis_labels.out_of_order(["t1", "t10", "t2"]) == ("t10", "t2")
    assert axis_labels.out_of_order(["t1", "t2", "t10"]) is None
    assert axis_labels.out_of_order(["LH_2_b", "RH_1_a"]) is None
    assert axis_labels.first_gap(["#1", "#2", "#4"]) == ("#2", "#4")
    assert axis_labels.first_gap(["#1", "#2", "#3"]) is None


@pytest.mark.parametrize(
    ("values", "beside", "labels"),
    [
        ([2001, 2002, 2101, 2102, 2201], [0.5, 1.5, 2, 2.5, 3.5], True),
        ([7, 5, 1, 2, 4], [0.5, 1.5, 2.5, 2.5, 3.5], True),
        ([0, 2.2, 4.4, 6.6, 8.8], [0.5, 1.5, 2.1, 2.5, 3.5], True),
        ([1, 2, 1, 4, 5], [0.5, 1.5, 2.5, 2.5, 3.5], False),
        ([1001, 998, 1003, 1007, 1000], [1000, 999, 1001, 1003, 1002], False),
        ([1.5, 1.2, 7.1, 0.2, 0.1], [0.5, 1.5, 2.5, 2.5, 3.5], False),
        ([2001, 2002, float("nan"), 2102, 2201], [0.5, 1.5, 2.5, 2.5, 3.5], False),
        ([1, 2, 3, 4], [0.5, 1.5, 2.5, 2.5], False),
    ],
)
def test_numbers_at_an_edge_that_are_labels(values, beside, labels):
    assert axis_labels.are_labels(values, beside) is labels
