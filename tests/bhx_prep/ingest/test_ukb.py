"""UK Biobank's archives and tables become rows of the index."""

from __future__ import annotations

from pathlib import Path

import known_cohorts as known
import numpy as np
import pytest

from bhx_model.errors import ConfigError
from bhx_prep.config.cohorts import CohortSection
from bhx_prep.ingest import index, ukb

TABLE = "fMRI/fMRI.Schaefer17n400p.csv.gz"
T1W = "T1/T1_brain_to_MNI.nii.gz"
CONTENT = known.published_table(known.series())


def _rows(root, input="timeseries", **more):
    section = CohortSection(input=input, layout="ukb", root=root, **more)
    return {row["key"] + row["modality"]: row for row in index.build("a", section).to_pylist()}


def test_tables_and_volumes_of_a_participant_belong_together(tmp_path):
    known.archive(tmp_path / "Bulk" / "10" / "1000011_31016_2_0.zip", {TABLE: CONTENT})
    known.archive(tmp_path / "Bulk" / "T1" / "1000011_20252_2_0.zip", {T1W: known.t1w()})
    rows = _rows(tmp_path)
    bold, anat = rows["a_sub-1000011_ses-2_task-restbold"], rows["a_sub-1000011_ses-2t1w"]
    assert (bold["status"], anat["status"], bold["anat"]) == ("ok", "ok", anat["key"])
    assert (bold["kind"], bold["tr_s"], bold["session"]) == ("table", 0.735, "2")
    assert anat["path"] == str(tmp_path / "Bulk" / "T1" / "1000011_20252_2_0.zip" / T1W)
    assert anat["space"] == "MNI152NLin6Asym"


def test_series_chooses_the_atlas(tmp_path):
    names = ("fMRI/fMRI.Schaefer7n400p.csv.gz", TABLE, "fMRI/fMRI.Tian_Subcortex_S3_3T.csv.gz")
    known.archive(tmp_path / "1000011_31016_2_0.zip", dict.fromkeys(names, CONTENT))
    assert [row["path"].rpartition("/")[2] for row in _rows(tmp_path).values()] == [
        "fMRI.Schaefer17n400p.csv.gz"
    ]
    (row,) = _rows(tmp_path, series="*Schaefer7n400p.csv.gz").values()
    assert row["path"].endswith("7n400p.csv.gz")


def test_a_list_of_withdrawals_in_utf_16_is_read(tmp_path):
    known.archive(tmp_path / "1000011_31016_2_0.zip", {TABLE: CONTENT})
    (tmp_path / "w12345_20240101.csv").write_text("1000011\n", encoding="utf-16")
    (row,) = _rows(tmp_path).values()
    assert row["status"] == "excluded"
    assert "withdrew consent" in row["reason"]


def test_without_its_list_of_withdrawals_nobody_is_used(tmp_path):
    known.archive(tmp_path / "1000011_31016_2_0.zip", {TABLE: CONTENT})
    listed = tmp_path / "w12345_20240101.csv"
    listed.symlink_to(".git/annex/objects/x/y")
    with pytest.raises(
        ConfigError, match=r"w12345_20240101\.csv, the list .* is a link to a file that is not here"
    ):
        _rows(tmp_path)
    listed.unlink()
    listed.write_text("/annex/objects/SHA256E-s1000011--abc.csv\n")
    with pytest.raises(ConfigError, match="is a git-annex pointer"):
        _rows(tmp_path)


def test_a_list_of_withdrawals_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    known.archive(tmp_path / "1000011_31016_2_0.zip", {TABLE: CONTENT})
    (tmp_path / "w12345_20240101.csv").write_text("1000011\n")
    read_bytes = Path.read_bytes

    def refused(path):
        if path.name.startswith("w12345"):
            raise PermissionError(13, "Permission denied", str(path))
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", refused)
    with pytest.raises(ConfigError, match=r"cannot be read .Permission denied.: nobody is used"):
        _rows(tmp_path)


