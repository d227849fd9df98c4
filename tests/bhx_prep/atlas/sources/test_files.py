"""An atlas from files that the configuration names, alone or in place of those of another source."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from atlas_files import with_subcortex

from bhx_prep.atlas.atlas import load_atlas
from bhx_prep.atlas.fetch import fetch
from bhx_prep.atlas.label_files import read_names
from bhx_prep.brain_maps import harmonics
from bhx_prep.config.atlas import AtlasSection
from bhx_prep.features import parcellate


def test_a_file_named_in_the_config_overrides_that_of_the_source(tmp_path: Path) -> None:
    mine = tmp_path / "tpl-MNI152NLin6Asym_atlas-mine_dseg.nii.gz"
    labels = np.arange(101, dtype=np.int16).reshape(101, 1, 1)
    nib.save(nib.Nifti1Image(labels, np.eye(4)), mine)
    metadata = fetch(AtlasSection(parcels=100, networks=7, volume=mine), tmp_path / "out")
    written = nib.load(tmp_path / "out/atlas_volume.nii.gz")
    np.testing.assert_array_equal(np.asarray(written.dataobj), labels)
    assert metadata["space"] == "MNI152NLin6Asym"
    assert metadata["source"].endswith("files named in the config: atlas_volume.nii.gz")
    assert mine.name in metadata["inputs"]
    assert "atlas_fsLR.npz" in metadata["files"]  # the others are those of the source


def test_subcortex_comes_before_the_cortex(tmp_path: Path) -> None:
    volume, cifti, names = with_subcortex(tmp_path)
    atlas = AtlasSection(
        source="files", parcels=100, networks=7, subcortex="S1", volume=volume, cifti=cifti, names=names
    )
    metadata = fetch(atlas, tmp_path / "out")
    assert metadata["label"] == "Schaefer7n100pTianS1"
    assert metadata["names"][:2] == ["HIP-part0-rh", "HIP-part1-rh"]
    assert metadata["names"][16] == "7Networks_LH_Vis_1"
    assert metadata["hemisphere"][:16] == [1] * 8 + [0] * 8
    assert metadata["space"] == "MNI152NLin2009cAsym"
    # a series that holds the label of every grayordinate
    image = nib.load(cifti)
    values = np.asarray(image.dataobj) + np.arange(3)[:, None]
    axes = nib.cifti2.SeriesAxis(0, 2.0, 3), image.header.get_axis(1)
    nib.save(nib.Cifti2Image(values.astype(np.float32), axes), tmp_path / "run.dtseries.nii")
    known = load_atlas(tmp_path / "out")
    found = parcellate.parcellate_file(tmp_path / "run.dtseries.nii", known)
    np.testing.assert_array_equal(found.series[:, 0], np.arange(1, 117))
    np.testing.assert_array_equal(found.coverage, 1)
    known.volume()  # holds what it should
    label, columns, described = harmonics.compute(tmp_path / "out", 3)
    assert (label, columns["name"]) == (metadata["label"], metadata["names"])
    modes = np.stack([columns[f"mode_{k:03d}"] for k in (1, 2, 3)])
    assert (modes[:, :16] == 0).all()
    assert (modes[:, 16:] != 0).all()
    assert described["without_cortex"] == metadata["names"][:16]


def test_another_number_of_names_than_the_config_states_is_refused(tmp_path: Path) -> None:
    volume, _, names = with_subcortex(tmp_path)
    files = {"source": "files", "networks": 7, "volume": volume, "names": names}
    with pytest.raises(
        ValueError, match=r"holds 116 names, but atlas.parcels is 100 .*set atlas.subcortex to S1"
    ):
        fetch(AtlasSection(parcels=100, **files), tmp_path / "out")
    with pytest.raises(
        ValueError, match=r"holds 116 names, but 50 of the subcortex and atlas.parcels is 100"
    ):
        fetch(AtlasSection(parcels=100, subcortex="S3", **files), tmp_path / "out")
    lines = read_names(names)
    names.write_text("\n".join([*lines[16:], *lines[:16]]))
    with pytest.raises(ValueError, match=r"7Networks_LH_Vis_1 in row 1, where atlas.subcortex asks for 16"):
        fetch(AtlasSection(parcels=100, subcortex="S1", **files), tmp_path / "out")
    with pytest.raises(ValueError, match="neither the packages nor TemplateFlow carry Tian's subcortex"):
        AtlasSection(subcortex="S1")


@pytest.mark.parametrize("networks", [7, 17])
def test_tians_own_files(shared, tmp_path: Path, networks) -> None:
    stem = f"data/atlas/Schaefer2018_400Parcels_{networks}Networks_order_Tian_Subcortex_S3"
    cifti = shared(f"{stem}.dlabel.nii")
    listed = shared("data/atlas/Schaefer2018_400Parcels_17Networks_order_Tian_Subcortex_S3_label.txt")
    cortex = shared(f"data/atlas/Schaefer2018_400Parcels_{networks}Networks_order.txt")
    names = tmp_path / "names.txt"
    names.write_text("\n".join([*read_names(listed)[:50], *read_names(cortex)]))
    volume = shared(f"{stem}_3T_MNI152NLin2009cAsym_2mm.nii.gz") if networks == 7 else None
    atlas = AtlasSection(
        source="files", networks=networks, subcortex="S3", volume=volume, cifti=cifti, names=names
    )
    metadata = fetch(atlas, tmp_path / "out")
    assert len(metadata["names"]) == 450
    assert metadata["names"][:2] == ["HIP-head-m-rh", "HIP-head-l-rh"]
    known = load_atlas(tmp_path / "out")
    image = nib.load(cifti)
    values = np.asarray(image.dataobj) + np.arange(2)[:, None]
    axes = nib.cifti2.SeriesAxis(0, 2.0, 2), image.header.get_axis(1)
    nib.save(nib.Cifti2Image(values.astype(np.float32), axes), tmp_path / "run.dtseries.nii")
    found = parcellate.parcellate_file(tmp_path / "run.dtseries.nii", known)
    np.testing.assert_array_equal(found.series[:, 0], np.arange(1, 451))
    if volume:
        assert metadata["space"] == "MNI152NLin2009cAsym"
        known.volume()
