"""Example scans: what is shown of whom, on one grid, without a face; and that what cannot be read costs the page nothing."""

from __future__ import annotations

from pathlib import Path

import example_study
import numpy as np
import pytest
import review_files

from bhx_prep.report import collect, example_scans


def find(study, results: Path, **changes) -> example_scans.Examples:
    study = study.model_copy(update=changes)
    return example_scans.find(study, results, [collect.summarise(study, results, "town")])


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    return example_study.write(tmp_path_factory.mktemp("town"))


def test_a_t1w_a_run_and_their_masks_beside_the_template(town):
    found = find(*town)
    (scan,) = found.scans
    assert [(layer.name, layer.kind) for layer in scan.layers] == [
        ("T1w", "image"),
        ("brain mask of the T1w", "mask"),
        ("BOLD reference", "image"),
        ("brain mask of the BOLD reference", "mask"),
    ]
    assert [layer.name for layer in found.shared] == ["template", "brain of the template", "parcels"]
    assert {layer.values.shape for layer in [*scan.layers, *found.shared]} == {found.shared[0].values.shape}
    assert [picture.caption.partition(": ")[0] for picture in scan.pictures] == [
        "town, T1w",
        "town, BOLD reference",
        "town",
    ]
    assert "01" not in " ".join(picture.caption + picture.alt for picture in scan.pictures)


def test_volumes_have_no_face_and_lie_where_they_were(town):
    found = find(*town)
    image, mask = found.scans[0].layers[:2]
    voxels = np.argwhere(mask.values > 0)
    own = np.argwhere(review_files.brain_mask()) @ review_files.AFFINE[:3, :3].T + review_files.AFFINE[:3, 3]
    shown = voxels @ found.affine[:3, :3].T + found.affine[:3, 3]
    np.testing.assert_allclose(shown.mean(0), own.mean(0), atol=0.5)
    face = (np.array([0, 112, -60]) - found.affine[:3, 3]) / example_scans.VOXEL_MM
    inside = np.all((face >= 0) & (face < image.values.shape))
    assert not inside or image.values[tuple(face.astype(int))] == 0
    assert image.values[mask.values > 0].mean() > 60


def test_measured_scans_are_kept_back_unless_they_are_asked_for(tmp_path):
    study, results = example_study.write(tmp_path, synthetic=False)
    assert find(study, results).kept_back == ["town"]
    assert find(study, results).scans == []
    assert len(find(study, results, report_scans="all").scans) == 1
    none = find(study, results, report_scans="none")
    assert (none.scans, none.kept_back) == ([], [])


def test_scans_that_cannot_be_read_are_left_out(tmp_path, caplog):
    study, results = example_study.write(tmp_path)
    for image in (tmp_path / "derivatives").rglob("*.nii.gz"):
        image.write_bytes(b"torn")
    assert find(study, results).scans == []
    assert "an example scan of town is not shown" in caplog.text


def test_without_a_template_there_is_none(town, tmp_path):
    study, results = town
    other = tmp_path / "results"
    other.mkdir()
    (other / "town").symlink_to(results / "town")
    assert find(study, other).scans == []
