"""DICOM files of three vendors become a BIDS dataset in which nobody can be found."""

from __future__ import annotations

import gzip
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import refused_folder

pytest.importorskip("pydicom", reason="pip install 'bhx[dicom]'")

import pydicom
from dicom_files import Visit, ge_bold, philips_bold, siemens_bold, t1w, two_echoes
from dicom_study import SERIES, write_map, write_table
from pydicom.uid import generate_uid
from small_bids import rows_of, the_bold

from bhx_prep import cli

VISIT = Visit()
T1W = "sub-A1/anat/sub-A1_T1w"
BOLD = "sub-A1/func/sub-A1_task-rest_bold"


def leaks(folder: Path, words: list[str]) -> list[str]:
    """Files below a folder that hold one of the words, in their names or in what they say."""
    found = []
    for path in sorted(folder.rglob("*")):
        content = b"" if path.is_dir() else path.read_bytes()
        if path.name.endswith(".gz"):
            content = gzip.decompress(content)[:352]  # values of voxels are no texts
        text = f"{path.relative_to(folder)} {content.decode('latin-1')}".lower()
        found += [f"{path.name}: {word}" for word in words if word.lower() in text]
    return found


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def outcomes(rows: list[dict[str, str]]) -> list[str]:
    return [row["outcome"] for row in rows]


def test_a_t1w_and_a_mosaic_of_siemens_keep_their_voxels_and_their_times(study, ingest):
    image = np.random.default_rng(0).integers(100, 2000, (12, 16, 16)).astype(np.uint16)
    t1w(study / "dicom", VISIT, image=image)
    siemens_bold(study / "dicom", VISIT)
    code, rows, log = ingest()
    assert code == 0, log
    assert [row["file"] for row in rows] == [f"{T1W}.nii.gz", f"{BOLD}.nii.gz"]
    head: Any = nib.load(study / f"bids/{T1W}.nii.gz")
    # a voxel of the third slice, second row, fifth column: DICOM counts to the left and to the back
    place = np.array([-(-96.0 + 4 * 12), -(-96.0 + 1 * 12), 2 * 12.0])
    at = np.rint(np.linalg.inv(head.affine) @ [*place, 1])[:3].astype(int)
    assert head.get_fdata()[tuple(at)] == image[2, 1, 4]
    bold: Any = nib.load(study / f"bids/{BOLD}.nii.gz")
    assert bold.shape == (16, 16, 4, 4)
    said = json.loads((study / f"bids/{BOLD}.json").read_text())
    assert said["SliceTiming"] == [0, 1, 0.5, 1.5]
    assert (said["RepetitionTime"], said["TaskName"], said["PhaseEncodingDirection"]) == (2, "rest", "j-")


@pytest.mark.parametrize(("build", "description"), [(ge_bold, "fMRI rest"), (philips_bold, "FE_EPI rest")])
def test_bold_of_other_vendors(build, description, study, ingest):
    write_map(study, [{"description": description, "suffix": "bold", "task": "rest"}])
    build(study / "dicom", VISIT)
    code, _, log = ingest()
    assert code == 0, log
    bold: Any = nib.load(study / f"bids/{BOLD}.nii.gz")
    assert (bold.shape, float(bold.header["pixdim"][4])) == ((16, 16, 4, 4), 2.0)
    said = json.loads((study / f"bids/{BOLD}.json").read_text())
    assert said["EchoTime"] == 0.03
    assert "SliceTiming" not in said  # their headers do not state it


def test_slice_times_of_ge_stand_in_its_protocol_block(study, ingest):
    lines = {
        "SLICEORDER": 1,
        "VIEWORDER": 1,
        "MBACCEL": 1,
        "NOSLC": 4,
        "PSEQ": "epi",
    }  # 1: every other slice first
    protocol = "".join(f'set {name} "{value}"\n' for name, value in lines.items())
    write_map(study, [{"description": "fMRI rest", "suffix": "bold", "task": "rest"}])
    ge_bold(study / "dicom", VISIT, protocol=protocol)
    code, _, log = ingest()
    assert code == 0, log
    assert json.loads((study / f"bids/{BOLD}.json").read_text())["SliceTiming"] == [0, 1, 0.5, 1.5]


