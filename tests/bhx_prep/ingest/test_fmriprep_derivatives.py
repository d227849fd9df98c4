"""`input: fmriprep`: which of its outputs are taken, in every space, and what is missing."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.cifti2 import BrainModelAxis, Cifti2Image, SeriesAxis
from small_bids import rows_of, the_bold, write_image, write_json

from bhx_model.contract import check_key
from bhx_prep.ingest import index

RUN = "sub-01/func/sub-01_task-rest"
SPACE = "space-MNI152NLin2009cAsym"


def write_confounds(root: Path, stem: str = RUN):
    path = root / f"{stem}_desc-confounds_timeseries.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("trans_x\n" + "0.1\n" * 10)


def write_volume(root: Path, *, stem=RUN, res=None, space=SPACE, frames=10):
    grid = space + (f"_res-{res}" if res else "")
    write_confounds(root, stem)
    write_image(root / f"{stem}_{grid}_desc-brain_mask.nii.gz")
    write_json(root / f"{stem}_{grid}_desc-preproc_bold.json", RepetitionTime=2.0)
    return write_image(root / f"{stem}_{grid}_desc-preproc_bold.nii.gz", frames=frames)


def write_surface(root: Path, hemi: str, *, frames=10, space="fsaverage5", sidecar=True):
    path = root / f"{RUN}_hemi-{hemi}_space-{space}_bold.func.gii"
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = [nib.gifti.GiftiDataArray(np.zeros(5, np.float32)) for _ in range(frames)]
    nib.save(nib.gifti.GiftiImage(darrays=arrays), path)
    if sidecar:
        write_json(root / f"{RUN}_hemi-{hemi}_space-{space}_bold.json", RepetitionTime=1.4)
    write_confounds(root)
    return path


def write_cifti(path: Path, *, frames=12, step=0.8, unit="SECOND"):
    path.parent.mkdir(parents=True, exist_ok=True)
    axes = SeriesAxis(0, step, frames, unit), BrainModelAxis.from_mask(np.ones(5), name="CortexLeft")
    Cifti2Image(np.zeros((frames, 5), np.float32), axes).to_filename(path)
    return path


def derivatives(root: Path, **cohort):
    return rows_of(root, input="fmriprep", **cohort)


@pytest.mark.parametrize(
    ("space", "kind", "reason"),
    [
        ("MNI152NLin2009cAsym", "volume", "file is empty; confounds table: file is empty"),
        (
            "fsaverage5",
            "gifti",
            "hemisphere L: file is empty; hemisphere R: file is empty; confounds table: file is empty",
        ),
        (
            "MNI152NLin6Asym",
            "volume",
            "no BOLD in space MNI152NLin6Asym; there is: MNI152NLin2009cAsym, fsaverage5, fsnative"
            " (the cohort's `space` chooses)",
        ),
        (
            "fsLR",
            "gifti",
            "no BOLD in space fsLR; there is: MNI152NLin2009cAsym, fsaverage5, fsnative (the cohort's `space` chooses)",
        ),
    ],
)
def test_a_full_tree_of_fmriprep_20(fmriprep_example, space, kind, reason):
    rows = derivatives(fmriprep_example, tasks=("balloonanalogrisktask",), space=space)
    bolds = [row for row in rows if row["modality"] == "bold"]
    assert len(bolds) == 12
    assert [row["key"] for row in rows if row["modality"] == "t1w"] == [
        f"study_sub-{label}" for label in (10, 11, 13, 16)
    ]
    assert {row["reason"] for row in bolds} == {reason}
    assert {row["kind"] for row in bolds} == {kind}
    if "there is" not in reason:
        assert {row["tr_s"] for row in bolds} == {2.0}  # surfaces: from the sidecar of the same run's volume


@pytest.mark.parametrize(
    ("listing", "space", "taken"),
    [
        ("expected_ds005.txt", "fsaverage5", ["hemi-L_space-fsaverage5_bold.func.gii"] * 2),
        ("expected_ds005_partial.txt", "fsLR", ["space-fsLR_den-91k_bold.dtseries.nii"]),
        ("expected_ds005_partial.txt", "MNI152NLin6Asym", ["space-MNI152NLin6Asym_desc-preproc_bold.nii.gz"]),
        ("expected_ds054.txt", "MNI152NLin2009cAsym", [f"{SPACE}_res-2_desc-preproc_bold.nii.gz"] * 2),
        ("expected_ds210.txt", "MNI152NLin2009cAsym", [f"{SPACE}_desc-preproc_bold.nii.gz"]),  # echoes beside
    ],
)
def test_files_that_fmriprep_25_writes(shared, tmp_path, listing, space, taken):
    for line in shared(f"data/fmriprep/{listing}").read_text().split():
        path = tmp_path / line
        if path.suffix and line.startswith("sub-") and "/" in line:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}" if path.suffix == ".json" else "")
    tasks = ("mixedgamblestask", "machinegame", "cuedSGT")
    rows = [row for row in derivatives(tmp_path, tasks=tasks, space=space) if row["modality"] == "bold"]
    found = [row for row in rows if row["path"]]
    stems = [Path(row["path"]).name.split("_", 2)[2] for row in found]
    assert [stem.split("_", 1)[1] if stem.startswith("run") else stem for stem in stems] == taken
    assert all(row["confounds"].endswith("_desc-confounds_timeseries.tsv") for row in found)
    for row in rows:
        check_key(row["key"])


def test_a_volume_with_all_its_files(tmp_path):
    path = write_volume(tmp_path, res=2)
    head = tmp_path / "sub-01/anat" / f"sub-01_{SPACE}_res-2_desc-preproc_T1w.nii.gz"
    write_image(head)
    write_image(head.with_name("sub-01_desc-preproc_T1w.nii.gz"))
    mask = write_image(head.with_name(f"sub-01_{SPACE}_res-2_desc-brain_mask.nii.gz"))
    bold, anat = derivatives(tmp_path)
    assert bold == {
        **dict.fromkeys(index.SCHEMA.names),
        "cohort": "study", "input": "fmriprep", "subject": "01", "modality": "bold",
        "key": "study_sub-01_task-rest", "task": "rest", "kind": "volume", "tr_s": 2.0, "n_frames": 10,
        "path": str(path), "sidecar": str(path).replace(".nii.gz", ".json"),
        "mask": str(path).replace("desc-preproc_bold", "desc-brain_mask"),
        "confounds": str(tmp_path / f"{RUN}_desc-confounds_timeseries.tsv"), "anat": "study_sub-01",
        "space": "MNI152NLin2009cAsym", "synthetic": False, "status": "ok", "notes": [],
    }  # fmt: skip
    assert (anat["path"], anat["mask"], anat["status"]) == (str(head), str(mask), "ok")


@pytest.mark.parametrize(
    ("there", "taken"), [((1, 2), "_res-2"), ((1, None), ""), ((None, 2), "_res-2"), ((1,), "_res-1")]
)
def test_which_resolution_is_taken(tmp_path, there, taken):
    for res in there:
        write_volume(tmp_path, res=res)
    row = the_bold(derivatives(tmp_path))
    assert row["path"].endswith(f"task-rest_{SPACE}{taken}_desc-preproc_bold.nii.gz")
    assert row["mask"].endswith(f"task-rest_{SPACE}{taken}_desc-brain_mask.nii.gz")


def test_what_a_run_lacks(tmp_path):
    path = write_volume(tmp_path)
    confounds = tmp_path / f"{RUN}_desc-confounds_timeseries.tsv"
    confounds.unlink()
    assert (
        the_bold(derivatives(tmp_path))["reason"] == "no confounds table (.._desc-confounds_timeseries.tsv)"
    )
    confounds.touch()
    assert the_bold(derivatives(tmp_path))["reason"] == "confounds table: file is empty"
    confounds.rename(tmp_path / f"{RUN}_desc-confounds_regressors.tsv")  # the name of fMRIPrep 1
    assert the_bold(derivatives(tmp_path))["reason"] == "confounds table: file is empty"
    path.unlink()
    assert the_bold(derivatives(tmp_path))["reason"] == "no BOLD in space MNI152NLin2009cAsym"


def test_a_head_in_another_space_is_a_reason_and_no_head_is_none(tmp_path):
    write_volume(tmp_path)
    assert [row["modality"] for row in derivatives(tmp_path)] == ["bold"]
    write_image(tmp_path / "sub-01/anat/sub-01_desc-preproc_T1w.nii.gz")
    bold, anat = derivatives(tmp_path)
    assert (bold["status"], bold["anat"]) == ("ok", None)
    assert anat["reason"] == "no T1w image in space MNI152NLin2009cAsym; there is: native"


def test_surfaces_are_pairs(tmp_path):
    left, right = write_surface(tmp_path, "L"), write_surface(tmp_path, "R")
    row = the_bold(derivatives(tmp_path, space="fsaverage5"))
    assert (row["kind"], row["path"], row["path_right"]) == ("gifti", str(left), str(right))
    assert (row["tr_s"], row["n_frames"], row["status"]) == (1.4, 10, "ok")
    write_surface(tmp_path, "R", frames=9)
    assert (
        "the hemispheres have 10 and 9 frames"
        in the_bold(derivatives(tmp_path, space="fsaverage5"))["reason"]
    )
    right.write_text("<html>")
    assert (
        "hemisphere R: not a readable GIfTI file"
        in the_bold(derivatives(tmp_path, space="fsaverage5"))["reason"]
    )
    right.unlink()
    row = the_bold(derivatives(tmp_path, space="fsaverage5"))
    assert (row["reason"], row["path"]) == ("the right hemisphere is missing", str(left))
    left.unlink()
    write_surface(tmp_path, "R")
    assert the_bold(derivatives(tmp_path, space="fsaverage5"))["reason"] == "the left hemisphere is missing"


def test_a_surface_without_a_repetition_time(tmp_path):
    for hemi in "LR":
        write_surface(tmp_path, hemi, sidecar=False)
    assert "no repetition time" in the_bold(derivatives(tmp_path, space="fsaverage5"))["reason"]
    assert the_bold(derivatives(tmp_path, space="fsaverage5", tr_s=1.4))["tr_s"] == 1.4


def test_grayordinates(tmp_path):
    write_confounds(tmp_path)
    path = write_cifti(tmp_path / f"{RUN}_space-fsLR_den-91k_bold.dtseries.nii")
    write_cifti(tmp_path / f"{RUN}_space-fsLR_den-170k_bold.dtseries.nii")
    row = the_bold(derivatives(tmp_path, space="fsLR"))
    assert (row["kind"], row["path"], row["n_frames"], row["tr_s"]) == ("cifti", str(path), 12, 0.8)
    assert row["status"] == "ok"
    write_json(tmp_path / f"{RUN}_space-fsLR_den-91k_bold.json", RepetitionTime=2.0)
    row = the_bold(derivatives(tmp_path, space="fsLR"))
    assert (row["status"], row["tr_s"]) == ("ok", 2.0)
    assert row["notes"] == [
        "file chosen among several: den-91k, of 2 resolutions of this run",
        "repetition time chosen: the sidecar says 2 s, the image header 0.8 s: the sidecar's is used, as fMRIPrep documents",
    ]
    path.write_bytes(b"no header")
    assert "is no CIFTI-2 file" in the_bold(derivatives(tmp_path, space="fsLR"))["reason"]
    write_image(path, frames=4)
    assert "is no CIFTI" in the_bold(derivatives(tmp_path, space="fsLR"))["reason"]


def test_after_our_own_preprocessing(tmp_path):
    write_volume(tmp_path)
    write_volume(tmp_path, stem="sub-02/func/sub-02_task-nback")
    table = index.derivatives(
        tmp_path, cohort="study", space="MNI152NLin2009cAsym", subjects=["01", "02", "03"]
    )
    assert table.schema == index.SCHEMA
    assert [(row["subject"], row["status"], row["task"]) for row in table.to_pylist()] == [
        ("01", "ok", "rest"), ("02", "ok", "nback"), ("03", "excluded", None),
    ]  # fmt: skip
    assert table["reason"][2].as_py() == f"there is no folder sub-03 in {tmp_path}"
    nowhere = index.derivatives(tmp_path / "none", cohort="study", space="fsLR", subjects=["01"])
    assert nowhere["status"].to_pylist() == ["excluded"]


def test_raw_and_derivative_rows_have_the_same_keys(tmp_path):
    from small_bids import write_subject

    raw = tmp_path / "raw"
    write_subject(raw)
    write_volume(tmp_path / "out")
    write_image(tmp_path / "out/sub-01/anat" / f"sub-01_{SPACE}_desc-preproc_T1w.nii.gz")
    assert [row["key"] for row in rows_of(raw)] == [row["key"] for row in derivatives(tmp_path / "out")]


def test_the_reason_of_raw_data_at_this_input_names_theirs(tmp_path):
    write_image(tmp_path / f"{RUN}_bold.nii.gz", frames=10)
    row = the_bold(rows_of(tmp_path, input="fmriprep"))
    assert row["reason"] == (
        "no BOLD in space MNI152NLin2009cAsym; there is: native: for raw data use `input: bids`"
    )
