"""The cohort `derivatives`: volumes as fMRIPrep writes them, the input `fmriprep`. One of the four moves too much."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from bhx_model import __version__
from bhx_model.atomic_write import write_json
from bhx_prep.demo import bold, folder, head, sources
from bhx_prep.demo.chance import generator
from bhx_prep.demo.standard import draw_t1, write_t1
from bhx_prep.demo.subjects import Subject, draw_signals
from bhx_prep.io import motion
from bhx_prep.preproc.embedded import signals

#: Name of the random stream. The cohort may be renamed without its data changing.
STREAM = "ward"


SUBJECTS = (
    Subject("w001", 2.0, 150, 0.10, 0),
    Subject("w002", 2.0, 150, 0.18, 140),
    Subject("w003", 2.5, 120, 0.25, 280),
    Subject("w004", 2.0, 150, 0.80, 420),
)


@dataclass(frozen=True)
class DerivativeGrids:
    """Grids of the images in standard space."""

    t1_step_mm: float = 2.0
    bold_step_mm: float = 4.0


def fill(
    root: Path,
    seed: int,
    subjects: tuple[Subject, ...] = SUBJECTS,
    grids: DerivativeGrids = DerivativeGrids(),
    each: folder.Each = map,
) -> None:
    """Write the cohort."""
    folder.write_participants(root, generator(seed, STREAM, "participants"), [s.label for s in subjects])
    folder.describe(
        root,
        "BHX demo cohort derivatives",
        "Resting BOLD and T1w in MNI152NLin2009cAsym with confounds, in the files of fMRIPrep but not by it: made from "
        "one average head, HCP connectivity and the real head motion of a LEMON scan. One of the four moves more than the "
        "default threshold allows.\n\nThe planted parcel series stand in sourcedata/truth.",
        derivative=True,
        version=__version__,
    )
    folder.for_each(partial(_write, root, seed, grids), subjects, each)


def _write(root: Path, seed: int, grids: DerivativeGrids, subject: Subject) -> None:
    rng = generator(seed, STREAM, subject.label)
    t1_grid = head.standard_grid(grids.t1_step_mm)
    write_t1(root, subject.label, t1_grid, *draw_t1(rng, t1_grid))

    real = sources.template()
    grid = head.standard_grid(grids.bold_step_mm)
    fine = head.standard_grid(2.0)
    where = fine.points() + head.displacement(rng, fine.shape, 1.0)
    anatomy = bold.from_t1(
        head.sample(real.head, real.affine, where),
        head.sample(real.brain.astype(np.uint8), real.affine, where, order=0),
        head.sample(real.labels, real.affine, where, order=0),
        fine,
    )
    n, tr, drawn = subject.n_frames, subject.tr_s, draw_signals(rng, subject)
    # realignment does not undo spin history: signal is lost everywhere in proportion to displacement
    displacement = np.nan_to_num(motion.framewise_displacement(drawn.motion)).astype(np.float32)
    drawn.changes[1:] -= np.float32(0.01) * displacement
    frames = bold.scan(rng, anatomy, drawn.changes, grid, np.eye(4), drawn.physiology)
    kind = bold.on_grid(anatomy, grid)
    mask = (kind > 0).astype(np.uint8)

    func = subject.folder(root) / "func"
    run = f"{subject.stem}_task-rest"
    stem = f"{run}_space-MNI152NLin2009cAsym_res-{grids.bold_step_mm:g}"
    common = {"Resolution": f"{grids.bold_step_mm:g} mm, isotropic", "Synthetic": True}
    metadata: dict[str, Any] = {"TaskName": "rest", "RepetitionTime": tr, "SkullStripped": False, **common}
    folder.write_nifti(func / f"{stem}_desc-preproc_bold.nii.gz", frames, grid.affine, tr_s=tr)
    write_json(func / f"{stem}_desc-preproc_bold.json", metadata)
    folder.write_nifti(func / f"{stem}_boldref.nii.gz", frames[..., n // 2].copy(), grid.affine)
    write_json(func / f"{stem}_boldref.json", common)
    folder.write_nifti(func / f"{stem}_desc-brain_mask.nii.gz", mask, grid.affine)
    write_json(func / f"{stem}_desc-brain_mask.json", {**common, "Type": "Brain"})
    truth = root / "sourcedata" / "truth" / f"{run}_timeseries.parquet"
    folder.write_series(truth, sources.atlas().names, drawn.parcels)
    white = np.asarray(ndimage.binary_erosion(kind == 2), bool)
    brain = kind > 0
    inner = np.asarray(ndimage.binary_erosion(brain), bool)
    masks = signals.Masks(white[brain], kind[brain] == 1, inner[brain])
    columns, described = signals.confounds(frames[brain], masks, drawn.motion, None, tr, 0)
    folder.write_tsv(func / f"{run}_desc-confounds_timeseries.tsv", columns)
    write_json(func / f"{run}_desc-confounds_timeseries.json", {**described, "Synthetic": True})
