"""The cohort `rawbids`: raw BIDS, the input `bids`. Two whole heads with resting BOLD and real head motion."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from bhx_model import __version__
from bhx_model.atomic_write import write_json
from bhx_prep.demo import bold, folder, head, sources
from bhx_prep.demo.chance import generator
from bhx_prep.demo.subjects import Subject, draw_signals
from bhx_prep.io.motion import NAMES, framewise_displacement

#: Entries of every sidecar.
_SCANNER = {"Manufacturer": "none (synthetic)", "MagneticFieldStrength": 3, "Synthetic": True}

#: Name of the random stream. The cohort may be renamed without its data changing.
STREAM = "people"


SUBJECTS = (
    Subject("01", 2.0, 150, 0.12, 20),
    Subject("02", 2.5, 120, 0.20, 300, session="a"),
)


@dataclass(frozen=True)
class RawGrids:
    """Grids of the images as scanned."""

    t1_step_mm: float = 1.5
    bold_step_mm: float = 4.0
    bold_shape: tuple[int, int, int] = (64, 64, 36)


def fill(
    root: Path,
    seed: int,
    subjects: tuple[Subject, ...] = SUBJECTS,
    grids: RawGrids = RawGrids(),
    each: folder.Each = map,
) -> None:
    """Write the cohort."""
    folder.write_participants(root, generator(seed, STREAM, "participants"), [s.label for s in subjects])
    folder.describe(
        root,
        "BHX demo cohort rawbids",
        "Raw T1w and resting BOLD of two subjects who do not exist: one average head, smoothly deformed, with bias field "
        "and noise; BOLD made from the same heads, with the connectivity of HCP people and the real head motion of "
        "a LEMON scan.\n\nWhat was planted (positions, motion, parcel series, parcels and brain on the images' own "
        "grids) stands in sourcedata/truth.",
        derivative=False,
        version=__version__,
    )
    folder.for_each(partial(_write, root, seed, grids), subjects, each)


def _write(root: Path, seed: int, grids: RawGrids, subject: Subject) -> None:
    real = sources.template()
    rng = generator(seed, STREAM, subject.label)
    step = grids.t1_step_mm
    shape = tuple(int(np.ceil(mm / step)) for mm in (186, 234, 216))
    # as on a scanner, the grid is independent of the position of the head
    grid = head.Grid(shape, step, tuple(-step * (n - 1) / 2 for n in shape))  # type: ignore[arg-type]
    pose = np.concatenate([rng.normal(0, 4, 3), rng.normal(0, 0.06, 3)])
    to_standard = np.linalg.inv(head.rigid(pose, np.zeros(3)))
    to_standard[:3, :3] *= 1 / rng.normal(1, 0.03, 3)[:, None]
    to_standard[:3, 3] += (0.0, -18.0, 18.0)  # the middle of the head in MNI coordinates, near enough
    where = np.einsum("ij,jxyz->ixyz", to_standard[:3, :3].astype(np.float32), grid.points())
    where += to_standard[:3, 3].astype(np.float32)[:, None, None, None]
    where += head.displacement(rng, grid.shape, 3.0)
    clean = head.sample(real.head, real.affine, where)
    brain = head.sample(real.brain.astype(np.uint8), real.affine, where, order=0)
    labels = head.sample(real.labels, real.affine, where, order=0)

    bias = np.exp(head.smooth_field(rng, grid.shape, (4, 4, 4), 0.2))
    t1 = head.rician(rng, clean * bias * 8, 18.0)
    anat = subject.folder(root) / "anat"
    folder.write_nifti(
        anat / f"{subject.stem}_T1w.nii.gz", np.rint(t1).astype(np.int16), grid.affine, scanner=True
    )
    write_json(anat / f"{subject.stem}_T1w.json", _SCANNER)

    drawn = draw_signals(rng, subject)
    shift = np.concatenate([rng.normal(0, 1.5, 3), rng.normal(0, 0.01, 3)])  # small motion after the T1
    position = head.rigid(shift, np.zeros(3))
    # the slices are positioned on the brain, as in a real protocol
    voxels = np.argwhere(brain[::3, ::3, ::3])
    centre = (position @ grid.affine @ [*(voxels.mean(axis=0) * 3), 1])[:3]
    origin = centre - grids.bold_step_mm * (np.array(grids.bold_shape) - 1) / 2
    bold_grid = head.Grid(grids.bold_shape, grids.bold_step_mm, tuple(np.round(origin, 2).tolist()))
    anatomy = bold.from_t1(clean, brain, labels, grid)
    frames = bold.scan(rng, anatomy, drawn.changes, bold_grid, position, drawn.physiology, drawn.motion)
    func = subject.folder(root) / "func"
    run = f"{subject.stem}_task-rest"
    folder.write_nifti(func / f"{run}_bold.nii.gz", frames, bold_grid.affine, tr_s=subject.tr_s, scanner=True)
    write_json(func / f"{run}_bold.json", {**_SCANNER, "TaskName": "rest", "RepetitionTime": subject.tr_s})

    truth = root / "sourcedata" / "truth"
    folder.write_nifti(truth / f"{subject.stem}_desc-brain_mask.nii.gz", brain, grid.affine, scanner=True)
    folder.write_nifti(
        truth / f"{subject.stem}_atlas-{sources.ATLAS.label}_dseg.nii.gz", labels, grid.affine, scanner=True
    )
    folder.write_tsv(truth / f"{run}_motion.tsv", dict(zip(NAMES, drawn.motion.T, strict=True)), digits=8)
    folder.write_series(truth / f"{run}_timeseries.parquet", sources.atlas().names, drawn.parcels)
    write_json(
        truth / f"{run}_truth.json",
        {
            "Synthetic": True,
            "motion": "of the head against the first frame, mm and rad, about motion_centre_mm, scanner coordinates",
            "motion_centre_mm": centre_of(bold_grid),
            "mean_fd_mm": float(np.nanmean(framewise_displacement(drawn.motion))),
            "t1w_to_bold_mm": position.tolist(),
            "parcel_percent_sd": drawn.physiology.parcels,
            "t1w_to_standard_affine_part_mm": to_standard.tolist(),
        },
    )


def centre_of(grid: head.Grid) -> list[float]:
    """Middle of a grid, mm."""
    return (grid.affine @ [*(np.array(grid.shape) - 1) / 2, 1])[:3].tolist()