def test_no_identifying_text_is_in_the_output(study, ingest, capsys):
    named = f"t1_mprage {VISIT.name.replace('^', ' ')} {VISIT.patient} 04.03.1961"
    t1w(study / "dicom/Mustermann_Erika", VISIT, description=named)
    siemens_bold(study / "dicom/Mustermann_Erika", VISIT)
    siemens_bold(study / "dicom/Mustermann_Erika", VISIT, 9, description="localizer for MustermannErika")
    code, rows, log = ingest()
    assert code == 0
    secrets = [*VISIT.secrets, "04.03.1961", "4711", "091500", "09:15"]
    assert leaks(study / "bids", secrets) == []
    shown = log + "".join("".join(row.values()) for row in rows)
    assert [word for word in secrets if word.lower() in shown.replace(str(study), "").lower()] == []
    assert rows[0]["description"] == "t1_mprage *** *** *** ***"
    assert rows[2]["outcome"] == "unknown"
    assert "1 of the series fit no rule" in log
    assert cli.main(["ingest", "list", str(study / "dicom")]) == 0
    listed = capsys.readouterr()
    assert [word for word in secrets if word.lower() in (listed.out + listed.err).lower()] == []


def test_the_validator_and_the_index_take_what_is_written(study, ingest):
    t1w(study / "dicom", VISIT)
    siemens_bold(study / "dicom", VISIT)
    write_map(study, participants=["age", "sex"])
    assert ingest()[0] == 0
    assert (study / "bids/participants.tsv").read_text() == "participant_id\tage\tsex\nsub-A1\t58\tF\n"
    rows = rows_of(study / "bids")
    assert {row["status"] for row in rows} == {"ok"}, [row["reason"] for row in rows]
    assert the_bold(rows)["tr_s"] == 2.0
    validation = pytest.importorskip("bids_validation")
    assert validation.errors(study / "bids") == []


def test_a_second_run_changes_nothing_and_new_series_are_added(study, ingest):
    t1w(study / "dicom", VISIT)
    assert outcomes(ingest()[1]) == ["converted"]
    before = content(study / "bids")
    assert outcomes(ingest()[1]) == ["there already"]
    assert content(study / "bids") == before
    siemens_bold(study / "dicom", VISIT)
    (study / "bids/participants.tsv").write_text("participant_id\tgroup\nsub-A1\tcontrol\n")
    other = replace(VISIT, patient="PAT-2", name="Doe^Jo")
    t1w(study / "dicom/other", other)
    write_table(study, "patient_id participant_id", "PAT-004711 A1", "PAT-2 A2")
    code, rows, _ = ingest()
    assert (code, sorted(outcomes(rows))) == (0, ["converted", "converted", "there already"])
    table = (study / "bids/participants.tsv").read_text()
    assert table == "participant_id\tgroup\nsub-A1\tcontrol\nsub-A2\tn/a\n"


def test_what_a_killed_run_has_left_is_completed(study, ingest, kill_at):
    t1w(study / "dicom", VISIT)
    words = ["ingest", "dicom", str(study / "dicom"), str(study / "bids"), "--map", str(study / "map.yaml")]
    kill_at("bhx_model.atomic_write", "Path.replace", 5, words)  # the image is there, its sidecar is not
    code, _, log = ingest()
    assert code == 0, log
    killed = content(study / "bids")
    (study / "bids").rename(study / "first")
    assert ingest()[0] == 0
    calm = content(study / "bids")
    assert killed.keys() == calm.keys()
    # the folder's name is that of the dataset
    assert [name for name in calm if killed[name] != calm[name]] == []


def test_files_of_another_series_are_not_replaced(study, ingest):
    t1w(study / "dicom", VISIT)
    assert ingest()[0] == 0
    before = content(study / "bids")
    for file in (study / "dicom").rglob("*.dcm"):
        file.unlink()
    t1w(study / "dicom", VISIT, number=7)
    code, rows, log = ingest()
    assert (code, outcomes(rows)) == (1, ["failed"])
    assert "sub-A1_T1w.nii.gz is there and was made of another series" in log
    assert content(study / "bids") == before
    for name in (f"{T1W}.nii.gz", f"{T1W}.json"):
        (study / "bids" / name).unlink()
    assert ingest()[0] == 0


def test_somebody_elses_folder_is_not_written_to(study, ingest):
    t1w(study / "dicom", VISIT)
    (study / "bids").mkdir()
    (study / "bids/mine.txt").write_text("x")
    code, _, log = ingest()
    assert code == 1
    assert "has files that `bhx ingest` did not make" in log
    assert list(content(study / "bids")) == ["mine.txt"]


