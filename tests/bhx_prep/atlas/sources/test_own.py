"""An atlas of one's own: its names, and labels in volumes and on surfaces, matched by name or by number."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.freesurfer import write_annot

from bhx_model.errors import BhxError
from bhx_prep.atlas.atlas import load_atlas
from bhx_prep.atlas.fetch import fetch
from bhx_prep.atlas.sources.own import from_own_files
from bhx_prep.brain_maps import harmonics
from bhx_prep.config.atlas import AtlasSection
from bhx_prep.features import parcellate
from bhx_prep.io.meshes import FSAVERAGE_VERTICES, FSLR_VERTICES, GRAYORDINATES_AFFINE, GRAYORDINATES_SHAPE

VOLUME = "tpl-MNI152NLin6Asym_atlas-own_dseg.nii.gz"


@pytest.fixture
def own(tmp_path: Path) -> Callable[..., AtlasSection]:
    """Section of an atlas whose list of names has this text."""

    def make(names: str, **files) -> AtlasSection:
        (tmp_path / "names.txt").write_text(names)
        return AtlasSection(source="files", name="own", names=tmp_path / "names.txt", **files)

    return make


@pytest.fixture
def volume(tmp_path: Path) -> Callable[..., Path]:
    """A label image with these values, one voxel each."""

    def write(values, name: str = VOLUME, shape: tuple[int, ...] = (-1, 1, 1)) -> Path:
        values = np.asarray(values)
        values = values if values.dtype.kind == "f" else values.astype(np.int32)
        nib.save(nib.Nifti1Image(values.reshape(shape), np.eye(4)), tmp_path / name)
        return tmp_path / name

    return write


def test_a_list_of_names_is_an_atlas(own, tmp_path: Path) -> None:
    section = own("CC_1\nL_V1_ROI\nrh.cuneus\nLeft-Thalamus\n")
    metadata = fetch(section, tmp_path / "out")
    assert (metadata["label"], metadata["names"][0]) == ("own", "CC_1")
    assert metadata["hemisphere"] == [-1, 0, 1, 0]
    assert not (tmp_path / "out/atlas_volume.nii.gz").exists()
    atlas = load_atlas(tmp_path / "out")
    assert (atlas.n_rois, atlas.subcortical) == (4, ())
    with pytest.raises(BhxError, match="the atlas own is not there on MNI152NLin2009cAsym"):
        atlas.volume()
    with pytest.raises(BhxError, match="not available on fsLR-32k, where the harmonics are computed"):
        harmonics.compute(tmp_path / "out", 3)


def test_labels_of_a_volume_are_the_numbers_that_the_list_states(own, volume) -> None:
    listed = "index\tname\n30\tc\n10\ta\n20\tb\n"
    atlas = from_own_files(own(listed, volume=volume([0, 20, 10, 30])))
    assert (atlas.names, atlas.space) == (("a", "b", "c"), "MNI152NLin6Asym")
    assert atlas.volume()[0].ravel().tolist() == [0, 2, 1, 3]
    # a list without numbers: 1..R
    atlas = from_own_files(
        own("a\nb\nc\n", volume=volume(np.array([0, 2.0, 1, 3], np.float32), shape=(4, 1, 1, 1)))
    )
    assert atlas.volume()[0].ravel().tolist() == [0, 2, 1, 3]


def test_labels_of_a_volume_are_named_by_the_table_beside_it(own, volume, tmp_path: Path) -> None:
    image = volume([0, 5, 6, 7], "tpl-MNI152NLin2009cAsym_res-01_atlas-own_dseg.nii.gz")
    (tmp_path / "tpl-MNI152NLin2009cAsym_atlas-own_dseg.tsv").write_text("index\tname\n7\ta\n5\tb\n6\tc\n")
    assert from_own_files(own("a\nb\nc\n", volume=image)).volume()[0].ravel().tolist() == [0, 2, 3, 1]


@pytest.mark.parametrize(
    ("names", "values", "words"),
    [
        ("a\nb\nc\n", [0, 1, 2, 3, 4, 5], "2 labels are not in atlas.names, such as 4: state numbers beside the names"),
        ("a\nb\nc\n", [0, 1, 3], "1 of the 3 ROIs in atlas.names have no label there, such as 'b'"),
        ("1 a\n2 b\n", [0, 1, 7], "1 labels are not in atlas.names, such as 7; 1 names have no label, such as 'b'"),
        ("0 a\n1 b\n", [0, 1], "1 of the 2 ROIs .* no label there, such as 'a'"),
        ("a\nb\n", [0, 1, 2, -3], "not in atlas.names, such as -3"),
        ("a\nb\n", np.array([0, 1, 1.5, 2]), "holds 1.5, no label: resample"),
    ],
)  # fmt: skip
def test_labels_and_names_that_differ_are_refused(own, volume, tmp_path: Path, names, values, words) -> None:
    with pytest.raises(BhxError, match=words) as refused:
        from_own_files(own(names, volume=volume(values)))
    assert len(str(refused.value).replace(str(tmp_path), "")) <= 200


def test_what_is_no_label_image_is_refused(own, volume) -> None:
    with pytest.raises(BhxError, match=r"holds 2 volumes: one image of labels is expected"):
        from_own_files(own("a\nb\n", volume=volume(np.ones(8), shape=(2, 2, 1, 2))))
    with pytest.raises(BhxError, match="its name states no standard space"):
        from_own_files(own("a\nb\n", volume=volume([0, 1, 2], "cc200.nii.gz")))


def test_an_atlas_has_a_volume_for_each_space(own, volume, tmp_path: Path) -> None:
    second = volume([0, 2, 1], "tpl-MNI152NLin2009cAsym_atlas-own_dseg.nii.gz")
    fetch(own("a\nb\n", volume=[volume([0, 1, 2]), second]), tmp_path / "out")
    for space, labels in (("MNI152NLin6Asym", [0, 1, 2]), ("MNI152NLin2009cAsym", [0, 2, 1])):
        atlas = load_atlas(tmp_path / "out", space)
        assert atlas.space == space
        assert atlas.volume()[0].ravel().tolist() == labels
    with pytest.raises(BhxError, match=r"two label images in MNI152NLin6Asym.*; name one$"):
        fetch(own("a\nb\n", volume=[volume([0, 1, 2]), volume([0, 1, 2], VOLUME)]), tmp_path / "out")


def annotations(
    folder: Path, left: list[str], right: list[str], n: int = FSAVERAGE_VERTICES
) -> dict[str, Path]:
    """FreeSurfer's labels of both hemispheres: these parcels, a hundred vertices each, behind an unknown one."""
    files = {}
    for side, names in (("left", left), ("right", right)):
        labels = np.zeros(n, np.int32)
        labels[: 100 * len(names)] = np.repeat(np.arange(1, len(names) + 1), 100)
        colours = np.array([[i, i, i, 0, i * 65793] for i in range(len(names) + 1)])
        files[side] = folder / f"{side}.annot"
        write_annot(files[side], labels, colours, ["unknown", *names], fill_ctab=False)
    return files


