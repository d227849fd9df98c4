"""What is known of ROIs apart from their names is the same in both orders of Schaefer's atlas."""

from __future__ import annotations

import numpy as np
import pytest
from series_batches import schaefer

from bhx_model.errors import ConfigError
from bhx_prep.atlas import reference
from bhx_prep.atlas.atlas import Atlas
from bhx_prep.atlas.sources import packages


@pytest.mark.parametrize(("networks", "other"), [(7, 17), (17, 7)])
def test_the_rois_of_one_order_are_those_of_the_other(networks: int, other: int) -> None:
    _, _, here = schaefer(networks)
    _, _, there = schaefer(other)
    assert here.stated == f"{networks}-network order"
    rows = here.others[there.stated]
    np.testing.assert_array_equal(here.centroids[rows], there.centroids)
    np.testing.assert_array_equal(here.group[np.ix_(rows, rows)], there.group)


def test_places_are_on_their_side_and_the_group_is_connectivity() -> None:
    _, names, known = schaefer(17)
    left = np.array(["LH" in name for name in names])
    assert (known.centroids[left, 0] < 0).all()
    assert (known.centroids[~left, 0] > 0).all()
    assert np.isnan(np.diag(known.group)).all()
    assert np.isfinite(known.group[~np.eye(100, dtype=bool)]).all()


def test_a_volume_is_enough_and_names_of_no_known_atlas_have_one_order() -> None:
    labels = np.zeros((4, 4, 4), np.int16)
    labels[0], labels[3, 0] = 1, 2
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[0, 3] = -3
    known = reference.measure(Atlas("own", ("a", "b"), labels_volume=(labels, affine)))
    np.testing.assert_allclose(known.centroids, [[-3, 3, 3], [3, 0, 3]])
    assert known.stated == "stated order"
    assert not known.others
    assert np.isnan(known.group).all()
    unknown = reference.measure(Atlas("own", ("a", "b")))
    assert np.isnan(unknown.centroids).all()
    assert np.isnan(unknown.group).all()


def test_the_subcortex_comes_first_in_either_order() -> None:
    _, names, _ = schaefer(7)
    known = reference.measure(Atlas("own", ("thalamus", "caudate", *names), subcortical=(1, 2)))
    rows = known.others["17-network order"]
    assert rows[:2].tolist() == [0, 1]
    np.testing.assert_array_equal(rows[2:] - 2, np.argsort(packages.order_7_to_17(100)[1:]))
    assert np.isnan(known.group[:2]).all()


def test_schaefers_names_are_known_without_prefix_and_before_other_rois() -> None:
    _, names, seven = schaefer(7)
    bare = tuple(name.removeprefix("7Networks_") for name in names)
    known = reference.measure(Atlas("own", (*bare, "thalamus", "CC_LH_x")))
    assert known.stated == "7-network order"
    np.testing.assert_array_equal(known.group[:100, :100], seven.group)
    assert known.others["17-network order"][100:].tolist() == [100, 101]


def test_what_is_written_is_read_again(tmp_path) -> None:
    _, _, known = schaefer(17)
    reference.save(tmp_path / reference.FILE, known)
    again = reference.load_reference(tmp_path)
    assert (again.stated, list(again.others)) == (known.stated, list(known.others))
    np.testing.assert_array_equal(again.group, known.group)


def test_templates_of_an_earlier_version_are_made_again(tmp_path) -> None:
    with pytest.raises(ConfigError, match="make the templates again"):
        reference.load_reference(tmp_path)