def test_two_patients_in_one_folder_stay_apart(study, ingest):
    other = replace(VISIT, patient="PAT-2", name="Doe^Jo")
    for number, visit in enumerate((VISIT, other)):
        for file in t1w(study / f"dicom/{number}", visit):
            file.rename(study / f"dicom/{number}{file.name}")
    code, rows, log = ingest()
    assert (code, sorted(outcomes(rows))) == (1, ["converted", "patient not in the table"])
    assert "1 patients (or days of theirs) are not in subjects.tsv" in log
    assert "PAT-2" not in log
    write_table(study, "patient_id participant_id", "PAT-004711 A1", "PAT-2 n/a")
    assert sorted(outcomes(ingest()[1])) == ["left out", "there already"]
    write_table(study, "patient_id participant_id", "PAT-004711 A1", "PAT-2 A2")
    code, rows, log = ingest()
    assert (code, sorted(outcomes(rows))) == (0, ["converted", "there already"]), log
    images: list[Any] = [nib.load(study / f"bids/sub-A{n}/anat/sub-A{n}_T1w.nii.gz") for n in (1, 2)]
    assert [image.shape for image in images] == [(16, 16, 12), (16, 16, 12)]


def test_one_series_of_two_patients_is_not_converted(study, ingest):
    files = t1w(study / "dicom", VISIT)
    for file in files[6:]:
        header = pydicom.dcmread(file)
        header.PatientID = "PAT-2"
        header.save_as(file)
    code, rows, _ = ingest()
    assert (code, sorted(outcomes(rows))) == (1, ["failed", "patient not in the table"])
    assert "its files name 2 patients" in next(row["reason"] for row in rows if row["outcome"] == "failed")


@pytest.mark.parametrize("at", [0, 0.3, 0.6, 0.99])
def test_a_truncated_file_stops_its_series_alone(at, study, ingest):
    files = t1w(study / "dicom", VISIT)
    siemens_bold(study / "dicom", VISIT)
    whole = files[-1].read_bytes()
    files[-1].write_bytes(whole[: int(at * len(whole))])
    code, rows, log = ingest()
    assert (code, outcomes(rows)) == (1, ["failed", "converted"]), log
    assert "copy them again" in log or "copy it again" in log
    files[-1].write_bytes(whole)
    code, rows, log = ingest()
    assert (code, outcomes(rows)) == (0, ["converted", "there already"]), log


def test_a_file_that_is_missing_in_the_middle_is_noticed(study, ingest):
    t1w(study / "dicom", VISIT)[5].unlink()
    code, rows, _ = ingest()
    assert (code, outcomes(rows)) == (1, ["failed"])
    assert rows[0]["reason"].startswith("1 of its images are missing: export it again")
    write_map(study, [{**SERIES[0], "incomplete": True}])
    assert ingest("--dry-run")[0] == 0


@pytest.mark.parametrize(
    ("present", "lost"),
    [
        (range(4, 13), 3),  # the first ones
        ([*range(1, 5), *range(9, 17)], 4),  # a whole frame
        (range(0, 8), 0),
        (range(1, 20, 2), 0),  # numbered in steps
        ([1, 1, 2, 2, 4, 4], 0),  # of echoes that share their numbers
    ],
)
def test_missing_images_are_counted(present, lost):
    from bhx_prep.dicom import series

    assert series.missing(list(present)) == lost


def test_copies_under_other_uids_are_no_more_frames(study, ingest):
    for file in siemens_bold(study / "dicom", VISIT):
        header = pydicom.dcmread(file)
        header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        header.save_as(file.with_name(f"copy{file.name}"))
    code, rows, _ = ingest()
    assert (code, outcomes(rows)) == (1, ["failed"])
    assert rows[0]["reason"] == "4 of its images are there twice, under other UIDs: remove the copies"


def test_an_aborted_run_may_be_left_out_by_its_size(study, ingest):
    write_map(study, [{**SERIES[1], "min_images": 4}, {"description": "ep2d*", "ignore": True}])
    siemens_bold(study / "dicom", VISIT, 3, frames=2)
    siemens_bold(study / "dicom", VISIT, 5)
    assert outcomes(ingest("--dry-run")[1]) == ["ignored", "convert"]


