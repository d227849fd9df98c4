"""Run the embedded workflow on BOLD with planted truth, and measure its memory; needs the environment of ANTs.

    .venv-ants/bin/python tests/benchmarks/preproc_bold.py --templates results/templates --work DIR [motion slices ...]

Parts: motion, coregistration, slices, distortion, size. Prints a line of JSON per part, each number beside its goal. The
head is the template's, on another grid and with another contrast: no person's.

`size` runs every step of a run of 88 x 88 x 64 x --frames in one process and prints the peak of its resident memory, with
torch and ANTs loaded. To end within minutes it fits the motion of every 100th frame only and interpolates linearly: neither
changes what is in memory at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):
    os.environ[name] = "1"
os.environ["NO_ET"] = "1"
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "workflow"), str(ROOT / "tests/builders")]

# ruff: noqa: E402
import ants
import nibabel as nib
import numpy as np
import planted_distortion
from nibabel.processing import resample_from_to
from scipy import ndimage
from scipy.spatial.transform import Rotation

from bhx_prep.preproc.embedded import realign_step, resample
from bhx_prep.preproc.embedded.coregister import Coregister
from bhx_prep.preproc.embedded.derivatives import SaveRun
from bhx_prep.preproc.embedded.distortion_step import EstimateDistortion
from bhx_prep.preproc.embedded.frames import Frames, FrameWriter
from bhx_prep.preproc.embedded.measure import Measure
from bhx_prep.preproc.embedded.prepare import Prepare
from bhx_prep.preproc.embedded.realign import realign
from bhx_prep.preproc.embedded.series import check_series
from bhx_prep.preproc.embedded.slice_timing import slice_times
from bhx_prep.preproc.embedded.slice_timing_step import CorrectSliceTiming

Image = Any
#: Goals: mm, mm, share of the TR over the head's height, share of a planted 7 mm that is left, GB per frames.
GOALS = {"motion_rms_mm": 0.05, "coregistration_mm": 0.5, "delay_tr": 0.1, "left": 0.5, 490: 3.0, 1200: 6.0}
PLANTED_MM = 7.0


def head(
    templates: Path, shape: tuple[int, int, int], zooms: tuple[float, float, float]
) -> tuple[Image, Image]:
    """The template's head, and its brain mask, on a scanner's grid (RAS) around the brain."""
    t1w: Image = nib.load(templates / "head_T1w.nii.gz")
    mask: Image = nib.load(templates / "head_mask.nii.gz")
    inside = np.argwhere(np.asarray(mask.dataobj) > 0)
    middle = mask.affine[:3, :3] @ inside.mean(axis=0) + mask.affine[:3, 3]
    affine = np.diag([*zooms, 1.0])
    affine[:3, 3] = middle - affine[:3, :3] @ (np.asarray(shape) - 1) / 2
    at = (shape, affine)
    return resample_from_to(t1w, at, order=1), resample_from_to(_float(mask), at, order=1)


def _float(image: Image) -> Image:
    return nib.Nifti1Image(np.asarray(image.dataobj, np.float32), image.affine)


def contrast_of_bold(t1w: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Fluid bright, white matter dark, little scalp."""
    top = np.percentile(t1w[brain > 0.5], 99)
    return np.where(brain > 0.5, 1.3 * top - t1w, 0.2 * t1w) * (800 / top)


