"""What a cohort's derivatives of fMRIPrep say of themselves, and that they are BIDS."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from bids_validation import errors

from bhx_prep.config.preproc import PreprocSection
from bhx_prep.preproc import fmriprep_dataset
from bhx_prep.preproc.altering_results import OF_EMBEDDED, OF_FMRIPREP, OF_THE_MACHINE, altering_results
from bhx_prep.preproc.dataset_description import configuration_hash
from bhx_prep.preproc.publish import publish

#: Names that fMRIPrep 25.2 lists in its own .bidsignore.
IGNORED = (
    "*.html", "logs/", "figures/", "*_xfm.*", "*.surf.gii", "*_boldref.nii.gz", "*_bold.func.gii", "*_mixing.tsv",
    "*_timeseries.tsv",
)  # fmt: skip
#: As it describes its derivatives: places are those of its container.
DESCRIBED = {
    "Name": "fMRIPrep - fMRI PREProcessing workflow",
    "BIDSVersion": "1.4.0",
    "DatasetType": "derivative",
    "GeneratedBy": [
        {"Name": "fMRIPrep", "Version": "25.2.7", "CodeURL": "https://github.com/nipreps/fmriprep"}
    ],
    "HowToAcknowledge": "Please cite our paper",
    "DatasetLinks": {"raw": "/data", "templateflow": "https://github.com/templateflow/templateflow"},
}
DIGEST = "sha256:" + "0123456789abcdef" * 4


def section(**changes) -> dict:
    return PreprocSection.model_validate({"backend": "fmriprep-docker", **changes}).model_dump(mode="json")


def hash_of(**changes) -> str:
    return configuration_hash(fmriprep_dataset.settings(section(**changes)))


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """What one subject's job leaves."""
    folder = tmp_path / "work/out"
    (folder / "logs").mkdir(parents=True)
    (folder / "dataset_description.json").write_text(json.dumps(DESCRIBED))
    (folder / ".bidsignore").write_text("\n".join(IGNORED) + "\n")
    (folder / "logs/CITATION.md").write_text("Results included in this manuscript come from ...")
    return folder


