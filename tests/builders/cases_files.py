"""Cases of the choice among files: what is data, which of several files is used, and what a repetition time is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pyarrow.parquet as pq
from input_cases import Seen, case, seen_scan
from small_bids import write_image, write_json, write_subject
from small_templates import ATLAS_AFFINE, ATLAS_SHAPE, write_templates

from bhx_prep.atlas.atlas import load_atlas
from bhx_prep.config.cohorts import CohortSection
from bhx_prep.features.parcellate import parcellate_file
from bhx_prep.features.scans import scans_of
from bhx_prep.ingest import index

RUN = "sub-01/func/sub-01_task-rest"
MNI, MNI6 = "space-MNI152NLin2009cAsym", "space-MNI152NLin6Asym"
KEY = "MD5E-s32002097--0123456789abcdef0123456789abcdef"


def _rows(folder: Path, modality: str, *, t1w_mm: float = 50.0, **section: Any) -> list[dict[str, Any]]:
    cohort = CohortSection(**{"root": folder / "data", "input": "bids", **section})
    return [r for r in index.build("a", cohort, t1w_mm=t1w_mm).to_pylist() if r["modality"] == modality]


def _seen(rows: list[dict[str, Any]], *, name: str = "", tr_s: float | None = None, n: int = 1) -> Seen:
    """What the index makes of a scan: the right file and repetition time, or a reason."""
    usable = [row for row in rows if row["status"] == "ok"]
    if not usable:
        return Seen("refused", rows[0]["reason"])
    row = usable[0]
    right = len(usable) == n and row["path"].endswith(name) and tr_s in (None, row["tr_s"])
    if not right:
        return Seen("wrong values", f"{len(usable)} scans, {row['path']}, {row['tr_s']} s")
    return Seen("note", "; ".join(row["notes"])) if row["notes"] else Seen("read")


def _derivatives(
    folder: Path, *, run: str = RUN, tr_s: float = 2.0, header_s: float = 2.0, space: str = MNI
) -> Path:
    root = folder / "data"
    table = root / f"{run}_desc-confounds_timeseries.tsv"
    table.parent.mkdir(parents=True, exist_ok=True)
    table.write_text("trans_x\n" + "0.1\n" * 10)
    write_image(root / f"{run}_{space}_desc-brain_mask.nii.gz")
    write_json(root / f"{run}_{space}_desc-preproc_bold.json", RepetitionTime=tr_s)
    return write_image(root / f"{run}_{space}_desc-preproc_bold.nii.gz", frames=10, tr_s=header_s)


def _t1w(folder: Path, *labels: str, mm: float = 50) -> Path:
    name = "_".join(["sub-01", *labels, "T1w.nii.gz"])
    return write_image(folder / "data/sub-01/anat" / name, zooms=(mm, mm, mm))


@case(
    "Repetition time", "fMRIPrep's derivative whose header says 1 s (23.2.0)", "note", "the sidecar's is used"
)
def header_of_one(folder: Path) -> Seen:
    _derivatives(folder, header_s=1.0)
    return _seen(_rows(folder, "bold", input="fmriprep"), tr_s=2.0)


@case("Repetition time", "fMRIPrep's derivative whose header says 0", "read")
def header_of_zero(folder: Path) -> Seen:
    _derivatives(folder, header_s=0.0)
    return _seen(_rows(folder, "bold", input="fmriprep"), tr_s=2.0)


@case(
    "Repetition time", "fMRIPrep's derivative whose header states milliseconds as seconds", "note", "2000 s"
)
def header_in_ms(folder: Path) -> Seen:
    _derivatives(folder, header_s=2000.0)
    return _seen(_rows(folder, "bold", input="fmriprep"), tr_s=2.0)


@case("Repetition time", "fMRIPrep's derivative without sidecar whose header says 1 s", "note", "23.2.0")
def header_of_one_alone(folder: Path) -> Seen:
    _derivatives(folder, header_s=1.0).with_name(
        f"{RUN}_{MNI}_desc-preproc_bold.json".split("/")[-1]
    ).unlink()
    return _seen(_rows(folder, "bold", input="fmriprep"), tr_s=1.0)


@case("Repetition time", "raw data whose sidecar and header differ", "refused", "`tr`")
def raw_contradiction(folder: Path) -> Seen:
    write_subject(folder / "data", tr_s=3.0)
    return _seen(_rows(folder, "bold"))


@case("Repetition time", "raw data whose sidecar and header differ, `tr: header`", "note", "as `tr` asks")
def raw_by_header(folder: Path) -> Seen:
    write_subject(folder / "data", tr_s=3.0)
    return _seen(_rows(folder, "bold", tr="header"), tr_s=3.0)


@case(
    "Repetition time",
    "raw data whose sidecar and header differ, `tr_s` stated",
    "note",
    "tr_s of 2.5 s is used",
)
def raw_by_tr_s(folder: Path) -> Seen:
    write_subject(folder / "data", tr_s=3.0)
    return _seen(_rows(folder, "bold", tr_s=2.5), tr_s=2.5)


@case("Repetition time", "sidecar and header agree, `tr_s` differs", "note", "and not the cohort's tr_s")
def agreed_otherwise(folder: Path) -> Seen:
    write_subject(folder / "data", tr_s=2.0)
    return _seen(_rows(folder, "bold", tr_s=0.8), tr_s=2.0)


@case("Repetition time", "derivatives whose sidecar states milliseconds", "refused", "milliseconds")
def sidecar_in_ms(folder: Path) -> Seen:
    _derivatives(folder, tr_s=2000)
    return _seen(_rows(folder, "bold", input="fmriprep"))


@case("Files", "an image that is an unlocked pointer of git-annex", "refused", "datalad get")
def unlocked_pointer(folder: Path) -> Seen:
    write_subject(folder / "data").write_text(f"/annex/objects/{KEY}.nii.gz\n")
    return _seen(_rows(folder, "bold"))


@case("Files", "a table of confounds that is a pointer of git-annex", "refused", "datalad get")
def pointer_of_confounds(folder: Path) -> Seen:
    _derivatives(folder)
    (folder / "data" / f"{RUN}_desc-confounds_timeseries.tsv").write_text(f"/annex/objects/{KEY}.tsv\n")
    return _seen(_rows(folder, "bold", input="fmriprep"))


@case("Files", "an image that is a pointer of Git LFS", "refused", "git lfs pull")
def lfs_pointer(folder: Path) -> Seen:
    lfs = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n"
    write_subject(folder / "data").write_text(lfs)
    return _seen(_rows(folder, "bold"))


@case("Files", "a sidecar that is a pointer of git-annex", "refused", "datalad get")
def pointer_of_sidecar(folder: Path) -> Seen:
    path = write_subject(folder / "data").with_name("sub-01_task-rest_bold.json")
    path.write_text(f"/annex/objects/{KEY}.json\n")
    return _seen(_rows(folder, "bold"))


@case("Files", "a brain mask that is a pointer of git-annex", "refused", "datalad get")
def pointer_of_mask(folder: Path) -> Seen:
    image = nib.Nifti1Image(np.random.default_rng(0).random((*ATLAS_SHAPE, 10)), ATLAS_AFFINE)
    nib.save(image, bold := _derivatives(folder))
    (folder / "data" / f"{RUN}_{MNI}_desc-brain_mask.nii.gz").write_text(f"/annex/objects/{KEY}.nii.gz\n")
    row = _rows(folder, "bold", input="fmriprep")[0]
    parcellate_file(bold, load_atlas(write_templates(folder / "templates")), mask=Path(row["mask"]))
    return Seen("read")


@case(
    "Files",
    "a `.bidsignore` that links to content that was not fetched",
    "refused",
    "bidsignore cannot be read",
)
def pointer_of_bidsignore(folder: Path) -> Seen:
    write_subject(folder / "data")
    (folder / "data/.bidsignore").symlink_to(".git/annex/objects/a")
    return _seen(_rows(folder, "bold"))


@case("Files", "a subject's folder that is a link to itself", "read")
def subject_linked_to_itself(folder: Path) -> Seen:
    write_subject(folder / "data")
    (folder / "data/sub-02").symlink_to("sub-02")
    return _seen(_rows(folder, "bold"), name="sub-01_task-rest_bold.nii.gz")


@case("Files", "folders linked in a circle", "read")
def circle(folder: Path) -> Seen:
    bold = write_subject(folder / "data")
    (bold.parent / "again").symlink_to("..", target_is_directory=True)
    (bold.parent / "self").symlink_to("self")
    (folder / "data/sub-01/all").symlink_to(folder / "data", target_is_directory=True)
    return _seen(_rows(folder, "bold"), name="sub-01_task-rest_bold.nii.gz")


@case("Files", "ids `01` and `1` in one cohort", "note", "are two subjects")
def similar_ids(folder: Path) -> Seen:
    write_subject(folder / "data")
    write_subject(folder / "data", "1")
    rows = _rows(folder, "bold")
    same = all(f"/sub-{r['subject']}/" in r["path"] and r["anat"] == f"a_sub-{r['subject']}" for r in rows)
    return _seen(rows, n=2) if same else Seen("wrong values", "subjects are mixed")


@case("Files", "two files for one scan: run-1 and run-01", "refused", "2 files claim to be this scan")
def padded_twice(folder: Path) -> Seen:
    path = write_subject(folder / "data")
    for run in ("1", "01"):
        shutil.copy(path, path.with_name(f"sub-01_task-rest_run-{run}_bold.nii.gz"))
    path.unlink()
    return _seen(_rows(folder, "bold", tr_s=2))


@case("Choice among files", "run-01 whose derivatives are called run-1", "read")
def padding_lost(folder: Path) -> Seen:
    data = folder / "data"
    path = write_subject(data, tr_s=2.0)
    path.rename(path.with_name("sub-01_task-rest_run-01_bold.nii.gz"))
    write_json(data / "task-rest_bold.json", RepetitionTime=2.0)
    table = index.build("a", CohortSection(input="bids", root=data))
    pq.write_table(table, folder / "a.parquet")
    _derivatives(folder / "made", run=f"{RUN}_run-1")
    made = folder / "made" / "data"
    (made / "sub-01_status.json").write_text(json.dumps({"status": "ok", "reason": None}))
    rows = scans_of(folder / "a.parquet", "a", ["01"], derivatives=made, space="MNI152NLin2009cAsym")
    rows = [row for row in rows if row["modality"] == "bold"]
    if rows[0]["key"] != "a_sub-01_task-rest_run-01":
        return Seen("wrong values", rows[0]["key"])
    return _seen(rows, name="run-1_space-MNI152NLin2009cAsym_desc-preproc_bold.nii.gz", tr_s=2.0)


@case("Choice among files", "confounds under the old and the new name", "note", "_timeseries.tsv")
def two_confounds(folder: Path) -> Seen:
    _derivatives(folder)
    (folder / "data" / f"{RUN}_desc-confounds_regressors.tsv").write_text("trans_x\n9\n")
    rows = _rows(folder, "bold", input="fmriprep")
    right = rows[0]["confounds"].endswith("_timeseries.tsv")
    return _seen(rows) if right else Seen("wrong values", rows[0]["confounds"])


@case("Choice among files", "BOLD without a brain mask", "note", "BOLD without a brain mask")
def without_mask(folder: Path) -> Seen:
    path = _derivatives(folder)
    path.with_name(path.name.replace("preproc_bold", "brain_mask")).unlink()
    return _seen(_rows(folder, "bold", input="fmriprep"), tr_s=2)


@case("Choice among files", "a T1w at two resolutions", "note", "of 2 resolutions")
def two_resolutions(folder: Path) -> Seen:
    _t1w(folder, MNI, "res-1", "desc-preproc", mm=45)
    _t1w(folder, MNI, "res-2", "desc-preproc", mm=90)
    rows = _rows(folder, "t1w", input="fmriprep", t1w_mm=90)
    return _seen(rows, name="_res-2_desc-preproc_T1w.nii.gz")


@case("Choice among files", "a T1w of coarser voxels than the model's grid", "note", "upsampled")
def coarse_t1w(folder: Path) -> Seen:
    _t1w(folder, MNI, "res-2", "desc-preproc", mm=90)
    return _seen(_rows(folder, "t1w", input="fmriprep", t1w_mm=45), name="_T1w.nii.gz")


@case("Choice among files", "several T1w images of a session, `prefer: {acq: [norm]}`", "note", "one of 2")
def preferred_t1w(folder: Path) -> Seen:
    write_subject(folder / "data")
    shutil.move(folder / "data/sub-01/anat/sub-01_T1w.nii.gz", _t1w(folder, "acq-fast"))
    _t1w(folder, "acq-norm")
    return _seen(_rows(folder, "t1w", prefer={"acq": ["norm"]}), name="_acq-norm_T1w.nii.gz")


@case("Choice among files", "two reconstructions of a run, `prefer: {rec: [norm]}`", "note", "by `prefer`")
def preferred_run(folder: Path) -> Seen:
    path = write_subject(folder / "data", tr_s=2.0)
    shutil.copy(path, path.with_name("sub-01_task-rest_rec-norm_bold.nii.gz"))
    return _seen(_rows(folder, "bold", prefer={"rec": ["norm", "none"]}), name="_rec-norm_bold.nii.gz")


@case("Choice among files", "two acquisitions of a run, `select: {acq: [mb]}`", "read")
def selected_run(folder: Path) -> Seen:
    path = write_subject(folder / "data", tr_s=2.0)
    shutil.copy(path, path.with_name("sub-01_task-rest_acq-mb_bold.nii.gz"))
    return _seen(_rows(folder, "bold", select={"acq": ["mb"]}), name="_acq-mb_bold.nii.gz")


@case("Choice among files", "a scan excluded by `exclude`", "refused", "left out by `exclude`")
def excluded(folder: Path) -> Seen:
    write_subject(folder / "data")
    return _seen(_rows(folder, "bold", exclude=["sub-01/func/*"]))


@case("Choice among files", "a scan excluded by `.bidsignore`", "refused", "left out by .bidsignore")
def ignored(folder: Path) -> Seen:
    write_subject(folder / "data")
    (folder / "data/.bidsignore").write_text("# bad\n*_bold.nii.gz\n")
    return _seen(_rows(folder, "bold"))


@case("Choice among files", "a scan excluded by a column of `scans.tsv`", "refused", "exclude: 'fell asleep'")
def scans_table(folder: Path) -> Seen:
    write_subject(folder / "data")
    rows = "anat/sub-01_T1w.nii.gz\t0\nfunc/sub-01_task-rest_bold.nii.gz\tfell asleep\n"
    (folder / "data/sub-01/sub-01_scans.tsv").write_text(f"filename\texclude\n{rows}")
    return _seen(_rows(folder, "bold"))


def _left_out(folder: Path, table: str) -> Seen:
    write_subject(folder / "data")
    (folder / "data/sub-01/sub-01_scans.tsv").write_text(table)
    return _seen(_rows(folder, "bold"))


@case(
    "Choice among files", "`scans.tsv` with paths from the dataset's root", "refused", "left out by scans.tsv"
)
def scans_from_root(folder: Path) -> Seen:
    return _left_out(folder, f"filename\texclude\n{RUN}_bold.nii.gz\t1\n")


@case(
    "Choice among files",
    "`scans.tsv` with another extension of the image",
    "refused",
    "left out by scans.tsv",
)
def scans_other_ending(folder: Path) -> Seen:
    return _left_out(folder, "filename\texclude\nfunc/sub-01_task-rest_bold.nii\t1\n")


@case("Choice among files", "`scans.tsv` with commas instead of tabs", "note", "nothing is left out by it")
def scans_with_commas(folder: Path) -> Seen:
    return _left_out(folder, "filename,exclude\nfunc/sub-01_task-rest_bold.nii.gz,1\n")


@case("Choice among files", "`scans.tsv` with two columns `exclude`", "note", "two columns of one name")
def scans_with_two_columns(folder: Path) -> Seen:
    return _left_out(folder, "filename\texclude\texclude\nfunc/sub-01_task-rest_bold.nii.gz\t1\t0\n")


@case("Choice among files", "an empty `scans.tsv`", "read")
def empty_scans(folder: Path) -> Seen:
    return _left_out(folder, "")


@case("Choice among files", "`scans.tsv` that excludes a run that does not exist", "note", "is not there")
def scans_of_another_run(folder: Path) -> Seen:
    return _left_out(folder, "filename\texclude\nfunc/sub-01_task-rest_run-2_bold.nii.gz\t1\n")


@case("Choice among files", "one of several echoes excluded", "refused", "1 of 3 echoes are left out")
def one_echo_left_out(folder: Path) -> Seen:
    path = write_subject(folder / "data")
    for echo in "123":
        shutil.copy(path, path.with_name(f"sub-01_task-rest_echo-{echo}_bold.nii.gz"))
    path.unlink()
    return _seen(_rows(folder, "bold", exclude=["*_echo-1_*"], tr_s=2))


@case(
    "Choice among files",
    "denoised outputs alone (XCP-D, fMRIPost-AROMA)",
    "refused",
    "there is: desc-denoised",
)
def denoised_alone(folder: Path) -> Seen:
    path = _derivatives(folder)
    path.rename(path.with_name(path.name.replace("desc-preproc", "desc-denoised")))
    return _seen(_rows(folder, "bold", input="fmriprep"))


@case("Choice among files", "denoised outputs without confounds, `select` and `strategy: none`", "read")
def denoised_selected(folder: Path) -> Seen:
    path = _derivatives(folder)
    path.rename(path.with_name(path.name.replace("desc-preproc", "desc-denoised")))
    (folder / "data" / f"{RUN}_desc-confounds_timeseries.tsv").unlink()
    asked: dict[str, Any] = {"select": {"desc": ["denoised"]}, "strategy": "none"}
    return _seen(_rows(folder, "bold", input="fmriprep", **asked), name="_desc-denoised_bold.nii.gz", tr_s=2)


@case("Choice among files", "tables of XCP-D at `input: fmriprep`", "refused", "`input: timeseries`")
def tables_as_images(folder: Path) -> Seen:
    path = folder / "data" / f"{RUN}_{MNI}_seg-4S456Parcels_stat-mean_timeseries.tsv"
    path.parent.mkdir(parents=True)
    path.write_text("a\tb\n1\t2\n")
    return _seen(_rows(folder, "bold", input="fmriprep"))


@case("Choice among files", "names of fMRIPrep before 1.2", "refused", "before 1.2")
def old_fmriprep(folder: Path) -> Seen:
    write_image(folder / "data" / f"{RUN}_bold_{MNI}_preproc.nii.gz", frames=10)
    return _seen(_rows(folder, "bold", input="fmriprep"))


@case(
    "Choice among files",
    "a T1w image that is a phase image only",
    "refused",
    "there is a phase image only, no magnitude",
)
def phase_t1w(folder: Path) -> Seen:
    write_subject(folder / "data")
    shutil.move(folder / "data/sub-01/anat/sub-01_T1w.nii.gz", _t1w(folder, "part-phase"))
    return _seen(_rows(folder, "t1w"))


@case("Choice among files", "BOLD with an imaginary part only", "refused", "no magnitude")
def imaginary(folder: Path) -> Seen:
    path = write_subject(folder / "data")
    path.rename(path.with_name("sub-01_task-rest_part-imag_bold.nii.gz"))
    return _seen(_rows(folder, "bold"))


@case("Choice among files", "MP2RAGE without a T1w image", "refused", "UNIT1")
def mp2rage(folder: Path) -> Seen:
    write_subject(folder / "data")
    anat = folder / "data/sub-01/anat"
    (anat / "sub-01_T1w.nii.gz").rename(anat / "sub-01_UNIT1.nii.gz")
    return _seen(_rows(folder, "bold"))


@case("Space", "a T1w beside tables whose name states no space", "refused", "no T1w image in space")
def native_beside_tables(folder: Path) -> Seen:
    _t1w(folder, "desc-preproc")
    return _seen(_rows(folder, "t1w", input="timeseries"))


@case("Space", "a T1w in MNI152NLin6Asym, none in MNI152NLin2009cAsym", "note", "T1w in MNI152NLin6Asym")
def other_mni(folder: Path) -> Seen:
    _t1w(folder, MNI6, "desc-preproc")
    return _seen(_rows(folder, "t1w", input="fmriprep"), name="_T1w.nii.gz")


@case(
    "Space",
    "BOLD in MNI152NLin6Asym, which `space` does not name",
    "refused",
    "NLin6Asym .the cohort's `space`",
)
def other_mni_bold(folder: Path) -> Seen:
    _derivatives(folder, space=MNI6)
    return _seen(_rows(folder, "bold", input="fmriprep"))


@case("Space", "a space spelt as C-PAC does (MNI152NLin6ASym)", "read")
def spelt_otherwise(folder: Path) -> Seen:
    _derivatives(folder, space="space-MNI152NLin6ASym")
    return _seen(
        _rows(folder, "bold", input="fmriprep", space="MNI152NLin6Asym"), name="_bold.nii.gz", tr_s=2
    )


@case("Space", "a paediatric template that `space` does not ask for", "refused", "MNIPediatricAsym:cohort-3")
def paediatric(folder: Path) -> Seen:
    _t1w(folder, "space-MNIPediatricAsym", "cohort-3", "desc-preproc")
    return _seen(_rows(folder, "t1w", input="fmriprep"))


@case("Space", "a paediatric template that `space` asks for", "note", "as `space` asks")
def paediatric_asked(folder: Path) -> Seen:
    _t1w(folder, "space-MNIPediatricAsym", "cohort-3", "desc-preproc")
    rows = _rows(folder, "t1w", input="fmriprep", space="MNIPediatricAsym:cohort-3")
    return _seen(rows, name="_T1w.nii.gz")


@case("Files", "an array that links to content of git-annex that was not fetched", "refused", "datalad get")
def annex_link(folder: Path) -> Seen:
    func = folder / "data" / "sub-01" / "func"
    func.mkdir(parents=True)
    (func / "sub-01_task-rest_timeseries.npy").symlink_to("../../.git/annex/objects/x/y/MD5E-s1--z.npy")
    return seen_scan(folder, input="timeseries", tr_s=2)
