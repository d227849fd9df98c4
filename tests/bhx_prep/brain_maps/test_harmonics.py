"""The table of harmonics: parcel means in the order of the atlas, from both hemispheres."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from meshes import ellipsoid, write_surface

from bhx_model.errors import DataError
from bhx_prep.brain_maps import eigenmodes, harmonics, join


def test_parcel_means_are_weighted_by_area() -> None:
    modes = np.arange(10.0).reshape(5, 2)
    labels, areas = np.array([2, 2, 0, 1, 1]), np.array([1.0, 3.0, 9.0, 2.0, 2.0])
    found = harmonics.parcel_means(modes, labels, areas, 3)
    np.testing.assert_allclose(found[:2], [[7, 8], [1.5, 2.5]])
    assert np.isnan(found[2]).all()
    with pytest.raises(DataError, match="labels run from 0 to 2, the atlas has 1"):
        harmonics.parcel_means(modes, labels, areas, 1)


@pytest.fixture
def templates(tmp_path: Path) -> Path:
    """Two lobes that are mirror images, four parcels each."""
    v, f = ellipsoid(2)
    cortex = v[:, 0] < 12
    quarter = 1 + (v[:, 1] > 0) + 2 * (v[:, 2] > 0)
    names = [f"17Networks_{h}H_Net_{i}" for h in "LR" for i in range(1, 5)]
    atlas = {
        "label": "Toy",
        "names": names,
        "hemisphere": [0] * 4 + [1] * 4,
        "files": {},
        "source": "",
        "space": "",
        "missing": {},
    }
    (tmp_path / "atlas.json").write_text(json.dumps(atlas))
    np.savez(tmp_path / "atlas_fsLR.npz", left=quarter.astype(np.int16), right=(quarter + 4).astype(np.int16))
    np.savez(tmp_path / "cortex.npz", left=cortex, right=cortex)
    for side, x in (("left", 1), ("right", -1)):
        write_surface(tmp_path / f"surface_{side}.surf.gii", v * [x, 1, 1], f[:, ::x])
    return tmp_path


def test_command_line_writes_rows_in_the_order_of_the_atlas(templates: Path) -> None:
    out = templates / "harmonics.parquet"
    args = ["--templates", str(templates), "--modes", "10", "--out", str(out)]
    assert harmonics.main(args) == 0
    columns, metadata = join.read_table(out)
    assert list(columns) == ["name", "hemisphere", *(f"mode_{m:03d}" for m in range(1, 11))]
    assert columns["name"].tolist() == json.loads((templates / "atlas.json").read_text())["names"]
    assert columns["hemisphere"].tolist() == [0] * 4 + [1] * 4
    # mirror images have the same modes with the same signs
    for m in range(1, 11):
        column = columns[f"mode_{m:03d}"]
        np.testing.assert_allclose(column[:4], column[4:], atol=1e-6)
    np.testing.assert_allclose(metadata["hemisphere_correlation"], 1, atol=1e-3)
    assert len(metadata["eigenvalues"]["left"]) == len(metadata["eigenvalues"]["right"]) == 10
    assert metadata["left"]["residual"] < eigenmodes.TOLERANCE
    assert metadata["atlas"] == "Toy"
    first = out.read_bytes()
    assert harmonics.main(args) == 0
    assert out.read_bytes() == first


@pytest.mark.parametrize(("function", "call"), [("eigenmodes.modes", 2), ("join.pq.write_table", 1)])
def test_a_killed_step_gives_the_same_bytes_when_run_again(
    templates: Path, check_kill, function: str, call: int
) -> None:
    words = ["--templates", str(templates), "--modes", "5", "--out"]
    check_kill("bhx_prep.brain_maps.harmonics", function, call, lambda out: [*words, str(out / "h.parquet")])


def test_a_parcel_off_the_cortex_is_named(templates: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with np.load(templates / "atlas_fsLR.npz") as file:
        left, right = file["left"], file["right"]
    left[left == 3] = 0
    np.savez(templates / "atlas_fsLR.npz", left=left, right=right)
    assert (
        harmonics.main(["--templates", str(templates), "--modes", "5", "--out", str(templates / "h.parquet")])
        == 1
    )
    assert "1 parcels have no vertex on the cortex, e.g. 17Networks_LH_Net_3" in capsys.readouterr().err


def test_a_faulty_hemisphere_is_named(templates: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = nib.load(templates / "surface_right.surf.gii")
    triangles = image.darrays[1].data
    image.darrays[1].data = np.concatenate([triangles[1:], triangles[1:2]])
    nib.save(image, templates / "surface_right.surf.gii")
    words = ["--templates", str(templates), "--modes", "5", "--out", str(templates / "h.parquet")]
    assert harmonics.main(words) == 1
    assert " ERROR right: 2 edges belong to more than two triangles" in capsys.readouterr().err


def test_labels_of_another_surface_are_refused(templates: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(templates / "atlas_fsLR.npz", left=np.ones(10, np.int16), right=np.ones(10, np.int16))
    assert (
        harmonics.main(["--templates", str(templates), "--modes", "5", "--out", str(templates / "h.parquet")])
        == 1
    )
    assert "10 labels for 162 vertices" in capsys.readouterr().err