@pytest.fixture
def raw(tmp_path: Path, monkeypatch) -> Path:
    """The raw dataset of a study, whose folder is the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw").mkdir()
    about = {"Name": "Heads", "DatasetDOI": "doi:10.1/x", "License": "CC0", "Synthetic": True}
    (tmp_path / "raw/dataset_description.json").write_text(json.dumps(about))
    return Path("raw")


def test_places_of_the_container_become_those_of_the_machine(made: Path, raw: Path, tmp_path: Path):
    (tmp_path / "earlier").mkdir()
    words = ("--derivatives", f"anat={tmp_path / 'earlier'}")
    settings = section(image=f"nipreps/fmriprep:25.2.7@{DIGEST}", fmriprep_args=words)
    out = tmp_path / "results/preproc"
    publish(made, out, "01")
    fmriprep_dataset.write_description(made, out, raw, settings)
    about = json.loads((out / "dataset_description.json").read_text())
    assert about["DatasetLinks"] == {
        "raw": "../../raw",
        "anat": (tmp_path / "earlier").as_uri(),
        "templateflow": "https://github.com/templateflow/templateflow",
    }
    assert about["SourceDatasets"] == [{"URL": "../../raw", "DOI": "doi:10.1/x"}]
    assert about["HowToAcknowledge"] == "Please cite our paper"
    assert (about["License"], about["Synthetic"]) == ("CC0", True)
    fmriprep, bhx = about["GeneratedBy"]
    assert (fmriprep["Name"], fmriprep["Version"], bhx["Name"]) == ("fMRIPrep", "25.2.7", "bhx")
    assert fmriprep["Container"] == {
        "Type": "docker",
        "Tag": "nipreps/fmriprep:25.2.7",
        "URI": f"docker://nipreps/fmriprep@{DIGEST}",
        "Digest": DIGEST,
    }
    assert {*IGNORED, "*_status.json"} <= set((out / ".bidsignore").read_text().split())


def test_docker_says_which_digest_ran(tmp_path: Path, monkeypatch):
    answers = {
        '[{"Id": "sha256:aa", "RepoDigests": ["nipreps/fmriprep@sha256:bb"]}]': "sha256:bb",
        '[{"Id": "sha256:aa", "RepoDigests": []}]': "sha256:aa",
        "[]": None,
        "no JSON": None,
    }
    for said, digest in answers.items():
        done = subprocess.CompletedProcess([], 0, said, "")
        monkeypatch.setattr(subprocess, "run", lambda *_, done=done, **__: done)
        assert fmriprep_dataset.container(section(), tmp_path).get("Digest") == digest


def test_an_image_file_is_hashed_once(tmp_path: Path, monkeypatch):
    image = tmp_path / "images/fmriprep.sif"
    image.parent.mkdir()
    image.write_bytes(b"an image")
    settings = section(backend="fmriprep-apptainer", image=str(image))
    first = fmriprep_dataset.container(settings, tmp_path)
    assert (first["Type"], first["URI"]) == ("apptainer", "fmriprep.sif")
    assert len(first["Digest"]) == len(DIGEST)
    monkeypatch.setattr(fmriprep_dataset, "file_sha256", None)  # not again
    assert fmriprep_dataset.container(settings, tmp_path) == first
    monkeypatch.undo()
    image.write_bytes(b"another")
    assert fmriprep_dataset.container(settings, tmp_path)["Digest"] != first["Digest"]


def test_the_hash_is_of_what_alters_results(tmp_path: Path):
    bare = hash_of()
    filters = [tmp_path / name for name in ("a.json", "b.json", "c.json")]
    for path, text in zip(filters, ("{}", "{}", '{"t1w": {"acquisition": "norm"}}'), strict=True):
        path.write_text(text)
    for same in (
        {"fs_license": "/home/me/license.txt", "templateflow_home": "/tf", "on_failure": "stop"},
        {"backend": "fmriprep-apptainer"},
        {"embedded_resolution_mm": 2.0},
        {"fmriprep_args": ("--omp-nthreads", "4", "--low-mem", "--notrack", "-vv")},
    ):
        assert hash_of(**same) == bare, same
    for other in (
        {"image": "nipreps/fmriprep:25.2.6"},
        {"output_spaces": ("MNI152NLin2009cAsym:res-2",)},
        {"fmriprep_args": ("--fs-no-reconall",)},
        {"fmriprep_args": ("--dummy-scans", "4")},
        {"level": "minimal"},
        {"cifti_output": "91k"},
        {"fs_subjects_dir": "/a"},  # surfaces were made before, wherever they are
        {"fmriprep_args": ("--bids-filter-file", str(filters[0]))},
    ):
        assert hash_of(**other) != bare, other
    one, copy, another = (hash_of(fmriprep_args=("--bids-filter-file", str(path))) for path in filters)
    assert one == copy != another
    folders = [hash_of(backend="fmriprep-apptainer", image=f"/{place}/fmriprep.sif") for place in ("a", "b")]
    assert folders[0] == folders[1]
    registries = [
        hash_of(backend="fmriprep-apptainer", image=f"oras://{at}.org/fmriprep.sif") for at in ("a", "b")
    ]
    assert registries[0] != registries[1]
    assert hash_of(fs_subjects_dir="/a") == hash_of(fs_subjects_dir="/b")
    words = (("--fs-no-reconall", "--dummy-scans", "4"), ("--dummy-scans", "4", "--fs-no-reconall"))
    assert hash_of(fmriprep_args=words[0]) == hash_of(fmriprep_args=words[1])


def test_what_is_required_of_sidecars_is_added_and_nothing_changed(made: Path):
    stem = made / "sub-01/ses-a/func/sub-01_ses-a_task-rest"
    image = nib.Nifti1Image(np.zeros((2, 2, 2)), np.diag([2.0, 2.0, 2.5, 1.0]))
    for name in ("ses-b/anat/sub-01_ses-b", "ses-a/anat/sub-01_ses-a"):
        path = made / "sub-01" / f"{name}_desc-preproc_T1w.nii.gz"
        path.parent.mkdir(parents=True)
        image.to_filename(path)
    stem.parent.mkdir(parents=True)
    for name, about in (
        ("space-T1w_desc-brain_mask", '{"Type": "Brain"}'),
        ("space-MNI152NLin2009cAsym_res-2_desc-brain_mask", None),
        ("space-MNI152NLin2009cAsym_res-2_desc-preproc_bold", '{"Resolution": "theirs"}'),
    ):
        image.to_filename(f"{stem}_{name}.nii.gz")
        if about:
            Path(f"{stem}_{name}.json").write_text(about)
    fmriprep_dataset.complete_sidecars(made, "01")
    found = {
        path.name.partition("_space-")[2]: json.loads(path.read_text()) for path in stem.parent.glob("*.json")
    }
    assert found == {
        "T1w_desc-brain_mask.json": {
            "Type": "Brain",
            "SpatialReference": "bids::sub-01/ses-a/anat/sub-01_ses-a_desc-preproc_T1w.nii.gz",
        },
        "MNI152NLin2009cAsym_res-2_desc-brain_mask.json": {"Resolution": "2 x 2 x 2.5 mm"},
        "MNI152NLin2009cAsym_res-2_desc-preproc_bold.json": {"Resolution": "theirs"},
    }


def test_of_every_key_is_decided_whether_it_alters_results():
    known = OF_THE_MACHINE | OF_FMRIPREP | OF_EMBEDDED
    assert known == set(PreprocSection.model_fields), "put new keys into a set of preproc/altering_results.py"
    embedded = altering_results({**section(level="full"), "backend": "embedded"})
    assert set(embedded) == {"program", *OF_EMBEDDED}


@pytest.mark.parametrize("listed", ["expected_ds005.txt", "expected_ds054.txt", "expected_ds210.txt"])
def test_the_validator_of_bids_accepts_the_files_that_fmriprep_leaves(listed, made, raw, tmp_path, shared):
    names = shared(f"data/fmriprep/{listed}").read_text().split()
    subject = next(name for name in names if name.startswith("sub-") and "/" not in name)[4:].removesuffix(
        ".html"
    )
    image = nib.Nifti1Image(np.zeros((2, 2, 2, 3), np.int16), np.diag([2.0, 2.0, 2.0, 1.0]))
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_zooms((2.0, 2.0, 2.0, 2.0))
    for name in names:
        path = made / name
        if "." not in path.name or name in (".bidsignore", "dataset_description.json"):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.name.endswith(".nii.gz"):
            bold = path.name.endswith("_bold.nii.gz")
            (image if bold else image.slicer[..., 0]).to_filename(path)
            # what fMRIPrep's own writer of derivatives states
            about = {"Resolution": "Template"} if "_res-" in path.name else {}
            about |= {"SkullStripped": False} if path.name.endswith(("_bold.nii.gz", "_T1w.nii.gz")) else {}
            about |= {"Type": "Brain"} if path.name.endswith("_mask.nii.gz") else {}
            about |= {"TaskName": "x", "RepetitionTime": 2.0} if bold else {}
            if about:
                path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(about))
        elif path.suffix == ".tsv":
            path.write_text("index\tname\n1\tx\n")
        elif not path.exists():
            path.write_text("{}" if path.suffix == ".json" else "text")
    out = tmp_path / "results/preproc"
    fmriprep_dataset.complete_sidecars(made, subject)
    fmriprep_dataset.keep_boilerplate(made, subject)
    publish(made, out, subject)
    fmriprep_dataset.write_description(made, out, raw, section(image=f"nipreps/fmriprep@{DIGEST}"))
    (out / f"sub-{subject}_status.json").write_text("{}")
    assert (out / f"logs/sub-{subject}_CITATION.md").is_file()
    assert errors(out) == []