def test_a_name_in_another_spelling_or_encoding_is_the_name(study, ingest):
    for file in t1w(study / "dicom", VISIT):
        header = pydicom.dcmread(file)
        header.SpecificCharacterSet, header.PatientName = "ISO_IR 192", "Müller^Jörg"
        header.SeriesDescription = "t1_mprage Mueller Jorg 27Aug2019"
        header.SoftwareVersions, header.SequenceName, header.ScanOptions = "Müller", "mullerseq", "JOERG"
        header.save_as(file)
    code, rows, _ = ingest()
    assert (code, rows[0]["description"]) == (0, "t1_mprage *** *** ***")
    said = json.loads((study / f"bids/{T1W}.json").read_text())
    assert not {"SoftwareVersions", "SequenceName", "ScanOptions"} & set(said)


def test_the_readme_says_what_was_done_to_all_faces(study, ingest):
    readme = study / "bids/README.md"
    t1w(study / "dicom/1", VISIT)
    assert ingest()[0] == 0
    assert "Faces were left in the anatomical images." in readme.read_text()
    t1w(study / "dicom/2", replace(VISIT, patient="PAT-2", name="Doe^Jo"))
    write_table(study, "patient_id participant_id", "PAT-004711 n/a", "PAT-2 A2")
    write_map(study, deface=["cp", "{in}", "{out}"])
    assert ingest()[0] == 0
    said = "Faces were left in 1 of 2 anatomical images. Faces were taken off 1 of 2 anatomical images by another program."
    assert said in readme.read_text()
    readme.write_text("# Mine\n")
    assert ingest()[0] == 0
    assert readme.read_text() == "# Mine\n"


def test_other_files_among_them_are_left_alone(study, ingest):
    t1w(study / "dicom", VISIT)
    for name in ("notes.txt", "DICOMDIR", ".hidden", "no.dcm", "more.zip"):
        (study / "dicom" / name).write_bytes(b"no DICOM" * 40)
    code, rows, log = ingest()
    assert (code, outcomes(rows)) == (0, ["converted"])
    assert "2 files are not DICOM files" in log
    assert "1 archives are not read" in log


def test_a_folder_without_dicom_files(study, ingest):
    (study / "dicom/a.txt").write_text("x")
    code, rows, log = ingest()
    assert (code, rows) == (1, [])
    assert "holds no DICOM file (1 other files)" in log


def test_a_folder_that_may_not_be_read_stops_and_is_not_named(study, ingest, monkeypatch):
    t1w(study / "dicom", VISIT)
    (study / "dicom/DOE_JANE").mkdir()
    refused_folder.refuse(monkeypatch, "DOE_JANE")
    code, rows, log = ingest()
    assert (code, rows) == (1, [])
    assert "may not be read (Permission denied): change its permissions" in log
    assert "DOE" not in log


def test_series_of_one_name_are_refused_or_numbered(study, ingest):
    siemens_bold(study / "dicom", VISIT, 3)
    siemens_bold(study / "dicom", VISIT, 5)
    code, rows, log = ingest()
    assert (code, outcomes(rows)) == (1, ["failed", "failed"])
    assert "series 3, 5 would all be sub-A1_task-rest_bold" in log
    write_map(study, same_name="number")
    code, rows, log = ingest()
    assert (code, [Path(row["file"]).name for row in rows]) == (
        0,
        ["sub-A1_task-rest_run-1_bold.nii.gz", "sub-A1_task-rest_run-2_bold.nii.gz"],
    ), log


def test_visits_become_sessions(study, ingest):
    later = replace(VISIT, date="20200301")
    for number, visit in enumerate((VISIT, later)):
        t1w(study / f"dicom/{number}", visit)
    code, rows, log = ingest()
    assert (code, outcomes(rows)) == (1, ["failed", "failed"])
    assert "sub-A1 was scanned on 2 days" in log
    write_table(
        study,
        "patient_id participant_id session study_date",
        "PAT-004711 A1 base 2019-08-27",
        "PAT-004711 A1 later 20200301",
    )
    code, rows, log = ingest()
    assert code == 0, log
    assert rows[1]["file"] == "sub-A1/ses-later/anat/sub-A1_ses-later_T1w.nii.gz"


def test_field_maps_name_the_runs_they_are_for(study, ingest):
    write_map(study, [*SERIES, {"number": 8, "suffix": "epi", "dir": "PA", "intended_for": ["rest"]}])
    siemens_bold(study / "dicom", VISIT)
    siemens_bold(study / "dicom", VISIT, 8, description="se_epi_pa")
    assert ingest()[0] == 0
    said = json.loads((study / "bids/sub-A1/fmap/sub-A1_dir-PA_epi.json").read_text())
    assert said["IntendedFor"] == [f"bids::{BOLD}.nii.gz"]


