"""The cohort `derivatives`: volumes as fMRIPrep writes them, the input `fmriprep`. One of the four moves too much."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from bhx_prep.demo import bold, folder, head, series, sources
from bhx_prep.demo.chance import generator
from bhx_prep.demo.standard import draw_t1, write_t1
from bhx_prep.demo.version import version
from bhx_prep.io import motion
from bhx_prep.preproc.embedded import signals

#: Name of the random stream. The cohort may be renamed without its data changing.
STREAM = "ward"


@dataclass(frozen=True)
class Person:
    """One person and how they are scanned."""

    subject: str
    tr_s: float
    n_frames: int
    mean_fd_mm: float
    motion_from: int


PEOPLE = (
    Person("w001", 2.0, 150, 0.10, 0),
    Person("w002", 2.0, 150, 0.18, 140),
    Person("w003", 2.5, 120, 0.25, 280),
    Person("w004", 2.0, 150, 0.80, 420),
)


@dataclass(frozen=True)
class Sizes:
    """Grids of the images."""

    t1_step_mm: float = 2.0
    bold_step_mm: float = 4.0


def fill(root: Path, seed: int, people: tuple[Person, ...] = PEOPLE, sizes: Sizes = Sizes()) -> None:
    """Write the cohort."""
    rng = generator(seed, STREAM, "participants")
    folder.write_participants(
        root,
        {
            "participant_id": [f"sub-{p.subject}" for p in people],
            "age": rng.uniform(20, 75, len(people)).round(1),
            "sex": rng.choice(["F", "M"], len(people)),
        },
    )
    folder.describe(
        root,
        "BHX demo cohort derivatives",
        "Resting BOLD and T1w in MNI152NLin2009cAsym with confounds, in the files of fMRIPrep but not by it: made from "
        "one average head, HCP connectivity and the real head motion of a LEMON scan. One of the four moves more than the "
        "default threshold allows.\n\nThe planted parcel series stand in sourcedata/truth.",
        derivative=True,
        version=version(),
    )
    for person in people:
        _write(root, seed, person, sizes)


def _write(root: Path, seed: int, person: Person, sizes: Sizes) -> None:
    rng = generator(seed, STREAM, person.subject)
    t1_grid = head.standard_grid(sizes.t1_step_mm)
    write_t1(root, person.subject, t1_grid, *draw_t1(rng, t1_grid))

    real = sources.template()
    grid = head.standard_grid(sizes.bold_step_mm)
    fine = head.standard_grid(2.0)
    where = fine.points() + head.displacement(rng, fine.shape, 1.0)
    anatomy = bold.see(
        head.sample(real.head, real.affine, where),
        head.sample(real.brain.astype(np.uint8), real.affine, where, order=0),
        head.sample(real.labels, real.affine, where, order=0),
        fine,
    )
    n, tr = person.n_frames, person.tr_s
    moved = bold.take_motion(sources.real_motion(), person.motion_from, n, person.mean_fd_mm)
    own = series.individual(rng, sources.connectivity())
    parcels = series.draw(rng, own, n, tr, sources.real_spectrum())
    physiology = bold.Physiology()
    changes = bold.percent_changes(rng, parcels, tr, sources.real_spectrum(), physiology)
    # realignment leaves what spin history does: signal is lost everywhere in proportion to displacement
    changes[1:] -= np.float32(0.01) * np.nan_to_num(motion.framewise_displacement(moved)).astype(np.float32)
    frames = bold.scan(rng, anatomy, changes, grid, np.eye(4), physiology)
    kind = bold.on_grid(anatomy, grid)
    mask = (kind > 0).astype(np.uint8)

    func = root / f"sub-{person.subject}" / "func"
    run = f"sub-{person.subject}_task-rest"
    stem = f"{run}_space-MNI152NLin2009cAsym_res-{sizes.bold_step_mm:g}"
    common = {"Resolution": f"{sizes.bold_step_mm:g} mm, isotropic", "Synthetic": True}
    metadata: dict[str, Any] = {"TaskName": "rest", "RepetitionTime": tr, "SkullStripped": False, **common}
    folder.write_nifti(func / f"{stem}_desc-preproc_bold.nii.gz", frames, grid.affine, tr_s=tr)
    folder.write_json(func / f"{stem}_desc-preproc_bold.json", metadata)
    folder.write_nifti(func / f"{stem}_boldref.nii.gz", frames[..., n // 2].copy(), grid.affine)
    folder.write_json(func / f"{stem}_boldref.json", common)
    folder.write_nifti(func / f"{stem}_desc-brain_mask.nii.gz", mask, grid.affine)
    folder.write_json(func / f"{stem}_desc-brain_mask.json", {**common, "Type": "Brain"})
    truth = root / "sourcedata" / "truth" / f"{run}_timeseries.parquet"
    folder.write_series(truth, sources.atlas().names, parcels)
    white = np.asarray(ndimage.binary_erosion(kind == 2), bool)
    columns, described = signals.confounds(frames[kind > 0], frames[white], frames[kind == 1], moved, tr, 0)
    folder.write_tsv(func / f"{run}_desc-confounds_timeseries.tsv", columns)
    folder.write_json(func / f"{run}_desc-confounds_timeseries.json", {**described, "Synthetic": True})
