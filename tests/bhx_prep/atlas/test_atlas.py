"""The atlas of a template folder: read, checked, and resampled once per grid."""

from __future__ import annotations

import json

import pytest

from bhx_prep.atlas import resample
from bhx_prep.atlas.atlas import load_atlas
from bhx_prep.features import parcellate


def test_resampled_atlas_is_made_once_per_grid(volume, atlas, monkeypatch):
    calls = []
    original = resample.nearest_labels
    monkeypatch.setattr(resample, "nearest_labels", lambda *a: calls.append(1) or original(*a))
    for i in range(3):
        parcellate.parcellate_file(volume(name=f"b{i}.nii.gz")[0], atlas)
    parcellate.parcellate_file(volume(mm=6.0, name="other.nii.gz")[0], atlas)
    assert len(calls) == 2


def test_atlas_with_another_number_of_labels_is_refused(templates_folder, tmp_path, volume):
    for name in ("atlas.json", "atlas_volume.nii.gz"):
        (tmp_path / name).write_bytes((templates_folder / name).read_bytes())
    metadata = json.loads((tmp_path / "atlas.json").read_text())
    metadata["names"], metadata["hemisphere"] = metadata["names"][:-1], metadata["hemisphere"][:-1]
    (tmp_path / "atlas.json").write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match=r"8 labels \(1\.\.8\), expected 7 \(1\.\.7\)"):
        parcellate.parcellate_file(volume()[0], load_atlas(tmp_path))
    (tmp_path / "atlas.json").unlink()
    with pytest.raises(ValueError, match=r"bhx_prep\.atlas\.fetch"):
        load_atlas(tmp_path)