def test_a_run_that_comes_later_is_added_to_its_field_map(study, ingest):
    write_map(study, [*SERIES, {"number": 8, "suffix": "epi", "dir": "PA"}])
    siemens_bold(study / "dicom", VISIT, 8, description="se_epi_pa")
    assert ingest()[0] == 0
    sidecar = study / "bids/sub-A1/fmap/sub-A1_dir-PA_epi.json"
    before = json.loads(sidecar.read_text())
    assert "IntendedFor" not in before
    siemens_bold(study / "dicom", VISIT)
    for _ in range(2):
        assert ingest()[0] == 0
        assert json.loads(sidecar.read_text()) == before | {"IntendedFor": [f"bids::{BOLD}.nii.gz"]}


def test_echoes_have_files_of_their_own(study, ingest):
    write_map(study, [*SERIES, {"number": 8, "suffix": "magnitude"}])
    two_echoes(siemens_bold(study / "dicom", VISIT))
    two_echoes(t1w(study / "dicom", VISIT, 8, description="gre_field_mapping"))
    code, _, log = ingest()
    assert code == 0, log
    runs = [f"sub-A1/func/sub-A1_task-rest_echo-{n}_bold.nii.gz" for n in (1, 2)]
    for number, echo_s in ((1, 0.00492), (2, 0.00738)):
        said = json.loads((study / f"bids/sub-A1/fmap/sub-A1_magnitude{number}.json").read_text())
        assert (said["EchoTime"], said["IntendedFor"]) == (echo_s, [f"bids::{run}" for run in runs])
        assert (study / "bids" / runs[number - 1]).is_file()
    assert outcomes(ingest()[1]) == ["there already", "there already"]
    write_map(study, [{"number": 8, "suffix": "T1w"}])
    code, rows, _ = ingest()
    assert "dcm2niix makes 2 images of it" in rows[1]["reason"]


def test_a_phase_difference_has_the_echo_times_of_its_magnitudes(study, ingest):
    fmap = [{"number": 8, "suffix": "magnitude"}, {"number": 9, "suffix": "phasediff"}]
    write_map(study, [*SERIES, *fmap])
    for file in t1w(study / "dicom", VISIT, 9, description="gre_field_mapping"):
        header = pydicom.dcmread(file)
        header.ImageType = ["ORIGINAL", "PRIMARY", "P", "ND"]
        header.save_as(file)
    code, rows, _ = ingest()
    assert (code, outcomes(rows)) == (1, ["failed"])
    assert "one echo time of two" in rows[0]["reason"]
    two_echoes(t1w(study / "dicom", VISIT, 8, description="gre_field_mapping"))
    assert ingest()[0] == 0
    said = json.loads((study / "bids/sub-A1/fmap/sub-A1_phasediff.json").read_text())
    assert (said["EchoTime1"], said["EchoTime2"]) == (0.00492, 0.00738)


def test_a_short_name_is_no_code_of_the_sequence(study, ingest):
    visit = replace(VISIT, name="Gr^Ir", patient="PAT-004711")
    t1w(study / "dicom", visit, description="MPRAGE GR")
    code, rows, _ = ingest()
    assert (code, rows[0]["description"]) == (0, "MPRAGE ***")
    said = json.loads((study / f"bids/{T1W}.json").read_text())
    assert said["ScanningSequence"].startswith("GR")


def test_a_map_that_fits_nothing_is_refused_and_a_rule_that_fits_nothing_is_named(study, ingest):
    t1w(study / "dicom", VISIT)
    _, _, log = ingest()
    assert "rule 2 of `series` fits no series" in log
    write_map(study, [{"description": "none*", "suffix": "T1w"}])
    code, rows, log = ingest()
    assert (code, outcomes(rows)) == (1, ["unknown"])
    assert "fits none of 1 series" in log


@pytest.mark.parametrize("label", ["PAT004711", "Muster"])
def test_a_label_that_identifies_the_patient(label, study, ingest):
    t1w(study / "dicom", VISIT)
    write_table(study, "patient_id participant_id", f"PAT-004711 {label}")
    code, rows, log = ingest()
    assert (code, outcomes(rows)) == (1, ["failed"])
    assert "row 2 of the table: the label tells who it is" in log
    assert not list((study / "bids").rglob(f"*{label}*"))
    write_map(study, coded_ids=True)
    assert ingest()[0] == 0