def test_annotations_name_parcels_without_their_side(own, tmp_path: Path) -> None:
    files = annotations(
        tmp_path, ["insula", "cuneus", "ctx-lh-unknown"], ["cuneus", "insula", "corpuscallosum"]
    )
    atlas = from_own_files(own("rh_cuneus\nlh_cuneus\nlh_insula\nrh_insula\n", **files))
    left, right = atlas.surface("fsaverage5")
    assert (left[[0, 100, 200]].tolist(), right[[0, 100, 200]].tolist()) == ([3, 2, 0], [1, 4, 0])
    assert atlas.hemisphere == (1, 0, 0, 1)


@pytest.mark.parametrize(
    ("names", "left", "right", "words"),
    [
        ("a\nb\n", ["a", "b"], ["a", "b"], r"'a' is on both hemispheres \(2 such ROIs\)"),
        ("lh_a\nrh_b\n", ["rh_b"], ["lh_a"], "is on the left hemisphere: are they swapped"),
        ("a\nb\nc\n", ["a"], ["b"], "1 of the 3 ROIs in atlas.names have no label there, such as 'c'"),
        ("a\nb\n", ["a"], ["b", "other"], "1 labels are not in atlas.names, such as 'other'"),
    ],
)
def test_surfaces_that_do_not_fit_the_names_are_refused(
    own, tmp_path: Path, names, left, right, words
) -> None:
    with pytest.raises(BhxError, match=words):
        from_own_files(own(names, **annotations(tmp_path, left, right)))


def test_an_own_atlas_on_grayordinates_has_series_and_harmonics(own, tmp_path: Path) -> None:
    """The subcortex may stand anywhere among the names, and names need not state a side."""
    inside = np.zeros(GRAYORDINATES_SHAPE, bool)
    inside[40:44, 50, 40] = True
    cortex = np.load(fetch_cortex(tmp_path))
    models, labels = (
        nib.cifti2.BrainModelAxis.from_mask(inside, "brain_stem", GRAYORDINATES_AFFINE),
        [np.full(4, 12)],
    )
    for side, value in (("left", 11), ("right", 13)):
        models += nib.cifti2.BrainModelAxis.from_mask(cortex[side], f"cortex_{side}")
        labels.append(np.full(cortex[side].sum(), value))
    table = {
        0: ("???", (0, 0, 0, 0)),
        11: ("one", (1, 0, 0, 1)),
        12: ("stem", (1, 0, 0, 1)),
        13: ("two", (1, 0, 0, 1)),
    }
    header = (nib.cifti2.LabelAxis(["atlas"], [table]), models)
    values = np.concatenate(labels)[None].astype(np.float32)
    nib.save(nib.Cifti2Image(values, header), tmp_path / "own.dlabel.nii")
    metadata = fetch(own("two\nstem\none\n", cifti=tmp_path / "own.dlabel.nii"), tmp_path / "out")
    assert (metadata["hemisphere"], metadata["subcortical"]) == ([1, -1, 0], [2])
    series = nib.Cifti2Image(
        (values + np.arange(3)[:, None]).astype(np.float32), (nib.cifti2.SeriesAxis(0, 2, 3), models)
    )
    nib.save(series, tmp_path / "run.dtseries.nii")
    found = parcellate.parcellate_file(tmp_path / "run.dtseries.nii", load_atlas(tmp_path / "out"))
    np.testing.assert_array_equal(found.series[:, 0], [13, 12, 11])
    _, columns, described = harmonics.compute(tmp_path / "out", 2)
    assert columns["name"] == ["two", "stem", "one"]
    assert described["without_cortex"] == ["stem"]
    assert columns["mode_001"][1] == 0
    assert abs(columns["mode_001"][0]) > 0


def fetch_cortex(folder: Path) -> Path:
    from bhx_prep.atlas.sources import packages

    left, right = packages.read_cortex()
    assert left.size == FSLR_VERTICES
    np.savez(folder / "cortex.npz", left=left, right=right)
    return folder / "cortex.npz"
