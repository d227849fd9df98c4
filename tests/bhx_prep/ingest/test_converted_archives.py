"""ADNI and PPMI are BIDS once they are converted; the archive's own files are refused with a word on what to do."""

from __future__ import annotations

import known_cohorts as known
import pytest
from skeleton import write_file

from bhx_model.errors import ConfigError
from bhx_prep.config.cohorts import CohortSection
from bhx_prep.ingest import adni, index, ppmi


def _section(root, layout):
    return CohortSection(input="bids", layout=layout, root=root)


def _bids(root, subject, session):
    stem = f"sub-{subject}/ses-{session}/{{}}/sub-{subject}_ses-{session}_{{}}.nii.gz"
    for folder, name in (("anat", "T1w"), ("func", "task-rest_bold")):
        write_file(root / stem.format(folder, name), {})


@pytest.mark.parametrize(
    ("layout", "subject", "sessions"),
    [("adni", "ADNI011S0002", ("M000", "M012")), ("ppmi", "3000", ("BL", "V04"))],
)
def test_converted_data_are_listed_as_bids(tmp_path, layout, subject, sessions):
    for session in sessions:
        _bids(tmp_path, subject, session)
    rows = index.build("a", _section(tmp_path, layout)).to_pylist()
    assert [row["key"] for row in rows if row["modality"] == "bold"] == [
        f"a_sub-{subject}_ses-{session}_task-rest" for session in sessions
    ]
    assert all(row["status"] == "ok" for row in rows)


@pytest.mark.parametrize("below", ["", "ADNI/"])
def test_folders_of_adnis_archive_are_refused(tmp_path, below):
    known.write(tmp_path / f"{below}011_S_0002/MPRAGE/2005-09-01/I1/a.dcm", b"x")
    with pytest.raises(ConfigError, match=r"011_S_0002 is a folder of the archive.*clinica convert"):
        index.build("a", _section(tmp_path, "adni"))


def test_folders_and_zips_of_ppmis_archive_are_refused(tmp_path):
    known.write(tmp_path / "PPMI/3000/MPRAGE/2014-03-10/I1/a.dcm", b"x")
    with pytest.raises(ConfigError, match="3000 is a folder of the archive"):
        index.build("a", _section(tmp_path, "ppmi"))
    known.archive(tmp_path / "PPMI_01.zip", {"PPMI/3000/MPRAGE/2014-03-10/I1/a.dcm": b"x"})
    with pytest.raises(ConfigError, match=r"PPMI_01\.zip is of the archive, not BIDS"):
        index.build("a", _section(tmp_path, "ppmi"))
    known.archive(tmp_path / "PPMI_01.zip", {"bids/sub-3000/ses-BL/anat/a_T1w.nii.gz": b"x"})
    with pytest.raises(ConfigError, match="holds BIDS: unpack it"):
        index.build("a", _section(tmp_path, "ppmi"))


def test_a_zip_beside_converted_data_does_no_harm(tmp_path):
    _bids(tmp_path, "3000", "BL")
    known.write(tmp_path / "PPMI_01.zip.aa", b"x")
    assert index.build("a", _section(tmp_path, "ppmi")).num_rows == 2


@pytest.mark.parametrize(
    ("label", "spelt", "expected"),
    [
        (adni.label, "011_S_0002", "ADNI011S0002"),
        (adni.label, "sub-ADNI011S0002", "ADNI011S0002"),
        (ppmi.label, "3000.0", "3000"),
        (ppmi.label, "sub-PPMI3000", "3000"),
    ],
)
def test_ids_of_tables(label, spelt, expected):
    assert label(spelt) == expected