def test_ids_that_are_paths_lead_nowhere(study, ingest):
    t1w(study / "dicom", replace(VISIT, patient="../../outside"))
    write_table(study, "patient_id participant_id", "../../outside B7")
    assert ingest()[0] == 0
    assert (study / "bids/sub-B7/anat/sub-B7_T1w.json").is_file()
    assert not (study.parent / "outside").exists()


def test_an_image_type_of_one_value_is_one(study):
    from bhx_prep.dicom import series

    for file in t1w(study / "dicom", VISIT):
        header = pydicom.dcmread(file)
        header.ImageType = "DERIVED"
        header.save_as(file)
    assert series.read_folder(study / "dicom").series[0].image_type == {"DERIVED"}


def test_pixels_with_text_are_not_converted(study, ingest):
    for file in t1w(study / "dicom", VISIT):
        header = pydicom.dcmread(file)
        header.BurnedInAnnotation = "YES"
        header.save_as(file)
    code, rows, _ = ingest()
    assert code == 1
    assert "its pixels may hold text" in rows[0]["reason"]


def test_a_command_of_the_users_takes_off_faces(study, ingest):
    script = study / "deface.py"
    script.write_text(
        "import sys, nibabel as nib, numpy as np\n"
        "i = nib.load(sys.argv[1]); v = np.asarray(i.dataobj).copy(); v[:, :4] = 0\n"
        "nib.save(nib.Nifti1Image(v, i.affine), sys.argv[2])\n"
    )
    t1w(study / "dicom", VISIT)
    write_map(study, deface=[sys.executable, str(script), "{in}", "{out}"])
    code, _, log = ingest()
    assert code == 0, log
    written: Any = nib.load(study / f"bids/{T1W}.nii.gz")
    image = written.get_fdata()
    assert not image[:, :4].any()
    assert image[:, 4:].any()
    write_map(study)
    code, _, log = ingest()
    assert "or with another `deface`" in log
    write_map(study, deface=["false", "{in}", "{out}"])
    (study / "bids").rename(study / "before")
    code, rows, _ = ingest()
    assert (code, outcomes(rows)) == (1, ["failed"])
    assert "exit code 1" in rows[0]["reason"]


def test_the_face_of_other_images_is_where_that_of_the_t1w_is(study, ingest, monkeypatch):
    from bhx_prep.dicom import deface

    asked = []

    def find_plane(image: Path) -> float:
        asked.append(image.name)
        return 0.0

    monkeypatch.setattr(deface, "find_plane", find_plane)
    write_map(study, [{"description": "t2*", "suffix": "T2w"}, SERIES[0]], deface="face")
    t1w(study / "dicom", VISIT, number=1, description="t2_space")
    code, rows, _ = ingest()
    assert (code, rows[0]["reason"].startswith("the face of a T2w is found by a T1w")) == (1, True)
    t1w(study / "dicom", VISIT)
    code, _, log = ingest()
    assert code == 0, log
    assert asked == ["image.nii", "sub-A1_T1w.nii.gz"]
    for suffix in ("T1w", "T2w"):
        image: Any = nib.load(study / f"bids/sub-A1/anat/sub-A1_{suffix}.nii.gz")
        share = np.mean(np.asarray(image.dataobj) == 0)
        assert 0.1 < share < 0.3
    assert "% of the image cut off with the face" in log


def test_a_dry_run_writes_nothing(study, ingest):
    t1w(study / "dicom", VISIT)
    code, rows, _ = ingest("--dry-run")
    assert (code, outcomes(rows)) == (0, ["convert"])
    assert not (study / "bids").exists()


def test_a_missing_converter_is_a_sentence(study, ingest, monkeypatch):
    from bhx_prep.dicom import convert

    t1w(study / "dicom", VISIT)
    monkeypatch.setattr(convert.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(convert.shutil, "which", lambda name: None)
    code, _, log = ingest()
    assert code == 1
    assert "dcm2niix is not installed: pip install 'bhx[dicom]'" in log


def test_a_table_of_subjects_is_begun(study, capsys):
    t1w(study / "dicom", VISIT)
    file = study / "new.tsv"
    words = ["ingest", "list", str(study / "dicom"), "--subjects", str(file)]
    assert cli.main(words) == 0
    assert file.read_text() == "patient_id\tparticipant_id\nPAT-004711\t01\n"
    assert file.stat().st_mode & 0o077 == 0
    assert cli.main(words) == 1
    assert "is there: name another file" in capsys.readouterr().err