def moved(volume: np.ndarray, affine: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The volume of a head that `matrix` (world, reference -> frame) moves."""
    back = np.linalg.inv(affine) @ np.linalg.inv(matrix) @ affine
    return ndimage.affine_transform(volume, back[:3, :3], back[:3, 3], order=3)


def distance(first: np.ndarray, second: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Distances (mm) between where two transforms bring points (N, 3)."""
    change = first - second
    return np.linalg.norm(points @ change[:3, :3].T + change[:3, 3], axis=1)


def brain_points(brain: Image) -> np.ndarray:
    """World coordinates of the brain's voxels, (N, 3)."""
    index = np.argwhere(np.asarray(brain.dataobj) > 0.5)
    return index @ brain.affine[:3, :3].T + brain.affine[:3, 3]


def motion_part(templates: Path, work: Path) -> dict[str, float]:
    """Planted: 24 frames turned by up to 2 degrees and shifted by up to 2 mm, 2 % noise."""
    t1w, brain = head(templates, (64, 64, 36), (3.5, 3.5, 4.0))
    rng = np.random.default_rng(0)
    volume = contrast_of_bold(np.asarray(t1w.dataobj), np.asarray(brain.dataobj))
    points = brain_points(brain)
    centre = points.mean(axis=0)
    truth = np.tile(np.eye(4), (24, 1, 1))
    walk = np.cumsum(rng.normal(size=(24, 6)), axis=0)
    walk *= [2.0, 2.0, 2.0, 2.0, 2.0, 2.0] / np.abs(walk).max(axis=0)
    walk[:, 3:] = np.radians(walk[:, 3:])
    for t in range(1, 24):
        turn = Rotation.from_rotvec(walk[t, 3:]).as_matrix()
        truth[t, :3, :3], truth[t, :3, 3] = turn, walk[t, :3] + centre - turn @ centre
    frames = [moved(volume, t1w.affine, matrix) + rng.normal(0, 16, volume.shape) for matrix in truth]
    zooms = np.asarray(t1w.header.get_zooms()[:3])
    found = realign(lambda t: frames[t].astype(np.float32), 24, t1w.affine, frames[0], zooms)
    errors = np.concatenate([distance(found[t], truth[t], points) for t in range(1, 24)])
    return {"motion_rms_mm": float(np.sqrt((errors**2).mean()))}


def coregistration_part(templates: Path, work: Path) -> dict[str, float]:
    """Planted: BOLD at 3.5 x 3.5 x 4 mm, 12 mm and 8 degrees from the T1w."""
    t1w, mask = head(templates, (120, 144, 120), (1.5, 1.5, 1.5))
    bold, brain = head(templates, (64, 64, 36), (3.5, 3.5, 4.0))
    rng = np.random.default_rng(1)
    volume = contrast_of_bold(np.asarray(bold.dataobj), np.asarray(brain.dataobj))
    volume = np.maximum(volume + rng.normal(0, 16, volume.shape), 0)
    points = brain_points(brain)
    centre, turn = points.mean(axis=0), Rotation.from_rotvec(np.radians([6.0, -4.0, 3.5])).as_matrix()
    truth = np.eye(4)
    truth[:3, :3], truth[:3, 3] = turn, np.array([5.0, -8.0, 7.0]) + centre - turn @ centre
    paths = {name: str(work / f"{name}.nii.gz") for name in ("boldref", "anat", "anat_mask")}
    nib.Nifti1Image(volume.astype(np.float32), truth @ bold.affine).to_filename(paths["boldref"])
    _float(t1w).to_filename(paths["anat"])
    nib.Nifti1Image((np.asarray(mask.dataobj) > 0.5).astype(np.uint8), mask.affine).to_filename(
        paths["anat_mask"]
    )
    out = Coregister(**paths).run(cwd=str(work)).outputs
    transform = ants.read_transform(out.to_anat)  # T1w -> BOLD, LPS
    lps = np.array([-1.0, -1.0, 1.0])
    found = np.stack([np.asarray(transform.apply_to_point(point * lps)) * lps for point in points[::50]])
    wanted = points[::50] @ truth[:3, :3].T + truth[:3, 3]
    return {"coregistration_mm": float(np.linalg.norm(found - wanted, axis=1).mean())}


def slices_part(templates: Path, work: Path) -> dict[str, float]:
    """Planted: one resting signal everywhere, TR 3.2 s, 36 ascending slices, and the same with multiband 3."""
    numbers = {}
    tr_s, n, shape = 3.2, 120, (6, 6, 36)
    rng = np.random.default_rng(2)
    tones, phases = rng.uniform(0.01, 0.1, 40), rng.uniform(0, 2 * np.pi, 40)
    ascending = [i * tr_s / 36 for i in range(36)]
    for kind, given in (("", ascending), ("multiband_", [ascending[(i % 12) * 3] for i in range(36)])):
        times = slice_times({"SliceTiming": given}, shape, tr_s)
        assert times is not None
        when = np.arange(n) * tr_s + np.asarray(given)[:, None]
        signal = np.sin(2 * np.pi * tones * when[..., None] + phases).sum(axis=2)
        series = 1000 + 2 * signal[None, None] + rng.normal(0, 1, (*shape, n))
        path = work / f"{kind}raw.nii"
        with FrameWriter(path, np.diag([4.0, 4.0, 4.0, 1.0]), series.shape) as writer:
            for t in range(n):
                writer.append(series[..., t])
        step = CorrectSliceTiming(in_file=str(path), times_s=given, axis=2, tr_s=tr_s, n_dummies=0)
        out = step.run(cwd=str(work)).outputs
        fixed = np.stack(list(Frames(Path(out.out_file))), axis=3)
        for name, values in (("delay_before_tr", series), ("delay_tr", fixed)):
            lines = values.mean(axis=(0, 1)) - values.mean(axis=(0, 1, 3))[:, None]
            lags = [_delay(lines[0], line) for line in lines]
            numbers[f"{kind}{name}"] = float(max(lags) - min(lags))
            if not kind:
                numbers[name.replace("delay", "correlation").removesuffix("_tr")] = float(
                    np.corrcoef(lines[0], lines[-1])[0, 1]
                )
    return numbers


def _delay(first: np.ndarray, second: np.ndarray) -> float:
    """Samples by which the second series is early, from the phases of their spectra below half the sampling rate."""
    window = np.hanning(len(first))
    spectra = [np.fft.rfft(window * series) for series in (first, second)]
    cross = spectra[1] * spectra[0].conj()
    omega = 2 * np.pi * np.arange(len(cross)) / len(first)
    used = (omega > 0.1) & (omega < 2.0)
    weight = np.abs(cross[used])
    return float((weight * omega[used] * np.angle(cross[used])).sum() / (weight * omega[used] ** 2).sum())


def distortion_part(templates: Path, work: Path) -> dict[str, float]:
    """Planted: 7 mm in front of and beside the template's brain; mean where it is more than 30 % of that."""
    t1w, brain = head(templates, (60, 72, 40), (3.2, 3.2, 3.5))
    image = contrast_of_bold(np.asarray(t1w.dataobj), np.asarray(brain.dataobj)).astype(np.float64)
    _, shape, _ = planted_distortion.head(image.shape)
    d, readout_s, delta_s = shape * PLANTED_MM / 3.2, 0.05, 2.46e-3
    rng = np.random.default_rng(3)

    def write(name: str, values: np.ndarray) -> str:
        nib.Nifti1Image(np.asarray(values, np.float32), t1w.affine).to_filename(work / f"{name}.nii.gz")
        return str(work / f"{name}.nii.gz")

    def noisy(values: np.ndarray) -> np.ndarray:
        return np.maximum(values + rng.normal(0, 12, image.shape), 0)

    hertz = d / readout_s
    phase = np.angle(np.exp(2j * np.pi * hertz * delta_s)) / np.pi * 4096
    phase = np.where(image > 40, phase, rng.uniform(-4096, 4095, image.shape))
    boldref = write("boldref", noisy(planted_distortion.distort(image, d, 1)))
    magnitude = write("magnitude", noisy(np.asarray(t1w.dataobj) * (800 / np.asarray(t1w.dataobj).max())))
    same, opposite = (
        {
            "path": write(name, noisy(planted_distortion.distort(image, sign * d, 1))),
            "direction": way,
            "readout_s": 0.05,
        }
        for name, sign, way in (("same", 1, "j"), ("opposite", -1, "j-"))
    )
    maps: dict[str, dict[str, Any]] = {
        "phasediff": {"images": [write("phase", phase)], "magnitude": magnitude, "scale": delta_s},
        "epi": {"epis": [same, opposite]},
    }
    far = (np.asarray(brain.dataobj) > 0.5) & (np.abs(shape) > 0.3)
    numbers = {"distortion_before_mm": float(3.2 * np.abs(d[far]).mean())}
    for kind, more in maps.items():
        folder = work / kind
        folder.mkdir(exist_ok=True)
        given = {"kind": kind, "direction": "j", "readout_s": readout_s, **more}
        out = EstimateDistortion(boldref=boldref, field_map=given).run(cwd=str(folder)).outputs
        found = np.asarray(nib.load(out.displacement).dataobj)  # type: ignore[attr-defined]
        numbers[f"distortion_{kind}_mm"] = float(3.2 * np.abs(found - d)[far].mean())
    return numbers


def size_part(templates: Path, work: Path, frames: int) -> dict[str, float]:
    """Every step of a run of 88 x 88 x 64 voxels of 2.4 mm."""
    import torch  # noqa: F401  what the brain mask has loaded by then

    shape, tr_s = (88, 88, 64), 0.8
    t1w, brain = head(templates, shape, (2.4, 2.4, 2.4))
    rng = np.random.default_rng(4)
    volume = contrast_of_bold(np.asarray(t1w.dataobj), np.asarray(brain.dataobj)).astype(np.float32)
    raw = work / "raw.nii.gz"
    with FrameWriter(raw, t1w.affine, (*shape, frames), tr_s=tr_s, limits=(0, 2000)) as writer:
        for _ in range(frames):
            writer.append(np.maximum(volume + rng.normal(0, 10, shape).astype(np.float32), 0))
    truly = realign_step.realign

    def some(frame: Any, n: int, *rest: Any) -> np.ndarray:
        found = np.tile(np.eye(4), (n, 1, 1))
        found[::100] = truly(lambda i: frame(100 * i), len(found[::100]), *rest)
        return found

    cubic = ndimage.map_coordinates
    realign_step.realign = some
    resample.ndimage.map_coordinates = lambda *a, **k: cubic(*a, **{**k, "order": 1})
    identity = str(work / "identity.mat")
    ants.write_transform(ants.create_ants_transform(dimension=3), identity)
    masks = {}
    for name in ("anat_mask", "wm", "csf"):
        masks[name] = str(work / f"{name}.nii.gz")
        low, high = {"anat_mask": (0, 9e9), "wm": (0.8, 9e9), "csf": (0, 0.4)}[name]
        mask: Image = nib.load(templates / "head_mask.nii.gz")
        given: Image = nib.load(templates / "head_T1w.nii.gz")
        values = np.asarray(given.dataobj) / np.percentile(given.dataobj, 99)
        inside = (np.asarray(mask.dataobj) > 0) & (values >= low) & (values < high)
        nib.Nifti1Image(inside.astype(np.float32), mask.affine).to_filename(masks[name])
    seconds: dict[str, float] = {}

    def step(name: str, interface: Any) -> Any:
        start = time.process_time()
        (work / name).mkdir(exist_ok=True)
        made = interface.run(cwd=str(work / name)).outputs
        seconds[name] = round(time.process_time() - start, 1)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"{name}: {seconds[name]} CPU s, peak {peak:.2f} GB", file=sys.stderr)
        return made

    check_series(nib.load(raw, keep_file_open=True))
    bold = step("prepare", Prepare(in_file=str(raw), zooms=(2.4, 2.4, 2.4))).out_file
    from nipype.algorithms.confounds import NonSteadyStateDetector

    dummies = step("dummies", NonSteadyStateDetector(in_file=bold)).n_volumes_to_discard
    times = [tr_s * (i % 16) / 16 for i in range(64)]
    fixed = step(
        "slices", CorrectSliceTiming(in_file=bold, times_s=times, axis=2, tr_s=tr_s, n_dummies=dummies)
    )
    found = step("realign", realign_step.Realign(in_file=bold, n_dummies=dummies))
    grid = {
        "template": str(templates / "head_T1w.nii.gz"),
        "template_mask": str(templates / "head_mask.nii.gz"),
    }
    on_grid = step(
        "resample",
        resample.Resample(
            in_file=fixed.out_file, matrices=found.matrices, reference=found.reference, bold_to_anat=identity,
            anat_to_template=identity, spacing_mm=2.0, **grid,
        ),
    )  # fmt: skip
    table = step(
        "measure",
        Measure(
            in_file=on_grid.out_file, mask=on_grid.mask, movement=found.movement, rmsd=found.rmsd,
            anat_to_template=identity, tr_s=tr_s, n_dummies=dummies, **masks,
        ),
    )  # fmt: skip
    step(
        "save",
        SaveRun(
            base=str(work / "out"), folder="sub-01/func", stem="sub-01_task-rest", sidecar={}, source="x", anat="x",
            spacing_mm=2.0, tr_s=tr_s, n_dummies=dummies, timing=fixed.metadata, distortion={},
            bold=on_grid.out_file, mask=on_grid.mask, boldref=on_grid.boldref, hmc_boldref=found.reference,
            coreg_boldref=found.boldref, bold_to_anat=identity, table=table.table, metadata=table.metadata,
        ),
    )  # fmt: skip
    return {"frames": frames, "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}


def judged(part: str, numbers: dict[str, float]) -> dict[str, Any]:
    """Numbers with their goals."""
    goals: dict[str, float] = {}
    for name in numbers:
        if name in ("motion_rms_mm", "coregistration_mm"):
            goals[name] = GOALS[name]
        elif name.endswith("delay_tr"):
            goals[name] = GOALS["delay_tr"]
        elif name.startswith("distortion_") and "before" not in name:
            goals[name] = round(GOALS["left"] * numbers["distortion_before_mm"], 2)
        elif name == "peak_gb":
            goals[name] = GOALS.get(int(numbers["frames"]), float("nan"))
    reached = {name: bool(numbers[name] <= goal) for name, goal in goals.items()}
    shown = {name: round(float(value), 4) for name, value in numbers.items()}
    return {"part": part, **shown, "goals": goals, "reached": reached}


def main() -> None:
    """Run the parts."""
    parts = {
        "motion": motion_part, "coregistration": coregistration_part, "slices": slices_part, "distortion": distortion_part,
    }  # fmt: skip
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--templates", required=True, type=Path, help="folder made by bhx_prep.atlas.fetch")
    parser.add_argument(
        "--work", required=True, type=Path, help="for files on the way; may be large for `size`"
    )
    parser.add_argument("--frames", type=int, default=490, help="of `size` (%(default)s)")
    parser.add_argument("parts", nargs="*", default=[*parts], help="%(default)s, size")
    args = parser.parse_args()
    for part in args.parts:
        work = (args.work / part).absolute()
        work.mkdir(parents=True, exist_ok=True)
        start = time.process_time()
        if part == "size":
            numbers = size_part(args.templates.absolute(), work, args.frames)
        else:
            numbers = parts[part](args.templates.absolute(), work)
        print(
            json.dumps({**judged(part, numbers), "cpu_s": round(time.process_time() - start, 1)}), flush=True
        )


if __name__ == "__main__":
    main()
