"""Parcellation of a BOLD volume: ours, nilearn's and plain decompression of the file, paired in one run.

    python tests/benchmarks/parcellation.py --templates results/templates --frames 490 --rounds 3

Every case is a process of its own, whose imports are not counted; CPU seconds and the peak of its memory are what it
used itself. Rounds are interleaved (A, B, C, A, B, C, ...), ratios are of their medians. No part of the test suite.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np

#: fMRIPrep's MNI152NLin2009cAsym grid at 2 mm.
SHAPE, ORIGIN_MM = (97, 115, 97), (-96.5, -132.5, -78.5)


def write_run(path: Path, dtype: str, frames: int, templates: Path) -> None:
    """Noise inside a head that fills a third of the field of view."""
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = ORIGIN_MM
    place = np.indices(SHAPE).reshape(3, -1).T * 2.0 + ORIGIN_MM
    head = (((place - (0, -20, 8)) / (76, 98, 84)) ** 2).sum(1).reshape(SHAPE) < 1
    rng = np.random.default_rng(0)
    base = rng.uniform(4000, 12000, SHAPE).astype(np.float32)
    header = nib.Nifti1Image(np.zeros((1, 1, 1, 1), dtype), affine).header.copy()
    header.set_data_shape((*SHAPE, frames))
    header.set_zooms((2, 2, 2, 0.735))
    with nib.openers.Opener(str(path), "wb", compresslevel=1) as file:
        header["vox_offset"] = 352
        file.write(header.binaryblock + b"\0" * 4)
        for _ in range(frames):
            volume = np.where(head, base + 100 * rng.standard_normal(SHAPE, np.float32), 0).astype(dtype)
            file.write(volume.tobytes(order="F"))


def run_ours(path: Path, templates: Path) -> np.ndarray:
    from bhx_prep.atlas.atlas import load_atlas
    from bhx_prep.features import parcellate

    atlas = load_atlas(templates)
    yield
    yield parcellate.parcellate_file(path, atlas, min_coverage=1).series


def run_nilearn(path: Path, templates: Path, reports: bool = False):
    from nilearn.maskers import NiftiLabelsMasker

    masker = NiftiLabelsMasker(
        str(templates / "atlas_volume.nii.gz"), standardize=None, reports=reports, resampling_target="data"
    )
    yield
    yield masker.fit_transform(str(path)).T


def run_nilearn_default(path: Path, templates: Path):
    yield from run_nilearn(path, templates, reports=True)


def run_inflate(path: Path, templates: Path):
    from isal import igzip

    buffer = bytearray(4 * int(np.prod(SHAPE)))
    yield
    with igzip.open(path, "rb") as file:
        while file.readinto(buffer):
            pass
    yield None


CASES = {
    "ours": run_ours,
    "nilearn": run_nilearn,
    "nilearn, reports": run_nilearn_default,
    "inflate": run_inflate,
}


def measure(case: str, path: Path, templates: Path, result: Path | None) -> dict[str, float]:
    """Run one case in a process of its own."""
    command = [sys.executable, __file__, "--case", case, "--file", str(path), "--templates", str(templates)]
    command += ["--result", str(result)] if result else []
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def one_case(case: str, path: Path, templates: Path, result: Path | None) -> None:
    steps = CASES[case](path, templates)
    next(steps)  # imports
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    series = next(steps)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    if result and series is not None:
        np.save(result, series)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"cpu": cpu, "wall": wall, "mb": after.ru_maxrss / 1024}))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--templates", type=Path, default=Path("results/templates"))
    parser.add_argument("--frames", type=int, default=100, help="490 are UK Biobank's")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--types", nargs="+", default=["float32", "int16"])
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        one_case(args.case, args.file, args.templates, args.result)
        return
    with tempfile.TemporaryDirectory() as folder:
        for dtype in args.types:
            path = Path(folder) / f"{dtype}.nii.gz"
            write_run(path, dtype, args.frames, args.templates)
            results = {case: Path(folder) / f"{case}.npy" for case in CASES}
            seen: dict[str, list[dict[str, float]]] = {case: [] for case in CASES}
            for _ in range(args.rounds):
                for case in CASES:
                    seen[case].append(measure(case, path, args.templates, results[case]))
            a, b = np.load(results["ours"]), np.load(results["nilearn"])
            size = path.stat().st_size / 1e6
            print(f"\n{dtype}, {' x '.join(map(str, SHAPE))} x {args.frames}, {size:.0f} MB gzipped")
            print(
                f"  {np.isfinite(a[:, 0]).sum()} parcels have signal in all voxels; largest difference from nilearn there "
                f"{np.nanmax(np.abs(a / b - 1)):.1e}"
            )
            cpu = {case: statistics.median(m["cpu"] for m in runs) for case, runs in seen.items()}
            for case, runs in seen.items():
                wall = min(m["wall"] for m in runs)
                memory = max(m["mb"] for m in runs)
                print(f"  {case:18} {cpu[case]:7.2f} s CPU  {wall:7.2f} s wall (best)  {memory:6.0f} MB peak")
            print(
                f"  speed: {cpu['nilearn'] / cpu['ours']:.1f} x nilearn, {cpu['nilearn, reports'] / cpu['ours']:.1f} x"
                f" its default call; {cpu['ours'] / cpu['inflate']:.2f} x the time of inflating"
            )


if __name__ == "__main__":
    main()
