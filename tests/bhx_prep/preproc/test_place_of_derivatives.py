"""Where derivatives go and what they are of: no folder of somebody else's is written to, no other cohort's are read."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from small_bids import write_image

from bhx_model.errors import ConfigError, DataError, SiteError
from bhx_prep.cli import main
from bhx_prep.config.cohorts import CohortSection
from bhx_prep.features.scans import scans_of
from bhx_prep.ingest import index
from bhx_prep.preproc import one_subject
from bhx_prep.preproc.arguments import usable_scans
from bhx_prep.preproc.dataset_description import IGNORED, check_place, other_source, write_dataset

ABOUT = {
    "name": "BHX embedded preprocessing",
    "text": "",
    "generated_by": [{"Name": "bhx-embedded"}],
    "settings": {},
}


def dataset(root: Path, **about) -> Path:
    """Raw BIDS of one subject, whose label other datasets have, too."""
    write_image(root / "sub-01/anat/sub-01_T1w.nii.gz")
    write_image(root / "sub-01/func/sub-01_task-rest_bold.nii.gz", frames=200)
    (root / "dataset_description.json").write_text(
        json.dumps({"Name": root.name, "BIDSVersion": "1.9.0", **about})
    )
    return root


@pytest.fixture
def a(tmp_path: Path) -> Path:
    return dataset(tmp_path / "a")


@pytest.fixture
def b(tmp_path: Path) -> Path:
    return dataset(tmp_path / "b")


def test_derivatives_of_several_sites_name_all_their_datasets(a: Path, b: Path, tmp_path: Path):
    out = tmp_path / "out"
    for root in (a, b, a):
        write_dataset(out, root, **ABOUT)
    about = json.loads((out / "dataset_description.json").read_text())
    assert about["SourceDatasets"] == [{"URL": a.as_uri()}, {"URL": b.as_uri()}]
    assert "raw" not in about["DatasetLinks"]
    assert other_source(out, a) is None
    b.rename(tmp_path / "elsewhere")  # of a dataset that moved nothing is said
    write_dataset(out, a, **ABOUT)
    about = json.loads((out / "dataset_description.json").read_text())
    assert (about["SourceDatasets"], about["DatasetLinks"]) == ([{"URL": a.as_uri()}], {"raw": a.as_uri()})


def test_a_dataset_in_a_folder_with_blanks_is_found_again(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset(Path("raw data/ä"))
    out = Path("results/ward/preproc")
    write_dataset(out, Path("raw data/ä"), **ABOUT)
    about = json.loads((out / "dataset_description.json").read_text())
    assert about["DatasetLinks"]["raw"] == "../../../raw%20data/%C3%A4"
    assert other_source(out, Path("raw data/ä")) is None
    assert other_source(out, dataset(Path("b"))) == str(tmp_path / "raw data/ä")


@pytest.mark.parametrize(
    "told",
    [
        {"Name": "Their study"},
        {"Name": "x", "GeneratedBy": None},
        {"Name": "x", "GeneratedBy": [{"Name": "QSIPrep"}, 3]},
    ],
)
def test_somebody_elses_dataset_is_not_written_to(a: Path, tmp_path: Path, told):
    out = tmp_path / "out"
    out.mkdir()
    (out / "dataset_description.json").write_text(json.dumps(told))
    with pytest.raises(ConfigError, match="which BHX did not make: name another folder"):
        check_place(out, a)
    with pytest.raises(ConfigError, match="is the raw dataset, which is only read"):
        check_place(a / "sub-01/..", a)
    check_place(tmp_path / "new", a)


@pytest.mark.parametrize("told", [None, {"Name": "x", "GeneratedBy": [{"Name": "fMRIPrep"}]}])
def test_somebody_elses_subjects_are_not_replaced(a: Path, tmp_path: Path, told):
    out = tmp_path / "out"
    (out / "sub-01/anat").mkdir(parents=True)
    if told:
        (out / "dataset_description.json").write_text(json.dumps(told))
    with pytest.raises(ConfigError, match="holds sub-01, which BHX did not make"):
        check_place(out, a)
    (out / "logs").mkdir()
    (out / "logs/sub-02_fmriprep.log").touch()  # a job of ours that was killed before it described the folder
    check_place(out, a)


@pytest.mark.parametrize("out", ["a", "theirs", "of b"])
def test_one_subject_goes_to_no_folder_of_something_else(a, b, tmp_path, monkeypatch, capsys, out):
    monkeypatch.chdir(tmp_path)
    dataset(tmp_path / "theirs")
    write_dataset(tmp_path / "of b", b, **ABOUT)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.setattr(one_subject, "_run_embedded", lambda _: 0)
    assert main(["preproc", "run", "--bids", "a", "--subject", "01", "--out", out]) == 1
    said = capsys.readouterr().err
    assert any(
        text in said for text in ("is the raw dataset", "which BHX did not make", "holds derivatives of")
    )
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_derivatives_of_another_cohort_are_not_read_as_this_ones(a: Path, b: Path, tmp_path: Path):
    preproc = tmp_path / "results/a/preproc"
    write_dataset(preproc, b, **ABOUT)
    (preproc / "sub-01_status.json").write_text('{"status": "ok"}')
    pq.write_table(index.build("a", CohortSection(input="bids", root=a)), tmp_path / "a.parquet")

    def read():
        return scans_of(tmp_path / "a.parquet", "a", ["01"], derivatives=preproc, space="MNI152NLin2009cAsym")

    with pytest.raises(
        DataError, match=f"holds derivatives of {b}, not of cohort a: remove the folder"
    ) as error:
        read()
    assert len(str(error.value)) < 200 + len(str(tmp_path)) * 2
    write_dataset(preproc, a, **ABOUT)
    assert {row["reason"] for row in read()} == {
        "preprocessing made no output in space MNI152NLin2009cAsym",
        "preprocessing made no volume of its own of it: it may be merged with others of this subject",
    }


@pytest.mark.parametrize(
    "path", ["../b/sub-01/anat/sub-01_T1w.nii.gz", "/etc/hosts", "sub-01/../../x.nii.gz"]
)
def test_scans_outside_of_the_dataset_are_not_read(a: Path, tmp_path: Path, path):
    (tmp_path / "a.json").write_text(json.dumps({"scans": {"01": [[path, None, None]]}}))
    with pytest.raises(SiteError, match=r"which does not lie in .*: make it again with `bhx index`"):
        usable_scans(tmp_path / "a.json", a, "01")


@pytest.mark.parametrize("name", [None, 3, ["x"], "{x} \n" * 100, "../../x"])
def test_whatever_a_dataset_calls_itself_the_description_can_be_written(tmp_path: Path, name):
    root = dataset(tmp_path / "raw", Name=name, License=["CC0"], DatasetDOI={}, Synthetic="yes")
    out = tmp_path / "out"
    (tmp_path / "out").mkdir()
    (out / ".bidsignore").write_text("mine\n\nmine\n")
    (out / "README").write_text("mine")
    write_dataset(out, root, **ABOUT)
    about = json.loads((out / "dataset_description.json").read_text())
    assert {"License", "Synthetic"} & set(about) == set()
    assert (out / ".bidsignore").read_text().splitlines() == ["mine", *IGNORED]
    assert (out / "README").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "raw"]
