"""Cases of known data sets: their own layouts, and what is missing or damaged in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import known_cohorts as known
from input_cases import Seen, case, read_cohort, seen_scan

AREA = "Known data sets"
TABLE = "fMRI/fMRI.Schaefer17n400p.csv.gz"
T1W = "T1/T1_brain_to_MNI.nii.gz"


def _seen(folder: Path, truth: Any = None, **section: Any) -> Seen:
    return seen_scan(folder, truth, **{"input": "fmriprep", **section})


@case(AREA, "UK Biobank: a published table in its bulk archive", "read")
def ukb_table(folder: Path) -> Seen:
    truth = known.series()
    known.archive(folder / "data" / "1000011_31016_2_0.zip", {TABLE: known.published_table(truth)})
    return _seen(folder, truth, input="timeseries", layout="ukb")


@case(AREA, "UK Biobank: published tables, unpacked in folders", "read")
def ukb_loose_table(folder: Path) -> Seen:
    truth = known.series()
    known.write(folder / "data" / "10" / "1000011_2_0" / TABLE, known.published_table(truth))
    return _seen(folder, truth, input="timeseries", layout="ukb")


@case(AREA, "UK Biobank: functional images in native space", "refused", "published tables")
def ukb_native(folder: Path) -> Seen:
    files = {"fMRI/rfMRI.ica/filtered_func_data_clean.nii.gz": known.native_bold()}
    known.archive(folder / "data" / "1000011_20227_2_0.zip", files)
    return _seen(folder, layout="ukb")


@case(AREA, "UK Biobank: T1 volume in its bulk archive", "read")
def ukb_t1w(folder: Path) -> Seen:
    known.archive(folder / "data" / "1000011_20252_2_0.zip", {T1W: known.t1w()})
    return _seen(folder, modality="t1w", layout="ukb")


@case(AREA, "UK Biobank: archive of a scan marked as unusable", "refused", "marks the scan as unusable")
def ukb_unusable(folder: Path) -> Seen:
    known.archive(folder / "data" / "1000011_20252_2_0.zip", {"T1/unusable/T1.nii.gz": known.t1w()})
    return _seen(folder, modality="t1w", layout="ukb")


@case(
    AREA,
    "UK Biobank: archive that was not downloaded completely",
    "refused",
    "damaged or incomplete: fetch it again",
)
def ukb_cut(folder: Path) -> Seen:
    path = known.archive(folder / "data" / "1000011_20252_2_0.zip", {T1W: known.t1w()})
    path.write_bytes(path.read_bytes()[:-100])
    return _seen(folder, modality="t1w", layout="ukb")


@case(AREA, "an archive whose members are named ../..", "refused", "leads out of it")
def ukb_hostile(folder: Path) -> Seen:
    known.archive(folder / "data" / "1000011_20252_2_0.zip", {"../../T1.nii.gz": b"x", T1W: known.t1w()})
    return _seen(folder, modality="t1w", layout="ukb")


@case(
    AREA,
    "UK Biobank: a participant who withdrew, whose archives are still there",
    "refused",
    "withdrew consent",
)
def ukb_withdrawn(folder: Path) -> Seen:
    known.archive(folder / "data" / "1000011_31016_2_0.zip", {TABLE: known.published_table(known.series())})
    known.write(folder / "data" / "w12345_20240101.csv", "1000011\n")
    return _seen(folder, input="timeseries", layout="ukb")


@case(AREA, "UK Biobank: two imaging visits of one participant", "read")
def ukb_visits(folder: Path) -> Seen:
    for instance in (2, 3):
        content = {TABLE: known.published_table(known.series(instance))}
        known.archive(folder / "data" / f"1000011_31016_{instance}_0.zip", content)
    _, found = read_cohort(folder, input="timeseries", layout="ukb")
    right = set(found) == {"a_sub-1000011_ses-2_task-rest", "a_sub-1000011_ses-3_task-rest"}
    return Seen("read" if right else "wrong values", ", ".join(found))


@case(AREA, "HCP: cleaned grayordinates, motion in Movement_Regressors.txt", "note", "Movement_Regressors")
def hcp_cleaned(folder: Path) -> Seen:
    truth = known.series()
    known.hcp_run(folder / "data" / "100307", "rfMRI_REST1_LR", truth)
    return _seen(folder, truth, layout="hcpya")


@case(AREA, "HCP: a run that was preprocessed but not cleaned", "refused", "is not cleaned of noise")
def hcp_not_cleaned(folder: Path) -> Seen:
    known.hcp_run(folder / "data" / "100307", "rfMRI_REST1_LR", known.series(), cleaned="")
    return _seen(folder, layout="hcpya")


@case(AREA, "HCP: a folder without MNINonLinear", "refused", "no MNINonLinear")
def hcp_unprocessed(folder: Path) -> Seen:
    (folder / "data" / "100307" / "unprocessed").mkdir(parents=True)
    return _seen(folder, layout="hcpya")


@case(AREA, "HCP: T1 volume is missing", "refused", r"no T1w_restore_brain\.nii\.gz")
def hcp_no_t1w(folder: Path) -> Seen:
    known.hcp_run(folder / "data" / "100307", "rfMRI_REST1_LR", known.series())
    return _seen(folder, modality="t1w", layout="hcpya")


@case(AREA, "HCP-Aging: only the file in which the runs are concatenated", "note", "joins several runs")
def hcpa_joined(folder: Path) -> Seen:
    truth = known.series()
    visit = folder / "data" / "HCA6002236_V1_MR"
    known.hcp_run(visit, "rfMRI_REST", truth, cleaned="hp0_clean", tr_s=0.8)
    return _seen(folder, truth, layout="hcpa")


@case(
    AREA, "ABCD: denoised series of the abcd-hcp-pipeline, two runs in one file", "note", "2 runs are joined"
)
def abcd_denoised(folder: Path) -> Seen:
    truth = known.series(n_frames=120)
    func = folder / "data" / "sub-NDARINV01ABCDEF" / "ses-baselineYear1Arm1" / "func"
    stem = "sub-NDARINV01ABCDEF_ses-baselineYear1Arm1_task-rest"
    known.dtseries(func / f"{stem}_bold_desc-filtered_timeseries.dtseries.nii", truth, 0.8)
    for run in (1, 2):
        lines = ["X Y Z RotX RotY RotZ", *(f"{0.01 * t} 0 0 0 0 0" for t in range(truth.shape[1] // 2))]
        known.write(func / f"{stem}_run-{run}_motion.tsv", "\n".join(lines))
    return _seen(folder, truth, layout="abcd", strategy="none")


@case(AREA, "ABCD: series of the abcd-hcp-pipeline that are not denoised", "refused", "is not denoised")
def abcd_minimal(folder: Path) -> Seen:
    func = folder / "data" / "sub-NDARINV01ABCDEF" / "ses-baselineYear1Arm1" / "func"
    name = "sub-NDARINV01ABCDEF_ses-baselineYear1Arm1_task-rest_run-1_bold_timeseries.dtseries.nii"
    known.dtseries(func / name, known.series(), 0.8)
    return _seen(folder, layout="abcd", strategy="none")


@case(AREA, "ADNI: folders of the archive instead of BIDS", "refused", "clinica convert adni-to-bids")
def adni_archive(folder: Path) -> Seen:
    known.write(folder / "data" / "011_S_0002/MPRAGE/2005-09-01_10_00_00.0/I1/a.dcm", b"x")
    return _seen(folder, input="bids", layout="adni")


@case(AREA, "PPMI: zips of the archive instead of BIDS", "refused", "convert it with dcm2bids")
def ppmi_archive(folder: Path) -> Seen:
    known.archive(folder / "data" / "PPMI_01.zip", {"PPMI/3000/MPRAGE/2014-03-10/I1/a.dcm": b"x"})
    return _seen(folder, input="bids", layout="ppmi")
