"""The cohort `rawbids`: raw BIDS, the input `bids`. Two whole heads with resting BOLD and real head motion."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bhx_prep.demo import bold, folder, head, series, sources
from bhx_prep.demo.chance import generator
from bhx_prep.demo.version import version
from bhx_prep.io.motion import NAMES, framewise_displacement

#: What a scanner adds to a BIDS sidecar here, beside the times.
_SCANNER = {"Manufacturer": "none (synthetic)", "MagneticFieldStrength": 3, "Synthetic": True}

#: Name of the random stream. The cohort may be renamed without its data changing.
STREAM = "people"


@dataclass(frozen=True)
class Person:
    """One person and how they are scanned."""

    subject: str
    session: str | None
    tr_s: float
    n_frames: int
    mean_fd_mm: float
    motion_from: int

    @property
    def stem(self) -> str:
        """Beginning of every file name."""
        return f"sub-{self.subject}" + (f"_ses-{self.session}" if self.session else "")

    def folder(self, root: Path) -> Path:
        """Where the person's images stand."""
        below = root / f"sub-{self.subject}"
        return below / f"ses-{self.session}" if self.session else below


PEOPLE = (
    Person("01", None, 2.0, 150, 0.12, 20),
    Person("02", "a", 2.5, 120, 0.20, 300),
)


@dataclass(frozen=True)
class Sizes:
    """Grids of the images."""

    t1_step_mm: float = 1.5
    bold_step_mm: float = 4.0
    bold_shape: tuple[int, int, int] = (64, 64, 36)


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
        "BHX demo cohort rawbids",
        "Raw T1w and resting BOLD of two people who do not exist: one average head, smoothly deformed, with bias field "
        "and noise; BOLD made from the same heads, with the connectivity of HCP people and the real head motion of "
        "a LEMON scan.\n\nWhat was planted (positions, motion, parcel series, parcels and brain on the images' own "
        "grids) stands in sourcedata/truth.",
        derivative=False,
        version=version(),
    )
    for person in people:
        _write(root, seed, person, sizes)


def _write(root: Path, seed: int, person: Person, sizes: Sizes) -> None:
    real = sources.template()
    rng = generator(seed, STREAM, person.subject)
    step = sizes.t1_step_mm
    shape = tuple(int(np.ceil(mm / step)) for mm in (186, 234, 216))
    # like every scanner's, the grid does not know where the head is
    grid = head.Grid(shape, step, tuple(-step * (n - 1) / 2 for n in shape))  # type: ignore[arg-type]
    lies = np.concatenate([rng.normal(0, 4, 3), rng.normal(0, 0.06, 3)])
    to_standard = np.linalg.inv(head.rigid(lies, np.zeros(3)))
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
    anat = person.folder(root) / "anat"
    folder.write_nifti(
        anat / f"{person.stem}_T1w.nii.gz", np.rint(t1).astype(np.int16), grid.affine, scanner=True
    )
    folder.write_json(anat / f"{person.stem}_T1w.json", _SCANNER)

    n, tr = person.n_frames, person.tr_s
    own = series.individual(rng, sources.connectivity())
    parcels = series.draw(rng, own, n, tr, sources.real_spectrum())
    physiology = bold.Physiology()
    changes = bold.percent_changes(rng, parcels, tr, sources.real_spectrum(), physiology)
    motion = bold.take_motion(sources.real_motion(), person.motion_from, n, person.mean_fd_mm)
    shift = np.concatenate([rng.normal(0, 1.5, 3), rng.normal(0, 0.01, 3)])  # moved a little after the T1
    position = head.rigid(shift, np.zeros(3))
    # slices are laid over the brain, as a radiographer does
    voxels = np.argwhere(brain[::3, ::3, ::3])
    centre = (position @ grid.affine @ [*(voxels.mean(axis=0) * 3), 1])[:3]
    origin = centre - sizes.bold_step_mm * (np.array(sizes.bold_shape) - 1) / 2
    bold_grid = head.Grid(sizes.bold_shape, sizes.bold_step_mm, tuple(np.round(origin, 2).tolist()))
    anatomy = bold.see(clean, brain, labels, grid)
    frames = bold.scan(rng, anatomy, changes, bold_grid, position, physiology, motion)
    func = person.folder(root) / "func"
    run = f"{person.stem}_task-rest"
    folder.write_nifti(func / f"{run}_bold.nii.gz", frames, bold_grid.affine, tr_s=tr, scanner=True)
    folder.write_json(func / f"{run}_bold.json", {**_SCANNER, "TaskName": "rest", "RepetitionTime": tr})

    truth = root / "sourcedata" / "truth"
    folder.write_nifti(truth / f"{person.stem}_desc-brain_mask.nii.gz", brain, grid.affine, scanner=True)
    folder.write_nifti(
        truth / f"{person.stem}_atlas-{sources.ATLAS.label}_dseg.nii.gz", labels, grid.affine, scanner=True
    )
    folder.write_tsv(truth / f"{run}_motion.tsv", dict(zip(NAMES, motion.T, strict=True)), digits=8)
    folder.write_series(truth / f"{run}_timeseries.parquet", sources.atlas().names, parcels)
    folder.write_json(
        truth / f"{run}_truth.json",
        {
            "Synthetic": True,
            "motion": "of the head against the first frame, mm and rad, about motion_centre_mm, scanner coordinates",
            "motion_centre_mm": centre_of(bold_grid),
            "mean_fd_mm": float(np.nanmean(framewise_displacement(motion))),
            "t1w_to_bold_mm": position.tolist(),
            "parcel_percent_sd": physiology.parcels,
            "t1w_to_standard_affine_part_mm": to_standard.tolist(),
        },
    )


def centre_of(grid: head.Grid) -> list[float]:
    """Middle of a grid, mm."""
    return (grid.affine @ [*(np.array(grid.shape) - 1) / 2, 1])[:3].tolist()