def test_other_archives_are_not_looked_into(tmp_path):
    known.write(tmp_path / "1000011_20253_2_0.zip", b"not an archive")
    known.archive(tmp_path / "1000011_31016_2_0.zip", {TABLE: CONTENT})
    (row,) = _rows(tmp_path).values()
    assert row["status"] == "ok"


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("1000011_2_0/fMRI/fMRI.Schaefer17n400p.csv.gz", "a_sub-1000011_ses-2_task-rest"),
        ("1000011_3_0_Schaefer17n400p.csv.gz", "a_sub-1000011_ses-3_task-rest"),
        ("sub-1000011/ses-2/Schaefer17n400p.csv.gz", "a_sub-1000011_ses-2_task-rest"),
        ("1000011/fMRI.Schaefer17n400p.csv.gz", "a_sub-1000011_task-rest"),
    ],
)
def test_tables_by_themselves(tmp_path, path, key):
    known.write(tmp_path / path, CONTENT)
    (row,) = _rows(tmp_path).values()
    assert (row["key"], row["status"]) == (key, "ok")


def test_an_archive_is_used_before_its_unpacked_folder(tmp_path):
    known.archive(tmp_path / "1000011_20252_2_0.zip", {T1W: known.t1w()})
    known.write(tmp_path / "1000011_20252_2_0" / T1W, known.t1w())
    row = _rows(tmp_path, "fmriprep")["a_sub-1000011_ses-2t1w"]
    assert row["status"] == "ok"
    assert row["notes"] == ["file chosen among several: 1000011_20252_2_0.zip, not 1000011_20252_2_0"]


def test_an_archive_that_was_packed_again_is_read(tmp_path):
    files = {f"1000011/{T1W}": known.t1w(), f"__MACOSX/1000011/{T1W}": b"x"}
    known.archive(tmp_path / "1000011_20252_2_0.zip", files)
    assert _rows(tmp_path, "fmriprep")["a_sub-1000011_ses-2t1w"]["status"] == "ok"


def test_an_unpacked_archive_is_read(tmp_path):
    known.write(tmp_path / "1000011_20252_2_0" / T1W, known.t1w())
    assert _rows(tmp_path, "fmriprep")["a_sub-1000011_ses-2t1w"]["status"] == "ok"


def test_functional_images_in_standard_space_are_used_with_their_motion(tmp_path):
    data = np.random.default_rng(0).normal(1000, 10, (16, 16, 10, 40)).astype(np.float32)
    image = known.nifti(data, np.diag([14.0, 14, 14, 1]), 0.735)
    known.archive(
        tmp_path / "1000011_20227_2_0.zip",
        {ukb.IN_MNI: image, ukb.CLEANED: image, ukb.MOTION: b"0 0 0 0 0 0\n" * 40},
    )
    (row,) = _rows(tmp_path, "fmriprep").values()
    assert (row["status"], row["n_frames"], row["space"]) == ("ok", 40, "MNI152NLin6Asym")
    assert row["tr_s"] == pytest.approx(0.735)
    assert row["confounds"].endswith("prefiltered_func_data_mcf.par")


def test_a_participant_without_a_table_has_a_row(tmp_path):
    known.archive(tmp_path / "1000011_20252_2_0.zip", {T1W: known.t1w()})
    row = _rows(tmp_path)["a_sub-1000011_task-restbold"]
    assert "no table *Schaefer17n400p.csv.gz of this participant" in row["reason"]


def test_a_newer_archive_is_seen(tmp_path):
    root, cache = tmp_path / "data", tmp_path / "cache"
    section = CohortSection(input="timeseries", layout="ukb", root=root)
    for eid in (1000011, 1000022):
        known.archive(root / "10" / f"{eid}_31016_2_0.zip", {TABLE: CONTENT})
    assert index.load(cache, "a", section).num_rows == 2
    known.archive(root / "10" / "1000022_31016_2_0.zip", {"fMRI/other.csv.gz": CONTENT})
    known.archive(root / "10" / "1000033_31016_2_0.zip", {TABLE: CONTENT})
    table = index.load(cache, "a", section)
    assert table["status"].to_pylist() == ["ok", "excluded", "ok"]


@pytest.mark.parametrize("spelt", ["1000011", "1000011.0", "sub-1000011", " 1000011"])
def test_ids_of_tables(spelt):
    assert ukb.label(spelt) == "1000011"
