"""Label files that cannot be used: other labels, another order, no standard space."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bhx_prep.atlas.fetch import fetch
from bhx_prep.config.atlas import AtlasSection


def test_a_named_file_with_other_labels_is_refused(tmp_path: Path) -> None:
    mine = tmp_path / "atlas.nii.gz"
    nib.save(nib.Nifti1Image(np.arange(451, dtype=np.int16).reshape(451, 1, 1), np.eye(4)), mine)
    with pytest.raises(
        ValueError, match=r"should hold each of the labels 0\.\.400; 401 is too many \(and 49 more\)"
    ):
        fetch(AtlasSection(volume=mine), tmp_path / "out")
    few = np.where(np.arange(401) == 17, 0, np.arange(401)).astype(np.int16)
    nib.save(nib.Nifti1Image(few.reshape(401, 1, 1), np.eye(4)), mine)
    with pytest.raises(ValueError, match=r"labels 0\.\.400; 17 is missing: take"):
        fetch(AtlasSection(volume=mine), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_atlas_of_7_networks_with_names_of_17_is_refused(tmp_path: Path) -> None:
    seven = tmp_path / "Schaefer2018_100Parcels_7Networks_order.nii.gz"
    nib.save(nib.Nifti1Image(np.arange(101, dtype=np.int16).reshape(101, 1, 1), np.eye(4)), seven)
    with pytest.raises(ValueError, match=r"in the order of 7 networks, the names .* in that of 17"):
        fetch(AtlasSection(parcels=100, networks=17, volume=seven), tmp_path / "out")
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"17Networks_{side}H_Vis_{i}" for side in "LR" for i in range(50)))
    with pytest.raises(ValueError, match=r"but atlas\.networks is 7"):
        fetch(
            AtlasSection(source="files", parcels=100, networks=7, volume=seven, names=names), tmp_path / "out"
        )


def test_an_atlas_whose_name_states_no_space_is_refused(tmp_path: Path) -> None:
    mine = tmp_path / "mine.nii.gz"
    nib.save(nib.Nifti1Image(np.arange(101, dtype=np.int16).reshape(101, 1, 1), np.eye(4)), mine)
    with pytest.raises(ValueError, match="its name states no standard space"):
        fetch(AtlasSection(parcels=100, volume=mine), tmp_path / "out")
