"""Cases of motion, censoring and confounds, of a T1's place, and of the hemispheres of surfaces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import yaml
from input_cases import SETTINGS, Seen, case, read_cohort
from small_templates import ATLAS_AFFINE, ATLAS_SHAPE, MM, SPACE

from bhx_prep.io import motion

N = 40
STEM = "sub-01_task-rest"
FD = "framewise_displacement"
SIX = {"columns": list(motion.NAMES), "detrend": True, "drop_frames": "non_steady_state"}


def _non_steady(n: int) -> dict[str, np.ndarray]:
    return {f"non_steady_state_outlier{i:02d}": np.eye(N)[i] for i in range(n)}


def _seen(folder: Path, strategy: dict[str, Any], columns: dict[str, Any], *, n_rows: int = N) -> Seen:
    """What becomes of a run with these confounds under a strategy; its displacement must be that of calm frames."""
    rng = np.random.default_rng(0)
    func = folder / "data" / "sub-01" / "func"
    func.mkdir(parents=True)
    image = nib.Nifti1Image((1000 + 30 * rng.standard_normal((*ATLAS_SHAPE, N))).astype("f4"), ATLAS_AFFINE)
    image.header.set_zooms((MM, MM, MM, 2.0))
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, func / f"{STEM}_space-{SPACE}_desc-preproc_bold.nii.gz")
    mask = nib.Nifti1Image(np.ones(ATLAS_SHAPE, np.uint8), ATLAS_AFFINE)
    nib.save(mask, func / f"{STEM}_space-{SPACE}_desc-brain_mask.nii.gz")
    (func / f"{STEM}_space-{SPACE}_desc-preproc_bold.json").write_text('{"RepetitionTime": 2.0}')
    table = {name: 1e-3 * rng.standard_normal(n_rows) for name in motion.NAMES}
    table |= {name: rng.standard_normal(n_rows) for name in ("global_signal", "white_matter", "csf")}
    table |= {FD: np.r_[np.nan, np.full(n_rows - 1, 0.1)]} | columns
    frame = pd.DataFrame({name: values for name, values in table.items() if values is not None})
    frame.to_csv(func / f"{STEM}_desc-confounds_timeseries.tsv", sep="\t", na_rep="n/a", index=False)
    own = folder / "own.yaml"
    own.write_text(yaml.safe_dump({"name": "own", "prose": "p", "citation": ["c"]} | strategy))
    settings = SETTINGS.model_copy(update={"strategy": str(own)})
    [row], _ = read_cohort(folder, settings=settings, input="fmriprep")
    if row["status"] != "ok":
        return Seen("refused", row["reason"])
    if row["mean_fd_mm"] is not None and not 0 < row["mean_fd_mm"] < 0.2:
        return Seen("wrong values", f"mean displacement {row['mean_fd_mm']}")
    return Seen("note", "; ".join(row["notes"])) if row["notes"] else Seen("read")


@case("Motion", "frames of high displacement at the start, which the strategy drops", "read")
def dropped_frames(folder: Path) -> Seen:
    fd = np.r_[np.nan, [15.0] * 4, [0.1] * (N - 5)]
    return _seen(folder, SIX, {FD: fd, **_non_steady(4)})


@case("Motion", "frames of high displacement that are censored", "read")
def censored_frames(folder: Path) -> Seen:
    fd = np.full(N, 0.1)
    fd[[3, 4, 38]] = 8.0
    return _seen(folder, SIX | {"censor_fd_mm": 0.5}, {FD: fd})


@case(
    "Motion",
    "displacement n/a in every frame of a subject who moves by 2 mm a frame",
    "refused",
    r"2\.\d+ mm is above",
)
def nothing_given(folder: Path) -> Seen:
    return _seen(folder, {}, {FD: np.nan, "trans_x": 2.0 * np.arange(N)})


@case("Motion", "displacement n/a in some frames", "note", "n/a in 5 of 40 frames: computed")
def gaps(folder: Path) -> Seen:
    return _seen(folder, {}, {FD: np.r_[np.nan, [0.1] * (N - 6), [np.nan] * 5]})


@case(
    "Motion",
    "displacement of 0.1 mm, motion parameters that move by 2 mm a frame",
    "note",
    "parameters give 2",
)
def contradicting_parameters(folder: Path) -> Seen:
    return _seen(folder, {}, {"trans_x": 2.0 * np.arange(N)})


@case("Motion", "displacement 0 in every frame, without motion parameters", "note", "motion is not measured")
def zeros(folder: Path) -> Seen:
    return _seen(folder, {}, {FD: 0.0, **dict.fromkeys(motion.NAMES)})


@case("Motion", "no displacement, with rotations in degrees", "note", "in degrees.*not measured")
def degrees(folder: Path) -> Seen:
    return _seen(folder, {}, {FD: None, "rot_x": np.linspace(0, 3, N)})


@case("Motion", "censoring by a displacement that is not known", "refused", "cannot be censored")
def unknown_censoring(folder: Path) -> Seen:
    return _seen(folder, {"censor_fd_mm": 0.5}, {FD: np.nan, "trans_x": None})


@case("Confounds", "names of fMRIPrep before 1.2 (FramewiseDisplacement, X, RotX)", "note", "before 1.2")
def old_names(folder: Path) -> Seen:
    old = dict(zip(("X", "Y", "Z", "RotX", "RotY", "RotZ"), np.full((6, N), 0.01).cumsum(1), strict=True))
    old["FramewiseDisplacement"] = np.r_[np.nan, np.full(N - 1, 0.1)]
    return _seen(folder, SIX, {FD: None, **dict.fromkeys(motion.NAMES), **old})


@case(
    "Confounds",
    "fewer aCompCor components than the strategy asks for",
    "note",
    "3 aCompCor components of CSF",
)
def fewer_components(folder: Path) -> Seen:
    rng = np.random.default_rng(1)
    counted = {
        f"{m}_comp_cor_{i:02d}": rng.standard_normal(N) for m, n in (("w", 5), ("c", 3)) for i in range(n)
    }
    return _seen(folder, {"acompcor": 5}, counted)


@case("Confounds", "no aCompCor components of one tissue", "refused", "0 aCompCor components of CSF")
def no_components(folder: Path) -> Seen:
    return _seen(folder, {"acompcor": 5}, {"w_comp_cor_00": np.arange(N)})


@case(
    "Confounds",
    "a table with another number of frames than the run",
    "refused",
    "39 rows, the series 40 frames",
)
def wrong_length(folder: Path) -> Seen:
    return _seen(folder, {}, {}, n_rows=N - 1)


@case(
    "Confounds", "a needed column that is n/a throughout", "refused", "'csf' is not finite in 40 of 40 frames"
)
def empty_column(folder: Path) -> Seen:
    return _seen(folder, {"columns": ["csf"]}, {"csf": np.nan})


@case("Confounds", "decimal commas", "refused", "'csf' holds text, '1,5' in row 1")
def decimal_commas(folder: Path) -> Seen:
    return _seen(folder, {"columns": ["csf"]}, {"csf": ["1,5"] * N})


def _surface(
    folder: Path, left: str, right: str, *, vertices: int = 10242, seeds: tuple[int, int] = (0, 1)
) -> Seen:
    """A pair of GIfTI series whose metadata say these structures."""
    func = folder / "data" / "sub-01" / "func"
    func.mkdir(parents=True)
    for seed, hemi, structure in ((seeds[0], "L", left), (seeds[1], "R", right)):
        values = (1000 + np.random.default_rng(seed).standard_normal((vertices, 12))).astype("f4")
        image = nib.GiftiImage(darrays=[nib.gifti.GiftiDataArray(frame) for frame in values.T])
        image.meta["AnatomicalStructurePrimary"] = structure
        nib.save(image, func / f"{STEM}_hemi-{hemi}_space-fsaverage5_bold.func.gii")
    (func / f"{STEM}_desc-confounds_timeseries.tsv").write_text(f"{FD}\nn/a\n" + "0.1\n" * 11)
    [row], _ = read_cohort(folder, input="fmriprep", tr_s=2.0, space="fsaverage5")
    if row["status"] != "ok":
        return Seen("refused", row["reason"])
    return Seen("note", "; ".join(row["notes"])) if row["notes"] else Seen("read")


@case(
    "Left and right",
    "GIfTI series whose metadata state the other hemisphere",
    "refused",
    "says CortexRight.*swapped",
)
def swapped(folder: Path) -> Seen:
    return _surface(folder, "CortexRight", "CortexLeft")


@case("Left and right", "GIfTI series whose metadata state their own hemisphere", "read")
def not_swapped(folder: Path) -> Seen:
    return _surface(folder, "CortexLeft", "CortexRight")


@case("Left and right", "one hemisphere's GIfTI file under both names", "refused", "one is a copy")
def copied(folder: Path) -> Seen:
    return _surface(folder, "", "", seeds=(0, 0))


@case(
    "Left and right",
    "GIfTI series on another mesh than their name states",
    "refused",
    "vertices are those of fsLR",
)
def other_mesh(folder: Path) -> Seen:
    return _surface(folder, "CortexLeft", "CortexRight", vertices=32492)
